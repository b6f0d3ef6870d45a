//! What the tests of serving and attaching share: a host with its socket, and other processes.

#![allow(dead_code, reason = "each test file uses its part")]

use ringtap::serve::Server;
use ringtap::{Config, Host};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Tells a process of this test binary what to do; see [`Other::start`].
const ROLE: &str = "RINGTAP_TEST_ROLE";
const SOCKET: &str = "RINGTAP_TEST_SOCKET";

/// A path for a socket, in a directory that goes with it.
pub(crate) struct Place(PathBuf);

impl Place {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        Self(std::env::temp_dir().join(format!("ringtap-attach-{}-{number}", std::process::id())))
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.0.join("host.sock")
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A host that serves.
pub(crate) struct Served {
    pub(crate) server: Option<Server>,
    pub(crate) host: Host,
    pub(crate) place: Place,
}

impl Served {
    pub(crate) fn new() -> Self {
        Self::with(&Config { ring_subbufs: 16, ..Config::default() })
    }

    pub(crate) fn with(config: &Config) -> Self {
        let (place, host) = (Place::new(), Host::new(config).expect("buffers can be made"));
        let server = Some(host.serve(place.socket()).expect("it can serve"));
        Self { server, host, place }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.place.socket()
    }

    /// Events written on all CPUs.
    pub(crate) fn written(&self) -> u64 {
        self.sum(|stats| stats.written())
    }

    pub(crate) fn sum(&self, count: impl Fn(&ringtap::Stats) -> u64) -> u64 {
        self.host.cpus().iter().map(|&cpu| count(&self.host.stats(cpu).expect("it is undamaged"))).sum()
    }
}

/// Another process, which runs the test `process` of this binary.
pub(crate) struct Other {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Other {
    pub(crate) fn start(role: &str, socket: &Path) -> Self {
        Self::start_with(role, socket, &[])
    }

    /// As [`start`](Self::start), with more of an environment.
    pub(crate) fn start_with(role: &str, socket: &Path, environment: &[(&str, &str)]) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("it has a path"))
            .args(["process", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .env(SOCKET, socket)
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        Self { input: child.stdin.take(), child, output }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the process said with [`say`], the next thing; `None` when it has ended.
    pub(crate) fn hear(&mut self) -> Option<String> {
        let mut line = String::new();
        while self.output.read_line(&mut line).expect("the pipe is sound") > 0 {
            if let Some((_, said)) = line.trim_end().split_once("SAYS ") {
                return Some(said.to_owned());
            }
            line.clear();
        }
        None
    }

    pub(crate) fn expect(&mut self, what: &str) {
        assert_eq!(self.hear().as_deref(), Some(what));
    }

    /// Sends the process a line.
    pub(crate) fn tell(&mut self, line: &str) {
        let input = self.input.as_mut().expect("it was not told to go on");
        writeln!(input, "{line}").expect("it listens");
    }

    /// Lets a process that waits in [`wait_for_parent`] go on.
    pub(crate) fn go_on(&mut self) {
        self.input = None;
    }

    /// Stops the process, as a debugger would, and waits until it stands.
    pub(crate) fn stop(&self) {
        self.stop_with(Signal::STOP);
    }

    /// Stops the process by a signal upon which it does, and waits until it stands.
    pub(crate) fn stop_with(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("it is ours");
        waitid(WaitId::Pid(pid), WaitIdOptions::STOPPED).expect("it is ours");
    }

    /// Lets a process go on that was stopped.
    pub(crate) fn resume(&self) {
        kill_process(Pid::from_child(&self.child), Signal::CONT).expect("it is ours");
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it is ours");
        self.child.wait().expect("it is ours");
    }

    /// Waits for its end, which must be a good one.
    pub(crate) fn finish(mut self) {
        self.go_on();
        while self.hear().is_some() {}
        let status = self.child.wait().expect("it is ours");
        assert!(status.success(), "the other process failed: {status}");
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// In another process: its role and the socket.
pub(crate) fn role() -> (String, PathBuf) {
    let role = std::env::var(ROLE).expect("run by another test of this file");
    (role, std::env::var_os(SOCKET).expect("given with the role").into())
}

/// In another process: tells the parent.
pub(crate) fn say(what: impl std::fmt::Display) {
    println!("\nSAYS {what}");
}

/// In another process: waits for [`Other::go_on`], or the parent's death.
pub(crate) fn wait_for_parent() {
    let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
}

/// Waits until `done`, for a while.
pub(crate) fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("waited in vain until {what}");
}

/// Becomes the user nobody for good; `false` where only root could.
pub(crate) fn become_nobody() -> bool {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can become another user");
        return false;
    }
    // SAFETY: changes what the process may do, and no memory.
    let changed = unsafe { libc::setuid(65534) };
    assert_eq!(changed, 0, "root may become nobody");
    true
}

/// A format text whose only field has this declaration.
pub(crate) fn format_of(name: &str, field: &str) -> String {
    format!(
        "name: {name}\nID:\nformat:\n\
         \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
         \tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;\n\
         \tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;\n\
         \tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n\
         \tfield:{field};\toffset:8;\tsize:8;\tsigned:0;\n\nprint fmt: \"\"\n"
    )
}

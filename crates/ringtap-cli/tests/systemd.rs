//! The units of `packaging/systemd`, as systemd reads them; and `ringtap serve` on a socket that it is passed.

mod support;

use ringtap::attach::{Attachment, Connection, Role};
use ringtap::serve::TreeCall;
use rustix::fd::OwnedFd;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::Signal;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use support::{Temporary, ringtap, said, signal, until};

ringtap::event! {
    /// What the test writes.
    pub struct Step as systemd:step { number: u64 }
}

#[test]
fn systemd_takes_the_units() {
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/systemd");
    let folder = Temporary::new("systemd");
    for (unit, manager) in [("ringtap.service", "--system"), ("user/ringtap.service", "--user")] {
        let text = fs::read_to_string(units.join(unit)).unwrap();
        // Where the program is installed is the package's business: here it is this one.
        let text = text.replace("/usr/bin/ringtap", env!("CARGO_BIN_EXE_ringtap"));
        let (_, arguments) = text.split_once(env!("CARGO_BIN_EXE_ringtap")).unwrap();
        assert!(arguments.starts_with(" serve\n"), "{unit}");
        let path = folder.path().join("ringtap.service");
        fs::write(&path, text).unwrap();
        let socket = folder.path().join("ringtap.socket");
        fs::copy(units.join(unit).with_extension("socket"), &socket).unwrap();
        let mut verify = Command::new("systemd-analyze");
        let verify = verify
            .args([manager, "verify", "--man=no"])
            .arg(&path)
            .arg(&socket)
            .env("XDG_RUNTIME_DIR", folder.path());
        let Ok(verified) = verify.output() else {
            return println!("skipped: there is no systemd-analyze");
        };
        let said = String::from_utf8_lossy(&verified.stderr).into_owned();
        // It also speaks of units of this machine.
        assert!(!said.lines().any(|line| line.contains("ringtap.s")), "{unit}: {said}");
    }
}

ringtap::event! {
    /// What another test writes.
    pub struct Late as systemd:late { number: u64 }
}

/// As systemd makes it for `ListenSequentialPacket=`.
fn listening(path: &Path) -> OwnedFd {
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
    let socket = socket.unwrap();
    rustix::net::bind(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
    rustix::net::listen(&socket, 256).unwrap();
    socket
}

/// Starts the daemon as systemd does: the descriptor is number 3, and the environment says so.
fn started_with(descriptor: OwnedFd, count: &str, more: &[&str]) -> Child {
    let mut shell = Command::new("sh");
    shell.args([
        "-c",
        r#"LISTEN_PID=$$ LISTEN_FDS=$1; export LISTEN_PID LISTEN_FDS; shift; exec "$@" 3<&0 0</dev/null"#,
    ]);
    shell.args(["sh", count, env!("CARGO_BIN_EXE_ringtap"), "serve", "--buffer-size", "64"]).args(more);
    shell.stdin(descriptor).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// What a daemon says that ends; killed where it does not.
fn ended(child: Child) -> Output {
    let pid = support::pid(&child);
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || tell.send(child.wait_with_output().unwrap()));
    told.recv_timeout(Duration::from_secs(20)).unwrap_or_else(|_| {
        let _ = rustix::process::kill_process(pid, Signal::KILL);
        told.recv_timeout(Duration::from_secs(20)).expect("it was killed")
    })
}

/// A daemon that is killed at the end, whatever the test comes to.
struct Daemon(Option<Child>);

impl Daemon {
    fn end(mut self, by: Signal) -> Output {
        let child = self.0.take().unwrap();
        signal(&child, by);
        ended(child)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn counted(socket: &Path) -> u64 {
    let connection = Connection::connect(socket, Role::Reader).unwrap();
    (0..).map_while(|cpu| connection.stats(cpu).ok()).map(|stats| stats.written()).sum()
}

#[test]
fn a_passed_socket_is_served_on_and_outlives_daemons() {
    let folder = Temporary::new("activation");
    let path = folder.path().join("host.sock");
    let mark = folder.path().join("host.sock.host");
    let socket = listening(&path);
    let start = || Daemon(Some(started_with(socket.try_clone().unwrap(), "1", &[])));
    let first = start();
    // It waits in the socket's queue until the daemon is there.
    let attachment = Attachment::attach(&path).unwrap();
    Step::register(&attachment).unwrap();
    let on = |number: &str| {
        let file = "events/systemd/step/enable";
        let host = Connection::connect(&path, Role::Reader).unwrap();
        host.tree(file, TreeCall::Write(number.as_bytes())).unwrap();
    };
    on("1");
    let writer = attachment.writer();
    let write = || (0..100).for_each(|number| Step { number }.try_write(&writer).unwrap());
    write();
    assert_eq!(counted(&path), 100);
    assert!(mark.exists());

    let killed = first.end(Signal::KILL);
    assert_eq!(killed.status.signal(), Some(9), "{}", said(&killed));
    write();
    let second = start();
    until("the next one goes on with what there is", || attachment.is_attached() && counted(&path) == 200);
    write();
    assert_eq!(counted(&path), 300);

    let stopped = second.end(Signal::TERM);
    assert_eq!(stopped.status.signal(), Some(15), "{}", said(&stopped));
    let said = said(&stopped);
    assert!(said.contains("took over the buffers") && said.contains("RINGTAP_SOCKET="), "{said}");
    assert!(path.exists() && !mark.exists(), "the socket is systemd's");
    let third = start();
    until("one that was not killed left nothing", || counted(&path) == 0);
    third.end(Signal::TERM);
}

#[test]
fn who_connects_and_says_nothing_keeps_no_host_from_taking_over() {
    let folder = Temporary::new("take-over-silence");
    let path = folder.path().join("host.sock");
    let socket = listening(&path);
    let start = || Daemon(Some(started_with(socket.try_clone().unwrap(), "1", &[])));
    let first = start();
    let attachment = Attachment::attach(&path).unwrap();
    Late::register(&attachment).unwrap();
    let host = Connection::connect(&path, Role::Reader).unwrap();
    host.tree("events/systemd/late/enable", TreeCall::Write(b"1")).unwrap();
    let writer = attachment.writer();
    (0..100).for_each(|number| Late { number }.try_write(&writer).unwrap());
    // They are in the socket's queue before the attached process, whose host ends only then.
    signal(first.0.as_ref().unwrap(), Signal::STOP);
    let silent: Vec<OwnedFd> = (0..40)
        .map(|_| {
            let kind = SocketType::SEQPACKET;
            let silent = rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None);
            let silent = silent.unwrap();
            rustix::net::connect(&silent, &SocketAddrUnix::new(&path).unwrap()).unwrap();
            silent
        })
        .collect();
    first.end(Signal::KILL);
    let second = start();
    until("it has what there was", || attachment.is_attached() && counted(&path) == 100);
    let told = said(&second.end(Signal::TERM));
    assert!(told.contains("took over the buffers"), "{told}");
    drop(silent);
}

#[test]
fn what_cannot_be_served_on_is_refused() {
    let folder = Temporary::new("not-activation");
    let path = folder.path().join("host.sock");
    let refused = |descriptor, count, more: &[&str]| {
        let output = ended(started_with(descriptor, count, more));
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(said.lines().count(), 1, "{said}");
        said
    };
    let file = || OwnedFd::from(fs::File::open("/dev/null").unwrap());
    assert!(refused(file(), "1", &[]).contains("ListenSequentialPacket="));
    assert!(refused(file(), "2", &[]).contains("LISTEN_FDS"));
    assert!(refused(listening(&path), "1", &["--socket", "/tmp/other"]).contains("--socket"));
    assert!(!folder.path().join("host.sock.host").exists());
    let mut not_ours = ringtap();
    not_ours.env("LISTEN_PID", "1").env("LISTEN_FDS", "1").args(["serve", "--socket", "/dev/null"]);
    let not_ours = not_ours.output().unwrap();
    assert!(said(&not_ours).contains("is no socket"), "{}", said(&not_ours));
}

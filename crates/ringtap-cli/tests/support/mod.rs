//! The program, started, signalled and looked at.
#![allow(dead_code, reason = "each test program uses its part")]

use rustix::process::{Pid, Signal};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The program, which takes the signals that the tests send also where they were themselves started with these ignored: under
/// `nohup`, or in the background of a script.
pub(crate) fn ringtap() -> Command {
    let mut command = Command::new("env");
    command.args(["--default-signal=HUP,INT,QUIT,TERM", env!("CARGO_BIN_EXE_ringtap")]);
    command.env_remove("COLUMNS").env_remove("CLICOLOR_FORCE").stdin(Stdio::null());
    command
}

pub(crate) fn run(arguments: &[&str]) -> Output {
    ringtap().args(arguments).output().unwrap()
}

/// Status, and the one of the two outputs that was written to.
pub(crate) fn said(output: &Output) -> String {
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let text = match (stdout.is_empty(), stderr.is_empty()) {
        (true, _) => format!("stderr:\n{stderr}"),
        (_, true) => format!("stdout:\n{stdout}"),
        _ => format!("stdout:\n{stdout}\nstderr:\n{stderr}"),
    };
    format!("status {:?}, {text}", output.status.code())
}

/// As [`said`], wherever the tracefs is mounted here.
pub(crate) fn said_of_tracefs(output: &Output) -> String {
    let tracefs = ringtap::tracefs::Tracefs::find().unwrap();
    said(output).replace(tracefs.root().to_str().unwrap(), "TRACEFS")
}

/// Says why, once, and returns true where the kernel's tracing cannot be used.
pub(crate) fn cannot_trace() -> bool {
    let found = ringtap::tracefs::Tracefs::find();
    found.inspect_err(|error| println!("skipped, as it needs the live kernel: {error}")).is_err()
}

pub(crate) fn pid(child: &Child) -> Pid {
    Pid::from_child(child)
}

pub(crate) fn signal(child: &Child, signal: Signal) {
    rustix::process::kill_process(pid(child), signal).unwrap();
}

/// The memory files that a process has open, by number.
pub(crate) fn memories(pid: u32) -> BTreeSet<u64> {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let is_memory =
        |path: &Path| fs::read_link(path).is_ok_and(|link| link.to_string_lossy().starts_with("/memfd:"));
    let files = open.map(|entry| entry.path()).filter(|path| is_memory(path));
    files.filter_map(|path| Some(std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).ok()?))).collect()
}

/// Waits for what must come to pass, for ten seconds.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < end, "in vain: {what}");
        sleep(Duration::from_millis(5));
    }
}

/// The processes that a process has started.
pub(crate) fn children(of: &Child) -> Vec<u32> {
    let pid = of.id();
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Whether a process exists that has not ended.
pub(crate) fn runs(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
}

/// A folder for temporary files, where all that a run leaves behind is seen. Removed at the end.
#[derive(Debug)]
pub(crate) struct Temporary(PathBuf);

impl Temporary {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("rt-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn ringtap(&self) -> Command {
        let mut command = ringtap();
        command.env("TMPDIR", &self.0).env_remove("XDG_RUNTIME_DIR");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn is_empty(&self) -> bool {
        fs::read_dir(&self.0).unwrap().next().is_none()
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Says why, once, and returns true where `ringtap exec` cannot be had, or its files not be mapped.
pub(crate) fn cannot_exec() -> bool {
    let probe = ringtap().args(["exec", "true"]).output().unwrap();
    if probe.status.success() && probe.stderr.is_empty() {
        return false;
    }
    let reason = String::from_utf8_lossy(&probe.stderr);
    let known = ["/dev/fuse", "only root may", "a private view", "cannot map it"];
    assert!(known.iter().any(|known| reason.contains(known)), "{reason}");
    println!("skipped, as it needs root and FUSE: {reason}");
    true
}

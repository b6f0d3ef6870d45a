//! `ringtap record` and `ringtap stream` while `ringtap set` gives the buffers other sizes: read + lost = written.

mod support;

use ringtap::attach::{self, Attachment, Connection, Role};
use rustix::process::Signal;
use serde_json::Value;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use support::{Temporary, cannot_trace, ringtap, run, said, signal, until};

ringtap::event! {
    /// What the tests write.
    struct Counted as follow:counted { index: u64 }
}
ringtap::event! {
    /// More than a small sub-buffer holds.
    struct Long<'a> as follow:long { text: &'a str }
}

/// `ringtap serve`, and this process as the one that it traces.
struct Served<'t> {
    temporary: &'t Temporary,
    socket: PathBuf,
    child: Child,
    attachment: Attachment,
    written: u64,
    _turn: std::sync::MutexGuard<'static, ()>,
}

/// A process has one id for an event, so those who declare it take turns.
static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());

impl<'t> Served<'t> {
    fn new(temporary: &'t Temporary) -> Self {
        let turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let socket = temporary.path().join("host.sock");
        let mut command = ringtap();
        command.arg("serve").arg("--socket").arg(&socket).args(["--buffer-size", "256"]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        until("the host serves", || Connection::connect(&socket, Role::Reader).is_ok());
        for event in [Counted::declared(), Long::declared()] {
            event.unregister();
        }
        let attachment = Attachment::attach(&socket).unwrap();
        Counted::register(&attachment).unwrap();
        Long::register(&attachment).unwrap();
        let served = Self { temporary, socket, child, attachment, written: 0, _turn: turn };
        served.ask(&["start", "-e", "follow:*"]);
        served
    }

    /// Runs a command that must succeed.
    fn ask(&self, arguments: &[&str]) {
        let output = ringtap().env(attach::SOCKET_VARIABLE, &self.socket).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    }

    fn write(&mut self, events: u64) {
        let writer = self.attachment.writer();
        for index in 0..events {
            Counted { index }.write(&writer);
        }
        self.written += events;
    }

    /// Gives the buffers another size, and waits until this process knows of it: until then its events are refused.
    fn set(&mut self, size: [&str; 2]) {
        self.ask(&["set", size[0], size[1]]);
        until("an event is taken", || {
            let before = self.in_rings();
            self.write(1);
            self.in_rings() > before
        });
    }

    fn command(&self, command: &str) -> Command {
        let mut ringtap = self.temporary.ringtap();
        ringtap.arg(command).arg("--attach").arg(&self.socket);
        ringtap
    }

    /// Records from before the first event that follows.
    fn record(&self, file: &Path, options: &[&str]) -> Child {
        let child = self.command("record").args(["--json", "-o"]).arg(file).args(options).spawn().unwrap();
        until("the recorder has the buffers and a file", || {
            fs::metadata(file).is_ok_and(|file| file.len() > 0) && !support::memories(child.id()).is_empty()
        });
        child
    }

    /// Events in the host's buffers since they were made.
    fn in_rings(&self) -> u64 {
        let connection = Connection::connect(&self.socket, Role::Reader).unwrap();
        let stats = connection.cpus().iter().map(|&cpu| connection.stats(cpu).unwrap());
        let (in_rings, refused) = stats.fold((0, 0), |(written, refused), stats| {
            (written + stats.written(), refused + stats.dropped_events + stats.commit_overrun)
        });
        assert_eq!(in_rings + refused, self.written, "none is uncounted");
        in_rings
    }
}

impl Drop for Served<'_> {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            signal(&self.child, Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

/// Events, and events told to be lost, among lines of JSON.
fn counted(lines: &[u8]) -> (u64, u64) {
    let (mut events, mut lost) = (0, 0);
    for line in lines.split_inclusive(|&byte| byte == b'\n').filter(|line| line.ends_with(b"\n")) {
        let object: Value = serde_json::from_slice(line).unwrap();
        match object["type"].as_str().unwrap() {
            "event" => events += 1,
            "lost" => lost += object["count"].as_u64().unwrap(),
            _ => {}
        }
    }
    (events, lost)
}

/// Ends a recorder: the number of files that it wrote, which must be what trace-cmd takes them for, and what it counted.
fn end(child: Child) -> (usize, (u64, u64)) {
    signal(&child, Signal::INT);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    let files = summary["files"].as_array().unwrap();
    let mut sum = (0, 0);
    for file in files.iter().map(|file| file.as_str().unwrap()) {
        let report = run(&["report", "--json", file]);
        assert!(report.status.code().is_some_and(|code| code < 2), "{}", said(&report));
        let (events, lost) = counted(&report.stdout);
        if let Ok(theirs) = Command::new("trace-cmd").args(["report", "-i", file]).output() {
            let lines = String::from_utf8_lossy(&theirs.stdout);
            let lines = lines.lines().filter(|line| line.contains("counted:") || line.contains("long:"));
            assert_eq!(u64::try_from(lines.count()).unwrap(), events, "{}", said(&theirs));
        }
        sum = (sum.0 + events, sum.1 + lost);
    }
    let [events, lost] = ["events", "lost"].map(|count| summary[count].as_u64().unwrap());
    // A loss stands before the next event, if there is one.
    assert!(sum.0 == events && sum.1 <= lost, "{sum:?} {summary}");
    (files.len(), (events, lost))
}

#[test]
fn recordings_go_on_when_buffers_are_resized() {
    for options in [&[][..], &["--compress"]] {
        let temporary = Temporary::new("follow-record");
        let mut served = Served::new(&temporary);
        let child = served.record(&temporary.path().join("f.dat"), options);
        for kib in ["512", "64", "1024", "128"] {
            served.write(2000);
            served.set(["-b", kib]);
        }
        served.write(2000);
        let (files, (events, lost)) = end(child);
        assert_eq!((files, events + lost), (1, served.written));
        assert!(events > 2000, "{events} {lost}");
    }
}

#[test]
fn a_recording_goes_on_in_another_file_when_subbuffers_get_another_size() {
    for options in [&[][..], &["--compress"]] {
        let temporary = Temporary::new("follow-split");
        let mut served = Served::new(&temporary);
        let child = served.record(&temporary.path().join("f.dat"), options);
        served.write(2000);
        served.set(["--subbuf-size", "16"]);
        served.write(2000);
        let writer = served.attachment.writer();
        let long = "x".repeat(9000);
        Long { text: &long }.write(&writer);
        served.written += 1;
        until("the recorder has begun another file", || {
            served.write(500);
            temporary.path().join("f.dat.1").exists()
        });
        served.set(["--subbuf-size", "4"]);
        until("the recorder has begun a third file", || {
            served.write(500);
            temporary.path().join("f.dat.2").exists()
        });
        let (files, (events, lost)) = end(child);
        assert_eq!((files, events + lost), (3, served.written));
        assert!(events > 2000, "{events} {lost}");
        let long = run(&["report", "--json", temporary.path().join("f.dat.1").to_str().unwrap()]);
        assert!(String::from_utf8_lossy(&long.stdout).contains("\"long\""), "{}", said(&long));
    }
}

#[test]
fn the_kernels_part_goes_on_when_the_applications_does_not_fit() {
    if cannot_trace() {
        return;
    }
    let temporary = Temporary::new("follow-kernel");
    let mut served = Served::new(&temporary);
    served.ask(&["set", "-C", "mono"]);
    let options = ["--kernel", "-e", "sched:sched_process_exit"];
    let child = served.record(&temporary.path().join("f.dat"), &options);
    served.write(1000);
    served.set(["--subbuf-size", "16"]);
    served.write(2000);
    // A process of the kernel's events for each look.
    let file = temporary.path().join("f.dat");
    until("the kernel's part grows", || {
        run(&["--version"]);
        served.write(100);
        fs::metadata(&file).is_ok_and(|file| file.len() > 0)
    });
    signal(&child, Signal::INT);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("sub-buffers have 16 KiB now, more than the kernel's"), "{stderr}");
    let report = run(&["report", "--json", file.to_str().unwrap()]);
    assert!(report.status.success(), "{}", said(&report));
    let text = String::from_utf8_lossy(&report.stdout);
    assert!(text.contains("counted") && text.contains("sched_process_exit"), "{text} {stderr}");
}

#[test]
fn streams_go_on_when_buffers_are_resized() {
    let temporary = Temporary::new("follow-stream");
    let mut served = Served::new(&temporary);
    served.write(1);
    let seen = |path: &Path| counted(&fs::read(path).unwrap_or_default());
    let mut streams = Vec::new();
    // What is consumed and given back before a cursor comes is no loss of its.
    for how in [&[][..], &["--consume"]] {
        let path = temporary.path().join(format!("stream{}", how.len()));
        let mut command = served.command("stream");
        command.arg("--json").args(how).stdout(File::create(&path).unwrap());
        streams.push((command.spawn().unwrap(), path.clone()));
        until("the stream has begun", || seen(&path).0 == 1);
    }
    for size in [["-b", "512"], ["--subbuf-size", "8"], ["-b", "64"], ["--subbuf-size", "4"], ["-b", "256"]] {
        served.write(500);
        let written = served.in_rings();
        // Nothing is overwritten: each has all of it before the next resize.
        for (_, path) in &streams {
            until("the stream has all", || seen(path).0 == written);
        }
        served.set(size);
    }
    served.write(500);
    let written = served.in_rings();
    for (stream, path) in streams {
        until("the stream has all", || seen(&path) == (written, 0));
        signal(&stream, Signal::INT);
        let output = stream.wait_with_output().unwrap();
        assert!(output.stderr.is_empty(), "{}", said(&output));
    }
}

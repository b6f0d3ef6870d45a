//! The commands that set what a host traces, on a real one.

mod support;

use ringtap::attach;
use rustix::process::Signal;
use std::path::PathBuf;
use std::process::{Child, Output, Stdio};
use support::{ringtap, said, signal, until};

ringtap::event! {
    /// What the tests write.
    pub struct Read as app:read { bytes: u64 }
}
ringtap::event! {
    /// What the tests write, too.
    pub struct Closed as app:closed { fd: u32 }
}

/// `ringtap serve`, on a socket of its own.
struct Served {
    folder: PathBuf,
    child: Child,
}

impl Served {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("ringtap-control-{name}-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let socket = folder.join("host.sock");
        let mut command = ringtap();
        command.arg("serve").arg("--socket").arg(&socket).args(["--buffer-size", "64"]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        until("the host serves", || attach::Connection::connect(&socket, attach::Role::Reader).is_ok());
        Self { folder, child }
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("host.sock")
    }

    fn run(&self, arguments: &[&str]) -> Output {
        ringtap().env(attach::SOCKET_VARIABLE, self.socket()).args(arguments).output().unwrap()
    }

    /// What a command prints that must succeed.
    fn ask(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What a command says that must fail, without the names of this test's files.
    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", said(&output));
        said(&output).replace(self.folder.to_str().unwrap(), "FOLDER")
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            signal(&self.child, Signal::TERM);
        }
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn lines_with(text: &str, word: &str) -> usize {
    text.lines().filter(|line| line.contains(word)).count()
}

/// One process has one registration of each event, so all of it is one test.
#[test]
fn a_program_is_switched_filtered_shown_and_reset() {
    let host = Served::new("program");
    let started = host.run(&["start", "-e", "app:*"]);
    assert_eq!(
        said(&started),
        "status Some(0), stderr:\nringtap: app:* is not declared yet; it is on as soon as a program declares it\n"
    );
    assert_eq!(host.ask(&["list"]), "on  as soon as it is declared: app:*\n");

    let attachment = attach::Attachment::attach(host.socket()).unwrap();
    Read::register(&attachment).unwrap();
    Closed::register(&attachment).unwrap();
    let writer = attachment.writer();
    Read { bytes: 1 }.write(&writer);
    Closed { fd: 7 }.write(&writer);
    let shown = host.ask(&["show"]);
    assert_eq!((lines_with(&shown, "read: bytes=1"), lines_with(&shown, "closed: fd=7")), (1, 1), "{shown}");

    host.ask(&["stop"]);
    Read { bytes: 2 }.write(&writer);
    assert_eq!(lines_with(&host.ask(&["show"]), "bytes=2"), 0);

    // A filter for one event, another instance for both.
    host.ask(&["start", "-e", "app:read", "-f", "bytes > 10", "-C", "mono"]);
    host.ask(&["start", "-B", "all", "-e", "app"]);
    assert_eq!(host.ask(&["instance", "list"]), "all\n");
    for bytes in [5, 50] {
        Read { bytes }.write(&writer);
    }
    let shown = host.ask(&["show"]);
    assert_eq!(
        (lines_with(&shown, "bytes=5 "), lines_with(&shown, "bytes=5\n"), lines_with(&shown, "bytes=50")),
        (0, 0, 1),
        "{shown}"
    );
    // The instance's buffers are mapped by this process as soon as it hears of them.
    until("the other instance has events", || {
        Read { bytes: 77 }.write(&writer);
        lines_with(&host.ask(&["show", "-B", "all"]), "bytes=77") > 0
    });
    assert!(host.ask(&["list"]).contains("app:read if bytes > 10"));

    // Of several settings one is refused, and none is made.
    let sized = |host: &Served| host.ask(&["show", "-f", "buffer_size_kb"]);
    let before = sized(&host);
    let refusal = host.refused(&["set", "-b", "128", "-C", "sundial"]);
    insta::assert_snapshot!("control-clock", refusal);
    assert_eq!(sized(&host), before);
    insta::assert_snapshot!("control-filter", host.refused(&["start", "-e", "app:read", "-f", "byte > 10"]));
    insta::assert_snapshot!(
        "control-early-filter",
        host.refused(&["start", "-e", "app:later", "-f", "x > 1"])
    );

    host.ask(&["reset", "--all"]);
    let listed = host.ask(&["list"]);
    assert_eq!(listed, "off app:closed\noff app:read\n");
    assert_eq!(lines_with(&host.ask(&["show"]), "bytes="), 0);
    host.ask(&["instance", "rm", "all"]);
    assert_eq!(host.ask(&["instance", "list", "--json"]), "{\"instances\":[]}\n");
}

#[test]
fn what_cannot_be_done_is_said() {
    let host = Served::new("errors");
    insta::assert_snapshot!("control-no-instance", host.refused(&["show", "-B", "no-such"]));
    insta::assert_snapshot!("control-no-file", host.refused(&["show", "-f", "no/such"]));
    insta::assert_snapshot!("control-nothing-to-set", host.refused(&["set"]));
    insta::assert_snapshot!("control-remove", host.refused(&["instance", "rm", "no-such"]));
    insta::assert_snapshot!("control-event", host.refused(&["start", "-e", "a b"]));
    let nobody = ringtap().args(["stop", "--attach", "/no/such.sock"]).output().unwrap();
    insta::assert_snapshot!("control-no-host", said(&nobody));
    host.ask(&["instance", "add", "twice"]);
    insta::assert_snapshot!("control-add", host.refused(&["instance", "add", "twice"]));
    // A start that fails leaves no instance.
    host.refused(&["start", "-B", "half", "-C", "sundial"]);
    assert_eq!(host.ask(&["instance", "list"]), "twice\n");
    assert!(host.ask(&["list", "-C"]).contains('['));
    assert!(host.ask(&["list", "-o"]).contains("options/overwrite=1"));
}

#[test]
fn the_host_ends_and_leaves_nothing() {
    let mut host = Served::new("ends");
    let socket = host.socket();
    signal(&host.child, Signal::INT);
    assert_eq!(host.child.wait().unwrap().code(), Some(130));
    assert!(!socket.exists());
}

//! `ringtap serve --directory` is killed, and `ringtap recover` prints what its files hold.

mod hugetlbfs;
mod support;

use ringtap::attach::{Attachment, Connection, Role, SOCKET_VARIABLE};
use rustix::process::Signal;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use support::{Temporary, ringtap, run, said, signal, until};

ringtap::event! {
    /// What the test writes.
    pub struct Step as recover:step { number: u64 }
}

ringtap::event! {
    /// What it declares to the second host.
    pub struct Late as recover:late { number: u64 }
}

fn serve(folder: &Path, socket: &Path) -> Child {
    let mut command = ringtap();
    command.arg("serve").arg("--socket").arg(socket).arg("--directory").arg(folder);
    let child = command.args(["--buffer-size", "64"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let child = child.unwrap();
    until("the host serves", || Connection::connect(socket, Role::Reader).is_ok());
    child
}

fn recovered(path: &Path, more: &[&str]) -> Output {
    ringtap().arg("recover").arg(path).args(more).output().unwrap()
}

fn numbers(output: &Output) -> Vec<u64> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines.filter_map(|line| line["fields"]["number"].as_u64()).collect()
}

/// One process has one registration of each event, so all of it is one test.
#[test]
fn what_a_killed_host_kept_is_printed_and_damage_is_named() {
    let folder = Temporary::new("recover");
    let (files, socket) = (folder.path().join("files"), folder.path().join("host.sock"));
    let hide = |text: String| text.replace(folder.path().to_str().unwrap(), "FOLDER");
    let mut host = serve(&files, &socket);
    let ask = |arguments: &[&str]| {
        let output = ringtap().env(SOCKET_VARIABLE, &socket).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    };
    ask(&["start", "-e", "recover:*"]);
    ask(&["instance", "add", "memory"]);
    let other = folder.path().join("other.sock");
    let second =
        ringtap().args(["serve", "--socket"]).arg(other).arg("--directory").arg(&files).output().unwrap();
    insta::assert_snapshot!("recover-in-use", hide(said(&second)));

    let attachment = Attachment::attach(&socket).unwrap();
    Step::register(&attachment).unwrap();
    let writer = attachment.writer();
    let comm = "what_a_killed_host_kept_is_printed_and_damage_is_named";
    for number in 0..500u64 {
        Step { number }.write(&writer);
    }
    signal(&host, Signal::KILL);
    host.wait().unwrap();
    // The next one goes on with the files, which this process has mapped, and with the events beside them.
    host = serve(&files, &socket);
    Late::register(&attachment).unwrap();
    let is_kept = || fs::read_to_string(files.join("events")).unwrap().contains(" recover late ");
    until("the event is declared to it, and written down", is_kept);
    signal(&host, Signal::KILL);
    host.wait().unwrap();
    assert!(!files.join("last").exists());

    let json = recovered(&files, &["--json"]);
    assert_eq!(json.status.code(), Some(0), "{}", said(&json));
    let summary = String::from_utf8(json.stderr.clone()).unwrap();
    assert!(summary.starts_with("ringtap: 500 events of ") && summary.ends_with("; 0 lost\n"), "{summary}");
    assert_eq!(numbers(&json), (0..500).collect::<Vec<_>>());
    let text = String::from_utf8(recovered(&files, &[]).stdout).unwrap();
    assert!(text.starts_with("# tracer: nop") && text.contains(": step: number=499\n"), "{text}");
    // As the thread was called when it wrote first: as its test, cut.
    let last = text.lines().find(|line| line.ends_with(": step: number=499")).unwrap();
    assert!(last.trim_start().starts_with(&format!("{}-{}", &comm[..15], ringtap::thread::id())), "{last}");

    // A record's header in the first sub-buffer that is used, and a file that is none.
    let cpu = (0..).map(|cpu| files.join(format!("cpu{cpu}")));
    let path = cpu.take_while(|path| path.exists()).find(|path| recovered_events(path) > 300);
    let Some(path) = path else {
        return println!("skipped the damage: the test was moved from CPU to CPU");
    };
    let mut bytes = fs::read(&path).unwrap();
    let page = (1..).map(|page| page * 4096).find(|page| bytes[page + 16..page + 20] != [0; 4]).unwrap();
    bytes[page + 16..page + 20].copy_from_slice(&[0; 4]);
    let damaged = folder.path().join("cpu7");
    fs::write(&damaged, bytes).unwrap();
    fs::copy(files.join("events"), folder.path().join("events")).unwrap();
    let json = recovered(&damaged, &["--json"]);
    let told = hide(String::from_utf8(json.stderr.clone()).unwrap());
    assert_eq!(json.status.code(), Some(1));
    assert!(told.starts_with(&format!("ringtap: FOLDER/cpu7: page at byte {page}: ")), "{told}");
    assert!(told.ends_with("ringtap: 1 page is damaged; all others are printed\n"), "{told}");
    assert!(
        String::from_utf8(json.stdout.clone()).unwrap().starts_with("{\"cpu\":")
            && !numbers(&json).is_empty()
    );

    fs::write(folder.path().join("cpu8"), [0; 8192]).unwrap();
    insta::assert_snapshot!("recover-foreign", hide(said(&recovered(&folder.path().join("cpu8"), &[]))));
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    insta::assert_snapshot!("recover-empty", hide(said(&recovered(&empty, &[]))));
    insta::assert_snapshot!("recover-nothing", said(&run(&["recover", "/no/such"])));
}

/// A file system of this kind, until it is dropped; `None`, said once, where it cannot be had.
struct Mounted(PathBuf);

impl Mounted {
    fn new(kind: &str, options: &str, path: PathBuf) -> Option<Self> {
        fs::create_dir(&path).unwrap();
        let mount =
            Command::new("mount").args(["-t", kind, "-o", options, "ringtap-test"]).arg(&path).output();
        if mount.is_ok_and(|mount| mount.status.success()) {
            return Some(Self(path));
        }
        println!("skipped: a {kind} cannot be mounted here");
        None
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// What `ringtap serve` says that cannot keep buffers in this directory, and leaves no socket.
fn refused(directory: &Path, socket: &Path, size: &str) -> String {
    let mut command = Command::new("timeout");
    command.args(["20", env!("CARGO_BIN_EXE_ringtap"), "serve", "--buffer-size", size, "--socket"]);
    let output = command.arg(socket).arg("--directory").arg(directory).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(!socket.exists());
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_full_disk_is_one_sentence_and_nothing_is_half_made() {
    let folder = Temporary::new("recover-full");
    let socket = folder.path().join("host.sock");
    let hide = |text: String| text.replace(folder.path().to_str().unwrap(), "FOLDER");
    // Enough for the small buffers of all CPUs and who the threads were, twice.
    let Some(disk) = Mounted::new("tmpfs", "size=8m", folder.path().join("disk")) else { return };
    let files = disk.0.join("files");
    let told = hide(refused(&files, &socket, "65536"));
    assert_eq!(told.lines().count(), 1, "{told}");
    assert!(told.contains("there is no room for") && told.contains("FOLDER/disk/files/cpu"), "{told}");
    assert_eq!(fs::read_dir(&files).unwrap().count(), 0, "nothing is left of it");
    // What an earlier host kept is still there.
    let mut host = serve(&files, &socket);
    signal(&host, Signal::KILL);
    host.wait().unwrap();
    fs::remove_file(&socket).unwrap();
    refused(&files, &socket, "65536");
    assert_eq!(recovered(&files.join("last"), &[]).status.code(), Some(0));
    // And room that becomes free is used.
    let mut host = serve(&files, &socket);
    signal(&host, Signal::KILL);
    host.wait().unwrap();
}

fn recovered_events(path: &Path) -> usize {
    numbers(&recovered(path, &["--json"])).len()
}

//! Ctrl-C while a COMMAND runs: the command gets it once, ends as it likes, and its end is traced.

mod support;

use rustix::fs::OFlags;
use rustix::process::{Pid, Signal};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::Duration;
use support::{Temporary, cannot_trace, run, said, until};

/// Also where the tests themselves were started with these ignored, as in the background of a script.
const WITH_SIGNALS: &str = "--default-signal=INT,QUIT";
/// Longer than what follows a signal counts as the same wish.
const NEXT_WISH: Duration = Duration::from_millis(400);

/// A shell as COMMAND: it logs each SIGINT, and ends once there is a file `go`, by a command and with a status of its own.
const GRACEFUL: &str = "trap 'echo int >>\"$0/log\"' INT\ntrap 'echo term >>\"$0/log\"' TERM\n\
    echo ready >>\"$0/log\"\nuntil [ -e \"$0/go\" ]; do sleep 0.01; done\n/usr/bin/env true\nexit 7";

/// One that takes no notice of anything but SIGKILL.
const DEAF: &str =
    "trap '' INT\ntrap 'echo term >>\"$0/log\"' TERM\necho ready >>\"$0/log\"\nwhile :; do sleep 0.01; done";

/// A terminal whose keyboard is ours, and a program in its foreground.
struct Terminal {
    keyboard: File,
    program: Child,
}

impl Terminal {
    fn open(arguments: &[&str]) -> Self {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        let name = ptsname(&keyboard, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let terminal = File::from(rustix::fs::open(&name, flags, rustix::fs::Mode::empty()).unwrap());
        let mut program = Command::new("setsid");
        program.args(["--ctty", "env", WITH_SIGNALS, env!("CARGO_BIN_EXE_ringtap")]).args(arguments);
        program.stdin(terminal.try_clone().unwrap()).stdout(terminal.try_clone().unwrap()).stderr(terminal);
        let program = program.spawn().unwrap();
        let mut screen = File::from(rustix::io::dup(&keyboard).unwrap());
        // Nobody looks, but it must not fill up. The end of the last program ends it.
        std::thread::spawn(move || while screen.read(&mut [0; 4096]).is_ok_and(|len| len > 0) {});
        Self { keyboard: keyboard.into(), program }
    }

    fn press(&mut self, key: u8) {
        self.keyboard.write_all(&[key]).unwrap();
    }

    fn end(&mut self) -> ExitStatus {
        let mut ended = None;
        until("the program ends", || {
            ended = self.program.try_wait().unwrap();
            ended.is_some()
        });
        ended.unwrap()
    }
}

const CTRL_C: u8 = 3;

fn path(of: &Path) -> &str {
    of.to_str().unwrap()
}

/// The files of a COMMAND.
struct Log(PathBuf);

impl Log {
    fn new(temporary: &Temporary, name: &str) -> Self {
        let folder = temporary.path().join(name);
        fs::create_dir(&folder).unwrap();
        Self(folder)
    }

    fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(self.0.join("log")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn wait_for(&self, lines: &[&str]) {
        until(&format!("{lines:?} in the log"), || self.lines() == lines);
    }

    fn go(&self) {
        File::create(self.0.join("go")).unwrap();
    }
}

#[test]
fn ctrl_c_reaches_the_command_once_and_its_end_is_traced() {
    if cannot_trace() {
        return;
    }
    let temporary = Temporary::new("interrupted");
    let (log, file) = (Log::new(&temporary, "record"), temporary.path().join("t.dat"));
    let record = ["record", "--kernel", "-e", "sched:sched_process_exec", "-o", path(&file), "--"];
    let mut terminal = Terminal::open(&[&record[..], &["sh", "-c", GRACEFUL, path(&log.0)]].concat());
    log.wait_for(&["ready"]);
    terminal.press(CTRL_C);
    log.wait_for(&["ready", "int"]);
    // Time itself is the matter: nobody is hurried.
    sleep(Duration::from_millis(2500));
    log.go();
    assert_eq!(terminal.end().code(), Some(7), "the command's");
    assert_eq!(log.lines(), ["ready", "int"]);
    let report = run(&["report", path(&file)]);
    assert!(said(&report).contains("filename=/usr/bin/env"), "{}", said(&report));
}

#[test]
fn whoever_sends_it_the_command_gets_it_once() {
    let temporary = Temporary::new("interrupted-sent");
    for (name, is_to_group) in [("group", true), ("alone", false)] {
        for subcommand in ["record", "stream"] {
            let log = Log::new(&temporary, &format!("{subcommand}-{name}"));
            let mut command = Command::new("env");
            command.current_dir(temporary.path()).process_group(0).stdout(Stdio::null());
            command.args([WITH_SIGNALS, env!("CARGO_BIN_EXE_ringtap"), subcommand, "--"]);
            let mut program = command.args(["sh", "-c", GRACEFUL, path(&log.0)]).spawn().unwrap();
            log.wait_for(&["ready"]);
            let pid = Pid::from_child(&program);
            for (number, signal) in [Signal::INT, Signal::TERM].into_iter().enumerate() {
                let sent = match is_to_group {
                    true => rustix::process::kill_process_group(pid, signal),
                    false => rustix::process::kill_process(pid, signal),
                };
                sent.unwrap();
                log.wait_for(&["ready", "int", "term"][..number + 2]);
                sleep(NEXT_WISH);
            }
            log.go();
            assert_eq!(program.wait().unwrap().code(), Some(7), "{subcommand}, {name}");
            assert_eq!(log.lines(), ["ready", "int", "term"], "{subcommand}, {name}");
        }
    }
}

#[test]
fn who_insists_is_obeyed() {
    let temporary = Temporary::new("interrupted-deaf");
    let log = Log::new(&temporary, "deaf");
    let mut terminal = Terminal::open(&["stream", "--", "sh", "-c", DEAF, path(&log.0)]);
    log.wait_for(&["ready"]);
    terminal.press(CTRL_C);
    sleep(NEXT_WISH);
    assert_eq!(log.lines(), ["ready"]);
    terminal.press(CTRL_C);
    log.wait_for(&["ready", "term"]);
    sleep(NEXT_WISH);
    terminal.press(CTRL_C);
    assert_eq!(terminal.end().code(), Some(128 + 9));
}

#[test]
fn a_command_that_dies_of_it_takes_us_along() {
    let temporary = Temporary::new("interrupted-dies");
    let mut terminal = Terminal::open(&[
        "stream",
        "--",
        "sh",
        "-c",
        "echo >\"$0\"; exec sleep 60",
        path(&temporary.path().join("up")),
    ]);
    until("the command runs", || temporary.path().join("up").exists());
    terminal.press(CTRL_C);
    assert_eq!(terminal.end().signal(), Some(2));
}

#[test]
fn ctrl_backslash_leaves_no_instance() {
    if cannot_trace() {
        return;
    }
    let tracefs = ringtap::tracefs::Tracefs::find().unwrap();
    let mut terminal = Terminal::open(&["stream", "--kernel", "-e", "sched:sched_process_exit"]);
    let of = format!("{}-", terminal.program.id());
    let has_instance = || {
        let instances = fs::read_dir(tracefs.root().join("instances")).unwrap();
        instances.flatten().any(|found| found.file_name().to_str().is_some_and(|name| name.contains(&of)))
    };
    until("its instance", has_instance);
    terminal.press(0x1c);
    assert_eq!(terminal.end().signal(), Some(Signal::QUIT.as_raw()));
    assert!(!has_instance());
}

/// In the background of a script, whose Ctrl-C is not meant for it, and under `nohup`.
#[test]
fn what_was_ignored_stays_ignored_and_sigterm_ends_it() {
    let temporary = Temporary::new("interrupted-ignored");
    let socket = temporary.path().join("host.sock");
    let mut serve = Command::new("env");
    serve.args([
        "--ignore-signal=INT,QUIT,HUP",
        env!("CARGO_BIN_EXE_ringtap"),
        "serve",
        "--buffer-size",
        "64",
    ]);
    let mut serve = serve.arg("--socket").arg(&socket).stderr(Stdio::null()).spawn().unwrap();
    until("it serves", || run(&["list", "--attach", path(&socket)]).status.success());
    let status = fs::read_to_string(format!("/proc/{}/status", serve.id())).unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    let ignored = u64::from_str_radix(ignored.trim(), 16).unwrap();
    let pid = Pid::from_child(&serve);
    for signal in [Signal::INT, Signal::QUIT, Signal::HUP] {
        assert_ne!(ignored & (1 << (signal.as_raw() - 1)), 0, "{signal:?}");
        rustix::process::kill_process(pid, signal).unwrap();
    }
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(serve.wait().unwrap().signal(), Some(Signal::TERM.as_raw()));
    assert!(!socket.exists());
}

#[test]
fn a_command_has_its_name_from_the_start() {
    if cannot_trace() {
        return;
    }
    let output = run(&[
        "stream",
        "--kernel",
        "-e",
        "sched:sched_switch",
        "-e",
        "sched:sched_process_exec",
        "--",
        "/bin/true",
    ]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("sched_process_exec") && !text.contains("exe-") && !text.contains("comm=exe "),
        "{text}"
    );
}

#[test]
fn a_command_that_is_not_there_costs_no_file() {
    let temporary = Temporary::new("interrupted-missing");
    let file = temporary.path().join("kept.dat");
    fs::write(&file, "kept").unwrap();
    for (command, status) in [("no-such-command", 127), ("/etc/passwd", 126)] {
        let output = run(&["record", "-o", path(&file), "--", command]);
        assert_eq!(output.status.code(), Some(status), "{}", said(&output));
        assert!(said(&output).contains(&format!("cannot run '{command}'")), "{}", said(&output));
        assert_eq!(fs::read(&file).unwrap(), b"kept");
    }
}

//! `ringtap record --snapshot-on crash`: whatever a program dies of, the last event that it wrote is in the file.
//!
//! The program is this one, started again: see [`the_program_that_dies`].

mod support;

use ringtap::attach::{Attachment, SOCKET_VARIABLE};
use ringtap::{Config, Host, Writer, crash};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use support::{Temporary, run, said, until};

ringtap::event! {
    /// A step of a thread.
    struct Step as crash:step { thread: u32, seq: u64 }
}

/// Names what the program dies of, and makes a test the program.
const DEATH: &str = "RINGTAP_TEST_DEATH";
/// Names the file that each thread tells its steps to, once they are written.
const TOLD: &str = "RINGTAP_TEST_TOLD";
/// Names the socket that the program is to serve; without it, it attaches.
const SERVE: &str = "RINGTAP_TEST_SERVE";
/// Names a file that the program makes once it has done what it read: it resizes its buffers at `resize`, dies at `die`.
const STEERED: &str = "RINGTAP_TEST_STEERED";
/// Names the file of the program's own crash recorder.
const RECORD: &str = "RINGTAP_TEST_RECORD";

const THREADS: u32 = 3;
/// Steps of each thread before the program dies.
const STEPS: u64 = 100;

/// Each with the signal, or the exit status.
const DEATHS: [(&str, Result<Signal, i32>); 5] = [
    ("panic", Err(101)),
    ("abort", Ok(Signal::ABORT)),
    ("segv", Ok(Signal::SEGV)),
    ("kill", Ok(Signal::KILL)),
    // Rust's handler notices it.
    ("overflow", Ok(Signal::ABORT)),
];

#[test]
fn the_program_that_dies() {
    let Ok(death) = env::var(DEATH) else { return };
    let told = File::options().create(true).append(true).open(env::var(TOLD).unwrap()).unwrap();
    let config = Config { ring_subbufs: 64, ..Config::default() };
    let (host, server, attachment);
    let mut served = None;
    let writer: Writer;
    match env::var(SERVE) {
        Ok(socket) => {
            host = Host::new(&config).unwrap();
            server = host.serve(socket).unwrap();
            writer = host.writer();
            served = Some(host.clone());
            match env::var(RECORD) {
                Ok(file) => drop(crash::Recorder::start(&server, file, 16 << 20).unwrap()),
                Err(_) => drop(std::io::stdin().lock().read_line(&mut String::new()).unwrap()),
            }
            // What is declared later is known to the recorder, too, whenever we die.
            Step::register(&host).unwrap();
        }
        Err(_) => {
            attachment = Attachment::attach(env::var(SOCKET_VARIABLE).unwrap()).unwrap();
            Step::register(&attachment).unwrap();
            writer = attachment.writer();
        }
    }
    let steps = [const { AtomicU64::new(0) }; THREADS as usize];
    std::thread::scope(|scope| {
        for (thread, steps) in (0..).zip(&steps) {
            let (writer, mut told) = (writer.clone(), &told);
            scope.spawn(move || {
                // If nobody ends us, we end.
                for seq in 0..STEPS * 1000 {
                    Step { thread, seq }.write(&writer);
                    // One write to a file opened to append: whole, and there whatever becomes of us.
                    told.write_all(format!("{thread} {seq}\n").as_bytes()).unwrap();
                    steps.store(seq + 1, Relaxed);
                    if seq > STEPS {
                        // Whatever the others do, none is overwritten.
                        std::thread::sleep(std::time::Duration::from_micros(100));
                    }
                }
            });
        }
        until("all threads are at it", || steps.iter().all(|steps| steps.load(Relaxed) >= STEPS));
        if let Ok(done) = env::var(STEERED) {
            steered(&done, &served.expect("it serves"), &steps);
        }
        die(&death);
    });
}

/// Does what is read, until that is to die.
fn steered(done: &str, host: &Host, steps: &[AtomicU64]) {
    let mut subbufs = 64;
    for line in std::io::stdin().lock().lines() {
        match line.unwrap().as_str() {
            "resize" => {
                subbufs *= 2;
                host.set_size(None, subbufs).unwrap();
            }
            "enlarge" => host.set_subbuf_size(16384).unwrap(),
            "go on" => {}
            _ => return,
        }
        let before: Vec<_> = steps.iter().map(|steps| steps.load(Relaxed)).collect();
        until("all went on", || {
            steps.iter().zip(&before).all(|(steps, before)| steps.load(Relaxed) > before + 20)
        });
        File::create(done).unwrap();
    }
}

#[expect(clippy::exit, reason = "so that nobody waits for the other threads")]
fn die(of: &str) {
    match of {
        // On this thread, where the others cannot be waited for.
        "panic" => std::process::exit(std::panic::catch_unwind(|| panic!("as asked")).map_or(101, |()| 0)),
        "abort" => std::process::abort(),
        "segv" => send(Signal::SEGV),
        "kill" => send(Signal::KILL),
        "overflow" => println!("{}", endless(1)),
        "term" => send(Signal::TERM),
        _ => std::process::exit(0),
    }
}

fn send(signal: Signal) {
    // Rust's handler of SIGSEGV takes the first for a fault that will come again, and steps aside.
    loop {
        rustix::process::kill_process(rustix::process::getpid(), signal).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

#[expect(unconditional_recursion, reason = "that is the point")]
fn endless(depth: u64) -> u64 {
    let here = [depth; 128];
    std::hint::black_box(&here)[0] + endless(depth + 1)
}

/// This program, as one that dies.
fn program(temporary: &Temporary, death: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "the_program_that_dies", "--nocapture", "--test-threads", "1"]);
    command.env(DEATH, death).env(TOLD, temporary.path().join("told")).env_remove(SERVE);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Each thread's last step that was told.
fn told(temporary: &Temporary) -> BTreeMap<u64, u64> {
    let text = fs::read_to_string(temporary.path().join("told")).unwrap();
    fs::remove_file(temporary.path().join("told")).unwrap();
    let mut last = BTreeMap::new();
    for line in text.lines() {
        let (thread, seq) = line.split_once(' ').unwrap();
        last.insert(thread.parse().unwrap(), seq.parse().unwrap());
    }
    last
}

/// Checks that the file holds each thread's steps without a gap, to the last one.
fn check(file: &Path, told: &BTreeMap<u64, u64>, context: &str) {
    check_all(&[file], told, context);
}

/// The same of several, one after the other: no step is in two, and none is missing but those between two, while nobody
/// recorded.
fn check_all(files: &[&Path], told: &BTreeMap<u64, u64>, context: &str) {
    let mut last: BTreeMap<u64, u64> = BTreeMap::new();
    for file in files {
        let output = run(&["report", "--json", file.to_str().unwrap()]);
        assert!(output.status.success(), "{context}: {}", said(&output));
        let mut seen = BTreeSet::new();
        let lines = output.stdout.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        let lines: Vec<Value> = lines.map(|line| serde_json::from_slice(line).unwrap()).collect();
        // The ring is longer than what is written by then, unless the machine sleeps at the wrong moment; and of two
        // resizes the second gives up what nobody has read by then.
        let has_gaps = lines.iter().any(|line| line["type"] == "lost");
        for line in lines {
            if line["type"] != "event" {
                assert_eq!(line["type"], "lost", "{context}");
                continue;
            }
            let field = |name: &str| line["fields"][name].as_u64().unwrap();
            let (thread, seq) = (field("thread"), field("seq"));
            if let Some(before) = last.insert(thread, seq) {
                let is_next =
                    if seen.contains(&thread) && !has_gaps { seq == before + 1 } else { seq > before };
                assert!(is_next, "{context}: thread {thread}: {seq} behind {before}");
            }
            seen.insert(thread);
        }
    }
    assert_eq!(last.len(), THREADS as usize, "{context}");
    for (thread, &seq) in &last {
        // The very last may have been written and not told.
        let told = told[thread];
        assert!(
            seq == told || seq == told + 1,
            "{context}: thread {thread} told {told}, the file ends with {seq}"
        );
    }
}

fn is_as_expected(status: std::process::ExitStatus, expected: Result<Signal, i32>) -> bool {
    match expected {
        Ok(signal) => {
            status.signal() == Some(signal.as_raw()) || status.code() == Some(128 + signal.as_raw())
        }
        Err(code) => status.code() == Some(code),
    }
}

#[test]
fn a_commands_last_events_are_in_the_file() {
    let temporary = Temporary::new("crash-command");
    let file = temporary.path().join("crash.dat");
    for (death, expected) in DEATHS {
        let program = program(&temporary, death);
        let mut recorder = temporary.ringtap();
        recorder.args(["record", "--snapshot-on", "crash", "-o"]).arg(&file).arg("--");
        recorder.arg(program.get_program()).args(program.get_args());
        recorder.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let output = recorder.output().unwrap();
        assert!(is_as_expected(output.status, expected), "{death}: {}", said(&output));
        let text = String::from_utf8_lossy(&output.stderr);
        let says = if death == "panic" { "panicked" } else { "; its last events are in " };
        assert!(text.contains(says), "{death}: {text}");
        check(&file, &told(&temporary), death);
        fs::remove_file(&file).unwrap();
    }
}

#[test]
fn a_child_of_the_command_that_crashes_leaves_a_file_too() {
    let temporary = Temporary::new("crash-child");
    let file = temporary.path().join("crash.dat");
    let program = program(&temporary, "segv");
    let mut recorder = temporary.ringtap();
    recorder.args(["record", "--snapshot-on", "crash", "-o"]).arg(&file);
    // A shell that hides how its command ended.
    recorder.args(["--", "sh", "-c", "\"$@\"; exit 3", "sh"]);
    recorder.arg(program.get_program()).args(program.get_args());
    recorder.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = recorder.output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("died of SIGSEGV"), "{}", said(&output));
    check(&file, &told(&temporary), "a child");
}

#[test]
fn an_embedded_hosts_last_events_are_in_the_file() {
    let temporary = Temporary::new("crash-attach");
    let (file, socket) = (temporary.path().join("crash.dat"), temporary.path().join("app.sock"));
    for (death, expected) in DEATHS {
        let mut child = program(&temporary, death).env(SERVE, &socket).spawn().unwrap();
        until("the program serves", || socket.exists());
        let mut recorder = temporary.ringtap();
        recorder.args(["record", "--announce", "--snapshot-on", "crash", "-o"]).arg(&file);
        let mut recorder = recorder.arg("--attach").arg(&socket).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(recorder.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "recording\n");
        drop(child.stdin.take());
        let status = child.wait().unwrap();
        assert!(is_as_expected(status, expected), "{death}: {status}");
        let output = recorder.wait_with_output().unwrap();
        assert!(output.status.success(), "{death}: {}", said(&output));
        check(&file, &told(&temporary), death);
        let summary = String::from_utf8_lossy(&output.stderr);
        assert!(!summary.contains("recorded 0 events"), "{summary}");
        fs::remove_file(&file).unwrap();
        let _ = fs::remove_file(&socket);
    }
}

#[test]
fn a_host_that_dies_after_a_resize_is_read_to_its_end_and_once() {
    let temporary = Temporary::new("crash-resized");
    let (file, socket) = (temporary.path().join("crash.dat"), temporary.path().join("app.sock"));
    let done = temporary.path().join("done");
    let ways: [&[&str]; 6] = [
        &["snapshot"],
        &["resize"],
        &["resize", "resize", "snapshot"],
        &["snapshot", "resize", "snapshot", "go on"],
        &["enlarge"],
        &["snapshot", "enlarge", "resize"],
    ];
    for way in ways {
        let mut child = program(&temporary, "kill").env(SERVE, &socket).env(STEERED, &done).spawn().unwrap();
        until("the program serves", || socket.exists());
        let mut recorder = temporary.ringtap();
        recorder.args(["record", "--announce", "--snapshot-on", "crash", "--snapshot-on", "USR1", "-o"]);
        let mut recorder = recorder.arg(&file).arg("--attach").arg(&socket).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(recorder.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let mut steer = child.stdin.take().unwrap();
        let mut tell = |what: &str| {
            writeln!(steer, "{what}").unwrap();
            until(what, || fs::remove_file(&done).is_ok());
        };
        tell("begin\ngo on");
        let mut files = vec![file.clone()];
        for what in way {
            if *what == "snapshot" {
                let written = files.last().unwrap().clone();
                support::signal(&recorder, Signal::USR1);
                until("the snapshot", || {
                    written.exists() && run(&["report", written.to_str().unwrap()]).status.success()
                });
                files.push(temporary.path().join(format!("crash.dat.{}", files.len())));
            } else {
                let before = support::memories(child.id());
                tell(what);
                // A host alone does not wait for those who read it.
                let made =
                    support::memories(child.id()).difference(&before).copied().collect::<BTreeSet<_>>();
                assert_eq!(made.is_empty(), *what == "go on", "{what}");
                until("the recorder has the new buffers", || {
                    made.is_subset(&support::memories(recorder.id()))
                });
            }
        }
        writeln!(steer, "die").unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.signal(), Some(Signal::KILL.as_raw()), "{way:?}");
        let output = recorder.wait_with_output().unwrap();
        assert!(output.status.success(), "{way:?}: {}", said(&output));
        let paths: Vec<_> = files.iter().map(std::path::PathBuf::as_path).collect();
        check_all(&paths, &told(&temporary), &format!("{way:?}: {}", said(&output)));
        files.iter().for_each(|file| fs::remove_file(file).unwrap());
        let _ = fs::remove_file(&socket);
    }
}

#[test]
fn a_program_brings_its_recorder_along() {
    let temporary = Temporary::new("crash-own");
    let (file, socket) = (temporary.path().join("crash.dat"), temporary.path().join("app.sock"));
    for (death, expected) in DEATHS {
        let mut command = program(&temporary, death);
        command.env(SERVE, &socket).env(RECORD, &file);
        command.env(crash::PROGRAM_VARIABLE, env!("CARGO_BIN_EXE_ringtap"));
        let status = command.status().unwrap();
        assert!(is_as_expected(status, expected), "{death}: {status}");
        // The helper writes after the program's end: when it has put the file in order, it is readable by all.
        until("the helper has written", || {
            file.exists() && run(&["report", file.to_str().unwrap()]).status.success() && !has_helper(&socket)
        });
        check(&file, &told(&temporary), death);
        fs::remove_file(&file).unwrap();
        let _ = fs::remove_file(&socket);
    }
}

/// Whether somebody still records this socket.
fn has_helper(socket: &Path) -> bool {
    let folders = fs::read_dir("/proc").unwrap().flatten();
    let lines = folders.filter_map(|folder| fs::read(folder.path().join("cmdline")).ok());
    let socket = socket.as_os_str().as_encoded_bytes();
    lines.into_iter().any(|line| line.split(|&byte| byte == 0).any(|argument| argument == socket))
}

#[test]
fn who_ends_as_asked_leaves_no_file() {
    let temporary = Temporary::new("crash-none");
    let (file, socket) = (temporary.path().join("crash.dat"), temporary.path().join("app.sock"));
    for death in ["exit", "term"] {
        let mut command = program(&temporary, death);
        command.env(SERVE, &socket).env(RECORD, &file);
        // The helper writes where the program does, and ends behind it: what it says is complete when the pipe is closed.
        let output = command.env(crash::PROGRAM_VARIABLE, env!("CARGO_BIN_EXE_ringtap")).output().unwrap();
        until("the helper has ended", || !has_helper(&socket));
        assert!(!file.exists() && output.stderr.is_empty(), "{death}: {}", said(&output));
        let _ = fs::remove_file(&socket);

        let mut recorder = temporary.ringtap();
        recorder.args(["record", "--snapshot-on", "crash", "-o"]).arg(&file).arg("--");
        let program = program(&temporary, death);
        recorder.arg(program.get_program()).args(program.get_args());
        recorder.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let output = recorder.output().unwrap();
        assert!(!file.exists(), "{death}: {}", said(&output));
        assert!(said(&output).contains("no file was written"), "{death}: {}", said(&output));
    }
}

#[test]
fn a_folder_that_is_not_there_is_told_before_anything_dies() {
    let temporary = Temporary::new("crash-folder");
    let mut recorder = temporary.ringtap();
    recorder.args(["record", "--snapshot-on", "crash", "-o", "/no/such/crash.dat", "--", "echo", "it ran"]);
    let output = recorder.output().unwrap();
    assert!(said(&output).contains("make the folder") && output.stdout.is_empty(), "{}", said(&output));
}

#[test]
fn events_of_a_command_are_chosen_and_trigger() {
    let temporary = Temporary::new("crash-chosen");
    let file = temporary.path().join("chosen.dat");
    let recorded = |options: &[&str]| {
        let mut recorder = temporary.ringtap();
        recorder.arg("record").args(options).arg("-o").arg(&file).arg("--");
        let program = program(&temporary, "exit");
        recorder.arg(program.get_program()).args(program.get_args());
        recorder.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let output = recorder.output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        let output = run(&["report", "--json", file.to_str().unwrap()]);
        let lines = output.stdout.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).unwrap()).collect::<Vec<Value>>()
    };
    let steps = |lines: &[Value]| lines.iter().filter(|line| line["event"] == "step").count();
    let all = u64::from(THREADS) * STEPS;
    assert_eq!(steps(&recorded(&["-e", "crash:other"])), 0);
    assert!(steps(&recorded(&["-e", "crash:*"])) as u64 >= all);
    // As the kernel's `traceoff`, it stops before the event itself; the others may have one under way.
    let triggered = steps(&recorded(&["--snapshot-on", "crash:step"])) as u64;
    assert!(triggered < u64::from(THREADS), "{triggered}");
    if support::cannot_trace() {
        return;
    }
    let both = recorded(&["--kernel", "-a", "-e", "sched:sched_process_exit"]);
    assert!(steps(&both) as u64 >= all, "what the kernel has restricts the kernel alone");
    assert!(both.iter().any(|line| line["event"] == "sched_process_exit"));
    let both = recorded(&["--kernel", "-a", "-e", "sched:sched_process_exit", "-e", "step"]);
    assert!(steps(&both) as u64 >= all && both.iter().any(|line| line["system"] == "sched"));
}

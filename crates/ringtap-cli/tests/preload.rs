//! `--preload libc`: real programs that nobody changed.

mod support;

use serde_json::Value;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};
use std::sync::Once;
use support::{Temporary, said};

/// Has the library built: for tests, cargo makes only what they are linked with.
fn library() {
    static BUILT: Once = Once::new();
    BUILT.call_once(|| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "-p", "ringtap-preload"]);
        if !cfg!(debug_assertions) {
            cargo.arg("--release");
        }
        assert!(cargo.status().unwrap().success());
    });
}

fn command(line: &str) -> Command {
    let mut command = Command::new("bash");
    command.args(["-c", line]);
    command
}

/// Runs a line of bash's alone and recorded: both end alike. Returns the recorded events.
fn recorded(temporary: &Temporary, line: &str, options: &[&str]) -> Vec<Value> {
    library();
    let plain = command(line).current_dir(temporary.path()).output().unwrap();
    let file = temporary.path().join("trace.dat");
    let mut record = temporary.ringtap();
    record.arg("record").arg("-q").arg("-o").arg(&file).args(["--preload", "libc"]).args(options);
    let output = record.args(["--", "bash", "-c", line]).current_dir(temporary.path()).output().unwrap();
    // A recorder tells of a signal as shells do.
    let code = plain.status.code().or(plain.status.signal().map(|signal| 128 + signal));
    assert_eq!(output.status.code(), code, "{line}: {}", said(&output));
    // Behind what the program says there is one line of the recorder's.
    let stderr = String::from_utf8_lossy(&output.stderr);
    let told = stderr.find("ringtap: recorded ").map_or(&*stderr, |summary| &stderr[..summary]);
    assert_eq!(told, String::from_utf8_lossy(&plain.stderr), "{line}");
    assert!(output.stdout == plain.stdout, "{line}: {} and {}", said(&output), said(&plain));
    let report = temporary.ringtap().arg("report").arg(&file).arg("--json").output().unwrap();
    assert!(report.status.success(), "{}", said(&report));
    events(&report)
}

fn events(output: &Output) -> Vec<Value> {
    let lines = String::from_utf8_lossy(&output.stdout);
    let parse = |line| serde_json::from_str(line).ok();
    lines.lines().filter_map(parse).filter(|line: &Value| line["type"] == "event").collect()
}

fn count(events: &[Value], system: &str, name: &str) -> usize {
    events.iter().filter(|event| event["system"] == system && event["event"] == name).count()
}

/// The calls that programs sleep by.
const SLEEPS: [&str; 3] = ["select", "nanosleep", "clock_nanosleep"];

#[test]
fn programs_do_the_same_and_are_recorded() {
    let temporary = Temporary::new("preload-programs");
    std::fs::write(temporary.path().join("lines"), "b\na\nc\n".repeat(50_000)).unwrap();
    let listed = recorded(&temporary, "ls -l /etc/", &[]);
    assert!(count(&listed, "libc_alloc", "malloc") > 10 && count(&listed, "libc_alloc", "free") > 10);
    recorded(&temporary, "ls /no/such/folder", &[]);
    let sorted = recorded(&temporary, "sort --parallel=4 -S 1M lines | uniq -c", &[]);
    assert!(count(&sorted, "libc_lock", "mutex_lock") > 0, "it sorts in threads");
    assert!(count(&sorted, "libc_io", "open") > 0);
    let packed = recorded(&temporary, "tar cf x.tar lines && tar tf x.tar && rm x.tar; exit 5", &[]);
    let written = |event: &&Value| event["event"] == "write" && event["fields"]["ret"] == 10240;
    assert!(packed.iter().filter(written).count() > 10, "tar writes blocks of 10 KiB");
    let piped =
        recorded(&temporary, "for i in 1 2 3; do echo $i | cat | (read x; echo $x); done; kill -9 $$", &[]);
    let pids: std::collections::BTreeSet<_> =
        piped.iter().filter_map(|event| event["pid"].as_u64()).collect();
    assert!(pids.len() >= 10, "bash, and three shells and a cat in each round: {pids:?}");
    let slept = recorded(&temporary, "sleep 0.01", &[]);
    let took = slept
        .iter()
        .filter(|event| SLEEPS.contains(&event["event"].as_str().unwrap_or_default()))
        .filter_map(|event| event["fields"]["took_ns"].as_u64());
    // The counter's ticks become nanoseconds by a line that is a little off at first.
    assert!(took.max().is_some_and(|took| took >= 9_990_000), "{slept:?}");
    if Command::new("python3").arg("--version").output().is_err() {
        return println!("skipped in part: there is no python3");
    }
    let python = "python3 -c 'import subprocess, threading, time\n\
        threads = [threading.Thread(target=time.sleep, args=(0.01,)) for _ in range(4)]\n\
        [t.start() for t in threads]; [t.join() for t in threads]\n\
        print(subprocess.run([\"echo\", \"hi\"], capture_output=True).stdout)'";
    let python = recorded(&temporary, python, &[]);
    let slept = python.iter().filter(|event| SLEEPS.contains(&event["event"].as_str().unwrap_or_default()));
    // Less than 10 ms where a thread was preempted before the call: Python sleeps until a time that it takes before it.
    assert!(slept.count() >= 4, "four threads slept");
}

#[test]
fn of_a_program_that_dies_the_last_calls_are_in_the_recorders_file() {
    library();
    if Command::new("trace-cmd").output().is_err() {
        return println!("skipped: there is no trace-cmd");
    }
    let temporary = Temporary::new("preload-crash");
    let mut record = temporary.ringtap();
    record.args(["record", "-q", "--preload", "libc", "--snapshot-on", "crash", "-o", "crash.dat"]);
    let line = "cat /etc/hostname; kill -SEGV $$";
    let output = record.args(["--", "bash", "-c", line]).current_dir(temporary.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(128 + 11), "{}", said(&output));
    let report = command("trace-cmd report -i crash.dat").current_dir(temporary.path()).output().unwrap();
    let text = String::from_utf8_lossy(&report.stdout);
    assert!(text.contains("path=/etc/hostname") && text.contains("waitpid"), "{text}");
}

/// What a worker of a server is: forked, and no other program than its parent.
const FORKS: &str = "import os
for signal in 6, 11:
    child = os.fork()
    if not child:
        os.open('/dev/zero' if signal == 6 else '/dev/full', os.O_RDONLY)
        os.kill(os.getpid(), signal)
    assert os.waitpid(child, 0)[1] & 127 == signal
";

#[test]
fn a_forked_child_that_dies_leaves_its_last_calls_too() {
    library();
    let temporary = Temporary::new("preload-fork");
    let mut record = temporary.ringtap();
    record.args(["record", "-q", "--preload", "libc", "--snapshot-on", "crash", "-o", "crash.dat"]);
    let output = record.args(["--", "python3", "-c", FORKS]).current_dir(temporary.path()).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    // One file for each, or one for both where the recorder looked when both were dead.
    let files = ["crash.dat", "crash.dat.1"].into_iter().filter(|file| temporary.path().join(file).exists());
    let opened: Vec<_> = files
        .flat_map(|file| {
            let mut report = temporary.ringtap();
            events(&report.args(["report", "--json", file]).current_dir(temporary.path()).output().unwrap())
        })
        .map(|event| event["fields"]["path"].clone())
        .collect();
    assert!(
        opened.contains(&"/dev/zero".into()) && opened.contains(&"/dev/full".into()),
        "{}",
        said(&output)
    );
}

#[test]
fn only_the_events_that_were_asked_for_are_streamed() {
    library();
    let temporary = Temporary::new("preload-stream");
    let mut stream = temporary.ringtap();
    stream.args([
        "stream",
        "--json",
        "--preload",
        "libc",
        "-e",
        "libc_io:open*",
        "--",
        "cat",
        "/etc/hostname",
    ]);
    let output = stream.output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let opened = events(&output);
    assert!(!opened.is_empty() && opened.iter().all(|event| event["system"] == "libc_io"), "{opened:?}");
    let hostname = opened.iter().find(|event| event["fields"]["path"] == "/etc/hostname");
    assert!(hostname.unwrap()["fields"]["ret"].as_i64() >= Some(3), "{opened:?}");
}

#[test]
fn a_library_that_is_not_there_or_has_an_odd_name_is_told() {
    library();
    let temporary = Temporary::new("preload-missing");
    let stream = |library: &str| {
        let mut stream = temporary.ringtap();
        stream.env("RINGTAP_PRELOAD_LIBRARY", library).args(["stream", "--preload", "libc", "--", "true"]);
        said(&stream.output().unwrap())
    };
    let nowhere = "status Some(1), stderr:\nringtap: cannot find the library to preload at /no/such.so; build it with \
        `cargo build --release -p ringtap-preload`, or name it in RINGTAP_PRELOAD_LIBRARY\n";
    assert_eq!(stream("/no/such.so"), nowhere);
    let odd = temporary.path().join("a b.so");
    std::fs::write(&odd, "").unwrap();
    let text = stream(odd.to_str().unwrap());
    assert!(text.contains("cannot be told of") && text.contains("without spaces and colons"), "{text}");
}

//! `ringtap record`: its files as trace-cmd reads them, trace-cmd's as `ringtap report` reads them, and what is left
//! when a recording ends in the middle.

mod support;

use ringtap::{Config, Host};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use support::{Temporary, cannot_trace, run, said, signal, until};

ringtap::event! {
    /// One field of each kind.
    struct Odd<'a> as record:odd { a: u8, b: i16, c: u32, d: i64, name: &'a str, last: &'a str }
    print "%u %d %u %lld <%s> <%s>", a, b, c, d, name, last;
}

ringtap::event! {
    /// What a flight recorder waits for.
    struct Alarm as record:alarm { code: u32 }
}

const STRINGS: [&str; 6] =
    ["", "plain", "with space and 100%d", "\t tab", "schön € 日本", "\u{1}\u{7f}\\\"'"];

/// A host whose buffers have overflowed, behind a socket.
struct Shop {
    host: Host,
    socket: PathBuf,
    _server: ringtap::serve::Server,
    _turn: std::sync::MutexGuard<'static, ()>,
}

/// A process has one id for an event, so those who declare it take turns.
static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());

impl Shop {
    fn open(temporary: &Temporary, ring_subbufs: u32) -> Self {
        let turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let host = Host::new(&Config { ring_subbufs, ..Config::default() }).unwrap();
        let socket = temporary.path().join("shop.sock");
        let server = host.serve(&socket).unwrap();
        Odd::declared().unregister();
        Odd::register(&host).unwrap();
        Self { host, socket, _server: server, _turn: turn }
    }

    /// Writes so many events.
    fn sell(&self, count: u32) {
        let writer = self.host.writer();
        let long = "x".repeat(600);
        for c in 0..count {
            let name = STRINGS[c as usize % STRINGS.len()];
            let last = if c % 50 == 0 { long.as_str() } else { name };
            let (a, b, d) = (c.to_le_bytes()[0], i16::MIN + 1, -i64::from(c) << 20);
            Odd { a, b, c, d, name, last }.write(&writer);
        }
    }

    fn record(&self, temporary: &Temporary, options: &[&str]) -> Child {
        let mut command = temporary.ringtap();
        command.args(["record", "--json", "--attach", path(&self.socket)]).args(options).spawn().unwrap()
    }
}

fn path(of: &Path) -> &str {
    of.to_str().unwrap()
}

/// Waits until a recorder has its buffers, and ends it.
fn end(child: Child, file: &Path) -> (Value, Output) {
    until("the file has its head", || fs::metadata(file).is_ok_and(|file| file.len() > 0));
    signal(&child, Signal::INT);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    (serde_json::from_slice(&output.stdout).unwrap(), output)
}

/// The lines of `ringtap report` in trace-cmd's layout, which must be those of `trace-cmd report`, where there is one.
fn compared(file: &Path) -> Vec<String> {
    let ours = run(&["report", "--layout", "trace-cmd", path(file)]);
    assert!(ours.status.success() && ours.stderr.is_empty(), "{}", said(&ours));
    let lines = |bytes: &[u8]| bytes.split(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect::<Vec<_>>();
    let ours = lines(&ours.stdout);
    match Command::new("trace-cmd").args(["report", "-i", path(file)]).output() {
        Ok(theirs) => {
            assert!(theirs.status.success(), "{}", said(&theirs));
            let theirs = lines(&theirs.stdout);
            assert_eq!(ours.len(), theirs.len(), "{}", String::from_utf8_lossy(&theirs[theirs.len() - 1]));
            for (ours, theirs) in ours.iter().zip(&theirs) {
                let (ours, theirs) = (String::from_utf8_lossy(ours), String::from_utf8_lossy(theirs));
                // Its plugin learns names from the events before, ringtap from the file's list alone.
                if ours.contains("<...>-") {
                    continue;
                }
                assert_eq!(ours, theirs, "{}", file.display());
            }
        }
        Err(_) => println!("skipped the comparison, as trace-cmd is not installed"),
    }
    ours.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect()
}

/// Events, and events told to be lost, by `ringtap report --json`.
fn counted(file: &Path) -> (u64, u64) {
    let output = run(&["report", "--json", path(file)]);
    assert!(output.status.code().is_some_and(|code| code < 2), "{}", said(&output));
    let (mut events, mut lost) = (0, 0);
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let object: Value = serde_json::from_str(line).unwrap();
        match object["type"].as_str().unwrap() {
            "event" => events += 1,
            "lost" => lost += object["count"].as_u64().unwrap(),
            _ => {}
        }
    }
    (events, lost)
}

#[test]
fn an_application_with_losses_round_trips_in_every_version() {
    let temporary = Temporary::new("record-app");
    let ways: [&[&str]; 3] = [&["--file-version", "6"], &[], &["--compress"]];
    for (number, options) in ways.iter().enumerate() {
        let shop = Shop::open(&temporary, 8);
        shop.sell(3000);
        let file = temporary.path().join(format!("{number}.dat"));
        let child = shop.record(&temporary, &[&["-o", path(&file)], *options].concat());
        let (summary, _) = end(child, &file);
        let (events, lost) = counted(&file);
        assert_eq!(events + lost, 3000, "{summary}");
        assert!(events > 100 && lost > 100, "{events} {lost}");
        assert_eq!((summary["events"].as_u64(), summary["lost"].as_u64()), (Some(events), Some(lost)));
        let lines = compared(&file);
        assert!(lines.iter().any(|line| line.contains("<schön € 日本>")), "{}", lines[1]);
        assert!(lines.iter().any(|line| line.contains(" EVENTS DROPPED]")));
    }
}

#[test]
fn the_kernels_events_round_trip_in_every_version() {
    if cannot_trace() {
        return;
    }
    let temporary = Temporary::new("record-kernel");
    let ways: [&[&str]; 3] = [&["--file-version", "6"], &[], &["--compress=3"]];
    for (number, options) in ways.iter().enumerate() {
        let file = temporary.path().join(format!("{number}.dat"));
        let mut command = temporary.ringtap();
        command.args([
            "record",
            "--json",
            "--kernel",
            "-o",
            path(&file),
            "-e",
            "raw_syscalls",
            "-e",
            "sched",
        ]);
        let script = "ls -lR /etc >/dev/null 2>&1; true";
        let output = command.args(*options).args(["--", "sh", "-c", script]).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
        let lines = compared(&file);
        assert!(lines.len() > 200, "{summary}");
        let (events, lost) = counted(&file);
        assert_eq!((summary["events"].as_u64(), summary["lost"].as_u64()), (Some(events), Some(lost)));
    }
}

/// A program that uses ringtap, found by the socket's variable: one of the demo's workers.
const WORKER: &str = "exec \"$0\" demo-worker --parent $PPID --index 0 --of 1 --milliseconds 60000 \"$1\"";

#[test]
fn kernel_and_application_share_a_file_and_a_clock() {
    if cannot_trace() {
        return;
    }
    let temporary = Temporary::new("record-both");
    let (ringtap, folder) = (env!("CARGO_BIN_EXE_ringtap"), concat!(env!("CARGO_MANIFEST_DIR"), "/src"));
    let file = temporary.path().join("both.dat");
    let mut command = temporary.ringtap();
    command.args(["record", "--kernel", "-e", "raw_syscalls:sys_enter", "-o", path(&file), "--"]);
    let output = command.args(["sh", "-c", WORKER, ringtap, folder]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let lines = compared(&file);
    let place = |what: &str| lines.iter().position(|line| line.contains(what));
    let (first, hashed) = (place("sys_enter").unwrap(), place("file_hashed:").unwrap());
    let after = lines.iter().skip(hashed).any(|line| line.contains("sys_enter"));
    assert!(first < hashed && after, "they are interleaved");
    assert!(lines[hashed].starts_with("application: "), "{}", lines[hashed]);
}

#[test]
fn a_killed_recorder_leaves_what_it_had_written() {
    let temporary = Temporary::new("record-killed");
    for options in [&[][..], &["--compress"], &["--file-version", "6"]] {
        let shop = Shop::open(&temporary, 64);
        let file = temporary.path().join("killed.dat");
        let _ = fs::remove_file(&file);
        let mut child = shop.record(&temporary, &[&["-o", path(&file)], options].concat());
        until("the recorder writes", || {
            shop.sell(500);
            fs::metadata(&file).is_ok_and(|_| counted(&file).0 > 2000)
        });
        child.kill().unwrap();
        child.wait().unwrap();
        let (events, _) = counted(&file);
        assert!(events > 2000);
        let output = run(&["report", path(&file)]);
        assert!(output.status.success(), "{}", said(&output));
        // trace-cmd would step through the holes.
        let whole = temporary.path().join("whole.dat");
        let output = run(&["recover", path(&file), "-o", path(&whole)]);
        assert!(output.status.success(), "{}", said(&output));
        assert_eq!(counted(&whole), counted(&file), "{}", said(&output));
        assert!(compared(&whole).len() > 2000);
    }
}

#[test]
fn a_recording_cut_anywhere_can_be_read_up_to_there() {
    let temporary = Temporary::new("record-cut");
    let shop = Shop::open(&temporary, 64);
    shop.sell(2000);
    let file = temporary.path().join("whole.dat");
    let child = shop.record(&temporary, &["-o", path(&file)]);
    end(child, &file);
    let whole = fs::read(&file).unwrap();
    let (all, _) = counted(&file);
    let cut = temporary.path().join("cut.dat");
    let mut before = 0;
    for len in (100..whole.len()).step_by(whole.len() / 23) {
        fs::write(&cut, &whole[..len]).unwrap();
        let output = run(&["report", "--json", path(&cut)]);
        assert_eq!(output.status.code(), Some(1), "cut at {len}: {}", said(&output));
        let events =
            output.stdout.split(|&byte| byte == b'\n').filter(|line| line.starts_with(b"{\"type\":\"event"));
        let events = events.count();
        assert!(events >= before && (events as u64) < all, "cut at {len}: {events} after {before}");
        before = events;
    }
    assert!(before > 1000, "{before} of {all}");
}

#[test]
fn a_full_disk_is_told_and_the_file_can_be_read() {
    let temporary = Temporary::new("record-full");
    let small = temporary.path().join("small");
    fs::create_dir(&small).unwrap();
    let mount = |arguments: &[&str]| Command::new("mount").args(arguments).stderr(Stdio::null()).status();
    if !mount(&["-t", "tmpfs", "-o", "size=1m", "none", path(&small)]).is_ok_and(|status| status.success()) {
        println!("skipped, as nothing may be mounted here");
        return;
    }
    let shop = Shop::open(&temporary, 1024);
    shop.sell(40_000);
    let file = small.join("full.dat");
    let child = shop.record(&temporary, &["-o", path(&file)]);
    let output = child.wait_with_output().unwrap();
    let (events, _) = counted(&file);
    let unmounted = Command::new("umount").arg(&small).status().unwrap().success();
    assert!(unmounted && events > 1000, "{events}");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("full.dat; what it holds can be read") && stderr.contains("No space left"),
        "{stderr}"
    );
}

#[test]
fn files_rotate_and_the_oldest_go() {
    let temporary = Temporary::new("record-rotate");
    for options in [&[][..], &["--compress"]] {
        let shop = Shop::open(&temporary, 1024);
        let file = temporary.path().join("r.dat");
        let rotate = ["-o", path(&file), "--rotate-size", "1", "--files", "2"];
        let child = shop.record(&temporary, &[&rotate[..], options].concat());
        let third = temporary.path().join("r.dat.3");
        until("the third file after the first", || {
            shop.sell(1000);
            third.exists()
        });
        let (summary, _) = end(child, &third);
        let files: Vec<_> =
            summary["files"].as_array().unwrap().iter().map(|file| file.as_str().unwrap()).collect();
        assert_eq!(files.len(), 2, "{summary}");
        assert!(!file.exists(), "the oldest are gone");
        for file in files {
            assert!(counted(Path::new(file)).0 > 0);
            let report = run(&["report", file]);
            assert!(!said(&report).contains("<...>"), "{file} lacks names of tasks");
            compared(Path::new(file));
            fs::remove_file(file).unwrap();
        }
    }
}

#[test]
fn a_flight_recorder_writes_when_it_is_asked() {
    if cannot_trace() {
        return;
    }
    let temporary = Temporary::new("record-flight");
    let shop = Shop::open(&temporary, 16);
    let file = temporary.path().join("f.dat");
    let child =
        shop.record(&temporary, &["-o", path(&file), "--snapshot-on", "USR1", "--snapshot-on", "exit"]);
    // It has its handlers once it has the buffers: then nobody else can.
    until("the recorder is there", || shop.host.reader(0).is_err());
    shop.sell(100);
    assert!(!file.exists());
    signal(&child, Signal::USR1);
    until("the snapshot is there", || file.exists() && counted(&file).0 == 100);
    shop.sell(50);
    signal(&child, Signal::INT);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    // The page that was being written when the first was taken is in the second, too, as it is now.
    assert!(counted(&temporary.path().join("f.dat.1")).0 >= 50);

    let fork = "sched:sched_process_exit";
    let file = temporary.path().join("k.dat");
    let mut command = temporary.ringtap();
    command.args(["record", "--kernel", "--json", "-e", fork, "--snapshot-on", fork, "-o", path(&file)]);
    let output = command.args(["-a", "--", "sh", "-c", "/bin/true; sleep 0.5"]).output().unwrap();
    assert!(!compared(&file).is_empty(), "{}", said(&output));
}

#[test]
fn a_damaged_file_is_recovered_up_to_the_damage() {
    let temporary = Temporary::new("record-damaged");
    let shop = Shop::open(&temporary, 64);
    shop.sell(2000);
    let (file, whole) = (temporary.path().join("f.dat"), temporary.path().join("whole.dat"));
    end(shop.record(&temporary, &["-o", path(&file)]), &file);
    let (all, _) = counted(&file);
    let mut bytes = fs::read(&file).unwrap();
    // Longer than any record: one of them has no length any more.
    let at = bytes.len() / 4096 / 2 * 4096;
    bytes[at + 1000..at + 2000].fill(0);
    fs::write(&file, &bytes).unwrap();
    assert_eq!(run(&["report", path(&file)]).status.code(), Some(1));
    let output = run(&["recover", path(&file), "-o", path(&whole)]);
    assert!(
        output.status.success() && said(&output).contains("1 damaged pages were cut"),
        "{}",
        said(&output)
    );
    let (kept, _) = counted(&whole);
    assert!(kept < all && kept + 150 > all, "{kept} of {all}");
    assert!(compared(&whole).len() > 1000);
    let refused = |arguments: &[&str]| said(&run(&[&["recover"], arguments].concat()));
    assert!(refused(&[path(&file)]).contains("give the file to be written by -o"));
    assert!(refused(&[path(&file), "-o", path(&file)]).contains("would be overwritten"));
}

#[test]
fn an_applications_event_ends_the_flight() {
    let temporary = Temporary::new("record-alarm");
    for (number, is_known) in [true, false].into_iter().enumerate() {
        let shop = Shop::open(&temporary, 64);
        Alarm::declared().unregister();
        if is_known {
            Alarm::register(&shop.host).unwrap();
        }
        let file = temporary.path().join(format!("{number}.dat"));
        let options = ["-o", path(&file), "--announce", "--snapshot-on", "record:alarm"];
        let mut recorder = shop.record(&temporary, &options);
        announced(&mut recorder);
        if !is_known {
            Alarm::register(&shop.host).unwrap();
        }
        shop.sell(100);
        Alarm { code: 7 }.write(&shop.host.writer());
        // Too late.
        shop.sell(50);
        let output = recorder.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        // As with the kernel's `traceoff`, the event itself is not recorded any more.
        assert_eq!(counted(&file).0, 100, "{}", said(&output));
        let last = compared(&file).into_iter().rfind(|line| !line.is_empty()).unwrap();
        assert!(last.contains("odd:"), "{last}");
        assert!(shop.host.is_recording(), "as it was before");
    }
}

#[test]
fn an_applications_event_ends_the_flight_of_both() {
    if cannot_trace() {
        return;
    }
    let temporary = Temporary::new("record-alarm-both");
    let shop = Shop::open(&temporary, 64);
    Alarm::declared().unregister();
    let file = temporary.path().join("both.dat");
    let kernel = ["--kernel", "-e", "sched:sched_process_exit", "--snapshot-on", "record:alarm"];
    let mut recorder = shop.record(&temporary, &[&["-o", path(&file), "--announce"][..], &kernel].concat());
    announced(&mut recorder);
    Command::new("true").status().unwrap();
    Alarm::register(&shop.host).unwrap();
    shop.sell(10);
    Alarm { code: 7 }.write(&shop.host.writer());
    let output = recorder.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let lines = compared(&file);
    let count = |what: &str| lines.iter().filter(|line| line.contains(what)).count();
    assert_eq!(count("odd:"), 10, "{}", said(&output));
    assert!(count("sched_process_exit:") > 0);
}

#[test]
fn the_last_seconds_and_the_last_megabytes_are_kept() {
    let temporary = Temporary::new("record-last");
    let shop = Shop::open(&temporary, 1024);
    let mut files = Vec::new();
    // One consumes at a time, and each recorder takes what the one before left.
    for (number, last) in [&["--last", "5s"][..], &["--last", "1", "--last", "3600s"]].into_iter().enumerate()
    {
        let file = temporary.path().join(format!("{number}.dat"));
        let options = [&["-o", path(&file), "--announce", "--snapshot-on", "exit"][..], last].concat();
        let mut recorder = shop.record(&temporary, &options);
        announced(&mut recorder);
        shop.sell(20_000);
        if number == 0 {
            // Time itself is the matter.
            std::thread::sleep(std::time::Duration::from_millis(5500));
        }
        shop.sell(777);
        signal(&recorder, Signal::INT);
        let output = recorder.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        files.push(file);
    }
    let (events, _) = counted(&files[0]);
    assert!((777..2000).contains(&events), "whole pages that may reach into the last seconds: {events}");
    let (events, _) = counted(&files[1]);
    let len = fs::metadata(&files[1]).unwrap().len();
    assert!(events > 2000 && (800_000..1_300_000).contains(&len), "{events} events in {len} bytes");
    let refused = said(&run(&["record", "--attach", "s", "--snapshot-on", "exit", "--last", "5m"]));
    assert!(refused.contains("give MB such as 64, or seconds such as 30s"), "{refused}");
}

#[test]
fn files_of_two_recorders_with_two_clocks_are_one_timeline() {
    if cannot_trace() {
        return;
    }
    let temporary = Temporary::new("record-merged");
    let shop = Shop::open(&temporary, 64);
    let (ours, kernels) = (temporary.path().join("app.dat"), temporary.path().join("kernel.dat"));
    let mut recorder = shop.record(&temporary, &["-o", path(&ours), "--announce"]);
    announced(&mut recorder);
    shop.sell(5);
    let mut command = temporary.ringtap();
    command.args([
        "record",
        "--kernel",
        "-e",
        "sched:sched_process_exit",
        "-o",
        path(&kernels),
        "--",
        "true",
    ]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    shop.sell(5);
    signal(&recorder, Signal::INT);
    assert!(recorder.wait_with_output().unwrap().status.success());
    let output = run(&["report", "--json", path(&kernels), path(&ours)]);
    assert!(output.status.success(), "{}", said(&output));
    let lines = String::from_utf8(output.stdout).unwrap();
    let events: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(events.is_sorted_by_key(|event| event["ts"].as_u64()));
    let names: Vec<_> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(names.len(), 11, "{names:?}");
    assert_eq!(names.iter().position(|name| *name == "sched_process_exit"), Some(5), "{names:?}");
}

/// Waits until a recorder has all that it needs.
fn announced(recorder: &mut Child) {
    use std::io::Read;
    let mut line = [0; 10];
    recorder.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
    assert_eq!(&line, b"recording\n");
}

/// What trace-cmd records, where it can: some sandboxes forbid it to choose functions, which it does unasked.
fn trace_cmd_records(instance: &str, file: &Path, options: &[&str]) -> bool {
    let tracefs = ringtap::tracefs::Tracefs::find().unwrap();
    let folder = tracefs.root().join("instances").join(instance);
    let script = "echo 1 >\"$0\"; mount --bind \"$0\" /proc/sys/kernel/ftrace_enabled; cd \"$1\" || exit; shift\n\
        for f in set_ftrace_* set_graph_*; do [ ! -e $f ] || mount --bind /dev/null $f; done\n\
        cd /; exec trace-cmd record \"$@\"";
    fs::create_dir(&folder).unwrap();
    let scratch = file.with_extension("scratch");
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script, path(&scratch), path(&folder)]);
    command.args(["-o", path(file), "-B", instance, "-e", "sched", "-e", "raw_syscalls"]).args(options);
    let output = command.args(["sh", "-c", "ls -lR /etc >/dev/null"]).output();
    let _ = fs::remove_dir(&folder);
    output.is_ok_and(|output| output.status.success())
}

#[test]
fn what_trace_cmd_records_is_reported_as_it_does() {
    if cannot_trace() {
        return;
    }
    let temporary = Temporary::new("record-theirs");
    let ways: [&[&str]; 3] =
        [&["--file-version", "6"], &["--compression", "none"], &["--compression", "any"]];
    for (number, options) in ways.iter().enumerate() {
        let file = temporary.path().join(format!("{number}.dat"));
        let instance = format!("ringtap-theirs-{}-{number}", std::process::id());
        if !trace_cmd_records(&instance, &file, options) {
            println!("skipped, as trace-cmd cannot record here");
            return;
        }
        assert!(compared(&file).len() > 200);
    }
}

#[test]
fn each_event_is_in_one_recording_and_each_tells_its_own() {
    let temporary = Temporary::new("record-twice");
    let shop = Shop::open(&temporary, 64);
    let (mut sold, mut found) = (0, 0);
    // The second overflows the buffers between two recordings.
    for (round, count) in [100, 20_000, 100].into_iter().enumerate() {
        shop.sell(count);
        sold += u64::from(count);
        let file = temporary.path().join(format!("{round}.dat"));
        let (summary, _) = end(shop.record(&temporary, &["-o", path(&file)]), &file);
        let (events, lost) = counted(&file);
        assert_eq!(
            (summary["events"].as_u64(), summary["lost"].as_u64()),
            (Some(events), Some(lost)),
            "{summary}"
        );
        found += events + lost;
    }
    assert_eq!(found, sold);
}

#[test]
fn mistakes_are_told() {
    let refused = |arguments: &[&str]| said(&run(&[&["record"], arguments].concat()));
    insta::assert_snapshot!("record-no-source", refused(&[]));
    insta::assert_snapshot!(
        "record-version-6-compressed",
        refused(&["--file-version", "6", "--compress", "--attach", "s"])
    );
    insta::assert_snapshot!("record-trigger", refused(&["--snapshot-on", "KILL", "--attach", "s"]));
    assert!(refused(&["-o", "-", "--", "true"]).contains("`-` is none"));
    insta::assert_snapshot!("record-no-folder", refused(&["-o", "/no/such/folder/t.dat", "--", "true"]));
}

#[test]
fn an_event_that_nobody_declared_is_told() {
    let temporary = Temporary::new("record-unmet");
    let mut command = temporary.ringtap();
    command
        .args(["record", "-e", "shop:nothing", "-o", "unmet.dat", "--", "true"])
        .current_dir(temporary.path());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let warning = "no event matched 'shop:nothing'; the application declared none";
    assert!(said(&output).contains(warning), "{}", said(&output));
}

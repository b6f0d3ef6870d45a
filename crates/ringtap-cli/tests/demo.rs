//! `ringtap demo`: each event is accounted for, and nothing stays behind, however it ends.

mod support;

use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Output};
use support::{Temporary, children, run, runs, said, signal, until};

/// The last line of the output.
fn summary(output: &Output) -> Value {
    let text = std::str::from_utf8(&output.stdout).unwrap();
    let last = text.lines().last().unwrap_or_else(|| panic!("{}", said(output)));
    serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {last}"))
}

fn number(summary: &Value, key: &str) -> u64 {
    summary[key].as_u64().unwrap_or_else(|| panic!("{key} of {summary}"))
}

fn assert_adds_up(summary: &Value) {
    let sum: u64 = ["read", "lost", "left"].iter().map(|key| number(summary, key)).sum();
    assert_eq!(number(summary, "written"), sum, "{summary}");
}

#[test]
fn the_summary_is_the_last_line_and_adds_up() {
    let output = run(&["demo", "--json", "--workers", "3", env!("CARGO_MANIFEST_DIR")]);
    assert!(output.status.success() && output.stderr.is_empty(), "{}", said(&output));
    let summary = summary(&output);
    let mut keys: Vec<_> = summary.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    let documented =
        ["cpus", "left", "lost", "ns_per_clock_read", "ns_per_event", "read", "writers", "written"];
    assert_eq!(keys, documented);
    assert_adds_up(&summary);
    assert_eq!(number(&summary, "writers"), 3);
    assert!(number(&summary, "cpus") > 0 && number(&summary, "written") > 50);
    let (event, clock) = (&summary["ns_per_event"], &summary["ns_per_clock_read"]);
    assert!(event.as_f64() > clock.as_f64() && clock.as_f64() > Some(0.1), "{summary}");

    // Each event that was read is a line, decoded.
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let events: Vec<_> = lines.iter().filter(|line| line["event"].is_string()).collect();
    assert_eq!(events.len() as u64, number(&summary, "read"));
    let opened = events.iter().find(|event| event["event"] == "file_open").unwrap();
    assert!(opened["fields"]["path"].as_str().unwrap().starts_with(env!("CARGO_MANIFEST_DIR")), "{opened}");
    assert!(opened["comm"].as_str().unwrap().starts_with("worker-"), "{opened}");
    let times = events.iter().map(|event| event["ts"].as_u64().unwrap());
    assert!(times.is_sorted(), "one timeline");
}

#[test]
fn workers_that_are_gone_keep_their_names() {
    let folder = Temporary::new("one-file");
    fs::write(folder.path().join("file"), "one line\n").unwrap();
    let output = run(&["demo", "--json", folder.path().to_str().unwrap()]);
    assert!(output.status.success(), "{}", said(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let names: Vec<_> = lines.filter_map(|line| Some(line.get("comm")?.as_str()?.to_owned())).collect();
    assert!(!names.is_empty() && names.iter().all(|name| name.starts_with("worker-")), "{names:?}");
}

#[test]
fn what_is_lost_is_counted() {
    let mut small = Temporary::new("lossy").ringtap();
    small.args(["demo", "--json", "--seconds", "2", "--workers", "8", "--buffer-size", "8", "/usr/include"]);
    let output = small.output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert_adds_up(&summary(&output));
}

#[test]
fn any_folder_will_do() {
    let folder = Temporary::new("any-folder");
    let events = |path: &std::path::Path| {
        let output = run(&["demo", "--json", "--quiet", "--workers", "2", path.to_str().unwrap()]);
        assert!(output.status.success(), "{}", said(&output));
        let summary = summary(&output);
        assert_adds_up(&summary);
        number(&summary, "written")
    };
    assert_eq!(events(folder.path()), 1, "an empty folder is listed");
    let file = folder.path().join("-- a file\n");
    fs::write(&file, "one two\n").unwrap();
    assert_eq!(events(&file), 3, "a file is opened, read, and hashed");
    assert_eq!(events(folder.path()), 4);
}

#[test]
fn mistakes_are_told_in_one_sentence() {
    insta::assert_snapshot!("demo-no-folder", said(&run(&["demo", "no-such-folder"])));
    insta::assert_snapshot!("demo-subbuf-size", said(&run(&["demo", "--subbuf-size", "3"])));
    insta::assert_snapshot!("demo-buffer-size", said(&run(&["demo", "--buffer-size", "4"])));
    insta::assert_snapshot!("demo-buffer-too-large", said(&run(&["demo", "--buffer-size", "4294967295"])));
}

/// A demo at work on a large folder, with its workers' pids.
fn at_work(temporary: &Temporary) -> (Child, BufReader<std::process::ChildStdout>, Vec<u32>) {
    let mut demo = temporary.ringtap();
    demo.args(["demo", "--json", "--seconds", "60", "--workers", "2", "/usr"]);
    let mut demo = demo.spawn().unwrap();
    let mut stdout = BufReader::new(demo.stdout.take().unwrap());
    // With the first event, all is set up.
    stdout.read_line(&mut String::new()).unwrap();
    until("two workers", || children(&demo).len() == 2);
    let workers = children(&demo);
    (demo, stdout, workers)
}

#[test]
fn a_signal_ends_it_with_a_summary_and_nothing_left() {
    for number in [Signal::INT, Signal::TERM, Signal::HUP] {
        let temporary = Temporary::new(&format!("demo-signal-{}", number.as_raw()));
        let (mut demo, mut stdout, workers) = at_work(&temporary);
        signal(&demo, number);
        let mut last = String::new();
        loop {
            let mut line = String::new();
            if stdout.read_line(&mut line).unwrap() == 0 {
                break;
            }
            last = line;
        }
        assert_eq!(
            demo.wait().unwrap().signal(),
            Some(number.as_raw()),
            "it dies of the signal, behind all that"
        );
        assert_adds_up(&serde_json::from_str(&last).unwrap_or_else(|error| panic!("{error}: {last}")));
        assert!(!workers.into_iter().any(runs), "workers are gone");
        assert!(temporary.is_empty(), "its folder is gone");
    }
}

#[test]
fn what_a_killed_demo_leaves_is_tidied_by_the_next() {
    let temporary = Temporary::new("demo-killed");
    let (mut demo, _stdout, workers) = at_work(&temporary);
    signal(&demo, Signal::KILL);
    assert_eq!(demo.wait().unwrap().signal(), Some(9));
    until("workers end with their parent", || !workers.iter().any(|&worker| runs(worker)));
    assert!(!temporary.is_empty(), "nobody could tidy up");
    let mut next = temporary.ringtap();
    let next = next.args(["demo", "--quiet", env!("CARGO_MANIFEST_DIR")]).output().unwrap();
    assert!(next.status.success(), "{}", said(&next));
    assert!(temporary.is_empty(), "the next run did");
}

#[test]
fn a_killed_worker_loses_nothing_it_had_written() {
    let temporary = Temporary::new("demo-worker-killed");
    let mut demo = temporary.ringtap();
    demo.args(["demo", "--json", "--seconds", "1", "--workers", "2", "/usr"]);
    let mut demo = demo.spawn().unwrap();
    until("two workers", || children(&demo).len() == 2);
    // Its first events are out, so it is in the midst of its work.
    let mut stdout = BufReader::new(demo.stdout.take().unwrap());
    stdout.read_line(&mut String::new()).unwrap();
    let victim = rustix::process::Pid::from_raw(children(&demo)[0].cast_signed()).unwrap();
    rustix::process::kill_process(victim, Signal::KILL).unwrap();
    let last = stdout.lines().map(Result::unwrap).last().unwrap();
    assert!(demo.wait().unwrap().success());
    assert_adds_up(&serde_json::from_str(&last).unwrap());
    assert!(temporary.is_empty());
}

#[test]
fn a_closed_pipe_ends_it_in_peace() {
    let temporary = Temporary::new("demo-pipe");
    let (demo, stdout, workers) = at_work(&temporary);
    drop(stdout);
    let output = demo.wait_with_output().unwrap();
    assert_eq!(said(&output), "status Some(0), stderr:\n");
    assert!(!workers.into_iter().any(runs) && temporary.is_empty());
}

//! The programs of this crate, run as a user runs them, on the real rivals. What is missing is skipped by the
//! programs themselves, in a line that the tests print.

use ringtap_benches::{callgrind, lttng};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const BENCH: &str = env!("CARGO_BIN_EXE_bench");
const KILL_TEST: &str = env!("CARGO_BIN_EXE_kill-test");
const INSTRUCTIONS: &str = env!("CARGO_BIN_EXE_instructions");

fn run(program: &str, args: &[&str]) -> Output {
    Command::new(program).args(args).output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn every_contender_is_measured_or_skipped_with_a_reason() {
    let table: Value = serde_json::from_str(&stdout(&run(BENCH, &["--json", "--rounds", "5"]))).unwrap();
    let (lines, skipped) = (table["lines"].as_array().unwrap(), table["skipped"].as_array().unwrap());
    skipped.iter().for_each(|reason| println!("skipped {}", reason.as_str().unwrap()));
    assert_eq!(lines.len() + skipped.len(), 14, "{table}");
    for line in lines {
        let (wall, ratio) = (line["wall_ns"]["median"].as_f64(), line["ratio"]["median"].as_f64());
        // Nothing takes no time, and nothing but an event that is switched off takes less than the clock.
        let least = if line["name"] == "ringtap, switched off" { 0.01 } else { 0.5 };
        assert!(wall.unwrap() > least && ratio.unwrap() > least, "{line}");
        // No tracer is cheaper than the clock that it reads.
        let is_tracer = ["lttng-ust", "trace_marker_raw"].contains(&line["name"].as_str().unwrap());
        assert!(!is_tracer || ratio.unwrap() > 1.5, "{line}");
    }
}

#[test]
fn an_unknown_base_is_one_clear_line() {
    let output = run(BENCH, &["--base", "sundial", "--filter", "clock_gettime"]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert_eq!(error, "error: --base sundial: there is no such contender here\n");
}

/// Without a single kill nothing may be missing: what is missing after kills is then their doing.
#[test]
fn without_kills_lttng_records_every_event() {
    if let Err(reason) = lttng::check() {
        println!("skipped the kill test's control run: {reason:#}");
        return;
    }
    let output = run(KILL_TEST, &["--json", "--only", "lttng", "--lttng-kills", "0", "--after", "50000"]);
    let reports: Vec<Value> =
        stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(reports.len(), 2);
    for report in reports {
        assert_eq!(report["account"]["recorded"], 50_000, "{report}");
        assert_eq!(report["account"]["recorded_earlier"], 10_000 + report["meanwhile"].as_u64().unwrap());
        assert_eq!(report["account"]["lost_events"], 0, "{report}");
        assert_eq!(report["unaccounted"], 0, "{report}");
        let steps = report["account"]["steps"].as_array().unwrap();
        assert!(steps.iter().all(|step| step["end"] == "done"), "{report}");
    }
}

/// The kill test, shortened: for each way that writers exclude each other.
#[test]
fn killed_writers_cost_a_healthy_process_nothing() {
    for (writer, kills) in [("rseq", 300), ("locked", 100)] {
        let kills_arg = kills.to_string();
        let args = ["--json", "--only", "ringtap", "--writer", writer, "--kills", &kills_arg];
        let report: Value = serde_json::from_str(&stdout(&run(KILL_TEST, &args))).unwrap();
        println!("{report}");
        let (account, exact) = (&report["account"], &report["account"]["exact"]);
        assert_eq!([&report["seen_writing"], &exact["victims_read"]], [kills, kills]);
        let number = |value: &Value| value.as_u64().unwrap();
        assert!(number(&report["meanwhile"]) > 0 && number(&exact["healthy_read"]) > 0);
        let tried = number(&report["before"]) + number(&report["meanwhile"]) + number(&report["after"]);
        assert_eq!(number(&exact["tally"]["tried"]), tried);
        assert_eq!(number(&exact["read"]) + number(&exact["lost"]), number(&exact["written"]));
        // The command fails where events are unaccounted for; these are the facts that it judges by.
        assert_eq!([&report["unaccounted"], &exact["torn"], &exact["disordered"]], [0, 0, 0]);
        let lost_or_refused = number(&account["lost_events"]) + number(&exact["tally"]["busy"]);
        assert!(number(&account["recorded"]) + lost_or_refused >= 220_000);
    }
}

/// SIGKILL leaves a program no chance to clean up; what it started must do so by itself.
#[test]
fn nothing_is_left_behind_when_a_run_is_killed() {
    for (program, args) in [
        (BENCH, &["--rounds", "100000"][..]),
        (KILL_TEST, &["--only", "ringtap", "--kills", "1000000"]),
        (KILL_TEST, &["--only", "lttng", "--lttng-kills", "1000000"]),
    ] {
        let mut child =
            Command::new(program).args(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(1500));
        let mut started = BTreeSet::new();
        descendants(child.id(), &mut started);
        println!("{program} had started {} processes when it was killed", started.len());
        child.kill().unwrap();
        child.wait().unwrap();
        let end = Instant::now() + Duration::from_secs(40);
        while started.iter().any(|pid| Path::new(&format!("/proc/{pid}")).exists()) {
            assert!(Instant::now() < end, "{program}: still there after a SIGKILL: {started:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        for pid in started {
            let instance = format!("/sys/kernel/tracing/instances/ringtap-bench-{pid}");
            assert!(!Path::new(&instance).exists(), "{instance} was left behind");
        }
    }
}

fn descendants(of: u32, found: &mut BTreeSet<u32>) {
    for task in fs::read_dir(format!("/proc/{of}/task")).into_iter().flatten().flatten() {
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|pid| pid.parse().ok()) {
            found.insert(child);
            descendants(child, found);
        }
    }
}

#[test]
fn instruction_counts_repeat_and_fail_a_build_that_exceeds_them() {
    if let Err(reason) = callgrind::check() {
        println!("skipped instruction counts: {reason:#}");
        return;
    }
    let counts = stdout(&run(INSTRUCTIONS, &["--bless"]));
    let numbers = |counts: &str| -> Vec<f64> {
        counts.lines().map(|line| line.split(' ').nth(2).unwrap().parse().unwrap()).collect()
    };
    let again = stdout(&run(INSTRUCTIONS, &["--bless"]));
    // But for an event that follows late on the one before, and takes a time stamp more.
    let is_alike = |(a, b): (&f64, &f64)| (a - b).abs() <= a / 100.0;
    assert!(numbers(&counts).iter().zip(&numbers(&again)).all(is_alike), "{counts}{again}");
    assert_eq!(counts.lines().count(), callgrind::PROBES.len());
    let count_of = |name: &str| {
        let line = counts.lines().find(|line| line.contains(&format!(" {name} "))).unwrap();
        line.split(' ').nth(2).unwrap().to_owned()
    };
    assert_eq!(count_of(callgrind::GET_READER_OF_FEW), count_of(callgrind::GET_READER_OF_MANY));

    let file = std::env::temp_dir().join(format!("ringtap-budgets-{}", std::process::id()));
    let compare = |budgets: &str| {
        fs::write(&file, budgets).unwrap();
        run(INSTRUCTIONS, &["--budgets", file.to_str().unwrap()])
    };
    let kept = stdout(&compare(&counts));
    let first = counts.lines().next().unwrap();
    let halved = counts.replace(first, &format!("{} walk-record 1.0 3%", std::env::consts::ARCH));
    let exceeded = compare(&halved);
    let missing = compare("");
    fs::remove_file(&file).unwrap();

    assert!(kept.lines().all(|line| line.ends_with(": kept")), "{kept}");
    for failed in [exceeded, missing] {
        let error = String::from_utf8(failed.stderr).unwrap();
        assert!(!failed.status.success() && error.starts_with("error: over budget: walk-record"), "{error}");
    }
}

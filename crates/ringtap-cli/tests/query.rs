//! `ringtap query`: answers about traces, and about the Parquet files that were made of them.
#![cfg(feature = "query")]

mod support;
#[path = "support/synthetic.rs"]
mod synthetic;

use ringtap::{Config, Host};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{Temporary, run, said, signal, until};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn capture() -> PathBuf {
    repository().join("compliance/capture.dat")
}

fn path(of: &Path) -> &str {
    of.to_str().unwrap()
}

/// The answer, as it is printed.
fn answer(format: &str, file: &Path, sql: &str) -> String {
    let output = run(&["query", "--format", format, path(file), sql]);
    assert!(output.status.success(), "{}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn time_line(temporary: &Temporary) -> PathBuf {
    let file = temporary.path().join("time_line.dat");
    fs::write(&file, synthetic::time_line()).unwrap();
    file
}

fn kinds(temporary: &Temporary) -> PathBuf {
    let file = temporary.path().join("kinds.dat");
    fs::write(&file, synthetic::all_kinds(false)).unwrap();
    file
}

#[test]
fn the_events_of_a_kernel_are_all_there() {
    let ours = run(&["report", "--json", path(&capture())]);
    let mut expected: BTreeMap<String, u64> = BTreeMap::new();
    for event in objects(&String::from_utf8(ours.stdout).unwrap()) {
        *expected.entry(event["event"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    let counted = answer("json", &capture(), "SELECT event, count(*) AS n FROM events GROUP BY event");
    let counted: BTreeMap<_, _> = objects(&counted)
        .iter()
        .map(|row| (row["event"].as_str().unwrap().to_owned(), row["n"].as_u64().unwrap()))
        .collect();
    assert_eq!(counted, expected);
    let switches = "SELECT count(*) AS n, sum(CASE WHEN comm = prev_comm THEN 1 ELSE 0 END) AS named FROM sched.sched_switch";
    let switches = &objects(&answer("json", &capture(), switches))[0];
    assert_eq!(switches["n"], expected["sched_switch"]);
    // Names of tasks are joined to each row; here the kernel says them itself, too.
    assert!(switches["named"].as_u64().unwrap() > expected["sched_switch"] / 2, "{switches}");
}

#[test]
fn spans_have_durations_and_losses_are_a_table() {
    let temporary = Temporary::new("query-spans");
    let file = time_line(&temporary);
    let spans = "SELECT time, cpu, pid, category, name, duration_ns, depth FROM spans ORDER BY time";
    insta::assert_snapshot!("query-spans", answer("table", &file, spans));
    let percentiles = "SELECT name, count(*) AS n, approx_percentile_cont(0.5) WITHIN GROUP (ORDER BY duration_ns) AS p50 \
                       FROM spans GROUP BY name ORDER BY name";
    insta::assert_snapshot!("query-percentiles", answer("csv", &file, percentiles));
    let lost = "SELECT cpu, count FROM lost ORDER BY cpu, count";
    insta::assert_snapshot!("query-lost", answer("json", &kinds(&temporary), lost));
    let tables = "SELECT table_schema, table_name FROM information_schema.tables \
                  WHERE table_schema <> 'information_schema' ORDER BY 1, 2";
    insta::assert_snapshot!("query-tables", answer("csv", &kinds(&temporary), tables));
}

#[test]
fn every_kind_of_field_has_its_type() {
    let temporary = Temporary::new("query-kinds");
    let sql = "SELECT * EXCLUDE (host, boot_id, instance, string) FROM kinds ORDER BY time LIMIT 2";
    insta::assert_snapshot!("query-kinds", answer("json", &kinds(&temporary), sql));
    let odd = "SELECT string FROM kinds ORDER BY time";
    let strings: Vec<_> = objects(&answer("json", &kinds(&temporary), odd))
        .iter()
        .filter_map(|row| row.get("string").map(|text| text.as_str().unwrap().to_owned()))
        .collect();
    let until_nul =
        |text: &[u8]| String::from_utf8_lossy(text.split(|byte| *byte == 0).next().unwrap()).into_owned();
    let expected: Vec<_> = synthetic::odd_strings().iter().map(|text| until_nul(text)).collect();
    assert_eq!(strings, expected);
    let quoted = "SELECT sum(class) AS sum FROM app.\"rest-of.it \"\"q\"\"\"";
    assert_eq!(answer("csv", &kinds(&temporary), quoted), "sum\n45\n");
}

#[test]
fn mistakes_get_the_names_that_there_are() {
    let temporary = Temporary::new("query-errors");
    let file = kinds(&temporary);
    let refused = |sql: &str| said(&run(&["query", path(&file), sql])).replace(path(temporary.path()), "TMP");
    insta::assert_snapshot!("query-no-table", refused("SELECT * FROM sched_swich"));
    insta::assert_snapshot!("query-no-column", refused("SELECT txt FROM lost"));
    insta::assert_snapshot!("query-no-sql", refused("SELEC 1"));
    insta::assert_snapshot!("query-no-file", said(&run(&["query", "/nowhere.dat", "SELECT 1"])));
}

#[test]
fn parquet_files_answer_as_their_trace_does() {
    let temporary = Temporary::new("query-parquet");
    let queries = [
        "SELECT system, event, count(*) AS n, min(time) AS first FROM events GROUP BY system, event ORDER BY system, event",
        "SELECT * FROM spans ORDER BY time, duration_ns",
        "SELECT * FROM lost ORDER BY cpu, time",
        "SELECT cpu, pid, comm, flow, id FROM app.work_begin ORDER BY time",
        "SELECT count(*) AS n, count(prev_comm) AS named, max(next_prio) AS prio FROM sched_switch",
        "SELECT comm, field_comm, field_pid, target_cpu FROM sched_waking ORDER BY time LIMIT 3",
    ];
    for trace in [time_line(&temporary), capture()] {
        let name = trace.file_stem().unwrap().to_str().unwrap();
        let out = |kind: &str| temporary.path().join(format!("{name}-{kind}"));
        let export = |out: &Path, more: &[&str]| {
            let arguments = [&["export", "--to", "parquet", "--spans", "-o", path(out), path(&trace)], more];
            let output = run(&arguments.concat());
            assert!(output.status.success(), "{}", said(&output));
        };
        export(&out("wide.parquet"), &[]);
        export(&out("event"), &["--partition", "event"]);
        export(&out("hour"), &["--partition", "hour"]);
        for sql in queries {
            if sql.contains("work_begin") && name == "capture" {
                continue;
            }
            let expected = answer("json", &trace, sql);
            for kind in ["wide.parquet", "event", "hour"] {
                assert_eq!(answer("json", &out(kind), sql), expected, "{kind}: {sql}");
            }
        }
        // An answer is a file that can be asked again, under its own name.
        let kept = temporary.path().join("kept.parquet");
        let sql = "SELECT event, count(*) AS n FROM events GROUP BY event";
        let output = run(&["query", "--format", "parquet", "-o", path(&kept), path(&trace), sql]);
        assert!(output.status.success(), "{}", said(&output));
        let count = objects(&answer("json", &trace, "SELECT count(*) AS n FROM events"))[0]["n"].clone();
        assert_eq!(objects(&answer("json", &kept, "SELECT sum(n) AS n FROM kept"))[0]["n"], count);
    }
}

ringtap::event! {
    /// Work begins.
    struct WorkBegin as live:work_begin { user: u64 }
}

ringtap::event! {
    /// And ends.
    struct WorkEnd<'a> as live:work_end { how: &'a str }
}

#[test]
fn an_application_is_asked_after_it_was_exported_live() {
    let temporary = Temporary::new("query-live");
    let host = Host::new(&Config::default()).unwrap();
    let socket = temporary.path().join("app.sock");
    let _server = host.serve(&socket).unwrap();
    WorkBegin::register(&host).unwrap();
    WorkEnd::register(&host).unwrap();
    let writer = host.writer();
    for user in 0..1000 {
        WorkBegin { user }.write(&writer);
        WorkEnd { how: "well" }.write(&writer);
    }
    let out = temporary.path().join("out");
    let arguments =
        ["export", "--to", "parquet", "--partition", "hour", "--spans", "-o", path(&out), "--attach"];
    let export = temporary.ringtap().args(arguments).arg(&socket).spawn().unwrap();
    until("the export begins", || out.exists());
    signal(&export, Signal::INT);
    let output = export.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", said(&output));
    let sql = "SELECT count(*) AS n, count(DISTINCT host) AS hosts, min(length(boot_id)) AS boot, \
               bool_and(time > now()::timestamp - INTERVAL '1 day') AS today, sum(\"user\") AS users FROM work_begin";
    let row = &objects(&answer("json", &out, sql))[0];
    assert_eq!(
        (&row["n"], &row["hosts"], &row["users"]),
        (&1000.into(), &1.into(), &499_500.into()),
        "{row}"
    );
    assert_eq!((&row["boot"], &row["today"]), (&36.into(), &true.into()), "{row}");
    let spans = objects(&answer("json", &out, "SELECT name, count(*) AS n FROM spans GROUP BY name"));
    assert_eq!((&spans[0]["name"], &spans[0]["n"]), (&"work".into(), &1000.into()));
}

/// Runs what a page shows, and compares what it prints with what the page says.
fn run_page(page: &str) -> usize {
    let temporary = Temporary::new("query-page");
    std::os::unix::fs::symlink(capture(), temporary.path().join("trace.dat")).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_ringtap")).parent().unwrap();
    let search = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let mut commands = 0;
    for block in page.split("```console\n").skip(1) {
        let block = block.split("```").next().unwrap();
        for shown in block.split("$ ").skip(1) {
            let (command, expected) = shown.split_once('\n').unwrap();
            let mut shell = Command::new("sh");
            let output =
                shell.args(["-ec", command]).current_dir(temporary.path()).env("PATH", &search).output();
            let output = output.unwrap();
            assert!(output.status.success(), "{command}\n{}", said(&output));
            assert_eq!(String::from_utf8(output.stdout).unwrap(), expected, "{command}");
            commands += 1;
        }
    }
    commands
}

#[test]
fn the_pages_examples_run() {
    let page = |name: &str| fs::read_to_string(repository().join("docs").join(name)).unwrap();
    assert!(run_page(&page("query.md")) >= 3);
    assert!(run_page(&page("export.md")) >= 2);
}

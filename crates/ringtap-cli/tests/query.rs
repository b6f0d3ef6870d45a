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

/// A trace in all the forms that can be asked: as it is, as trace-cmd writes it, and as three kinds of Parquet.
fn forms(temporary: &Temporary, trace: &Path) -> Vec<PathBuf> {
    let mut forms = own_forms(temporary, trace);
    let name = trace.file_stem().unwrap().to_str().unwrap();
    for compression in ["none", "any"] {
        let file = temporary.path().join(format!("{name}-{compression}"));
        let mut convert = Command::new("trace-cmd");
        convert.args(["convert", "--file-version", "7", "--compression", compression]);
        match convert.arg("-i").arg(trace).arg("-o").arg(&file).output() {
            Ok(converted) => assert!(converted.status.success(), "{}", said(&converted)),
            Err(_) => {
                println!("without files of trace-cmd, as it is not installed");
                continue;
            }
        }
        forms.push(file);
    }
    forms
}

/// The forms that ringtap makes.
fn own_forms(temporary: &Temporary, trace: &Path) -> Vec<PathBuf> {
    let name = trace.file_stem().unwrap().to_str().unwrap();
    let out = |kind: &str| temporary.path().join(format!("{name}-{kind}"));
    let mut forms = vec![trace.to_owned()];
    for (kind, options) in
        [("wide.parquet", &[][..]), ("event", &["--partition", "event"]), ("hour", &["--partition", "hour"])]
    {
        let file = out(kind);
        let arguments = ["export", "--to", "parquet", "--spans", "-o", path(&file), path(trace)];
        let output = run(&[&arguments, options].concat());
        assert!(output.status.success(), "{}", said(&output));
        forms.push(file);
    }
    forms
}

/// The objects of `ringtap report --json`.
fn reported(trace: &Path) -> Vec<Value> {
    let output = run(&["report", "--json", path(trace)]);
    assert!(output.status.success(), "{}", said(&output));
    objects(&String::from_utf8(output.stdout).unwrap())
}

/// How often each name is among them, as a table of it would have it.
fn tally<'a>(names: impl Iterator<Item = &'a Value>) -> Vec<(String, u64)> {
    let mut tally: BTreeMap<String, u64> = BTreeMap::new();
    names.for_each(|name| *tally.entry(name.as_str().unwrap().to_owned()).or_default() += 1);
    tally.into_iter().collect()
}

/// An answer's rows of a name and a number.
fn rows(answer: &str) -> Vec<(String, u64)> {
    let row = |row: &Value| (row["name"].as_str().unwrap().to_owned(), row["n"].as_u64().unwrap());
    objects(answer).iter().map(row).collect()
}

#[test]
fn every_form_of_a_kernels_trace_gives_the_numbers_of_its_report() {
    let temporary = Temporary::new("query-forms");
    let reported = reported(&capture());
    let events = || reported.iter().filter(|object| object["type"] == "event");
    let switches = || events().filter(|event| event["event"] == "sched_switch");
    let by_event = tally(events().map(|event| &event["event"]));
    let by_task = tally(switches().map(|switch| &switch["fields"]["next_comm"]));
    let prio: i64 = switches().map(|switch| switch["fields"]["next_prio"].as_i64().unwrap()).sum();
    let named = switches().filter(|switch| switch["comm"] == switch["fields"]["prev_comm"]).count();
    assert!(by_event.len() > 50 && by_task.len() > 3 && prio > 0 && named > 10);
    let forms = forms(&temporary, &capture());
    assert!(forms.len() >= 4, "{forms:?}");
    for form in forms {
        let ask = |sql: &str| answer("json", &form, sql);
        let name = form.display();
        let events = "SELECT event AS name, count(*) AS n FROM events GROUP BY event ORDER BY event";
        assert_eq!(rows(&ask(events)), by_event, "{name}");
        let tasks = "SELECT next_comm AS name, count(*) AS n FROM sched_switch GROUP BY 1 ORDER BY 1";
        assert_eq!(rows(&ask(tasks)), by_task, "{name}");
        // Names of tasks are joined to each row; here the kernel says them itself, too.
        let sums = "SELECT sum(next_prio) AS prio, sum(CASE WHEN comm = prev_comm THEN 1 ELSE 0 END) AS named \
                    FROM sched.sched_switch";
        let sums = &objects(&ask(sums))[0];
        assert_eq!((&sums["prio"], &sums["named"]), (&prio.into(), &named.into()), "{name}");
    }
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
    let listed = run(&["query", "--list", "--format", "csv", path(&kinds(&temporary))]);
    insta::assert_snapshot!("query-list", String::from_utf8(listed.stdout).unwrap());
    let listed = run(&["query", "--list", "--format", "json", path(&kinds(&temporary))]);
    for table in objects(&String::from_utf8(listed.stdout).unwrap()) {
        let sql = format!("SELECT count(*) AS n FROM {}", table["table"].as_str().unwrap());
        assert_eq!(objects(&answer("json", &kinds(&temporary), &sql))[0]["n"], table["rows"], "{sql}");
    }
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
        .filter_map(|row| row["string"].as_str().map(str::to_owned))
        .collect();
    let until_nul =
        |text: &[u8]| String::from_utf8_lossy(text.split(|byte| *byte == 0).next().unwrap()).into_owned();
    let expected: Vec<_> = synthetic::odd_strings().iter().map(|text| until_nul(text)).collect();
    assert_eq!(strings, expected);
    let quoted = "SELECT sum(class) AS sum FROM app.\"rest-of.it \"\"q\"\"\"";
    assert_eq!(answer("csv", &kinds(&temporary), quoted), "sum\n45\n");
}

#[test]
fn traces_of_both_byte_orders_are_one_table() {
    let temporary = Temporary::new("query-orders");
    let files = [false, true].map(|is_big| {
        let file = temporary.path().join(format!("kinds-{is_big}.dat"));
        fs::write(&file, synthetic::all_kinds(is_big)).unwrap();
        file
    });
    let both = temporary.path().join("both.parquet");
    let output = run(&["export", "--to", "parquet", "-o", path(&both), path(&files[0]), path(&files[1])]);
    assert!(output.status.success(), "{}", said(&output));
    let sql = "SELECT c, d, e, low, string, count(*) AS n FROM kinds GROUP BY c, d, e, low, string ORDER BY c, string";
    let once = objects(&answer("json", &files[0], sql));
    let twice = run(&["query", "--format", "json", path(&files[0]), path(&files[1]), sql]);
    for twice in [objects(&String::from_utf8(twice.stdout).unwrap()), objects(&answer("json", &both, sql))] {
        assert_eq!((once.len(), once[0]["n"].as_u64(), twice[0]["n"].as_u64()), (11, Some(1), Some(2)));
        let without_count = |row: &Value| {
            let mut row = row.clone();
            row["n"] = Value::Null;
            row
        };
        assert!(once.iter().map(without_count).eq(twice.iter().map(without_count)), "{twice:?}");
    }
}

#[test]
fn mistakes_get_the_names_that_there_are() {
    let temporary = Temporary::new("query-errors");
    let file = kinds(&temporary);
    let refused = |sql: &str| said(&run(&["query", path(&file), sql])).replace(path(temporary.path()), "TMP");
    insta::assert_snapshot!("query-no-table", refused("SELECT * FROM sched_swich"));
    insta::assert_snapshot!("query-no-column", refused("SELECT txt FROM lost"));
    insta::assert_snapshot!("query-no-sql", refused("SELEC 1"));
    insta::assert_snapshot!("query-no-function", refused("SELECT\n  mediann(cpu)\nFROM lost"));
    insta::assert_snapshot!("query-not-a-query", refused("DROP TABLE lost"));
    insta::assert_snapshot!("query-no-file", said(&run(&["query", "/nowhere.dat", "SELECT 1"])));
    insta::assert_snapshot!(
        "query-no-query",
        said(&run(&["query", path(&file)])).replace(path(temporary.path()), "TMP")
    );
    insta::assert_snapshot!("query-no-trace", said(&run(&["query", "SELECT 1"])));
    let spanless = temporary.path().join("spanless.parquet");
    let output = run(&["export", "--to", "parquet", "-o", path(&spanless), path(&file)]);
    assert!(output.status.success(), "{}", said(&output));
    insta::assert_snapshot!("query-no-spans", said(&run(&["query", path(&spanless), "SELECT * FROM spans"])));
    // What is read of a file that is cut off is answered, and the rest is told.
    let cut = temporary.path().join("cut.dat");
    let whole = fs::read(&file).unwrap();
    fs::write(&cut, &whole[..whole.len() - 5000]).unwrap();
    let output = run(&["query", "--format", "csv", path(&cut), "SELECT count(*) FROM events"]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.code() == Some(1) && told.contains("the answer is of all that can be read"),
        "{told}"
    );
    assert!(output.stdout.starts_with(b"count(*)\n"), "{}", said(&output));
}

#[test]
fn every_form_of_a_time_line_gives_the_same_rows() {
    let temporary = Temporary::new("query-rows");
    let queries = [
        "SELECT system, event, count(*) AS n, min(time) AS first FROM events GROUP BY system, event ORDER BY system, event",
        "SELECT * FROM spans ORDER BY time, duration_ns",
        "SELECT cpu, count FROM lost ORDER BY cpu, time",
        "SELECT cpu, pid, comm, flow, id FROM app.work_begin ORDER BY time",
        "SELECT comm, field_comm, field_pid, target_cpu FROM sched_waking ORDER BY time LIMIT 3",
        "SELECT b.id, e.status FROM work_begin b JOIN work_end e ON b.pid = e.pid AND e.time > b.time ORDER BY 1, 2",
    ];
    let trace = time_line(&temporary);
    let forms = own_forms(&temporary, &trace);
    for sql in queries {
        let expected = answer("json", &trace, sql);
        for form in &forms {
            assert_eq!(answer("json", form, sql), expected, "{}: {sql}", form.display());
        }
    }
    // An answer is a file that can be asked again, under its own name.
    let kept = temporary.path().join("kept.parquet");
    let sql = "SELECT event, count(*) AS n FROM events GROUP BY event";
    let output = run(&["query", "--format", "parquet", "-o", path(&kept), path(&trace), sql]);
    assert!(output.status.success(), "{}", said(&output));
    let count = objects(&answer("json", &trace, "SELECT count(*) AS n FROM events"))[0]["n"].clone();
    assert_eq!(objects(&answer("json", &kept, "SELECT sum(n) AS n FROM kept"))[0]["n"], count);
    // Several files are one table.
    let twice =
        run(&["query", "--format", "csv", path(&trace), path(&forms[3]), "SELECT count(*) FROM events"]);
    let twice = String::from_utf8(twice.stdout).unwrap();
    assert_eq!(twice.lines().last().unwrap().parse::<u64>().unwrap(), 2 * count.as_u64().unwrap());
}

ringtap::event! {
    /// Work begins.
    struct WorkBegin as live:work_begin { user: u64 }
}

ringtap::event! {
    /// And ends.
    struct WorkEnd<'a> as live:work_end { how: &'a str }
}

/// Durations of spans that nobody could guess, written by a thread of this process.
fn work(host: &Host) {
    let writer = host.writer();
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for user in 0..SPANS {
        WorkBegin { user }.write(&writer);
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (0..seed >> 54).for_each(|_| std::hint::spin_loop());
        WorkEnd { how: "well" }.write(&writer);
    }
}

const SPANS: u64 = 1000;

#[test]
fn an_applications_spans_have_the_durations_of_its_events() {
    let temporary = Temporary::new("query-spans-exact");
    let host = Host::new(&Config::default()).unwrap();
    let socket = temporary.path().join("app.sock");
    let _server = host.serve(&socket).unwrap();
    WorkBegin::register(&host).unwrap();
    WorkEnd::register(&host).unwrap();
    work(&host);
    let trace = temporary.path().join("app.dat");
    let record =
        temporary.ringtap().args(["record", "-o", path(&trace), "--attach"]).arg(&socket).spawn().unwrap();
    until("the file has its head", || fs::metadata(&trace).is_ok_and(|file| file.len() > 0));
    signal(&record, Signal::INT);
    let output = record.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", said(&output));

    let times = |name: &str| -> Vec<u64> {
        let reported = reported(&trace);
        let of = reported.iter().filter(|event| event["event"] == name);
        of.map(|event| event["ts"].as_u64().unwrap()).collect()
    };
    let pairs = times("work_begin").into_iter().zip(times("work_end"));
    let mut exact: Vec<u64> = pairs.map(|(begin, end)| end - begin).collect();
    assert_eq!(exact.len() as u64, SPANS);
    for form in forms(&temporary, &trace) {
        let found = objects(&answer("json", &form, "SELECT name, duration_ns AS n FROM spans ORDER BY time"));
        let found: Vec<u64> = found.iter().map(|span| span["n"].as_u64().unwrap()).collect();
        assert_eq!(found, exact, "{}", form.display());
    }
    exact.sort_unstable();
    let sql = "SELECT name, count(*) AS n, median(duration_ns) AS median, \
               approx_percentile_cont(0.5) WITHIN GROUP (ORDER BY duration_ns) AS p50, \
               approx_percentile_cont(0.9) WITHIN GROUP (ORDER BY duration_ns) AS p90, \
               approx_percentile_cont(0.99) WITHIN GROUP (ORDER BY duration_ns) AS p99, \
               max(duration_ns) AS longest FROM spans GROUP BY name";
    let row = &objects(&answer("json", &trace, sql))[0];
    assert_eq!((&row["name"], &row["n"]), (&"work".into(), &SPANS.into()));
    assert_eq!(row["longest"], exact[exact.len() - 1]);
    let middle = f64::from(u32::try_from(exact[499] + exact[500]).unwrap()) / 2.0;
    assert_eq!(row["median"].as_f64(), Some(middle));
    // What is approximate is so in the rank: no more than a hundredth of all lie between it and the exact one.
    for (name, percent) in [("p50", 50), ("p90", 90), ("p99", 99)] {
        let value = row[name].as_f64().unwrap();
        let exact: Vec<f64> = exact.iter().map(|of| f64::from(u32::try_from(*of).unwrap())).collect();
        let [below, up_to] =
            [exact.partition_point(|of| *of < value), exact.partition_point(|of| *of <= value)];
        assert!(
            below <= percent * 10 + 10 && up_to + 10 >= percent * 10,
            "{name}: {value}, {below} to {up_to}"
        );
    }
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
    assert!(run_page(&page("query.md")) >= 5);
}

//! `ringtap export --to perfetto` and `--to chrome`: read by others' definitions, they hold what we decode ourselves.

mod support;
#[path = "support/synthetic.rs"]
mod synthetic;

use ringtap::{Config, Host};
use rustix::process::Signal;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{Temporary, run, said, signal, until};

ringtap::event! {
    /// A job is asked for.
    struct JobBegin as line:job_begin { flow: u64, id: u32 }
}
ringtap::event! {
    /// It is asked for no longer.
    struct JobEnd as line:job_end { id: u32 }
}
ringtap::event! {
    /// Another thread does it.
    struct WorkBegin as line:work_begin { flow: u64 }
}
ringtap::event! {
    /// It is done.
    struct WorkEnd as line:work_end { flow_end: u64, status: i32 }
}
ringtap::event! {
    /// Jobs that wait.
    struct Queue<'a> as line:queue_counter { value: i64, name: &'a str }
}
ringtap::event! {
    /// How busy somebody is.
    struct Load as line:load_gauge { value: f64 }
}

fn capture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../compliance/capture.dat")
}

fn path(of: &Path) -> &str {
    of.to_str().unwrap()
}

/// A Python that has Perfetto's definitions, or `None` and one line that says why not.
fn python() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("perfetto-venv");
    let python = folder.join("bin/python");
    let has_definitions = |python: &Path| {
        let arguments = ["-c", "import perfetto.protos.perfetto.trace.perfetto_trace_pb2"];
        Command::new(python).args(arguments).output().is_ok_and(|output| output.status.success())
    };
    if has_definitions(&python) {
        return Some(python);
    }
    // Under another name first, as several of these tests may run at once.
    let own = folder.with_extension(format!("{:?}", std::thread::current().id()).replace(['(', ')'], ""));
    let _ = fs::remove_dir_all(&own);
    let made = Command::new("python3").args(["-m", "venv"]).arg(&own).output();
    let pip = own.join("bin/python");
    let arguments = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "perfetto"];
    let installed = Command::new(&pip).args(arguments).output();
    if !made.is_ok_and(|made| made.status.success()) || !installed.is_ok_and(|pip| pip.status.success()) {
        assert!(
            std::env::var_os("RINGTAP_SKIP_NOTHING").is_none(),
            "pip cannot install Perfetto's definitions"
        );
        println!("skipped, as Perfetto's definitions cannot be installed by pip");
        return None;
    }
    let _ = fs::remove_dir_all(&folder);
    match fs::rename(&own, &folder) {
        Ok(()) => Some(python),
        Err(_) => Some(pip),
    }
}

fn lines(text: &[u8]) -> Vec<Value> {
    std::str::from_utf8(text).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn export(to: &str, file: &Path, out: &Path) {
    let output = run(&["export", "--to", to, "-o", path(out), path(file)]);
    assert!(output.status.success(), "{}", said(&output));
}

/// A trace as Perfetto's definitions read it.
fn by_perfetto(python: &Path, file: &Path, out: &Path) -> Vec<Value> {
    export("perfetto", file, out);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/read_pftrace.py");
    let output = Command::new(python).arg(script).arg(out).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    lines(&output.stdout)
}

fn by_chrome(file: &Path, out: &Path) -> Vec<Value> {
    export("chrome", file, out);
    serde_json::from_slice(&fs::read(out).unwrap()).unwrap()
}

/// What `ringtap report` says.
fn decoded(file: &Path) -> Vec<Value> {
    let ours = run(&["report", "--json", path(file)]);
    assert!(ours.status.success(), "{}", said(&ours));
    lines(&ours.stdout)
}

/// One event in a form that each side can give; sorted, they must be equal.
type Key = (u64, String, Option<i64>, String);

/// Fields as text: without those that a record lacks, floats as their bits.
fn text(fields: &Map<String, Value>) -> String {
    let held: Map<_, _> =
        fields.iter().filter(|(_, value)| !value.is_null()).map(|(k, v)| (k.clone(), v.clone())).collect();
    json!(held).to_string()
}

fn ours(file: &Path) -> (Vec<Key>, Vec<(u64, Value)>) {
    let (mut keys, mut lost) = (Vec::new(), Vec::new());
    for line in decoded(file) {
        if line["type"] == "lost" {
            lost.push((line["cpu"].as_u64().unwrap(), line["count"].clone()));
            continue;
        }
        // Interrupts lie on their CPU's track.
        let is_of_cpu = matches!(line["system"].as_str(), Some("irq" | "irq_vectors" | "ipi"));
        let pid = line["pid"].as_i64().filter(|&pid| pid > 0 && !is_of_cpu);
        let fields = line["fields"].as_object().map_or_else(String::new, text);
        keys.push((
            line["ts"].as_u64().unwrap(),
            line["system"].as_str().unwrap_or_default().into(),
            pid,
            fields,
        ));
    }
    keys.sort();
    lost.sort_by_key(|(cpu, count)| (*cpu, count.as_u64()));
    (keys, lost)
}

/// Each span that ends has begun.
fn check_nesting(lines: &[Value], track: impl Fn(&Value) -> String) {
    let mut depth = BTreeMap::new();
    let kind = |line: &Value| line.get("type").or(line.get("ph")).unwrap().as_str().unwrap().to_owned();
    let mut in_order: Vec<_> = lines.iter().filter(|line| line.get("ts").is_some()).collect();
    in_order.sort_by(|a, b| a["ts"].as_f64().unwrap().total_cmp(&b["ts"].as_f64().unwrap()));
    for line in in_order {
        let depth = depth.entry(track(line)).or_insert(0i64);
        match &*kind(line) {
            "begin" | "B" => *depth += 1,
            "end" | "E" => *depth -= 1,
            _ => {}
        }
        assert!(*depth >= 0, "{line}");
    }
}

fn compare_perfetto(python: &Path, file: &Path, out: &Path) -> Vec<Value> {
    let lines = by_perfetto(python, file, out);
    let (expected, expected_lost) = ours(file);
    let (mut keys, mut lost, mut dropped) = (Vec::new(), Vec::new(), 0);
    for line in &lines {
        let ts = line["ts"].as_u64().unwrap();
        let args = line["args"].as_object().unwrap();
        if line["type"] == "schedule" {
            // Messages of this kind leave out zeros only where nothing was set, so all is there.
            let pid = line["pid"].as_i64().filter(|&pid| pid > 0);
            keys.push((ts, "sched".to_owned(), pid, text(args)));
            continue;
        }
        dropped += usize::from(line["dropped"] == true && line["name"] == "lost events");
        match line["name"].as_str() {
            Some("lost events") => {
                let cpu = line["track"].as_str().unwrap().rsplit(' ').next().unwrap().parse().unwrap();
                lost.push((cpu, args.get("events").cloned().unwrap_or(Value::Null)));
            }
            Some("unknown event") => keys.push((ts, String::new(), line["thread"].as_i64(), String::new())),
            // The end of a span whose own was lost.
            _ if line["category"] == "" && line["type"] == "end" => {}
            _ => {
                let category = line["category"].as_str().unwrap().to_owned();
                let is_counter = line["type"] == "counter";
                let same = |key: &&Key| key.0 == ts && key.1 == category;
                let pid = match is_counter {
                    true => expected.iter().find(same).and_then(|key| key.2),
                    false => line["thread"].as_i64(),
                };
                keys.push((ts, category, pid, text(args)));
            }
        }
    }
    keys.sort();
    lost.sort_by_key(|(cpu, count): &(u64, Value)| (*cpu, count.as_u64()));
    assert_eq!(keys.len(), expected.len());
    for (theirs, ours) in keys.iter().zip(&expected) {
        assert_eq!(theirs, ours);
    }
    assert_eq!(lost, expected_lost);
    assert_eq!(dropped, lost.len(), "each loss is marked in its packet");
    check_nesting(&lines, |line| format!("{} {}", line["thread"], line["track"]));
    lines
}

#[test]
fn perfetto_holds_what_we_decode() {
    let Some(python) = python() else { return };
    let temporary = Temporary::new("perfetto");
    let out = temporary.path().join("trace.pftrace");
    let lines = compare_perfetto(&python, &capture(), &out);
    for kind in ["schedule", "begin", "end", "instant"] {
        assert!(lines.iter().filter(|line| line["type"] == kind).count() > 30, "{kind}");
    }
    for is_big in [false, true] {
        let file = temporary.path().join("kinds.dat");
        fs::write(&file, synthetic::all_kinds(is_big)).unwrap();
        compare_perfetto(&python, &file, &out);
    }
    let file = temporary.path().join("line.dat");
    fs::write(&file, synthetic::time_line()).unwrap();
    let lines = compare_perfetto(&python, &file, &out);
    insta::assert_snapshot!(
        "time-line-perfetto",
        lines.iter().map(|line| format!("{line}\n")).collect::<String>()
    );
}

const JOBS: u32 = 200;

/// What [`JOBS`] jobs leave, each asked for by one thread and done by another, in a file of `ringtap record`.
fn recorded(temporary: &Temporary) -> PathBuf {
    let host = Host::new(&Config::default()).unwrap();
    let socket = temporary.path().join("jobs.sock");
    let server = host.serve(&socket).unwrap();
    JobBegin::register(&host).unwrap();
    JobEnd::register(&host).unwrap();
    WorkBegin::register(&host).unwrap();
    WorkEnd::register(&host).unwrap();
    Queue::register(&host).unwrap();
    Load::register(&host).unwrap();
    let (ask, asked) = std::sync::mpsc::channel::<u64>();
    let (does, asks) = (host.writer(), host.writer());
    std::thread::scope(|scope| {
        let work = move || {
            for flow in asked {
                WorkBegin { flow }.write(&does);
                WorkEnd { flow_end: flow, status: -1 }.write(&does);
                Load { value: f64::from(u32::try_from(flow).unwrap()) / 8.0 }.write(&does);
            }
        };
        std::thread::Builder::new().name("does jobs".into()).spawn_scoped(scope, work).unwrap();
        for id in 0..JOBS {
            let flow = u64::from(id) + 1;
            JobBegin { flow, id }.write(&asks);
            Queue { value: 7 - i64::from(id), name: "jobs" }.write(&asks);
            ask.send(flow).unwrap();
            JobEnd { id }.write(&asks);
        }
        drop(ask);
    });
    let file = temporary.path().join("jobs.dat");
    let mut command = temporary.ringtap();
    let recorder = command.args(["record", "--attach", path(&socket), "-o", path(&file)]).spawn().unwrap();
    until("the file has its head", || fs::metadata(&file).is_ok_and(|file| file.len() > 0));
    signal(&recorder, Signal::INT);
    let output = recorder.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    drop(server);
    file
}

#[test]
fn an_applications_counters_and_flows_reach_perfetto() {
    let Some(python) = python() else { return };
    let temporary = Temporary::new("flows");
    let file = recorded(&temporary);
    let lines = compare_perfetto(&python, &file, &temporary.path().join("jobs.pftrace"));
    let counts = |track: &str| {
        let of_track = lines.iter().filter(|line| line["type"] == "counter" && line["track"] == track);
        of_track.map(|line| line["value"].as_f64().unwrap()).collect::<Vec<_>>()
    };
    let jobs = || (0..JOBS).map(f64::from);
    assert_eq!(counts("jobs"), jobs().map(|id| 7.0 - id).collect::<Vec<_>>());
    assert_eq!(counts("load_gauge"), jobs().map(|id| (id + 1.0) / 8.0).collect::<Vec<_>>());
    // Each flow leads from the span that asks, on its thread, to the one that does, on the other; there it ends.
    let mut flows = BTreeMap::<u64, Vec<String>>::new();
    for line in &lines {
        for key in ["flows", "flow_ends"] {
            for flow in line[key].as_array().into_iter().flatten() {
                let (kind, name) = (line["type"].as_str().unwrap(), line["name"].as_str().unwrap());
                let told = format!("{key} {kind} {name} {}", line["comm"] == "does jobs");
                flows.entry(flow.as_u64().unwrap()).or_default().push(told);
            }
        }
    }
    assert_eq!(flows.keys().copied().collect::<Vec<_>>(), (1..=u64::from(JOBS)).collect::<Vec<_>>());
    let expected = ["flow_ends end  true", "flows begin job false", "flows begin work true"];
    for (flow, mut told) in flows {
        told.sort();
        assert_eq!(told, expected, "flow {flow}");
    }
}

#[test]
fn chrome_holds_what_we_decode() {
    let temporary = Temporary::new("chrome");
    let out = temporary.path().join("trace.json");
    let kinds = temporary.path().join("kinds.dat");
    fs::write(&kinds, synthetic::all_kinds(false)).unwrap();
    for file in [capture(), kinds] {
        let lines = by_chrome(&file, &out);
        let (expected, expected_lost) = ours(&file);
        let is_kind = |line: &&Value, kinds: &str| kinds.contains(line["ph"].as_str().unwrap());
        let lost = lines.iter().filter(|line| line["name"] == "lost events" && line["pid"] == 0);
        assert_eq!(lost.count(), expected_lost.len());
        let mut keys: Vec<_> = lines
            .iter()
            .filter(|line| is_kind(line, "BEiXC"))
            .filter_map(|line| {
                let args = line["args"].as_object()?;
                if line["name"] == "lost events" {
                    return None;
                }
                // Microseconds with three decimals are exact in nanoseconds here.
                let ts = (line["ts"].as_f64().unwrap() * 1000.0).round();
                let is_unknown = line["name"] == "unknown event";
                Some((
                    format!("{ts}"),
                    line["cat"].as_str().unwrap_or_default().to_owned(),
                    if is_unknown { String::new() } else { text(args) },
                ))
            })
            .collect();
        let mut expected: Vec<_> =
            expected.into_iter().map(|(ts, system, _, fields)| (ts.to_string(), system, fields)).collect();
        keys.sort();
        expected.sort();
        assert_eq!(keys.len(), expected.len());
        for (theirs, ours) in keys.iter().zip(&expected) {
            assert_eq!(theirs, ours);
        }
        check_nesting(&lines, |line| format!("{} {}", line["pid"], line["tid"]));
    }
}

#[test]
fn a_time_line_for_chrome() {
    let temporary = Temporary::new("chrome-line");
    let file = temporary.path().join("line.dat");
    fs::write(&file, synthetic::time_line()).unwrap();
    let output = run(&["export", "--to", "chrome", "-o", "-", path(&file)]);
    assert!(output.status.success());
    serde_json::from_slice::<Vec<Value>>(&output.stdout).unwrap();
    insta::assert_snapshot!("time-line-chrome", String::from_utf8(output.stdout).unwrap());
}

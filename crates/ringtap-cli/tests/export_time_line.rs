//! `ringtap export --to perfetto` and `--to chrome`: read by others' definitions, they hold what we decode ourselves.

mod support;
#[path = "support/synthetic.rs"]
mod synthetic;

use serde_json::{Map, Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{Temporary, run, said};

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
    let mut depth = std::collections::BTreeMap::new();
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

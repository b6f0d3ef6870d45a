//! `ringtap export --to ctf`: what babeltrace2 reads is what we decode ourselves, field for field.

mod support;
#[path = "support/synthetic.rs"]
mod synthetic;

use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use support::{Temporary, run, said};

fn capture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../compliance/capture.dat")
}

fn path(of: &Path) -> &str {
    of.to_str().unwrap()
}

/// A value as babeltrace2 prints it.
#[derive(Clone, Debug, PartialEq)]
enum Shown {
    Number(String),
    Text(Vec<u8>),
    Array(Vec<Shown>),
    Structure(Members),
}

/// Reads a line of babeltrace2's.
struct Line<'a>(&'a [u8]);

impl Line<'_> {
    fn skip(&mut self, what: &str) {
        let rest = self.0.strip_prefix(what.as_bytes());
        self.0 = rest.unwrap_or_else(|| panic!("expected {what:?} at {:?}", String::from_utf8_lossy(self.0)));
    }

    fn is_next(&mut self, what: &str) -> bool {
        let rest = self.0.strip_prefix(what.as_bytes());
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn until(&mut self, end: &str) -> String {
        let at = self.0.windows(end.len()).position(|window| window == end.as_bytes());
        let (word, rest) = self.0.split_at(at.unwrap_or(self.0.len()));
        self.0 = rest;
        String::from_utf8(word.to_vec()).unwrap()
    }

    fn value(&mut self) -> Shown {
        if self.is_next("\"") {
            return Shown::Text(self.text());
        }
        if self.is_next("{ ") {
            return self.members();
        }
        if self.is_next("[ ") {
            return self.elements();
        }
        // Empty ones.
        if self.is_next("{ }") || self.is_next("[ ]") {
            return Shown::Array(Vec::new());
        }
        let end = self.0.iter().position(|byte| b" ,".contains(byte)).unwrap_or(self.0.len());
        let (word, rest) = self.0.split_at(end);
        self.0 = rest;
        Shown::Number(String::from_utf8(word.to_vec()).unwrap())
    }

    fn members(&mut self) -> Shown {
        let mut members = Vec::new();
        while !self.is_next("}") && !self.is_next(" }") {
            self.is_next(", ");
            let name = self.until(" = ");
            self.skip(" = ");
            members.push((name, self.value()));
        }
        Shown::Structure(members)
    }

    fn elements(&mut self) -> Shown {
        let mut elements = Vec::new();
        while !self.is_next("]") && !self.is_next(" ]") {
            self.is_next(", ");
            self.until(" = ");
            self.skip(" = ");
            elements.push(self.value());
        }
        Shown::Array(elements)
    }

    fn text(&mut self) -> Vec<u8> {
        let mut text = Vec::new();
        loop {
            let (&byte, rest) = self.0.split_first().expect("the string ends");
            self.0 = rest;
            match byte {
                b'"' => return text,
                b'\\' => text.push(self.escaped()),
                plain => text.push(plain),
            }
        }
    }

    fn escaped(&mut self) -> u8 {
        let (&byte, rest) = self.0.split_first().unwrap();
        self.0 = rest;
        match byte {
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            b'a' => 7,
            b'b' => 8,
            b'v' => 11,
            b'f' => 12,
            b'x' => {
                let digits = std::str::from_utf8(&self.0[..2]).unwrap();
                let value = u8::from_str_radix(digits, 16).unwrap();
                self.0 = &self.0[2..];
                value
            }
            b'e' => 27,
            other => other,
        }
    }
}

type Members = Vec<(String, Shown)>;

/// An event, as a reader tells it.
#[derive(Debug)]
struct Event {
    ts: u64,
    name: String,
    pid: i64,
    comm: Vec<u8>,
    fields: Members,
}

fn babeltrace(line: &[u8]) -> (u64, Event) {
    let mut line = Line(line);
    line.skip("[");
    let ts = line.until("] ").trim_start_matches('0').parse().unwrap();
    line.skip("] ");
    let name = line.until(": { cpu_id");
    line.skip(": ");
    let mut structures = Vec::new();
    while !line.0.is_empty() {
        line.is_next(", ");
        match line.value() {
            Shown::Structure(members) => structures.push(members),
            _ => structures.push(Vec::new()),
        }
    }
    let [packet, context, fields] = <[_; 3]>::try_from(structures).unwrap();
    let member = |of: &[(String, Shown)], name: &str| {
        of.iter().find(|(member, _)| member == name).map(|(_, value)| value.clone()).unwrap()
    };
    let number = |value| match value {
        Shown::Number(number) => number.parse::<i64>().unwrap(),
        other => panic!("{other:?}"),
    };
    let Shown::Text(comm) = member(&context, "procname") else { panic!("{context:?}") };
    let cpu = u64::try_from(number(member(&packet, "cpu_id"))).unwrap();
    (cpu, Event { ts, name, pid: number(member(&context, "tid")), comm, fields })
}

fn hex(array: &[Shown]) -> Option<String> {
    let digits = |shown: &Shown| match shown {
        Shown::Number(number) => Some(number.strip_prefix("0x")?.to_owned()),
        _ => None,
    };
    array
        .iter()
        .map(digits)
        .map(|digits| digits.map(|digits| format!("{digits:0>2}").to_lowercase()))
        .collect()
}

/// A mask's words as `%*pb` prints them, highest first.
fn mask(array: &[Shown]) -> Option<String> {
    let mut words = Vec::new();
    for word in array {
        let Shown::Number(number) = word else { return None };
        let word = u64::from_str_radix(number.strip_prefix("0x")?, 16).ok()?;
        words.push(format!("{:08x},{:08x}", word >> 32, word & 0xffff_ffff));
    }
    words.reverse();
    Some(words.join(","))
}

/// Whether both mean the same, though JSON has fewer kinds of values.
fn is_same(json: &Value, shown: &Shown) -> bool {
    let number = |number: &str| match number.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).unwrap().to_string(),
        None => number.to_owned(),
    };
    match (json, shown) {
        (Value::Number(json), Shown::Number(shown)) if json.is_f64() => {
            json.as_f64() == shown.parse::<f64>().ok()
        }
        (Value::Number(json), Shown::Number(shown)) => json.to_string() == number(shown),
        (Value::String(json), Shown::Number(shown)) => {
            number(&json.to_lowercase()) == number(&shown.to_lowercase())
        }
        (Value::String(json), Shown::Text(shown)) => *json == String::from_utf8_lossy(shown),
        (Value::String(json), Shown::Array(shown)) => {
            let mask = mask(shown);
            Some(json) == hex(shown).as_ref()
                || mask.is_some_and(|mask| {
                    mask.trim_start_matches(['0', ',']) == json.trim_start_matches(['0', ','])
                })
        }
        (Value::Array(json), Shown::Array(shown)) => {
            json.len() == shown.len() && json.iter().zip(shown).all(|(json, shown)| is_same(json, shown))
        }
        _ => false,
    }
}

/// Decodes a trace of version 2 by nothing but what its own metadata say.
struct Version2 {
    packet_header: Value,
    streams: BTreeMap<u64, Value>,
    events: BTreeMap<(u64, u64), Value>,
}

impl Version2 {
    fn parse(metadata: &[u8]) -> Self {
        let mut trace =
            Self { packet_header: Value::Null, streams: BTreeMap::new(), events: BTreeMap::new() };
        let fragments: Vec<_> = metadata.split(|&byte| byte == 0x1e).collect();
        assert!(fragments[0].is_empty(), "a record separator stands before each fragment");
        for (place, fragment) in fragments[1..].iter().enumerate() {
            let fragment: Value = serde_json::from_slice(fragment).unwrap();
            let kind = fragment["type"].as_str().unwrap();
            assert_eq!(place == 0, kind == "preamble");
            match kind {
                "preamble" => assert_eq!(fragment["version"], 2),
                "trace-class" => trace.packet_header = fragment["packet-header-field-class"].clone(),
                "clock-class" => assert_eq!(fragment["frequency"], 1_000_000_000),
                "data-stream-class" => {
                    trace.streams.insert(fragment["id"].as_u64().unwrap(), fragment);
                }
                "event-record-class" => {
                    let stream = fragment["data-stream-class-id"].as_u64().unwrap();
                    trace.events.insert((stream, fragment["id"].as_u64().unwrap()), fragment);
                }
                other => panic!("{other}"),
            }
        }
        trace
    }

    /// The events of a data stream with its CPU, and how many were discarded.
    fn stream(&self, mut bytes: &[u8]) -> (u64, u64, Vec<Event>) {
        let (mut events, mut cpu, mut discarded) = (Vec::new(), 0, 0);
        while !bytes.is_empty() {
            let packet = bytes;
            let header = structure(&self.packet_header, &mut bytes);
            assert_eq!(member(&header, "magic"), &Shown::Number("0xc1fc1fc1".into()));
            let id = unsigned(member(&header, "stream_id"));
            let class = &self.streams[&id];
            let context = structure(&class["packet-context-field-class"], &mut bytes);
            cpu = unsigned(member(&context, "cpu_id"));
            discarded = unsigned(member(&context, "events_discarded"));
            let len = usize::try_from(unsigned(member(&context, "content_size")) / 8).unwrap();
            let mut content = &packet[packet.len() - bytes.len()..len];
            while !content.is_empty() {
                let header = structure(&class["event-record-header-field-class"], &mut content);
                let context = structure(&class["event-record-common-context-field-class"], &mut content);
                let event = &self.events[&(id, unsigned(member(&header, "id")))];
                let Shown::Text(comm) = member(&context, "procname").clone() else { panic!("{context:?}") };
                let Shown::Number(pid) = member(&context, "tid") else { panic!("{context:?}") };
                events.push(Event {
                    ts: unsigned(member(&header, "timestamp")),
                    name: event["name"].as_str().unwrap().to_owned(),
                    pid: pid.parse().unwrap(),
                    comm,
                    fields: structure(&event["payload-field-class"], &mut content),
                });
            }
            bytes = &packet[len..];
        }
        (cpu, discarded, events)
    }
}

fn member<'a>(of: &'a [(String, Shown)], name: &str) -> &'a Shown {
    &of.iter().find(|(member, _)| member == name).unwrap().1
}

fn unsigned(value: &Shown) -> u64 {
    let Shown::Number(number) = value else { panic!("{value:?}") };
    number.strip_prefix("0x").map_or_else(|| number.parse(), |hex| u64::from_str_radix(hex, 16)).unwrap()
}

fn structure(class: &Value, bytes: &mut &[u8]) -> Members {
    assert_eq!(class["type"], "structure");
    let mut members = Vec::new();
    for member in class["member-classes"].as_array().unwrap() {
        let value = field(&member["field-class"], &members, bytes);
        members.push((member["name"].as_str().unwrap().to_owned(), value));
    }
    members
}

fn field(class: &Value, before: &[(String, Shown)], bytes: &mut &[u8]) -> Shown {
    let take = |bytes: &mut &[u8], len: u64| {
        let (taken, rest) = bytes.split_at(usize::try_from(len).unwrap());
        *bytes = rest;
        taken.to_vec()
    };
    let number = |mut taken: Vec<u8>| {
        if class["byte-order"] == "little-endian" {
            taken.reverse();
        }
        taken.iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte))
    };
    let bits = class["length"].as_u64().unwrap_or(0);
    let stated = || match class["length-field-location"]["path"][0].as_str() {
        Some(path) => unsigned(member(before, path)),
        None => bits,
    };
    let blob = |taken: Vec<u8>| {
        Shown::Array(taken.iter().map(|byte| Shown::Number(format!("0x{byte:x}"))).collect())
    };
    match class["type"].as_str().unwrap() {
        "fixed-length-unsigned-integer" => {
            let value = number(take(bytes, bits / 8));
            let is_hex = class["preferred-display-base"] == 16;
            Shown::Number(if is_hex { format!("0x{value:x}") } else { value.to_string() })
        }
        "fixed-length-signed-integer" => {
            let unused = 64 - u32::try_from(bits).unwrap();
            let value = (number(take(bytes, bits / 8)) << unused).cast_signed() >> unused;
            Shown::Number(value.to_string())
        }
        "fixed-length-floating-point-number" => {
            let raw = number(take(bytes, bits / 8));
            let single = |raw| f32::from_bits(u32::try_from(raw).unwrap()).into();
            Shown::Number(if bits == 64 { f64::from_bits(raw) } else { single(raw) }.to_string())
        }
        "null-terminated-string" => {
            let len = bytes.iter().position(|&byte| byte == 0).unwrap();
            let text = take(bytes, len as u64);
            take(bytes, 1);
            assert!(std::str::from_utf8(&text).is_ok(), "{text:?}");
            Shown::Text(text)
        }
        "static-length-array" | "dynamic-length-array" => {
            let elements = 0..stated();
            Shown::Array(elements.map(|_| field(&class["element-field-class"], &[], bytes)).collect())
        }
        "static-length-blob" | "dynamic-length-blob" => blob(take(bytes, stated())),
        other => panic!("{other}"),
    }
}

/// Exports a file and has babeltrace2 read it; `None` where that is not installed.
fn exported(file: &Path, folder: &Path) -> Option<Output> {
    let output = run(&["export", "--to", "ctf", "-o", path(folder), path(file)]);
    assert!(output.status.success(), "{}", said(&output));
    let arguments = ["--clock-cycles", "--no-delta", "--color=never"];
    let output = Command::new("babeltrace2").args(arguments).arg(folder).output();
    let Ok(output) = output else {
        println!("skipped, as babeltrace2 is not installed");
        return None;
    };
    assert!(output.status.success(), "{}", said(&output));
    Some(output)
}

/// What one side tells of a trace, by CPU: its events, and how many were lost.
struct Told {
    events: BTreeMap<u64, Vec<Event>>,
    lost: BTreeMap<u64, u64>,
}

/// Exports a file and has babeltrace2 read it; `None` where that is not installed.
fn by_babeltrace(file: &Path, folder: &Path) -> Option<Told> {
    let theirs = exported(file, folder)?;
    let mut events: BTreeMap<u64, Vec<_>> = BTreeMap::new();
    let text = theirs.stdout.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    for (cpu, event) in text.map(babeltrace) {
        events.entry(cpu).or_default().push(event);
    }
    let stderr = String::from_utf8_lossy(&theirs.stderr).into_owned();
    assert_eq!(stderr.lines().filter(|line| !line.contains("Tracer discarded ")).count(), 0, "{stderr}");
    Some(Told { events, lost: discarded(&stderr) })
}

/// Exports a file as version 2 and reads it by its metadata.
fn by_version_2(file: &Path, folder: &Path) -> Told {
    let output = run(&["export", "--to", "ctf", "--ctf-version", "2", "-o", path(folder), path(file)]);
    assert!(output.status.success(), "{}", said(&output));
    let trace = Version2::parse(&fs::read(folder.join("metadata")).unwrap());
    let mut told = Told { events: BTreeMap::new(), lost: BTreeMap::new() };
    for file in fs::read_dir(folder).unwrap() {
        let file = file.unwrap();
        if file.file_name() != "metadata" {
            let (cpu, lost, events) = trace.stream(&fs::read(file.path()).unwrap());
            told.events.insert(cpu, events);
            if lost > 0 {
                told.lost.insert(cpu, lost);
            }
        }
    }
    told
}

/// Compares event by event; returns how many there were, and how many of them could not be decoded.
fn compare(file: &Path, told: &Told) -> (usize, usize) {
    let ours = run(&["report", "--json", path(file)]);
    assert!(ours.status.success(), "{}", said(&ours));
    let mut decoded: BTreeMap<u64, Vec<Value>> = BTreeMap::new();
    let mut lost: BTreeMap<u64, u64> = BTreeMap::new();
    for line in String::from_utf8(ours.stdout).unwrap().lines() {
        let object: Value = serde_json::from_str(line).unwrap();
        let cpu = object["cpu"].as_u64().unwrap();
        match object["type"].as_str() {
            Some("event") => decoded.entry(cpu).or_default().push(object),
            Some("lost") => *lost.entry(cpu).or_default() += object["count"].as_u64().unwrap_or(1),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(lost, told.lost);
    assert!(told.events.keys().eq(decoded.keys()), "CPUs");
    let (mut events, mut undecoded) = (0, 0);
    for (cpu, decoded) in &decoded {
        let shown = &told.events[cpu];
        assert_eq!(shown.len(), decoded.len(), "events of CPU {cpu}");
        for (shown, decoded) in shown.iter().zip(decoded) {
            events += 1;
            undecoded += usize::from(shown.name == "ringtap:undecoded");
            compare_event(shown, decoded);
        }
    }
    (events, undecoded)
}

fn compare_event(shown: &Event, decoded: &Value) {
    let is_common = Some(shown.ts) == decoded["ts"].as_u64()
        && Some(shown.pid) == decoded["pid"].as_i64()
        && decoded["comm"] == *String::from_utf8_lossy(&shown.comm);
    assert!(is_common, "{shown:?}\n{decoded}");
    let values = decoded["fields"].as_object();
    if shown.name == "ringtap:undecoded" {
        let lacks_one = |fields: &serde_json::Map<String, Value>| fields.values().any(Value::is_null);
        return assert!(values.is_none_or(lacks_one), "{decoded}");
    }
    let name = format!("{}:{}", decoded["system"].as_str().unwrap(), decoded["event"].as_str().unwrap());
    assert_eq!(shown.name, name);
    let values = values.unwrap();
    let is_length =
        |name: &str| name.strip_prefix('_').and_then(|name| name.strip_suffix("_length")).is_some();
    let fields: Vec<_> =
        shown.fields.iter().filter(|(name, _)| values.contains_key(name) || !is_length(name)).collect();
    assert_eq!(fields.len(), values.len(), "{shown:?}\n{decoded}");
    for (name, field) in fields {
        assert!(is_same(&values[name], field), "{name}: {field:?}\n{decoded}");
    }
}

/// What babeltrace2 says was lost, by CPU.
fn discarded(stderr: &str) -> BTreeMap<u64, u64> {
    let mut discarded = BTreeMap::new();
    for line in stderr.lines() {
        let Some((_, rest)) = line.split_once("Tracer discarded ") else { continue };
        let count: u64 = rest.split(' ').next().unwrap().parse().unwrap();
        let (_, rest) = rest.split_once("-cpu").unwrap();
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        *discarded.entry(rest[..digits].parse().unwrap()).or_default() += count;
    }
    discarded
}

#[test]
fn a_kernel_capture_reads_the_same() {
    let temporary = Temporary::new("ctf-kernel");
    let folder = |name| temporary.path().join(name);
    let both = [by_babeltrace(&capture(), &folder("1")), Some(by_version_2(&capture(), &folder("2")))];
    for told in both.into_iter().flatten() {
        let (events, undecoded) = compare(&capture(), &told);
        assert!(events > 10_000 && undecoded == 0, "{events}, {undecoded}");
    }
}

#[test]
fn every_kind_of_field_and_loss_reads_the_same() {
    let temporary = Temporary::new("ctf-kinds");
    for is_big in [false, true] {
        let folder = |name| temporary.path().join(format!("{name}-{is_big}"));
        let file = folder("dat");
        fs::write(&file, synthetic::all_kinds(is_big)).unwrap();
        let both = [by_babeltrace(&file, &folder("1")), Some(by_version_2(&file, &folder("2")))];
        for told in both.into_iter().flatten() {
            assert_eq!(compare(&file, &told), (36, 2));
        }
    }
}

#[test]
fn a_folder_that_is_in_use_is_left_alone() {
    let temporary = Temporary::new("ctf-used");
    fs::write(temporary.path().join("mine"), "x").unwrap();
    let output = run(&["export", "--to", "ctf", "-o", path(temporary.path()), path(&capture())]);
    let told = said(&output).replace(path(temporary.path()), "TMP");
    insta::assert_snapshot!("export-folder-in-use", told);
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 1);
}

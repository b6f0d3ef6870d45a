//! `ringtap report`: against the kernel's own text, against trace-cmd, and on files that are broken.

mod support;
#[path = "support/synthetic.rs"]
mod synthetic;

use ringtap::tracefs::{EventName, Tracefs};
use serde_json::Value;
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use support::{Temporary, cannot_trace, run, said};

const PAGE: usize = 4096;

fn capture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../compliance/capture.dat")
}

fn report(arguments: &[&str]) -> Output {
    run(&[&["report"], arguments].concat())
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", said(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn path(of: &Path) -> &str {
    of.to_str().unwrap()
}

/// What an instance of the live kernel recorded: its own text, and a dump of each CPU.
struct Recorded {
    temporary: Temporary,
    text: String,
    dumps: Vec<PathBuf>,
    tasks: PathBuf,
}

impl Recorded {
    fn new(name: &str) -> Self {
        let temporary = Temporary::new(name);
        let tracefs = Tracefs::find().unwrap();
        let instance = tracefs.create_instance().unwrap();
        instance.set_clock("mono").unwrap();
        instance.set_sizes_kib(4, 16 << 10).unwrap();
        fs::write(instance.path().join("options/hash-ptr"), "0").unwrap();
        let events =
            ["sched:sched_switch", "sched:sched_wakeup", "irq:softirq_entry", "irq:irq_handler_entry"];
        for event in events {
            instance.enable(&EventName::parse(event).unwrap()).unwrap();
        }
        instance.set_recording(true).unwrap();
        Command::new("sh").args(["-c", "for i in 1 2 3 4 5; do sleep 0.01; done"]).status().unwrap();
        instance.write_marker("the end").unwrap();
        instance.set_recording(false).unwrap();
        let text = fs::read_to_string(instance.path().join("trace")).unwrap();
        let tasks = temporary.path().join("saved_cmdlines");
        fs::write(&tasks, tracefs.saved_cmdlines().unwrap()).unwrap();
        let dump = |cpu: u32| {
            let raw = instance.open_raw(cpu).unwrap();
            let (mut pages, mut page) = (Vec::new(), vec![0; PAGE]);
            while let Ok(len @ 1..) = rustix::io::read(&raw, &mut page) {
                pages.extend_from_slice(&page[..len]);
                pages.resize(pages.len().next_multiple_of(PAGE), 0);
            }
            let path = temporary.path().join(format!("test-cpu{cpu}.raw"));
            fs::write(&path, pages).unwrap();
            path
        };
        let dumps = tracefs.cpus().unwrap().into_iter().map(dump).collect();
        instance.remove().unwrap();
        Self { temporary, text, dumps, tasks }
    }

    fn report(&self, options: &[&str]) -> Output {
        let dumps: Vec<_> = self.dumps.iter().map(|dump| path(dump)).collect();
        report(&[options, &["--tasks", path(&self.tasks)], &dumps].concat())
    }
}

/// A line of a trace from the task's number on.
fn without_name(line: &str) -> &str {
    let Some(cpu) = line.find(" [") else { return line };
    let number = line[..cpu].rfind('-').unwrap_or(0);
    &line[number..]
}

#[test]
fn dumps_print_as_the_kernel_prints_them() {
    if cannot_trace() {
        return;
    }
    let recorded = Recorded::new("report-live");
    let ours = text(&recorded.report(&[]));
    let (theirs, ours): (Vec<_>, Vec<_>) = (recorded.text.lines().collect(), ours.lines().collect());
    assert_eq!(theirs[..12], ours[..12], "the header");
    assert_eq!(theirs.len(), ours.len());
    assert!(theirs.len() > 50, "{}", recorded.text);
    // Others who trace make the kernel forget or replace a task's name between one file and the next.
    assert!(theirs.iter().map(|line| without_name(line)).eq(ours.iter().map(|line| without_name(line))));
    let same = theirs.iter().zip(&ours).filter(|(theirs, ours)| theirs == ours).count();
    assert!(same * 10 >= theirs.len() * 9, "{same} of {} lines have the same names", theirs.len());
    assert!(ours.iter().any(|line| line.contains("the end")));

    let json = text(&recorded.report(&["--json", "-F", "sched:sched_switch: next_pid == 0"]));
    let idle: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let is_idle = |line: &&&str| line.contains(": sched_switch: ") && line.contains(" next_pid=0 ");
    assert_eq!(idle.len(), theirs.iter().filter(is_idle).count());
    assert!(idle.iter().all(|event| event["fields"]["next_pid"] == 0 && event["event"] == "sched_switch"));
}

#[test]
fn a_bad_page_of_a_dump_does_not_hide_the_others() {
    if cannot_trace() {
        return;
    }
    let recorded = Recorded::new("report-bad-page");
    let dump = recorded.dumps.iter().max_by_key(|dump| fs::metadata(dump).unwrap().len()).unwrap();
    let mut bytes = fs::read(dump).unwrap();
    // The commit word of the first page claims more than a page has.
    let records = u32::from_le_bytes(*bytes[8..].first_chunk().unwrap()) & 0xf_ffff;
    assert!(records > 100);
    bytes[8..16].copy_from_slice(&0xf_0000u64.to_le_bytes());
    // And its first record a length that leaves the page.
    bytes[16..24].copy_from_slice(&0x0010_0000_0000u64.to_le_bytes());
    fs::write(dump, &bytes).unwrap();
    let output = recorded.report(&["--layout", "trace-cmd"]);
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1));
    let page = format!("{}: page at byte 0: ", dump.display());
    assert!(stderr.starts_with(&format!("ringtap: {page}")), "{stderr}");
    assert!(stderr.ends_with("ringtap: 1 page is damaged; all that can be read is printed\n"), "{stderr}");
    assert_eq!(stdout.matches(&format!("[DAMAGED: {page}")).count(), 1, "{stdout}");
    if bytes.len() > PAGE {
        // Each line that there would be without that page is there. What is read of the page up to its damage may
        // be of any time, and stand between them.
        fs::write(dump, &bytes[PAGE..]).unwrap();
        let without = text(&recorded.report(&["--layout", "trace-cmd"]));
        let kept: HashSet<&str> = stdout.lines().collect();
        assert_eq!(without.lines().find(|line| !kept.contains(line)), None);
    }
}

#[test]
fn formats_may_come_from_a_folder() {
    if cannot_trace() {
        return;
    }
    let recorded = Recorded::new("report-formats");
    let (events, folder) =
        (Tracefs::find().unwrap().root().join("events"), recorded.temporary.path().join("events"));
    for file in ["sched/sched_switch", "irq/softirq_entry", "ftrace/print"] {
        fs::create_dir_all(folder.join(file)).unwrap();
        fs::copy(events.join(file).join("format"), folder.join(file).join("format")).unwrap();
    }
    let formats = ["--formats", path(&folder), "--layout", "trace-cmd"];
    let incomplete = recorded.report(&formats);
    assert!(!incomplete.status.success());
    assert!(said(&incomplete).contains("no whole copy of tracefs' folder `events`"), "{}", said(&incomplete));

    for header in ["header_page", "header_event"] {
        let copied = Command::new("cp").args([events.join(header), folder.join(header)]).status().unwrap();
        assert!(copied.success());
    }
    let broken = folder.join("irq/softirq_entry/format");
    fs::write(&broken, "name: softirq_entry\nID: seventy\n").unwrap();
    let output = recorded.report(&formats);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(stderr.starts_with(&format!("ringtap: {}: line 2: expected ", broken.display())), "{stderr}");
    let lines = text(&output);
    assert!(lines.starts_with("cpus="), "{lines}");
    assert!(lines.contains(" sched_switch:         ") && lines.contains("[UNKNOWN EVENT "), "{lines}");
}

#[test]
fn a_trace_dat_prints_as_trace_cmd_prints_it() {
    let theirs = Command::new("trace-cmd").args(["report", "-i", path(&capture())]).output();
    let Ok(theirs) = theirs else {
        println!("skipped, as trace-cmd is not installed");
        return;
    };
    let ours = report(&["--layout", "trace-cmd", path(&capture())]);
    assert!(ours.status.success(), "{}", said(&ours));
    let lines = |bytes: &[u8]| bytes.split(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect::<Vec<_>>();
    let (theirs, ours) = (lines(&theirs.stdout), lines(&ours.stdout));
    assert_eq!(theirs.len(), ours.len());
    let differ = theirs.iter().zip(&ours).filter(|(theirs, ours)| theirs != ours).count();
    // docs/differences.md lists what may differ.
    assert!(differ * 1000 <= theirs.len(), "{differ} of {} lines differ", theirs.len());
}

#[test]
fn a_trace_dat_of_version_7_holds_the_same() {
    let temporary = Temporary::new("report-7");
    let original = text(&report(&["--json", path(&capture())]));
    for compression in ["none", "zstd"] {
        let file = temporary.path().join(compression);
        let mut convert = Command::new("trace-cmd");
        convert.args(["convert", "--file-version", "7", "--compression", compression]);
        let Ok(converted) = convert.args(["-i", path(&capture()), "-o", path(&file)]).output() else {
            println!("skipped, as trace-cmd is not installed");
            return;
        };
        assert!(converted.status.success(), "{}", said(&converted));
        assert!(text(&report(&["--json", path(&file)])) == original, "{compression}");
    }
}

#[test]
fn json_lines_are_objects_in_order_of_time() {
    let json = text(&report(&["--json", path(&capture())]));
    let (mut last, mut kinds) = (0, std::collections::BTreeMap::new());
    for line in json.lines() {
        let object: Value = serde_json::from_str(line).unwrap();
        *kinds.entry(object["type"].as_str().unwrap().to_owned()).or_insert(0) += 1;
        if let Some(ts) = object["ts"].as_u64() {
            assert!(ts >= last, "{line}");
            last = ts;
        }
    }
    assert!(kinds["event"] > 10_000 && kinds["lost"] >= 1, "{kinds:?}");
    let same = text(&report(&["--layout", "json", path(&capture())]));
    assert!(same == json);
}

#[test]
fn filters_choose_and_their_mistakes_are_shown() {
    let of = |options: &[&str]| text(&report(&[options, &[path(&capture())]].concat()));
    let events =
        |text: &str| text.lines().filter(|line| line.contains("]") && !line.starts_with(['#', 'C'])).count();
    let all = events(&of(&[]));
    let (switch, wakeup) = (events(&of(&["-e", "sched_switch"])), events(&of(&["-e", "sched:sched_wakeup"])));
    assert_eq!(events(&of(&["-e", "sched_switch", "-e", "sched_wakeup"])), switch + wakeup);
    let first = events(&of(&["-e", "sched_switch", "-F", "cpu == 0"]));
    let second = events(&of(&["-F", "sched:sched_switch: cpu != 0"]));
    assert_eq!(first + second, switch);
    assert!(0 < first && 0 < second && switch < all);

    let refused = |options: &[&str]| said(&report(&[options, &[path(&capture())]].concat()));
    insta::assert_snapshot!("report-filter", refused(&["-F", "sched_switch: prev_pid == 1 && nosuch > 2"]));
    insta::assert_snapshot!("report-filter-without-event", refused(&["-F", "prev_pid == 1"]));
    insta::assert_snapshot!("report-unknown-event", refused(&["-e", "sched:sched_swich"]));
}

#[test]
fn threads_print_what_one_prints() {
    for layout in [&["--layout", "ftrace"][..], &["--json"], &["--csv"]] {
        let of = |jobs| text(&report(&[layout, &["--jobs", jobs, path(&capture())]].concat()));
        let alone = of("1");
        for jobs in ["2", "7"] {
            assert!(of(jobs) == alone, "{layout:?}, {jobs}");
        }
    }
    let cut = Temporary::new("report-threads");
    let file = cut.path().join("cut.dat");
    let whole = fs::read(capture()).unwrap();
    fs::write(&file, &whole[..whole.len() - 10_000]).unwrap();
    let of = |jobs| said(&report(&["--json", "--jobs", jobs, path(&file)]));
    assert!(of("1") == of("3"));
}

#[test]
fn places_and_times_choose() {
    let of = |options: &[&str]| -> Vec<Value> {
        let json = text(&report(&[&["--json"], options, &[path(&capture())]].concat()));
        json.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let all = of(&[]);
    let chosen = |is_wanted: &dyn Fn(&Value) -> bool| all.iter().filter(|line| is_wanted(line)).count();
    let events = |lines: &[Value]| lines.iter().filter(|line| line["type"] == "event").count();
    let cpu = of(&["--cpu", "1,3-4"]);
    assert_eq!(cpu.len(), chosen(&|line| line["cpu"] == 1));
    assert!(!cpu.is_empty() && cpu.len() < all.len());
    let middle = all[all.len() / 2]["ts"].as_u64().unwrap();
    let seconds = format!("{}.{:09}", middle / 1_000_000_000, middle % 1_000_000_000);
    let (until, since) = (of(&["--until", &seconds]), of(&["--since", &seconds]));
    assert_eq!(events(&until), chosen(&|line| line["ts"].as_u64().is_some_and(|ts| ts <= middle)));
    assert_eq!(events(&since), chosen(&|line| line["ts"].as_u64().is_some_and(|ts| ts >= middle)));
    // As a line shows it: to the microsecond, rounded.
    let shown = (middle + 500) / 1000;
    let seconds = format!("{}.{:06}", shown / 1_000_000, shown % 1_000_000);
    assert_eq!(of(&["--since", &seconds])[0]["ts"], middle);
    assert!(
        said(&report(&["--cpu", "3-4", path(&capture())]))
            .contains("the files have no such CPU: they have 2")
    );
    let pid = &all[0]["pid"];
    assert_eq!(events(&of(&["--pid", &pid.to_string()])), chosen(&|line| line["pid"] == *pid));
    assert!(said(&report(&["--cpu", "2-1", "x"])).contains("expected numbers such as 0,2-3"));
}

#[test]
fn comma_separated_values() {
    let temporary = Temporary::new("report-csv");
    let file = temporary.path().join("kinds.dat");
    fs::write(&file, synthetic::all_kinds(false)).unwrap();
    let of = |options: &[&str]| text(&report(&[&["--csv"], options, &[path(&file)]].concat()));
    insta::assert_snapshot!("report-csv", of(&["--until", "1.000003001"]));
    let fields = of(&["-e", "kinds", "-e", "rest-of*"]);
    insta::assert_snapshot!("report-csv-fields", &fields[..fields.find("long long").unwrap()]);
}

#[test]
fn what_cannot_be_read_is_told() {
    insta::assert_snapshot!("report-no-file", said(&report(&["/no/such/file"])));
    insta::assert_snapshot!("report-device", said(&report(&["/dev/null"])));
    let temporary = Temporary::new("report-other");
    let newer = temporary.path().join("newer.dat");
    fs::write(&newer, b"\x17\x08\x44tracing7\0\0\x08").unwrap();
    let told = said(&report(&[path(&newer)])).replace(path(temporary.path()), "TMP");
    insta::assert_snapshot!("report-version-7", told);
    let text = temporary.path().join("text");
    fs::write(&text, "no trace at all, ".repeat(1000)).unwrap();
    assert!(said(&report(&[path(&text)])).contains("is neither a trace.dat nor a dump of trace_pipe_raw"));
}

#[test]
fn what_is_made_does_not_take_the_place_of_what_is_read() {
    let temporary = Temporary::new("report-itself");
    let (file, same) = (temporary.path().join("t.dat"), temporary.path().join("same.dat"));
    fs::copy(capture(), &file).unwrap();
    std::os::unix::fs::symlink(&file, &same).unwrap();
    for output in [
        report(&["--timeline", path(&file), path(&file)]),
        run(&["export", "--to", "chrome", "-o", path(&same), path(&file)]),
    ] {
        assert!(said(&output).contains("is one of the files that are read"), "{}", said(&output));
    }
    assert!(fs::read(&file).unwrap() == fs::read(capture()).unwrap());
}

/// xorshift64*
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let drawn = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11;
        usize::try_from(drawn % u64::try_from(limit).unwrap()).unwrap()
    }
}

#[test]
fn damage_is_named_and_the_rest_is_printed() {
    let temporary = Temporary::new("report-damage");
    let whole = fs::read(capture()).unwrap();
    let cut = temporary.path().join("cut.dat");
    fs::write(&cut, &whole[..whole.len() - 10_000]).unwrap();
    let output = report(&["--json", path(&cut)]);
    let (status, stderr) = (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned());
    assert_eq!(status, Some(1), "{stderr}");
    assert!(stderr.contains("the last 10000 bytes of CPU"), "{stderr}");
    let json = String::from_utf8(output.stdout).unwrap();
    let damage: Vec<Value> = json
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|object| object["type"] == "damage")
        .collect();
    for damage in &damage {
        assert_eq!(damage["file"], path(&cut));
        assert!(stderr.contains(&format!("page at byte {}: ", damage["offset"])), "{stderr}");
    }
    assert_eq!(damage.len(), 1, "the cut goes through one page: {stderr}");
    assert!(json.lines().count() > 10_000);
}

#[test]
fn any_bytes_end_in_peace() {
    let seed = std::env::var("RINGTAP_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or(u64::from(std::process::id()) << 20 | 1);
    println!("RINGTAP_SEED={seed}");
    let mut random = Random(seed.max(1));
    let temporary = Temporary::new("report-any");
    let whole = fs::read(capture()).unwrap();
    for round in 0..12 {
        let mut bytes = whole.clone();
        if round % 2 == 0 {
            bytes.truncate(random.below(bytes.len()));
        }
        for _ in 0..random.below(200) {
            let at = random.below(bytes.len().max(1));
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        let file = temporary.path().join("flipped.dat");
        fs::write(&file, &bytes).unwrap();
        for layout in ["ftrace", "trace-cmd", "json"] {
            let output = report(&["--layout", layout, path(&file)]);
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(matches!(output.status.code(), Some(0 | 1)), "{layout}: {}", said(&output));
            assert!(!stderr.contains("panicked"), "{stderr}");
            assert_eq!(
                output.status.code() == Some(1),
                stderr.lines().last().is_some_and(|last| {
                    let says = |what| last.contains(what);
                    // The last, where its first bytes are hit.
                    says("all that can be read is printed")
                        || says("cannot read ")
                        || says(" is neither a trace.dat")
                }),
                "{stderr}"
            );
        }
    }
}

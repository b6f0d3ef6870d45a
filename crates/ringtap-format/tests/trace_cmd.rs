//! The same file decoded by ringtap and by `trace-cmd report`, and by ringtap and the kernel: line by line.
//!
//! What may differ is listed in docs/differences.md.

#[path = "../examples/capture.rs"]
mod capture;
#[path = "../examples/report.rs"]
mod report;

use capture::{Request, capture};
use report::{Layout, kernel_constants, report};
use ringtap_format::Constants;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Of ten thousand lines so many may differ.
const MAX_DIFFERENT: usize = 10;

fn text(file: &[u8], layout: Layout) -> Vec<u8> {
    let mut text = Vec::new();
    let constants = if layout == Layout::Kernel { kernel_constants() } else { Constants::new() };
    report(file, layout, constants, &mut text).unwrap();
    text
}

/// `trace-cmd report`'s text; `None` where it is not installed.
fn trace_cmd(path: &Path, options: &[&str]) -> Option<Vec<u8>> {
    let output = Command::new("trace-cmd").arg("report").args(options).arg("-i").arg(path).output().ok()?;
    assert!(output.status.success(), "trace-cmd report fails: {}", String::from_utf8_lossy(&output.stderr));
    Some(output.stdout)
}

/// The lines of the records: no header, no losses, which the kernel's `trace` file does not show.
fn record_lines(text: &[u8]) -> Vec<&[u8]> {
    let is_record = |line: &&[u8]| !line.starts_with(b"#") && !line.starts_with(b"CPU:") && !line.is_empty();
    text.split(|byte| *byte == b'\n').filter(is_record).collect()
}

/// The word that names a line's event.
fn event_name(line: &[u8]) -> String {
    let line = String::from_utf8_lossy(line);
    line.split(": ").nth(1).unwrap_or(&line).trim().split(['(', ' ']).next().unwrap_or_default().to_owned()
}

/// Compares and prints what differs, by event with one example.
fn compare(title: &str, theirs: &[&[u8]], ours: &[&[u8]]) {
    assert_eq!(theirs.len(), ours.len(), "{title}: number of lines");
    let mut different = BTreeMap::new();
    for (theirs, ours) in theirs.iter().zip(ours).filter(|(theirs, ours)| theirs != ours) {
        different.entry(event_name(theirs)).or_insert((0usize, theirs, ours)).0 += 1;
    }
    let count: usize = different.values().map(|(count, ..)| count).sum();
    println!("{title}: {count} of {} lines differ", theirs.len());
    for (event, (count, theirs, ours)) in &different {
        println!("  {event}: {count}");
        println!("    theirs {}", String::from_utf8_lossy(theirs));
        println!("    ours   {}", String::from_utf8_lossy(ours));
    }
    assert!(theirs.len() > 100, "{title}: a capture of real activity has more than {} lines", theirs.len());
    assert!(count * 10_000 <= theirs.len() * MAX_DIFFERENT, "{title}: too many lines differ");
}

fn compare_with_trace_cmd(title: &str, path: &Path, file: &[u8]) {
    for (options, layout) in [(&[][..], Layout::TraceCmd), (&["-N"], Layout::TraceCmdPlain)] {
        let Some(theirs) = trace_cmd(path, options) else {
            println!("{title}: skipped: trace-cmd is not installed");
            return;
        };
        let ours = text(file, layout);
        let lines = |text: &[u8]| text.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect::<Vec<_>>();
        let (theirs, ours) = (lines(&theirs), lines(&ours));
        let borrow = |lines: &[Vec<u8>]| lines.len();
        assert_eq!(borrow(&theirs), borrow(&ours), "{title}: number of lines");
        let theirs: Vec<&[u8]> = theirs.iter().map(Vec::as_slice).collect();
        let ours: Vec<&[u8]> = ours.iter().map(Vec::as_slice).collect();
        compare(&format!("{title}, trace-cmd report {}", options.join(" ")), &theirs, &ours);
    }
}

/// Some lines of each layout, so that a machine without trace-cmd notices a change, too. `RINGTAP_BLESS=1` writes
/// them anew.
#[test]
fn samples_of_the_capture_in_the_repository() {
    let compliance = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../compliance");
    let file = std::fs::read(compliance.join("capture.dat")).unwrap();
    let mut sample = String::new();
    for layout in [Layout::TraceCmd, Layout::TraceCmdPlain, Layout::Kernel] {
        let mut text = Vec::new();
        report(&file, layout, Constants::new(), &mut text).unwrap();
        sample += &format!("{layout:?}\n");
        let mut seen = std::collections::BTreeSet::new();
        for line in record_lines(&text).into_iter().filter(|line| seen.insert(event_name(line))) {
            sample += &String::from_utf8_lossy(line);
            sample.push('\n');
        }
    }
    let path = compliance.join("capture.sample.txt");
    if std::env::var_os("RINGTAP_BLESS").is_some() {
        std::fs::write(&path, &sample).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    for (line, (ours, expected)) in sample.lines().zip(expected.lines()).enumerate() {
        assert_eq!(ours, expected, "capture.sample.txt, line {}", line + 1);
    }
    assert_eq!(sample.lines().count(), expected.lines().count());
}

fn temporary(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("ringtap-{name}-{}", std::process::id()))
}

#[test]
fn the_capture_in_the_repository() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../compliance/capture.dat");
    let file = std::fs::read(&path).unwrap();
    compare_with_trace_cmd("capture in the repository", &path, &file);
}

#[test]
fn a_fresh_capture() {
    let captured = match capture(&Request { kb: 1024, ..Request::default() }) {
        Ok(captured) => captured,
        Err(error) => {
            println!("skipped: cannot trace this kernel: {error}");
            return;
        }
    };
    let path = temporary("fresh.dat");
    std::fs::write(&path, &captured.file).unwrap();
    compare_with_trace_cmd("fresh capture", &path, &captured.file);
    std::fs::remove_file(&path).unwrap();

    // What the kernel prints with numbers that only it has at hand is left out.
    let known = |line: &&[u8]| !line.windows(5).any(|word| word == b"page=" || word == b" age=");
    let ours = text(&captured.file, Layout::Kernel);
    let pairs = record_lines(&captured.text).into_iter().zip(record_lines(&ours));
    let (theirs, ours): (Vec<_>, Vec<_>) = pairs.filter(|(theirs, _)| known(theirs)).unzip();
    compare("fresh capture, the kernel's trace file", &theirs, &ours);
}

//! Measures decoding on one core, and beside it `trace-cmd report` on the same file: `speed FILE.dat`.
//!
//! Fields: all fields of sched_switch, from raw pages, without text. Text: the whole file, as `trace-cmd report`
//! prints it; both programs write to /dev/null.

#[path = "report.rs"]
mod report;

use report::{Layout, report};
use ringtap_format::header::PageLayout;
use ringtap_format::page::Page;
use ringtap_format::{Dialect, Field, Formats, Target};
use std::hint::black_box;
use std::io;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const ROUNDS: usize = 5;
const PAGES: usize = 256;

const SCHED_SWITCH: &str = "name: sched_switch
ID: 372
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;
\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

\tfield:char prev_comm[16];\toffset:8;\tsize:16;\tsigned:0;
\tfield:pid_t prev_pid;\toffset:24;\tsize:4;\tsigned:1;
\tfield:int prev_prio;\toffset:28;\tsize:4;\tsigned:1;
\tfield:long prev_state;\toffset:32;\tsize:8;\tsigned:1;
\tfield:char next_comm[16];\toffset:40;\tsize:16;\tsigned:0;
\tfield:pid_t next_pid;\toffset:56;\tsize:4;\tsigned:1;
\tfield:int next_prio;\toffset:60;\tsize:4;\tsigned:1;
";

/// A page full of sched_switch records.
fn page() -> Vec<u8> {
    let mut record = vec![0u8; 64];
    record[..2].copy_from_slice(&372u16.to_le_bytes());
    record[8..13].copy_from_slice(b"cargo");
    record[24..28].copy_from_slice(&1234u32.to_le_bytes());
    record[28..32].copy_from_slice(&120u32.to_le_bytes());
    record[32] = 1;
    record[40..49].copy_from_slice(b"swapper/0");
    record[60..64].copy_from_slice(&120u32.to_le_bytes());
    let mut page = vec![0u8; 16];
    while page.len() + 68 <= 4096 {
        page.extend_from_slice(&(50u32 << 5 | 16).to_le_bytes());
        page.extend_from_slice(&record);
    }
    let committed = u64::try_from(page.len() - 16).unwrap_or(0);
    page[8..16].copy_from_slice(&committed.to_le_bytes());
    page.resize(4096, 0);
    page
}

/// Decodes every field of every record and returns the number of records.
fn decode(pages: &[u8], formats: &Formats, layout: PageLayout) -> u64 {
    let Some(event) = formats.by_name(None, "sched_switch") else { return 0 };
    let [prev_comm, prev_pid, prev_prio, prev_state, next_comm, next_pid, next_prio] = event.fields() else {
        return 0;
    };
    let target = layout.target;
    let int = |field: &Field, record| field.int(record, target).unwrap_or(0);
    let text = |field: &Field, record| field.text(record, target).unwrap_or_default().len();
    let mut count = 0;
    for page in pages.chunks_exact(4096) {
        let Ok(page) = Page::new(page, layout) else { continue };
        for record in page.records().flatten() {
            let record = record.bytes;
            black_box(text(prev_comm, record));
            black_box(text(next_comm, record));
            let numbers =
                [prev_pid, prev_prio, prev_state, next_pid, next_prio].map(|field| int(field, record));
            black_box(numbers);
            count += 1;
        }
    }
    count
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn fields() {
    let mut formats = Formats::new(Target::LE64, Dialect::Kernel);
    if let Err(error) = formats.add("sched", SCHED_SWITCH) {
        return eprintln!("{error}");
    }
    let layout = PageLayout { target: Target::LE64, ..PageLayout::of_size(4096) };
    let pages = page().repeat(PAGES);
    let mut count = 0;
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        count = (0..20).map(|_| decode(&pages, &formats, layout)).sum();
        times.push(start.elapsed());
    }
    let rate = count as f64 / median(times).as_secs_f64();
    println!("all fields of sched_switch: {:.1} million events a second", rate / 1e6);
}

fn texts(path: &str) -> io::Result<()> {
    let bytes = std::fs::read(path)?;
    let mut text = Vec::new();
    report(&bytes, Layout::TraceCmd, &mut text)?;
    let lines = text.split(|byte| *byte == b'\n').count();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let start = Instant::now();
        report(&std::fs::read(path)?, Layout::TraceCmd, &mut io::sink())?;
        ours.push(start.elapsed());
        let start = Instant::now();
        let status = Command::new("trace-cmd").args(["report", "-i", path]).stdout(Stdio::null()).status();
        if status.is_ok_and(|status| status.success()) {
            theirs.push(start.elapsed());
        }
    }
    let ours = median(ours);
    println!("text of {path}: {lines} lines in {ours:.1?}, {:.0} ns a line", ns(ours) / lines as f64);
    if theirs.is_empty() {
        println!("trace-cmd is not installed");
    } else {
        let theirs = median(theirs);
        println!("trace-cmd report: {theirs:.1?}, {:.2} times as long", ns(theirs) / ns(ours));
    }
    Ok(())
}

fn ns(time: Duration) -> f64 {
    time.as_secs_f64() * 1e9
}

fn main() -> io::Result<()> {
    fields();
    match std::env::args().nth(1) {
        Some(path) => texts(&path),
        None => Ok(()),
    }
}

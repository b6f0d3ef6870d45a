//! Measures decoding on one core, and beside it `trace-cmd report` on the same file: `speed FILE.dat`.
//!
//! Fields: all fields of sched_switch, from raw pages, without text. Text: the whole file, as `trace-cmd report`
//! prints it; both programs write to /dev/null.
//! Times are those of the processor, not of the clock on the wall.

#[path = "report.rs"]
mod report;

use report::{Layout, report};
use ringtap_format::header::PageLayout;
use ringtap_format::page::Page;
use ringtap_format::{Constants, Dialect, Formats, Target};
use std::hint::black_box;
use std::io;
use std::process::{Command, Stdio};

const ROUNDS: usize = 10;
const FIELD_ROUNDS: usize = 1000;
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
    let numbers =
        ["prev_pid", "prev_prio", "prev_state", "next_pid", "next_prio"].map(|name| event.int_field(name));
    let [Some(prev_pid), Some(prev_prio), Some(prev_state), Some(next_pid), Some(next_prio)] = numbers else {
        return 0;
    };
    let (Some(prev_comm), Some(next_comm)) = (event.field("prev_comm"), event.field("next_comm")) else {
        return 0;
    };
    let target = layout.target;
    let mut count = 0;
    for page in pages.chunks_exact(4096) {
        let Ok(page) = Page::new(page, layout) else { continue };
        for record in page.records().flatten() {
            let record = record.bytes;
            black_box([prev_comm, next_comm].map(|field| field.text(record, target)));
            black_box([prev_pid, prev_prio, prev_state, next_pid, next_prio].map(|field| field.get(record)));
            count += 1;
        }
    }
    count
}

/// Processor time of this process and of its children that have ended, so that a busy machine does not count.
fn processor_time() -> Option<(f64, f64)> {
    const TICKS_A_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // Behind the name in parentheses the fields are numbered from 3.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let ticks = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
    Some(((ticks(14)? + ticks(15)?) / TICKS_A_SECOND, (ticks(16)? + ticks(17)?) / TICKS_A_SECOND))
}

fn fields() -> Option<()> {
    let mut formats = Formats::new(Target::LE64, Dialect::Kernel);
    formats.add("sched", SCHED_SWITCH).ok()?;
    let layout = PageLayout { target: Target::LE64, ..PageLayout::of_size(4096) };
    let pages = page().repeat(PAGES);
    let (start, _) = processor_time()?;
    let count: u64 = (0..FIELD_ROUNDS).map(|_| decode(black_box(&pages), &formats, layout)).sum();
    let (end, _) = processor_time()?;
    println!("all fields of sched_switch: {:.1} million events a second", count as f64 / (end - start) / 1e6);
    Some(())
}

fn texts(path: &str) -> io::Result<()> {
    let times = || processor_time().ok_or_else(|| io::Error::other("no /proc/self/stat"));
    let bytes = std::fs::read(path)?;
    let mut text = Vec::new();
    report(&bytes, Layout::TraceCmd, Constants::new(), &mut text)?;
    let lines = text.split(|byte| *byte == b'\n').count();
    let (start, _) = times()?;
    for _ in 0..ROUNDS {
        report(&std::fs::read(path)?, Layout::TraceCmd, Constants::new(), &mut io::sink())?;
    }
    let (end, children) = times()?;
    let ours = (end - start) / ROUNDS as f64;
    println!("text of {path}: {lines} lines in {ours:.3} s, {:.0} ns a line", ours * 1e9 / lines as f64);
    for _ in 0..ROUNDS {
        let status = Command::new("trace-cmd").args(["report", "-i", path]).stdout(Stdio::null()).status();
        if !status.is_ok_and(|status| status.success()) {
            println!("trace-cmd is not installed");
            return Ok(());
        }
    }
    let theirs = (times()?.1 - children) / ROUNDS as f64;
    println!("trace-cmd report: {theirs:.3} s, {:.2} times as long", theirs / ours);
    Ok(())
}

fn main() -> io::Result<()> {
    fields();
    match std::env::args().nth(1) {
        Some(path) => texts(&path),
        None => Ok(()),
    }
}

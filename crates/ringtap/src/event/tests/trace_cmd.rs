//! The real tool reads what real writers wrote: pages and format texts go into a trace.dat.

use super::pages::{self, Page};
use super::{Bare, Dynamic, Fixed, IDS, Told, host};
use crate::event::{Declared, marker};
use std::process::Command;

/// The texts that stand in the kernel's `events/`.
const HEADER_PAGE: &str = "\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;
\tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;
\tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;
\tfield: char data;\toffset:16;\tsize:4080;\tsigned:0;
";
const HEADER_EVENT: &str = "# compressed entry header
\ttype_len    :    5 bits
\ttime_delta  :   27 bits
\tarray       :   32 bits

\tpadding     : type == 29
\ttime_extend : type == 30
\ttime_stamp : type == 31
\tdata max type_len  == 28
";

/// Where the file says at which offset its options are.
const OPTIONS_AT: usize = 24;

/// A trace.dat, version 7, uncompressed: what the tool needs and no more.
#[derive(Default)]
struct TraceDat(Vec<u8>);

impl TraceDat {
    fn new() -> Self {
        let mut dat = Self::default();
        dat.0.extend(b"\x17\x08\x44tracing7\0\0\x08");
        dat.u32(4096);
        dat.0.extend(b"none\0\0");
        dat.u64(0);
        dat
    }

    fn u16(&mut self, number: u16) {
        self.0.extend(number.to_le_bytes());
    }

    fn u32(&mut self, number: usize) {
        self.0.extend(u32::try_from(number).expect("a small number").to_le_bytes());
    }

    fn u64(&mut self, number: usize) {
        self.0.extend((number as u64).to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.u64(text.len());
        self.0.extend(text.as_bytes());
    }

    /// A section; returns where it starts.
    fn section(&mut self, id: u16, body: impl FnOnce(&mut Self)) -> usize {
        let start = self.0.len();
        self.u16(id);
        self.u16(0);
        self.u32(0);
        self.u64(0);
        body(self);
        let len = (self.0.len() - start - 16) as u64;
        self.0[start + 8..start + 16].copy_from_slice(&len.to_le_bytes());
        start
    }

    fn option(&mut self, id: u16, body: impl FnOnce(&mut Self)) {
        self.u16(id);
        let at = self.0.len();
        self.u32(0);
        body(self);
        let len = u32::try_from(self.0.len() - at - 4).expect("a short option");
        self.0[at..at + 4].copy_from_slice(&len.to_le_bytes());
    }

    fn page_align(&mut self) -> usize {
        self.0.resize(self.0.len().next_multiple_of(4096), 0);
        self.0.len()
    }
}

fn trace_dat(events: &[(&str, String)], pages: &[Page]) -> Vec<u8> {
    let mut dat = TraceDat::new();
    let header = dat.section(16, |dat| {
        dat.0.extend(b"header_page\0");
        dat.text(HEADER_PAGE);
        dat.0.extend(b"header_event\0");
        dat.text(HEADER_EVENT);
    });
    let formats = dat.section(18, |dat| {
        dat.u32(events.len());
        for (system, format) in events {
            dat.0.extend(system.as_bytes());
            dat.0.push(0);
            dat.u32(1);
            dat.text(format);
        }
    });
    let mut cpus: Vec<(u32, usize, usize)> = Vec::new();
    let buffer = dat.section(3, |dat| {
        for page in pages {
            let at = dat.page_align();
            dat.0.extend(&page.bytes);
            match cpus.last_mut() {
                Some((cpu, _, len)) if *cpu == page.cpu => *len += page.bytes.len(),
                _ => cpus.push((page.cpu, at, page.bytes.len())),
            }
        }
    });
    let options = dat.section(0, |dat| {
        dat.option(16, |dat| dat.u64(header));
        dat.option(18, |dat| dat.u64(formats));
        dat.option(3, |dat| {
            dat.u64(buffer);
            dat.0.extend(b"\0local\0");
            dat.u32(4096);
            dat.u32(cpus.len());
            for &(cpu, at, len) in &cpus {
                dat.u32(cpu as usize);
                dat.u64(at);
                dat.u64(len);
            }
        });
        dat.option(0, |dat| dat.u64(0));
    });
    dat.0[OPTIONS_AT..OPTIONS_AT + 8].copy_from_slice(&(options as u64).to_le_bytes());
    dat.0
}

/// The lines of `trace-cmd report`, each from the event's name on; `None` where there is no trace-cmd.
fn report(name: &str, dat: &[u8]) -> Option<Vec<String>> {
    let path = std::env::temp_dir().join(format!("ringtap-{name}-{}.dat", std::process::id()));
    std::fs::write(&path, dat).expect("room for a small file");
    let output = Command::new("trace-cmd").args(["report", "-i"]).arg(&path).output();
    std::fs::remove_file(&path).expect("it was just written");
    let Ok(output) = output else {
        println!("skipped: there is no trace-cmd");
        return None;
    };
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}{errors}");
    let after_time = |line: &str| line.split_once(": ").map(|(_, rest)| rest.trim().to_owned());
    let lines = text.lines().filter(|line| line.contains(&format!("-{}", crate::thread::id())));
    Some(
        lines
            .filter_map(after_time)
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect(),
    )
}

fn formats(events: &[&Declared]) -> Vec<(&'static str, String)> {
    events.iter().map(|event| (event.system(), event.format(event.id()))).collect()
}

#[test]
fn trace_cmd_prints_every_kind_of_field() {
    let host = host();
    let writer = host.writer();
    let (fixed, dynamic) = (Fixed::sample(), Dynamic::sample());
    let told = Told { peer: "10.0.0.1", r#type: 443, sent: 4000, source: super::Source::Network };
    let [a, b, c, d] =
        [Fixed::declared(), Dynamic::declared(), Told::declared(), Bare::declared()].map(|event| {
            event.register(&*IDS).expect("nothing refuses it");
            event
        });
    fixed.try_write(&writer).expect("an empty ring");
    dynamic.try_write(&writer).expect("room");
    told.try_write(&writer).expect("room");
    Bare {}.try_write(&writer).expect("room");
    let dat = trace_dat(&formats(&[a, b, c, d]), &pages::take(&host));
    let Some(lines) = report("fields", &dat) else { return };
    let expected = include_str!("report.txt").lines().collect::<Vec<_>>();
    assert_eq!(lines, expected, "{lines:#?}");
}

#[test]
fn trace_cmd_prints_markers() {
    let host = host();
    let writer = host.writer();
    marker::print(&writer, "hello, world").expect("an empty ring");
    marker::raw_data(&writer, 0x2a, &[1, 2, 3, 4]).expect("room");
    let format = |name| host.event("ftrace", name).expect("it is always there").format.clone();
    let texts = ["print", "raw_data"].map(|name| ("ftrace", format(name)));
    let Some(lines) = report("markers", &trace_dat(&texts, &pages::take(&host))) else { return };
    assert_eq!(lines, ["print: 0x0: hello, world", "raw_data: # 2a 01 02 03 04"]);
}

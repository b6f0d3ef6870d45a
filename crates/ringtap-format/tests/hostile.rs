//! Format files, records, pages, filters and files that are wrong in every way: no panic, no endless work.
//!
//! The seed is printed; `RINGTAP_SEED=n` replays it, `RINGTAP_ROUNDS=n` goes on for longer.

use proptest::prelude::*;
use ringtap_format::check::*;
use ringtap_format::text::Sources;
use ringtap_format::trace_dat::TraceDat;
use ringtap_format::{Constants, Dialect, Strings, Symbols, Tasks};
use std::time::{Duration, Instant};

/// xorshift64*
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(limit.max(1)).unwrap()).unwrap()
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| u8::try_from(self.next() >> 56).unwrap()).collect()
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn random(test: &str) -> Random {
    let seed = number("RINGTAP_SEED", u64::from(std::process::id()) << 20 | 1);
    println!("{test}: RINGTAP_SEED={seed}");
    Random(seed.max(1))
}

fn rounds(default: u64) -> u64 {
    number("RINGTAP_ROUNDS", default)
}

fn capture() -> Vec<u8> {
    std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../../compliance/capture.dat")).unwrap()
}

/// Words that mean something in a format file or a `print fmt`.
const WORDS: &[&str] = &[
    "(",
    ")",
    "{",
    "}",
    "[",
    "]",
    "\"",
    ",",
    ";",
    ":",
    "?",
    "->",
    "REC->",
    "%s",
    "%d",
    "%*d",
    "%.*s",
    "%pS",
    "%*pbl",
    "%*ph",
    "%pISpc",
    "%4095d",
    "0x",
    "18446744073709551615",
    "-1",
    "sizeof(",
    "(u64)",
    "(struct x *)",
    "&",
    "*",
    "<<",
    "__print_flags(",
    "__print_symbolic(",
    "__get_str(",
    "__get_dynamic_array(",
    "__print_array(",
    "__print_hex(",
    "({ int a = 1; a; })",
    "__get_cpumask(",
    "/ 0",
    "offset:",
    "size:",
    "65535",
    "4294967295",
    "field:",
    "__data_loc ",
    "__rel_loc ",
    "[]",
    "[4294967295]",
    ":3",
    "\n",
    "print fmt:",
    "common_",
    "é",
];

/// `text` with a few words put in, cut out or doubled.
fn mutated(text: &str, random: &mut Random) -> String {
    let mut text = text.to_owned();
    for _ in 0..=random.below(4) {
        let mut at = random.below(text.len() + 1);
        let mut end = (at + random.below(24)).min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        while !text.is_char_boundary(end) {
            end += 1;
        }
        match random.below(3) {
            0 => text.insert_str(at, WORDS[random.below(WORDS.len())]),
            1 => text.replace_range(at..end, WORDS[random.below(WORDS.len())]),
            _ => {
                let doubled = text[at..end].repeat(1 + random.below(3));
                text.replace_range(at..end, &doubled);
            }
        }
    }
    text
}

#[test]
fn broken_format_files() {
    let mut random = random("broken_format_files");
    let file = capture();
    let formats = TraceDat::open(&file.as_slice()).unwrap().formats;
    for _ in 0..rounds(10_000) {
        let (_, text) = &formats[random.below(formats.len())];
        let text = mutated(text, &mut random);
        let len = random.below(200);
        let record = random.bytes(len);
        let start = Instant::now();
        check_format(&text, &record);
        assert!(start.elapsed() < Duration::from_secs(5), "too slow: {text}");
    }
}

#[test]
fn broken_pages() {
    let mut random = random("broken_pages");
    let bytes = capture();
    let file = TraceDat::open(&bytes.as_slice()).unwrap();
    let (formats, _) = file.events(Dialect::Kernel, false, Constants::new());
    let (symbols, strings) = (Symbols::parse(&file.kallsyms), Strings::parse(&file.printk_formats));
    let tasks = Tasks::parse(&file.tasks);
    let sources = Sources { formats: &formats, tasks: &tasks, symbols: &symbols, strings: &strings };
    for _ in 0..rounds(1000) {
        let cpus = &file.buffers[0].cpus;
        let span = cpus[random.below(cpus.len())].span.clone();
        let cpu = &bytes[usize::try_from(span.start).unwrap()..usize::try_from(span.end).unwrap()];
        let start = random.below(cpu.len() / 4096) * 4096;
        let mut page = cpu[start..start + 4096].to_vec();
        for _ in 0..random.below(64) {
            let at = random.below(page.len());
            page[at] = u8::try_from(random.next() >> 56).unwrap();
        }
        page.truncate(4096 - random.below(2) * random.below(4096));
        check_pages(&page, sources);
        check_page(&page);
    }
}

#[test]
fn broken_files() {
    let mut random = random("broken_files");
    let bytes = capture();
    let head = &bytes[..bytes.len().min(200_000)];
    for _ in 0..rounds(1000) {
        let mut file = head.to_vec();
        for _ in 0..=random.below(8) {
            let at = random.below(file.len());
            file[at] = u8::try_from(random.next() >> 56).unwrap();
        }
        file.truncate(random.below(file.len() * 2));
        check_trace_dat(&file);
    }
}

#[test]
fn broken_filters() {
    const FILTERS: &[&str] = &[
        "prev_pid == 1 || next_pid != 2 && prev_comm ~ \"a*\"",
        "!(prev_prio < 100) && (cpu & CPUS{0-3,7} || comm == 'x')",
        "prev_state.function == schedule && common_pid >= -5",
    ];
    let mut random = random("broken_filters");
    let bytes = capture();
    let file = TraceDat::open(&bytes.as_slice()).unwrap();
    let (formats, _) = file.events(Dialect::Kernel, false, Constants::new());
    let event = formats.by_name(None, "sched_switch").unwrap();
    for _ in 0..rounds(20_000) {
        let text = mutated(FILTERS[random.below(FILTERS.len())], &mut random);
        let record = random.bytes(72);
        check_filter(&text, event, &record);
    }
    check_filter(&"(".repeat(100_000), event, &[]);
    check_filter(&format!("{}prev_pid == 1{}", "(".repeat(50_000), ")".repeat(50_000)), event, &[]);
    check_filter(&format!("prev_pid == 1{}", " && prev_pid == 1".repeat(50_000)), event, &[0; 72]);
}

#[test]
fn broken_triggers() {
    const TRIGGERS: &[&str] = &[
        "traceoff:3 if prev_pid == 1",
        "!enable_event:sched:sched_waking:5 if prev_comm ~ \"a*\"",
        "hist:keys=prev_comm,prev_pid.hex:values=next_pid,next_prio.hex:sort=next_pid.descending,prev_pid:size=256",
        "hist:keys=common_pid.execname,common_stacktrace,prev_prio.buckets=3:name=x:clear if prev_pid == 1",
        "hist:key=prev_state.sym-offset,common_timestamp.usecs,cpu.log2:pause",
    ];
    let mut random = random("broken_triggers");
    let bytes = capture();
    let file = TraceDat::open(&bytes.as_slice()).unwrap();
    let (formats, _) = file.events(Dialect::Kernel, false, Constants::new());
    let event = formats.by_name(None, "sched_switch").unwrap();
    for text in TRIGGERS {
        check_trigger(text, event);
    }
    for _ in 0..rounds(20_000) {
        check_trigger(&mutated(TRIGGERS[random.below(TRIGGERS.len())], &mut random), event);
    }
}

#[test]
fn expressions_that_ask_for_endless_work() {
    let doubling: String = (0..60).map(|n| format!("int v{} = v{n} + v{n}; ", n + 1)).collect();
    let record = [0xff; 96];
    for print_fmt in [
        format!("\"%d\", ({{ int v0 = REC->a; {doubling} v60; }})"),
        format!("\"{}\"{}", "%s".repeat(5000), ", __get_str(d)".repeat(5000)),
        format!("\"{}\"{}", "%4095d".repeat(2000), ", 1".repeat(2000)),
        format!("\"%*d\", REC->a, {}", "REC->a + ".repeat(100) + "1"),
        format!("\"%d\", {}1{}", "REC->a ?: (".repeat(60), ")".repeat(60)),
        format!("\"%d\", {}REC->a", "~".repeat(3000)),
    ] {
        let start = Instant::now();
        check_print_fmt(&print_fmt, &record);
        assert!(start.elapsed() < Duration::from_secs(5), "{print_fmt}");
    }
}

proptest! {
    #[test]
    fn any_words_as_print_fmt(
        words in proptest::collection::vec(proptest::sample::select(WORDS), 0..24),
        record in proptest::collection::vec(any::<u8>(), 0..120),
    ) {
        check_print_fmt(&format!("\"{}", words.concat()), &record);
        check_print_fmt(&format!("\"%s %d %p\", {}", words.concat()), &record);
    }

    #[test]
    fn any_text_as_format_file(text in "\\PC{0,200}", record in proptest::collection::vec(any::<u8>(), 0..64)) {
        check_format(&text, &record);
    }

    #[test]
    fn any_text_as_tables(text in "[0-9a-f\\[\\] \t\n\\PC]{0,200}") {
        let symbols = Symbols::parse(&text);
        let _ = symbols.resolve(0xff);
        let _ = Strings::parse(&text);
        let _ = Tasks::parse(text.as_bytes());
        let _ = ringtap_format::header::PageLayout::parse(&text, ringtap_format::ByteOrder::Big);
    }
}

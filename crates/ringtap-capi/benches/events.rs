//! What an event costs in C beside the same in Rust: in one run, by turns, on one CPU. The aim is within 10 %.
//!
//! `known` is a text whose length is at hand, as it always is in Rust; `text` is one that C has to measure first.
//!
//! `cargo bench -p ringtap-capi`

#[path = "../tests/common/mod.rs"]
mod common;

use common::{Language, Link, compile_with, crate_dir};
use ringtap::{Config, Host};
use std::hint::black_box;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

ringtap::event! { struct Three as bench:three { a: u64, b: u32, c: u32 } }
ringtap::event! { struct OneText<'a> as bench:text { took_ns: u64, path: &'a str } }
ringtap::event! { struct Known<'a> as bench:known { took_ns: u64, path: &'a str } }
ringtap::event! { struct Odd as bench:odd { a: u64, b: u32 } }
ringtap::event! { struct Wide as bench:wide { a: u64, b: u64, c: u64, d: u64, e: u64 } }
ringtap::event! { struct Off as bench:off { a: u64, b: u32, c: u32 } }

const COUNT: u32 = 200_000;
const ROUNDS: usize = 41;
const KINDS: [&str; 7] = ["three", "lone", "wide", "known", "text", "off", "empty"];

/// A C program that times events when it is asked.
struct Timed {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Timed {
    fn start(link: Link) -> Option<Self> {
        let program = compile_with(&crate_dir().join("benches/events.c"), Language::C, link, &["-O2"])?;
        let mut child = Command::new(program)
            .arg(COUNT.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it runs");
        let to = child.stdin.take().expect("it is piped");
        let from = BufReader::new(child.stdout.take().expect("it is piped"));
        Some(Self { child, to, from })
    }

    fn time(&mut self, kind: &str) -> f64 {
        writeln!(self.to, "{kind}").expect("it listens");
        let mut line = String::new();
        self.from.read_line(&mut line).expect("it answers");
        line.trim().parse().expect("a number")
    }
}

/// The thread's time on its CPU, in nanoseconds: others may be at work there, too.
fn now() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: fills the time that it is given.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

fn time(run: impl Fn(u32)) -> f64 {
    let begun = now();
    (0..COUNT).for_each(run);
    (now() - begun) / f64::from(COUNT)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() {
    let Some((mut shared, mut archive)) = Timed::start(Link::Shared).zip(Timed::start(Link::Static)) else {
        return;
    };
    pin();
    let host = Host::new(&Config::default()).expect("there is memory");
    let writer = host.writer();
    for declared in [
        Three::declared(),
        Odd::declared(),
        Wide::declared(),
        Known::declared(),
        OneText::declared(),
        Off::declared(),
    ] {
        declared.register(&host).expect("it is no other's");
    }
    Off::set_on(false);
    println!("ns an event, medians of {ROUNDS} rounds by turns");
    println!("{:8} {:>8} {:>14} {:>14}", "", "Rust", "C, shared", "C, static");
    for kind in KINDS {
        let mut times = [const { Vec::new() }; 3];
        for _ in 0..ROUNDS {
            times[0].push(match kind {
                "three" => time(|i| Three { a: i.into(), b: i, c: 3 }.write(&writer)),
                "text" => {
                    time(|i| OneText { took_ns: i.into(), path: black_box("/cart/checkout") }.write(&writer))
                }
                "lone" => time(|i| Odd { a: i.into(), b: i }.write(&writer)),
                "known" => {
                    time(|i| Known { took_ns: i.into(), path: black_box("/cart/checkout") }.write(&writer))
                }
                "wide" => time(|i| Wide { a: i.into(), b: i.into(), c: 3, d: 4, e: 5 }.write(&writer)),
                "off" => time(|i| Off { a: i.into(), b: i, c: 3 }.write(&writer)),
                _ => time(|i| {
                    black_box(i);
                }),
            });
            times[1].push(shared.time(kind));
            times[2].push(archive.time(kind));
        }
        let [rust, shared, archive] = times.map(median);
        println!(
            "{kind:8} {rust:8.2} {shared:8.2} x{:.2} {archive:8.2} x{:.2}",
            shared / rust,
            archive / rust
        );
    }
    for timed in [shared, archive] {
        let Timed { mut child, to, .. } = timed;
        drop(to);
        assert!(child.wait().expect("it ends").success());
    }
}

/// All three on the same CPU: its caches and its clock rate are the same for all.
fn pin() {
    let status = Command::new("taskset").args(["-p", "-c", "1", &std::process::id().to_string()]).output();
    if status.is_err() {
        println!("not pinned: there is no taskset");
    }
}

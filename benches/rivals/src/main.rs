//! Subscribers of `tracing`, side by side: what an event and a span cost, and what is left after a `kill -9`.
//!
//! `cargo run --release --manifest-path benches/rivals/Cargo.toml` prints both tables. Each figure comes from a process of its
//! own, which has the contender as its global subscriber: the median over a quarter of a second. Contenders take turns, and the best of
//! their rounds is told, which shows least of what else the machine did.

mod contender;
mod floor;
mod left;
mod worker;

use anyhow::{Context, Result, ensure};
use contender::Contender;
use serde_json::Value;
use std::process::Command;

const ROUNDS: usize = 5;
/// Events before the process kills itself.
const EVENTS: u64 = 100_000;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["time", name] => worker::time(Contender::named(name)?),
        ["die", name, path] => worker::die(Contender::named(name)?, path.as_ref(), EVENTS),
        ["kill"] => kill(),
        ["times"] => times(),
        [] => {
            times()?;
            println!();
            kill()
        }
        _ => anyhow::bail!("usage: rivals [times|kill]"),
    }
}

/// Columns of the first table: the key in a worker's answer, and its title.
const COLUMNS: [(&str, &str); 6] = [
    ("event", "event, 3 integers"),
    ("text", "event, text"),
    ("span", "span"),
    ("span_field", "span, 1 integer"),
    ("off", "off"),
    ("clock", "clock"),
];

fn times() -> Result<()> {
    let mut all: Vec<Vec<Value>> = vec![Vec::new(); Contender::ALL.len()];
    for _ in 0..ROUNDS {
        for (contender, answers) in Contender::ALL.into_iter().zip(&mut all) {
            let output = Command::new(std::env::current_exe()?).args(["time", contender.name()]).output()?;
            ensure!(
                output.status.success(),
                "{}: {}",
                contender.name(),
                String::from_utf8_lossy(&output.stderr)
            );
            answers.push(serde_json::from_slice(&output.stdout).context("a worker's answer")?);
        }
    }
    print!("| ns, best of {ROUNDS} rounds |");
    COLUMNS.iter().for_each(|(_, title)| print!(" {title} |"));
    println!("\n| --- |{}", " --- |".repeat(COLUMNS.len()));
    for (contender, answers) in Contender::ALL.into_iter().zip(&all) {
        print!("| {} |", contender.title());
        for (key, _) in COLUMNS {
            match answers.iter().filter_map(|answer| answer[key].as_f64()).reduce(f64::min) {
                Some(ns) => print!(" {ns:.1} |"),
                None => print!(" |"),
            }
        }
        println!();
    }
    Ok(())
}

fn kill() -> Result<()> {
    println!("| after {EVENTS} events and `kill -9` | readable | |\n| --- | --- | --- |");
    for contender in Contender::ALL.into_iter().filter(|contender| contender.writes()) {
        let left = left::after_kill(contender)?;
        println!("| {} | {} | {} |", contender.title(), left.readable, left.remark);
    }
    Ok(())
}

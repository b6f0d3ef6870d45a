//! `cargo xtask loom`: the ring's models, then each ordering taken away, one at a time, and the tests that notice.

use anyhow::{Context, Result, bail};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// What is weakened together, and the beginning of the test that must fail. The names are those in
/// `ring/ordering.rs`, `lent.rs` and `ringtap_abi::clock`.
const WEAKENED: &[(&str, &str)] = &[
    ("e1_commit", "e1_"),
    ("e1_look", "e1_"),
    ("e2_turn", "e2_who_sees_the_new_tail_sees_its_desc"),
    ("e2_look", "e2_who_sees_the_new_tail_sees_the_old_page"),
    ("e2_retire", "e2_who_sees_a_ring_retired"),
    ("e3_claim", "e3_a_cursor_knows"),
    ("e3_record", "e3_a_cursor_keeps"),
    ("e3_found", "e3_a_cursor_begins"),
    ("e3_copied", "e3_a_cursor_keeps"),
    ("e3_counted", "e3_the_host"),
    ("e4_release", "e4_"),
    ("e4_acquire", "e4_"),
    // A claim succeeds on no other word than the one it looked at: one of the two would do.
    ("e5_look,e5_claim", "e5_a_page"),
    ("e5_swap", "e5_a_page"),
    ("e5_drop", "e5_no_cursor"),
    ("e6_publish", "e6_"),
    ("e6_find", "e6_"),
    ("e7_barrier", "e7_"),
    ("e8_wake", "e8_"),
    ("e8_look", "e8_"),
    ("e9_odd", "e9_"),
    ("e9_even", "e9_"),
    ("e9_first", "e9_"),
    ("e9_second", "e9_"),
    ("s4_enter", "s4_"),
    ("s4_take", "s4_"),
    ("s4_leave", "s4_"),
    ("s4_swap", "s4_"),
    ("s4_look", "s4_"),
];

/// `cargo test` on the models whose names contain `filter`, in their own target directory: all crates are built
/// with another flag.
fn cargo(filter: &str) -> Command {
    let target = PathBuf::from(env!("CARGO_MANIFEST_DIR")).with_file_name("target").join("loom");
    let mut command = Command::new("cargo");
    command
        .args(["test", "--package", "ringtap", "--lib", &format!("loom::{filter}")])
        .env("RUSTFLAGS", "--cfg loom")
        .env("CARGO_TARGET_DIR", target)
        .env("RUST_BACKTRACE", "0");
    command
}

/// The tests that failed, without the module's path.
fn failed(output: &str) -> Vec<&str> {
    let tests = output.lines().filter_map(|line| line.strip_suffix(" ... FAILED"));
    tests.filter_map(|test| test.rsplit("::").next()).collect()
}

/// Runs the models, then takes away each ordering.
pub(crate) fn run() -> Result<()> {
    let status = cargo("").env_remove("RINGTAP_WEAKEN").status().context("failed to start cargo")?;
    if !status.success() {
        bail!("a model failed: the ring does not keep its promises in some order of steps ({status})");
    }
    println!("\n{:18} {:>6}  noticed by", "taken away", "time");
    let mut unnoticed = Vec::new();
    for (weakened, filter) in WEAKENED {
        let begun = Instant::now();
        let output =
            cargo(filter).env("RINGTAP_WEAKEN", weakened).output().context("failed to start cargo")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let failed = failed(&text);
        println!("{weakened:18} {:>6}  {}", seconds(begun.elapsed()), failed.join(", "));
        if failed.is_empty() {
            unnoticed.push(*weakened);
        }
    }
    if !unnoticed.is_empty() {
        bail!("no test noticed that these were taken away: {}", unnoticed.join("; "));
    }
    println!("each of {} weakenings was noticed", WEAKENED.len());
    Ok(())
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_side_that_the_code_names_is_taken_away() {
        let sources = [
            include_str!("../../crates/ringtap/src/ring/ordering.rs"),
            include_str!("../../crates/ringtap/src/lent.rs"),
            include_str!("../../crates/ringtap-abi/src/clock.rs"),
        ];
        let sides = sources.iter().flat_map(|source| source.lines()).filter_map(|line| {
            let (name, ordering) = line.trim().split_once(": ")?;
            let is_side =
                name.starts_with(['e', 's']) && name.as_bytes().get(1).is_some_and(u8::is_ascii_digit);
            (is_side && ordering.ends_with(';')).then_some(name)
        });
        let mut sides: Vec<_> = sides.collect();
        let mut weakened: Vec<_> = WEAKENED.iter().flat_map(|(names, _)| names.split(',')).collect();
        sides.sort_unstable();
        weakened.sort_unstable();
        assert_eq!(sides, weakened);
    }

    #[test]
    fn failures_are_found_in_the_output() {
        let output = "test ring::tests::loom::e1_a ... ok\ntest ring::tests::loom::e2_b ... FAILED\n";
        assert_eq!(failed(output), ["e2_b"]);
    }
}

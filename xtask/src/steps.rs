//! What `cargo xtask test` does, as a table.

use anyhow::{Context, Result, bail};
use std::process::{Command, ExitStatus};
use std::time::Instant;

/// One step: its name, the environment it adds, and the command line.
pub(crate) struct Step {
    name: &'static str,
    environment: &'static [(&'static str, &'static str)],
    command: &'static [&'static str],
}

const fn step(name: &'static str, command: &'static [&'static str]) -> Step {
    Step { name, environment: &[], command }
}

const FORMAT: Step = step("format", &["cargo", "fmt", "--all", "--check"]);
// What is built on Arrow is left out of what is built for all, since Arrow takes minutes: it has its own step.
const LINT: Step = step(
    "lint",
    &[
        "cargo",
        "clippy",
        "--quiet",
        "--workspace",
        "--exclude",
        "ringtap-tables",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ],
);

/// While one writes.
pub(crate) const QUICK: &[Step] = &[
    FORMAT,
    LINT,
    step("unit tests", &["cargo", "test", "--quiet", "--workspace", "--exclude", "ringtap-tables", "--lib"]),
];

/// All that CI runs.
pub(crate) const ALL: &[Step] = &[
    FORMAT,
    LINT,
    step("tests", &["cargo", "test", "--workspace", "--exclude", "ringtap-tables"]),
    step(
        "tables",
        &[
            "cargo",
            "test",
            "--profile",
            "sql",
            "--package",
            "ringtap-cli",
            "--package",
            "ringtap-tables",
            "--features",
            "ringtap-cli/remote",
            "--lib",
            "--test",
            "export_parquet",
            "--test",
            "slices",
        ],
    ),
    step(
        "examples of tracing",
        &["cargo", "test", "--quiet", "--manifest-path", "examples/tracing/Cargo.toml"],
    ),
    // Two minutes of it; the tests above have a share of seconds.
    Step {
        name: "torture",
        environment: &[("RINGTAP_TORTURE", "120")],
        command: &["cargo", "test", "--package", "ringtap-daemon", "--test", "torture"],
    },
    Step {
        name: "tests of the ring without restartable sequences",
        environment: &[("GLIBC_TUNABLES", "glibc.pthread.rseq=0")],
        command: &["cargo", "test", "--package", "ringtap"],
    },
    Step {
        name: "documentation",
        environment: &[("RUSTDOCFLAGS", "-D warnings")],
        command: &["cargo", "doc", "--quiet", "--workspace", "--exclude", "ringtap-tables", "--no-deps"],
    },
    step("models of the ring's memory orderings", &["cargo", "xtask", "loom"]),
    step("layout of the shared memory", &["cargo", "xtask", "layout", "--check"]),
    step(
        "instruction budgets",
        &["cargo", "run", "--quiet", "--release", "--package", "ringtap-benches", "--bin", "instructions"],
    ),
];

/// What one step may take: a multiple of what the longest takes on two cores, so that what hangs is ended and named.
const LIMIT: &str = "20m";
/// `timeout`'s exit status where it ended the command.
const TIMED_OUT: i32 = 124;

/// Runs one step and all that it starts for as long as it may, or until this process dies.
fn limited(step: &Step) -> Result<ExitStatus> {
    Command::new("setpriv")
        .args(["--pdeathsig", "TERM", "timeout", "--kill-after=10", LIMIT])
        .args(step.command)
        .envs(step.environment.iter().copied())
        .status()
        .context("failed to start setpriv and timeout, of util-linux and coreutils")
}

/// Runs the steps in order and stops at the first that fails.
pub(crate) fn run(steps: &[Step]) -> Result<()> {
    let begun = Instant::now();
    for step in steps {
        println!("== {}: {}", step.name, step.command.join(" "));
        let started = Instant::now();
        let status = limited(step)?;
        if status.code() == Some(TIMED_OUT) {
            bail!("{} was not done within {LIMIT}: a test named above as running hangs", step.name);
        }
        if !status.success() {
            bail!("{} failed: {} ({status})", step.name, step.command.join(" "));
        }
        println!("== {}: done in {:.0} s", step.name, started.elapsed().as_secs_f64());
    }
    println!("== all {} steps done in {:.0} s", steps.len(), begun.elapsed().as_secs_f64());
    Ok(())
}

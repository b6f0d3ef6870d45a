//! The project's own commands. `cargo xtask test` is what CI runs, and what the README names.

mod install;
mod layout;
mod models;
mod steps;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "ringtap's own commands: checks, tests, documents that are made from the code")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Formats, lints, tests, counts: everything that CI runs, in the same order.
    Test,
    /// Formats, lints and unit tests alone: the loop while you write.
    Quick,
    /// Runs the ring's models under loom, then takes away each memory ordering and expects a test to notice.
    Loom,
    /// Builds the C library and puts it, its header and ringtap.pc where compilers find them.
    InstallCapi {
        /// The directory that gets lib and include.
        #[arg(long, default_value = "/usr/local")]
        prefix: std::path::PathBuf,
        /// Take the libraries from this directory instead of building them.
        #[arg(long)]
        built: Option<std::path::PathBuf>,
    },
    /// Prints each offset of the shared memory into docs/layout.txt, so that a change shows as a difference.
    Layout {
        /// Compare instead of writing, and fail where they differ.
        #[arg(long)]
        check: bool,
    },
}

fn main() -> Result<()> {
    match Args::parse().command {
        Command::Test => steps::run(steps::ALL),
        Command::Quick => steps::run(steps::QUICK),
        Command::Loom => models::run(),
        Command::InstallCapi { prefix, built } => install::run(&prefix, built),
        Command::Layout { check } => layout::run(check),
    }
}

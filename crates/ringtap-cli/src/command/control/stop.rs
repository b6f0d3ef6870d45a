//! `ringtap stop`: switches recording off; events and settings stay.

use crate::outcome::Outcome;
use crate::remote;
use anyhow::Result;

const EXAMPLES: &str = "\
Examples:
  Stop, and look at what is there:     ringtap stop && ringtap show
  Go on:                               ringtap start
  All instances:                       ringtap stop --all";

/// What was typed.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    host: remote::Args,
    /// Stop all instances
    #[arg(short, long, conflicts_with = "instance")]
    all: bool,
}

/// Switches off.
///
/// # Errors
/// There is no host or no such instance.
pub fn run(args: &Args) -> Result<Outcome> {
    args.host.open()?.visit(args.all, |remote| remote.set_recording(false))?;
    Ok(Outcome::Done)
}

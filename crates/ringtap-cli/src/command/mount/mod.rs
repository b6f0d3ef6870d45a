//! `ringtap mount`: a host's tree under a directory.

use super::serve::{self, buffers, parse_ownership};
use crate::outcome::Outcome;
use anyhow::Result;
use ringtap_daemon::fs::Ownership;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  In one terminal:    ringtap mount /tmp/tracing
  In another:         echo hello > /tmp/tracing/trace_marker; cat /tmp/tracing/trace

Tools that look for the kernel's tracefs find the tree with `ringtap exec`.";

/// What was typed.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Where
    directory: PathBuf,
    /// Let applications attach on this socket; without it, on `default.sock` of the user's runtime directory
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Who owns the files, and the mode of the directory, as tracefs takes them: uid=, gid=, mode=
    #[arg(short, long, value_name = "OPTIONS", default_value = "", value_parser = parse_ownership, hide_default_value = true)]
    options: Ownership,
    #[command(flatten)]
    buffers: buffers::Args,
}

/// Shows the tree until we are asked to stop.
///
/// # Errors
/// As [`serve::run`].
pub fn run(args: &Args) -> Result<Outcome> {
    serve::until_stopped(
        (&args.buffers.config()?, args.options),
        Some(&args.directory),
        args.socket.as_deref(),
        None,
    )
}

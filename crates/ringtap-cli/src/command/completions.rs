//! `ringtap completions`: a script that makes a shell complete our command line.

use crate::outcome::Outcome;
use crate::output::Output;
use anyhow::Result;
use clap_complete::Shell;
use std::io::Write;

const EXAMPLES: &str = "\
Examples:
  Try it in this bash:    source <(ringtap completions bash)
  Install it for zsh:     ringtap completions zsh > /usr/local/share/zsh/site-functions/_ringtap
  Install it for fish:    ringtap completions fish > ~/.config/fish/completions/ringtap.fish";

/// What was typed.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The shell to write it for
    shell: Shell,
}

/// Prints the script for `program`, our own definition.
///
/// # Errors
/// It cannot be written.
pub fn run(args: &Args, mut program: clap::Command, output: &mut Output) -> Result<Outcome> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut program, "ringtap", &mut script);
    output.write_all(&script)?;
    Ok(Outcome::Done)
}

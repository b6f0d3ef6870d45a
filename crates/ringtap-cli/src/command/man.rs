//! `ringtap man`: the manual, made from the same definitions as the help.

use crate::misuse;
use crate::outcome::Outcome;
use crate::output::Output;
use anyhow::Result;
use std::io::Write;

const EXAMPLES: &str = "\
Examples:
  Read it now:             ringtap man | man -l -
  Read about one command:  ringtap man stat | man -l -
  Install it:              ringtap man > /usr/local/share/man/man1/ringtap.1";

/// What was typed.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The subcommand to describe; without it, the whole program
    command: Option<String>,
}

/// Prints the page of `program`, our own definition.
///
/// # Errors
/// There is no such subcommand, or the page cannot be written.
pub fn run(args: &Args, mut program: clap::Command, output: &mut Output) -> Result<Outcome> {
    // Gives the subcommands their full names, and the global options.
    program.build();
    let described = match &args.command {
        None => program,
        Some(name) => page_of(&program, name)?,
    };
    let mut page = Vec::new();
    clap_mangen::Man::new(described).render(&mut page)?;
    output.write_all(&page)?;
    Ok(Outcome::Done)
}

fn page_of(program: &clap::Command, name: &str) -> Result<clap::Command> {
    let visible = || program.get_subcommands().filter(|command| !command.is_hide_set());
    let known = || visible().map(clap::Command::get_name).collect::<Vec<_>>().join(", ");
    match visible().find(|command| command.get_name() == name) {
        Some(command) => Ok(command.clone()),
        None => misuse!("there is no command '{name}'; there are {}", known()),
    }
}

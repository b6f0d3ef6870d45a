//! `ringtap instance`: named sets of buffers.

use crate::outcome::Outcome;
use crate::output::Output;
use crate::remote::{self, parse_instance};
use anyhow::Result;
use serde::Serialize;
use std::io::Write as _;

const EXAMPLES: &str = "\
Examples:
  Make one with events of its own:     ringtap instance add slow && ringtap start -B slow -e app:slow
  Which there are:                     ringtap instance list
  Remove it and what it holds:         ringtap instance rm slow";

/// What was typed.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    host: remote::Args,
    #[command(subcommand)]
    action: Action,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Action {
    /// Make instances
    Add {
        /// Their names
        #[arg(required = true, value_name = "NAME", value_parser = parse_instance)]
        names: Vec<String>,
    },
    /// Remove instances, with what they hold
    Rm {
        /// Their names
        #[arg(required = true, value_name = "NAME", value_parser = parse_instance)]
        names: Vec<String>,
    },
    /// List the instances that have a name
    List {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

#[derive(Serialize)]
struct Listed {
    instances: Vec<String>,
}

/// Makes, removes or lists instances.
///
/// # Errors
/// There is no host; there is one or none of a name.
pub fn run(args: &Args, output: &mut Output) -> Result<Outcome> {
    let remote = args.host.connect()?;
    match &args.action {
        Action::Add { names } => names.iter().try_for_each(|name| remote.make_instance(name))?,
        Action::Rm { names } => names.iter().try_for_each(|name| remote.remove_instance(name))?,
        Action::List { json: true } => output.json_line(&Listed { instances: remote.instances()? })?,
        Action::List { json: false } => {
            for name in remote.instances()? {
                writeln!(output, "{name}")?;
            }
        }
    }
    Ok(Outcome::Done)
}

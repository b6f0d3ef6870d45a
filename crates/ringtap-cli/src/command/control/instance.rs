//! `ringtap instance`: named sets of buffers.

use crate::outcome::Outcome;
use crate::output::Output;
use crate::remote::{self, Remote, parse_instance};
use anyhow::Result;
use serde::Serialize;
use std::collections::BTreeSet;
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
        Action::Add { names } => add(&remote, names)?,
        Action::Rm { names } => remove(&remote, names)?,
        Action::List { json: true } => output.json_line(&Listed { instances: remote.instances()? })?,
        Action::List { json: false } => {
            for name in remote.instances()? {
                writeln!(output, "{name}")?;
            }
        }
    }
    Ok(Outcome::Done)
}

/// Makes all of them or none.
fn add(remote: &Remote, names: &[String]) -> Result<()> {
    for (made, name) in names.iter().enumerate() {
        remote.make_instance(name).inspect_err(|_| {
            // What fails now is gone, or in use already: its maker's affair.
            names[..made].iter().for_each(|name| drop(remote.remove_instance(name)));
        })?;
    }
    Ok(())
}

/// Removes all of them, or none where one is missing. One that is in use stays, and those behind it.
fn remove(remote: &Remote, names: &[String]) -> Result<()> {
    let instances = remote.instances()?;
    if let Some(missing) = names.iter().find(|name| !instances.contains(name)) {
        return remote::no_instance(missing, &instances);
    }
    let names: BTreeSet<_> = names.iter().collect();
    names.into_iter().try_for_each(|name| remote.remove_instance(name))
}

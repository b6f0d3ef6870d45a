//! `ringtap list`: what a host has: events, options, clocks, formats.

use crate::misuse;
use crate::outcome::Outcome;
use crate::output::{EVENT, FAINT, Output};
use crate::remote::{self, Remote, is_programs_own};
use anyhow::{Result, bail};
use serde::Serialize;
use std::io::Write as _;

const EXAMPLES: &str = "\
Examples:
  Declared events, and which are on:   ringtap list
  The fields of some:                  ringtap list -F app:read
  Settings:                            ringtap list -o
  Clocks, the present one in brackets: ringtap list -C";

/// What was typed.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
#[command(group = clap::ArgGroup::new("what").args(["options", "clocks", "formats"]))]
pub struct Args {
    #[command(flatten)]
    host: remote::Args,
    /// List the options and what they are set to
    #[arg(short, long)]
    options: bool,
    /// List the clocks
    #[arg(short = 'C', long)]
    clocks: bool,
    /// Print the format files of the events with this name, or of this system
    #[arg(short = 'F', long = "format", value_name = "EVENT")]
    formats: Option<String>,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Event<'a> {
    system: &'a str,
    event: &'a str,
    id: u32,
    /// `None` where the host does not say.
    on: Option<bool>,
    filter: Option<String>,
}

#[derive(Serialize)]
struct Setting<'a> {
    option: &'a str,
    value: &'a str,
}

/// Prints the list.
///
/// # Errors
/// There is no host or no such instance or event.
pub fn run(args: &Args, output: &mut Output) -> Result<Outcome> {
    let remote = args.host.open()?;
    if args.clocks {
        writeln!(output, "{}", remote.read("trace_clock")?.trim_end())?;
    } else if args.options {
        options(&remote, args.json, output)?;
    } else if let Some(name) = &args.formats {
        formats(&remote, name, output)?;
    } else {
        events(&remote, args.json, output)?;
    }
    Ok(Outcome::Done)
}

fn events(remote: &Remote, json: bool, output: &mut Output) -> Result<()> {
    let declared = match remote.events() {
        // A program's own host has no files.
        Err(error) if is_programs_own(&error) => return of_program(remote, json, output),
        declared => declared?,
    };
    for (system, event) in declared {
        let folder = format!("events/{system}/{event}");
        let on = remote.read(&format!("{folder}/enable"))?.starts_with('1');
        let filter = remote.read(&format!("{folder}/filter"))?;
        let filter = filter.trim_end();
        // A refused filter is shown with what is wrong with it, and is not in force.
        let refused = filter.rsplit_once("\nparse_error: ").map(|(_, why)| why.to_owned());
        let filter = Some(filter.to_owned()).filter(|filter| filter != "none" && !filter.contains('\n'));
        if json {
            let id = remote.read(&format!("{folder}/id"))?.trim().parse()?;
            output.json_line(&Event { system: &system, event: &event, id, on: Some(on), filter })?;
            continue;
        }
        let mark = if on { "on " } else { "off" };
        write!(output, "{FAINT}{mark}{FAINT:#} {system}:{EVENT}{event}{EVENT:#}")?;
        match (filter, refused) {
            (Some(filter), _) => writeln!(output, " {FAINT}if{FAINT:#} {filter}")?,
            (None, Some(why)) => {
                writeln!(output, " {FAINT}not filtered, as its filter was refused: {why}{FAINT:#}")?
            }
            (None, None) => writeln!(output)?,
        }
    }
    if json {
        return Ok(());
    }
    for pattern in remote.read_if_there("awaited_events")?.unwrap_or_default().lines() {
        writeln!(output, "{FAINT}on  as soon as it is declared:{FAINT:#} {pattern}")?;
    }
    for rule in remote.read_if_there("event_rules")?.unwrap_or_default().lines() {
        writeln!(output, "{FAINT}for what will be declared:{FAINT:#}     {rule}")?;
    }
    Ok(())
}

/// The events of a program that is its own host.
fn of_program(remote: &Remote, json: bool, output: &mut Output) -> Result<()> {
    for ringtap::event::registry::Event { system, name, id, .. } in remote.declared()? {
        if json {
            let (system, event, id) = (&system, &name, id.into());
            output.json_line(&Event { system, event, id, on: None, filter: None })?;
        } else {
            writeln!(output, "{system}:{EVENT}{name}{EVENT:#}")?;
        }
    }
    Ok(())
}

fn options(remote: &Remote, json: bool, output: &mut Output) -> Result<()> {
    for option in remote.list("options")? {
        let value = remote.read(&format!("options/{option}"))?;
        let value = value.trim_end();
        if json {
            output.json_line(&Setting { option: &option, value })?;
        } else {
            writeln!(output, "options/{option}={value}")?;
        }
    }
    Ok(())
}

fn formats(remote: &Remote, wanted: &str, output: &mut Output) -> Result<()> {
    let pattern: ringtap::instance::Pattern = match wanted.parse() {
        Ok(pattern) => pattern,
        Err(error) => misuse!("'{wanted}' names no event: {error}"),
    };
    let mut found = false;
    for (system, event) in remote.events()?.iter().filter(|(system, event)| pattern.names(system, event)) {
        found = true;
        writeln!(output, "system: {system}")?;
        writeln!(output, "{}", remote.read(&format!("events/{system}/{event}/format"))?)?;
    }
    if !found {
        bail!("no event is called {wanted}; `ringtap list` shows which there are");
    }
    Ok(())
}

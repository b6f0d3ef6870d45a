//! `ringtap set`: settings of an instance, without starting it.

use super::changes::{Changes, check_clock};
use super::choices::Choices;
use crate::command::serve::buffers::parse_subbuf_kib;
use crate::misuse;
use crate::outcome::Outcome;
use crate::remote::{self, Remote};
use anyhow::{Context, Result};

const EXAMPLES: &str = "\
Examples:
  Larger buffers, another clock:       ringtap set -b 8192 -C mono
  Only large reads:                    ringtap set -e app:read -f 'bytes > 4096'
  Any file of a tracefs:               ringtap set buffer_percent=0 options/overwrite=0
  One process, and all that it makes:  ringtap set -P 4711 -c
  What there is to set:                ringtap list -o

Filters and triggers are kept for events that nobody has declared yet, and a pattern's filter counts for
those of its events that have the fields. Where one of several settings is refused, none is made.";

/// Settings that `start` takes, too.
#[derive(Clone, Debug, clap::Args)]
#[group(id = "settings")]
pub struct Settings {
    #[command(flatten)]
    pub(super) events: Choices,
    /// Size of each CPU's buffer, in KiB
    #[arg(short, long, value_name = "KIB", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) buffer_size: Option<u32>,
    /// Size of a sub-buffer, in KiB: a power of two from 4 to 512
    #[arg(long, value_name = "KIB", value_parser = parse_subbuf_kib)]
    pub(super) subbuf_size: Option<u32>,
    /// The clock: see `ringtap list -C`
    #[arg(short = 'C', long, value_name = "CLOCK")]
    pub(super) clock: Option<String>,
    /// Only the events of these threads
    #[arg(short = 'P', long = "pid", value_name = "PID", value_delimiter = ',')]
    pub(super) pids: Vec<u32>,
    /// Also the events of all that these threads make from now on, threads and processes
    #[arg(short = 'c', long, requires = "pids")]
    pub(super) children: bool,
    /// Other settings, as files of a tracefs
    #[arg(value_name = "FILE=VALUE", value_parser = parse_setting)]
    pub(super) files: Vec<(String, String)>,
}

fn parse_setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((file, value))
            if !file.is_empty() && !file.starts_with('/') && !file.split('/').any(|part| part == "..") =>
        {
            Ok((file.to_owned(), value.to_owned()))
        }
        _ => Err("write FILE=VALUE, such as buffer_percent=0".to_owned()),
    }
}

/// What was typed.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    host: remote::Args,
    #[command(flatten)]
    settings: Settings,
}

impl Settings {
    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
            && self.buffer_size.is_none()
            && self.subbuf_size.is_none()
            && self.clock.is_none()
            && self.pids.is_empty()
            && self.files.is_empty()
    }

    /// Makes all of them or none. What is likely to be refused comes first, and what loses events to be undone last.
    pub(super) fn make(&self, remote: &Remote, changes: &mut Changes<'_>, on: bool) -> Result<()> {
        let rules = self.events.lines(on)?;
        changes.check_rules(&rules)?;
        if let Some(clock) = &self.clock {
            check_clock(remote, clock)?;
        }
        for (file, value) in &self.files {
            changes.set(file, value)?;
        }
        if self.children {
            changes.set("options/event-fork", "1")?;
        }
        if !self.pids.is_empty() {
            let pids: Vec<String> = self.pids.iter().map(u32::to_string).collect();
            changes.set("set_event_pid", &pids.join(" "))?;
        }
        let numbers = [("buffer_subbuf_size_kb", self.subbuf_size), ("buffer_size_kb", self.buffer_size)];
        for (file, number) in numbers {
            if let Some(number) = number {
                changes.set(file, &number.to_string())?;
            }
        }
        if let Some(clock) = &self.clock {
            changes.set("trace_clock", clock)?;
        }
        changes.rules(&rules)
    }

    /// Tells the user what he may not expect of the settings that were made.
    pub(super) fn tell(&self, remote: &Remote, on: bool) -> Result<()> {
        for note in self.events.notes(remote, on)? {
            anstream::eprintln!("ringtap: {note}");
        }
        Ok(())
    }
}

/// Makes the settings.
///
/// # Errors
/// There is no host or no such instance, or a setting is refused; then none is made.
pub fn run(args: &Args) -> Result<Outcome> {
    if args.settings.is_empty() {
        misuse!("nothing to set: name a setting, see `ringtap set --help`");
    }
    let remote = args.host.open()?;
    args.settings.make(&remote, &mut Changes::new(&remote), false).context("cannot make these settings")?;
    args.settings.tell(&remote, false)?;
    Ok(Outcome::Done)
}

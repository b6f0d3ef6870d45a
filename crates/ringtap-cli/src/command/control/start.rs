//! `ringtap start`: switches events and recording on, and leaves them on.

use super::changes::Changes;
use super::set::Settings;
use crate::outcome::Outcome;
use crate::remote;
use anyhow::{Context, Result};

const EXAMPLES: &str = "\
Examples:
  All events of a program:             ringtap start -e app:*
  Some of one event:                   ringtap start -e app:read -f 'bytes > 4096'
  Into buffers of their own:           ringtap start -B slow -b 8192 -e app:slow_request
  Until something happens:             ringtap start -e app:* -e app:error -R traceoff
  Then:                                ringtap show;  ringtap stop;  ringtap reset

The instance of -B is made where there is none. Events that nobody has declared yet are on, filtered and
with their triggers as soon as a program declares them; a pattern's filter counts for those of its events
that have the fields. Where one of several settings is refused, none is made.";

/// What was typed.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    host: remote::Args,
    #[command(flatten)]
    settings: Settings,
}

/// Switches on.
///
/// # Errors
/// There is no host, or a setting is refused; then nothing is changed.
pub fn run(args: &Args) -> Result<Outcome> {
    let remote = args.host.connect()?;
    let made = match remote.instance() {
        Some(name) if !remote.has_instance()? => {
            remote.make_instance(name)?;
            Some(name.to_owned())
        }
        _ => None,
    };
    let started = if args.settings.is_empty() {
        remote.set_recording(true)
    } else {
        let mut changes = Changes::new(&remote);
        args.settings.make(&remote, &mut changes, true).and_then(|()| changes.set("tracing_on", "1"))
    };
    if let (Err(_), Some(name)) = (&started, made) {
        // Nothing is left of what failed.
        let _ = remote.remove_instance(&name);
    }
    started.context("cannot start")?;
    args.settings.tell(&remote, true)?;
    Ok(Outcome::Done)
}

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

The instance of -B is made where there is none. Events that nobody has declared yet are on as soon as
a program declares them. Where one of several settings is refused, none is made.";

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
    let mut changes = Changes::new(&remote);
    let started = args.settings.make(&remote, &mut changes, true).and_then(|awaited| {
        changes.set("tracing_on", "1")?;
        Ok(awaited)
    });
    let awaited = match (started, made) {
        (Err(error), Some(name)) => {
            // Nothing is left of what failed.
            let _ = remote.remove_instance(&name);
            return Err(error).context("cannot start");
        }
        (started, _) => started.context("cannot start")?,
    };
    for event in awaited {
        anstream::eprintln!(
            "ringtap: {event} is not declared yet; it is on as soon as a program declares it"
        );
    }
    Ok(Outcome::Done)
}

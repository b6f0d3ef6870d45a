//! `ringtap show`: what the buffers hold, as text; it stays there.

use crate::outcome::Outcome;
use crate::output::Output;
use crate::remote::{self, errno};
use anyhow::{Result, bail};
use rustix::io::Errno;

const EXAMPLES: &str = "\
Examples:
  What was recorded, oldest first:     ringtap show
  Of one CPU:                          ringtap show -c 1
  A snapshot:                          ringtap show --snapshot
  Any file of a tracefs:               ringtap show -f events/app/read/hist
  Live:                                ringtap stream --attach SOCKET";

/// What was typed.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    host: remote::Args,
    /// Show one CPU's buffer
    #[arg(short, long, value_name = "CPU")]
    cpu: Option<u32>,
    /// Show the snapshot
    #[arg(short, long)]
    snapshot: bool,
    /// Show this file of the instance instead
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["cpu", "snapshot"])]
    file: Option<String>,
}

/// Prints it.
///
/// # Errors
/// There is no host or no such instance, CPU or file.
pub fn run(args: &Args, output: &mut Output) -> Result<Outcome> {
    let remote = args.host.open()?;
    let name = if args.snapshot { "snapshot" } else { "trace" };
    let file = match (&args.file, args.cpu) {
        (Some(file), _) => file.clone(),
        (None, Some(cpu)) => format!("per_cpu/cpu{cpu}/{name}"),
        (None, None) => name.to_owned(),
    };
    let shown = remote.read_to(&file, |bytes| Ok(output.write_as_is(bytes)?));
    let Err(error) = shown else { return Ok(Outcome::Done) };
    match (errno(&error), args.cpu) {
        (Some(Errno::NOENT), Some(cpu)) => remote.no_cpu(cpu),
        (Some(Errno::NOENT), None) => {
            bail!("there is no file {file}: name it as in a tracefs, such as set_event")
        }
        (Some(Errno::ISDIR), _) => bail!("'{file}' is a folder: name a file in it"),
        (Some(Errno::AGAIN), _) => {
            bail!("{file} has nothing to be read now, and is not waited for: `ringtap stream` waits")
        }
        _ => Err(error),
    }
}

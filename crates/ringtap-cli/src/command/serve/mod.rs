//! `ringtap serve`: a host that others attach to, and whose buffers are files.

pub mod buffers;
mod host;

use crate::outcome::Outcome;
use crate::signals::Signals;
use anyhow::{Context, Result, bail};
use host::On;
use ringtap::Config;
use ringtap_daemon::fs::{Mount, Ownership, Tree};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  A tracefs of applications' events:   ringtap serve --mount /tmp/tracing
  With a socket of its own:            ringtap serve --mount /tmp/tracing --socket /run/app/ringtap.sock
  A socket only:                       ringtap serve --socket /run/app/ringtap.sock
  Buffers that survive a crash:        ringtap serve --directory /var/lib/ringtap
  Files that group 100 may read:       ringtap serve --mount /tmp/tracing -o gid=100,mode=750

Applications find the socket in RINGTAP_SOCKET. It runs until Ctrl-C or SIGTERM, and leaves nothing
mounted. Where it was killed, programs that are attached trace on; the next one on the same socket goes
on with their buffers, instances and settings, and takes away what is left on the same directory.
Started by systemd for a .socket unit, it serves on the socket that it is passed.";

/// How often it is looked whether we are to stop, or were unmounted.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// What was typed.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Show the buffers as a tracefs under this directory
    #[arg(long, value_name = "DIR")]
    mount: Option<PathBuf>,
    /// Let applications attach on this socket; without it, on `default.sock` of the user's runtime directory
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Let the members of this group attach, and command, as this user does: a name or a number
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// Who owns the files, and the mode of the directory, as tracefs takes them: uid=, gid=, mode=
    #[arg(short, long, value_name = "OPTIONS", default_value = "", value_parser = parse_ownership, hide_default_value = true)]
    options: Ownership,
    /// Keep the top instance's buffers as files in this directory, for `ringtap recover` after a crash; those of the run
    /// before are in its folder `last`, until the next start
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    #[command(flatten)]
    buffers: buffers::Args,
}

/// Parses tracefs's mount options. Who starts the program owns the files unless they say otherwise.
///
/// # Errors
/// What is wrong, for the user.
pub fn parse_ownership(text: &str) -> Result<Ownership, String> {
    let mut ownership = Ownership {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        ..Ownership::default()
    };
    for option in text.split(',').filter(|option| !option.is_empty()) {
        let (name, value) = option.split_once('=').ok_or_else(|| format!("'{option}' has no value"))?;
        let number = || value.parse().map_err(|_| format!("'{value}' is no number"));
        match name {
            "uid" => ownership.uid = number()?,
            "gid" => ownership.gid = number()?,
            "mode" => {
                let mode = u16::from_str_radix(value, 8).ok().filter(|mode| *mode <= 0o7777);
                ownership.mode = mode.ok_or_else(|| format!("'{value}' is no octal mode"))?;
            }
            _ => return Err(format!("there is no option '{name}': use uid=, gid= and mode=")),
        }
    }
    Ok(ownership)
}

/// Serves until we are asked to stop.
///
/// # Errors
/// The directory, the socket or the memory cannot be had; or somebody unmounted the directory.
pub fn run(args: &Args) -> Result<Outcome> {
    let Args { mount, socket, group, options, directory, buffers } = args;
    let config = Config { directory: directory.clone(), ..buffers.config()? };
    until_stopped((&config, *options), mount.as_deref(), socket.as_deref(), group.as_deref())
}

/// Serves a host with these buffers until we are asked to stop.
///
/// # Errors
/// As [`run`].
pub fn until_stopped(
    (config, ownership): (&Config, Ownership),
    directory: Option<&Path>,
    socket: Option<&Path>,
    group: Option<&str>,
) -> Result<Outcome> {
    // Not where a host that was killed left its mount, of which nothing can be told.
    let is_missing = |path: &&Path| match path.metadata() {
        Ok(metadata) => !metadata.is_dir(),
        Err(error) => matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory),
    };
    if let Some(missing) = directory.filter(is_missing) {
        bail!("there is no directory {} to mount on: make it first", missing.display());
    }
    let group = group.map(find_group).transpose()?;
    let signals = Signals::catch().context("cannot catch signals")?;
    let on = match (ringtap::serve::passed_socket().context("cannot serve")?, socket) {
        (Some(passed), None) => On::Passed(passed),
        (Some(_), Some(_)) => bail!("a socket was passed to serve on: leave --socket out"),
        (None, Some(socket)) => On::Path(socket.to_owned()),
        (None, None) => On::Path(ringtap::serve::default_path("default").context("cannot choose a socket")?),
    };
    let (tree, server) = host::serve(config, ownership, on, group)?;
    let mount = directory.map(|directory| mounted(&tree, directory)).transpose()?;
    anstream::eprintln!("ringtap: applications attach with RINGTAP_SOCKET={}", server.path().display());
    loop {
        signals.sleep(LOOK_AGAIN);
        if let Some(signal) = signals.caught() {
            return Ok(Outcome::Stopped(signal));
        }
        if let Some(mount) = mount.as_ref().filter(|mount| !mount.is_mounted()) {
            bail!("somebody unmounted {}", mount.path().display());
        }
    }
}

/// The number of a group, as `/etc/group` says it.
fn find_group(group: &str) -> Result<u32> {
    if let Ok(number) = group.parse() {
        return Ok(number);
    }
    let groups = std::fs::read_to_string("/etc/group").context("cannot read /etc/group")?;
    let number = groups.lines().find_map(|line| {
        let mut parts = line.split(':');
        (parts.next() == Some(group)).then(|| parts.nth(1)?.parse().ok()).flatten()
    });
    number.with_context(|| format!("there is no group {group}: see /etc/group, or use its number"))
}

/// Mounts a tree, and says what clients cannot do with it.
///
/// # Errors
/// As [`Mount::new`].
pub fn mounted(tree: &Tree, directory: &Path) -> Result<Mount> {
    let mount = Mount::new(tree, directory)?;
    warn_if_unmappable(&mount);
    Ok(mount)
}

/// Says that clients must read, where they cannot map.
pub fn warn_if_unmappable(mount: &Mount) {
    if !mount.can_map() {
        anstream::eprintln!(
            "ringtap: clients read trace_pipe_raw and cannot map it: that needs root outside of user namespaces, and Linux 6.9"
        );
    }
}

//! `ringtap exec`: runs a command in a private view of the machine, in which ringtap's buffers are the tracefs.

use super::serve::{buffers, warn_if_unmappable};
use crate::child::Running;
use crate::outcome::Outcome;
use crate::private::Folder;
use crate::programs;
use crate::signals::Signals;
use anyhow::{Context, Result};
use ringtap::attach::SOCKET_VARIABLE;
use ringtap_daemon::fs::{Namespace, Ownership};
use std::ffi::OsString;
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  Record an application's events:      ringtap exec trace-cmd record -e myapp:* ./myapp
  Look around:                         ringtap exec sh -c 'ls /sys/kernel/tracing'
  With larger buffers:                 ringtap exec --buffer-size 8192 -- trace-cmd record -e myapp:* ./myapp

COMMAND, and what it starts, find ringtap's buffers at /sys/kernel/tracing and
/sys/kernel/debug/tracing, and in RINGTAP_SOCKET the socket that applications attach to. Nobody else
sees any of it, and all of it goes when COMMAND ends, whose exit status is passed on. Without root it
needs a user namespace and access to /dev/fuse; COMMAND then runs as root of that namespace, and
clients read trace_pipe_raw instead of mapping it.";

/// How often it is looked whether the command has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What was typed.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    buffers: buffers::Args,
    /// The command and its arguments
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true)]
    command: Vec<OsString>,
}

/// Runs the command.
///
/// # Errors
/// The namespace, the tree or the command cannot be had.
pub fn run(args: &Args) -> Result<Outcome> {
    // While there is one thread: a user namespace is entered by all of them or none.
    let namespace = Namespace::enter()?;
    let signals = Signals::catch().context("cannot catch signals")?;
    let folder = Folder::new()?;
    let tree = args.buffers.tree(Ownership::default())?;
    let mount = namespace.show(&tree, folder.path())?;
    warn_if_unmappable(&mount);
    if !namespace.is_found() {
        anstream::eprintln!(
            "ringtap: tools that search /proc/mounts for a tracefs will not find one: the kernel's is not mounted on \
             /sys/kernel/tracing, which takes root"
        );
    }
    programs::declare(tree.control().instances(), &args.command);
    let server = tree.serve(folder.socket(), None).context("cannot serve")?;
    let socket = server.path().as_os_str().to_owned();
    let mut command = Running::start_held(&args.command, &[(SOCKET_VARIABLE, socket)])?;
    command.begin()?;
    loop {
        if let Some(status) = command.ended()? {
            return Ok(Outcome::of_command(status, signals.caught()));
        }
        // When it ends is the command's business: trace-cmd writes its file then.
        command.heed(&signals);
        signals.sleep(LOOK_AGAIN);
    }
}

//! The host that is served: made anew, or taken over from one that was killed.

use anyhow::{Context, Result};
use ringtap::Config;
use ringtap::serve::{self, Peer, Server, TreeCall, TreeRefusal};
use ringtap_daemon::control::Control;
use ringtap_daemon::fs::{Ownership, Socket, Tree};
use rustix::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

/// The tree of instances that are not there yet: a host that starts is connected to before it has any.
#[derive(Debug, Default)]
struct Later(OnceLock<Socket>);

impl serve::Tree for Later {
    fn call(&self, peer: Peer, path: &str, call: TreeCall<'_>) -> Result<Vec<u8>, TreeRefusal> {
        self.0.wait().call(peer, path, call)
    }
}

/// What a host is served on.
#[derive(Debug)]
pub(super) enum On {
    /// A socket of its own, at this path.
    Path(PathBuf),
    /// One that listens already.
    Passed(OwnedFd),
}

/// Serves a host on a socket: the one that was killed there, where processes that are attached live, else a new one.
/// What could not be restored is said.
///
/// # Errors
/// The socket or the memory cannot be had.
pub(super) fn serve(
    config: &Config,
    ownership: Ownership,
    on: On,
    group: Option<u32>,
) -> Result<(Tree, Server)> {
    let later = Arc::new(Later::default());
    let tree = Arc::clone(&later) as Arc<dyn serve::Tree>;
    let options = serve::Options { group, tree: Some(tree), ..serve::Options::default() };
    let served = match on {
        On::Path(socket) => serve::take_over(socket, config, options),
        On::Passed(socket) => serve::take_over_passed(socket, config, options),
    };
    let (instances, server) = served.context("cannot serve")?;
    let is_taken_over = instances.saved_settings().is_some();
    let control = Control::new(instances);
    if is_taken_over {
        anstream::eprintln!("ringtap: took over the buffers of a host that was killed here, as they are");
    }
    if let Some(directory) =
        config.directory.as_deref().filter(|_| !control.instances().top().is_persistent())
    {
        anstream::eprintln!("ringtap: they are not in {}, which stays as it is", directory.display());
    }
    for what in control.not_restored() {
        anstream::eprintln!("ringtap: not restored: {what}");
    }
    let tree = Tree::new(control, ownership);
    // It is set once.
    let socket = Socket::new(tree.clone());
    let _ = later.0.set(if group.is_some() { socket.with_members() } else { socket });
    Ok((tree, server))
}

//! The loop: one thread that waits for whatever comes first, and gives each client its share of a turn.

use super::Options;
use super::client::{Client, refuse};
use super::limits;
use super::socket::{self, Listener};
use super::tree::Tree;
use crate::instance::Instances;
use ringtap_abi::control::MAX_PACKET;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::SocketFlags;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest wait while there are clients: the clock's conversion must not grow old for them, and those that ran
/// out of patience must go.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

pub(super) struct Loop {
    instances: Instances,
    listener: Arc<Listener>,
    stop: Arc<OwnedFd>,
    /// Signalled when attached processes have to hear of something.
    news: Arc<OwnedFd>,
    clients: Vec<Client>,
    /// Who may attach, besides root.
    owner: u32,
    /// Whose members may attach, too.
    group: Option<u32>,
    tree: Option<Arc<dyn Tree>>,
    /// No connection is taken before.
    accept_after: Option<Instant>,
    /// Takes the largest packet.
    packet: Box<[u8]>,
}

/// What a turn has to do.
struct Ready {
    stop: bool,
    news: bool,
    listener: bool,
    /// As many as there are clients.
    clients: Vec<bool>,
}

impl Loop {
    pub(super) fn new(
        instances: Instances,
        options: Options,
        listener: Arc<Listener>,
        stop: Arc<OwnedFd>,
        news: Arc<OwnedFd>,
    ) -> Self {
        let Options { group, tree } = options;
        let owner = rustix::process::geteuid().as_raw();
        let packet = vec![0; MAX_PACKET].into();
        Self {
            instances,
            listener,
            stop,
            news,
            clients: Vec::new(),
            owner,
            group,
            tree,
            accept_after: None,
            packet,
        }
    }

    pub(super) fn run(mut self) {
        while self.turn() {}
    }

    /// One turn; `false` after the last.
    fn turn(&mut self) -> bool {
        let ready = match self.wait() {
            Ok(ready) => ready,
            Err(Errno::INTR) => return true,
            // Out of memory, say. Without a wait it would be tried again without a rest.
            Err(_) => {
                std::thread::sleep(limits::ACCEPT_PAUSE);
                return true;
            }
        };
        for (client, _) in self.clients.iter_mut().zip(&ready.clients).filter(|(_, ready)| **ready) {
            client.turn(&self.instances, self.tree.as_deref(), &mut self.packet);
        }
        if ready.news {
            // Whatever comes from here on is signalled again.
            let _ = rustix::io::read(&self.news, &mut [0; 8]);
            self.clients.iter_mut().for_each(|client| client.tell(&self.instances));
        }
        let now = Instant::now();
        self.clients.retain(|client| !client.is_over(now));
        if ready.listener {
            self.accept();
        }
        self.instances.calibrate();
        !ready.stop
    }

    fn wait(&mut self) -> Result<Ready, Errno> {
        let now = Instant::now();
        self.accept_after = self.accept_after.filter(|&after| after > now);
        let rest = self.accept_after.map(|after| after - now);
        let look_again = (!self.clients.is_empty()).then_some(LOOK_AGAIN);
        let timeout = rest.into_iter().chain(look_again).min().and_then(|wait| Timespec::try_from(wait).ok());
        let accepting = if rest.is_none() { PollFlags::IN } else { PollFlags::empty() };
        let mut fds = vec![
            PollFd::new(&*self.stop, PollFlags::IN),
            PollFd::new(&*self.news, PollFlags::IN),
            PollFd::new(&self.listener.socket, accepting),
        ];
        fds.extend(self.clients.iter().map(|client| PollFd::new(client, client.waits_for())));
        rustix::event::poll(&mut fds, timeout.as_ref())?;
        let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
        let stop = ready.next().unwrap_or(false);
        let news = ready.next().unwrap_or(false);
        let listener = ready.next().unwrap_or(false) && rest.is_none();
        Ok(Ready { stop, news, listener, clients: ready.collect() })
    }

    fn accept(&mut self) {
        for _ in 0..limits::ACCEPTS_PER_TURN {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            match rustix::net::accept_with(&self.listener.socket, flags) {
                Ok(socket) => self.admit(socket),
                // The client gave up, or a signal came.
                Err(Errno::CONNABORTED | Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => {
                    self.accept_after = Some(Instant::now() + limits::ACCEPT_PAUSE);
                    return;
                }
            }
        }
    }

    /// Makes a connection a client, or says why not.
    fn admit(&mut self, socket: OwnedFd) {
        let Ok(peer) = socket::peer(&socket) else { return };
        let is_member = || self.group.is_some_and(|group| socket::is_member(&socket, peer, group));
        if peer.uid != self.owner && peer.uid != 0 && !is_member() {
            let reason = format!(
                "user {} may not attach: this host serves user {} and root; run as one of them",
                peer.uid, self.owner
            );
            return refuse(&socket, Errno::ACCESS, &reason);
        }
        if self.clients.len() >= limits::CLIENTS {
            let reason =
                format!("this host has {} clients, which is all it takes: end some first", limits::CLIENTS);
            return refuse(&socket, Errno::USERS, &reason);
        }
        self.clients.push(Client::new(socket, peer));
    }
}

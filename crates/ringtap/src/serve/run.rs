//! The loop: one thread that waits for whatever comes first, and gives each client its share of a turn.
//!
//! It waits with epoll, so that a client that is idle costs its memory and nothing else, however many there are. Once a
//! second it looks for those that ran out of patience.

use super::Options;
use super::client::{Client, refuse};
use super::desk::Desk;
use super::limits;
use super::socket::{self, Listener};
use super::tree::Peer;
use crate::instance::{Instances, followers};
use crate::unshared::Unshared;
use ringtap_abi::control::MAX_PACKET;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{EventfdFlags, PollFlags, Timespec};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::SocketFlags;
use rustix::process::Resource;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest wait while there are clients: the clock's conversion must not grow old for them, and those that ran
/// out of patience must go.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What is ready in one turn, at most; the kernel lets those that were left out come first in the next.
const READY_PER_TURN: usize = 64;

/// Tell what is ready from the clients, which are told by their place.
const STOP: u64 = u64::MAX;
const NEWS: u64 = u64::MAX - 1;
const LISTENER: u64 = u64::MAX - 2;
const ANSWERS: u64 = u64::MAX - 3;

pub(super) struct Loop {
    instances: Instances,
    listener: Arc<Listener>,
    /// Signalled when attached processes have to hear of something.
    news: Arc<OwnedFd>,
    /// Signalled when the loop has to end. Kept, as the others, for as long as it is waited for.
    _stop: Arc<OwnedFd>,
    epoll: Unshared,
    clients: Vec<Option<Seat>>,
    /// How many of them there are.
    count: usize,
    /// How many there may be.
    limit: usize,
    /// Who may attach, besides root.
    owner: u32,
    /// Whose members may attach, too.
    group: Option<u32>,
    /// Answers calls on the tree, and signals the eventfd with it.
    desk: Option<(Desk, Arc<OwnedFd>)>,
    arrivals: Option<Arc<dyn Fn(Peer) + Send + Sync>>,
    /// No connection is taken before.
    accept_after: Option<Instant>,
    /// When those without patience were looked for last.
    looked: Instant,
    /// Takes the largest packet.
    packet: Box<[u8]>,
}

/// A client, and what the kernel was asked to tell of it.
struct Seat {
    client: Client,
    waits_for: PollFlags,
}

impl Loop {
    pub(super) fn new(
        instances: Instances,
        options: Options,
        listener: Arc<Listener>,
        stop: Arc<OwnedFd>,
        news: Arc<OwnedFd>,
    ) -> Result<Self, Errno> {
        let Options { group, tree, arrivals } = options;
        let epoll = Unshared::new(|| epoll::create(epoll::CreateFlags::CLOEXEC))?;
        for (fd, token) in [(stop.as_fd(), STOP), (news.as_fd(), NEWS), (listener.socket.as_fd(), LISTENER)] {
            epoll::add(&epoll, fd, EventData::new_u64(token), EventFlags::IN)?;
        }
        let desk = match tree {
            Some(tree) => {
                let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
                let done = Arc::new(rustix::event::eventfd(0, flags)?);
                epoll::add(&epoll, &done, EventData::new_u64(ANSWERS), EventFlags::IN)?;
                let desk = Desk::new(tree, Arc::clone(&done));
                Some((desk.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::AGAIN))?, done))
            }
            None => None,
        };
        Ok(Self {
            instances,
            listener,
            news,
            _stop: stop,
            epoll,
            clients: Vec::new(),
            count: 0,
            limit: clients_allowed(),
            owner: rustix::process::geteuid().as_raw(),
            group,
            desk,
            arrivals,
            accept_after: None,
            looked: Instant::now(),
            packet: vec![0; MAX_PACKET].into(),
        })
    }

    pub(super) fn run(mut self) {
        followers::this_thread_serves();
        let mut ready = Vec::with_capacity(READY_PER_TURN);
        while self.turn(&mut ready) {}
    }

    /// One turn; `false` after the last.
    fn turn(&mut self, ready: &mut Vec<epoll::Event>) -> bool {
        ready.clear();
        if let Err(errno) = self.wait(ready) {
            if errno != Errno::INTR {
                // Out of memory, say. Without a rest it would be tried again at once.
                std::thread::sleep(limits::ACCEPT_PAUSE);
            }
            return true;
        }
        let mut goes_on = true;
        for event in ready.iter() {
            match event.data.u64() {
                STOP => goes_on = false,
                NEWS => self.tell_all(),
                LISTENER => self.accept(),
                ANSWERS => self.answer_calls(),
                place => self.serve(usize::try_from(place).unwrap_or(usize::MAX)),
            }
        }
        if self.looked.elapsed() >= LOOK_AGAIN {
            self.looked = Instant::now();
            (0..self.clients.len()).for_each(|place| self.settle(place));
        }
        self.instances.calibrate();
        goes_on
    }

    fn wait(&mut self, ready: &mut Vec<epoll::Event>) -> Result<(), Errno> {
        let now = Instant::now();
        if self.accept_after.is_some_and(|after| after <= now) {
            self.accept_after = None;
            self.listen(EventFlags::IN)?;
        }
        let rest = self.accept_after.map(|after| after - now);
        let look_again = (self.count > 0).then_some(LOOK_AGAIN);
        let timeout = rest.into_iter().chain(look_again).min().and_then(|wait| Timespec::try_from(wait).ok());
        epoll::wait(&self.epoll, rustix::buffer::spare_capacity(ready), timeout.as_ref()).map(|_| ())
    }

    fn listen(&self, flags: EventFlags) -> Result<(), Errno> {
        epoll::modify(&self.epoll, &self.listener.socket, EventData::new_u64(LISTENER), flags)
    }

    /// Gives a client its share.
    fn serve(&mut self, place: usize) {
        if let Some(Some(seat)) = self.clients.get_mut(place) {
            let desk = self.desk.as_mut().map(|(desk, _)| desk);
            seat.client.turn(&self.instances, desk, place, &mut self.packet);
            self.settle(place);
        }
    }

    /// Answers those whose calls on the tree were done.
    fn answer_calls(&mut self) {
        let Some((desk, done)) = &self.desk else { return };
        // Whatever comes from here on is signalled again.
        let _ = rustix::io::read(done, &mut [0; 8]);
        for (ticket, answer) in desk.answers() {
            if let Some(Some(seat)) = self.clients.get_mut(ticket.place) {
                seat.client.end_call(ticket, answer);
                self.settle(ticket.place);
            }
        }
    }

    /// Answers all who wait for the next change.
    fn tell_all(&mut self) {
        // Whatever comes from here on is signalled again.
        let _ = rustix::io::read(&self.news, &mut [0; 8]);
        for place in 0..self.clients.len() {
            if let Some(seat) = &mut self.clients[place] {
                seat.client.tell(&self.instances);
                self.settle(place);
            }
        }
    }

    /// Parts from a client that is over; else has the kernel tell what it waits for now.
    fn settle(&mut self, place: usize) {
        let Some(seat) = &mut self.clients[place] else { return };
        let waits_for = seat.client.waits_for();
        if !seat.client.is_over(Instant::now()) {
            if seat.waits_for == waits_for {
                return;
            }
            let data = EventData::new_u64(place as u64);
            if epoll::modify(&self.epoll, &seat.client, data, flags(waits_for)).is_ok() {
                seat.waits_for = waits_for;
                return;
            }
        }
        // A forked child of the application may have the socket still: closing our copy would not take it off.
        let _ = epoll::delete(&self.epoll, &seat.client);
        self.clients[place] = None;
        self.count -= 1;
    }

    fn accept(&mut self) {
        for _ in 0..limits::ACCEPTS_PER_TURN {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            match Unshared::new(|| rustix::net::accept_with(&self.listener.socket, flags)) {
                Ok(socket) => self.admit(socket),
                // The client gave up, or a signal came.
                Err(Errno::CONNABORTED | Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => return self.pause(),
            }
        }
    }

    /// Takes no connection for a while.
    fn pause(&mut self) {
        if self.listen(EventFlags::empty()).is_ok() {
            self.accept_after = Some(Instant::now() + limits::ACCEPT_PAUSE);
        }
    }

    /// Why this peer can have no connection now, if so: there are no more, or it has its share.
    fn crowd(&self, peer: Peer) -> Option<String> {
        let limit = self.limit;
        if self.count >= limit {
            return Some(format!("this host has {limit} clients, which is all it takes: end some first"));
        }
        let count = |is_its: &dyn Fn(Peer) -> bool| {
            self.clients.iter().flatten().filter(|seat| is_its(seat.client.peer())).count()
        };
        // One that we cannot see has no number of its own.
        let share = (limit / limits::SHARE_OF_PROCESS).max(1);
        if peer.pid != 0 && count(&|other| other.pid == peer.pid) >= share {
            return Some(format!(
                "process {} has {share} connections to this host, which is all that one may have: end some first",
                peer.pid
            ));
        }
        let share = (limit / limits::SHARE_OF_MEMBER).max(1);
        let is_member = peer.uid != self.owner && peer.uid != 0;
        if is_member && count(&|other| other.uid == peer.uid) >= share {
            return Some(format!(
                "user {} has {share} connections to this host, which is all that one may have: end some first",
                peer.uid
            ));
        }
        None
    }

    /// Makes a connection a client, or says why not.
    fn admit(&mut self, socket: Unshared) {
        let Ok(peer) = socket::peer(&socket) else { return };
        let is_member = || self.group.is_some_and(|group| socket::is_member(&socket, peer, group));
        if peer.uid != self.owner && peer.uid != 0 && !is_member() {
            let members = self.group.map_or(String::new(), |group| format!(", the members of group {group}"));
            let reason = format!(
                "user {} may not attach: this host serves user {}{members} and root; run as one of them",
                peer.uid, self.owner
            );
            return refuse(&socket, Errno::ACCESS, &reason);
        }
        if let Some(reason) = self.crowd(peer) {
            return refuse(&socket, Errno::USERS, &reason);
        }
        if let Some(arrivals) = &self.arrivals {
            arrivals(peer);
        }
        let client = Client::new(socket, peer);
        let place = self.clients.iter().position(Option::is_none).unwrap_or(self.clients.len());
        let waits_for = client.waits_for();
        let data = EventData::new_u64(place as u64);
        if epoll::add(&self.epoll, &client, data, flags(waits_for)).is_err() {
            return;
        }
        if place == self.clients.len() {
            self.clients.push(None);
        }
        self.clients[place] = Some(Seat { client, waits_for });
        self.count += 1;
    }
}

/// As many clients as this process may have descriptors for, and a quarter of those for everything else.
fn clients_allowed() -> usize {
    let descriptors = rustix::process::getrlimit(Resource::Nofile).current;
    let descriptors = descriptors.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    limits::CLIENTS.min(descriptors - descriptors / 4).max(1)
}

fn flags(waits_for: PollFlags) -> EventFlags {
    match waits_for {
        PollFlags::OUT => EventFlags::OUT,
        PollFlags::IN => EventFlags::IN,
        _ => EventFlags::empty(),
    }
}

//! One connection: reads requests, and holds the one answer that could not be sent yet.

use super::desk::{Desk, Ticket};
use super::requests::{self, Answer, Cost, Session};
use super::tree::Peer;
use super::{limits, packet, socket};
use crate::instance::Instances;
use crate::unshared::Unshared;
use ringtap_abi::control::{Header, answer};
use rustix::event::PollFlags;
use rustix::fd::{AsFd, BorrowedFd};
use rustix::io::Errno;
use std::time::Instant;

#[derive(Debug)]
pub(super) struct Client {
    socket: Unshared,
    session: Session,
    /// Its socket was full. It is not read from before this is sent.
    unsent: Option<Answer>,
    /// The call on the tree that is being answered. It is not read from before that.
    call: Option<Ticket>,
    /// Descriptors sent since it had read all that was sent before.
    unread_descriptors: u32,
    /// When our patience with it ends: it has said no HELLO, or takes no answer.
    deadline: Option<Instant>,
    over: bool,
}

impl Client {
    pub(super) fn new(socket: Unshared, peer: Peer) -> Self {
        let deadline = Some(Instant::now() + limits::PATIENCE);
        let session = Session::new(peer);
        Self { socket, session, unsent: None, call: None, unread_descriptors: 0, deadline, over: false }
    }

    pub(super) fn peer(&self) -> Peer {
        self.session.peer()
    }

    /// Whether the connection is to be closed.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.over || self.deadline.is_some_and(|deadline| now >= deadline)
    }

    pub(super) fn waits_for(&self) -> PollFlags {
        match (&self.unsent, self.call) {
            (Some(_), _) => PollFlags::OUT,
            // Its end is told unasked.
            (None, Some(_)) => PollFlags::empty(),
            (None, None) => PollFlags::IN,
        }
    }

    /// Answers some requests. Calls on the tree go to the desk, as those of the client in this place.
    pub(super) fn turn(
        &mut self,
        instances: &Instances,
        mut desk: Option<&mut Desk>,
        place: usize,
        buffer: &mut [u8],
    ) {
        if self.call.is_some() {
            // We asked to be told of its end alone.
            self.over = true;
            return;
        }
        if let Some(unsent) = self.unsent.take() {
            self.send(unsent);
        }
        for _ in 0..limits::REQUESTS_PER_TURN {
            if self.over || self.unsent.is_some() {
                return;
            }
            let received = match packet::receive(&self.socket, buffer) {
                Ok(received) if received.len > 0 => received,
                Err(Errno::AGAIN) => return,
                // Closed, or an empty packet, which looks the same.
                Ok(_) | Err(_) => {
                    self.over = true;
                    return;
                }
            };
            let request = (!received.truncated).then(|| &buffer[..received.len]);
            if let Some(answer) = self.session.end_wait(instances) {
                self.send(answer);
            }
            if let Some(desk) = &mut desk
                && let Some(call) = requests::tree_call(&self.session, request)
            {
                self.call = Some(desk.take(place, call));
                return;
            }
            let (answer, cost) = requests::answer(instances, &mut self.session, request, received.descriptor);
            if let Some(answer) = answer {
                self.send(answer);
            }
            if cost == Cost::High {
                return;
            }
        }
    }

    /// Answers its call on the tree, if it is the one.
    pub(super) fn end_call(&mut self, ticket: Ticket, answer: Answer) {
        if self.call == Some(ticket) {
            self.call = None;
            self.send(answer);
        }
    }

    /// Answers a client that waits for the next change, if there was one.
    pub(super) fn tell(&mut self, instances: &Instances) {
        if let Some(answer) = self.session.take_news(instances) {
            self.send(answer);
        }
    }

    fn send(&mut self, mut answer: Answer) {
        if answer.descriptor.is_some() && !self.takes_descriptors() {
            answer = requests::unread_descriptors();
        }
        let descriptor = answer.descriptor.as_ref().and_then(requests::Descriptor::get);
        match packet::send(&self.socket, &answer.header, &answer.body, descriptor) {
            Ok(()) => {
                self.over |= answer.is_last;
                self.deadline = self.deadline.filter(|_| !self.session.is_open());
            }
            // This user's processes let too many descriptors lie in sockets.
            Err(Errno::TOOMANYREFS) => self.send(requests::no_room_for_descriptor()),
            Err(Errno::AGAIN) => {
                self.unsent = Some(answer);
                self.deadline.get_or_insert_with(|| Instant::now() + limits::PATIENCE);
            }
            Err(_) => self.over = true,
        }
    }
}

impl Client {
    /// Whether it reads what it is sent, as far as descriptors are concerned; and counts one more.
    fn takes_descriptors(&mut self) -> bool {
        if socket::unread(&self.socket) == 0 {
            self.unread_descriptors = 0;
        }
        self.unread_descriptors += 1;
        self.unread_descriptors <= limits::UNREAD_DESCRIPTORS
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Tells a connection, before it asks, why it is closed. Who does not read it just sees it closed.
pub(super) fn refuse(socket: impl AsFd, errno: Errno, reason: &str) {
    let value = u64::from(errno.raw_os_error().cast_unsigned());
    let header = Header { kind: answer::ERROR, cpu: 0, value };
    let _ = packet::send(socket, &header, reason.as_bytes(), None);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{Config, Host};
    use ringtap_abi::control::{MAX_PACKET, PROTOCOL, Part, request, role};
    use rustix::fd::OwnedFd;
    use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

    /// A client that said HELLO, and its other end.
    fn attached(host: &Instances) -> (Client, OwnedFd) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let pair = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
        let (ours, theirs) = pair.expect("sockets can be made");
        let ours = Unshared::new(|| Ok(ours)).expect("there is room");
        let mut client = Client::new(ours, Peer { uid: 0, gid: 0, pid: 1 });
        ask(&theirs, request::HELLO, PROTOCOL, role::READER);
        client.turn(host, None, 0, &mut [0; MAX_PACKET]);
        assert_eq!(answers(&theirs), 1);
        assert!(client.deadline.is_none());
        (client, theirs)
    }

    fn host() -> Instances {
        let host = Host::new(&Config { ring_subbufs: 2, ..Config::default() });
        Instances::around(&host.expect("buffers can be made"))
    }

    fn ask(theirs: &OwnedFd, kind: u32, cpu: u32, value: u64) {
        let packet = Header { kind, cpu, value };
        rustix::net::send(theirs, packet.bytes(), SendFlags::empty()).expect("there is room");
    }

    /// Reads what was answered, and counts it.
    fn answers(theirs: &OwnedFd) -> usize {
        let receive = || rustix::net::recv(theirs, &mut [0; 64][..], RecvFlags::empty());
        std::iter::repeat_with(receive).take_while(Result::is_ok).count()
    }

    #[test]
    fn a_turn_answers_a_client_its_share_and_no_more() {
        let host = host();
        let (mut client, theirs) = attached(&host);
        let buffer = &mut [0; MAX_PACKET];
        for (kind, share) in [(request::WAKE_ALL, limits::REQUESTS_PER_TURN), (request::STATS, 1)] {
            (0..2 * share).for_each(|_| ask(&theirs, kind, 0, 0));
            for _ in 0..2 {
                client.turn(&host, None, 0, buffer);
                assert_eq!(answers(&theirs), share);
            }
        }
    }

    #[test]
    fn a_client_that_reads_no_answers_is_given_few_descriptors() {
        let host = host();
        let (mut client, theirs) = attached(&host);
        let buffer = &mut [0; MAX_PACKET];
        // One after the other, as our own do, it may have as many as it likes.
        for _ in 0..3 * limits::UNREAD_DESCRIPTORS {
            ask(&theirs, request::GET_BUFFER, 0, 0);
            client.turn(&host, None, 0, buffer);
            assert_eq!(answers(&theirs), 1);
        }
        for _ in 0..2 * limits::UNREAD_DESCRIPTORS {
            ask(&theirs, request::GET_BUFFER, 0, 0);
        }
        client.turn(&host, None, 0, buffer);
        assert!(client.is_over(Instant::now()));
        assert_eq!(answers(&theirs), limits::UNREAD_DESCRIPTORS as usize + 1, "the last one says why");
    }

    #[test]
    fn a_client_that_takes_no_answers_is_not_read_from_and_dropped_after_a_while() {
        let host = host();
        let (mut client, theirs) = attached(&host);
        let buffer = &mut [0; MAX_PACKET];
        for _ in 0..100_000 {
            if client.unsent.is_some() {
                break;
            }
            ask(&theirs, request::WAKE_ALL, 0, 0);
            client.turn(&host, None, 0, buffer);
        }
        assert_eq!(client.waits_for(), PollFlags::OUT, "its socket is full");
        ask(&theirs, request::WAKE_ALL, 0, 0);
        client.turn(&host, None, 0, buffer);
        assert!(client.unsent.is_some(), "nothing has changed");
        assert!(!client.is_over(Instant::now()));
        assert!(client.is_over(Instant::now() + limits::PATIENCE));
        assert!(answers(&theirs) > 0);
        client.turn(&host, None, 0, buffer);
        assert!(client.unsent.is_none() && client.deadline.is_none(), "it listens again");
        assert_eq!(answers(&theirs), 2);
    }
}

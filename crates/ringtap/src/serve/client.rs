//! One connection: reads requests, and holds the one answer that could not be sent yet.

use super::requests::{self, Answer, Cost, Session};
use super::{limits, packet};
use crate::host::Host;
use ringtap_abi::control::{Header, answer};
use rustix::event::PollFlags;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use std::time::Instant;

#[derive(Debug)]
pub(super) struct Client {
    socket: OwnedFd,
    session: Session,
    /// Its socket was full. It is not read from before this is sent.
    unsent: Option<Answer>,
    /// When our patience with it ends: it has said no HELLO, or takes no answer.
    deadline: Option<Instant>,
    over: bool,
}

impl Client {
    pub(super) fn new(socket: OwnedFd, pid: u32) -> Self {
        let deadline = Some(Instant::now() + limits::PATIENCE);
        Self { socket, session: Session::new(pid), unsent: None, deadline, over: false }
    }

    /// Whether the connection is to be closed.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.over || self.deadline.is_some_and(|deadline| now >= deadline)
    }

    pub(super) fn waits_for(&self) -> PollFlags {
        if self.unsent.is_some() { PollFlags::OUT } else { PollFlags::IN }
    }

    /// Answers some requests.
    pub(super) fn turn(&mut self, host: &Host, buffer: &mut [u8]) {
        if let Some(unsent) = self.unsent.take() {
            self.send(host, unsent);
        }
        for _ in 0..limits::REQUESTS_PER_TURN {
            if self.over || self.unsent.is_some() {
                return;
            }
            let received = match packet::receive_bytes(&self.socket, buffer) {
                Ok(received) if received.len > 0 => received,
                Err(Errno::AGAIN) => return,
                // Closed, or an empty packet, which looks the same.
                Ok(_) | Err(_) => {
                    self.over = true;
                    return;
                }
            };
            let request = (!received.truncated).then(|| &buffer[..received.len]);
            let (answer, cost) = requests::answer(host, &mut self.session, request);
            self.send(host, answer);
            if cost == Cost::High {
                return;
            }
        }
    }

    fn send(&mut self, host: &Host, answer: Answer) {
        let descriptor = answer.descriptor.and_then(|descriptor| descriptor.of(host));
        match packet::send(&self.socket, &answer.header, &answer.body, descriptor) {
            Ok(()) => {
                self.over |= answer.is_last;
                self.deadline = self.deadline.filter(|_| !self.session.is_open());
            }
            // This user's processes let too many descriptors lie in sockets.
            Err(Errno::TOOMANYREFS) => self.send(host, requests::no_room_for_descriptor()),
            Err(Errno::AGAIN) => {
                self.unsent = Some(answer);
                self.deadline.get_or_insert_with(|| Instant::now() + limits::PATIENCE);
            }
            Err(_) => self.over = true,
        }
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Tells a connection, before it asks, why it is closed. Who does not read it just sees it closed.
pub(super) fn refuse(socket: &OwnedFd, errno: Errno, reason: &str) {
    let value = u64::from(errno.raw_os_error().cast_unsigned());
    let header = Header { kind: answer::ERROR, cpu: 0, value };
    let _ = packet::send(socket, &header, reason.as_bytes(), None);
}

//! The client's end of a connection: one request at a time, each answered in bounded time or never again.

use super::error::AttachError;
use crate::serve::packet::{self, Received};
use crate::serve::socket::{address, new_socket};
use ringtap_abi::control::{Header, MAX_BODY, MAX_PACKET, Part, answer};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::io::Errno;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long to wait between two tries to connect to a host that has too many waiting.
const TRY_AGAIN: Duration = Duration::from_millis(1);

#[derive(Debug)]
pub(super) struct Link {
    socket: OwnedFd,
    timeout: Duration,
    state: State,
    buffer: Box<[u8]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// The host is gone, or broke the protocol.
    Closed,
    /// An answer did not come in time. It may still come, and would be taken for the next request's.
    Stalled,
}

/// An answer that says OK.
#[derive(Debug)]
pub(super) struct Reply<'l> {
    pub(super) value: u64,
    pub(super) body: &'l [u8],
    pub(super) descriptor: Option<OwnedFd>,
}

impl Link {
    pub(super) fn connect(path: &Path, timeout: Duration) -> Result<Self, AttachError> {
        let failed = |action| move |errno: Errno| AttachError::System { action, source: errno.into() };
        let address =
            address(path).map_err(failed("name the host's socket, whose path takes 107 bytes at most"))?;
        let socket = new_socket().map_err(failed("make a socket"))?;
        let deadline = Instant::now() + timeout;
        let buffer = vec![0; MAX_PACKET].into();
        loop {
            let path = || path.to_owned();
            match rustix::net::connect(&socket, &address) {
                Ok(()) => return Ok(Self { socket, timeout, state: State::Open, buffer }),
                Err(Errno::AGAIN | Errno::INTR) if Instant::now() < deadline => std::thread::sleep(TRY_AGAIN),
                Err(Errno::AGAIN | Errno::INTR) => return Err(AttachError::Stalled(timeout)),
                Err(Errno::NOENT | Errno::NOTDIR) => return Err(AttachError::NoSocket { path: path() }),
                // Said of what is no socket, too.
                Err(Errno::CONNREFUSED) if !is_socket(&path()) => {
                    return Err(AttachError::NotAHost { path: path() });
                }
                Err(Errno::CONNREFUSED) => return Err(AttachError::Dead { path: path() }),
                Err(Errno::PROTOTYPE) => return Err(AttachError::NotAHost { path: path() }),
                Err(Errno::ACCESS | Errno::PERM) => return Err(AttachError::Permission { path: path() }),
                Err(errno) => return Err(failed("connect to the host")(errno)),
            }
        }
    }

    /// Asks, and waits for the answer.
    pub(super) fn ask(&mut self, request: &Header, body: &[u8]) -> Result<Reply<'_>, AttachError> {
        self.ask_with(request, body, None)
    }

    /// Asks, and gives a descriptor.
    pub(super) fn ask_with(
        &mut self,
        request: &Header,
        body: &[u8],
        descriptor: Option<BorrowedFd<'_>>,
    ) -> Result<Reply<'_>, AttachError> {
        if body.len() > MAX_BODY {
            return Err(AttachError::TooLong(body.len()));
        }
        self.take_answer(|link| link.exchange(request, body, descriptor))
    }

    /// The answer that `receive` brings, checked.
    fn take_answer(
        &mut self,
        receive: impl FnOnce(&mut Self) -> Result<Received, AttachError>,
    ) -> Result<Reply<'_>, AttachError> {
        match self.state {
            State::Open => {}
            State::Closed => return Err(AttachError::Gone),
            State::Stalled => return Err(AttachError::Stalled(self.timeout)),
        }
        let received = receive(self).inspect_err(|error| {
            self.state =
                if matches!(error, AttachError::Stalled(_)) { State::Stalled } else { State::Closed };
        })?;
        let (len, descriptor) = (received.len, received.descriptor);
        let Some((header, body)) = Header::split(&self.buffer[..len]).filter(|_| !received.truncated) else {
            self.state = State::Closed;
            return Err(AttachError::Protocol("its answer is too short or too long"));
        };
        match header.kind {
            answer::OK => Ok(Reply { value: header.value, body, descriptor }),
            answer::ERROR => Err(AttachError::Refused {
                errno: i32::try_from(header.value).unwrap_or(0),
                reason: printable(body),
            }),
            _ => {
                self.state = State::Closed;
                Err(AttachError::Protocol("its answer is of an unknown kind"))
            }
        }
    }

    /// Asks, and waits for the answer however long it takes, until `stop` is readable: then there is none, and the
    /// connection is of no more use.
    pub(super) fn ask_patiently(
        &mut self,
        request: &Header,
        stop: &OwnedFd,
    ) -> Result<Option<Reply<'_>>, AttachError> {
        if self.state == State::Open && packet::send(&self.socket, request, &[], None).is_ok() {
            let mut fds = [PollFd::new(&self.socket, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
            while let Err(Errno::INTR) = rustix::event::poll(&mut fds, None) {}
            if fds[1].revents().contains(PollFlags::IN) {
                self.state = State::Closed;
                return Ok(None);
            }
        } else {
            self.state = State::Closed;
        }
        self.take_answer(|link| link.receive(Instant::now() + link.timeout)).map(Some)
    }

    /// The socket's number, for a forked child that closes its copy.
    pub(super) fn raw(&self) -> i32 {
        rustix::fd::AsRawFd::as_raw_fd(&self.socket)
    }

    fn exchange(
        &mut self,
        request: &Header,
        body: &[u8],
        descriptor: Option<BorrowedFd<'_>>,
    ) -> Result<Received, AttachError> {
        let deadline = Instant::now() + self.timeout;
        loop {
            match packet::send(&self.socket, request, body, descriptor) {
                Ok(()) => break,
                Err(Errno::AGAIN) => self.wait(PollFlags::OUT, deadline)?,
                // It closed the connection; its last word may say why.
                Err(_) => break,
            }
        }
        self.receive(deadline)
    }

    fn receive(&mut self, deadline: Instant) -> Result<Received, AttachError> {
        let mut resets = 0;
        loop {
            match packet::receive(&self.socket, &mut self.buffer) {
                Ok(received) if received.len > 0 => return Ok(received),
                Err(Errno::AGAIN) => self.wait(PollFlags::IN, deadline)?,
                // Said once, when the host closed before it read what we sent. What it had said comes after.
                Err(Errno::CONNRESET) if resets == 0 => resets += 1,
                Ok(_) | Err(_) => return Err(AttachError::Gone),
            }
        }
    }

    /// Waits until the socket may be ready.
    fn wait(&self, flags: PollFlags, deadline: Instant) -> Result<(), AttachError> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(AttachError::Stalled(self.timeout));
        }
        let timeout = Timespec::try_from(left).ok();
        match rustix::event::poll(&mut [PollFd::new(&self.socket, flags)], timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(AttachError::System { action: "wait for the host", source: errno.into() }),
        }
    }
}

fn is_socket(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.file_type().is_socket())
}

/// The host's sentence, fit for a terminal.
fn printable(body: &[u8]) -> String {
    String::from_utf8_lossy(body).chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

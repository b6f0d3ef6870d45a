//! What a host grants to its clients, and why so much.

use std::time::Duration;

/// Connections at a time, where the process's limit of descriptors allows so many: an attached process keeps one, and
/// needs another for a moment when it declares an event. A thousand processes fit, with room for their children.
pub(crate) const CLIENTS: usize = 4096;

/// Connections taken in one turn of the loop, so that a flood of them does not keep the others waiting.
pub(super) const ACCEPTS_PER_TURN: usize = 8;

/// Requests of one client in one turn of the loop: about as many as cost less than another client's patience,
/// 16 requests of a microsecond.
pub(super) const REQUESTS_PER_TURN: usize = 16;

/// How long a client may take to say HELLO, and to take an answer when its socket is full. Whoever is stopped
/// in a debugger just then must connect again; who is attached and idle may be so for ever.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// How long no connection is taken after the process ran out of descriptors: nothing tells when there are some.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections that wait to be taken: the kernel makes it `net.core.somaxconn` where that is less.
pub(super) const BACKLOG: i32 = 256;

/// How long a host that starts waits for another one that is starting in the same directory.
pub(super) const DIRECTORY_LOCK: Duration = Duration::from_secs(2);

/// How long a host that starts in a dead one's place waits for an attached process that offers what it has of it.
/// They are told when the socket appears, and come within milliseconds where the machine is not overloaded.
pub(super) const OFFERS: Duration = Duration::from_secs(2);

/// How long one of them may take for each step of its offer.
pub(super) const OFFER_STEP: Duration = Duration::from_millis(500);

/// Descriptors sent to a client that has not read the answers before. Our own clients read each before they ask again. What
/// lies unread in sockets counts against the limit of this host's user, and at the limit nobody else is given one.
pub(super) const UNREAD_DESCRIPTORS: u32 = 4;

/// The part of all connections that one process may have, or none were left for others: one in so many.
pub(super) const SHARE_OF_PROCESS: usize = 4;

/// The same for a user who may attach as a member of the group.
pub(super) const SHARE_OF_MEMBER: usize = 2;

/// Bytes of an event's format text. The kernel's longest, with their tables of flag names, have 12 KiB; with
/// the two names it must fit in a packet.
pub(crate) const FORMAT_LEN: usize = 15 * 1024;

/// Bytes of all format texts: enough for each of 65,504 events to have an ordinary one.
pub(crate) const FORMATS_LEN: usize = 64 << 20;

/// Characters of an event's or system's name: the kernel's `MAX_EVENT_NAME_LEN` without the final zero.
pub(crate) const NAME_LEN: usize = 63;

const _: () = assert!(FORMAT_LEN + 2 * (NAME_LEN + 1) <= ringtap_abi::control::MAX_BODY);

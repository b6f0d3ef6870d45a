//! The messages on a host's socket (`SOCK_SEQPACKET`): one packet each way, in the machine's byte order.
//!
//! ```text
//!   client                                host
//!   HELLO, version, role  ------------->  same version? may it? room for it?
//!                         <-------------  OK, HostInfo, the CPUs as a bitmap
//!   GET_BUFFER, cpu       ------------->
//!                         <-------------  OK, the descriptor: read-write for writers, read-only for readers
//!   ...                   ------------->
//!                         <-------------  OK, or ERROR with an errno and one sentence
//! ```
//!
//! An attached process keeps a connection on which it awaits the next change of the instances; so the host speaks only
//! when it is asked there, too, and owes each client one packet at most.
//!
//! A packet is a [`Header`] and a body of at most [`MAX_BODY`] bytes. The client speaks first, and each request
//! has exactly one answer: so the host never holds more than one packet, and never more than one descriptor in
//! flight, for a client that does not listen.
//!
//! A request that the host refuses leaves the connection as it was. A packet that is no request (too short, too
//! long, anything but a HELLO at first) gets its ERROR and ends it. HELLO, OK and ERROR keep their form in all
//! versions, so that two versions can tell each other that they differ.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Largest body, in bytes: an event's names and format text.
pub const MAX_BODY: usize = 16 * 1024;
/// Largest packet, in bytes.
pub const MAX_PACKET: usize = size_of::<Header>() + MAX_BODY;
/// The messages described here. Another number is refused.
pub const PROTOCOL: u32 = 3;

/// First bytes of each packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// A [`request`] number; in an answer an [`answer`] number.
    pub kind: u32,
    /// The CPU asked about, and in the upper half the instance, as [`at`] joins them; 0 where that means nothing.
    pub cpu: u32,
    /// What the kind says.
    pub value: u64,
}

/// Joins an instance's bit and a CPU's number: [`Header::cpu`]. The top instance's is the CPU's number itself.
#[must_use]
pub const fn at(instance: u16, cpu: u16) -> u32 {
    (instance as u32) << 16 | cpu as u32
}

/// The instance of [`at`].
#[must_use]
pub const fn instance_of(at: u32) -> usize {
    (at >> 16) as usize
}

/// The CPU of [`at`].
#[must_use]
pub const fn cpu_of(at: u32) -> u32 {
    at & 0xffff
}

/// What a client asks.
pub mod request {
    /// Opens a connection. `cpu`: [`super::PROTOCOL`]. `value`: a [`super::role`]. The answer's body is a
    /// [`super::HostInfo`] and the CPUs that have a buffer, as a bitmap: CPU n is bit n % 8 of byte n / 8.
    pub const HELLO: u32 = 1;
    /// Asks for a buffer's descriptor. The answer carries it; its `value` is the bytes of its mapping. `value`: for
    /// writers, 0 for the buffer being written; [`OLDEST`] for the oldest that is not read; or the inode of the last one
    /// of this place that they know: then it is the one that follows that, or is about to, or the same where none does.
    /// For readers, 0 for the buffer that they consume, or the oldest that is not read; [`OLDEST`] for that one in any
    /// case; [`NEWEST`] for the one being written; or the inode of one that they know: then it is the oldest behind that,
    /// or the same where none is.
    pub const GET_BUFFER: u32 = 2;
    /// In GET_BUFFER: no buffer of the place is known.
    pub const OLDEST: u64 = u64::MAX;
    /// In GET_BUFFER: what is behind all that readers know.
    pub const NEWEST: u64 = u64::MAX - 1;
    /// Becomes the consuming reader of a CPU's buffer, until RELEASE or the end of the connection. Refused with
    /// EBUSY where there is one.
    pub const CLAIM: u32 = 3;
    /// Stops being the consuming reader.
    pub const RELEASE: u32 = 4;
    /// Hands out what is new on the reader page, or the next page (the kernel's `TRACE_MMAP_IOCTL_GET_READER`).
    /// The results are on the meta-page. Needs the CLAIM.
    pub const GET_READER: u32 = 5;
    /// Asks whether the buffer is `value` percent full (0: whether there is anything to read). The answer is 1
    /// where it is; else 0, and the writers wake the futex when it may be: read that before asking.
    pub const ARM: u32 = 6;
    /// Wakes all that sleep on the buffer (the kernel's ioctl with command 0).
    pub const WAKE_ALL: u32 = 7;
    /// Asks for a CPU's counters; the body of the answer is [`super::Counters`].
    pub const STATS: u32 = 8;
    /// Empties all buffers.
    pub const RESET: u32 = 9;
    /// Recording on (`value` 1) or off (0).
    pub const RECORD: u32 = 10;
    /// Declares an event; the body is system, `\n`, name, `\n`, format text. Answer: its id.
    pub const REGISTER: u32 = 11;
    /// Asks for the event with the lowest id above `value`. Answer: its id, and as body system, `\n`, name,
    /// `\n`, format text; 0 and no body after the last one.
    pub const NEXT_EVENT: u32 = 12;
    /// Asks for the switchboard's descriptor. Writers alone: it can be written. The answer is 1 where the tasks lie in a file
    /// of their own, which a `value` of 1 asks for, and 0 else.
    pub const GET_SWITCHBOARD: u32 = 13;
    /// Says that the client knows the instances of generation `value`, and waits until there is a newer one: the answer
    /// comes then, with its number. Any other request meanwhile takes the wait back: it is answered first, with the
    /// generation as it is.
    pub const AWAIT: u32 = 14;
    /// Asks for the instance with the lowest bit from `value` on. Answer: its bit, and as body a [`super::HostInfo`] and
    /// its name; an empty body after the last one. The top instance has bit 0 and no name.
    pub const NEXT_INSTANCE: u32 = 15;
    /// Instead of HELLO, from an attached process whose host died: it has what that host shared. `cpu`:
    /// [`super::PROTOCOL`]. The answer is 1 where a host wants it, which is starting in the dead one's place; else 0, and
    /// the connection ends. The offer's other requests follow.
    pub const OFFER: u32 = 16;
    /// Carries the dead host's switchboard.
    pub const OFFER_SWITCHBOARD: u32 = 17;
    /// Carries a buffer, of the place in `cpu`: the one that is written, and each that is not read empty, in any order.
    pub const OFFER_BUFFER: u32 = 18;
    /// That was all. The answer is 1 where the host goes on with it, 0 where it waits for others' offers, too; the
    /// connection ends.
    pub const OFFER_END: u32 = 19;
    /// Carries a buffer that the client wrote before there was a host, and that nobody writes any more; its CPU in `cpu`.
    /// Writers alone.
    pub const HAND_OVER: u32 = 20;
    /// That was all. The host makes an instance of them, whose name is the body. Answer: its bit.
    pub const HAND_OVER_END: u32 = 21;
    /// Has the events that the body names, as `set_event` does, switch recording off with their next record; also those
    /// that are declared later. Taken back when the connection ends. Readers alone.
    pub const STOP_AT: u32 = 22;
    /// Reads a file of the host's tree, from byte `value` on. The body is its path; the answer's the bytes, none behind
    /// the end.
    pub const TREE_READ: u32 = 32;
    /// Writes to a file of the tree. The body is its path, `\0`, and the bytes.
    pub const TREE_WRITE: u32 = 33;
    /// Lists a directory of the tree, from byte `value` of the list on: a name a line.
    pub const TREE_LIST: u32 = 34;
    /// Makes a directory of the tree.
    pub const TREE_MKDIR: u32 = 35;
    /// Removes a directory of the tree.
    pub const TREE_RMDIR: u32 = 36;
}

/// What a host answers.
pub mod answer {
    /// Done; `value` is what the request says.
    pub const OK: u32 = 0x100;
    /// Refused; `value` is an errno and the body one sentence.
    pub const ERROR: u32 = 0x101;
}

/// What a client wants to be.
pub mod role {
    /// Maps the buffers read-write and writes events.
    pub const WRITER: u64 = 1;
    /// Maps the buffers read-only and may consume.
    pub const READER: u64 = 2;
}

/// What a host says of itself; the CPUs follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct HostInfo {
    /// Number of the clock that stamps events: a [`crate::clock::ClockId`].
    pub clock: u32,
    /// How full a buffer is when readers are woken, in percent.
    pub buffer_percent: u32,
    /// The host's number, as in its [`crate::switchboard::Head`].
    pub host_id: [u64; 2],
}

/// A CPU's counters, in the order of the `ringtap` crate's `Stats`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Counters(pub [u64; 8]);

/// A fixed-size part of a packet, and the bytes behind it.
pub trait Part: FromBytes + IntoBytes + Immutable + KnownLayout + Copy {
    /// Takes the part off the front; `None` where there are too few bytes.
    fn split(bytes: &[u8]) -> Option<(Self, &[u8])> {
        Self::read_from_prefix(bytes).ok()
    }

    /// The part's bytes.
    fn bytes(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl Part for Header {}
impl Part for HostInfo {}
impl Part for Counters {}

/// The three texts of a REGISTER request or a NEXT_EVENT answer; `None` where they are not UTF-8 or fewer.
#[must_use]
pub fn split_event(body: &[u8]) -> Option<(&str, &str, &str)> {
    let (system, rest) = core::str::from_utf8(body).ok()?.split_once('\n')?;
    let (name, format) = rest.split_once('\n')?;
    Some((system, name, format))
}

/// The CPUs of a bitmap, in order.
pub fn cpus_of(bitmap: &[u8]) -> impl Iterator<Item = u32> + '_ {
    let bits = bitmap.iter().flat_map(|&byte| (0..8).map(move |bit| byte >> bit & 1 == 1));
    (0u32..).zip(bits).filter_map(|(cpu, set)| set.then_some(cpu))
}

/// Sets a CPU's bit; `false` where the bitmap is too short for it.
pub fn set_cpu(bitmap: &mut [u8], cpu: u32) -> bool {
    let byte = bitmap.get_mut(cpu as usize / 8);
    byte.map(|byte| *byte |= 1 << (cpu % 8)).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_round_trip_and_short_ones_are_refused() {
        let header = Header { kind: request::ARM, cpu: 3, value: 50 };
        let packet = [header.bytes(), b"body"].concat();
        assert_eq!(Header::split(&packet), Some((header, &b"body"[..])));
        assert_eq!(Header::split(&packet[..15]), None);
        let counters = Counters([1, 2, 3, 4, 5, 6, 7, u64::MAX]);
        assert_eq!(Counters::split(counters.bytes()), Some((counters, &[][..])));
    }

    #[test]
    fn instances_and_cpus_are_joined() {
        for (instance, cpu) in [(0, 0), (0, 8191), (62, 3), (u16::MAX, u16::MAX)] {
            let joined = at(instance, cpu);
            assert_eq!((instance_of(joined), cpu_of(joined)), (instance.into(), cpu.into()));
        }
        assert_eq!(at(0, 7), 7);
    }

    #[test]
    fn cpus_round_trip() {
        let mut bitmap = [0; 2];
        for cpu in [0, 7, 8, 15] {
            assert!(set_cpu(&mut bitmap, cpu));
        }
        assert!(!set_cpu(&mut bitmap, 16));
        assert!(cpus_of(&bitmap).eq([0, 7, 8, 15]));
    }

    #[test]
    fn events_split_at_the_first_two_lines() {
        assert_eq!(split_event(b"app\nstart\nname: start\n"), Some(("app", "start", "name: start\n")));
        assert_eq!(split_event(b"app\nstart"), None);
        assert_eq!(split_event(b"app\n\xff\n"), None);
    }
}

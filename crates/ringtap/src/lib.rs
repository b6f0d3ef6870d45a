//! The live ring: write trace events from any thread, signal handler or process, and follow them without a copy.
//!
//! The way of an event is the order of the modules: a [`Writer`] reads the [`clock`] and appends a record to
//! its CPU's ring; the ring moves from sub-buffer to sub-buffer; a [`Host`] hands sub-buffers to a consuming
//! [`Reader`], while any number of [`Cursor`]s follow without anybody's help.

#[cfg(not(target_os = "linux"))]
compile_error!("ringtap shares memory the way Linux does: memfds, futexes, restartable sequences");
#[cfg(target_endian = "big")]
compile_error!("the ring lays out event headers as little-endian machines do; ringtap-format reads both");

pub mod attach;
pub mod clock;
pub mod cpus;
mod cursor;
pub mod event;
mod host;
mod map;
mod merge;
mod reader;
mod record;
mod ring;
mod rseq;
pub mod serve;
mod spot;
mod stats;
pub mod thread;
pub mod tracefs;
mod wake;
mod writer;

pub use cursor::{Cursor, Start};
pub use host::{Config, Host, HostError, Mode, Waited};
pub use map::MapError;
pub use merge::{HOLD, Input, Merge, Merged};
pub use reader::{ReadError, Reader, Waker};
pub use record::{Damaged, Item, Lost, Payload, Record};
pub use ring::write::Refused;
pub use ringtap_abi::meta::WriterKind;
pub use ringtap_abi::records::Damage;
pub use stats::Stats;
pub use writer::{Reservation, Writer};

/// Lets the calling thread run restartable sequences as plain code, for counting their instructions under valgrind,
/// which has no rseq. Returns whether it now does: `false` where the thread can run real ones.
///
/// The area that the sections look at says `cpu` from now on, whoever interrupts the thread. To be called before
/// the thread first makes or uses an instance.
///
/// # Safety
/// Nobody aborts these sections, so nothing may come between their instructions that writes into the same rings.
/// 1. This is the only thread of its process that writes, no signal handler writes, and the thread stays on `cpu`.
/// 2. No other process writes into the instances that this one writes into.
#[doc(hidden)]
#[must_use]
pub unsafe fn pretend_rseq_for_counting(cpu: u32) -> bool {
    rseq::pretend(cpu)
}

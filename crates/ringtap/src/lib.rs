//! The live ring: write trace events from any thread, signal handler or process, and follow them without a copy.
//!
//! The way of an event is the order of the modules: a [`Writer`] reads the [`clock`] and appends a record to
//! its CPU's ring; the ring moves from sub-buffer to sub-buffer; a [`Host`] hands sub-buffers to a consuming
//! [`Reader`], while any number of [`Cursor`]s follow without anybody's help.

#![cfg_attr(
    loom,
    allow(dead_code, unused_imports, reason = "a model checker runs the ring, and nothing is mapped")
)]

#[cfg(not(target_os = "linux"))]
compile_error!("ringtap shares memory the way Linux does: memfds, futexes, restartable sequences");
#[cfg(target_endian = "big")]
compile_error!("the ring lays out event headers as little-endian machines do; ringtap-format reads both");

#[cfg(not(loom))]
pub mod attach;
#[cfg(not(loom))]
mod board;
pub mod clock;
#[cfg(not(loom))]
pub mod cpus;
#[cfg(not(loom))]
pub mod crash;
#[cfg(not(loom))]
mod cursor;
#[cfg(not(loom))]
pub mod event;
#[cfg(not(loom))]
mod files;
#[cfg(not(loom))]
mod host;
#[cfg(not(loom))]
pub mod instance;
#[cfg(not(loom))]
mod lane;
mod lent;
#[cfg(not(loom))]
mod line;
#[cfg(not(loom))]
mod map;
#[cfg(not(loom))]
mod merge;
#[cfg(not(loom))]
mod pin;
#[cfg(not(loom))]
pub mod process;
#[cfg(not(loom))]
mod reader;
mod record;
#[cfg(not(loom))]
pub mod recover;
#[cfg(not(loom))]
mod resize;
mod ring;
mod rseq;
#[cfg(not(loom))]
pub mod rules;
#[cfg(not(loom))]
pub mod serve;
#[cfg(not(loom))]
mod snapshot;
#[cfg(not(loom))]
mod spot;
#[cfg(not(loom))]
mod stats;
#[cfg(not(loom))]
pub mod subbufs;
pub mod thread;
#[cfg(not(loom))]
pub mod tracefs;
#[cfg(not(loom))]
mod unshared;
mod wake;
#[cfg(not(loom))]
mod writer;

#[cfg(not(loom))]
pub use cursor::{Cursor, Start};
#[cfg(not(loom))]
pub use host::{Config, Host, HostError, Mode};
#[cfg(not(loom))]
pub use instance::{Instance, InstanceError, Instances};
#[cfg(not(loom))]
pub use map::MapError;
#[cfg(not(loom))]
pub use merge::{HOLD, Input, Merge, Merged};
#[cfg(not(loom))]
pub use reader::{ReadError, Reader, Waker, WholePage, WholePages};
#[cfg(not(loom))]
pub use record::{Damaged, Item, Lost, Payload, Record};
#[cfg(not(loom))]
pub use resize::Replacement;
pub use ring::write::Refused;
pub use ringtap_abi::meta::WriterKind;
pub use ringtap_abi::records::Damage;
#[doc(hidden)]
pub use rseq::Plain;
#[cfg(not(loom))]
pub use stats::Stats;
#[cfg(not(loom))]
pub use wake::Waited;
#[cfg(not(loom))]
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

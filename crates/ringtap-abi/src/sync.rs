//! The atomics that shared memory is made of: `core`'s, or loom's when a model checker runs the ring.
//!
//! loom's atomics are handles, not plain words, so they cannot be laid over mapped bytes. Under `cfg(loom)`
//! the shared structures are therefore built with `new`, and nothing is mapped.

#[cfg(not(loom))]
pub use core::sync::atomic::{AtomicU32, AtomicU64, fence};
#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU32, AtomicU64, fence};

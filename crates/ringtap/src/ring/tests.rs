//! Tests of the ring as a whole: what every interleaving, abort and death must leave true.
//!
//! * [`stepper`]: a writer dies before each of its steps, one after the other.
//! * [`interleave`]: writers come between any two steps of the host and of a cursor.
//! * [`kill`]: real processes are killed at each instruction of the assembly, or single-stepped.
//! * [`hostile`]: words that cannot be true, anywhere, while host and cursors are at work.
//! * `loom`: a model checker tries each order that the memory model allows (`cargo xtask loom`).
//! * [`torture`]: all of it at once, at random, in several processes.
//!
//! All but the short runs are driven by environment variables: see [`kit::Seed`].

#[cfg(not(loom))]
mod hostile;
#[cfg(not(loom))]
mod interleave;
#[cfg(all(target_arch = "x86_64", not(loom)))]
mod kill;
#[cfg(not(loom))]
pub(super) mod kit;
#[cfg(not(loom))]
mod lab;
#[cfg(loom)]
pub(crate) mod loom;
#[cfg(not(loom))]
mod stepper;
#[cfg(not(loom))]
mod torture;

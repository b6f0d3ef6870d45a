//! Tests of the ring as a whole: what every interleaving, abort and death must leave true.
//!
//! * [`stepper`]: a writer dies before each of its steps, one after the other.
//! * [`interleave`]: writers come between any two steps of the host and of a cursor.
//! * [`kill`]: real processes are killed at each instruction of the assembly, or single-stepped.
//! * [`hostile`]: words that cannot be true, anywhere, while host and cursors are at work.
//! * [`torture`]: all of it at once, at random, in several processes.
//!
//! All but the short runs are driven by environment variables: see [`kit::Seed`].

mod hostile;
mod interleave;
#[cfg(target_arch = "x86_64")]
mod kill;
mod kit;
mod lab;
mod stepper;
mod torture;

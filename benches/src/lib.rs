//! ringtap beside its rivals, measured.
//!
//! * [`rotation`] runs named contenders in rotating order within one run, and [`stats`] turns their rounds
//!   into medians and ratios. [`table`] prints them. Figures of different runs are not comparable on a
//!   machine that others share; ratios of neighbouring rounds are.
//! * [`ringtap`], [`clock`], [`marker`] and [`lttng`] are contenders. Those that live in other processes speak the
//!   protocol of [`worker`]; LTTng's run inside a [`sandbox`].
//! * [`guest`] is how the programs start themselves again for that.
//! * [`kill_test`] kills writers by SIGKILL and counts what a healthy process loses by it.
//! * [`callgrind`] counts instructions, which repeat exactly where times do not.
//!
//! # Safety
//! `unsafe` stands in [`clock`], for reading the processor's counter, and in [`callgrind`], for running rseq's
//! critical sections where there is no rseq.

pub mod callgrind;
pub mod clock;
pub mod cpu;
pub mod cursors;
pub mod guest;
pub mod kill_test;
pub mod lttng;
pub mod marker;
pub mod process;
pub mod reading;
pub mod ringtap;
pub mod rotation;
pub mod sandbox;
pub mod stats;
pub mod table;
pub mod worker;

/// Bytes of payload that each contender writes: three 64-bit numbers.
pub const PAYLOAD_LEN: usize = 24;

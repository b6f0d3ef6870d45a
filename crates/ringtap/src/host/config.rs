//! How buffers are made.

use crate::clock::ClockId;
use ringtap_abi::meta::WriterKind;
use std::path::PathBuf;

/// What happens when a ring is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// The oldest events are overwritten: a flight recorder.
    #[default]
    Overwrite,
    /// New events are refused and counted as dropped (the kernel's `overwrite=0`).
    Discard,
}

/// How an instance's buffers are made.
#[derive(Clone, Debug)]
pub struct Config {
    /// Bytes of a sub-buffer: a power of two from 4 KiB to 512 KiB.
    pub subbuf_size: u32,
    /// Sub-buffers in each CPU's ring, the reader page not counted: 2 to 65,535.
    pub ring_subbufs: u32,
    /// What happens when a ring is full.
    pub mode: Mode,
    /// The clock that stamps events; `None`: the cheapest that converts to `CLOCK_MONOTONIC`.
    pub clock: Option<ClockId>,
    /// Puts an absolute time before each event, as the kernel's `timestamp_mode` absolute does.
    pub absolute_stamps: bool,
    /// How writers exclude each other; `None`: restartable sequences where this process has them.
    pub writer: Option<WriterKind>,
    /// How full a buffer is when readers are woken, in percent; 0: at any event.
    pub buffer_percent: u8,
    /// Starts with recording off.
    pub off: bool,
    /// Where the buffers are kept as files, which outlive the host, all its writers and, where the file system is in
    /// memory that does (or on a disk that was synced), the machine's reset: see [`recover`](crate::recover). What the last
    /// host left there moves to the folder `last` in it. `None`: in memory alone. Such buffers cannot be resized.
    pub directory: Option<PathBuf>,
}

impl Default for Config {
    /// As the kernel's: 1,408 KiB for each CPU in pages of 4 KiB, overwriting, readers woken at half.
    fn default() -> Self {
        Self {
            subbuf_size: 4096,
            ring_subbufs: 354,
            mode: Mode::default(),
            clock: None,
            absolute_stamps: false,
            writer: None,
            buffer_percent: 50,
            off: false,
            directory: None,
        }
    }
}

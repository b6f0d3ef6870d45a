//! Plain markers: the kernel's `print` and `raw_data` events, which every tracing tool knows without being told.

use super::Common;
use super::registry::{PRINT_ID, RAW_DATA_ID};
use crate::{Refused, Writer};

/// Bytes before a `print`'s text: the common fields and the address.
pub const PRINT_HEAD: usize = 16;
/// Bytes before a `raw_data`'s bytes: the common fields and the number.
pub const RAW_DATA_HEAD: usize = 12;
/// Largest payload of a marker, in bytes; a sub-buffer of 4 KiB takes a little less.
const LIMIT: usize = 4096;

/// Writes a text as the kernel's `trace_marker` stores it: a line break is added where it does not end with one,
/// then a NUL. Returns the bytes of the text that were written: less than all where it is longer than an event
/// can be. An empty text writes nothing.
///
/// # Errors
/// As [`Writer::write`].
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let host = ringtap::Host::new(&ringtap::Config::default())?;
/// ringtap::event::marker::print(&host.writer(), "the request is done")?;
/// # Ok(())
/// # }
/// ```
pub fn print(writer: &Writer, text: impl AsRef<[u8]>) -> Result<usize, Refused> {
    print_at(writer, 0, text)
}

/// As [`print()`], with the address that the event says it was written at; 0 stands for none.
///
/// # Errors
/// As [`Writer::write`].
pub fn print_at(writer: &Writer, ip: u64, text: impl AsRef<[u8]>) -> Result<usize, Refused> {
    let text = text.as_ref();
    if text.is_empty() {
        return Ok(0);
    }
    // The line break and the NUL always find room.
    let room = writer.max_payload().min(LIMIT).saturating_sub(PRINT_HEAD + 2);
    let text = &text[..text.len().min(room)];
    let line_break = usize::from(!text.ends_with(b"\n"));
    let len = PRINT_HEAD + text.len() + line_break + 1;
    // In words the record takes the ring's hot path; the zeros would be there anyway.
    let mut reservation = writer.reserve::<LIMIT>(len.next_multiple_of(4))?;
    let payload = reservation.bytes();
    payload[..8].copy_from_slice(&Common::of_thread(PRINT_ID).word().to_le_bytes());
    payload[8..16].copy_from_slice(&ip.to_le_bytes());
    payload[16..16 + text.len()].copy_from_slice(text);
    payload[16 + text.len()..][..line_break].fill(b'\n');
    reservation.commit().map(|()| text.len())
}

/// Writes bytes under a number, as the kernel's `trace_marker_raw` stores them; all or nothing. Their length is
/// rounded up to words with zeros, and a reader cannot tell those from the bytes.
///
/// # Errors
/// [`Refused::TooLarge`] where a sub-buffer does not take them, else as [`Writer::write`].
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let host = ringtap::Host::new(&ringtap::Config::default())?;
/// ringtap::event::marker::raw_data(&host.writer(), 7, &[1, 2, 3, 4])?;
/// # Ok(())
/// # }
/// ```
pub fn raw_data(writer: &Writer, id: u32, bytes: &[u8]) -> Result<(), Refused> {
    let mut reservation = writer.reserve::<LIMIT>((RAW_DATA_HEAD + bytes.len()).next_multiple_of(4))?;
    let payload = reservation.bytes();
    payload[..8].copy_from_slice(&Common::of_thread(RAW_DATA_ID).word().to_le_bytes());
    payload[8..12].copy_from_slice(&id.to_le_bytes());
    payload[12..12 + bytes.len()].copy_from_slice(bytes);
    reservation.commit()
}

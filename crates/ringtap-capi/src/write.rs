//! Writing events and markers: what may be called from anywhere, allocates nothing and takes no lock.

use crate::error::Code;
use crate::event::{Event, Known};
use crate::{thread, trace};
use ringtap::event::private::{Tail, cut, view, write_tails};
use ringtap::event::{Common, PAYLOAD_LIMIT, Route, marker};
use ringtap::{Refused, Writer};
use std::ffi::{CStr, c_char, c_int};
use std::mem::MaybeUninit;

/// Most strings and slices of an event.
const MAX_TAILS: usize = 64;

/// `struct ringtap_bytes`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Bytes {
    pub(crate) start: *const u8,
    pub(crate) length: usize,
}

impl Bytes {
    /// # Safety
    /// They live as long as the result, or there are none.
    unsafe fn as_slice<'b>(self) -> &'b [u8] {
        if self.start.is_null() {
            return &[];
        }
        // SAFETY: as the caller says.
        unsafe { std::slice::from_raw_parts(self.start, self.length) }
    }
}

/// What an event that is on needs to be written.
///
/// # Safety
/// The event is as the header says.
#[inline(always)]
unsafe fn at_hand(event: *const Event) -> Option<(&'static Known, Route, &'static Writer)> {
    // SAFETY: as the caller says.
    let known = unsafe { &*event }.known()?;
    Some((known, known.declared.route()?, trace::writer()?))
}

/// The first word of a payload.
#[inline(always)]
fn common(route: Route, pid: u32) -> u64 {
    Common { id: route.id(), flags: 0, preempt_count: 0, pid }.word()
}

/// A payload of up to 24 bytes, in registers. [any]
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ringtap_write_short(
    event: *const Event,
    second: u64,
    third: u64,
    length: usize,
) -> c_int {
    // SAFETY: as the header says.
    let Some((_, route, writer)) = (unsafe { at_hand(event) }) else { return Code::Off as c_int };
    let (pid, spot) = thread::get();
    let words = [common(route, pid), second, third];
    macro_rules! write {
        ($length:literal) => {
            // SAFETY: 1. It is this thread's.
            unsafe { writer.write_array_to_by(route, view::<3, $length>(&words), spot) }
        };
    }
    let written = match length {
        24 => write!(24),
        20 => write!(20),
        16 => write!(16),
        _ => write!(12),
    };
    Code::from(written) as c_int
}

/// A payload of any length, a multiple of 4, in words. [any]
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ringtap_write_words(
    event: *const Event,
    words: *mut u64,
    length: usize,
) -> c_int {
    // SAFETY: as the header says.
    let Some((_, route, writer)) = (unsafe { at_hand(event) }) else { return Code::Off as c_int };
    let (pid, spot) = thread::get();
    // SAFETY: as the header says: there are at least 12 bytes, in whole words.
    unsafe { words.write(common(route, pid)) };
    // SAFETY: as above, as many bytes as are said.
    let payload = unsafe { std::slice::from_raw_parts(words.cast::<u8>(), length) };
    Code::from(write_payload(writer, route, payload, spot)) as c_int
}

/// Writes a payload of any length by the hot path of its length, if there is one.
#[inline(always)]
fn write_payload(writer: &Writer, route: Route, payload: &[u8], spot: *const ()) -> Result<(), Refused> {
    macro_rules! dispatch {
        ($($words:literal)+) => {
            match payload.len() {
                $(len if len == 4 * $words => match payload.first_chunk::<{ 4 * $words }>() {
                    // SAFETY: 1. It is this thread's, as the caller says.
                    Some(payload) => unsafe { writer.write_array_to_by(route, payload, spot) },
                    None => writer.write_to(route, payload),
                },)+
                _ => writer.write_to(route, payload),
            }
        };
    }
    dispatch!(5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20)
}

/// A payload that ends with its only string: built without a look at the fields.
#[inline(always)]
fn write_text(
    writer: &Writer,
    route: Route,
    words: &mut [u64],
    fixed_len: usize,
    text: &[u8],
    spot: *const (),
) -> Result<(), Refused> {
    let room = PAYLOAD_LIMIT - 1 - fixed_len;
    let text = if text.len() > room { cut(text, room) } else { text };
    // As the kernel packs it: the length, with the NUL, in the upper half, the offset in the lower.
    let place = (text.len() as u64 + 1) << 16 | fixed_len as u64;
    words[(fixed_len - 4) / 8] |= place << ((fixed_len - 4) % 8 * 8);
    // A word more than the limit: the last one may be written for nothing.
    let mut payload = [MaybeUninit::<u64>::uninit(); PAYLOAD_LIMIT / 8 + 2];
    let whole = fixed_len / 8;
    for (to, word) in payload.iter_mut().zip(&words[..whole]) {
        store(to, *word);
    }
    let (chunks, rest) = text.as_chunks::<8>();
    let to = &mut payload[whole..whole + chunks.len() + 2];
    if fixed_len.is_multiple_of(8) {
        for (to, chunk) in to.iter_mut().zip(chunks) {
            store(to, u64::from_le_bytes(*chunk));
        }
        to[chunks.len()].write(short_word(rest));
    } else {
        let mut before = words[whole];
        for (to, chunk) in to.iter_mut().zip(chunks) {
            let word = u64::from_le_bytes(*chunk);
            to.write(before | word << 32);
            before = word >> 32;
        }
        let word = short_word(rest);
        to[chunks.len()].write(before | word << 32);
        to[chunks.len() + 1].write(word >> 32);
    }
    let len = (fixed_len + text.len() + 1).next_multiple_of(4);
    // SAFETY: the words up to the last of the text, its NUL and the zeros behind it were just written.
    let payload = unsafe { std::slice::from_raw_parts(payload.as_ptr().cast::<u8>(), len) };
    write_payload(writer, route, payload, spot)
}

/// Stores a word as such: the compiler would make one copy of several, whose wide loads of what was just stored in words
/// stall for longer than the whole event takes.
#[inline(always)]
fn store(to: &mut MaybeUninit<u64>, word: u64) {
    // SAFETY: a place of this function's caller.
    unsafe { to.as_mut_ptr().write_volatile(word) };
}

/// The word of 0 to 7 bytes, zero behind them.
#[inline(always)]
fn short_word(bytes: &[u8]) -> u64 {
    let len = bytes.len();
    // Two loads that overlap instead of one for each byte.
    if let (Some(&low), Some(&high)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        return u64::from(u32::from_le_bytes(low)) | u64::from(u32::from_le_bytes(high)) << (8 * (len - 4));
    }
    bytes.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte))
}

/// A payload with strings or slices. [any]
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ringtap_write_tails(
    event: *const Event,
    words: *mut u64,
    tails: *const Bytes,
) -> c_int {
    // SAFETY: as the header says.
    let Some((known, route, writer)) = (unsafe { at_hand(event) }) else { return Code::Off as c_int };
    // SAFETY: as the header says: as many words as the fixed part has, and three at least.
    let words = unsafe { std::slice::from_raw_parts_mut(words, known.fixed_len.div_ceil(8)) };
    let (pid, spot) = thread::get();
    words[0] = common(route, pid);
    if known.ends_with_text {
        // SAFETY: as the header says: there is one.
        let text = unsafe { tail(tails) };
        return Code::from(write_text(writer, route, words, known.fixed_len, text.bytes, spot)) as c_int;
    }
    let fields = &known.dynamic;
    let written = match fields.len() {
        1 => {
            // SAFETY: as the header says: there is one for each such field.
            let tail = unsafe { tail(tails) };
            write_tails(writer, route, words, known.fixed_len, fields, &mut [tail])
        }
        count => {
            let mut all = [Tail { bytes: &[] }; MAX_TAILS];
            for (index, tail_of) in all.iter_mut().enumerate().take(count) {
                // SAFETY: as above.
                let bytes = unsafe { tails.add(index) };
                // SAFETY: as above.
                *tail_of = unsafe { tail(bytes) };
            }
            write_tails(writer, route, words, known.fixed_len, fields, &mut all[..count])
        }
    };
    Code::from(written) as c_int
}

/// # Safety
/// They live as long as the result.
unsafe fn tail<'b>(bytes: *const Bytes) -> Tail<'b> {
    // SAFETY: as the caller says.
    let bytes = unsafe { *bytes };
    // SAFETY: as above.
    Tail { bytes: unsafe { bytes.as_slice() } }
}

/// Puts a text into a field of fixed size. [any]
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ringtap_put_text(
    words: *mut u64,
    at: usize,
    size: usize,
    text: *const c_char,
) {
    if text.is_null() || size == 0 {
        return;
    }
    // SAFETY: a text of C; no more of it is looked at than the field could hold.
    let len = unsafe { libc::strnlen(text, size) };
    // SAFETY: as above: so many bytes are there.
    let text = cut(unsafe { std::slice::from_raw_parts(text.cast::<u8>(), len) }, size - 1);
    for (index, &byte) in text.iter().enumerate() {
        let at = at + index;
        // SAFETY: as the header says: the field lies in the words.
        let word = unsafe { words.add(at / 8) };
        // SAFETY: as above.
        unsafe { *word |= u64::from(byte) << (at % 8 * 8) };
    }
}

/// `ringtap_print`. [any]
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ringtap_print(text: *const c_char) -> c_int {
    if text.is_null() {
        return Code::Argument as c_int;
    }
    // SAFETY: as the header says.
    print(unsafe { CStr::from_ptr(text) }.to_bytes())
}

/// `ringtap_print_n`. [any]
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ringtap_print_n(text: *const c_char, length: usize) -> c_int {
    // SAFETY: as the header says.
    print(unsafe { Bytes { start: text.cast(), length }.as_slice() })
}

fn print(text: &[u8]) -> c_int {
    let written = trace::writer().map(|writer| Code::from(marker::print(writer, text).map(drop)));
    written.unwrap_or(Code::Off) as c_int
}

/// `ringtap_print_raw`. [any]
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ringtap_print_raw(id: u32, bytes: *const u8, length: usize) -> c_int {
    // SAFETY: as the header says.
    let bytes = unsafe { Bytes { start: bytes, length }.as_slice() };
    let written = trace::writer().map(|writer| Code::from(marker::raw_data(writer, id, bytes)));
    written.unwrap_or(Code::Off) as c_int
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_words_are_their_bytes() {
        let bytes = [1, 2, 3, 4, 5, 6, 7];
        for len in 0..=7 {
            let mut word = [0; 8];
            word[..len].copy_from_slice(&bytes[..len]);
            assert_eq!(short_word(&bytes[..len]), u64::from_le_bytes(word));
        }
    }
}

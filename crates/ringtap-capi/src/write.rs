//! Writing events and markers: what may be called from anywhere, allocates nothing and takes no lock.

use crate::error::Code;
use crate::event::{Event, Known};
use crate::{process, thread};
use ringtap::event::private::{Tail, cut, view, write_tails};
use ringtap::event::{Common, Route, marker};
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
        // No memory is longer; whoever says so, such as by -1, is told that it is too large.
        let length = self.length.min(isize::MAX.cast_unsigned());
        // SAFETY: as the caller says.
        unsafe { std::slice::from_raw_parts(self.start, length) }
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
    Some((known, known.declared.route()?, process::writer()?))
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
    dispatch!(3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24)
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
    words[0] = common(route, thread::get().0);
    let fields = &known.dynamic;
    let mut all = [const { MaybeUninit::<Tail<'_>>::uninit() }; MAX_TAILS];
    let all = &mut all[..fields.len()];
    for (index, place) in all.iter_mut().enumerate() {
        // SAFETY: as the header says: there is one for each such field.
        let bytes = unsafe { tails.add(index) };
        // SAFETY: as above.
        place.write(unsafe { tail(bytes) });
    }
    // SAFETY: all were just written.
    let all = unsafe { all.assume_init_mut() };
    Code::from(write_tails(writer, route, words, known.fixed_len, fields, all)) as c_int
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
    let written = process::writer().map(|writer| Code::from(marker::print(writer, text).map(drop)));
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
    let written = process::writer().map(|writer| Code::from(marker::raw_data(writer, id, bytes)));
    written.unwrap_or(Code::Off) as c_int
}

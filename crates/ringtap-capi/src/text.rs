//! Texts from and to C.

use crate::error::Error;
use std::ffi::{CStr, c_char};

/// A text from C, copied.
///
/// # Safety
/// It is null or ends with a NUL.
pub(crate) unsafe fn copied(text: *const c_char, what: &str) -> Result<String, Error> {
    // SAFETY: as the caller says.
    unsafe { optional(text, what) }?.ok_or_else(|| Error::null(what))
}

/// As [`copied`]; `None` for null.
///
/// # Safety
/// It is null or ends with a NUL.
pub(crate) unsafe fn optional(text: *const c_char, what: &str) -> Result<Option<String>, Error> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: as the caller says.
    let text = unsafe { CStr::from_ptr(text) };
    let text = text.to_str().map_err(|_| Error::argument(&format!("{what} is not UTF-8")))?;
    Ok(Some(text.to_owned()))
}

/// Writes a text as snprintf does: with a NUL, cut to `size` bytes. Its whole length.
///
/// # Safety
/// `to` has `size` bytes, or is null: then nothing is written.
pub(crate) unsafe fn put(text: &[u8], to: *mut c_char, size: usize) -> usize {
    if let Some(room) = size.checked_sub(1).filter(|_| !to.is_null()) {
        let len = text.len().min(room);
        // SAFETY: no more than the caller's bytes, which are not ours.
        unsafe { to.cast::<u8>().copy_from_nonoverlapping(text.as_ptr(), len) };
        // SAFETY: as above: `len` is less than `size`.
        let end = unsafe { to.add(len) };
        // SAFETY: as above.
        unsafe { end.write(0) };
    }
    text.len()
}

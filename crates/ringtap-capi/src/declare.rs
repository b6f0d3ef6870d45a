//! Declaring events, and asking about them, from C.

use crate::error::{Code, Error, guard, guard_len, guard_value};
use crate::event::{Description, Event};
use crate::{process, text};
use std::ffi::{c_char, c_int, c_long};
use std::fmt::Write;

/// `ringtap_declare`. [thread]
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ringtap_declare(event: *mut Event) -> c_int {
    guard(|| {
        // SAFETY: as the header says: it stays until it is forgotten.
        let event = unsafe { event.cast_const().as_ref() }.ok_or_else(|| Error::null("the event"))?;
        // SAFETY: as the header says.
        let description = unsafe { Description::read(event) }?;
        process::declare(event, &description)
    })
}

/// `ringtap_forget`. [thread]
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ringtap_forget(event: *mut Event) {
    guard_value((), || process::forget(event));
}

/// `ringtap_event_id`. [any]
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ringtap_event_id(event: *const Event) -> c_int {
    // SAFETY: as the header says.
    let known = unsafe { event.as_ref() }.and_then(Event::known);
    known.and_then(|known| known.declared.id()).unwrap_or(0).into()
}

/// `ringtap_event_set_on`. [thread]
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ringtap_event_set_on(event: *mut Event, on: c_int) -> c_int {
    guard(|| {
        // SAFETY: as the header says.
        let event = unsafe { event.cast_const().as_ref() }.ok_or_else(|| Error::null("the event"))?;
        let known = event.known().ok_or_else(|| Error::argument("the event is not declared"))?;
        known.declared.set_on(on != 0);
        process::refresh();
        Ok(Code::Ok)
    })
}

/// `ringtap_event_format`. [thread]
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ringtap_event_format(
    event: *const Event,
    to: *mut c_char,
    size: usize,
) -> c_long {
    guard_len(|| {
        // SAFETY: as the header says.
        let event = unsafe { event.as_ref() }.ok_or_else(|| Error::null("the event"))?;
        let known = event.known().ok_or_else(|| Error::argument("the event is not declared"))?;
        let mut format = String::new();
        let _ = write!(format, "{}", known.declared.format(None));
        // SAFETY: as the header says.
        Ok(unsafe { text::put(format.as_bytes(), to, size) })
    })
}

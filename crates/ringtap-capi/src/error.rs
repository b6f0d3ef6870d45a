//! What functions return, and the sentence behind it.

use ringtap::attach::AttachError;
use ringtap::event::EventError;
use ringtap::serve::ServeError;
use ringtap::{HostError, ReadError, Refused};
use std::cell::RefCell;
use std::ffi::{CString, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The header's `enum ringtap_result`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub(crate) enum Code {
    Ok = 0,
    None = 1,
    Off = 2,
    Argument = -1,
    System = -2,
    Host = -3,
    Busy = -4,
    Damaged = -5,
    Full = -6,
    TooLarge = -7,
    State = -8,
    Internal = -9,
}

impl From<Result<(), Refused>> for Code {
    fn from(written: Result<(), Refused>) -> Self {
        match written {
            Ok(()) => Self::Ok,
            Err(Refused::Off) => Self::Off,
            Err(Refused::Full | Refused::Retired) => Self::Full,
            Err(Refused::TooLarge) => Self::TooLarge,
            Err(Refused::Busy) => Self::Busy,
            Err(Refused::Unusable) => Self::Damaged,
        }
    }
}

/// Why a function failed.
#[derive(Debug)]
pub(crate) struct Error {
    code: Code,
    message: String,
}

impl Error {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub(crate) fn argument(message: &str) -> Self {
        Self::new(Code::Argument, message)
    }

    pub(crate) fn null(what: &str) -> Self {
        Self::new(Code::Argument, format!("{what} is a null pointer"))
    }

    fn of(code: Code, error: &dyn std::error::Error) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            // Some errors say what is behind them themselves.
            let said = error.to_string();
            if !message.contains(&said) {
                message = format!("{message}: {said}");
            }
            source = error.source();
        }
        Self { code, message }
    }
}

impl From<AttachError> for Error {
    fn from(error: AttachError) -> Self {
        Self::of(if error.is_busy() { Code::Busy } else { Code::Host }, &error)
    }
}

impl From<HostError> for Error {
    fn from(error: HostError) -> Self {
        let code = match error {
            HostError::Claimed { .. } | HostError::Busy(_) => Code::Busy,
            HostError::Damaged(_) => Code::Damaged,
            HostError::NoSuchCpu(_) | HostError::Percent(_) => Code::Argument,
            _ => Code::System,
        };
        Self::of(code, &error)
    }
}

impl From<ReadError> for Error {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Host(error) => error.into(),
            ReadError::Attach(error) => error.into(),
            ReadError::Damaged { .. } => Self::of(Code::Damaged, &error),
            ReadError::Busy(_) => Self::of(Code::Busy, &error),
            _ => Self::of(Code::System, &error),
        }
    }
}

impl From<ServeError> for Error {
    fn from(error: ServeError) -> Self {
        Self::of(Code::System, &error)
    }
}

impl From<EventError> for Error {
    fn from(error: EventError) -> Self {
        Self::of(Code::Host, &error)
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::of(Code::System, &error)
    }
}

thread_local! {
    static LAST: RefCell<CString> = RefCell::default();
}

/// Runs what a function of the header does: an error becomes its code and the thread's last sentence, a panic becomes an
/// error.
pub(crate) fn guard(call: impl FnOnce() -> Result<Code, Error>) -> c_int {
    match unwound(call) {
        Ok(code) => code as c_int,
        Err(error) => error.tell(),
    }
}

/// As [`guard`], where a success is a number that is not negative.
pub(crate) fn guard_len(call: impl FnOnce() -> Result<usize, Error>) -> std::ffi::c_long {
    match unwound(call) {
        Ok(len) => len.try_into().unwrap_or(std::ffi::c_long::MAX),
        Err(error) => error.tell().into(),
    }
}

/// As [`guard`], of a function that cannot fail.
pub(crate) fn guard_value<T>(otherwise: T, call: impl FnOnce() -> T) -> T {
    unwound(|| Ok(call())).unwrap_or(otherwise)
}

fn unwound<T>(call: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    // What a panic left half done is behind locks that say so, or belongs to a handle that is then of no more use.
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| {
        Err(Error::new(Code::Internal, "a defect of ringtap: please report what stands on stderr"))
    })
}

impl Error {
    fn tell(self) -> c_int {
        let mut message = self.message.into_bytes();
        message.retain(|&byte| byte != 0);
        let message = CString::new(message).unwrap_or_default();
        // While the thread ends, there is nobody left to ask.
        let _ = LAST.try_with(|last| last.replace(message));
        self.code as c_int
    }
}

/// The sentence of the calling thread's last error. [thread]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn ringtap_last_error() -> *const c_char {
    LAST.try_with(|last| last.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}

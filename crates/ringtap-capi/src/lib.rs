//! The C library: `include/ringtap.h` is its documentation, docs/c.md its guide.
//!
//! The way of an event: the header's macros `declare` it as a static `event::Event`, which the library makes known to the
//! `process`; they look whether it is on, build its words, and call `write`. `trace` begins and ends; `host` and `reader`
//! are for those who read.
//!
//! `unsafe` stands here because C hands over addresses. Each function's contract is the header's; what a function takes is
//! checked for null, and trusted to be what the header says beyond that.

mod arrow;
mod batch;
mod declare;
mod error;
mod event;
mod fork;
mod host;
mod process;
mod reader;
mod switches;
mod text;
mod thread;
mod trace;
mod write;

/// The library's version. [any]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn ringtap_version() -> *const std::ffi::c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}

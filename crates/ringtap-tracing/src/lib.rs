//! Spans and events of [`tracing`], and records of [`log`], as ringtap events.
//!
//! Two lines in `main` and a program is traced: always on, for little more than the price of reading the clock, into
//! memory that survives it where a host holds it, readable live and by the kernel's tracing tools.
//!
//! ```
//! let _session = ringtap_tracing::init()?;
//! tracing::info!(user = 7, "ready");
//! # Ok::<(), ringtap_tracing::InitError>(())
//! ```
//!
//! See [`init`] for where events go and [`Builder`] for the rest.
//!
//! [`tracing`]: https://docs.rs/tracing
//! [`log`]: https://docs.rs/log

#![forbid(unsafe_code)]

/// The page for users, whose examples run.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/tracing.md")]
mod page {}

mod callsite;
mod layer;
mod names;
mod record;
mod recorder;
mod session;
mod source;
mod spans;
mod subscriber;

pub use layer::Layer;
pub use session::{Builder, InitError, Session, init};
pub use subscriber::Subscriber;

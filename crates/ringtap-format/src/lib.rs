//! Decode trace records: the kernel's format files, fields, print formats, filters and text.
//!
//! Bytes in, values out: nothing here opens a file or keeps state between records.
//!
//! ```
//! use ringtap_format::{Context, Dialect, Formats, Strings, Symbols, Target};
//!
//! let mut formats = Formats::new(Target::LE64, Dialect::Kernel);
//! formats.add("ipi", concat!(
//!     "name: ipi_raise\nID: 77\nformat:\n",
//!     "\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\n",
//!     "\tfield:int cpu;\toffset:8;\tsize:4;\tsigned:1;\n\n",
//!     "print fmt: \"cpu=%d (%s)\", REC->cpu, REC->cpu > 7 ? \"far\" : \"near\"\n",
//! ))?;
//!
//! let record = [77, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0];
//! let event = formats.of_record(&record).unwrap();
//! let cpu = event.field("cpu").unwrap().int(&record, formats.target());
//! assert_eq!(cpu, Some(9));
//!
//! let context = Context { symbols: &Symbols::default(), strings: &Strings::default(), hz: None };
//! let mut text = Vec::new();
//! event.print(&record, &context, &mut text).unwrap();
//! assert_eq!(text, b"cpu=9 (far)");
//! # Ok::<(), ringtap_format::FormatError>(())
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic
    )
)]

pub mod btf;
pub mod check;
#[cfg(feature = "chrome")]
pub mod chrome;
mod constants;
#[cfg(feature = "ctf")]
pub mod ctf;
mod dialect;
mod event;
pub mod filter;
pub mod format;
mod hash;
pub mod header;
pub mod merge;
#[cfg(feature = "model")]
pub mod model;
mod out;
pub mod page;
#[cfg(feature = "perfetto")]
pub mod perfetto;
mod print;
mod symbols;
mod target;
pub mod text;
pub mod trace_dat;
pub mod trigger;
mod value;

pub use constants::Constants;
pub use dialect::Dialect;
pub use event::{Event, Formats};
pub use filter::{Filter, FilterError, LowerError};
pub use format::{Field, Format, FormatError};
pub use print::{Context, Stop, Unprintable};
pub use symbols::{Resolved, Strings, Symbols, Tasks};
pub use target::{ByteOrder, Target};
pub use value::{IntField, Value};

//! Sub-buffers of events whose formats are right, through everything that makes text.
#![no_main]

use ringtap_format::text::Sources;
use ringtap_format::trace_dat::TraceDat;
use ringtap_format::{Constants, Dialect, Formats, Strings, Symbols, Tasks};
use std::sync::LazyLock;

static CAPTURE: &[u8] = include_bytes!("../../compliance/capture.dat");

struct Known {
    formats: Formats,
    symbols: Symbols,
    strings: Strings,
    tasks: Tasks,
}

static KNOWN: LazyLock<Known> = LazyLock::new(|| {
    let file = TraceDat::open(&CAPTURE).unwrap();
    let (formats, _) = file.events(Dialect::Kernel, false, Constants::new());
    Known {
        formats,
        symbols: Symbols::parse(&file.kallsyms),
        strings: Strings::parse(&file.printk_formats),
        tasks: Tasks::parse(&file.tasks),
    }
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Known { formats, symbols, strings, tasks } = &*KNOWN;
    ringtap_format::check::check_pages(bytes, Sources { formats, tasks, symbols, strings });
});

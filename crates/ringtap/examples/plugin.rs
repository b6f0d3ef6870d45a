//! A shared library that traces what it does, as a plug-in would that is loaded and unloaded again.

use ringtap::{Config, Host, Writer};
use std::sync::OnceLock;

static TRACE: OnceLock<(Host, Writer)> = OnceLock::new();

/// Does its work; the number of events written.
#[unsafe(no_mangle)]
pub extern "C" fn work() -> u32 {
    let (_host, writer) = TRACE.get_or_init(|| {
        let host = Host::new(&Config { ring_subbufs: 2, ..Config::default() }).expect("there is memory");
        let writer = host.writer();
        (host, writer)
    });
    (0..100u32).map(|number| u32::from(writer.write_array(&number.to_le_bytes()).is_ok())).sum()
}

//! An application for trials of a host: it attaches, early or late, and writes as many numbered events as each line that it
//! reads says.
//!
//! ```text
//! ringtap serve --socket /tmp/app.sock &
//! (echo 1000; sleep 60) | RINGTAP_SOCKET=/tmp/app.sock cargo run -p ringtap --example ticks
//! ringtap start --attach /tmp/app.sock -e ticks:tick
//! ```

use ringtap::attach::{Attachment, Early, SOCKET_VARIABLE};
use ringtap::serve::default_path;
use std::io::BufRead;
use std::path::PathBuf;

ringtap::event! {
    /// One of all that are written, by its number.
    pub struct Tick as ticks:tick { number: u64 }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let socket = std::env::var_os(SOCKET_VARIABLE)
        .map_or_else(|| default_path("default"), |path| Ok(PathBuf::from(path)))?;
    let attachment = Attachment::attach_early(&socket, Early::Off)?;
    Tick::register(&attachment)?;
    let writer = attachment.writer();
    let mut numbers = 0u64..;
    let (mut written, mut refused) = (0u64, 0u64);
    for line in std::io::stdin().lock().lines() {
        let count = line?.trim().parse()?;
        for number in numbers.by_ref().take(count) {
            match (Tick { number }).try_write(&writer) {
                Ok(()) => written += 1,
                Err(_) => refused += 1,
            }
        }
        println!("{written} written, {refused} refused, attached: {}", attachment.is_attached());
    }
    Ok(())
}

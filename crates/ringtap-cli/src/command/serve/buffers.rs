//! The buffers that a host is made with, as its commands' arguments say it.

use anyhow::{Context, Result};
use ringtap::clock::ClockId;
use ringtap::{Config, Instances, Mode};
use ringtap_abi::Geometry;
use ringtap_daemon::control::Control;
use ringtap_daemon::fs::{Ownership, Tree};

/// What was typed.
#[derive(Clone, Debug, clap::Args)]
#[group(id = "buffers")]
pub struct Args {
    /// Size of each CPU's buffer, in KiB
    #[arg(long, value_name = "KIB", default_value_t = 1408, value_parser = clap::value_parser!(u32).range(1..))]
    buffer_size: u32,
    /// Size of a sub-buffer, in KiB: a power of two from 4 to 512
    #[arg(long, value_name = "KIB", default_value_t = 4, value_parser = parse_subbuf_kib)]
    subbuf_size: u32,
    /// Refuse new events when a buffer is full, instead of overwriting the oldest
    #[arg(long)]
    discard: bool,
}

/// Parses the size of a sub-buffer, in KiB.
///
/// # Errors
/// What is wrong with it, for the user.
pub fn parse_subbuf_kib(text: &str) -> Result<u32, String> {
    let size = text.parse().ok().filter(|size: &u32| size.is_power_of_two() && (4..=512).contains(size));
    size.ok_or_else(|| "must be a power of two from 4 to 512".to_owned())
}

impl Args {
    /// As a host's configuration.
    ///
    /// # Errors
    /// Impossible sizes.
    pub fn config(&self) -> Result<Config> {
        let bytes = u64::from(self.buffer_size) * 1024;
        let geometry =
            Geometry::for_bytes(self.subbuf_size * 1024, bytes).context("the buffers are impossible")?;
        Ok(Config {
            subbuf_size: geometry.subbuf_size(),
            ring_subbufs: geometry.ring_subbufs(),
            mode: if self.discard { Mode::Discard } else { Mode::Overwrite },
            // Readers of a tracefs expect nanoseconds, as the kernel's own clock counts them.
            clock: Some(ClockId::Mono),
            ..Config::default()
        })
    }

    /// A host with these buffers, and its tree.
    ///
    /// # Errors
    /// Impossible sizes, or no memory.
    pub fn tree(&self, ownership: Ownership) -> Result<Tree> {
        let instances = Instances::new(&self.config()?).context("cannot make the buffers")?;
        Ok(Tree::new(Control::new(instances), ownership))
    }
}

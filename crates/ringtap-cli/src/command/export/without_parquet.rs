//! What stands in for Parquet in a program that was built without it.

use super::Args;
use super::exporter::Exporter;
use crate::command::report::Item;
use anyhow::{Result, bail};

/// There is nothing to find out.
#[derive(Debug)]
pub(super) enum Survey {}

impl Survey {
    pub(super) const fn of(_: &Args) -> Option<Self> {
        None
    }

    pub(super) const fn see(&mut self, _: &Item<'_>) {}
}

/// Never made.
pub(super) enum Parquet {}

impl Parquet {
    /// # Errors
    /// Always.
    pub(super) fn create(_: &Args, _: Option<Survey>) -> Result<Self> {
        bail!(
            "this ringtap was built without Parquet; build it with `cargo build --release -p ringtap-cli --features parquet`"
        )
    }
}

impl Exporter for Parquet {
    fn item(&mut self, _: &Item<'_>) -> Result<()> {
        match *self {}
    }

    fn finish(&mut self) -> Result<()> {
        match *self {}
    }
}

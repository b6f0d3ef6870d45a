//! What every format's writer does.

use crate::command::report::{Item, What};
use anyhow::Result;
use std::fmt;

/// Writes a trace's records in some format.
pub(super) trait Exporter {
    /// Takes a record, or what stands in its place; in the order of their time.
    ///
    /// # Errors
    /// The output cannot be written to.
    fn item(&mut self, item: &Item<'_>) -> Result<()>;

    /// Completes what was written.
    ///
    /// # Errors
    /// The output cannot be written to.
    fn finish(&mut self) -> Result<()>;

    /// What the user should know of it.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }
}

/// What was written.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    events: u64,
    lost: u64,
    unknown_losses: u64,
}

impl Totals {
    pub(super) const fn add(&mut self, item: &Item<'_>) {
        match item.what {
            What::Record(_) => self.events += 1,
            What::Lost(Some(count)) => self.lost = self.lost.saturating_add(count),
            What::Lost(None) => self.unknown_losses += 1,
        }
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} events, {} lost", self.events, self.lost)?;
        match self.unknown_losses {
            0 => Ok(()),
            1 => write!(f, " and once nobody knows how many"),
            times => write!(f, " and {times} times nobody knows how many"),
        }
    }
}

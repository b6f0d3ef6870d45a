//! What decides, in the writing process and before the record is written, whether and what an event does.
//!
//! [`Publisher`] is the host's side: it lays [`Rules`] into shared memory, in the layout of
//! [`ringtap_abi::rules`]. [`write()`] is a writer's: it comes here where an event's word has the RULES bit, finds out
//! which instances record the event and which triggers fire, and has it done through [`Actor`]. All of that is
//! async-signal-safe: nothing allocates, locks or waits.
//!
//! As in the kernel, triggers fire whether or not the event is recorded. Those of an event of which none has a filter
//! or needs the record act before it is written, so that `traceoff` keeps it out; else all act behind it.

mod block;
mod decide;
mod error;
pub(crate) mod forks;
mod hist;
mod publish;
mod space;
mod stack;
#[cfg(test)]
mod tests;

pub use block::{Action, Hist, Rules, Trigger};
pub use decide::{Actor, Event, write};
pub use error::RulesError;
pub use hist::{HistRow, HistTotals};
pub use publish::{HasRegion, Publisher};
pub use ringtap_abi::rules::{Counter, PidList, Region};

//! Commands that set what a host traces, in the words of trace-cmd: each is a few writes to the files of its tree.

mod changes;
mod choices;
pub mod instance;
pub mod list;
pub mod reset;
pub mod set;
pub mod show;
pub mod snapshot;
pub mod start;
pub mod stop;

//! A host's switchboard, for who wants to know what it says: events and threads.

use super::connection::Connection;
use super::error::AttachError;
use crate::board::Board;
use crate::event::registry::Event;
use crate::instance::tasks::{self, Task};
use ringtap_abi::control::split_event;
use std::sync::Arc;

/// What a host shares besides its buffers, mapped: it can be read when the host is dead.
#[derive(Clone, Debug)]
pub struct Switchboard {
    board: Arc<Board>,
}

impl Connection {
    /// What the host's memory tells of its events and threads. Writers alone, since it can be written.
    ///
    /// # Errors
    /// [`AttachError`].
    pub fn switchboard(&self) -> Result<Switchboard, AttachError> {
        Ok(Switchboard { board: Arc::clone(self.board()?) })
    }
}

impl Switchboard {
    /// The events that were declared, but for those that each host has from the start.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        let formats = self.board.formats().into_iter();
        let events = formats.filter_map(|(id, text)| {
            let (system, name, format) = split_event(text.as_bytes())?;
            Some(Event { id, system: system.to_owned(), name: name.to_owned(), format: format.to_owned() })
        });
        events.collect()
    }

    /// The threads that wrote events, by their ids: as lossy as the kernel's `saved_cmdlines`.
    #[must_use]
    pub fn tasks(&self) -> Vec<Task> {
        tasks::all(&self.board)
    }
}

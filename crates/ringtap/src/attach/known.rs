//! Declaring many events with a host that may know them already, as it does where many processes run the same program.

use super::connection::Connection;
use super::error::AttachError;
use crate::board::Board;
use crate::event::Register;
use crate::event::registry::same_format;
use crate::event::switch::Word;
use ringtap_abi::control::split_event;
use std::collections::HashMap;

/// What a host knew at one moment. Events that it has are declared without asking it; for the others it is asked.
#[derive(Debug)]
pub struct KnownEvents<'c> {
    connection: &'c Connection,
    /// By system and name: id and format.
    events: HashMap<(String, String), (u16, String)>,
}

impl Connection {
    /// The events that the host knows, read at once: for who declares many.
    ///
    /// # Errors
    /// [`AttachError`].
    pub fn known_events(&self) -> Result<KnownEvents<'_>, AttachError> {
        let descriptor = self.switchboard_descriptor(0)?.0;
        // Not the process's shared mapping: their log is read by a descriptor, which that one may not have kept.
        let board = Board::open(descriptor).map_err(|source| AttachError::Switchboard { source })?;
        Ok(KnownEvents::new(self, &board))
    }
}

impl<'c> KnownEvents<'c> {
    fn new(connection: &'c Connection, board: &Board) -> Self {
        let event = |(id, text): (u16, String)| {
            let (system, name, format) = split_event(text.as_bytes())?;
            Some(((system.to_owned(), name.to_owned()), (id, format.to_owned())))
        };
        Self { connection, events: board.formats().into_iter().filter_map(event).collect() }
    }
}

impl Register for KnownEvents<'_> {
    type Error = AttachError;

    fn register_event(&self, system: &str, name: &str, format: &str) -> Result<u16, AttachError> {
        match self.events.get(&(system.to_owned(), name.to_owned())) {
            Some((id, known)) if same_format(known, format) => Ok(*id),
            // One that differs is refused, with the host's sentence.
            _ => self.connection.register_event(system, name, format),
        }
    }

    fn declare(&self, system: &str, name: &str, format: &str) -> Result<(u16, Option<Word>), AttachError> {
        let id = self.register_event(system, name, format)?;
        Ok((id, Some(Word::new(self.connection.board()?.word_for_ever(id)))))
    }
}

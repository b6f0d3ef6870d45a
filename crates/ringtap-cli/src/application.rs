//! A ringtap host's events, learnt as programs declare them.

use crate::decode::Decoder;
use anyhow::{Context, Result};
use ringtap::Host;
use ringtap::attach::Connection;
use ringtap::tracefs::EventName;
use ringtap_format::Dialect;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Who knows the events.
#[derive(Clone, Debug)]
pub enum Registry {
    /// The host of this process.
    Here(Host),
    /// The host of another one.
    There(Arc<Connection>),
}

impl Registry {
    /// The events with ids above `id`: system and format text of each, by id.
    ///
    /// # Errors
    /// The host is gone.
    pub fn after(&self, id: u16) -> Result<Vec<(u16, EventName, String)>> {
        let named = |id, system: &str, name: &str, format: &str| {
            (id, EventName { system: system.to_owned(), name: name.to_owned() }, format.to_owned())
        };
        match self {
            Self::Here(host) => {
                let events = host.events().into_iter().filter(|event| event.id > id);
                Ok(events.map(|event| named(event.id, &event.system, &event.name, &event.format)).collect())
            }
            Self::There(connection) => {
                let (mut events, mut last) = (Vec::new(), id);
                while let Some(event) =
                    connection.next_event(last).context("cannot learn the host's events")?
                {
                    last = event.id;
                    events.push(named(event.id, &event.system, &event.name, &event.format));
                }
                Ok(events)
            }
        }
    }
}

/// Decodes a host's records.
#[derive(Debug)]
pub struct Application {
    /// Knows the events learnt so far.
    pub decoder: Decoder,
    registry: Registry,
    /// The events learnt so far.
    pub events: Vec<EventName>,
    last_id: u16,
    /// Ids that no event has. Nobody is asked twice about one: a writer can put any id into its records.
    unknown: BTreeSet<u16>,
    /// Whether an event is wanted, by its id.
    wanted: HashMap<u16, bool>,
}

impl Application {
    /// Learns the events declared so far, to be printed in this dialect.
    ///
    /// # Errors
    /// The host is gone.
    pub fn new(registry: Registry, dialect: Dialect) -> Result<Self> {
        let (decoder, events, unknown) = (Decoder::of_application(dialect), Vec::new(), BTreeSet::new());
        let mut application = Self { decoder, registry, events, last_id: 0, unknown, wanted: HashMap::new() };
        application.learn()?;
        Ok(application)
    }

    /// Sees to it that the event of this record is known, if anybody knows it.
    ///
    /// # Errors
    /// The host is gone.
    pub fn prepare(&mut self, record: &[u8]) -> Result<()> {
        let Some(&id) = record.first_chunk() else { return Ok(()) };
        // As the writer, which runs on this machine, stored it.
        let id = u16::from_le_bytes(id);
        if self.decoder.event(record).is_none() && !self.unknown.contains(&id) {
            self.learn()?;
            if self.decoder.event(record).is_none() {
                self.unknown.insert(id);
            }
        }
        Ok(())
    }

    /// Whether a record's event is one of those wanted. An unknown event is nobody's, and wanted only with all.
    pub fn admits(&mut self, record: &[u8], is_wanted: impl Fn(&EventName) -> bool) -> bool {
        let name = |event: &ringtap_format::Event| EventName {
            system: event.system().to_owned(),
            name: event.name().to_owned(),
        };
        let nobody = || EventName { system: String::new(), name: String::new() };
        let Some(&id) = record.first_chunk() else { return is_wanted(&nobody()) };
        let decoder = &self.decoder;
        *self
            .wanted
            .entry(u16::from_le_bytes(id))
            .or_insert_with(|| is_wanted(&decoder.event(record).map_or_else(nobody, name)))
    }

    fn learn(&mut self) -> Result<()> {
        for (id, name, format) in self.registry.after(self.last_id)? {
            self.decoder.learn(&name.system, &format);
            self.last_id = id;
            self.events.push(name);
        }
        Ok(())
    }
}

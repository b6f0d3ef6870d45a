//! The events that are declared, as the files need them: by number, by name, by system.
//!
//! Events are only ever added. So what is known stays right, and is looked through again only where somebody asks for
//! what is not known, or for all.

use ringtap::event::registry::Event;
use ringtap_format::{Dialect, Formats, Target};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

/// The system whose events are the kernel's own and cannot be switched.
pub(crate) const FTRACE: &str = "ftrace";

/// All events at one time.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    by_id: BTreeMap<u16, Arc<Event>>,
    by_name: HashMap<(String, String), Arc<Event>>,
    /// By system; the events of one by number.
    systems: BTreeMap<String, Vec<Arc<Event>>>,
    formats: Mutex<Option<Arc<Formats>>>,
}

impl Catalog {
    pub(super) fn new(events: Vec<Arc<Event>>) -> Self {
        let mut catalog = Self::default();
        for event in events {
            catalog.systems.entry(event.system.clone()).or_default().push(Arc::clone(&event));
            catalog.by_name.insert((event.system.clone(), event.name.clone()), Arc::clone(&event));
            catalog.by_id.insert(event.id, event);
        }
        catalog
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(crate) fn by_id(&self, id: u16) -> Option<&Arc<Event>> {
        self.by_id.get(&id)
    }

    /// The event of this system and name.
    pub(crate) fn find(&self, system: &str, name: &str) -> Option<&Arc<Event>> {
        self.by_name.get(&(system.to_owned(), name.to_owned()))
    }

    /// The systems' names, each with its events.
    pub(crate) fn systems(&self) -> impl Iterator<Item = (&str, &[Arc<Event>])> {
        self.systems.iter().map(|(name, events)| (name.as_str(), events.as_slice()))
    }

    /// A system's events; none where there is no such system.
    pub(crate) fn system(&self, name: &str) -> &[Arc<Event>] {
        self.systems.get(name).map_or(&[], Vec::as_slice)
    }

    /// The events that can be switched on and off, by number.
    pub(crate) fn switchable(&self) -> impl Iterator<Item = &Arc<Event>> {
        self.by_id.values().filter(|event| event.system != FTRACE)
    }

    /// What decodes their records. An event whose format this crate cannot read is left out: its records are shown as of
    /// an unknown type.
    pub(crate) fn formats(&self) -> Arc<Formats> {
        let mut formats = self.formats.lock().unwrap_or_else(PoisonError::into_inner);
        let parse = || {
            let mut formats = Formats::new(Target::LE64, Dialect::Kernel);
            for event in self.by_id.values() {
                let _ = formats.add(&event.system, &event.format);
            }
            Arc::new(formats)
        };
        Arc::clone(formats.get_or_insert_with(parse))
    }
}

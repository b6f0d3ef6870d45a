//! A declared event of this process: its description, its id, and whether it is on.

use super::format::{self, Print};
use super::layout::{self, Field};
use super::registry::RegisterError;
use crate::attach::{AttachError, Connection};
use crate::host::Host;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

/// Set in [`Declared::state`] while the event is on; the bits below are its id, 0 while it has none.
const ON: u32 = 1 << 16;

/// Who gives events their ids: a host, or a connection to one.
pub trait Register {
    /// Why an event was refused.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Registers an event and returns its id, the same for the same description. `format` is the text of the
    /// kernel's `format` file; no number stands behind its `ID:`.
    ///
    /// # Errors
    /// Where the event cannot be registered, such as when another description has its name.
    fn register_event(&self, system: &str, name: &str, format: &str) -> Result<u16, Self::Error>;
}

impl Register for Host {
    type Error = RegisterError;

    fn register_event(&self, system: &str, name: &str, format: &str) -> Result<u16, RegisterError> {
        self.register_event(system, name, format)
    }
}

impl Register for Connection {
    type Error = AttachError;

    fn register_event(&self, system: &str, name: &str, format: &str) -> Result<u16, AttachError> {
        self.register_event(system, name, format)
    }
}

/// Why an event could not be registered.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// The instance refused it.
    #[error("failed to register the event {system}:{name}")]
    Refused {
        /// The event's system.
        system: &'static str,
        /// The event's name.
        name: &'static str,
        /// What the instance said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The process registered the event with another instance, where it has another id.
    #[error(
        "the event {system}:{name} has the id {given} here but {held} where this process registered it before: \
         unregister it there, or register the same events in the same order with both"
    )]
    OtherId {
        /// The event's system.
        system: &'static str,
        /// The event's name.
        name: &'static str,
        /// The id that this instance gives.
        given: u16,
        /// The id that the event has.
        held: u16,
    },
    /// The instance gave the id 0, which no event has.
    #[error("the event {system}:{name} was given the id 0, which no event can have: update the host")]
    NoId {
        /// The event's system.
        system: &'static str,
        /// The event's name.
        name: &'static str,
    },
}

/// An event as [`event!`](crate::event!) declared it. There is one of each in a process.
#[derive(Debug)]
pub struct Declared {
    /// [`ON`] and the id.
    state: AtomicU32,
    system: &'static str,
    name: &'static str,
    fields: &'static [Field],
    print: Option<Print>,
}

impl Declared {
    /// An event that is not registered.
    #[must_use]
    pub const fn new(
        system: &'static str,
        name: &'static str,
        fields: &'static [Field],
        print: Option<Print>,
    ) -> Self {
        let (system, name) = (layout::bare(system), layout::bare(name));
        Self { state: AtomicU32::new(0), system, name, fields, print }
    }

    /// The id while the event is on: the one load that a disabled event costs.
    #[inline(always)]
    #[must_use]
    pub fn id_if_on(&self) -> Option<u16> {
        // Relaxed: nothing is published by it, and an event about to be written while it is switched may be either.
        let state = self.state.load(Relaxed);
        #[expect(clippy::cast_possible_truncation, reason = "the bits below ON")]
        (state & ON != 0).then_some(state as u16)
    }

    /// The id, once the event is registered.
    #[must_use]
    pub fn id(&self) -> Option<u16> {
        match id_in(self.state.load(Relaxed)) {
            0 => None,
            id => Some(id),
        }
    }

    /// The part of the event's name before the colon.
    #[must_use]
    pub fn system(&self) -> &'static str {
        self.system
    }

    /// The part of the event's name behind the colon.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The event's own fields.
    #[must_use]
    pub fn fields(&self) -> &'static [Field] {
        self.fields
    }

    /// The kernel's `format` text: what to register without an id, and the `format` file with it. Allocates.
    #[must_use]
    pub fn format(&self, id: Option<u16>) -> String {
        format::text(self.name, id, self.fields, self.print.as_ref())
    }

    /// Registers the event and switches it on, unless it was registered before: then it stays as it is.
    ///
    /// # Errors
    /// [`EventError`].
    pub fn register<R: Register + ?Sized>(&self, with: &R) -> Result<u16, EventError> {
        let (system, name) = (self.system, self.name);
        let refused = |source: R::Error| EventError::Refused { system, name, source: Box::new(source) };
        let given = with.register_event(system, name, &self.format(None)).map_err(refused)?;
        if given == 0 {
            return Err(EventError::NoId { system, name });
        }
        // Relaxed: the state is one word and says all.
        match self.state.compare_exchange(0, ON | u32::from(given), Relaxed, Relaxed) {
            Err(state) if id_in(state) != given => {
                Err(EventError::OtherId { system, name, given, held: id_in(state) })
            }
            _ => Ok(given),
        }
    }

    /// Takes the event's id away, and so switches it off.
    pub fn unregister(&self) {
        self.state.store(0, Relaxed);
    }

    /// Switches a registered event on or off; without an id it stays off.
    pub fn set_on(&self, on: bool) {
        let switched = |state: u32| match (id_in(state), on) {
            (0, _) => None,
            (_, true) => Some(state | ON),
            (_, false) => Some(state & !ON),
        };
        // `Err` means that there was nothing to switch.
        let _ = self.state.fetch_update(Relaxed, Relaxed, switched);
    }
}

fn id_in(state: u32) -> u16 {
    #[expect(clippy::cast_possible_truncation, reason = "the bits below ON")]
    let id = state as u16;
    id
}

//! A declared event of this process: its description, its id, and whether it is on.

use super::format::{self, Print};
use super::layout::{self, Field};
use super::registry::RegisterError;
use super::switch::{Route, Switch, Word};
use crate::attach::{AttachError, Attachment, Connection};
use crate::host::Host;
use crate::instance::Instances;

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

    /// Registers an event, and returns its id with the word by which it is switched; `None` where nobody switches it:
    /// then it is always on.
    ///
    /// # Errors
    /// As [`register_event`](Self::register_event).
    fn declare(&self, system: &str, name: &str, format: &str) -> Result<(u16, Option<Word>), Self::Error> {
        Ok((self.register_event(system, name, format)?, None))
    }

    /// Is told of each switch that was registered here, so that it can be moved where the host is replaced.
    fn remember(&self, switch: &'static Switch, system: &str, name: &str, format: &str) {
        let _ = (switch, system, name, format);
    }
}

impl Register for Host {
    type Error = RegisterError;

    fn register_event(&self, system: &str, name: &str, format: &str) -> Result<u16, RegisterError> {
        self.register_event(system, name, format)
    }

    fn declare(&self, system: &str, name: &str, format: &str) -> Result<(u16, Option<Word>), RegisterError> {
        let id = self.register_event(system, name, format)?;
        Ok((id, Some(self.common().word(id))))
    }
}

impl Register for Instances {
    type Error = RegisterError;

    fn register_event(&self, system: &str, name: &str, format: &str) -> Result<u16, RegisterError> {
        self.register_event(system, name, format)
    }

    fn declare(&self, system: &str, name: &str, format: &str) -> Result<(u16, Option<Word>), RegisterError> {
        let id = self.register_event(system, name, format)?;
        Ok((id, Some(self.common().word(id))))
    }
}

impl Register for Connection {
    type Error = AttachError;

    fn register_event(&self, system: &str, name: &str, format: &str) -> Result<u16, AttachError> {
        self.register_event(system, name, format)
    }

    fn declare(&self, system: &str, name: &str, format: &str) -> Result<(u16, Option<Word>), AttachError> {
        let id = self.register_event(system, name, format)?;
        Ok((id, Some(Word::new(self.board()?.word_for_ever(id)))))
    }
}

impl Register for Attachment {
    type Error = AttachError;

    fn register_event(&self, system: &str, name: &str, format: &str) -> Result<u16, AttachError> {
        self.declare(system, name, format).map(|(id, _)| id)
    }

    fn declare(&self, system: &str, name: &str, format: &str) -> Result<(u16, Option<Word>), AttachError> {
        self.declare_event(system, name, format)
    }

    fn remember(&self, switch: &'static Switch, system: &str, name: &str, format: &str) {
        self.remember_switch(switch, system, name, format);
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
    switch: Switch,
    system: &'static str,
    name: &'static str,
    fields: &'static [Field],
    print: Option<Print>,
    manifest: &'static [u8],
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
        Self { switch: Switch::new(), system, name, fields, print, manifest: &[] }
    }

    /// With the declaration as the program's file has it, which [`manifests`](super::manifests) finds there.
    #[must_use]
    pub const fn with_manifest(self, manifest: &'static [u8]) -> Self {
        Self { manifest, ..self }
    }

    /// The declaration as the program's file has it; empty where it was made at run time.
    #[must_use]
    pub const fn manifest(&self) -> &'static [u8] {
        self.manifest
    }

    /// Where the event goes while it is on: the two loads that a disabled event costs.
    #[inline(always)]
    #[must_use]
    pub fn route(&self) -> Option<Route> {
        self.switch.route()
    }

    /// The id, once the event is registered.
    #[must_use]
    pub fn id(&self) -> Option<u16> {
        self.switch.id()
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

    /// Registers the event: from now on the host's word says whether it is on. Registered again, it stays on or off
    /// in this process as it was.
    ///
    /// # Errors
    /// [`EventError`].
    pub fn register<R: Register + ?Sized>(&'static self, with: &R) -> Result<u16, EventError> {
        let (system, name) = (self.system, self.name);
        let refused = |source: R::Error| EventError::Refused { system, name, source: Box::new(source) };
        // Looked at, so that it is kept in the program's file.
        std::hint::black_box(self.manifest);
        let format = self.format(None);
        let (given, word) = with.declare(system, name, &format).map_err(refused)?;
        if given == 0 {
            return Err(EventError::NoId { system, name });
        }
        let word = word.unwrap_or_else(|| Word::always_on(given));
        let other = |held| EventError::OtherId { system, name, given, held };
        self.switch.register(word).map_err(other)?;
        with.remember(&self.switch, system, name, &format);
        Ok(given)
    }

    /// Takes the event's id away, and so switches it off.
    pub fn unregister(&self) {
        self.switch.unregister();
    }

    /// Switches the event off in this process, or lets the host's word decide again; without an id it stays off.
    pub fn set_on(&self, on: bool) {
        self.switch.set_on(on);
    }
}

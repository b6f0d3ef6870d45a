//! Events and the set of all events of a trace.

use crate::constants::Constants;
use crate::dialect::Dialect;
use crate::format::{Field, Format, FormatError, Kind};
use crate::print::{self, Compiled, Context, Environment, Stop, Unprintable, fields};
use crate::target::Target;
use crate::text::ByCode;
use crate::value::IntField;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

/// One event: its format, and its `print fmt` compiled.
#[derive(Debug)]
pub struct Event {
    system: String,
    format: Format,
    /// Compiled when it is first needed: of a trace's thousands of events most never occur.
    compiled: OnceLock<Result<Compiled, Unprintable>>,
    constants: Arc<Constants>,
    target: Target,
    dialect: Dialect,
    by_code: Option<ByCode>,
}

impl Event {
    /// The system that the event belongs to, as in `events/SYSTEM/NAME`.
    #[must_use]
    pub fn system(&self) -> &str {
        &self.system
    }

    /// The event's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.format.name
    }

    /// The number that starts each of its records.
    #[must_use]
    pub const fn id(&self) -> u16 {
        self.format.id
    }

    /// Its own fields; the common ones are not among them.
    #[must_use]
    pub fn fields(&self) -> &[Field] {
        self.format.fields.get(self.format.common..).unwrap_or_default()
    }

    /// The fields that all events have.
    #[must_use]
    pub fn common_fields(&self) -> &[Field] {
        self.format.fields.get(..self.format.common).unwrap_or_default()
    }

    /// The field of this name, a common one or its own.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.format.field(name)
    }

    /// The integer field of this name, resolved for reading it from many records.
    #[must_use]
    pub fn int_field(&self, name: &str) -> Option<IntField> {
        IntField::new(self.field(name)?, self.target)
    }

    /// The format file, taken apart.
    #[must_use]
    pub const fn format(&self) -> &Format {
        &self.format
    }

    /// The machine whose records these are.
    #[must_use]
    pub const fn target(&self) -> Target {
        self.target
    }

    /// Why the event is printed field by field, where it is.
    #[must_use]
    pub fn unprintable(&self) -> Option<&Unprintable> {
        self.compiled().as_ref().err()
    }

    fn compiled(&self) -> &Result<Compiled, Unprintable> {
        self.compiled.get_or_init(|| print::compile(self.environment()))
    }

    fn environment(&self) -> Environment<'_> {
        let Self { format, constants, target, dialect, .. } = self;
        Environment { format, constants, target: *target, dialect: *dialect }
    }

    /// How the kernel's code prints it, where its text does not come from the `print fmt`.
    pub(crate) const fn by_code(&self) -> Option<ByCode> {
        self.by_code
    }

    /// Names in the tables of its `print fmt` whose values are not known; those values print as numbers.
    #[must_use]
    pub fn unresolved(&self) -> &[String] {
        self.compiled().as_ref().map(|compiled| compiled.unresolved.as_slice()).unwrap_or_default()
    }

    /// Appends the text of `record`, which starts with its common fields, to `out`.
    ///
    /// # Errors
    /// Says why the record was printed field by field instead of by the event's `print fmt`. Text is appended in
    /// any case. An event that is [`unprintable`](Self::unprintable) is printed so, too, and that is no error.
    pub fn print(&self, record: &[u8], context: &Context<'_>, out: &mut Vec<u8>) -> Result<(), Stop> {
        if self.by_code == Some(ByCode::Packed) && self.print_packed(record, context, out).is_some() {
            return Ok(());
        }
        let printed = match self.compiled() {
            Ok(compiled) => compiled.program.print(record, self.target, self.dialect, context, out),
            Err(_) if self.fields().iter().any(|field| field.kind == Kind::Float) => {
                // The kernel's printf knows no floats, so a `print fmt` can only show their bits. The numbers are better.
                fields::print(self.fields(), record, self.target, out);
                return Ok(());
            }
            Err(_) => {
                self.print_fields(record, out);
                return Ok(());
            }
        };
        if printed.is_err() {
            self.print_fields(record, out);
        }
        printed
    }

    /// Appends the text of a `trace_printk`; `None`, and nothing, where its format is not known or its arguments are not
    /// there.
    fn print_packed(&self, record: &[u8], context: &Context<'_>, out: &mut Vec<u8>) -> Option<()> {
        let int = |name| self.field(name)?.int(record, self.target);
        let format = context.strings.get(int("fmt")?)?;
        let packed = record.get(usize::try_from(self.field("buf")?.offset).ok()?..)?;
        let start = out.len();
        context.symbols.print(int("ip")?, false, self.dialect, out);
        out.extend_from_slice(b": ");
        let printed = print::print_packed(self.environment(), format.as_bytes(), packed, context, out);
        if printed.is_none() {
            out.truncate(start);
        }
        printed
    }

    /// Appends `[FAILED TO PARSE]`, the mark of trace-cmd, and each field's name and value.
    fn print_fields(&self, record: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(b"[FAILED TO PARSE] ");
        fields::print(self.fields(), record, self.target, out);
    }
}

/// The events of a trace, by number and by name.
#[derive(Debug)]
pub struct Formats {
    target: Target,
    dialect: Dialect,
    plugins: bool,
    constants: Arc<Constants>,
    events: Vec<Event>,
    /// Places in `events`, by number; dense, since numbers are given in a row.
    by_id: Vec<Option<u32>>,
    by_name: HashMap<String, Vec<u32>>,
}

impl Formats {
    /// No events yet; records come from `target`, text goes to readers of `dialect`.
    #[must_use]
    pub fn new(target: Target, dialect: Dialect) -> Self {
        Self {
            target,
            dialect,
            plugins: false,
            constants: Arc::default(),
            events: Vec::new(),
            by_id: Vec::new(),
            by_name: HashMap::new(),
        }
    }

    /// The numbers that `print fmt`s name. Define more of them before adding the events that need them.
    pub fn constants_mut(&mut self) -> &mut Constants {
        Arc::make_mut(&mut self.constants)
    }

    /// Prints the events that are added from now on as libtraceevent's plugins do, where it has one for them.
    pub fn use_plugins(&mut self) {
        self.plugins = true;
    }

    /// Jiffies a second, for [`Context`].
    #[must_use]
    pub fn hz(&self) -> Option<u32> {
        self.constants.hz()
    }

    /// The machine whose records these are.
    #[must_use]
    pub const fn target(&self) -> Target {
        self.target
    }

    /// Whose text is printed.
    #[must_use]
    pub const fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Adds the event whose `format` file holds `text`. One with the number of an earlier one replaces it.
    ///
    /// # Errors
    /// Where the text is not that of a format file. A `print fmt` that cannot be compiled is no error: see
    /// [`Event::unprintable`].
    pub fn add(&mut self, system: &str, text: &str) -> Result<&Event, FormatError> {
        let mut format = Format::parse(system, text, self.target)?;
        if self.plugins
            && let Some(print_fmt) = print::plugin(system, &format)
        {
            format.print_fmt = print_fmt;
        }
        Ok(self.insert(system, format))
    }

    fn insert(&mut self, system: &str, format: Format) -> &Event {
        let place = u32::try_from(self.events.len()).unwrap_or(u32::MAX);
        let id = usize::from(format.id);
        if self.by_id.len() <= id {
            self.by_id.resize(id.saturating_add(1), None);
        }
        if let Some(slot) = self.by_id.get_mut(id) {
            *slot = Some(place);
        }
        self.by_name.entry(format.name.clone()).or_default().push(place);
        self.events.push(Event {
            by_code: ByCode::of(system, &format.name),
            system: system.to_owned(),
            format,
            compiled: OnceLock::new(),
            constants: Arc::clone(&self.constants),
            target: self.target,
            dialect: self.dialect,
        });
        self.events.last().unwrap_or_else(|| unreachable!("an event was just added"))
    }

    /// The event of this number.
    #[must_use]
    #[inline]
    pub fn by_id(&self, id: u16) -> Option<&Event> {
        self.at((*self.by_id.get(usize::from(id))?)?)
    }

    /// The event of this name; without a system the one that was added last.
    #[must_use]
    pub fn by_name(&self, system: Option<&str>, name: &str) -> Option<&Event> {
        let named = self.by_name.get(name)?.iter().rev().filter_map(|place| self.at(*place));
        named.into_iter().find(|event| system.is_none_or(|system| event.system == system))
    }

    fn at(&self, place: u32) -> Option<&Event> {
        self.events.get(usize::try_from(place).ok()?)
    }

    /// The event that `record` belongs to, by its first two bytes.
    #[must_use]
    #[inline]
    pub fn of_record(&self, record: &[u8]) -> Option<&Event> {
        self.by_id(u16::try_from(self.target.uint(record, 0, 2)?).ok()?)
    }

    /// All events, in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = &Event> {
        self.events.iter()
    }

    /// How many events there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}

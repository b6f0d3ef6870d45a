//! The events of an instance: what was declared, under which id.
//!
//! An id is unique in its instance and stays: an event outlives the process that declared it, because its
//! records do. Two processes that declare the same event get the same id, which is the usual case: two
//! processes of one program.
//!
//! Ids below [`FIRST_ID`] are left to the kernel's events, so that a file can hold both; `ftrace:print`, `ftrace:user_stack`
//! and `ftrace:raw_data`, which its tools know by number, are always there.

use crate::serve::limits::{FORMAT_LEN, FORMATS_LEN, NAME_LEN};
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;

/// The first id that is given to a declared event. Kernels count theirs from the other end, and have some thousand.
pub const FIRST_ID: u16 = 0x8000;
/// Id of `ftrace:print`, as in the kernel: an address and a text.
pub const PRINT_ID: u16 = 5;
/// Id of `ftrace:user_stack`, as in the kernel: a process and return addresses of its stack.
pub const USER_STACK_ID: u16 = 13;
/// Id of `ftrace:raw_data`, as in the kernel: a number and bytes.
pub const RAW_DATA_ID: u16 = 19;

/// A declared event.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// The number in each of its records' `common_type`.
    pub id: u16,
    /// Its system, the folder under `events/`.
    pub system: String,
    /// Its name.
    pub name: String,
    /// Its format, the text of a `format` file.
    pub format: String,
}

/// Why an event could not be declared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// A name that cannot be a file's, or that the kernel's tools cannot parse.
    #[error(
        "{name:?} cannot name an event or a system: use 1 to {NAME_LEN} letters, digits and underscores, no digit first"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// The format text is not one.
    #[error("the format of {event} {what}: write it as the kernel's events/SYSTEM/EVENT/format files are")]
    Format {
        /// System and name, with a colon between.
        event: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The format text is too long.
    #[error("the format of {event} has {len} bytes: {FORMAT_LEN} are allowed, shorten its print fmt")]
    TooLong {
        /// System and name, with a colon between.
        event: String,
        /// Its length in bytes.
        len: usize,
    },
    /// Somebody declared another event of this name.
    #[error(
        "{event} is declared already, with {theirs:?} where this declaration says {ours:?}: give one of the two another name"
    )]
    Conflict {
        /// System and name, with a colon between.
        event: String,
        /// The first line that differs, as it was declared first.
        theirs: String,
        /// The same line of this declaration.
        ours: String,
    },
    /// There is no room for one more.
    #[error(
        "{event} cannot be declared: the instance's {what} are used up, restart the host or declare fewer events"
    )]
    Full {
        /// System and name, with a colon between.
        event: String,
        /// What is used up.
        what: &'static str,
    },
}

/// All events of an instance.
#[derive(Debug)]
pub(crate) struct Registry {
    by_id: BTreeMap<u16, Arc<Event>>,
    /// By system, then name.
    by_name: HashMap<String, HashMap<String, u16>>,
    /// The next id to give; above `u16::MAX` when there is none.
    next_id: u32,
    /// Bytes of all formats.
    formats_len: usize,
}

impl Default for Registry {
    fn default() -> Self {
        let mut registry = Self {
            by_id: BTreeMap::new(),
            by_name: HashMap::new(),
            next_id: FIRST_ID.into(),
            formats_len: 0,
        };
        registry.insert(PRINT_ID, "ftrace", "print", &kernel_format("print", PRINT_FIELDS));
        registry.insert(
            USER_STACK_ID,
            "ftrace",
            "user_stack",
            &kernel_format("user_stack", USER_STACK_FIELDS),
        );
        registry.insert(RAW_DATA_ID, "ftrace", "raw_data", &kernel_format("raw_data", RAW_DATA_FIELDS));
        registry
    }
}

impl Registry {
    /// Declares an event, or finds it where it is declared already. The number in the format's `ID:` line means
    /// nothing: the registry puts the right one there.
    pub(crate) fn declare(&mut self, system: &str, name: &str, format: &str) -> Result<u16, RegisterError> {
        check_names(system, name)?;
        check_format(system, name, format)?;
        if let Some(declared) = self.find(system, name) {
            return compare(declared, format).map(|()| declared.id);
        }
        let full = |what| RegisterError::Full { event: event(system, name), what };
        if self.formats_len + format.len() > FORMATS_LEN {
            return Err(full("bytes for format texts"));
        }
        let id = u16::try_from(self.next_id).map_err(|_| full("65,535 event ids"))?;
        self.next_id += 1;
        self.insert(id, system, name, format);
        Ok(id)
    }

    /// Declares an event under the id that it had.
    pub(crate) fn restore(
        &mut self,
        id: u16,
        system: &str,
        name: &str,
        format: &str,
    ) -> Result<(), RegisterError> {
        check_names(system, name)?;
        check_format(system, name, format)?;
        let is_taken = id < FIRST_ID || self.by_id.contains_key(&id) || self.find(system, name).is_some();
        if is_taken || self.formats_len + format.len() > FORMATS_LEN {
            return Err(RegisterError::Full { event: event(system, name), what: "ids of its own" });
        }
        self.next_id = self.next_id.max(u32::from(id) + 1);
        self.insert(id, system, name, format);
        Ok(())
    }

    /// The event with the lowest id above `id`.
    pub(crate) fn next_after(&self, id: u16) -> Option<&Arc<Event>> {
        self.by_id.range((Excluded(id), Unbounded)).next().map(|(_, event)| event)
    }

    /// The event of this name.
    pub(crate) fn find(&self, system: &str, name: &str) -> Option<&Arc<Event>> {
        self.by_id.get(self.by_name.get(system)?.get(name)?)
    }

    /// How many events there are.
    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// All events, by id.
    pub(crate) fn events(&self) -> impl Iterator<Item = &Arc<Event>> {
        self.by_id.values()
    }

    fn insert(&mut self, id: u16, system: &str, name: &str, format: &str) {
        let format = with_id(format, id);
        self.formats_len += format.len();
        self.by_name.entry(system.to_owned()).or_default().insert(name.to_owned(), id);
        let event = Event { id, system: system.to_owned(), name: name.to_owned(), format };
        self.by_id.insert(id, Arc::new(event));
    }
}

fn event(system: &str, name: &str) -> String {
    format!("{system}:{name}")
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// The kernel lets systems have dashes; events not.
fn is_system_char(c: char) -> bool {
    is_name_char(c) || c == '-'
}

/// Whether an event can have these names.
///
/// # Errors
/// [`RegisterError::Name`] with the one that it cannot have.
pub fn check_names(system: &str, name: &str) -> Result<(), RegisterError> {
    check_name(system, is_system_char)?;
    check_name(name, is_name_char)
}

fn check_name(name: &str, is_allowed: fn(char) -> bool) -> Result<(), RegisterError> {
    let first = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if first && name.len() <= NAME_LEN && name.chars().all(is_allowed) {
        return Ok(());
    }
    // What came from another process may be long; an error is a line.
    Err(RegisterError::Name { name: name.chars().take(NAME_LEN + 1).collect() })
}

/// Checks what every parser of these texts relies on; the field lines are for those who decode them.
fn check_format(system: &str, name: &str, format: &str) -> Result<(), RegisterError> {
    if format.len() > FORMAT_LEN {
        return Err(RegisterError::TooLong { event: event(system, name), len: format.len() });
    }
    match format_flaw(name, format) {
        Some(what) => Err(RegisterError::Format { event: event(system, name), what }),
        None => Ok(()),
    }
}

fn format_flaw(name: &str, format: &str) -> Option<&'static str> {
    if format.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
        return Some("contains control characters");
    }
    if !format.ends_with('\n') {
        return Some("does not end with a line break");
    }
    let mut lines = format.lines();
    if lines.next().and_then(|line| line.strip_prefix("name: ")) != Some(name) {
        return Some("does not begin with a line \"name: EVENT\" that names it");
    }
    if !lines.next().is_some_and(|line| line.starts_with("ID:")) {
        return Some("lacks \"ID:\" as its second line");
    }
    if lines.next() != Some("format:") {
        return Some("lacks \"format:\" as its third line");
    }
    let rest = lines.find(|line| !line.is_empty() && !line.starts_with("\tfield:"));
    if !rest.is_some_and(|line| line.starts_with("print fmt:")) {
        return Some("has something other than field lines between \"format:\" and \"print fmt:\"");
    }
    None
}

/// The text with this number in its second line.
fn with_id(format: &str, id: u16) -> String {
    let lines = format.lines().enumerate().map(|(index, line)| match index {
        1 => format!("ID: {id}\n"),
        _ => format!("{line}\n"),
    });
    lines.collect()
}

/// Whether two declarations say the same, their numbers aside.
pub(crate) fn same_format(one: &str, other: &str) -> bool {
    let lines = |format| str::lines(format).enumerate().filter(|&(index, _)| index != 1);
    lines(one).eq(lines(other))
}

/// Whether a declaration says what was declared before, the number aside.
fn compare(declared: &Event, format: &str) -> Result<(), RegisterError> {
    let ours = with_id(format, declared.id);
    if ours == declared.format {
        return Ok(());
    }
    let (mut old, mut new) = (declared.format.lines(), ours.lines());
    let (theirs, ours) = loop {
        match (old.next(), new.next()) {
            (Some(old), Some(new)) if old == new => {}
            (old, new) => break (shown(old), shown(new)),
        }
    };
    Err(RegisterError::Conflict { event: event(&declared.system, &declared.name), theirs, ours })
}

/// A line as an error shows it.
fn shown(line: Option<&str>) -> String {
    const SHOWN: usize = 200;
    line.map_or_else(|| "no more lines".to_owned(), |line| line.trim().chars().take(SHOWN).collect())
}

/// Type and name, offset, size, whether signed.
type Field = (&'static str, u32, u32, bool);

const COMMON_FIELDS: [Field; 4] = [
    ("unsigned short common_type", 0, 2, false),
    ("unsigned char common_flags", 2, 1, false),
    ("unsigned char common_preempt_count", 3, 1, false),
    ("int common_pid", 4, 4, true),
];

const PRINT_FIELDS: (&[Field], &str) = (
    &[("unsigned long ip", 8, 8, false), ("char buf[]", 16, 0, false)],
    "\"%ps: %s\", (void *)REC->ip, REC->buf",
);

const USER_STACK_FIELDS: (&[Field], &str) = (
    &[("unsigned int tgid", 8, 4, false), ("unsigned long caller[8]", 16, 64, false)],
    "\"\\t=> %ps\\n\\t=> %ps\\n\\t=> %ps\\n\" \"\\t=> %ps\\n\\t=> %ps\\n\\t=> %ps\\n\" \"\\t=> %ps\\n\\t=> %ps\\n\", \
     (void *)REC->caller[0], (void *)REC->caller[1], (void *)REC->caller[2], (void *)REC->caller[3], \
     (void *)REC->caller[4], (void *)REC->caller[5], (void *)REC->caller[6], (void *)REC->caller[7]",
);

const RAW_DATA_FIELDS: (&[Field], &str) = (
    &[("unsigned int id", 8, 4, false), ("char buf[]", 12, 0, false)],
    "\"id:%04x %08x\", REC->id, (int)REC->buf[0]",
);

/// The text of a kernel event's `format` file.
fn kernel_format(name: &str, (fields, print_fmt): (&[Field], &str)) -> String {
    let line = |(field, offset, size, signed): &Field| {
        format!("\tfield:{field};\toffset:{offset};\tsize:{size};\tsigned:{};\n", u8::from(*signed))
    };
    let common: String = COMMON_FIELDS.iter().map(line).collect();
    let own: String = fields.iter().map(line).collect();
    format!("name: {name}\nID:\nformat:\n{common}\n{own}\nprint fmt: {print_fmt}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(name: &str, field: &str) -> String {
        kernel_format(name, (&[], "\"\""))
            .replace("\n\n", &format!("\n\n\tfield:{field};\toffset:8;\tsize:4;\tsigned:0;\n"))
    }

    #[test]
    fn the_kernels_events_have_the_kernels_formats() {
        let registry = Registry::default();
        for name in ["print", "user_stack", "raw_data"] {
            let ours = registry.find("ftrace", name).expect("it is always there");
            let path = format!("/sys/kernel/tracing/events/ftrace/{name}/format");
            match std::fs::read_to_string(&path) {
                Ok(theirs) => assert_eq!(ours.format, theirs),
                Err(error) => println!("skipped: {path} cannot be read: {error}"),
            }
        }
        assert_eq!(registry.next_after(0).map(|event| event.id), Some(PRINT_ID));
        assert_eq!(registry.next_after(PRINT_ID).map(|event| event.id), Some(USER_STACK_ID));
        assert_eq!(registry.next_after(USER_STACK_ID).map(|event| event.id), Some(RAW_DATA_ID));
        assert!(registry.next_after(RAW_DATA_ID).is_none());
    }

    #[test]
    fn the_same_declaration_has_the_same_id() {
        let mut registry = Registry::default();
        let start = registry.declare("app", "start", &format("start", "u32 a")).expect("a good one");
        assert_eq!(start, FIRST_ID);
        let again = format("start", "u32 a").replace("ID:", "ID: 999");
        assert_eq!(registry.declare("app", "start", &again), Ok(start));
        assert_eq!(registry.declare("app", "stop", &format("stop", "u32 a")), Ok(start + 1));
        assert_eq!(registry.declare("other-app", "start", &format("start", "u64 b")), Ok(start + 2));
        let text = &registry.find("app", "stop").expect("declared").format;
        assert!(
            text.starts_with("name: stop\nID: 32769\nformat:\n\tfield:unsigned short common_type;"),
            "{text}"
        );
        assert_eq!(registry.events().count(), 6);
    }

    #[test]
    fn a_conflict_names_the_line_that_differs() {
        let mut registry = Registry::default();
        registry.declare("app", "start", &format("start", "u32 a")).expect("a good one");
        let error = registry.declare("app", "start", &format("start", "u32 b")).expect_err("another event");
        assert_eq!(
            error.to_string(),
            "app:start is declared already, with \"field:u32 a;\\toffset:8;\\tsize:4;\\tsigned:0;\" where this \
             declaration says \"field:u32 b;\\toffset:8;\\tsize:4;\\tsigned:0;\": give one of the two another name"
        );
    }

    #[test]
    fn what_is_no_event_is_refused_by_name() {
        let mut registry = Registry::default();
        let good = format("start", "u32 a");
        let long = "n".repeat(NAME_LEN + 1);
        for name in ["", "../x", "a b", "9p", "a-b", "ä", &long] {
            let error = registry.declare("app", name, &format(name, "u32 a")).expect_err(name);
            assert!(matches!(error, RegisterError::Name { .. }), "{name:?}: {error}");
        }
        let flawed = [
            good.replace("name: start", "name: stop"),
            good.replace("ID:", "id:"),
            good.replace("format:", "Format:"),
            good.replace("print fmt:", "print:"),
            good.replace("u32", "u\0"),
            good.trim_end().to_owned(),
            String::new(),
        ];
        for text in flawed {
            let error = registry.declare("app", "start", &text).expect_err(&text);
            assert!(matches!(error, RegisterError::Format { .. }), "{text:?}: {error}");
        }
        let long = good.replace("\"\"", &format!("\"{}\"", "x".repeat(FORMAT_LEN)));
        let error = registry.declare("app", "start", &long).expect_err("too long");
        assert!(matches!(error, RegisterError::TooLong { .. }));
        assert_eq!(registry.events().count(), 3);
    }

    #[test]
    fn restored_events_keep_their_ids_and_new_ones_come_behind() {
        let mut registry = Registry::default();
        for (id, name) in [(FIRST_ID + 8, "b"), (FIRST_ID + 3, "a")] {
            registry.restore(id, "app", name, &format(name, "u32 a")).expect("it was declared once");
        }
        for (id, name) in [(FIRST_ID + 8, "c"), (FIRST_ID + 18, "a"), (5, "d")] {
            assert!(registry.restore(id, "app", name, &format(name, "u32 a")).is_err(), "{id} {name}");
        }
        assert_eq!(registry.declare("app", "a", &format("a", "u32 a")), Ok(FIRST_ID + 3));
        assert_eq!(registry.declare("app", "c", &format("c", "u32 a")), Ok(FIRST_ID + 9));
    }

    #[test]
    fn ids_end_at_65535_and_are_not_given_twice() {
        let mut registry = Registry::default();
        for id in FIRST_ID..=u16::MAX {
            let name = format!("e{id}");
            assert_eq!(registry.declare("app", &name, &kernel_format(&name, (&[], "\"\""))), Ok(id));
        }
        let error = registry.declare("app", "more", &format("more", "u32 a")).expect_err("no id is left");
        assert!(matches!(error, RegisterError::Full { .. }), "{error}");
        assert_eq!(registry.declare("app", "e40000", &kernel_format("e40000", (&[], "\"\""))), Ok(40000));
    }
}

//! Declared events: the header's structs, and what the library knows of them.

use crate::error::{Code, Error};
use crate::text;
use ringtap::event::registry::check_names;
use ringtap::event::{Arg, Common, Count, Declared, Field, Kind, PAYLOAD_LIMIT, Print, Shown, Value};
use std::collections::BTreeMap;
use std::ffi::{c_char, c_void};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicPtr, AtomicU32};

/// The header's `RINGTAP_ABI`.
const ABI: u32 = 1;
/// Most fields of an event.
const MAX_FIELDS: usize = 64;
/// Largest payload of an event without strings, in bytes: what the smallest sub-buffer takes.
const FIXED_LIMIT: usize = 4064;

/// `struct ringtap_event`.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Event {
    /// Whether the event is on in this process: all that an event looks at that is off.
    on: AtomicU32,
    abi: u32,
    system: *const c_char,
    name: *const c_char,
    fields: *const CField,
    field_count: usize,
    print: *const c_char,
    print_args: *const c_char,
    /// A [`Known`], once it is.
    known: AtomicPtr<c_void>,
}

/// `struct ringtap_field`.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct CField {
    name: *const c_char,
    kind: u8,
    shape: u8,
    show: u8,
    reserved: u8,
    count: u32,
    symbols: *const Symbol,
    symbol_count: usize,
}

/// `struct ringtap_symbol`.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Symbol {
    value: u64,
    text: *const c_char,
}

const _: () = {
    assert!(size_of::<Event>() == 64 && std::mem::offset_of!(Event, known) == 56);
    assert!(size_of::<CField>() == 32 && std::mem::offset_of!(CField, symbols) == 16);
};

/// An event that was declared: one for all declarations that say the same. It is never freed, since a writer may look at
/// it at any time, and a plug-in that is loaded again finds it again.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) declared: Declared,
    /// Its strings and slices.
    pub(crate) dynamic: Box<[Field]>,
    /// Bytes of the payload before what those point at.
    pub(crate) fixed_len: usize,
}

impl Event {
    /// What the library knows of it; `None` before it was declared.
    #[inline(always)]
    pub(crate) fn known(&self) -> Option<&'static Known> {
        // SAFETY: null, or an event that is never freed. Acquire: it was made before it was stored here.
        unsafe { self.known.load(Acquire).cast::<Known>().as_ref() }
    }

    pub(crate) fn set_known(&self, known: &'static Known) {
        self.known.store(std::ptr::from_ref(known).cast_mut().cast(), Release);
    }

    /// Has the header's look say what the event's switch says.
    pub(crate) fn refresh(&self) {
        let is_on = self.known().is_some_and(|known| known.declared.route().is_some());
        self.on.store(is_on.into(), Relaxed);
    }
}

/// What a declaration says, before anything of it is kept.
#[derive(Clone, Debug)]
pub(crate) struct Description {
    system: String,
    name: String,
    fields: Vec<OwnField>,
    print: Option<(String, Vec<String>)>,
}

#[derive(Clone, Debug)]
struct OwnField {
    name: String,
    kind: Kind,
    shown: OwnShown,
}

#[derive(Clone, Debug)]
enum OwnShown {
    AsKind,
    Symbol(Vec<(u64, String)>),
    Flags(Vec<(u64, String)>),
}

/// All events that were declared, by their descriptions' text.
#[derive(Debug, Default)]
pub(crate) struct AllKnown(BTreeMap<String, &'static Known>);

impl AllKnown {
    /// The event of this description.
    pub(crate) fn find_or_make(&mut self, description: &Description) -> Result<&'static Known, Error> {
        let key = format!("{description:?}");
        if let Some(known) = self.0.get(&key) {
            return Ok(known);
        }
        let known = description.make()?;
        self.0.insert(key, known);
        Ok(known)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &'static Known> {
        self.0.values().copied()
    }
}

fn leak(text: &str) -> &'static str {
    Box::leak(text.into())
}

impl Description {
    /// Reads a declaration.
    ///
    /// # Safety
    /// It is as the header says.
    pub(crate) unsafe fn read(event: &Event) -> Result<Self, Error> {
        if event.abi != ABI {
            let message = format!(
                "the program was compiled with a ringtap.h of number {}, this library has {ABI}: compile it again",
                event.abi
            );
            return Err(Error::new(Code::Argument, message));
        }
        // SAFETY: as the caller says, here and below.
        let system = unsafe { text::copied(event.system, "an event's system") }?;
        // SAFETY: as above.
        let name = unsafe { text::copied(event.name, "an event's name") }?;
        check_names(&system, &name).map_err(|error| Error::argument(&error.to_string()))?;
        if event.field_count > MAX_FIELDS {
            return Err(Error::argument("an event has more than 64 fields"));
        }
        if event.fields.is_null() && event.field_count > 0 {
            return Err(Error::null("an event's fields"));
        }
        let mut fields = Vec::new();
        for index in 0..event.field_count {
            // SAFETY: as above: there are so many.
            let field = unsafe { event.fields.add(index) };
            // SAFETY: as above.
            let field = unsafe { &*field };
            // SAFETY: as above.
            fields.push(unsafe { OwnField::read(field) }?);
        }
        // SAFETY: as above.
        let print = match unsafe { text::optional(event.print, "a print format") }? {
            None => None,
            Some(format) => {
                // SAFETY: as above.
                let args = unsafe { text::optional(event.print_args, "a print format's arguments") }?;
                Some((format, split(&args.unwrap_or_default())))
            }
        };
        Ok(Self { system, name, fields, print })
    }

    fn make(&self) -> Result<&'static Known, Error> {
        let mut end = Common::LEN;
        let mut fields = Vec::new();
        for field in &self.fields {
            let kind = field.kind();
            let offset = end.next_multiple_of(kind.align());
            end = offset + kind.size();
            fields.push(Field { name: leak(&field.name), kind, offset });
        }
        let dynamic: Box<[Field]> = fields.iter().filter(|field| field.kind.is_dynamic()).copied().collect();
        let limit = if dynamic.is_empty() { FIXED_LIMIT } else { PAYLOAD_LIMIT - fields.len() };
        if end > limit {
            let message =
                format!("{}:{}: its fields take {end} bytes, {limit} are allowed", self.system, self.name);
            return Err(Error::new(Code::TooLarge, message));
        }
        let print = self.print.as_ref().map(|(format, args)| {
            let arg = |arg: &String| match self.fields.iter().any(|field| field.name == *arg) {
                true => Arg::Field(leak(arg)),
                false => Arg::C(leak(arg)),
            };
            let args: Vec<Arg> = args.iter().map(arg).collect();
            Print { format: leak(format), args: Vec::leak(args) }
        });
        let declared = Declared::new(leak(&self.system), leak(&self.name), Vec::leak(fields), print);
        Ok(Box::leak(Box::new(Known { declared, dynamic, fixed_len: end })))
    }
}

/// The parts of a list: commas within parentheses, braces and quotes divide nothing.
fn split(list: &str) -> Vec<String> {
    let (mut parts, mut part, mut depth, mut quoted, mut escaped) =
        (Vec::new(), String::new(), 0, false, false);
    for c in list.chars() {
        match c {
            '"' if !escaped => quoted = !quoted,
            '(' | '{' | '[' if !quoted => depth += 1,
            ')' | '}' | ']' if !quoted => depth -= 1,
            _ => {}
        }
        escaped = quoted && c == '\\' && !escaped;
        if c == ',' && depth == 0 && !quoted {
            parts.push(std::mem::take(&mut part));
        } else {
            part.push(c);
        }
    }
    parts.push(part);
    parts.iter().map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

impl OwnField {
    /// # Safety
    /// The field is as the header says.
    unsafe fn read(field: &CField) -> Result<Self, Error> {
        // SAFETY: as the caller says, here and below.
        let name = unsafe { text::copied(field.name, "a field's name") }?;
        let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !is_name {
            return Err(Error::argument(&format!("{name:?} cannot name a field")));
        }
        let number =
            number(field.kind).ok_or_else(|| Error::argument(&format!("{name}: its type is none")))?;
        let kind = match field.shape {
            0 if field.kind != CHAR => number,
            1 if field.count > 0 && field.count as usize <= FIXED_LIMIT => {
                many(number, Count::Fixed(field.count as usize))
            }
            2 if field.kind != POINTER => many(number, Count::Dynamic),
            _ => return Err(Error::argument(&format!("{name}: its number of elements cannot be"))),
        };
        let symbols = || {
            // SAFETY: as above.
            unsafe { symbols(field) }
        };
        let shown = match field.show {
            0 => OwnShown::AsKind,
            1 if field.shape == 0 && !number.signed => OwnShown::Symbol(symbols()?),
            2 if field.shape == 0 && !number.signed => OwnShown::Flags(symbols()?),
            _ => return Err(Error::argument(&format!("{name}: only a number without a sign has symbols"))),
        };
        Ok(Self { name, kind, shown })
    }

    /// The kind, with symbols that are kept for ever.
    fn kind(&self) -> Kind {
        let keep = |symbols: &[(u64, String)]| -> &'static [(u64, &'static str)] {
            Vec::leak(symbols.iter().map(|(value, text)| (*value, leak(text))).collect())
        };
        match &self.shown {
            OwnShown::AsKind => self.kind,
            OwnShown::Symbol(symbols) => Kind { shown: Shown::Symbol(keep(symbols)), ..self.kind },
            OwnShown::Flags(symbols) => Kind { shown: Shown::Flags(keep(symbols)), ..self.kind },
        }
    }
}

/// # Safety
/// The field is as the header says.
unsafe fn symbols(field: &CField) -> Result<Vec<(u64, String)>, Error> {
    if field.symbols.is_null() && field.symbol_count > 0 {
        return Err(Error::null("a field's symbols"));
    }
    let mut symbols = Vec::new();
    for index in 0..field.symbol_count {
        // SAFETY: as the caller says.
        let symbol = unsafe { field.symbols.add(index) };
        // SAFETY: as above.
        let symbol = unsafe { &*symbol };
        // SAFETY: as above.
        symbols.push((symbol.value, unsafe { text::copied(symbol.text, "a symbol's text") }?));
    }
    Ok(symbols)
}

const POINTER: u8 = 12;
const CHAR: u8 = 15;

/// The kind of one number, as the macro `ringtap::event!` has it; a text's is one of many.
fn number(kind: u8) -> Option<Kind> {
    Some(match kind {
        1 => u8::KIND,
        2 => u16::KIND,
        3 => u32::KIND,
        4 => u64::KIND,
        5 => i8::KIND,
        6 => i16::KIND,
        7 => i32::KIND,
        8 => i64::KIND,
        9 => usize::KIND,
        10 => isize::KIND,
        11 => bool::KIND,
        POINTER => <*const c_void>::KIND,
        13 => f32::KIND,
        14 => f64::KIND,
        CHAR => <&str>::KIND,
        _ => return None,
    })
}

fn many(kind: Kind, count: Count) -> Kind {
    match kind.shown {
        Shown::Text => Kind { count, ..kind },
        _ => kind.many(count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_split_at_their_own_commas() {
        let list = r#"peer, REC->a ? "x, (" : "\"", __print_symbolic(REC->b, { 1, "one" }), port"#;
        let parts = split(list);
        assert_eq!(
            parts,
            ["peer", r#"REC->a ? "x, (" : "\"""#, r#"__print_symbolic(REC->b, { 1, "one" })"#, "port"]
        );
        assert!(split("").is_empty());
    }
}

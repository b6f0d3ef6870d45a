//! Reading: live buffers and files, as one stream of items.

use crate::error::{Code, Error, guard, guard_len, guard_value};
use crate::host::{CHost, Inner, free, give};
use crate::text;
use crate::write::Bytes;
use ringtap::{Cursor, Item, Merge, Reader, Start, Waited};
use ringtap_format::trace_dat::{self, Timeline, TraceDat};
use ringtap_format::{Constants, Context, Dialect, Event, Formats, Strings, Symbols, Target, Value};
use std::collections::HashMap;
use std::ffi::{CString, c_char, c_int, c_long};
use std::fs::File;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

/// `ringtap_reader`: a handle.
#[derive(Debug)]
pub(crate) struct CReader {
    feed: Feed,
    formats: Formats,
    symbols: Symbols,
    strings: Strings,
    names: HashMap<u16, CString>,
    record: Current,
    /// Events lost since the last batch's last row.
    pub(crate) lost: u64,
}

/// Where items come from.
#[derive(Debug)]
enum Feed {
    Live { lanes: Lanes, host: Arc<Inner> },
    File(Timeline<Arc<File>>),
}

#[derive(Debug)]
enum Lanes {
    All(Merge),
    Reader(Reader),
    Cursor(Cursor),
}

/// The record that came last.
#[derive(Debug, Default)]
struct Current {
    id: Option<u16>,
    /// Where it lies, and how long it is: in memory that others may write, or in the feed's own.
    lies: (usize, usize),
    /// A copy that nobody else writes, once it was needed.
    bytes: Vec<u8>,
    is_copied: bool,
}

impl Current {
    fn set(&mut self, payload: &[u8], id: u16) {
        self.lies = (payload.as_ptr().expose_provenance(), payload.len());
        (self.id, self.is_copied) = (Some(id), false);
    }

    fn clear(&mut self) {
        (self.id, self.is_copied) = (None, false);
    }

    /// Copies the record, unless that was done.
    fn copy(&mut self) {
        if self.id.is_none() || self.is_copied {
            return;
        }
        self.bytes.clear();
        self.is_copied = true;
        let (start, len) = self.lies;
        if start % 4 == 0 {
            for at in (0..len).step_by(4) {
                let word = ptr::with_exposed_provenance_mut::<u32>(start + at);
                // SAFETY: it lies in the feed's mapping or buffer, which it does not leave before the next item is asked
                // for, and is a whole number of words; it is only read here, however others write it.
                let word = unsafe { AtomicU32::from_ptr(word) }.load(Relaxed);
                self.bytes.extend_from_slice(&word.to_le_bytes());
            }
        } else {
            // Only a file's, which is in this process's own memory, can lie at an odd place.
            // SAFETY: as above.
            let bytes = unsafe { std::slice::from_raw_parts(ptr::with_exposed_provenance(start), len) };
            self.bytes.extend_from_slice(bytes);
        }
        self.bytes.truncate(len);
    }
}

/// `struct ringtap_item`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct CItem {
    kind: u32,
    pub(crate) cpu: u32,
    pub(crate) ns: u64,
    pub(crate) lost: u64,
    pub(crate) id: u32,
    pub(crate) pid: i32,
    payload: *const u8,
    length: usize,
}

const RECORD: u32 = 1;
const LOST: u32 = 2;
const DAMAGED: u32 = 3;

impl CItem {
    pub(crate) const fn is_record(&self) -> bool {
        self.kind == RECORD
    }

    const fn other(kind: u32, cpu: u32, ns: u64, lost: u64) -> Self {
        Self { kind, cpu, ns, lost, id: 0, pid: 0, payload: ptr::null(), length: 0 }
    }

    const fn lost(cpu: u32, ns: u64, count: Option<u64>) -> Self {
        let count = match count {
            Some(count) => count,
            None => u64::MAX,
        };
        Self::other(LOST, cpu, ns, count)
    }
}

impl CReader {
    fn live(lanes: Lanes, host: &Arc<Inner>) -> Self {
        let formats = Formats::new(Target::HOST, Dialect::Kernel);
        Self::new(Feed::Live { lanes, host: Arc::clone(host) }, formats)
    }

    fn new(feed: Feed, formats: Formats) -> Self {
        Self {
            feed,
            formats,
            symbols: Symbols::default(),
            strings: Strings::default(),
            names: HashMap::new(),
            record: Current::default(),
            lost: 0,
        }
    }

    /// A CPU's buffer, or all.
    fn of_cpu<I>(cpu: c_int, host: &Inner, open: impl Fn(u32) -> Result<I, Error>) -> Result<Lanes, Error>
    where
        I: Into<ringtap::Input>,
        Lanes: From<I>,
    {
        match u32::try_from(cpu) {
            Ok(cpu) => open(cpu).map(Lanes::from),
            Err(_) if cpu == -1 => {
                let lanes: Result<Vec<I>, Error> = host.cpus().into_iter().map(open).collect();
                Ok(Lanes::All(Merge::new(lanes?)))
            }
            Err(_) => Err(Error::argument("the CPU is negative: RINGTAP_ALL_CPUS names all")),
        }
    }

    fn file(path: &str) -> Result<Self, Error> {
        let failed =
            |error: &dyn std::error::Error, code| Error::new(code, format!("failed to read {path}: {error}"));
        let file = Arc::new(File::open(path).map_err(|error| failed(&error, Code::System))?);
        let trace = TraceDat::open(&file).map_err(|error| failed(&error, Code::Damaged))?;
        let (formats, _) = trace.events(Dialect::Kernel, false, Constants::new());
        let mut timeline = Timeline::new();
        timeline.push_file(0, &trace, &file);
        let mut reader = Self::new(Feed::File(timeline), formats);
        reader.symbols = Symbols::parse(&trace.kallsyms);
        reader.strings = Strings::parse(&trace.printk_formats);
        Ok(reader)
    }

    /// The next item.
    pub(crate) fn next(&mut self) -> Result<Option<CItem>, Error> {
        self.record.clear();
        match &mut self.feed {
            Feed::Live { lanes, .. } => match lanes {
                Lanes::All(merge) => {
                    let merged = merge.next()?;
                    Ok(merged.map(|merged| live_item(&merged.item, merged.ns, &mut self.record)))
                }
                Lanes::Reader(reader) => Ok(reader.next()?.map(|item| live_item(&item, 0, &mut self.record))),
                Lanes::Cursor(cursor) => Ok(cursor.next()?.map(|item| live_item(&item, 0, &mut self.record))),
            },
            Feed::File(timeline) => {
                let Some(timed) = timeline.next() else { return Ok(None) };
                let (cpu, ns) = (timed.origin.cpu, timed.time);
                Ok(Some(match timed.step {
                    trace_dat::Item::Record(record) => {
                        let target = self.formats.target();
                        let word = |at, size| target.uint(record.bytes, at, size).unwrap_or(0);
                        let (id, pid) = (word(0, 2), word(4, 4));
                        self.record.set(record.bytes, u16::try_from(id).unwrap_or(0));
                        CItem {
                            id: u32::try_from(id).unwrap_or(0),
                            pid: u32::try_from(pid).unwrap_or(0).cast_signed(),
                            payload: record.bytes.as_ptr(),
                            length: record.bytes.len(),
                            ..CItem::other(RECORD, cpu, ns, 0)
                        }
                    }
                    trace_dat::Item::Lost(lost) => CItem::lost(cpu, ns, lost.count()),
                    trace_dat::Item::Damaged { .. } => CItem::other(DAMAGED, cpu, ns, 0),
                    trace_dat::Item::Failed(error) => {
                        return Err(Error::new(Code::Damaged, error.to_string()));
                    }
                }))
            }
        }
    }

    fn wait(&mut self, timeout: Option<Duration>) -> Result<Code, Error> {
        let Feed::Live { lanes, .. } = &mut self.feed else { return Ok(Code::None) };
        let waited = match lanes {
            Lanes::All(merge) => merge.wait(timeout)?,
            Lanes::Reader(reader) => reader.wait(timeout)?,
            Lanes::Cursor(cursor) => cursor.wait(timeout)?,
        };
        Ok(if waited == Waited::Ready { Code::Ok } else { Code::None })
    }

    /// Learns the event of the record that came last, and copies that record.
    pub(crate) fn prepare(&mut self) {
        if let (Some(id), Feed::Live { host, .. }) = (self.record.id, &self.feed)
            && self.formats.by_id(id).is_none()
            && let Some((system, format)) = host.event(id)
        {
            // One whose text makes no sense stays unknown.
            let _ = self.formats.add(&system, &format);
        }
        self.record.copy();
    }

    pub(crate) fn event(&self) -> Option<&Event> {
        self.formats.by_id(self.record.id?)
    }

    /// Learns all events that are declared by now.
    pub(crate) fn learn_all(&mut self) -> Result<(), Error> {
        if let Feed::Live { host, .. } = &self.feed {
            for (id, system, format) in host.events()? {
                if self.formats.by_id(id).is_none() {
                    // One whose text makes no sense stays unknown.
                    let _ = self.formats.add(&system, &format);
                }
            }
        }
        Ok(())
    }

    pub(crate) fn formats(&self) -> &Formats {
        &self.formats
    }

    /// The record that came last, once it was [prepared](Self::prepare).
    pub(crate) fn record(&self) -> &[u8] {
        &self.record.bytes
    }

    /// What the event prints of the record that came last, once it was [prepared](Self::prepare).
    pub(crate) fn print(&self) -> Vec<u8> {
        let mut line = Vec::new();
        if let Some(event) = self.event() {
            let context = Context { symbols: &self.symbols, strings: &self.strings, hz: self.formats.hz() };
            // Why one was printed field by field stands in the text itself.
            let _ = event.print(&self.record.bytes, &context, &mut line);
            // A marker's text ends with one.
            line.pop_if(|last| *last == b'\n');
        }
        line
    }

    /// A field of the record that came last.
    fn value(&mut self, name: &str) -> Option<Value<'_>> {
        self.prepare();
        self.event()?.field(name)?.value(&self.record.bytes, self.formats.target())
    }
}

impl CReader {
    /// # Safety
    /// Null, or a handle that is not freed, and that nobody else uses now.
    pub(crate) unsafe fn get<'r>(reader: *mut Self) -> Result<&'r mut Self, Error> {
        // SAFETY: as the caller says.
        unsafe { reader.as_mut() }.ok_or_else(|| Error::null("the reader"))
    }
}

impl From<Reader> for Lanes {
    fn from(reader: Reader) -> Self {
        Self::Reader(reader)
    }
}

impl From<Cursor> for Lanes {
    fn from(cursor: Cursor) -> Self {
        Self::Cursor(cursor)
    }
}

/// An item of a live buffer, which is lent until the next.
fn live_item(item: &Item<'_>, ns: u64, current: &mut Current) -> CItem {
    match item {
        Item::Record(record) => {
            // SAFETY: 1. Nobody looks at the bytes by this slice: it only says where they are.
            let payload = unsafe { record.payload.as_bytes() };
            let id = record.payload.u16_at(0).unwrap_or(0);
            current.set(payload, id);
            CItem {
                id: id.into(),
                pid: record.payload.u32_at(4).unwrap_or(0).cast_signed(),
                payload: payload.as_ptr(),
                length: payload.len(),
                ..CItem::other(RECORD, record.cpu, record.ns(), 0)
            }
        }
        Item::Lost(lost) => CItem::lost(lost.cpu, ns, lost.count),
        Item::Damaged(damaged) => CItem::other(DAMAGED, damaged.cpu, ns, 0),
        // Nothing else comes from this release's buffers.
        _ => CItem::other(DAMAGED, 0, ns, 0),
    }
}

/// `ringtap_reader_new`. [handle]
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ringtap_reader_new(
    host: *mut CHost,
    cpu: c_int,
    reader: *mut *mut CReader,
) -> c_int {
    guard(|| {
        // SAFETY: as the header says.
        let host = unsafe { CHost::get(host) }?;
        let open = || Ok(CReader::live(CReader::of_cpu(cpu, host, |cpu| host.reader(cpu))?, host));
        // SAFETY: as above.
        unsafe { give(reader, open) }
    })
}

/// `ringtap_cursor_new`. [handle]
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ringtap_cursor_new(
    host: *mut CHost,
    cpu: c_int,
    start: c_int,
    reader: *mut *mut CReader,
) -> c_int {
    guard(|| {
        // SAFETY: as the header says.
        let host = unsafe { CHost::get(host) }?;
        let start = match start {
            0 => Start::Oldest,
            1 => Start::Unread,
            2 => Start::Newest,
            _ => return Err(Error::argument("the start is none of enum ringtap_start")),
        };
        let open = || Ok(CReader::live(CReader::of_cpu(cpu, host, |cpu| host.cursor(cpu, start))?, host));
        // SAFETY: as above.
        unsafe { give(reader, open) }
    })
}

/// `ringtap_file_open`. [thread]
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ringtap_file_open(path: *const c_char, reader: *mut *mut CReader) -> c_int {
    guard(|| {
        // SAFETY: as the header says.
        let path = unsafe { text::copied(path, "the path") }?;
        // SAFETY: as above.
        unsafe { give(reader, || CReader::file(&path)) }
    })
}

/// `ringtap_reader_free`. [handle]
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ringtap_reader_free(reader: *mut CReader) {
    // SAFETY: as the header says.
    unsafe { free(reader) };
}

/// `ringtap_reader_next`. [handle]
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ringtap_reader_next(reader: *mut CReader, item: *mut CItem) -> c_int {
    guard(|| {
        // SAFETY: as the header says.
        let reader = unsafe { CReader::get(reader) }?;
        if item.is_null() {
            return Err(Error::null("the item"));
        }
        let Some(next) = reader.next()? else { return Ok(Code::None) };
        // SAFETY: as above.
        unsafe { item.write(next) };
        Ok(Code::Ok)
    })
}

/// `ringtap_reader_wait`. [handle]
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ringtap_reader_wait(reader: *mut CReader, timeout_ms: c_int) -> c_int {
    guard(|| {
        let timeout = u64::try_from(timeout_ms).ok().map(Duration::from_millis);
        // SAFETY: as the header says.
        unsafe { CReader::get(reader) }?.wait(timeout)
    })
}

/// `ringtap_reader_event`. [handle]
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ringtap_reader_event(reader: *mut CReader) -> *const c_char {
    guard_value(ptr::null(), || {
        // SAFETY: as the header says.
        let Ok(reader) = (unsafe { CReader::get(reader) }) else { return ptr::null() };
        reader.prepare();
        let Some(event) = reader.formats.by_id(reader.record.id.unwrap_or(0)) else { return ptr::null() };
        let name = || CString::new(format!("{}:{}", event.system(), event.name())).unwrap_or_default();
        reader.names.entry(event.id()).or_insert_with(name).as_ptr()
    })
}

/// Stores a field that `convert` takes.
///
/// # Safety
/// As the header says of the functions below.
unsafe fn field<T>(
    reader: *mut CReader,
    name: *const c_char,
    to: *mut T,
    convert: impl FnOnce(Value<'_>) -> Option<T>,
) -> c_int {
    guard(|| {
        // SAFETY: as the caller says, here and below.
        let reader = unsafe { CReader::get(reader) }?;
        // SAFETY: as above.
        let name = unsafe { text::copied(name, "the field's name") }?;
        if to.is_null() {
            return Err(Error::null("the place of the result"));
        }
        let Some(value) = reader.value(&name).and_then(convert) else { return Ok(Code::None) };
        // SAFETY: as above.
        unsafe { to.write(value) };
        Ok(Code::Ok)
    })
}

/// `ringtap_reader_int`. [handle]
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ringtap_reader_int(
    reader: *mut CReader,
    name: *const c_char,
    to: *mut i64,
) -> c_int {
    let convert = |value: Value<'_>| match value {
        Value::Signed(number) => Some(number),
        Value::Unsigned(number) | Value::Address(number) => i64::try_from(number).ok(),
        _ => None,
    };
    // SAFETY: as the header says.
    unsafe { field(reader, name, to, convert) }
}

/// `ringtap_reader_uint`. [handle]
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ringtap_reader_uint(
    reader: *mut CReader,
    name: *const c_char,
    to: *mut u64,
) -> c_int {
    let convert = |value: Value<'_>| match value {
        Value::Signed(number) => u64::try_from(number).ok(),
        Value::Unsigned(number) | Value::Address(number) => Some(number),
        _ => None,
    };
    // SAFETY: as the header says.
    unsafe { field(reader, name, to, convert) }
}

/// `ringtap_reader_double`. [handle]
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ringtap_reader_double(
    reader: *mut CReader,
    name: *const c_char,
    to: *mut f64,
) -> c_int {
    let convert = |value: Value<'_>| match value {
        Value::Float(number) => Some(number),
        _ => None,
    };
    // SAFETY: as the header says.
    unsafe { field(reader, name, to, convert) }
}

/// `ringtap_reader_bytes`. [handle]
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ringtap_reader_bytes(
    reader: *mut CReader,
    name: *const c_char,
    to: *mut Bytes,
) -> c_int {
    let convert = |value: Value<'_>| match value {
        Value::Text(bytes) | Value::Bytes(bytes) => {
            Some(Bytes { start: bytes.as_ptr(), length: bytes.len() })
        }
        _ => None,
    };
    // SAFETY: as the header says.
    unsafe { field(reader, name, to, convert) }
}

/// `ringtap_reader_print`. [handle]
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ringtap_reader_print(
    reader: *mut CReader,
    to: *mut c_char,
    size: usize,
) -> c_long {
    guard_len(|| {
        // SAFETY: as the header says.
        let reader = unsafe { CReader::get(reader) }?;
        reader.prepare();
        let line = reader.print();
        // SAFETY: as the header says.
        Ok(unsafe { text::put(&line, to, size) })
    })
}

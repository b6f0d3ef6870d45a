//! Records of a reader as a table.

use crate::arrow::{self, Array, Column, Data, Schema};
use crate::error::{Code, Error, guard, guard_len};
use crate::reader::{CItem, CReader};
use crate::text;
use ringtap_format::format::{Field, Kind, Meaning};
use ringtap_format::{Event, Value};
use std::ffi::{c_char, c_int, c_long};

/// Bytes of a batch's largest column, so that offsets of 32 bits reach.
const LARGEST: usize = 1 << 30;

/// The columns that each table begins with.
fn common() -> Vec<Column> {
    vec![
        Column::numbers("time_ns", 'L', 8),
        Column::numbers("cpu", 'I', 4),
        Column::numbers("pid", 'i', 4),
        Column::numbers("lost", 'L', 8),
    ]
}

/// The letter of an integer.
fn letter(size: usize, signed: bool) -> Option<char> {
    let pair = match size {
        1 => ['c', 'C'],
        2 => ['s', 'S'],
        4 => ['i', 'I'],
        8 => ['l', 'L'],
        _ => return None,
    };
    Some(pair[usize::from(!signed)])
}

/// The letter of a floating-point number. Of another size than these a format may speak, but no table can.
fn float_letter(size: usize) -> Option<char> {
    match size {
        4 => Some('f'),
        8 => Some('g'),
        _ => None,
    }
}

/// The column of a field.
fn column(field: &Field) -> Column {
    let (name, size) = (field.name.as_str(), usize::try_from(field.size).unwrap_or(0));
    match &field.kind {
        Kind::Int if field.type_name == "bool" => Column::new(name, Data::Truths(Vec::new())),
        Kind::Int | Kind::Pointer => {
            let letter = letter(size, field.signed);
            letter.map_or_else(|| Column::texts(name, false), |letter| Column::numbers(name, letter, size))
        }
        Kind::Bits { .. } => Column::numbers(name, if field.signed { 'l' } else { 'L' }, 8),
        Kind::Float => float_letter(size)
            .map_or_else(|| Column::texts(name, false), |letter| Column::numbers(name, letter, size)),
        Kind::Array(element) | Kind::Rest(element) | Kind::Dynamic { element, .. } => {
            let size = usize::try_from(element.size).unwrap_or(0);
            let is_float = matches!(
                field.type_name.trim_start_matches("__data_loc "),
                "float" | "float[]" | "double" | "double[]"
            );
            let letter = if is_float { float_letter(size) } else { letter(size, element.signed) };
            match (element.meaning, letter) {
                (Meaning::Text, _) => Column::texts(name, true),
                (Meaning::Numbers | Meaning::Pointers, Some(letter)) => {
                    Column::new(name, Data::Lists { letter, size, ends: Vec::new(), bytes: Vec::new() })
                }
                _ => Column::texts(name, false),
            }
        }
        Kind::Opaque => Column::texts(name, false),
    }
}

/// Adds a field's value to its column.
fn push(column: &mut Column, field: &Field, value: Option<Value<'_>>) {
    match value {
        None => column.push(None),
        Some(Value::Unsigned(number) | Value::Address(number)) => column.push(Some(&number.to_le_bytes())),
        Some(Value::Signed(number)) => column.push(Some(&number.to_le_bytes())),
        #[expect(clippy::cast_possible_truncation, reason = "it was one of 4 bytes")]
        Some(Value::Float(number)) if field.size == 4 => column.push(Some(&(number as f32).to_le_bytes())),
        Some(Value::Float(number)) => column.push(Some(&number.to_le_bytes())),
        Some(Value::Text(bytes) | Value::Bytes(bytes)) => column.push(Some(bytes)),
    }
}

/// What a table is about.
enum About {
    /// One event: a column for each of its fields.
    One { id: u16, fields: Vec<Field> },
    /// All: their names and texts.
    All,
}

impl About {
    fn new(reader: &mut CReader, event: Option<&str>) -> Result<Self, Error> {
        let Some(name) = event else { return Ok(Self::All) };
        reader.learn_all()?;
        let (system, name) = name.split_once(':').map_or((None, name), |(system, name)| (Some(system), name));
        let found = reader.formats().by_name(system, name);
        let found = found.ok_or_else(|| Error::argument(&format!("the trace declares no event {name:?}")))?;
        Ok(Self::One { id: found.id(), fields: found.fields().to_vec() })
    }

    fn columns(&self) -> Vec<Column> {
        let mut columns = common();
        match self {
            Self::One { fields, .. } => columns.extend(fields.iter().map(column)),
            Self::All => columns.extend(["event", "text"].map(|name| Column::texts(name, true))),
        }
        columns
    }

    fn push(&self, columns: &mut [Column], reader: &CReader) {
        match self {
            Self::One { fields, .. } => {
                for (column, field) in columns.iter_mut().zip(fields) {
                    push(column, field, field.value(reader.record(), reader.formats().target()));
                }
            }
            Self::All => {
                let event = reader.event();
                let name = event.map(|event: &Event| format!("{}:{}", event.system(), event.name()));
                columns[0].push(name.as_deref().map(str::as_bytes));
                columns[1].push(event.map(|_| reader.print()).as_deref());
            }
        }
    }
}

fn read(reader: &mut CReader, event: Option<&str>, rows: usize) -> Result<Option<(Schema, Array)>, Error> {
    let about = About::new(reader, event)?;
    let mut columns = about.columns();
    let (mut count, mut lost) = (0, std::mem::take(&mut reader.lost));
    while count < rows && columns.iter().all(|column| column.size() < LARGEST) {
        let Some(item) = reader.next()? else { break };
        let CItem { cpu, ns, pid, .. } = item;
        if !item.is_record() {
            // One of unknown size counts as one, as does a page that cannot be read.
            lost += if item.lost == u64::MAX || item.lost == 0 { 1 } else { item.lost };
            continue;
        }
        if let About::One { id, .. } = about
            && item.id != u32::from(id)
        {
            continue;
        }
        reader.prepare();
        let (head, rest) = columns.split_at_mut(4);
        head[0].push(Some(&ns.to_le_bytes()));
        head[1].push(Some(&cpu.to_le_bytes()));
        head[2].push(Some(&pid.to_le_bytes()));
        head[3].push(Some(&lost.to_le_bytes()));
        about.push(rest, reader);
        lost = 0;
        count += 1;
    }
    reader.lost = lost;
    Ok((count > 0).then(|| arrow::batch(columns)))
}

/// `ringtap_reader_batch`. [handle]
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ringtap_reader_batch(
    reader: *mut CReader,
    event: *const c_char,
    rows: usize,
    schema: *mut Schema,
    array: *mut Array,
) -> c_int {
    guard(|| {
        // SAFETY: as the header says, here and below.
        let reader = unsafe { CReader::get(reader) }?;
        // SAFETY: as above.
        let event = unsafe { text::optional(event, "the event") }?;
        if schema.is_null() || array.is_null() {
            return Err(Error::null("the place of the result"));
        }
        let Some((its_schema, its_array)) = read(reader, event.as_deref(), rows)? else {
            return Ok(Code::None);
        };
        // SAFETY: as above.
        unsafe { schema.write(its_schema) };
        // SAFETY: as above.
        unsafe { array.write(its_array) };
        Ok(Code::Ok)
    })
}

/// `ringtap_reader_events`. [handle]
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ringtap_reader_events(
    reader: *mut CReader,
    to: *mut c_char,
    size: usize,
) -> c_long {
    guard_len(|| {
        // SAFETY: as the header says.
        let reader = unsafe { CReader::get(reader) }?;
        reader.learn_all()?;
        let names = reader.formats().iter().map(|event| format!("{}:{}\n", event.system(), event.name()));
        let names: String = names.collect();
        // SAFETY: as the header says.
        Ok(unsafe { text::put(names.as_bytes(), to, size) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringtap_format::{Dialect, Formats, Target};

    /// The interface's letter of a number says how many bytes each value has: who reads them believes it.
    #[test]
    fn no_column_says_more_bytes_than_it_has() {
        for (declared, size, letter) in [
            ("float x", 4, Some('f')),
            ("float x", 2, None),
            ("float x", 0, None),
            ("double x", 8, Some('g')),
            ("double x", 16, None),
            ("u64 x", 8, Some('L')),
            ("u64 x", 3, None),
            ("float x[4]", 16, None),
            ("double x[2]", 2, None),
        ] {
            let common = "\tfield:u16 common_type;\toffset:0;\tsize:2;\tsigned:0;\n\n";
            let line = format!("\tfield:{declared};\toffset:8;\tsize:{size};\tsigned:0;\n");
            let text = format!("name: e\nID: 7\nformat:\n{common}{line}\nprint fmt: \"\"\n");
            let mut formats = Formats::new(Target::HOST, Dialect::Kernel);
            formats.add("s", &text).expect("it can be parsed");
            let field = &formats.by_id(7).expect("it was just added").fields()[0];
            let mut column = column(field);
            assert_eq!(column.letter(), letter, "{declared} of {size} bytes");
            push(&mut column, field, Some(Value::Unsigned(1)));
            assert!(letter.is_none() || column.size() == size, "{declared} of {size} bytes");
        }
    }
}

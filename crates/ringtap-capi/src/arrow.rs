//! Records as columns: Apache Arrow's C data interface, in which other libraries take tables over without a copy.
//!
//! A batch is a structure of columns. Each array and schema owns its children and buffers, and is freed by its `release`, as the
//! interface asks.

use std::ffi::{CString, c_char, c_void};
use std::ptr;

/// `struct ArrowSchema`, as the interface has it.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Schema {
    format: *const c_char,
    name: *const c_char,
    metadata: *const c_char,
    flags: i64,
    n_children: i64,
    children: *mut *mut Schema,
    dictionary: *mut Schema,
    release: Option<unsafe extern "C" fn(*mut Schema)>,
    private_data: *mut c_void,
}

/// `struct ArrowArray`, as the interface has it.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Array {
    length: i64,
    null_count: i64,
    offset: i64,
    n_buffers: i64,
    n_children: i64,
    buffers: *mut *const c_void,
    children: *mut *mut Array,
    dictionary: *mut Array,
    release: Option<unsafe extern "C" fn(*mut Array)>,
    private_data: *mut c_void,
}

const NULLABLE: i64 = 2;

struct OwnSchema {
    _format: CString,
    _name: CString,
    children: Vec<*mut Schema>,
}

struct OwnArray {
    /// In words, so that each is aligned for all that it may hold.
    _buffers: Vec<Vec<u64>>,
    pointers: Vec<*const c_void>,
    children: Vec<*mut Array>,
}

/// What a column holds.
#[derive(Debug)]
pub(crate) enum Data {
    /// Numbers of so many bytes each, by the interface's letter.
    Numbers { letter: char, size: usize, bytes: Vec<u8> },
    /// Truth values.
    Truths(Vec<bool>),
    /// Texts; bytes, where they are not.
    Texts { is_text: bool, ends: Vec<i32>, bytes: Vec<u8> },
    /// Lists of numbers.
    Lists { letter: char, size: usize, ends: Vec<i32>, bytes: Vec<u8> },
}

/// A column under construction.
#[derive(Debug)]
pub(crate) struct Column {
    name: String,
    data: Data,
    is_valid: Vec<bool>,
}

impl Column {
    pub(crate) fn new(name: &str, data: Data) -> Self {
        Self { name: name.to_owned(), data, is_valid: Vec::new() }
    }

    pub(crate) fn numbers(name: &str, letter: char, size: usize) -> Self {
        Self::new(name, Data::Numbers { letter, size, bytes: Vec::new() })
    }

    pub(crate) fn texts(name: &str, is_text: bool) -> Self {
        Self::new(name, Data::Texts { is_text, ends: Vec::new(), bytes: Vec::new() })
    }

    /// Adds a row: a number by its lowest bytes, a text or a list by its bytes; `None` where there is no value.
    pub(crate) fn push(&mut self, value: Option<&[u8]>) {
        self.is_valid.push(value.is_some());
        let value = value.unwrap_or_default();
        match &mut self.data {
            Data::Numbers { size, bytes, .. } => {
                let end = bytes.len() + *size;
                bytes.extend_from_slice(&value[..value.len().min(*size)]);
                bytes.resize(end, 0);
            }
            Data::Truths(truths) => truths.push(value.first().is_some_and(|&byte| byte != 0)),
            Data::Texts { is_text, ends, bytes } => {
                match is_text {
                    true => bytes.extend_from_slice(String::from_utf8_lossy(value).as_bytes()),
                    false => bytes.extend_from_slice(value),
                }
                ends.push(i32::try_from(bytes.len()).unwrap_or(i32::MAX));
            }
            Data::Lists { size, ends, bytes, .. } => {
                bytes.extend_from_slice(&value[..value.len() / *size * *size]);
                ends.push(i32::try_from(bytes.len() / *size).unwrap_or(i32::MAX));
            }
        }
    }

    /// Bytes of its values.
    pub(crate) fn size(&self) -> usize {
        match &self.data {
            Data::Numbers { bytes, .. } | Data::Texts { bytes, .. } | Data::Lists { bytes, .. } => {
                bytes.len()
            }
            Data::Truths(truths) => truths.len(),
        }
    }

    /// The interface's letter of a column of numbers.
    #[cfg(test)]
    pub(crate) fn letter(&self) -> Option<char> {
        match self.data {
            Data::Numbers { letter, .. } => Some(letter),
            _ => None,
        }
    }

    fn format(&self) -> String {
        match &self.data {
            Data::Numbers { letter, .. } => letter.to_string(),
            Data::Truths(_) => "b".into(),
            Data::Texts { is_text: true, .. } => "u".into(),
            Data::Texts { is_text: false, .. } => "z".into(),
            Data::Lists { .. } => "+l".into(),
        }
    }

    fn schema(&self) -> Schema {
        let children = match &self.data {
            Data::Lists { letter, .. } => vec![schema(&letter.to_string(), "item", Vec::new())],
            _ => Vec::new(),
        };
        schema(&self.format(), &self.name, children)
    }

    fn array(self) -> Array {
        let rows = self.is_valid.len();
        let nulls = self.is_valid.iter().filter(|is_valid| !**is_valid).count();
        let valid = if nulls == 0 { Vec::new() } else { bitmap(&self.is_valid) };
        match self.data {
            Data::Numbers { bytes, .. } => array(rows, nulls, vec![valid, bytes], Vec::new()),
            Data::Truths(truths) => array(rows, nulls, vec![valid, bitmap(&truths)], Vec::new()),
            Data::Texts { ends, bytes, .. } => {
                array(rows, nulls, vec![valid, offsets(&ends), bytes], Vec::new())
            }
            Data::Lists { size, ends, bytes, .. } => {
                let child = array(bytes.len() / size, 0, vec![Vec::new(), bytes], Vec::new());
                array(rows, nulls, vec![valid, offsets(&ends)], vec![child])
            }
        }
    }
}

/// The interface's offsets: each row's end behind the first one's beginning.
fn offsets(ends: &[i32]) -> Vec<u8> {
    [0].iter().chain(ends).flat_map(|end| end.to_le_bytes()).collect()
}

/// One bit each, the lowest first.
fn bitmap(bits: &[bool]) -> Vec<u8> {
    let byte = |bits: &[bool]| bits.iter().rev().fold(0, |byte, &bit| byte << 1 | u8::from(bit));
    bits.chunks(8).map(byte).collect()
}

/// Makes a batch of columns.
pub(crate) fn batch(columns: Vec<Column>) -> (Schema, Array) {
    let rows = columns.first().map_or(0, |column| column.is_valid.len());
    let children = columns.iter().map(Column::schema).collect();
    let arrays = columns.into_iter().map(Column::array).collect();
    (schema("+s", "", children), array(rows, 0, vec![Vec::new()], arrays))
}

fn count(len: usize) -> i64 {
    i64::try_from(len).unwrap_or(i64::MAX)
}

fn owned<T>(children: Vec<T>) -> Vec<*mut T> {
    children.into_iter().map(|child| Box::into_raw(Box::new(child))).collect()
}

fn schema(format: &str, name: &str, children: Vec<Schema>) -> Schema {
    let text = |text: &str| CString::new(text.replace('\0', "")).unwrap_or_default();
    let (format, name) = (text(format), text(name));
    // A `CString`'s text does not move with it.
    let (format_at, name_at) = (format.as_ptr(), name.as_ptr());
    let mut own = Box::new(OwnSchema { _format: format, _name: name, children: owned(children) });
    Schema {
        format: format_at,
        name: name_at,
        metadata: ptr::null(),
        flags: NULLABLE,
        n_children: count(own.children.len()),
        children: own.children.as_mut_ptr(),
        dictionary: ptr::null_mut(),
        release: Some(release_schema),
        private_data: Box::into_raw(own).cast(),
    }
}

fn array(rows: usize, nulls: usize, buffers: Vec<Vec<u8>>, children: Vec<Array>) -> Array {
    let word = |bytes: &[u8]| bytes.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
    let buffers: Vec<Vec<u64>> = buffers.iter().map(|bytes| bytes.chunks(8).map(word).collect()).collect();
    let pointer = |(index, buffer): (usize, &Vec<u64>)| -> *const c_void {
        // The first says which rows are there; without it, all are.
        if index == 0 && buffer.is_empty() { ptr::null() } else { buffer.as_ptr().cast() }
    };
    let pointers = buffers.iter().enumerate().map(pointer).collect();
    let mut own = Box::new(OwnArray { _buffers: buffers, pointers, children: owned(children) });
    Array {
        length: count(rows),
        null_count: count(nulls),
        offset: 0,
        n_buffers: count(own.pointers.len()),
        n_children: count(own.children.len()),
        buffers: own.pointers.as_mut_ptr(),
        children: own.children.as_mut_ptr(),
        dictionary: ptr::null_mut(),
        release: Some(release_array),
        private_data: Box::into_raw(own).cast(),
    }
}

/// # Safety
/// As the interface says: a schema of ours, not released before, used no more.
unsafe extern "C" fn release_schema(schema: *mut Schema) {
    // SAFETY: as the caller says.
    let schema = unsafe { &mut *schema };
    // SAFETY: `schema` made it so.
    let own = unsafe { Box::from_raw(schema.private_data.cast::<OwnSchema>()) };
    for child in own.children {
        // SAFETY: as above.
        let mut child = unsafe { Box::from_raw(child) };
        // One that was moved away is released where it went.
        if let Some(release) = child.release {
            // SAFETY: it is not released so far.
            unsafe { release(&raw mut *child) };
        }
    }
    schema.release = None;
}

/// # Safety
/// As the interface says: an array of ours, not released before, used no more.
unsafe extern "C" fn release_array(array: *mut Array) {
    // SAFETY: as the caller says.
    let array = unsafe { &mut *array };
    // SAFETY: `array` made it so.
    let own = unsafe { Box::from_raw(array.private_data.cast::<OwnArray>()) };
    for child in own.children {
        // SAFETY: as above.
        let mut child = unsafe { Box::from_raw(child) };
        // One that was moved away is released where it went.
        if let Some(release) = child.release {
            // SAFETY: it is not released so far.
            unsafe { release(&raw mut *child) };
        }
    }
    array.release = None;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_laid_out_as_the_interface_says() {
        let mut texts = Column::texts("path", true);
        let mut numbers = Column::numbers("bytes", 'S', 2);
        for (text, number) in
            [(Some(&b"ab"[..]), Some(&[1, 2][..])), (None, Some(&[3, 4])), (Some(b"c"), None)]
        {
            texts.push(text);
            numbers.push(number);
        }
        let (mut schema, mut array) = batch(vec![texts, numbers]);
        assert_eq!((array.length, array.n_children, schema.n_children), (3, 2, 2));
        // SAFETY: two children were just counted.
        let texts = unsafe { *array.children };
        // SAFETY: as above.
        let texts = unsafe { &*texts };
        assert_eq!((texts.length, texts.null_count, texts.n_buffers), (3, 1, 3));
        // SAFETY: three buffers were just counted.
        let buffers = unsafe { std::slice::from_raw_parts(texts.buffers, 3) };
        // SAFETY: a bitmap of three rows.
        assert_eq!(unsafe { *buffers[0].cast::<u8>() }, 0b101);
        // SAFETY: four offsets of three rows.
        assert_eq!(unsafe { *buffers[1].cast::<[i32; 4]>() }, [0, 2, 2, 3]);
        // SAFETY: three bytes of text.
        assert_eq!(unsafe { *buffers[2].cast::<[u8; 3]>() }, *b"abc");
        // SAFETY: released once, here.
        unsafe { release_array(&raw mut array) };
        // SAFETY: as above.
        unsafe { release_schema(&raw mut schema) };
        assert!(array.release.is_none() && schema.release.is_none());
    }
}

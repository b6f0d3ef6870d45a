//! A field of an event as a column.

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, BinaryBuilder, BooleanBuilder, ListBuilder, PrimitiveBuilder,
    StringBuilder,
};
use arrow::datatypes::{
    DataType, Field as ArrowField, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use ringtap_format::format::{Element, Field, Kind, Meaning};
use ringtap_format::{Target, Value};
use std::borrow::Cow;
use std::sync::Arc;

/// A field and the values of it that were gathered.
#[derive(Debug)]
pub(crate) struct Column {
    field: Field,
    target: Target,
    values: Values,
}

/// The values, by their type.
#[derive(Debug)]
enum Values {
    Bool(BooleanBuilder),
    I8(PrimitiveBuilder<Int8Type>),
    I16(PrimitiveBuilder<Int16Type>),
    I32(PrimitiveBuilder<Int32Type>),
    I64(PrimitiveBuilder<Int64Type>),
    U8(PrimitiveBuilder<UInt8Type>),
    U16(PrimitiveBuilder<UInt16Type>),
    U32(PrimitiveBuilder<UInt32Type>),
    U64(PrimitiveBuilder<UInt64Type>),
    F64(PrimitiveBuilder<Float64Type>),
    Text(StringBuilder),
    Bytes(BinaryBuilder),
    Signed(ListBuilder<PrimitiveBuilder<Int64Type>>, u8),
    Unsigned(ListBuilder<PrimitiveBuilder<UInt64Type>>, u8),
}

impl Values {
    fn of(field: &Field) -> Self {
        match field.kind {
            Kind::Int if field.type_name == "bool" => Self::Bool(BooleanBuilder::new()),
            Kind::Int => Self::int(field.size, field.signed),
            Kind::Bits { .. } => Self::int(8, field.signed),
            Kind::Pointer => Self::U64(PrimitiveBuilder::new()),
            Kind::Float => Self::F64(PrimitiveBuilder::new()),
            Kind::Array(element) | Kind::Rest(element) | Kind::Dynamic { element, .. } => {
                Self::array(element)
            }
            Kind::Opaque => Self::Bytes(BinaryBuilder::new()),
        }
    }

    /// Numbers of one size. A size that no machine has fits in 8 bytes, or is too large and never read.
    fn int(size: u32, signed: bool) -> Self {
        match (size, signed) {
            (1, true) => Self::I8(PrimitiveBuilder::new()),
            (2, true) => Self::I16(PrimitiveBuilder::new()),
            (3..=4, true) => Self::I32(PrimitiveBuilder::new()),
            (_, true) => Self::I64(PrimitiveBuilder::new()),
            (1, false) => Self::U8(PrimitiveBuilder::new()),
            (2, false) => Self::U16(PrimitiveBuilder::new()),
            (3..=4, false) => Self::U32(PrimitiveBuilder::new()),
            (_, false) => Self::U64(PrimitiveBuilder::new()),
        }
    }

    fn array(element: Element) -> Self {
        let size = u8::try_from(element.size).ok().filter(|size| (2..=8).contains(size));
        match (element.meaning, size) {
            (Meaning::Text, _) => Self::Text(StringBuilder::new()),
            (Meaning::Numbers, Some(size)) if element.signed => {
                Self::Signed(ListBuilder::new(PrimitiveBuilder::new()), size)
            }
            (Meaning::Numbers | Meaning::Pointers, Some(size)) => {
                Self::Unsigned(ListBuilder::new(PrimitiveBuilder::new()), size)
            }
            _ => Self::Bytes(BinaryBuilder::new()),
        }
    }
}

/// The number as a narrower type. Fields were cut to their size when they were read.
fn push<T: ArrowPrimitiveType>(builder: &mut PrimitiveBuilder<T>, value: Option<T::Native>) {
    builder.append_option(value);
}

/// The elements of an array, of `size` bytes each; what is left of the last one is dropped.
fn numbers(bytes: &[u8], size: u8, signed: bool, target: Target) -> impl Iterator<Item = u64> + '_ {
    let elements = bytes.chunks_exact(usize::from(size.max(1)));
    elements.filter_map(move |element| target.int(element, 0, size, signed))
}

/// Text as a column holds it: what is no UTF-8 is shown as such.
pub(crate) fn text(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

impl Column {
    pub(crate) fn new(field: &Field, target: Target) -> Self {
        Self { field: field.clone(), target, values: Values::of(field) }
    }

    /// Adds the field's value in `record`; null where the record is too short for it.
    pub(crate) fn push(&mut self, record: &[u8]) {
        let Self { field, target, values } = self;
        let int = || field.int(record, *target);
        match values {
            Values::Bool(to) => to.append_option(int().map(|raw| raw != 0)),
            Values::I8(to) => push(to, int().and_then(|raw| i8::try_from(raw.cast_signed()).ok())),
            Values::I16(to) => push(to, int().and_then(|raw| i16::try_from(raw.cast_signed()).ok())),
            Values::I32(to) => push(to, int().and_then(|raw| i32::try_from(raw.cast_signed()).ok())),
            Values::I64(to) => push(to, int().map(u64::cast_signed)),
            Values::U8(to) => push(to, int().and_then(|raw| u8::try_from(raw).ok())),
            Values::U16(to) => push(to, int().and_then(|raw| u16::try_from(raw).ok())),
            Values::U32(to) => push(to, int().and_then(|raw| u32::try_from(raw).ok())),
            Values::U64(to) => push(to, int()),
            Values::F64(to) => push(
                to,
                match field.value(record, *target) {
                    Some(Value::Float(value)) => Some(value),
                    _ => None,
                },
            ),
            Values::Text(to) => to.append_option(field.text(record, *target).map(text)),
            Values::Bytes(to) => to.append_option(field.bytes(record, *target)),
            Values::Signed(to, size) => {
                let bytes = field.bytes(record, *target);
                to.append_option(
                    bytes
                        .map(|bytes| numbers(bytes, *size, true, *target).map(|raw| Some(raw.cast_signed()))),
                );
            }
            Values::Unsigned(to, size) => {
                let bytes = field.bytes(record, *target);
                to.append_option(bytes.map(|bytes| numbers(bytes, *size, false, *target).map(Some)));
            }
        }
    }

    /// The column's description.
    pub(crate) fn describe(&self) -> ArrowField {
        ArrowField::new(&self.field.name, self.data_type(), true)
    }

    fn data_type(&self) -> DataType {
        let list = |item| DataType::List(Arc::new(ArrowField::new("item", item, true)));
        match &self.values {
            Values::Bool(_) => DataType::Boolean,
            Values::I8(_) => DataType::Int8,
            Values::I16(_) => DataType::Int16,
            Values::I32(_) => DataType::Int32,
            Values::I64(_) => DataType::Int64,
            Values::U8(_) => DataType::UInt8,
            Values::U16(_) => DataType::UInt16,
            Values::U32(_) => DataType::UInt32,
            Values::U64(_) => DataType::UInt64,
            Values::F64(_) => DataType::Float64,
            Values::Text(_) => DataType::Utf8,
            Values::Bytes(_) => DataType::Binary,
            Values::Signed(..) => list(DataType::Int64),
            Values::Unsigned(..) => list(DataType::UInt64),
        }
    }

    /// Takes the values that were gathered.
    pub(crate) fn finish(&mut self) -> ArrayRef {
        let array: ArrayRef = match &mut self.values {
            Values::Bool(values) => Arc::new(values.finish()),
            Values::I8(values) => Arc::new(values.finish()),
            Values::I16(values) => Arc::new(values.finish()),
            Values::I32(values) => Arc::new(values.finish()),
            Values::I64(values) => Arc::new(values.finish()),
            Values::U8(values) => Arc::new(values.finish()),
            Values::U16(values) => Arc::new(values.finish()),
            Values::U32(values) => Arc::new(values.finish()),
            Values::U64(values) => Arc::new(values.finish()),
            Values::F64(values) => Arc::new(values.finish()),
            Values::Text(values) => Arc::new(values.finish()),
            Values::Bytes(values) => Arc::new(values.finish()),
            Values::Signed(values, _) => Arc::new(values.finish()),
            Values::Unsigned(values, _) => Arc::new(values.finish()),
        };
        debug_assert_eq!(*array.data_type(), self.data_type(), "as it was described");
        array
    }
}

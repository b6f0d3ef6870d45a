//! A field of an event as a column.

use arrow_array::ArrayRef;
use arrow_array::builder::{
    ArrayBuilder, BinaryBuilder, BooleanBuilder, ListBuilder, PrimitiveBuilder, StringBuilder,
};
use arrow_array::types::{
    ArrowPrimitiveType, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow_schema::{DataType, Field as ArrowField};
use ringtap_format::format::{Element, Field, Kind, Meaning};
use ringtap_format::{IntField, Target, Value};
use std::borrow::Cow;
use std::sync::Arc;

/// A field and the values of it that were gathered.
#[derive(Debug)]
pub(crate) struct Column {
    field: Field,
    /// How to read it fast, where it is an integer of whole bytes.
    int: Option<IntField>,
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
    /// Elements of so many bytes.
    Signed(ListBuilder<PrimitiveBuilder<Int64Type>>, u8),
    Unsigned(ListBuilder<PrimitiveBuilder<UInt64Type>>, u8),
}

impl Values {
    fn of(field: &Field) -> Self {
        match field.kind {
            Kind::Int if matches!(field.type_name.as_str(), "bool" | "_Bool") => {
                Self::Bool(BooleanBuilder::new())
            }
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
        let size = u8::try_from(element.size).ok().filter(|size| (1..=8).contains(size));
        match (element.meaning, size) {
            (Meaning::Text, _) => Self::Text(StringBuilder::new()),
            // Bytes without a sign are data more often than numbers.
            (Meaning::Numbers, Some(1)) if !element.signed => Self::Bytes(BinaryBuilder::new()),
            (Meaning::Numbers, Some(size)) if element.signed => {
                Self::Signed(ListBuilder::new(PrimitiveBuilder::new()), size)
            }
            (Meaning::Numbers | Meaning::Pointers | Meaning::Mask, Some(size)) => {
                Self::Unsigned(ListBuilder::new(PrimitiveBuilder::new()), size)
            }
            _ => Self::Bytes(BinaryBuilder::new()),
        }
    }

    fn data_type(&self) -> DataType {
        let list = |item| DataType::List(Arc::new(ArrowField::new_list_field(item, true)));
        match self {
            Self::Bool(_) => DataType::Boolean,
            Self::I8(_) => DataType::Int8,
            Self::I16(_) => DataType::Int16,
            Self::I32(_) => DataType::Int32,
            Self::I64(_) => DataType::Int64,
            Self::U8(_) => DataType::UInt8,
            Self::U16(_) => DataType::UInt16,
            Self::U32(_) => DataType::UInt32,
            Self::U64(_) => DataType::UInt64,
            Self::F64(_) => DataType::Float64,
            Self::Text(_) => DataType::Utf8,
            Self::Bytes(_) => DataType::Binary,
            Self::Signed(..) => list(DataType::Int64),
            Self::Unsigned(..) => list(DataType::UInt64),
        }
    }

    fn builder(&mut self) -> &mut dyn ArrayBuilder {
        match self {
            Self::Bool(values) => values,
            Self::I8(values) => values,
            Self::I16(values) => values,
            Self::I32(values) => values,
            Self::I64(values) => values,
            Self::U8(values) => values,
            Self::U16(values) => values,
            Self::U32(values) => values,
            Self::U64(values) => values,
            Self::F64(values) => values,
            Self::Text(values) => values,
            Self::Bytes(values) => values,
            Self::Signed(values, _) => values,
            Self::Unsigned(values, _) => values,
        }
    }
}

/// The number as a narrower type. It was cut to its field's size when it was read, so that none is out of range.
fn push<T: ArrowPrimitiveType>(
    builder: &mut PrimitiveBuilder<T>,
    raw: Option<u64>,
    narrow: impl Fn(u64) -> Option<T::Native>,
) {
    builder.append_option(raw.and_then(narrow));
}

/// The elements of an array, of `size` bytes each; what is left of the last one is dropped.
fn numbers(bytes: &[u8], size: u8, signed: bool, target: Target) -> impl Iterator<Item = u64> + '_ {
    let elements = bytes.chunks_exact(usize::from(size.max(1)));
    elements.filter_map(move |element| target.int(element, 0, size, signed))
}

/// Text as a column holds it: what is no UTF-8 becomes U+FFFD.
pub(crate) fn text(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

impl Column {
    pub(crate) fn new(field: &Field, target: Target) -> Self {
        let int = IntField::new(field, target);
        Self { field: field.clone(), int, target, values: Values::of(field) }
    }

    /// Whether both read the same bytes of a record as the same values.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let (Self { field: own, .. }, Self { field, .. }) = (self, other);
        (self.target, own.offset, own.size, own.signed, &own.kind)
            == (other.target, field.offset, field.size, field.signed, &field.kind)
    }

    /// Adds the field's value in `record`; null where the record is too short for it.
    pub(crate) fn push(&mut self, record: &[u8]) {
        let Self { field, int, target, values } = self;
        let (field, int, target) = (&*field, *int, *target);
        let raw = || match int {
            Some(int) => int.get(record),
            None => field.int(record, target),
        };
        match values {
            Values::Bool(to) => to.append_option(raw().map(|raw| raw != 0)),
            Values::I8(to) => push(to, raw(), |raw| i8::try_from(raw.cast_signed()).ok()),
            Values::I16(to) => push(to, raw(), |raw| i16::try_from(raw.cast_signed()).ok()),
            Values::I32(to) => push(to, raw(), |raw| i32::try_from(raw.cast_signed()).ok()),
            Values::I64(to) => push(to, raw(), |raw| Some(raw.cast_signed())),
            Values::U8(to) => push(to, raw(), |raw| u8::try_from(raw).ok()),
            Values::U16(to) => push(to, raw(), |raw| u16::try_from(raw).ok()),
            Values::U32(to) => push(to, raw(), |raw| u32::try_from(raw).ok()),
            Values::U64(to) => push(to, raw(), Some),
            Values::F64(to) => to.append_option(match field.value(record, target) {
                Some(Value::Float(value)) => Some(value),
                _ => None,
            }),
            Values::Text(to) => to.append_option(field.text(record, target).map(text)),
            Values::Bytes(to) => to.append_option(field.bytes(record, target)),
            Values::Signed(to, size) => {
                let signed = |bytes| numbers(bytes, *size, true, target).map(|raw| Some(raw.cast_signed()));
                to.append_option(field.bytes(record, target).map(signed));
            }
            Values::Unsigned(to, size) => {
                let unsigned = |bytes| numbers(bytes, *size, false, target).map(Some);
                to.append_option(field.bytes(record, target).map(unsigned));
            }
        }
    }

    /// The column's description.
    pub(crate) fn describe(&self) -> ArrowField {
        ArrowField::new(&self.field.name, self.values.data_type(), true)
    }

    /// Takes the values that were gathered.
    pub(crate) fn take(&mut self) -> ArrayRef {
        let array = self.values.builder().finish();
        debug_assert_eq!(*array.data_type(), self.values.data_type(), "as it was described");
        array
    }
}

//! What a field can be: its type in the `format` text, and how its value gets into the record.

/// A type that a field of an event can have.
///
/// Implemented for the types in the [module's table](mod@crate::event#fields); [`symbols!`](crate::symbols!)
/// implements it for enums and flags.
pub trait Value {
    /// What the `format` text says of the type.
    const KIND: Kind;

    /// Adds the value to a record's words, zero so far, at byte `at`, a multiple of the kind's alignment. A string's
    /// or slice's place is filled in later.
    fn put(&self, words: &mut [u64], at: usize);

    /// What a string or slice puts behind the fixed fields.
    #[inline(always)]
    fn tail(&self) -> &[u8] {
        &[]
    }
}

/// A number of 1 to 8 bytes: what arrays and slices are made of.
pub trait Scalar: Copy + Value {
    /// The value's bits, zero-extended.
    fn bits(self) -> u64;
}

/// A field's type, as the `format` text tells it.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// The C type of the value or of one element.
    pub c_type: &'static str,
    /// Bytes of the value or of one element.
    pub element_size: usize,
    /// How many elements.
    pub count: Count,
    /// Whether the value is signed.
    pub signed: bool,
    /// How it is printed.
    pub shown: Shown,
}

/// How many elements a field has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// It is no array.
    One,
    /// A fixed array.
    Fixed(usize),
    /// As many as the record says: a `__data_loc`.
    Dynamic,
}

/// How a field is printed.
#[derive(Clone, Copy, Debug)]
pub enum Shown {
    /// As a decimal number.
    Decimal,
    /// As hexadecimal bits: pointers and floats.
    Hexadecimal,
    /// As text.
    Text,
    /// As the symbol of the value.
    Symbol(&'static [(u64, &'static str)]),
    /// As the symbols of the bits that are set.
    Flags(&'static [(u64, &'static str)]),
}

impl Kind {
    /// A number.
    #[must_use]
    pub const fn number(c_type: &'static str, size: usize, signed: bool, shown: Shown) -> Self {
        Self { c_type, element_size: size, count: Count::One, signed, shown }
    }

    /// Elements of this kind, which is a number's. An array's elements are printed as numbers.
    #[must_use]
    pub const fn many(self, count: Count) -> Self {
        Self { count, shown: Shown::Hexadecimal, ..self }
    }

    /// Bytes that the field takes among the fixed ones: 4 for a `__data_loc`.
    #[must_use]
    pub const fn size(&self) -> usize {
        match self.count {
            Count::One => self.element_size,
            Count::Fixed(count) => self.element_size * count,
            Count::Dynamic => 4,
        }
    }

    /// The field's offset is a multiple of this.
    #[must_use]
    pub const fn align(&self) -> usize {
        match self.count {
            Count::Dynamic => 4,
            _ => self.element_size,
        }
    }

    /// Whether it is a `__data_loc`.
    #[must_use]
    pub const fn is_dynamic(&self) -> bool {
        matches!(self.count, Count::Dynamic)
    }
}

/// The word arithmetic that all scalars share.
#[inline(always)]
fn put_bits(words: &mut [u64], at: usize, bits: u64) {
    words[at / 8] |= bits << (at % 8 * 8);
}

macro_rules! scalars {
    ($($type:ty: $c_type:literal $signed:literal $shown:ident, |$value:ident| $bits:expr;)*) => { $(
        impl Value for $type {
            const KIND: Kind = Kind::number($c_type, size_of::<$type>(), $signed, Shown::$shown);

            #[inline(always)]
            fn put(&self, words: &mut [u64], at: usize) {
                put_bits(words, at, self.bits());
            }
        }

        impl Scalar for $type {
            #[inline(always)]
            fn bits(self) -> u64 {
                let $value = self;
                $bits
            }
        }
    )* };
}

scalars! {
    u8: "u8" false Decimal, |value| value.into();
    u16: "u16" false Decimal, |value| value.into();
    u32: "u32" false Decimal, |value| value.into();
    u64: "u64" false Decimal, |value| value;
    usize: "unsigned long" false Decimal, |value| value as u64;
    i8: "s8" true Decimal, |value| value.cast_unsigned().into();
    i16: "s16" true Decimal, |value| value.cast_unsigned().into();
    i32: "s32" true Decimal, |value| value.cast_unsigned().into();
    i64: "s64" true Decimal, |value| value.cast_unsigned();
    isize: "long" true Decimal, |value| value.cast_unsigned() as u64;
    bool: "bool" false Decimal, |value| value.into();
    f32: "float" true Hexadecimal, |value| value.to_bits().into();
    f64: "double" true Hexadecimal, |value| value.to_bits();
}

macro_rules! pointers {
    ($($type:ty)*) => { $(
        impl<T> Value for $type {
            const KIND: Kind = Kind::number("void *", size_of::<$type>(), false, Shown::Hexadecimal);

            #[inline(always)]
            fn put(&self, words: &mut [u64], at: usize) {
                put_bits(words, at, self.bits());
            }
        }

        impl<T> Scalar for $type {
            #[inline(always)]
            fn bits(self) -> u64 {
                self.addr() as u64
            }
        }
    )* };
}

pointers! { *const T *mut T }

impl<T: Scalar, const N: usize> Value for [T; N] {
    const KIND: Kind = T::KIND.many(Count::Fixed(N));

    #[inline(always)]
    fn put(&self, words: &mut [u64], at: usize) {
        let size = T::KIND.element_size;
        if !at.is_multiple_of(8) {
            for (index, element) in self.iter().enumerate() {
                element.put(words, at + index * size);
            }
            return;
        }
        // Whole words, so that no word is stored twice.
        for (word, elements) in words[at / 8..].iter_mut().zip(self.chunks(8 / size)) {
            for (index, element) in elements.iter().enumerate() {
                *word |= element.bits() << (index * size * 8);
            }
        }
    }
}

/// Text of at most `N - 1` bytes in a field of fixed size, as the kernel keeps `comm`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Text<const N: usize>([u8; N]);

impl<const N: usize> Text<N> {
    /// Takes the text, cut between characters where it is too long.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let text = cut(text.as_bytes(), N.saturating_sub(1));
        let mut bytes = [0; N];
        bytes[..text.len()].copy_from_slice(text);
        Self(bytes)
    }
}

impl<const N: usize> std::fmt::Debug for Text<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = self.0.split(|&byte| byte == 0).next().unwrap_or_default();
        write!(f, "{:?}", String::from_utf8_lossy(text))
    }
}

impl<const N: usize> From<&str> for Text<N> {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl<const N: usize> Value for Text<N> {
    const KIND: Kind =
        Kind { c_type: "char", element_size: 1, count: Count::Fixed(N), signed: false, shown: Shown::Text };

    #[inline(always)]
    fn put(&self, words: &mut [u64], at: usize) {
        self.0.put(words, at);
    }
}

impl Value for &str {
    const KIND: Kind =
        Kind { c_type: "char", element_size: 1, count: Count::Dynamic, signed: false, shown: Shown::Text };

    #[inline(always)]
    fn put(&self, _: &mut [u64], _: usize) {}

    #[inline(always)]
    fn tail(&self) -> &[u8] {
        self.as_bytes()
    }
}

macro_rules! slices {
    ($($type:ty)*) => { $(
        impl Value for &[$type] {
            const KIND: Kind = <$type>::KIND.many(Count::Dynamic);

            #[inline(always)]
            fn put(&self, _: &mut [u64], _: usize) {}

            #[inline(always)]
            fn tail(&self) -> &[u8] {
                // SAFETY: the elements are numbers without padding, and each byte of them may be read.
                unsafe { std::slice::from_raw_parts(self.as_ptr().cast(), size_of_val(*self)) }
            }
        }
    )* };
}

slices! { u8 u16 u32 u64 usize i8 i16 i32 i64 isize bool f32 f64 }

/// As many of a text's bytes as fit in `room`, cut between characters.
#[must_use]
pub fn cut(text: &[u8], room: usize) -> &[u8] {
    if text.len() <= room {
        return text;
    }
    // A byte of the form 10xxxxxx goes on with the character before it.
    let begins = |&at: &usize| text[at] & 0xc0 != 0x80;
    let end = (room.saturating_sub(3)..=room).rev().find(begins);
    &text[..end.unwrap_or(room)]
}

//! Filters as byte code: what a writer evaluates over a record before it is written.
//!
//! The host makes a *program* from a filter's text and lays it into shared memory; each writer evaluates it over the
//! payload that stands on its own stack. A program is words of 64 bits:
//!
//! ```text
//!             63            32 31      16 15       0
//!            +----------------+----------+----------+
//!   header   |     words      |  steps   |  MAGIC   |
//!            +----------------+----------+----------+
//!             63      48 47      32 31    16 15   8 7 6 5      0
//!            +----------+----------+--------+------+-+-+--------+
//!   step     |  target  |  offset  |  size  |source|b|s|  test  |     one for each comparison
//!            +----------+----------+--------+------+-+-+--------+
//!            |                     operand                      |
//!            +--------------------------------------------------+
//!   pool     |     patterns, CPU masks, address ranges          |
//! ```
//!
//! *source* says what is compared: the `size` bytes at `offset`, the CPU, the task's name. *test* says how, *s*
//! whether numbers have a sign. The operand is a number, or {bytes:32, place:32} of something in the pool, its
//! place counted in words from the header. A step whose result is *b* goes on at *target*, another one at the next
//! step. Behind the last step, `steps`, is acceptance; `steps + 1` is refusal. Targets lie ahead, so that a
//! program ends.
//!
//! A program in shared memory is an *allegation*: [`evaluate`] checks each step before it makes it, and does a bounded
//! amount of work whatever the words are, even if they change meanwhile. Whether they did is for the caller to find
//! out.

pub mod glob;

use crate::sync::AtomicU64;
use core::cmp::Ordering::{Equal, Greater, Less};
use core::sync::atomic::Ordering::Relaxed;

/// The header's low bits: these steps and no others.
const MAGIC: u64 = 0xf117;
/// Most steps of a program: no filter that the kernel takes, which is less than a page, has more comparisons.
pub const MAX_STEPS: u16 = 1024;
/// Longest program, in words: 64 KiB.
pub const MAX_WORDS: u32 = 8192;
/// Longest text between quotes, in bytes.
pub const MAX_PATTERN: usize = 256;
/// Bytes of all patterns that one evaluation looks at, at most: a filter's text, of which they are parts, is shorter.
const PATTERN_BUDGET: usize = 4096;
/// Bytes of a task's name, with its NUL.
pub const COMM_LEN: usize = 16;

/// Words that a program is read from.
pub trait Words {
    /// The word at this place; `None` behind the last one.
    fn word(&self, place: usize) -> Option<u64>;
}

impl Words for [u64] {
    #[inline]
    fn word(&self, place: usize) -> Option<u64> {
        self.get(place).copied()
    }
}

impl Words for [AtomicU64] {
    /// Relaxed: whoever published the words has their reader acquire their place, and look at it again afterwards.
    #[inline]
    fn word(&self, place: usize) -> Option<u64> {
        self.get(place).map(|word| word.load(Relaxed))
    }
}

/// The program breaks its own rules, or was replaced while it was evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged;

impl core::fmt::Display for Damaged {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("the filter's byte code is damaged")
    }
}

impl core::error::Error for Damaged {}

/// A record, and what a filter can ask of its writer.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// The payload, its common fields first; not in shared memory.
    pub payload: &'a [u8],
    /// The CPU that it is written on.
    pub cpu: u32,
    /// The task's name, asked for only by filters that need it.
    pub comm: &'a dyn Fn() -> [u8; COMM_LEN],
}

impl core::fmt::Debug for Subject<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Subject")
            .field("payload", &self.payload)
            .field("cpu", &self.cpu)
            .finish_non_exhaustive()
    }
}

/// A program's first word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Comparisons.
    pub steps: u16,
    /// Words in all, this one included.
    pub words: u32,
}

impl Header {
    /// To the word.
    #[must_use]
    pub const fn pack(self) -> u64 {
        (self.words as u64) << 32 | (self.steps as u64) << 16 | MAGIC
    }

    /// From the word, if it is one.
    #[must_use]
    #[inline]
    pub const fn unpack(word: u64) -> Option<Self> {
        let [_, _, low, high, words @ ..] = word.to_le_bytes();
        let header = Self { steps: u16::from_le_bytes([low, high]), words: u32::from_le_bytes(words) };
        let is_sane = word & 0xffff == MAGIC
            && header.steps <= MAX_STEPS
            && header.words <= MAX_WORDS
            && header.words > header.steps as u32 * 2;
        if is_sane { Some(header) } else { None }
    }
}

/// How two numbers are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `<=`
    LessOrEqual,
    /// `<`
    Less,
    /// `>=`
    GreaterOrEqual,
    /// `>`
    Greater,
    /// `&`: a bit in common.
    BitAnd,
}

impl Comparison {
    const ALL: [Self; 7] = [
        Self::Equal,
        Self::NotEqual,
        Self::LessOrEqual,
        Self::Less,
        Self::GreaterOrEqual,
        Self::Greater,
        Self::BitAnd,
    ];

    #[inline]
    fn holds(self, value: u64, wanted: u64, signed: bool) -> bool {
        let order = if signed { value.cast_signed().cmp(&wanted.cast_signed()) } else { value.cmp(&wanted) };
        match self {
            Self::Equal => order == Equal,
            Self::NotEqual => order != Equal,
            Self::LessOrEqual => order != Greater,
            Self::Less => order == Less,
            Self::GreaterOrEqual => order != Less,
            Self::Greater => order == Greater,
            Self::BitAnd => value & wanted != 0,
        }
    }
}

/// How a step compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    /// A number with the operand.
    Number(Comparison),
    /// Text with the pool's: whether it is the same (or not).
    Text {
        /// What makes the step true.
        equal: bool,
    },
    /// Text with the pool's glob: whether it matches (or not).
    Glob {
        /// What makes the step true.
        equal: bool,
    },
    /// CPUs with the pool's mask: the same (`Equal`), others (`NotEqual`), one in common (`BitAnd`).
    Cpus(Comparison),
    /// An address with the pool's range, two words {start, end}: whether it lies inside (or not).
    Range {
        /// What makes the step true.
        equal: bool,
    },
}

const TEXT: u8 = 8;
const GLOB: u8 = 10;
const CPUS: u8 = 12;
const RANGE: u8 = 20;

impl Test {
    const fn code(self) -> u8 {
        match self {
            Self::Number(comparison) => comparison as u8,
            Self::Text { equal } => TEXT + equal as u8,
            Self::Glob { equal } => GLOB + equal as u8,
            Self::Cpus(comparison) => CPUS + comparison as u8,
            Self::Range { equal } => RANGE + equal as u8,
        }
    }

    #[inline]
    fn of_code(code: u8) -> Option<Self> {
        let comparison = |code: u8| Comparison::ALL.get(usize::from(code)).copied();
        let equal = code & 1 == 1;
        match code {
            0..TEXT => comparison(code).map(Self::Number),
            TEXT..GLOB => Some(Self::Text { equal }),
            GLOB..CPUS => Some(Self::Glob { equal }),
            CPUS..RANGE => comparison(code - CPUS).map(Self::Cpus),
            RANGE | 21 => Some(Self::Range { equal }),
            _ => None,
        }
    }
}

/// What a step compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The integer of `size` bytes, 1 to 8, at `offset`.
    Int,
    /// The `size` bytes at `offset`.
    Array,
    /// The bytes that the `__data_loc` at `offset` names.
    DataLoc,
    /// The bytes that the `__rel_loc` at `offset` names.
    RelLoc,
    /// All bytes from `offset` on.
    Rest,
    /// The CPU.
    Cpu,
    /// The task's name.
    Comm,
}

impl Source {
    const ALL: [Self; 7] =
        [Self::Int, Self::Array, Self::DataLoc, Self::RelLoc, Self::Rest, Self::Cpu, Self::Comm];
}

/// Where a step finds what it compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// What lies there.
    pub source: Source,
    /// Whether its integer has a sign.
    pub signed: bool,
    /// Where, in bytes from the payload's start.
    pub offset: u16,
    /// How many bytes, where the source says so.
    pub size: u16,
}

impl Field {
    /// To bits 6 and 8 to 47 of a word; the others are 0.
    #[must_use]
    pub const fn pack(self) -> u64 {
        (self.signed as u64) << 6
            | (self.source as u64) << 8
            | (self.size as u64) << 16
            | (self.offset as u64) << 32
    }

    /// From those bits, if they are a field.
    #[must_use]
    #[inline]
    pub fn unpack(word: u64) -> Option<Self> {
        let [low, source, size_low, size_high, offset_low, offset_high, ..] = word.to_le_bytes();
        Some(Self {
            source: *Source::ALL.get(usize::from(source))?,
            signed: low & 1 << 6 != 0,
            offset: u16::from_le_bytes([offset_low, offset_high]),
            size: u16::from_le_bytes([size_low, size_high]),
        })
    }

    /// The integer, its sign extended; `None` where the payload is too short or this is no number.
    #[must_use]
    #[inline]
    pub fn int(&self, subject: &Subject<'_>) -> Option<u64> {
        match self.source {
            Source::Int => {
                let raw = int(subject.payload, self.offset.into(), self.size.into())?;
                Some(if self.signed { sign_extend(raw, self.size) } else { raw })
            }
            Source::Cpu => Some(subject.cpu.into()),
            _ => None,
        }
    }

    /// The array's bytes; `None` where the payload is too short or this is no array of the payload's.
    #[must_use]
    #[inline]
    pub fn bytes<'a>(&self, subject: &Subject<'a>) -> Option<&'a [u8]> {
        let (payload, offset) = (subject.payload, usize::from(self.offset));
        match self.source {
            Source::Array => payload.get(offset..)?.get(..self.size.into()),
            Source::Rest => payload.get(offset..),
            Source::DataLoc => dynamic(payload, offset, 0),
            Source::RelLoc => dynamic(payload, offset, offset + 4),
            Source::Int | Source::Cpu | Source::Comm => None,
        }
    }
}

/// The bytes that a dynamic array's word names: length in the high, offset in the low 16 bits.
#[inline]
fn dynamic(payload: &[u8], offset: usize, base: usize) -> Option<&[u8]> {
    let word = u32::from_le_bytes(*payload.get(offset..)?.first_chunk()?);
    let (start, len) = (base + (word & 0xffff) as usize, (word >> 16) as usize);
    payload.get(start..)?.get(..len)
}

/// The little-endian integer of `size` bytes, 1 to 8.
#[inline]
fn int(payload: &[u8], offset: usize, size: usize) -> Option<u64> {
    let rest = payload.get(offset..)?;
    if size == 0 || size > 8 {
        return None;
    }
    // Mostly eight bytes are there: one load, no branch on the size.
    if let Some(chunk) = rest.first_chunk() {
        return Some(u64::from_le_bytes(*chunk) & u64::MAX >> (64 - 8 * size));
    }
    Some(rest.get(..size)?.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
}

#[inline]
fn sign_extend(raw: u64, size: u16) -> u64 {
    let unused = 64 - 8 * u32::from(size).clamp(1, 8);
    ((raw << unused).cast_signed() >> unused).cast_unsigned()
}

/// One comparison of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// How it compares.
    pub test: Test,
    /// What.
    pub field: Field,
    /// The result that goes on at `target`; the other one goes on at the next step.
    pub branch_if: bool,
    /// The step to go on at.
    pub target: u16,
    /// The number, or the [`operand`] in the pool.
    pub operand: u64,
}

/// The operand that lies in the pool: `len` bytes at word `place`.
#[must_use]
pub const fn operand(place: u32, len: u32) -> u64 {
    (len as u64) << 32 | place as u64
}

impl Step {
    /// To its two words.
    #[must_use]
    pub const fn pack(self) -> [u64; 2] {
        let code = self.test.code() as u64 | (self.branch_if as u64) << 7 | (self.target as u64) << 48;
        [code | self.field.pack(), self.operand]
    }

    /// From its two words, if they are a step.
    #[must_use]
    #[inline]
    pub fn unpack(words: [u64; 2]) -> Option<Self> {
        let [low, .., target_low, target_high] = words[0].to_le_bytes();
        Some(Self {
            test: Test::of_code(low & 0x3f)?,
            field: Field::unpack(words[0])?,
            branch_if: low & 1 << 7 != 0,
            target: u16::from_le_bytes([target_low, target_high]),
            operand: words[1],
        })
    }
}

/// Whether the program that begins at `words`' first word accepts the record. Behind it may lie anything.
///
/// # Errors
/// [`Damaged`]: what to do with the record is the caller's choice.
#[inline]
pub fn evaluate<W: Words + ?Sized>(words: &W, subject: &Subject<'_>) -> Result<bool, Damaged> {
    Run { words, at: 0, subject, patterns: 0 }.run().ok_or(Damaged)
}

/// As [`evaluate`], of the program whose first word is at `place`.
///
/// # Errors
/// As there.
#[inline]
pub fn evaluate_at<W: Words + ?Sized>(
    words: &W,
    place: usize,
    subject: &Subject<'_>,
) -> Result<bool, Damaged> {
    Run { words, at: place, subject, patterns: 0 }.run().ok_or(Damaged)
}

/// An evaluation; `None` from any of its functions means that the program is damaged.
struct Run<'r, W: ?Sized> {
    words: &'r W,
    /// Where the program's header is.
    at: usize,
    subject: &'r Subject<'r>,
    /// Bytes of patterns looked at so far.
    patterns: usize,
}

impl<W: Words + ?Sized> Run<'_, W> {
    #[inline]
    fn word(&self, place: usize) -> Option<u64> {
        self.words.word(self.at.checked_add(place)?)
    }

    #[inline]
    fn run(mut self) -> Option<bool> {
        let header = Header::unpack(self.word(0)?)?;
        let mut at = 0u16;
        // Each step goes ahead, so there are no more rounds than steps.
        while at < header.steps {
            let place = 1 + 2 * usize::from(at);
            let step = Step::unpack([self.word(place)?, self.word(place + 1)?])?;
            if step.target <= at {
                return None;
            }
            at = if self.step(&step, header)? == step.branch_if { step.target } else { at + 1 };
        }
        match at - header.steps {
            0 => Some(true),
            1 => Some(false),
            _ => None,
        }
    }

    /// The step's result: false where the record is too short for its field.
    #[inline]
    fn step(&mut self, step: &Step, header: Header) -> Option<bool> {
        match step.test {
            Test::Number(comparison) => {
                let holds = |value| comparison.holds(value, step.operand, step.field.signed);
                Some(step.field.int(self.subject).is_some_and(holds))
            }
            Test::Text { equal } => self.text(step, header, equal, |pattern, text| pattern == text),
            Test::Glob { equal } => self.text(step, header, equal, glob::matches),
            Test::Cpus(comparison) => self.cpus(step, header, comparison),
            Test::Range { equal } => {
                let (place, len) = pooled(step.operand, header)?;
                let (start, end) = (self.word(place)?, self.word(place + 1)?);
                let inside = |address| (start..end).contains(&address) == equal;
                (len == 16).then(|| step.field.int(self.subject).is_some_and(inside))
            }
        }
    }

    fn text(
        &mut self,
        step: &Step,
        header: Header,
        equal: bool,
        matches: fn(&[u8], &[u8]) -> bool,
    ) -> Option<bool> {
        let comm;
        let bytes = if step.field.source == Source::Comm {
            comm = (self.subject.comm)();
            &comm[..]
        } else if let Some(bytes) = step.field.bytes(self.subject) {
            bytes
        } else {
            return Some(false);
        };
        let (place, len) = pooled(step.operand, header)?;
        self.patterns += len;
        if self.patterns > PATTERN_BUDGET {
            return None;
        }
        let mut copy = [0; MAX_PATTERN];
        let pattern = copy.get_mut(..len)?;
        for (nth, bytes) in pattern.chunks_mut(8).enumerate() {
            let word = self.word(place + nth)?.to_le_bytes();
            bytes.copy_from_slice(&word[..bytes.len()]);
        }
        Some(matches(pattern, until_nul(bytes)) == equal)
    }

    fn cpus(&self, step: &Step, header: Header, comparison: Comparison) -> Option<bool> {
        let (place, len) = pooled(step.operand, header)?;
        let words = len / 8;
        let mut found = Found { same: true, shared: false };
        if let Some(cpu) = step.field.int(self.subject) {
            for nth in 0..words {
                let only = if cpu / 64 == nth as u64 { 1 << (cpu % 64) } else { 0 };
                found.compare(self.word(place + nth)?, only);
            }
            // A CPU behind the mask's end is in it as little as any other that it does not name.
            found.same &= cpu / 64 < words as u64;
        } else if let Some(mask) = step.field.bytes(self.subject) {
            for nth in 0..words.max(mask.len().div_ceil(8)) {
                let ours = if nth < words { self.word(place + nth)? } else { 0 };
                found.compare(
                    ours,
                    mask.get(8 * nth..)
                        .and_then(<[u8]>::first_chunk)
                        .map_or(0, |raw| u64::from_le_bytes(*raw)),
                );
            }
        } else {
            return Some(false);
        }
        Some(match comparison {
            Comparison::Equal => found.same,
            Comparison::NotEqual => !found.same,
            _ => found.shared,
        })
    }
}

/// How two masks relate, as far as they were compared.
struct Found {
    same: bool,
    shared: bool,
}

impl Found {
    #[inline]
    fn compare(&mut self, ours: u64, theirs: u64) {
        self.same &= ours == theirs;
        self.shared |= ours & theirs != 0;
    }
}

/// Place and bytes of an operand in the pool, if it lies inside the program.
#[inline]
fn pooled(operand: u64, header: Header) -> Option<(usize, usize)> {
    let (place, len) = ((operand & 0xffff_ffff) as usize, (operand >> 32) as usize);
    let end = place.checked_add(len.div_ceil(8))?;
    (end <= header.words as usize).then_some((place, len))
}

/// The bytes of a C string: up to its NUL, or all where it has none.
#[must_use]
#[inline]
pub fn until_nul(bytes: &[u8]) -> &[u8] {
    match bytes.iter().position(|&byte| byte == 0) {
        Some(end) => &bytes[..end],
        None => bytes,
    }
}

/// What evaluation promises of any words and any payload: an answer or [`Damaged`], the same from plain words as from
/// atomic ones; and that what unpacks packs to the same words.
pub fn check_predicate(words: &[u64], payload: &[u8]) {
    let subject = Subject { payload, cpu: 3, comm: &|| *b"a task's name\0\0\0" };
    let _ = evaluate(words, &subject);
    let _ = evaluate_at(words, words.len() / 2, &subject);
    for pair in words.as_chunks::<2>().0 {
        if let Some(step) = Step::unpack(*pair) {
            assert_eq!(Step::unpack(step.pack()), Some(step));
        }
    }
    if let Some(header) = words.first().and_then(|word| Header::unpack(*word)) {
        assert_eq!(header.pack(), words[0]);
    }
}

#[cfg(all(test, not(loom)))]
mod tests;

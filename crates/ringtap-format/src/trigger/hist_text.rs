//! A histogram's table as an event's `hist` file shows it.

use super::hist::{Column, ColumnSource, Hist, Modifier, SortBy};
use crate::dialect::Dialect;
use crate::out;
use crate::symbols::Symbols;
use ringtap_abi::rules::hist::STACK_DEPTH;
use std::cmp::Ordering;

/// An entry of a histogram, as it was counted.
#[derive(Clone, Copy, Debug)]
pub struct HistRow<'a> {
    /// The words of the key, in the order of the histogram's keys.
    pub key: &'a [u64],
    /// The hitcount, then the sums of its values.
    pub sums: &'a [u64],
    /// The task that made the entry, for `.execname`.
    pub comm: &'a [u8],
}

/// A histogram with all that it counted.
#[derive(Clone, Copy, Debug)]
pub struct HistTable<'a> {
    /// The trigger.
    pub hist: &'a Hist,
    /// Its line in the `trigger` file: [`Trigger::text`](super::Trigger::text).
    pub info: &'a str,
    /// Its entries, in any order.
    pub rows: &'a [HistRow<'a>],
    /// Events that were counted.
    pub hits: u64,
    /// Events for whose keys there was no room.
    pub dropped: u64,
}

impl HistTable<'_> {
    /// Appends the text of the `hist` file. Where an event has several histograms, two empty lines stand between
    /// their texts. Entries that are equal by all sort keys stand in the order of their keys.
    pub fn print(&self, symbols: &Symbols, out: &mut Vec<u8>) {
        out.extend_from_slice(b"# event histogram\n#\n# trigger info: ");
        out.extend_from_slice(self.info.as_bytes());
        out.extend_from_slice(b"\n#\n\n");
        let mut rows: Vec<&HistRow<'_>> = self.rows.iter().collect();
        rows.sort_by(|one, other| self.order(one, other));
        for row in &rows {
            self.row(row, symbols, out);
        }
        let entries = rows.len();
        let totals = format!(
            "\nTotals:\n    Hits: {}\n    Entries: {entries}\n    Dropped: {}\n",
            self.hits, self.dropped
        );
        out.extend_from_slice(totals.as_bytes());
    }

    fn order(&self, one: &HistRow<'_>, other: &HistRow<'_>) -> Ordering {
        let by_sort = self.hist.sort.iter().map(|sort| {
            let order = match sort.by {
                SortBy::Hitcount => one.sums.first().cmp(&other.sums.first()),
                SortBy::Value(nth) => {
                    let place = nth.saturating_add(1);
                    one.sums.get(place).cmp(&other.sums.get(place))
                }
                SortBy::Key(nth) => self.order_of_key(nth, one, other),
            };
            if sort.descending { order.reverse() } else { order }
        });
        let by_key = (0..self.hist.keys.len()).map(|nth| self.order_of_key(nth, one, other));
        let order = by_sort.chain(by_key).find(|order| order.is_ne());
        order.unwrap_or_else(|| one.key.cmp(other.key))
    }

    fn order_of_key(&self, nth: usize, one: &HistRow<'_>, other: &HistRow<'_>) -> Ordering {
        let Some(column) = self.hist.keys.get(nth) else { return Ordering::Equal };
        let (one, other) = (self.words(nth, one), self.words(nth, other));
        match column.source {
            ColumnSource::Int { signed: true, .. } => {
                let signed = |words: &[u64]| words.first().map(|word| word.cast_signed());
                signed(one).cmp(&signed(other))
            }
            ColumnSource::Text(_) => text(one).cmp(&text(other)),
            ColumnSource::Stack => Ordering::Equal,
            _ => one.cmp(other),
        }
    }

    /// The words of one key.
    fn words<'r>(&self, nth: usize, row: &HistRow<'r>) -> &'r [u64] {
        let len = |column: &Column| column.part().map_or(1, |part| part.words());
        let start = self.hist.keys.iter().take(nth).map(len).sum::<usize>();
        let len = self.hist.keys.get(nth).map_or(0, len);
        row.key.get(start..start.saturating_add(len)).unwrap_or_default()
    }

    fn row(&self, row: &HistRow<'_>, symbols: &Symbols, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{ ");
        let mut ends_on_a_line = false;
        for (nth, column) in self.hist.keys.iter().enumerate() {
            out.extend_from_slice(if nth > 0 { b", " } else { b"" });
            out.extend_from_slice(column.name.as_bytes());
            out.push(b':');
            ends_on_a_line |= column.source == ColumnSource::Stack;
            key(column, self.words(nth, row), row.comm, symbols, out);
        }
        out.extend_from_slice(if ends_on_a_line { b"}" } else { b" }" });
        let hitcount = row.sums.first().copied().unwrap_or(0);
        out.extend_from_slice(format!(" hitcount: {hitcount:10}").as_bytes());
        for (column, sum) in self.hist.values.iter().zip(row.sums.iter().skip(1)) {
            let sum =
                if column.modifier == Modifier::Hex { format!("{sum:10x}") } else { format!("{sum:10}") };
            out.extend_from_slice(format!("  {}: {sum}", column.name).as_bytes());
        }
        out.push(b'\n');
    }
}

/// Appends a key, behind its name and colon.
fn key(column: &Column, words: &[u64], comm: &[u8], symbols: &Symbols, out: &mut Vec<u8>) {
    let number = words.first().copied().unwrap_or(0);
    match (&column.source, column.modifier) {
        (ColumnSource::Stack, _) => return stack(words, symbols, out),
        (ColumnSource::Text(_), _) => {
            out.push(b' ');
            let start = out.len();
            out.extend_from_slice(&text(words));
            return out::widen(out, start, 50, true);
        }
        (_, Modifier::Sym) => return symbol(number, false, 45, symbols, out),
        (_, Modifier::SymOffset) => return symbol(number, true, 55, symbols, out),
        (_, Modifier::Execname) => {
            out.push(b' ');
            let start = out.len();
            out.extend_from_slice(out::until_nul(comm));
            out::widen(out, start, 16, true);
            return out.extend_from_slice(format!("[{number:10}]").as_bytes());
        }
        _ => {}
    }
    let text = match column.modifier {
        Modifier::Hex => format!(" {number:x}"),
        Modifier::Log2 => format!(" ~ 2^{number:<2}"),
        Modifier::Buckets(size) => {
            let last = number.wrapping_add(u64::from(size)).wrapping_sub(1);
            format!(" ~ {number}-{last}")
        }
        _ => format!(" {number:10}"),
    };
    out.extend_from_slice(text.as_bytes());
}

/// `[ffffffff81000000] name`, the name in so many columns.
fn symbol(address: u64, offset: bool, width: usize, symbols: &Symbols, out: &mut Vec<u8>) {
    out.extend_from_slice(format!(" [{address:x}] ").as_bytes());
    let start = out.len();
    symbols.print(address, offset, Dialect::Kernel, out);
    out::widen(out, start, width, true);
}

/// A line for each caller.
fn stack(callers: &[u64], symbols: &Symbols, out: &mut Vec<u8>) {
    out.push(b'\n');
    for address in callers.iter().take(STACK_DEPTH).take_while(|address| **address != 0) {
        out.extend_from_slice(b"         ");
        symbols.print(*address, true, Dialect::Kernel, out);
        out.push(b'\n');
    }
}

/// A text that was packed into words.
fn text(words: &[u64]) -> Vec<u8> {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    out::until_nul(&bytes).to_vec()
}

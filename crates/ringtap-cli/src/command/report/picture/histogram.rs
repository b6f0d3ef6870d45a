//! `--histogram FIELD`: how often which values occur, of each event that has the field.

use super::super::{FileArgs, What, visit};
use crate::output::Output;
use anyhow::{Result, bail};
use ringtap_format::text::Sources;
use ringtap_format::{Symbols, Value};
use std::collections::{BTreeMap, HashMap};
use std::io::Write;

/// Columns of the longest bar.
const BAR: u64 = 50;
/// Most texts of which each is counted; the others are one.
const MAX_TEXTS: usize = 1 << 14;
/// Most texts that are shown.
const SHOWN_TEXTS: usize = 30;
/// Parts of each power of two, for percentiles.
const PARTS: u32 = 32;

/// Prints a histogram for each event that has the field; what was damaged.
///
/// # Errors
/// No event has it, or those of [`visit`].
pub(in crate::command::report) fn histogram(
    files: &FileArgs,
    field: &str,
    output: &mut Output,
) -> Result<Option<String>> {
    let mut histograms: BTreeMap<String, Histogram> = BTreeMap::new();
    let damage = visit(
        files,
        |item| {
            let What::Record(record) = item.what else { return Ok(()) };
            if let Some((name, value)) = value(&item.sources, record, field) {
                histograms.entry(name).or_default().add(&value, item.sources.symbols);
            }
            Ok(())
        },
        |_, _| {},
    )?;
    if histograms.is_empty() {
        bail!("no event in the trace has a field '{field}'");
    }
    for (place, (event, histogram)) in histograms.iter().enumerate() {
        if place > 0 {
            writeln!(output)?;
        }
        histogram.print(&format!("{event} {field}"), output)?;
    }
    Ok(damage)
}

fn value<'r>(sources: &Sources<'_>, record: &'r [u8], field: &str) -> Option<(String, Value<'r>)> {
    let event = sources.formats.of_record(record)?;
    let field = event.fields().iter().find(|own| own.name == field)?;
    let value = field.value(record, event.target())?;
    Some((format!("{}:{}", event.system(), event.name()), value))
}

/// How often values occurred.
#[derive(Debug, Default)]
struct Histogram {
    count: u64,
    /// By sign and size: see [`part`].
    parts: BTreeMap<i32, u64>,
    numbers: Option<Range>,
    texts: HashMap<Vec<u8>, u64>,
    other_texts: u64,
}

#[derive(Clone, Copy, Debug)]
struct Range {
    least: f64,
    most: f64,
    sum: f64,
}

impl Histogram {
    fn add(&mut self, value: &Value<'_>, symbols: &Symbols) {
        self.count += 1;
        #[expect(clippy::cast_precision_loss, reason = "what a person reads has fewer digits")]
        match *value {
            Value::Unsigned(number) => self.number(number as f64),
            Value::Signed(number) => self.number(number as f64),
            Value::Float(number) => self.number(number),
            Value::Address(address) => match symbols.resolve(address) {
                Some(symbol) => self.text(symbol.name.as_bytes()),
                None => self.text(format!("{address:#x}").as_bytes()),
            },
            Value::Text(text) => self.text(text),
            Value::Bytes(bytes) => self.text(format!("{bytes:02x?}").as_bytes()),
        }
    }

    fn number(&mut self, number: f64) {
        if !number.is_finite() {
            return self.text(number.to_string().as_bytes());
        }
        *self.parts.entry(part(number)).or_default() += 1;
        let range = self.numbers.get_or_insert(Range { least: number, most: number, sum: 0.0 });
        range.least = range.least.min(number);
        range.most = range.most.max(number);
        range.sum += number;
    }

    fn text(&mut self, text: &[u8]) {
        if let Some(count) = self.texts.get_mut(text) {
            *count += 1;
        } else if self.texts.len() < MAX_TEXTS {
            self.texts.insert(text.to_vec(), 1);
        } else {
            self.other_texts += 1;
        }
    }

    fn print(&self, title: &str, output: &mut Output) -> Result<()> {
        write!(output, "{title}: {} values", self.count)?;
        if let Some(range) = self.numbers {
            let numbers: u64 = self.parts.values().sum();
            #[expect(clippy::cast_precision_loss, reason = "a mean needs no more digits")]
            let mean = range.sum / numbers as f64;
            let percentile = |percent| short(self.percentile(numbers, percent, range));
            write!(
                output,
                ", least {}, mean {}, 50 % {}, 90 % {}, 99 % {}, most {}",
                short(range.least),
                short(mean),
                percentile(50),
                percentile(90),
                percentile(99),
                short(range.most)
            )?;
        }
        writeln!(output)?;
        self.print_powers(output)?;
        self.print_texts(output)
    }

    /// The value that so many percent are not above, to a 32nd of its size.
    fn percentile(&self, numbers: u64, percent: u64, range: Range) -> f64 {
        let wanted = (u128::from(numbers) * u128::from(percent)).div_ceil(100);
        let mut seen = 0;
        for (&place, &count) in &self.parts {
            seen += u128::from(count);
            if seen >= wanted {
                return end(place).clamp(range.least, range.most);
            }
        }
        range.most
    }

    /// A line for each power of two between the least and the most.
    fn print_powers(&self, output: &mut Output) -> Result<()> {
        let mut powers: BTreeMap<i32, u64> = BTreeMap::new();
        for (&place, &count) in &self.parts {
            *powers.entry(power(place)).or_default() += count;
        }
        let (Some((&first, _)), Some((&last, _))) = (powers.first_key_value(), powers.last_key_value())
        else {
            return Ok(());
        };
        let most = powers.values().copied().max().unwrap_or(1);
        let label = |power: i32| {
            let (from, to) = bounds(power);
            match power {
                ..0 => format!("({}, {}]", short(from), short(to)),
                0 => "0".to_owned(),
                1.. => format!("[{}, {})", short(from), short(to)),
            }
        };
        let width = (first..=last).map(|power| label(power).len()).max().unwrap_or(0);
        for power in first..=last {
            let count = powers.get(&power).copied().unwrap_or(0);
            writeln!(output, "{:>width$} {count:>10} |{}", label(power), bar(count, most))?;
        }
        Ok(())
    }

    fn print_texts(&self, output: &mut Output) -> Result<()> {
        let mut texts: Vec<_> = self.texts.iter().collect();
        texts.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
        let most = texts.first().map_or(1, |(_, count)| **count);
        let shown = |text: &[u8]| String::from_utf8_lossy(text).escape_debug().to_string();
        let hidden: u64 = texts.iter().skip(SHOWN_TEXTS).map(|(_, count)| **count).sum();
        texts.truncate(SHOWN_TEXTS);
        let width = texts.iter().map(|(text, _)| shown(text).chars().count()).max().unwrap_or(0).min(60);
        for (text, &count) in texts {
            writeln!(output, "{:>width$} {count:>10} |{}", shown(text), bar(count, most))?;
        }
        match hidden + self.other_texts {
            0 => Ok(()),
            others => Ok(writeln!(output, "{:>width$} {others:>10}", "others")?),
        }
    }
}

fn bar(count: u64, most: u64) -> String {
    let len = u128::from(count) * u128::from(BAR) / u128::from(most.max(1));
    "@".repeat(usize::try_from(len).unwrap_or(0))
}

/// Where a number is counted: 0 for less than one, else by its power of two and the part of that; below 0 for
/// negative numbers.
fn part(number: f64) -> i32 {
    let size = number.abs();
    if size < 1.0 {
        return 0;
    }
    let power = size.log2().floor().clamp(0.0, 1023.0);
    let within = (size / power.exp2() - 1.0) * f64::from(PARTS);
    #[expect(clippy::cast_possible_truncation, reason = "below 1024 times the number of parts")]
    let place = (power * f64::from(PARTS) + within.floor().clamp(0.0, f64::from(PARTS) - 1.0)) as i32 + 1;
    if number < 0.0 { -place } else { place }
}

/// The power of two, counted from 1 on, that a part belongs to; with the sign of its numbers.
fn power(place: i32) -> i32 {
    let parts = PARTS.cast_signed();
    if place == 0 { 0 } else { place.signum() * ((place.abs() - 1) / parts + 1) }
}

/// The numbers of a power.
fn bounds(power: i32) -> (f64, f64) {
    let (from, to) = (f64::from(power.abs() - 1).exp2(), f64::from(power.abs()).exp2());
    if power < 0 { (-to, -from) } else { (from, to) }
}

/// The largest number of a part, for whole numbers.
fn end(place: i32) -> f64 {
    if place == 0 {
        return 0.0;
    }
    let parts = PARTS.cast_signed();
    let (power, within) = ((place.abs() - 1) / parts, (place.abs() - 1) % parts);
    let width = f64::from(power).exp2() / f64::from(parts);
    let from = f64::from(power).exp2() + f64::from(within) * width;
    if place < 0 { -from } else { (from + width).ceil() - 1.0 }
}

/// A number in few characters: whole below a million, else by powers of ten.
fn short(number: f64) -> String {
    if number.abs() >= 1e6 {
        format!("{number:.3e}")
    } else if number.fract() == 0.0 {
        format!("{number:.0}")
    } else {
        format!("{number:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_hold_their_numbers() {
        for number in [0.0, 0.5, 1.0, 2.0, 3.0, 7.0, 100.0, 1000.0, 65_535.0, 1e12, -1.0, -5.0, -1e9] {
            let place = part(number);
            let (from, to) = bounds(power(place).clamp(-64, 64));
            if place != 0 {
                assert!(from <= number && number <= to, "{number} in {from} to {to}");
                assert!(
                    (end(place) - number).abs() <= number.abs() / 16.0,
                    "{number} ends at {}",
                    end(place)
                );
            }
        }
    }

    #[test]
    fn percentiles_of_a_row() {
        let mut histogram = Histogram::default();
        for number in 1..=1000u64 {
            histogram.add(&Value::Unsigned(number), &Symbols::default());
        }
        let range = histogram.numbers.unwrap();
        let of = |percent| histogram.percentile(1000, percent, range);
        assert!((of(50) - 500.0).abs() <= 16.0, "{}", of(50));
        assert!((of(99) - 990.0).abs() <= 32.0, "{}", of(99));
        assert!((of(100) - 1000.0).abs() < 1.0, "{}", of(100));
    }
}

//! `--histogram FIELD`: how often which values occur, of each event that has the field.

use super::super::{FileArgs, What, visit};
use crate::output::Output;
use anyhow::{Result, bail};
use ringtap_format::text::Sources;
use ringtap_format::{Symbols, Value};
use serde_json::{Value as Json, json};
use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io::Write;

/// Columns of the longest bar.
const BAR: u64 = 50;
/// Most different numbers of which each is counted; where there are more, all are counted by their size.
const MAX_NUMBERS: usize = 1 << 14;
/// Most different numbers that have a line each.
const SHOWN_NUMBERS: usize = 24;
/// Most texts of which each is counted; the others are one.
const MAX_TEXTS: usize = 1 << 14;
/// Most texts that are shown.
const SHOWN_TEXTS: usize = 30;
/// Parts of each power of two, where numbers are counted by their size.
const PARTS: u32 = 32;
/// What is told of the numbers, in percent.
const PERCENTS: [u64; 3] = [50, 90, 99];

/// Prints a histogram for each event that has the field, as text or as an object each; what was damaged.
///
/// # Errors
/// No event has it, or those of [`visit`].
pub(in crate::command::report) fn histogram(
    files: &FileArgs,
    field: &str,
    is_json: bool,
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
        if is_json {
            output.json_line(&histogram.json(event, field))?;
            continue;
        }
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

/// A number as it was recorded. Floats are finite.
#[derive(Clone, Copy, Debug)]
enum Number {
    Int(i128),
    Float(f64),
}

impl Number {
    #[expect(clippy::cast_precision_loss, reason = "for sizes and means")]
    fn about(self) -> f64 {
        match self {
            Self::Int(int) => int as f64,
            Self::Float(float) => float,
        }
    }

    fn json(self) -> Json {
        match self {
            Self::Int(int) => match (u64::try_from(int), i64::try_from(int)) {
                (Ok(int), _) => json!(int),
                (_, Ok(int)) => json!(int),
                _ => Json::Null,
            },
            Self::Float(float) => json!(float),
        }
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Int(one), Self::Int(other)) => one.cmp(other),
            _ => self.about().total_cmp(&other.about()),
        }
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Number {}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(int) => write!(f, "{int}"),
            Self::Float(float) => write!(f, "{float}"),
        }
    }
}

/// How often values occurred.
#[derive(Debug, Default)]
struct Histogram {
    count: u64,
    numbers: Numbers,
    range: Option<Range>,
    texts: HashMap<Vec<u8>, u64>,
    other_texts: u64,
}

/// How often numbers occurred.
#[derive(Debug)]
enum Numbers {
    Exact(BTreeMap<Number, u64>),
    /// By sign and size: see [`part`].
    Parts(BTreeMap<i32, u64>),
}

impl Default for Numbers {
    fn default() -> Self {
        Self::Exact(BTreeMap::new())
    }
}

#[derive(Clone, Copy, Debug)]
struct Range {
    count: u64,
    least: Number,
    most: Number,
    sum: f64,
}

impl Range {
    fn mean(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a mean needs no more digits")]
        let count = self.count as f64;
        self.sum / count
    }
}

impl Numbers {
    fn add(&mut self, number: Number) {
        match self {
            Self::Exact(numbers) => {
                *numbers.entry(number).or_default() += 1;
                if numbers.len() > MAX_NUMBERS {
                    let mut parts = BTreeMap::new();
                    for (number, count) in numbers {
                        *parts.entry(part(number.about())).or_default() += *count;
                    }
                    *self = Self::Parts(parts);
                }
            }
            Self::Parts(parts) => *parts.entry(part(number.about())).or_default() += 1,
        }
    }

    /// The counts by power of two, with the sign of the numbers; 0 for less than one.
    fn powers(&self) -> BTreeMap<i32, u64> {
        let mut powers = BTreeMap::new();
        match self {
            Self::Exact(numbers) => {
                for (number, count) in numbers {
                    *powers.entry(power(part(number.about()))).or_default() += count;
                }
            }
            Self::Parts(parts) => {
                for (&part, count) in parts {
                    *powers.entry(power(part)).or_default() += count;
                }
            }
        }
        powers
    }
}

/// A number that so many percent of all are not above.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Percentile {
    /// One that occurred.
    Exact(Number),
    /// To a 32nd of its size.
    About(f64),
}

impl Percentile {
    fn json(self) -> Json {
        match self {
            Self::Exact(number) => number.json(),
            Self::About(number) => json!(number),
        }
    }
}

impl fmt::Display for Percentile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(number) => write!(f, "{number}"),
            Self::About(number) => write!(f, "~{}", short(*number)),
        }
    }
}

impl Histogram {
    fn add(&mut self, value: &Value<'_>, symbols: &Symbols) {
        self.count += 1;
        match *value {
            Value::Unsigned(number) => self.number(Number::Int(number.into())),
            Value::Signed(number) => self.number(Number::Int(number.into())),
            Value::Float(number) if number.is_finite() => self.number(Number::Float(number)),
            Value::Float(number) => self.text(number.to_string().as_bytes()),
            Value::Address(address) => match symbols.resolve(address) {
                Some(symbol) => self.text(symbol.name.as_bytes()),
                None => self.text(format!("{address:#x}").as_bytes()),
            },
            Value::Text(text) => self.text(text),
            Value::Bytes(bytes) => self.text(format!("{bytes:02x?}").as_bytes()),
        }
    }

    fn number(&mut self, number: Number) {
        self.numbers.add(number);
        let range = self.range.get_or_insert(Range { count: 0, least: number, most: number, sum: 0.0 });
        range.count += 1;
        range.least = range.least.min(number);
        range.most = range.most.max(number);
        range.sum += number.about();
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
        if let Some(range) = self.range {
            write!(output, ", least {}, mean {}", range.least, short(range.mean()))?;
            for percent in PERCENTS {
                write!(output, ", {percent} % {}", self.percentile(percent, range))?;
            }
            write!(output, ", most {}", range.most)?;
        }
        writeln!(output)?;
        match &self.numbers {
            Numbers::Exact(numbers) if numbers.len() <= SHOWN_NUMBERS => print_each(numbers, output)?,
            numbers => print_powers(&numbers.powers(), output)?,
        }
        self.print_texts(output)
    }

    /// The documented object.
    fn json(&self, event: &str, field: &str) -> Json {
        let mut object = json!({ "type": "histogram", "event": event, "field": field, "count": self.count });
        if let Some(range) = self.range {
            object["least"] = range.least.json();
            object["mean"] = json!(range.mean());
            for percent in PERCENTS {
                object[format!("p{percent}")] = self.percentile(percent, range).json();
            }
            object["most"] = range.most.json();
        }
        match &self.numbers {
            Numbers::Exact(numbers) if numbers.is_empty() => {}
            Numbers::Exact(numbers) => {
                let each =
                    numbers.iter().map(|(number, count)| json!({ "value": number.json(), "count": count }));
                object["numbers"] = each.collect();
            }
            Numbers::Parts(parts) => {
                let each = parts.iter().map(|(&part, count)| {
                    let (from, to) = part_bounds(part);
                    json!({ "from": from, "to": to, "count": count })
                });
                object["ranges"] = each.collect();
            }
        }
        if !self.texts.is_empty() {
            let text = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
            let texts = self.by_count();
            object["texts"] =
                texts.iter().map(|(own, count)| json!({ "value": text(own), "count": count })).collect();
            object["other_texts"] = json!(self.other_texts);
        }
        object
    }

    /// The least number that so many percent are not above.
    fn percentile(&self, percent: u64, range: Range) -> Percentile {
        let wanted = (u128::from(range.count) * u128::from(percent)).div_ceil(100);
        let mut seen = 0;
        let mut is_it = |count: u64| {
            seen += u128::from(count);
            seen >= wanted
        };
        match &self.numbers {
            Numbers::Exact(numbers) => {
                let found = numbers.iter().find(|&(_, &count)| is_it(count));
                Percentile::Exact(found.map_or(range.most, |(&number, _)| number))
            }
            Numbers::Parts(parts) => {
                let found =
                    parts.iter().find(|&(_, &count)| is_it(count)).map(|(&part, _)| part_bounds(part));
                let (least, most) = (range.least.about(), range.most.about());
                let (from, to) = found.map_or((most, most), |(from, to)| (from.max(least), to.min(most)));
                Percentile::About(f64::midpoint(from, to).round())
            }
        }
    }

    /// The texts, the most frequent first.
    fn by_count(&self) -> Vec<(&Vec<u8>, u64)> {
        let mut texts: Vec<_> = self.texts.iter().map(|(text, &count)| (text, count)).collect();
        texts.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        texts
    }

    fn print_texts(&self, output: &mut Output) -> Result<()> {
        let mut texts = self.by_count();
        let most = texts.first().map_or(1, |&(_, count)| count);
        let shown = |text: &[u8]| String::from_utf8_lossy(text).escape_debug().to_string();
        let hidden: u64 = texts.iter().skip(SHOWN_TEXTS).map(|&(_, count)| count).sum();
        texts.truncate(SHOWN_TEXTS);
        let width = texts.iter().map(|(text, _)| shown(text).chars().count()).max().unwrap_or(0).min(60);
        for (text, count) in texts {
            writeln!(output, "{:>width$} {count:>10} |{}", shown(text), bar(count, most))?;
        }
        match hidden + self.other_texts {
            0 => Ok(()),
            others => Ok(writeln!(output, "{:>width$} {others:>10}", "others")?),
        }
    }
}

/// A line for each number.
fn print_each(numbers: &BTreeMap<Number, u64>, output: &mut Output) -> Result<()> {
    let most = numbers.values().copied().max().unwrap_or(1);
    let width = numbers.keys().map(|number| number.to_string().len()).max().unwrap_or(0);
    for (number, &count) in numbers {
        writeln!(output, "{:>width$} {count:>10} |{}", number.to_string(), bar(count, most))?;
    }
    Ok(())
}

/// A line for each power of two between the least and the most.
fn print_powers(powers: &BTreeMap<i32, u64>, output: &mut Output) -> Result<()> {
    let (Some((&first, _)), Some((&last, _))) = (powers.first_key_value(), powers.last_key_value()) else {
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

/// The numbers of a part.
fn part_bounds(place: i32) -> (f64, f64) {
    if place == 0 {
        return (-1.0, 1.0);
    }
    let parts = PARTS.cast_signed();
    let (power, within) = ((place.abs() - 1) / parts, (place.abs() - 1) % parts);
    let width = f64::from(power).exp2() / f64::from(parts);
    let from = f64::from(power).exp2() + f64::from(within) * width;
    if place < 0 { (-from - width, -from) } else { (from, from + width) }
}

/// A number without more decimals than a person reads.
fn short(number: f64) -> String {
    if number.fract() == 0.0 { format!("{number:.0}") } else { format!("{number:.2}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(numbers: impl IntoIterator<Item = i64>) -> Histogram {
        let mut histogram = Histogram::default();
        numbers.into_iter().for_each(|number| histogram.add(&Value::Signed(number), &Symbols::default()));
        histogram
    }

    fn percentile(histogram: &Histogram, percent: u64) -> Percentile {
        histogram.percentile(percent, histogram.range.unwrap())
    }

    #[test]
    fn parts_hold_their_numbers() {
        for number in [0.0, 0.5, 1.0, 2.0, 3.0, 7.0, 100.0, 1000.0, 65_535.0, 1e12, -1.0, -5.0, -1e9] {
            let place = part(number);
            let (from, to) = part_bounds(place);
            assert!(from <= number && number <= to, "{number} in {from} to {to}");
            assert!(place == 0 || to - from <= number.abs() / 32.0, "{number} in {from} to {to}");
            let (from, to) = bounds(power(place));
            assert!(place == 0 || (from <= number && number <= to), "{number} in {from} to {to}");
        }
    }

    #[test]
    fn percentiles_are_numbers_that_occurred() {
        let exact = |number| Percentile::Exact(Number::Int(number));
        let few = of([7, 7, 7, 3, 1_000_003]);
        assert_eq!(
            [50, 90, 99].map(|percent| percentile(&few, percent)),
            [exact(7), exact(1_000_003), exact(1_000_003)]
        );
        let row = of(1..=1000);
        assert_eq!(
            [1, 50, 99, 100].map(|percent| percentile(&row, percent)),
            [10, 500, 990, 1000].map(exact)
        );
        let large = of([i64::MAX, i64::MAX - 1]);
        assert_eq!(percentile(&large, 50), exact(i128::from(i64::MAX) - 1), "no digit is lost");
    }

    #[test]
    fn of_very_many_they_are_about_right_and_say_so() {
        let many = of(1..=50_000);
        for percent in [50, 90, 99] {
            let Percentile::About(number) = percentile(&many, percent) else { panic!("{percent} is exact") };
            #[expect(clippy::cast_precision_loss, reason = "small")]
            let right = (percent * 500) as f64;
            assert!((number - right).abs() <= right / 32.0, "{percent}: {number}");
        }
        assert!(percentile(&many, 50).to_string().starts_with('~'));
    }

    #[test]
    fn the_object_counts_each_number() {
        let object = of([-1, 5, 5]).json("a:b", "c");
        assert_eq!(object["numbers"], json!([{ "value": -1, "count": 1 }, { "value": 5, "count": 2 }]));
        assert_eq!((&object["p50"], &object["most"], &object["mean"]), (&json!(5), &json!(5), &json!(3.0)));
        let many = of(1..=20_000).json("a:b", "c");
        let ranges = many["ranges"].as_array().unwrap();
        assert_eq!(ranges.iter().map(|range| range["count"].as_u64().unwrap()).sum::<u64>(), 20_000);
    }
}

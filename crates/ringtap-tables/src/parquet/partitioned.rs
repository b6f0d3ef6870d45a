//! A folder with a file for each event, and for each hour where that is asked for:
//! `system=sched/event=sched_switch/hour=2026-11-22-02/NAME.parquet`.
//!
//! Engines that know such folders (Hive's naming) make columns of their names, and read only the files that a query
//! needs. Columns are the event's own, typed, and those that all events have. Events need not be known beforehand, so
//! a live trace can be written like this. Several exports may share a folder: their files differ in their names.

use super::slices::Slices;
use super::store::{Store, StoreFile};
use super::{Options, WriteError, Written, properties};
use crate::rows::{Lost, Origin, Row};
use crate::spans::Span;
use crate::table::{Places, Table};
use std::fmt::Write as _;

/// By what a folder is divided, besides events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// A file for each event.
    Event,
    /// A file for each event and hour.
    EventAndHour,
}

/// Writes the files of a folder.
#[derive(Debug)]
pub struct Partitioned {
    store: Store,
    /// How the names of all files begin.
    name: String,
    by: By,
    options: Options,
    parts: Vec<Part>,
    /// The places of events' parts.
    places: Places,
    lost: Option<usize>,
    undecoded: Option<usize>,
    spans: Option<usize>,
    /// Rows that are in memory.
    gathered: usize,
    open: usize,
    written: Written,
}

/// One event's files.
#[derive(Debug)]
struct Part {
    table: Table,
    folder: String,
    /// The hour of the gathered rows, counted from the axis' start.
    hour: i64,
    file: Option<Slices<StoreFile>>,
    /// Files that the part has.
    files: u32,
    /// How many row groups there were, of all parts, when it was last written.
    written_at: u64,
}

const HOUR_NS: i64 = 3_600_000_000_000;

/// Row groups' worth of rows that may be in memory before the largest part is written.
const MAX_SLICES: usize = 2;

impl Partitioned {
    /// Files made in `store`, whose names begin with `name`.
    #[must_use]
    pub fn new(store: Store, name: &str, by: By, options: Options) -> Self {
        Self {
            store,
            name: name.to_owned(),
            by,
            options,
            parts: Vec::new(),
            places: Places::default(),
            lost: None,
            undecoded: None,
            spans: None,
            gathered: 0,
            open: 0,
            written: Written::default(),
        }
    }

    /// Adds a record of the trace with this number.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn row(&mut self, trace: u32, row: &Row<'_>) -> Result<(), WriteError> {
        let place = match (self.places.get(trace, row.common.id), row.event) {
            (Some(place), _) => place,
            (None, Some(event)) => {
                let place = self.place(Table::of(event));
                self.places.set(trace, row.common.id, place);
                place
            }
            // Its format may still become known, where the trace is live.
            (None, None) => {
                let place = self.undecoded.unwrap_or_else(|| self.place(Table::of_undecoded()));
                *self.undecoded.insert(place)
            }
        };
        self.turn_to(place, row.origin, row.time)?;
        self.parts[place].table.push(row);
        self.count(place)
    }

    /// Adds a loss.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn lost(&mut self, lost: &Lost<'_>) -> Result<(), WriteError> {
        let place = self.lost.unwrap_or_else(|| self.place(Table::of_losses()));
        self.lost = Some(place);
        self.turn_to(place, lost.origin, lost.time)?;
        self.parts[place].table.push_lost(lost);
        self.count(place)
    }

    /// Adds a span, and the record that ended it. It lies in the hour of its end.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn span(&mut self, span: &Span, ended_by: &Row<'_>) -> Result<(), WriteError> {
        let place = self.spans.unwrap_or_else(|| self.place(Table::of_spans()));
        self.spans = Some(place);
        self.turn_to(place, ended_by.origin, span.end)?;
        self.parts[place].table.push_span(span, ended_by);
        self.count(place)
    }

    /// Completes all files.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn finish(mut self) -> Result<Written, WriteError> {
        for place in 0..self.parts.len() {
            self.write(place)?;
            self.close(place)?;
        }
        Ok(self.written)
    }

    /// The part of a table like this: an old one with the same columns, or a new one.
    fn place(&mut self, table: Table) -> usize {
        if let Some(place) = self.parts.iter().position(|part| part.table.is_like(&table)) {
            return place;
        }
        let folder = format!("system={}/event={}", escaped(table.system()), escaped(table.name()));
        let part = Part { table, folder, hour: i64::MIN, file: None, files: 0, written_at: 0 };
        self.parts.push(part);
        self.parts.len() - 1
    }

    /// Ends the part's file where an hour has begun.
    fn turn_to(&mut self, place: usize, origin: &Origin, time: u64) -> Result<(), WriteError> {
        if self.by == By::Event {
            return Ok(());
        }
        let hour = origin.time(time).div_euclid(HOUR_NS);
        if self.parts[place].hour != hour {
            self.write(place)?;
            self.close(place)?;
            self.parts[place].hour = hour;
        }
        Ok(())
    }

    fn count(&mut self, place: usize) -> Result<(), WriteError> {
        self.gathered += 1;
        let slice = self.options.slice_rows.max(1);
        if self.parts[place].table.len() >= slice {
            return self.write(place);
        }
        if self.gathered >= slice.saturating_mul(MAX_SLICES) {
            let largest = (0..self.parts.len()).max_by_key(|place| self.parts[*place].table.len());
            return largest.map_or(Ok(()), |place| self.write(place));
        }
        Ok(())
    }

    /// Writes a part's rows as a row group.
    fn write(&mut self, place: usize) -> Result<(), WriteError> {
        if self.parts[place].table.is_empty() {
            return Ok(());
        }
        if self.parts[place].file.is_none() {
            self.make_room()?;
            self.open(place)?;
        }
        let part = &mut self.parts[place];
        let batch = part.table.take();
        self.gathered -= batch.num_rows();
        self.written.rows += u64::try_from(batch.num_rows()).unwrap_or(u64::MAX);
        part.written_at = self.written.rows;
        if let Some(writer) = &mut part.file {
            writer.write(&batch)?;
            writer.end()?;
        }
        Ok(())
    }

    /// Where too many files are open, closes the one that was not written to for longest; its part goes on in another.
    fn make_room(&mut self) -> Result<(), WriteError> {
        if self.open < self.store.max_open() {
            return Ok(());
        }
        let open = (0..self.parts.len()).filter(|place| self.parts[*place].file.is_some());
        match open.min_by_key(|place| self.parts[*place].written_at) {
            Some(place) => self.close(place),
            None => Ok(()),
        }
    }

    fn open(&mut self, place: usize) -> Result<(), WriteError> {
        let part = &mut self.parts[place];
        // Parts of one event with different columns share a folder.
        let name = format!("{}-{place}-{}.parquet", self.name, part.files);
        let name = match self.by {
            By::Event => format!("{}/{name}", part.folder),
            By::EventAndHour => format!("{}/hour={}/{name}", part.folder, hour_name(part.hour)),
        };
        let properties = properties(&self.options, part.table.schema(), &["time"])?;
        let file = self.store.create(&name)?;
        part.file = Some(Slices::new(file, part.table.schema(), properties)?);
        part.files += 1;
        self.open += 1;
        self.written.files += 1;
        Ok(())
    }

    fn close(&mut self, place: usize) -> Result<(), WriteError> {
        let Some(writer) = self.parts[place].file.take() else { return Ok(()) };
        self.open -= 1;
        writer.into_inner()?.complete()
    }
}

/// A name as Hive writes it: what might mean something to a file system or in a URL, as its bytes.
fn escaped(name: &str) -> String {
    let mut out = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' | b'.' => out.push(char::from(byte)),
            // Writing to a string cannot fail.
            other => _ = write!(out, "%{other:02X}"),
        }
    }
    out
}

/// The hour as `YYYY-MM-DD-HH`. Of a clock that does not count from 1970 it is so many hours behind that.
fn hour_name(hour: i64) -> String {
    let (day, hour) = (hour.div_euclid(24), hour.rem_euclid(24));
    let (year, month, day) = civil(day);
    format!("{year:04}-{month:02}-{day:02}-{hour:02}")
}

/// The date so many days after 1 January 1970, by Howard Hinnant's `civil_from_days` (public domain).
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::{escaped, hour_name};

    #[test]
    fn hours_have_the_names_of_their_dates() {
        assert_eq!(hour_name(0), "1970-01-01-00");
        assert_eq!(hour_name(-1), "1969-12-31-23");
        assert_eq!(hour_name(489_827), "2025-11-17-11");
        assert_eq!(hour_name(24 * 11_016), "2000-02-29-00");
    }

    #[test]
    fn names_of_folders_have_no_other_meaning() {
        assert_eq!(escaped("sched_switch"), "sched_switch");
        assert_eq!(escaped("rest-of.it \"q\"/é"), "rest-of.it%20%22q%22%2F%C3%A9");
    }
}

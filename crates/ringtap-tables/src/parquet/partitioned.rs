//! A folder with a file for each event, and for each hour where that is asked for: `event=sched_switch/hour=.../0.parquet`.
//!
//! Engines that know such folders (Hive's naming) make columns of their names, and read only the files that a query
//! needs. Columns are the event's own, typed, and those that all events have. Events need not be known beforehand, so
//! a live trace can be written like this.

use super::{Kind, Options, WriteError, Written, properties};
use crate::rows::{Lost, Row};
use crate::table::Table;
use parquet::arrow::ArrowWriter;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

/// By what a folder is divided, besides events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// A file for each event.
    Event,
    /// A file for each event and hour.
    EventAndHour,
}

/// Where files are made.
pub trait Store {
    /// A file being written.
    type File: Write + Send;

    /// Makes the file of this name, whose parts slashes divide.
    ///
    /// # Errors
    /// It cannot be made.
    fn create(&mut self, name: &str) -> io::Result<Self::File>;

    /// A file is complete.
    ///
    /// # Errors
    /// It cannot be stored.
    fn complete(&mut self, name: &str, file: Self::File) -> io::Result<()>;
}

/// A folder of this machine.
#[derive(Clone, Debug)]
pub struct Folder(pub PathBuf);

impl Store for Folder {
    type File = File;

    fn create(&mut self, name: &str) -> io::Result<File> {
        let path = self.0.join(name);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        File::create_new(path)
    }

    fn complete(&mut self, _name: &str, _file: File) -> io::Result<()> {
        Ok(())
    }
}

/// Files that are open at a time. Each holds the pages of its columns that are not full.
const MAX_OPEN: usize = 64;

/// Writes the files of a folder.
#[derive(Debug)]
pub struct Partitioned<S: Store> {
    store: S,
    by: By,
    options: Options,
    parts: Vec<Part<S::File>>,
    /// The place of an event's part, by trace and id.
    places: HashMap<(u32, u16), usize>,
    lost: Option<usize>,
    gathered: usize,
    open: usize,
    written: Written,
}

/// One event's files.
#[derive(Debug)]
struct Part<F: Write + Send> {
    table: Table,
    folder: String,
    /// The hour of the gathered rows, counted from the axis' start.
    hour: i64,
    file: Option<(String, ArrowWriter<F>)>,
    /// Files that the part has.
    files: u32,
}

const HOUR_NS: i64 = 3_600_000_000_000;

impl<S: Store> Partitioned<S> {
    /// Files made in `store`.
    pub fn new(store: S, by: By, options: Options) -> Self {
        Self {
            store,
            by,
            options,
            parts: Vec::new(),
            places: HashMap::new(),
            lost: None,
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
        let id = (trace, row.event.id());
        let place = match self.places.get(&id) {
            Some(place) => *place,
            None => {
                let place = self.place(Table::of(row.event, self.options.clock));
                self.places.insert(id, place);
                place
            }
        };
        self.turn_to(place, row.time)?;
        self.parts[place].table.push(row);
        self.count()
    }

    /// Adds a loss.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn lost(&mut self, lost: &Lost<'_>) -> Result<(), WriteError> {
        let place = match self.lost {
            Some(place) => place,
            None => self.place(Table::of_losses(self.options.clock)),
        };
        self.lost = Some(place);
        self.turn_to(place, lost.time)?;
        self.parts[place].table.push_lost(lost);
        self.count()
    }

    /// Completes all files.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn finish(mut self) -> Result<(S, Written), WriteError> {
        self.write_all()?;
        for place in 0..self.parts.len() {
            self.close(place)?;
        }
        Ok((self.store, self.written))
    }

    /// The part of a table like this: an old one with the same columns, or a new one.
    fn place(&mut self, table: Table) -> usize {
        let like = |part: &Part<S::File>| {
            (part.table.system(), part.table.name(), part.table.schema())
                == (table.system(), table.name(), table.schema())
        };
        if let Some(place) = self.parts.iter().position(like) {
            return place;
        }
        let namesakes = self.parts.iter().filter(|part| part.table.name() == table.name()).count();
        let folder = match namesakes {
            0 => format!("event={}", table.name()),
            _ => format!(
                "event={}.{}{}",
                table.system(),
                table.name(),
                if namesakes > 1 { format!(".{namesakes}") } else { String::new() }
            ),
        };
        self.parts.push(Part { table, folder, hour: i64::MIN, file: None, files: 0 });
        self.parts.len() - 1
    }

    /// Ends the part's file where an hour has begun.
    fn turn_to(&mut self, place: usize, time: u64) -> Result<(), WriteError> {
        if self.by == By::Event {
            return Ok(());
        }
        let hour = self.options.clock.time(time).div_euclid(HOUR_NS);
        if self.parts[place].hour != hour {
            self.write(place)?;
            self.close(place)?;
            self.parts[place].hour = hour;
        }
        Ok(())
    }

    fn count(&mut self) -> Result<(), WriteError> {
        self.gathered += 1;
        if self.gathered < self.options.slice_rows.max(1) { Ok(()) } else { self.write_all() }
    }

    fn write_all(&mut self) -> Result<(), WriteError> {
        self.gathered = 0;
        (0..self.parts.len()).try_for_each(|place| self.write(place))
    }

    /// Writes a part's rows as a row group.
    fn write(&mut self, place: usize) -> Result<(), WriteError> {
        if self.parts[place].table.is_empty() {
            return Ok(());
        }
        if self.parts[place].file.is_none() {
            self.make_room(place)?;
            self.open(place)?;
        }
        let part = &mut self.parts[place];
        let batch = part.table.take();
        if let Some((_, writer)) = &mut part.file {
            writer.write(&batch)?;
            writer.flush()?;
        }
        self.written.rows += u64::try_from(batch.num_rows()).unwrap_or(u64::MAX);
        Ok(())
    }

    /// Closes another part's file where too many are open; that part goes on in another one.
    fn make_room(&mut self, for_place: usize) -> Result<(), WriteError> {
        if self.open < MAX_OPEN {
            return Ok(());
        }
        let open = |place: &usize| *place != for_place && self.parts[*place].file.is_some();
        match (0..self.parts.len()).find(open) {
            Some(place) => self.close(place),
            None => Ok(()),
        }
    }

    fn open(&mut self, place: usize) -> Result<(), WriteError> {
        let part = &mut self.parts[place];
        let name = match self.by {
            By::Event => format!("{}/{}.parquet", part.folder, part.files),
            By::EventAndHour => {
                format!("{}/hour={}/{}.parquet", part.folder, hour_name(part.hour), part.files)
            }
        };
        let properties = properties(&self.options, part.table.schema(), &["time"])?;
        let file = self.store.create(&name).map_err(|source| Kind::Io { path: name.clone(), source })?;
        let writer = ArrowWriter::try_new(file, Arc::clone(part.table.schema()), Some(properties))?;
        part.file = Some((name, writer));
        part.files += 1;
        self.open += 1;
        self.written.files += 1;
        Ok(())
    }

    fn close(&mut self, place: usize) -> Result<(), WriteError> {
        let Some((name, writer)) = self.parts[place].file.take() else { return Ok(()) };
        self.open -= 1;
        let file = writer.into_inner()?;
        self.store.complete(&name, file).map_err(|source| Kind::Io { path: name, source })?;
        Ok(())
    }
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
    use super::hour_name;

    #[test]
    fn hours_have_the_names_of_their_dates() {
        assert_eq!(hour_name(0), "1970-01-01-00");
        assert_eq!(hour_name(-1), "1969-12-31-23");
        assert_eq!(hour_name(489_827), "2025-11-17-11");
        assert_eq!(hour_name(24 * 11_016), "2000-02-29-00");
    }
}

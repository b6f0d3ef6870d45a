//! Row groups are slices of time, whatever order events of different kinds come in.

use arrow_array::cast::AsArray;
use arrow_array::types::{Int16Type, Int32Type, Int64Type, UInt32Type, UInt64Type};
use arrow_array::{Array, StringArray};
use parquet::arrow::arrow_reader::{
    ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection, RowSelector,
};
use parquet::file::metadata::PageIndexPolicy;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::statistics::Statistics;
use ringtap_format::text::Common;
use ringtap_format::{Dialect, Formats, Target};
use ringtap_tables::parquet::{By, Layout, Options, Partitioned, Store, Wide};
use ringtap_tables::{Lost, Origin, Row};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

const OPTIONS: Options = Options { slice_rows: 100, zstd_level: 1 };
const EVENTS: u64 = 1000;
const HOUR_NS: u64 = 3_600_000_000_000;

fn formats() -> Formats {
    let mut formats = Formats::new(Target::LE64, Dialect::Kernel);
    for (id, name) in [(7, "a"), (8, "b")] {
        let text = format!(
            "name: {name}\nID: {id}\nformat:\n\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\n\
             \tfield:u32 x;\toffset:8;\tsize:4;\tsigned:0;\n\nprint fmt: \"\"\n"
        );
        formats.add("app", &text).unwrap();
    }
    formats
}

/// Rows by turns of two events, one a minute; now and then a loss.
fn each(formats: &Formats, mut row: impl FnMut(&Row<'_>), mut lost: impl FnMut(&Lost<'_>)) {
    let origin = Origin { host: Some("h".into()), epoch_ns: Some(-60_000_000_000), ..Origin::default() };
    for place in 0..EVENTS {
        let id = if place.is_multiple_of(3) { 7 } else { 8 };
        let mut record = vec![u8::try_from(id).unwrap(), 0, 0, 0, 5, 0, 0, 0];
        record.extend_from_slice(&u32::try_from(place).unwrap().to_le_bytes());
        let common = Common::of(&record, Target::LE64);
        let time = (place + 1) * HOUR_NS / 60;
        let event = formats.by_id(id);
        row(&Row { origin: &origin, time, cpu: 0, common, comm: b"task", event, record: &record });
        if place % 200 == 199 {
            lost(&Lost { origin: &origin, time, cpu: 1, count: Some(place) });
        }
    }
}

/// Rows, first and last time of each row group.
fn groups(file: &Path) -> Vec<(i64, i64, i64)> {
    let reader = SerializedFileReader::new(File::open(file).unwrap()).unwrap();
    let groups = reader.metadata().row_groups().iter().map(|group| {
        let Some(Statistics::Int64(times)) = group.column(0).statistics() else { panic!("{group:?}") };
        (group.num_rows(), *times.min_opt().unwrap(), *times.max_opt().unwrap())
    });
    groups.collect()
}

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("rt-slices-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    folder
}

/// Files below a folder, with their names in it.
fn files(folder: &Path, prefix: &str) -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = format!("{prefix}{}", path.file_name().unwrap().to_str().unwrap());
        match path.is_dir() {
            true => found.append(&mut files(&path, &format!("{name}/"))),
            false => found.push((name, path)),
        }
    }
    found.sort();
    found
}

#[test]
fn a_files_row_groups_follow_each_other_in_time() {
    let (formats, folder) = (formats(), folder("wide"));
    let store = Store::open(folder.to_str().unwrap()).unwrap();
    let mut layout = Layout::new(false);
    [7, 8].into_iter().for_each(|id| layout.see(0, id, formats.by_id(id)));
    let wide = Wide::new(store.create("one.parquet").unwrap(), layout, &OPTIONS).unwrap();
    // Both closures write.
    let wide = std::cell::RefCell::new(wide);
    each(
        &formats,
        |row| wide.borrow_mut().row(0, row).unwrap(),
        |lost| wide.borrow_mut().lost(lost).unwrap(),
    );
    assert!(
        files(&folder, "").iter().all(|(name, _)| name.starts_with('.')),
        "nobody reads what is not complete"
    );
    let (file, written) = wide.into_inner().finish().unwrap();
    file.complete().unwrap();
    assert_eq!(written.rows, EVENTS + 5);

    let groups = groups(&folder.join("one.parquet"));
    assert_eq!(groups.len(), 11);
    assert_eq!(groups.iter().map(|(rows, ..)| rows).sum::<i64>(), 1005);
    assert_eq!((groups[0].1, groups[0].2), (0, 99 * 60_000_000_000));
    assert!(groups.windows(2).all(|pair| pair[0].2 <= pair[1].1), "{groups:?}");
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_folders_files_are_of_one_event_and_hour() {
    let (formats, folder) = (formats(), folder("hour"));
    let store = Store::open(folder.to_str().unwrap()).unwrap();
    let parts = std::cell::RefCell::new(Partitioned::new(store, "h-1", By::EventAndHour, OPTIONS));
    each(
        &formats,
        |row| parts.borrow_mut().row(0, row).unwrap(),
        |lost| parts.borrow_mut().lost(lost).unwrap(),
    );
    let written = parts.into_inner().finish().unwrap();
    let files = files(&folder, "");
    assert_eq!((written.rows, written.files), (EVENTS + 5, files.len() as u64));
    assert_eq!(files[0].0, "system=app/event=a/hour=1970-01-01-00/h-1-0-0.parquet");
    // 1000 minutes are 17 hours, each of two events; a loss in five of them.
    assert_eq!(files.len(), 2 * 17 + 5);
    for (name, file) in &files {
        let hour: i64 = name.split("hour=1970-01-01-").nth(1).unwrap()[..2].parse().unwrap();
        for (_, first, last) in groups(file) {
            let hours = (first, last);
            assert_eq!((hours.0 / 3_600_000_000_000, hours.1 / 3_600_000_000_000), (hour, hour), "{name}");
        }
    }
    fs::remove_dir_all(&folder).unwrap();
}

/// What a column of names holds in some of its rows, found by the index of its pages.
fn names(file: &Path, column: &str, skipped: usize, rows: usize) -> Vec<Option<String>> {
    let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Required);
    let file = File::open(file).unwrap();
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(file, options).unwrap();
    let chosen = RowSelection::from(vec![RowSelector::skip(skipped), RowSelector::select(rows)]);
    let mut names = Vec::new();
    for batch in builder.with_row_selection(chosen).build().unwrap() {
        let batch = batch.unwrap();
        let array = batch.column_by_name(column).unwrap().as_dictionary::<Int32Type>().clone();
        let array = array.downcast_dict::<StringArray>().unwrap();
        names.extend(array.into_iter().map(|name| name.map(str::to_owned)));
    }
    names
}

#[test]
fn origins_are_read_as_they_were_whatever_their_runs() {
    let (formats, folder) = (formats(), folder("runs"));
    let origin = |host: Option<&str>, instance: Option<&str>| Origin {
        host: host.map(Into::into),
        instance: instance.map(Into::into),
        ..Origin::default()
    };
    let origins = [origin(Some("a"), None), origin(Some("b\u{eb}"), Some("i")), origin(None, None)];
    for run in [1, 7, 40, 1000] {
        let name = format!("run-{run}");
        let store = Store::open(folder.to_str().unwrap()).unwrap();
        let mut layout = Layout::new(false);
        layout.see(0, 7, formats.by_id(7));
        let mut wide = Wide::new(store.create(&name).unwrap(), layout, &OPTIONS).unwrap();
        let of = |row: usize| &origins[row / run % origins.len()];
        for row in 0..500 {
            let record = [7, 0, 0, 0, 5, 0, 0, 0, 1, 0, 0, 0];
            let (common, event) = (Common::of(&record, Target::LE64), formats.by_id(7));
            let (origin, time) = (of(row), row as u64);
            wide.row(0, &Row { origin, time, cpu: 0, common, comm: b"task", event, record: &record })
                .unwrap();
        }
        wide.finish().unwrap().0.complete().unwrap();
        let file = folder.join(name);
        for (skipped, rows) in [(0, 500), (130, 50), (399, 2)] {
            let expected = |of_origin: fn(&Origin) -> Option<&str>| -> Vec<_> {
                (skipped..skipped + rows).map(|row| of_origin(of(row)).map(str::to_owned)).collect()
            };
            assert_eq!(
                names(&file, "host", skipped, rows),
                expected(|origin| origin.host.as_deref()),
                "{run}"
            );
            let instances = expected(|origin| origin.instance.as_deref());
            assert_eq!(names(&file, "instance", skipped, rows), instances, "{run}");
            assert_eq!(names(&file, "event", skipped, rows), vec![Some("a".to_owned()); rows]);
        }
    }
    fs::remove_dir_all(&folder).unwrap();
}

/// Rows of more than one page: few different numbers with and without a sign, different ones only, and such as are not there.
#[test]
fn numbers_are_read_as_they_were_written() {
    const ROWS: u64 = 150_000;
    let mut formats = Formats::new(Target::LE64, Dialect::Kernel);
    let text = "name: n\nID: 9\nformat:\n\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\n\
        \tfield:s16 few;\toffset:8;\tsize:2;\tsigned:1;\n\tfield:u64 large;\toffset:16;\tsize:8;\tsigned:0;\n\
        \tfield:s64 different;\toffset:24;\tsize:8;\tsigned:1;\n\tfield:s32 last;\toffset:32;\tsize:4;\tsigned:1;\n\n\
        print fmt: \"\"\n";
    formats.add("app", text).unwrap();
    let few = |row: u64| i16::try_from(row % 300).unwrap() - 150;
    let large = |row: u64| u64::MAX - row % 7 * (1 << 61);
    let different = |row: u64| row.wrapping_mul(0x9e37_79b9_7f4a_7c15).cast_signed();
    let last = |row: u64| (!(row / 1000).is_multiple_of(3)).then(|| -i32::try_from(row % 5).unwrap());
    let folder = folder("numbers");
    let store = Store::open(folder.to_str().unwrap()).unwrap();
    let mut layout = Layout::new(false);
    layout.see(0, 9, formats.by_id(9));
    let options = Options { slice_rows: 1 << 18, zstd_level: 1 };
    let mut wide = Wide::new(store.create("n.parquet").unwrap(), layout, &options).unwrap();
    let origin = Origin::default();
    for row in 0..ROWS {
        let mut record = vec![9, 0, 0, 0, 5, 0, 0, 0];
        record.extend(i32::from(few(row)).to_le_bytes());
        record.resize(16, 0);
        record.extend(large(row).to_le_bytes());
        record.extend(different(row).to_le_bytes());
        record.extend(last(row).iter().flat_map(|last| last.to_le_bytes()));
        let common = Common::of(&record, Target::LE64);
        let event = formats.by_id(9);
        let row = Row { origin: &origin, time: row, cpu: 3, common, comm: b"task", event, record: &record };
        wide.row(0, &row).unwrap();
    }
    wide.finish().unwrap().0.complete().unwrap();

    let file = || File::open(folder.join("n.parquet")).unwrap();
    let mut row = 0;
    for batch in ParquetRecordBatchReaderBuilder::try_new(file()).unwrap().build().unwrap() {
        let batch = batch.unwrap();
        let of = batch.column_by_name("n").unwrap().as_struct();
        let cpus = batch.column_by_name("cpu").unwrap().as_primitive::<UInt32Type>();
        for at in 0..batch.num_rows() {
            let lasts = of.column(3).as_primitive::<Int32Type>();
            let found = (
                of.column(0).as_primitive::<Int16Type>().value(at),
                of.column(1).as_primitive::<UInt64Type>().value(at),
                of.column(2).as_primitive::<Int64Type>().value(at),
                lasts.is_valid(at).then(|| lasts.value(at)),
                cpus.value(at),
            );
            assert_eq!(found, (few(row), large(row), different(row), last(row), 3), "row {row}");
            row += 1;
        }
    }
    assert_eq!(row, ROWS);
    let reader = SerializedFileReader::new(file()).unwrap();
    let group = reader.metadata().row_group(0);
    let ends = |name: &str| {
        let column = group.columns().iter().find(|column| column.column_path().string() == name).unwrap();
        match column.statistics().unwrap() {
            Statistics::Int32(of) => (i64::from(*of.min_opt().unwrap()), i64::from(*of.max_opt().unwrap())),
            Statistics::Int64(of) => (*of.min_opt().unwrap(), *of.max_opt().unwrap()),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(ends("n.few"), (-150, 149));
    assert_eq!(ends("n.large"), (large(6).cast_signed(), -1));
    assert_eq!(ends("n.last"), (-4, 0));
    assert_eq!(ends("cpu"), (3, 3));
    fs::remove_dir_all(&folder).unwrap();
}

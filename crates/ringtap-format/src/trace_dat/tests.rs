//! Files made by hand, cut, and overwritten with anything.

use super::*;
use proptest::prelude::*;

const PAGE: &str = "\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n\tfield: local_t commit;\toffset:8;\t\
                    size:8;\tsigned:1;\n\tfield: char data;\toffset:16;\tsize:4080;\tsigned:0;\n";

fn start() -> Vec<u8> {
    let mut file = b"\x17\x08\x44tracing6\0\0\x08\x00\x10\x00\x00header_page\0".to_vec();
    file.extend_from_slice(&u64::try_from(PAGE.len()).unwrap().to_le_bytes());
    file.extend_from_slice(PAGE.as_bytes());
    file.extend_from_slice(b"header_event\0\0\0\0\0\0\0\0\0");
    file
}

#[test]
fn a_file_without_events() {
    let mut file = start();
    // No formats of ftrace, no systems, no symbols, no strings, no tasks, one CPU, no options.
    file.extend_from_slice(&[0; 4 + 4 + 4 + 4 + 8]);
    file.extend_from_slice(b"\x01\0\0\0options  \0\0\0flyrecord\0");
    let place = u64::try_from(file.len() + 16).unwrap();
    file.extend_from_slice(&place.to_le_bytes());
    file.extend_from_slice(&3u64.to_le_bytes());
    let described = file.len();
    file.extend_from_slice(b"abc");
    let parsed = TraceDat::open(&file.as_slice()).unwrap();
    assert_eq!(parsed.buffers[0].cpus, [CpuData::plain(0, place..place + 3)]);
    assert_eq!(parsed.layout.data_size, 4080);
    assert_eq!(parsed.complaints, []);
    for len in 0..file.len() {
        let cut = TraceDat::open(&&file[..len]);
        let missing = u64::try_from(file.len() - len).unwrap();
        match cut {
            Err(error) => assert!(len < described, "{error}"),
            Ok(cut) => {
                let offset = place + 3 - missing;
                assert_eq!(cut.complaints, [TraceDatError::Missing { offset, cpu: 0, len: missing }]);
            }
        }
    }
}

#[test]
fn other_files_are_refused_with_the_place() {
    let said = |bytes: &[u8]| TraceDat::open(&bytes).unwrap_err().to_string();
    assert_eq!(said(b"hello"), "byte 0: expected the magic bytes of trace.dat");
    assert_eq!(said(b"\x17\x08\x44tracing8\0"), "byte 10: expected version 6 or 7");
    let mut file = start();
    file.extend_from_slice(&[1, 0, 0, 0, 200]);
    assert!(said(&file).contains("found the file's end"));
    let lzma = b"\x17\x08\x44tracing7\0\0\x08\x00\x10\x00\x00lzma\x001\0";
    assert_eq!(said(lzma), "byte 18: expected a compression: none, zstd or zlib");
}

#[test]
fn ticks_become_nanoseconds_and_offsets_are_added() {
    let mut clock = Clock::default();
    assert_eq!(clock.ns(77), 77);
    clock.tsc = Some(TscToNs { mult: 3, shift: 1, offset: 0 });
    clock.offset = -5;
    assert_eq!(clock.ns(100), 145);
    assert_eq!(clock.ns(0), 0);
    clock.tsc = Some(TscToNs { mult: u32::MAX, shift: 0, offset: 0 });
    assert_eq!(clock.ns(u64::MAX), u64::MAX - 5);
}

proptest! {
    #[test]
    fn any_bytes_behind_a_true_start(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        check_trace_dat(&[start(), bytes].concat());
    }

    #[test]
    fn any_bytes_behind_the_start_of_version_7(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        check_trace_dat(&[b"\x17\x08\x44tracing7\0\0\x08\x00\x10\x00\x00zstd\x001\0".as_slice(), &bytes].concat());
    }
}

/// A file in memory, written as a recorder writes it.
struct Recorder {
    writer: TraceDatWriter,
    image: Vec<u8>,
}

const PAGE_SIZE: usize = 4096;

/// A sub-buffer with one record of 8 bytes, at this time, of a task of this number.
fn sub_buffer(order: crate::ByteOrder, time: u64, task: u32) -> Vec<u8> {
    let mut page = Vec::new();
    let mut put = |number: u64, len: usize| match order {
        crate::ByteOrder::Little => page.extend_from_slice(&number.to_le_bytes()[..len]),
        crate::ByteOrder::Big => page.extend_from_slice(&number.to_be_bytes()[8 - len..]),
    };
    put(time, 8);
    put(12, 8);
    put(if order == crate::ByteOrder::Little { 2 } else { 2 << 27 }, 4);
    put(0x8001, 2);
    put(0, 2);
    put(task.into(), 4);
    page.resize(PAGE_SIZE, 0);
    page
}

impl Recorder {
    fn new(version: u8, compression: Compression, order: crate::ByteOrder) -> Self {
        let buffer = |name: &str, cpus: &[u32]| BufferPlan {
            name: name.to_owned(),
            clock: "mono".to_owned(),
            cpus: cpus.to_vec(),
        };
        let plan = FilePlan {
            version,
            target: crate::Target { order, long_size: 8 },
            page_size: 4096,
            compression,
            lane_size: 1 << 16,
            buffers: vec![buffer("", &[0, 1]), buffer("application", &[0, 1])],
        };
        let (writer, head) = TraceDatWriter::new(plan, descriptions("first")).unwrap();
        let mut recorder = Self { writer, image: Vec::new() };
        recorder.write(&[head]);
        recorder
    }

    fn write(&mut self, pieces: &[Piece]) {
        for Piece { offset, bytes } in pieces {
            let start = usize::try_from(*offset).unwrap();
            self.image.resize(self.image.len().max(start + bytes.len()), 0);
            self.image[start..start + bytes.len()].copy_from_slice(bytes);
        }
    }

    /// Adds a sub-buffer, and makes it count.
    fn add(&mut self, lane: usize, page: &[u8]) {
        self.add_silently(lane, page);
        self.write(&self.writer.table());
    }

    fn add_silently(&mut self, lane: usize, page: &[u8]) {
        let mut bytes = page.to_vec();
        if self.writer.is_packed() {
            bytes.clear();
            self.writer.chunk(page, 1, &mut bytes).unwrap();
        }
        let len = u64::try_from(bytes.len()).unwrap();
        let offset = self.writer.place(lane, len).unwrap();
        self.write(&[Piece { offset, bytes }]);
        self.writer.added(lane, len);
    }

    fn finish(&mut self) {
        for moved in self.writer.moves() {
            let [from, to, len] = [moved.from, moved.to, moved.len].map(|n| usize::try_from(n).unwrap());
            self.image.resize(self.image.len().max(from + len), 0);
            self.image.copy_within(from..from + len, to);
            self.writer.moved(moved);
            self.write(&self.writer.table());
            self.check_whole();
        }
        self.writer.settle();
        let pieces = self.writer.describe(&descriptions("last")).unwrap();
        self.write(&pieces);
        self.image.truncate(usize::try_from(self.writer.end()).unwrap());
    }

    /// What the file holds now: buffer, CPU, time and task of each record.
    fn records(&self) -> Vec<(usize, u32, u64, u64)> {
        records(&self.image).0
    }

    fn check_whole(&self) {
        assert_eq!(records(&self.image).1, 0, "nothing is damaged");
    }
}

fn records(image: &[u8]) -> (Vec<(usize, u32, u64, u64)>, usize) {
    let Ok(file) = TraceDat::open(&image) else { return (Vec::new(), 1) };
    let mut timeline = Timeline::new();
    timeline.push_file(0, &file, &image);
    let (records, damaged) = walked(&file, &mut timeline, Timeline::next);
    timeline.restart();
    let (mut unordered, damaged_unordered) = walked(&file, &mut timeline, Timeline::next_of_any);
    unordered.sort_by_key(|&(buffer, cpu, time, _)| (time, buffer, cpu));
    let mut sorted = records.clone();
    sorted.sort_by_key(|&(buffer, cpu, time, _)| (time, buffer, cpu));
    assert_eq!((unordered, damaged_unordered), (sorted, damaged));
    (records, damaged + file.complaints.len())
}

fn walked<'t>(
    file: &TraceDat,
    timeline: &mut Timeline<&'t [u8]>,
    next: for<'a> fn(&'a mut Timeline<&'t [u8]>) -> Option<Timed<'a>>,
) -> (Vec<(usize, u32, u64, u64)>, usize) {
    let (mut records, mut damaged) = (Vec::new(), 0);
    while let Some(timed) = next(timeline) {
        match timed.step {
            Item::Record(record) => {
                let task = file.layout.target.uint(record.bytes, 4, 4).unwrap();
                records.push((timed.origin.buffer, timed.origin.cpu, record.time, task));
            }
            Item::Lost(_) => {}
            Item::Damaged { .. } | Item::Failed(_) => damaged += 1,
        }
    }
    (records, damaged)
}

fn descriptions(tasks: &str) -> Descriptions {
    Descriptions {
        header_page: PAGE.to_owned(),
        formats: vec![("app".to_owned(), "name: a\n".to_owned()), ("app".to_owned(), "name: b\n".to_owned())],
        tasks: format!("7 {tasks}\n").into_bytes(),
        clocks: "local [mono]\n".to_owned(),
        cpu_stats: vec!["CPU: 0\nentries: 5\n".to_owned()],
        clock: Clock { tsc: Some(TscToNs { mult: 1 << 31, shift: 31, offset: 0 }), offset: 5 },
        ..Descriptions::default()
    }
}

/// Every way that a file is written.
fn recorders() -> Vec<Recorder> {
    use crate::ByteOrder::{Big, Little};
    let mut recorders = Vec::new();
    for order in [Little, Big] {
        recorders.push(Recorder::new(6, Compression::None, order));
        for compression in [Compression::None, Compression::Zstd, Compression::Zlib] {
            recorders.push(Recorder::new(7, compression, order));
        }
    }
    recorders
}

#[test]
fn a_file_is_whole_after_each_table() {
    for mut recorder in recorders() {
        let order = recorder.writer.order();
        let mut expected = Vec::new();
        for time in 1..=12u64 {
            let lane = usize::try_from(time % 4).unwrap();
            recorder.add(lane, &sub_buffer(order, time * 10, 7));
            expected.push((lane / 2, u32::try_from(lane % 2).unwrap(), time * 10 + 5, 7));
            assert_eq!(recorder.records(), expected);
            recorder.check_whole();
            if time == 6 {
                let pieces = recorder.writer.describe(&descriptions("middle")).unwrap();
                recorder.write(&pieces);
            }
        }
        // A recorder that dies before it wrote the table has not harmed what was there.
        let mut died = Recorder { writer: recorder.writer.clone(), image: recorder.image.clone() };
        died.add_silently(1, &sub_buffer(order, 500, 7));
        assert_eq!(died.records(), expected);
        recorder.finish();
        assert_eq!(recorder.records(), expected);
        recorder.check_whole();
        let file = TraceDat::open(&recorder.image.as_slice()).unwrap();
        assert_eq!(file.tasks, b"7 last\n");
        assert_eq!(file.formats.len(), 2);
        assert_eq!(file.cpu_stats, ["CPU: 0\nentries: 5"]);
        assert_eq!(file.buffers[1].name, "application");
        assert!(file.is_in_ns());
    }
}

#[test]
fn a_file_cut_anywhere_gives_what_lies_before() {
    for mut recorder in recorders() {
        let order = recorder.writer.order();
        for time in 1..=8u64 {
            recorder.add(usize::try_from(time % 4).unwrap(), &sub_buffer(order, time * 10, 7));
        }
        for is_finished in [false, true] {
            if is_finished {
                recorder.finish();
            }
            let whole = recorder.records();
            assert_eq!(whole.len(), 8);
            let mut before = 0;
            let (len, head) = (recorder.image.len(), 2000);
            for len in (0..head).step_by(7).chain((head..len).step_by(1009)) {
                let (found, damaged) = records(&recorder.image[..len]);
                assert!(found.len() >= before, "cut at {len}: more is lost than nearer to the start");
                assert!(found.iter().all(|record| whole.contains(record)), "cut at {len}");
                // What is missing is told, where any part of the descriptions is there.
                assert!(damaged > 0 || found.len() == whole.len(), "cut at {len}");
                before = if damaged > 0 { found.len() } else { before };
            }
        }
    }
}

#[test]
fn flipped_bytes_end_in_complaints() {
    let mut seed = 0x1234_5678_9abc_def1u64;
    let mut draw = |limit: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % u64::try_from(limit).unwrap()).unwrap()
    };
    for mut recorder in recorders() {
        let order = recorder.writer.order();
        for time in 1..=8u64 {
            recorder.add(usize::try_from(time % 4).unwrap(), &sub_buffer(order, time * 10, 7));
        }
        recorder.finish();
        // Behind the large hole that version 6 leaves for its head, most bytes are zeros.
        for _ in 0..60 {
            let mut image = recorder.image.clone();
            for _ in 0..=draw(6) {
                let at = draw(image.len().min(4000));
                image[at] = u8::try_from(draw(256)).unwrap();
            }
            check_trace_dat(&image);
        }
    }
}

#[test]
fn a_full_lane_and_what_version_6_cannot_do_are_refused() {
    let mut recorder = Recorder::new(7, Compression::None, crate::ByteOrder::Little);
    for _ in 0..16 {
        recorder.add(0, &sub_buffer(crate::ByteOrder::Little, 1, 1));
    }
    assert_eq!(recorder.writer.place(0, 4096), Err(WriteError::Full));
    assert_eq!(recorder.writer.place(99, 1), Err(WriteError::Full));
    let plan = FilePlan {
        version: 6,
        target: crate::Target::LE64,
        page_size: 4096,
        compression: Compression::Zstd,
        lane_size: 1 << 16,
        buffers: Vec::new(),
    };
    let refused = TraceDatWriter::new(plan, Descriptions::default()).unwrap_err().to_string();
    assert_eq!(refused, "trace.dat: version 6 cannot be compressed; write version 7");
}

//! What a client can do with the mapping of a `trace_pipe_raw`, call by call, as the ABI of `linux/trace_mmap.h` has it:
//! on the live kernel's files, and under `ringtap exec` on ringtap's. Where the two answer differently, the test says so
//! (docs/differences.md, "A mounted tree"). Skipped, with one line, where there is no tracefs or no right to use it.

use ringtap::tracefs::{Instance, Tracefs};
use ringtap_abi::records::{Walk, Words};
use ringtap_abi::subbuf::{HEADER_LEN, PageCommit};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::ioctl::{NoArg, Opcode};
use rustix::mm::{MapFlags, MprotectFlags, MremapFlags, ProtFlags};
use std::fs::{self, File};
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering::Acquire};
use std::time::{Duration, Instant};

const PAGE: usize = 4096;
/// Longest time that something may take which comes by itself.
const PATIENCE: Duration = Duration::from_secs(20);

/// One CPU's buffer in an instance of its own, and the thread on that CPU.
struct Bench {
    instance: Instance,
    cpu: u32,
    is_kernels: bool,
}

impl Bench {
    /// `None`, and one line that says why, where there is nothing to test on.
    fn new(subbuf_kib: u32) -> Option<Self> {
        // ringtap-cli includes these tests for `ringtap exec`; its other tests fork, which disturbs readers of the kernel's.
        if env!("CARGO_PKG_NAME") != "ringtap" && std::env::var_os("RINGTAP_TEST_INSIDE").is_none() {
            return None;
        }
        let tracefs = Tracefs::find().and_then(|tracefs| tracefs.check_mapping().map(|()| tracefs));
        let tracefs =
            tracefs.inspect_err(|error| println!("skipped, as it needs the live kernel: {error}")).ok()?;
        const TRACEFS: rustix::fs::FsWord = 0x7472_6163;
        let is_kernels = rustix::fs::statfs(tracefs.root()).unwrap().f_type == TRACEFS;
        let cpu = rustix::thread::sched_getcpu();
        let mut only = rustix::thread::CpuSet::new();
        only.set(cpu);
        rustix::thread::sched_setaffinity(None, &only).unwrap();
        let instance = tracefs.create_instance().unwrap();
        instance.set_sizes_kib(subbuf_kib, 64).unwrap();
        instance.set_recording(true).unwrap();
        Some(Self { instance, cpu: u32::try_from(cpu).unwrap(), is_kernels })
    }

    fn open(&self) -> OwnedFd {
        self.instance.open_raw(self.cpu).unwrap()
    }

    fn write(&self, file: &str, value: &str) -> Result<(), Errno> {
        let path = self.instance.path().join(file);
        let written = File::options()
            .write(true)
            .open(path)
            .and_then(|mut file| std::io::Write::write(&mut file, value.as_bytes()));
        written.map(drop).map_err(|error| Errno::from_io_error(&error).unwrap())
    }

    /// As `write`, of a file of this CPU.
    fn write_cpus(&self, file: &str, value: &str) -> Result<(), Errno> {
        self.write(&format!("per_cpu/cpu{}/{file}", self.cpu), value)
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.instance.path().join(file)).unwrap()
    }

    /// Opens `trace` with `O_TRUNC`.
    fn empty(&self) {
        File::options().write(true).truncate(true).open(self.instance.path().join("trace")).unwrap();
    }

    /// Writes a marker of 32 bytes for each number.
    fn mark(&self, numbers: Range<u64>) {
        numbers.for_each(|number| self.write("trace_marker", &format!("n{number:08}")).unwrap());
    }

    /// What is the kernel's answer, and what ringtap's.
    fn either<T>(&self, kernels: T, ours: T) -> T {
        if self.is_kernels { kernels } else { ours }
    }
}

/// A mapping.
struct Map {
    at: *mut u8,
    len: usize,
}

impl Map {
    fn with(
        raw: &OwnedFd,
        range: Range<usize>,
        protection: ProtFlags,
        flags: MapFlags,
    ) -> Result<Self, Errno> {
        let (offset, len) = (range.start as u64, range.end - range.start);
        // SAFETY: a new mapping at a place of the kernel's choice touches nothing that exists.
        let at = unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, protection, flags, raw, offset) }?;
        Ok(Self { at: at.cast(), len })
    }

    fn new(raw: &OwnedFd, range: Range<usize>) -> Result<Self, Errno> {
        Self::with(raw, range, ProtFlags::READ, MapFlags::SHARED)
    }

    /// The meta-page.
    fn meta(raw: &OwnedFd) -> Self {
        let first = Self::new(raw, 0..PAGE).unwrap();
        let len = first.word(META_PAGE_SIZE) as usize;
        Self::new(raw, 0..len).unwrap()
    }

    fn word(&self, offset: usize) -> u32 {
        assert!(offset + 4 <= self.len && offset.is_multiple_of(4));
        // SAFETY: within the mapping, as asserted.
        let word = unsafe { self.at.add(offset) }.cast::<AtomicU32>();
        // SAFETY: the mapping lives as long as `self`, and others write there as to an atomic.
        unsafe { &*word }.load(Acquire)
    }

    fn u64(&self, offset: usize) -> u64 {
        u64::from(self.word(offset + 4)) << 32 | u64::from(self.word(offset))
    }

    /// Reader's sub-buffer and the bytes read of it; events in the buffer, read, and overwritten.
    fn state(&self) -> [u64; 5] {
        let [id, read] = [READER_ID, READER_READ].map(|offset| u64::from(self.word(offset)));
        [id, read, self.u64(ENTRIES), self.u64(READ), self.u64(OVERRUN)]
    }

    fn protect(&self, flags: MprotectFlags) -> Result<(), Errno> {
        // SAFETY: nobody refers to these bytes but by `word`, and a write access is never granted.
        unsafe { rustix::mm::mprotect(self.at.cast(), self.len, flags) }
    }

    /// Unmaps a part of it.
    fn cut(&self, range: Range<usize>) -> Result<(), Errno> {
        // SAFETY: within the mapping, of which nobody looks at this part any more.
        unsafe { rustix::mm::munmap(self.at.wrapping_add(range.start).cast(), range.end - range.start) }
    }

    /// Makes it longer, wherever there is room.
    fn grow(&mut self, len: usize) -> Result<(), Errno> {
        // SAFETY: the mapping is this one's, and its place is noted.
        let at = unsafe { rustix::mm::mremap(self.at.cast(), self.len, len, MremapFlags::MAYMOVE) }?;
        (self.at, self.len) = (at.cast(), len);
        Ok(())
    }

    /// Moves it to where `place` is, which goes.
    fn move_to(&mut self, place: Self) -> Result<(), Errno> {
        assert_eq!(self.len, place.len);
        let flags = MremapFlags::MAYMOVE;
        let to = place.at;
        // SAFETY: both mappings are ours; the one that is replaced is forgotten below.
        let at = unsafe { rustix::mm::mremap_fixed(self.at.cast(), self.len, self.len, flags, to.cast()) }?;
        self.at = at.cast();
        let _replaced = std::mem::ManuallyDrop::new(place);
        Ok(())
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: mapped by `with`, and nobody refers to it.
        unsafe { rustix::mm::munmap(self.at.cast(), self.len) }.unwrap();
    }
}

/// Places in `struct trace_buffer_meta`.
const META_PAGE_SIZE: usize = 0;
const META_STRUCT_LEN: usize = 4;
const SUBBUF_SIZE: usize = 8;
const NR_SUBBUFS: usize = 12;
const READER_LOST_EVENTS: usize = 16;
const READER_ID: usize = 24;
const READER_READ: usize = 28;
const FLAGS: usize = 32;
const ENTRIES: usize = 40;
const OVERRUN: usize = 48;
const READ: usize = 56;

/// Bytes of a marker of [`Bench::mark`].
const EVENT: u64 = 32;

fn ioctl<const COMMAND: Opcode>(raw: &OwnedFd) -> Result<(), Errno> {
    // SAFETY: these commands take no argument.
    let command = unsafe { NoArg::<COMMAND>::new() };
    // SAFETY: what they change is read as atomics.
    unsafe { rustix::ioctl::ioctl(raw, command) }
}

/// `TRACE_MMAP_IOCTL_GET_READER`: `_IO('R', 0x20)`.
fn get_reader(raw: &OwnedFd) -> Result<(), Errno> {
    ioctl::<0x5220>(raw)
}

/// A sub-buffer in a mapping of all of them.
struct Subbuf<'a> {
    data: &'a Map,
    at: usize,
}

impl Words for Subbuf<'_> {
    fn word(&self, offset: u32) -> u32 {
        self.data.word(self.at + (HEADER_LEN + offset) as usize)
    }
}

/// The numbers of the markers in `range` of a sub-buffer's data.
fn numbers(data: &Map, subbuf_size: usize, id: u64, range: Range<u64>) -> Vec<u64> {
    let subbuf = Subbuf { data, at: usize::try_from(id).unwrap() * subbuf_size };
    let end = u32::try_from(range.end).unwrap();
    assert!(PageCommit::unpack(data.u64(subbuf.at + 8)).len() >= end, "the page says so, too");
    let mut walk = Walk::new(data.u64(subbuf.at), end);
    let mut numbers = Vec::new();
    while let Some(record) = walk.next(&subbuf).unwrap() {
        if u64::from(record.offset) < range.start {
            continue;
        }
        // Eight bytes of common fields, the address, then "n00000000\n".
        let bytes: Vec<u8> = (record.offset + 16..record.offset + 28)
            .step_by(4)
            .flat_map(|at| subbuf.word(at).to_le_bytes())
            .collect();
        numbers.push(std::str::from_utf8(&bytes[1..9]).unwrap().parse().unwrap());
    }
    numbers
}

/// Numbers that follow each other: the first of each run, and the one behind its last.
fn runs(numbers: &[u64]) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for &number in numbers {
        match runs.last_mut() {
            Some((_, end)) if *end == number => *end += 1,
            _ => runs.push((number, number + 1)),
        }
    }
    runs
}

/// Calls GET_READER until nothing is new, and looks at each piece where it lies.
fn consume(raw: &OwnedFd, meta: &Map, data: &Map) -> Vec<u64> {
    let subbuf_size = meta.word(SUBBUF_SIZE) as usize;
    let mut seen = Vec::new();
    loop {
        let [before, from, ..] = meta.state();
        get_reader(raw).unwrap();
        let [id, read, ..] = meta.state();
        if (id, read) == (before, from) {
            return seen;
        }
        seen.extend(numbers(data, subbuf_size, id, if id == before { from..read } else { 0..read }));
    }
}

fn data_range(meta: &Map) -> Range<usize> {
    let [begin, size, count] =
        [META_PAGE_SIZE, SUBBUF_SIZE, NR_SUBBUFS].map(|offset| meta.word(offset) as usize);
    begin..begin + size * count
}

/// Waits for what comes to pass by itself.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_meta_page_says_what_there_is() {
    for kib in [4u32, 8] {
        let Some(bench) = Bench::new(kib) else { return };
        bench.empty();
        let raw = bench.open();
        let meta = Map::meta(&raw);
        let size = kib * 1024;
        assert_eq!([META_PAGE_SIZE, SUBBUF_SIZE].map(|offset| meta.word(offset)), [size; 2]);
        let own = meta.word(META_STRUCT_LEN) as usize;
        assert!(bench.either(own == 80, (80..=meta.len).contains(&own)), "{own}");
        // 17 or 9 for 64 KiB, as data without headers, and the reader's.
        assert_eq!(meta.word(NR_SUBBUFS), if kib == 4 { 18 } else { 10 });
        assert!(
            (own.next_multiple_of(4)..meta.len).step_by(4).all(|at| meta.word(at) == 0),
            "zeros behind it"
        );
        assert_eq!((meta.state(), meta.u64(READER_LOST_EVENTS), meta.u64(FLAGS)), ([0; 5], 0, 0));
        get_reader(&raw).unwrap();
        assert_eq!(meta.state(), [0; 5], "nothing new: the same page");
        bench.mark(0..16);
        for _ in 0..2 {
            get_reader(&raw).unwrap();
            assert_eq!(meta.state(), [1, 16 * EVENT, 16, 16, 0]);
        }
        assert_eq!((meta.u64(READER_LOST_EVENTS), meta.u64(FLAGS)), (0, 0));
        let data = Map::new(&raw, data_range(&meta)).unwrap();
        assert_eq!(numbers(&data, size as usize, 1, 0..16 * EVENT), (0..16).collect::<Vec<_>>());
        // More of the same page, whose number stays.
        bench.mark(16..18);
        get_reader(&raw).unwrap();
        assert_eq!(meta.state(), [1, 18 * EVENT, 18, 18, 0]);
    }
}

#[test]
fn every_part_of_the_file_can_be_mapped_and_nothing_else() {
    for kib in [4, 8] {
        let Some(bench) = Bench::new(kib) else { return };
        let raw = bench.open();
        let map = |range| Map::new(&raw, range).map(drop);
        let meta = Map::meta(&raw);
        let (data, size) = (data_range(&meta), meta.word(SUBBUF_SIZE) as usize);
        assert_eq!(map(0..data.end), Ok(()), "all");
        assert_eq!(map(data.clone()), Ok(()), "all sub-buffers");
        assert_eq!(map(data.start..data.end - size), Ok(()), "without the last");
        assert_eq!(map(data.start + size..data.end), Ok(()), "without the first");
        assert_eq!(map(0..PAGE), Ok(()), "a part of the meta-page");
        assert_eq!(map(0..3 * PAGE), Ok(()), "a part of a sub-buffer");
        assert_eq!(map(data.start + 1..data.end), Err(Errno::INVAL), "not at a page");
        assert_eq!(map(0..0), Err(Errno::INVAL), "nothing");
        // A memfd's mapping may go past its end, and ends there with SIGBUS; nor does it know of sub-buffers.
        let past = bench.either(Err(Errno::INVAL), Ok(()));
        assert_eq!(map(data.start + 2 * size..data.end + size), past, "one past the end");
        assert_eq!(map(data.end..data.end + size), past, "behind the end");
        assert_eq!(
            map(PAGE..2 * PAGE),
            if kib == 4 { Ok(()) } else { past },
            "in the middle of a sub-buffer"
        );
        // What failed left nothing behind.
        drop(meta);
        drop(raw);
        until("it can be resized", || bench.write("buffer_size_kb", "128") == Ok(()));
    }
}

#[test]
fn nobody_maps_for_writing_nor_for_running() {
    let Some(bench) = Bench::new(4) else { return };
    let raw = bench.open();
    let map = |protection, flags| Map::with(&raw, 0..PAGE, protection, flags);
    let (read, write, exec) = (ProtFlags::READ, ProtFlags::WRITE, ProtFlags::EXEC);
    let result = |map: Result<Map, Errno>| map.map(drop);
    assert_eq!(result(map(read | write, MapFlags::SHARED)), Err(Errno::ACCESS));
    assert_eq!(result(map(write, MapFlags::SHARED)), Err(Errno::ACCESS));
    assert_eq!(result(map(read | exec, MapFlags::SHARED)), Err(Errno::PERM));
    assert_eq!(result(map(read, MapFlags::PRIVATE)), bench.either(Err(Errno::PERM), Ok(())));
    let mapped = map(ProtFlags::empty(), MapFlags::SHARED).unwrap();
    assert_eq!(mapped.protect(MprotectFlags::READ), Ok(()));
    assert_eq!(mapped.protect(MprotectFlags::READ | MprotectFlags::WRITE), Err(Errno::ACCESS));
    // The mount has `noexec`, and that is asked here, too.
    let exec = mapped.protect(MprotectFlags::READ | MprotectFlags::EXEC);
    assert_eq!(exec, bench.either(Ok(()), Err(Errno::ACCESS)));
    // SAFETY: nobody refers to these bytes.
    let dumped = unsafe { rustix::mm::madvise(mapped.at.cast(), PAGE, rustix::mm::Advice::LinuxDoDump) };
    assert_eq!(dumped, bench.either(Err(Errno::INVAL), Ok(())));
}

#[test]
fn a_mapping_is_moved_as_a_whole() {
    let Some(bench) = Bench::new(4) else { return };
    let raw = bench.open();
    let mut mapped = Map::new(&raw, 0..2 * PAGE).unwrap();
    let (kernels, ours) = (Err(Errno::INVAL), Ok(()));
    assert_eq!(mapped.cut(PAGE..2 * PAGE), bench.either(kernels, ours), "its second half goes");
    if !bench.is_kernels {
        mapped.len = PAGE;
        // The kernel's cannot be longer than it was made.
        mapped.grow(2 * PAGE).unwrap();
    }
    assert_eq!(mapped.grow(4 * PAGE), bench.either(Err(Errno::FAULT), Ok(())));
    let (anonymous, flags) = (ProtFlags::empty(), MapFlags::PRIVATE);
    // SAFETY: a new mapping at a place of the kernel's choice touches nothing that exists.
    let place =
        unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), mapped.len, anonymous, flags) }.unwrap();
    let place = Map { at: place.cast(), len: mapped.len };
    mapped.move_to(place).unwrap();
    bench.mark(0..1);
    get_reader(&raw).unwrap();
    assert_eq!(mapped.u64(READ), 1);
    assert_eq!(bench.write("buffer_size_kb", "128"), Err(Errno::BUSY), "it counts where it is now");
    drop(mapped);
    until("it can be resized", || bench.write("buffer_size_kb", "128") == Ok(()));
}

#[test]
fn as_long_as_anybody_maps_everybody_may_ask_for_the_reader() {
    let Some(bench) = Bench::new(4) else { return };
    let (raw, other) = (bench.open(), bench.open());
    assert_eq!(get_reader(&raw), Err(Errno::NODEV), "nobody maps it");
    let first = Map::meta(&raw);
    let second = Map::meta(&raw);
    bench.mark(0..3);
    get_reader(&other).unwrap();
    assert_eq!((first.u64(READ), first.state()), (3, second.state()), "the same memory");
    let data = Map::new(&raw, data_range(&first)).unwrap();
    assert_eq!(ioctl::<0>(&other), Ok(()));
    assert_eq!(ioctl::<0x5221>(&other), Err(Errno::NOTTY));
    drop(first);
    bench.mark(3..4);
    assert_eq!(consume(&other, &second, &data), [3], "there are two mappings left");
    drop((second, data));
    until("nobody maps it", || get_reader(&raw) == Err(Errno::NODEV));
    until("nobody does", || get_reader(&other) == Err(Errno::NODEV));
}

#[test]
fn what_is_mapped_keeps_its_size() {
    let Some(bench) = Bench::new(4) else { return };
    let raw = bench.open();
    let mapped = Map::meta(&raw);
    let (before, cpus) = (bench.read("buffer_size_kb"), bench.read("per_cpu/cpu1/buffer_size_kb"));
    assert_eq!(bench.write("buffer_size_kb", "128"), Err(Errno::BUSY));
    assert_eq!(bench.write_cpus("buffer_size_kb", "128"), Err(Errno::BUSY));
    assert_eq!(bench.write_cpus("buffer_size_kb", "64"), Ok(()), "as it is");
    assert_eq!(bench.write("buffer_subbuf_size_kb", "8"), Err(Errno::BUSY));
    assert_eq!(bench.write("buffer_subbuf_size_kb", "4"), Ok(()), "as it is");
    assert_eq!(bench.write("free_buffer", "1"), Ok(()), "nobody hears of it");
    assert_eq!((bench.read("buffer_size_kb"), bench.read("per_cpu/cpu1/buffer_size_kb")), (before, cpus));
    if bench.instance.path().join("snapshot").exists() {
        assert_eq!(bench.write("snapshot", "1"), Err(Errno::BUSY));
    }
    let another = format!("per_cpu/cpu{}/buffer_size_kb", 1 - bench.cpu.min(1));
    assert_eq!(bench.write(&another, "128"), Ok(()), "another CPU's is not mapped");
    assert_eq!(bench.read("buffer_size_kb"), "X\n");
    // What is closed is still mapped, and keeps its instance.
    drop(raw);
    assert_eq!(bench.write_cpus("buffer_size_kb", "128"), Err(Errno::BUSY));
    assert_eq!(
        fs::remove_dir(bench.instance.path()).unwrap_err().raw_os_error(),
        Some(Errno::BUSY.raw_os_error())
    );
    drop(mapped);
    until("it can be resized", || bench.write_cpus("buffer_size_kb", "128") == Ok(()));
}

#[test]
fn the_data_is_what_was_written() {
    for kib in [4, 8] {
        let Some(bench) = Bench::new(kib) else { return };
        let raw = bench.open();
        let meta = Map::meta(&raw);
        let data = Map::new(&raw, data_range(&meta)).unwrap();
        // A few pages, then little by little; never so much that it is overwritten.
        let mut written = 0;
        for more in [1500, 1, 2, 126, 127, 128, 1000, 3] {
            bench.mark(written..written + more);
            assert_eq!(runs(&consume(&raw, &meta, &data)), [(written, written + more)]);
            written += more;
        }
        let [_, _, entries, read, overrun] = meta.state();
        assert_eq!((entries, read, overrun), (written, written, 0));
        // Whatever reads, the meta-page tells of it with the next call.
        bench.mark(written..written + 2);
        let mut page = vec![0; kib as usize * 1024];
        assert_eq!(rustix::io::read(&raw, &mut page[..]), Ok(page.len()));
        get_reader(&raw).unwrap();
        assert_eq!((meta.u64(ENTRIES), meta.u64(READ)), (written + 2, written + 2));
        assert!(consume(&raw, &meta, &data).is_empty(), "each event once");
    }
}

#[test]
fn a_mapping_begins_where_a_read_stopped() {
    let Some(bench) = Bench::new(4) else { return };
    let raw = bench.open();
    bench.mark(0..5);
    // Room for two, the header included.
    let mut part = [0; 100];
    assert_eq!(rustix::io::read(&raw, &mut part), Ok(100));
    let meta = Map::meta(&raw);
    assert_eq!(u64::from(meta.word(READER_READ)), 2 * EVENT);
    let data = Map::new(&raw, data_range(&meta)).unwrap();
    assert_eq!(consume(&raw, &meta, &data), [2, 3, 4]);
}

#[test]
fn a_mapped_buffer_is_emptied_where_it_stands() {
    let Some(bench) = Bench::new(4) else { return };
    let raw = bench.open();
    let meta = Map::meta(&raw);
    let data = Map::new(&raw, data_range(&meta)).unwrap();
    bench.mark(0..700);
    assert_eq!(consume(&raw, &meta, &data).len(), 700);
    let [id, ..] = meta.state();
    assert!(id > 0);
    bench.empty();
    assert_eq!(meta.state(), [id, 0, 0, 0, 0], "at once, and the page keeps its number");
    bench.mark(700..703);
    assert_eq!(consume(&raw, &meta, &data), [700, 701, 702]);
    assert_eq!((meta.u64(ENTRIES), meta.u64(READ)), (3, 3));
}

#[test]
fn sub_buffers_are_numbered_at_the_first_mapping() {
    let Some(bench) = Bench::new(4) else { return };
    bench.mark(0..1);
    for round in 0..4u64 {
        let raw = bench.open();
        let meta = Map::meta(&raw);
        let [id, ..] = meta.state();
        assert_eq!(id, 0, "round {round}: the reader's is 0, again");
        let data = Map::new(&raw, data_range(&meta)).unwrap();
        let numbers = 1 + round * 1000..1 + round * 1000 + 900;
        bench.mark(numbers.clone());
        let seen = consume(&raw, &meta, &data);
        assert_eq!(runs(&seen[seen.len() - 900..]), [(numbers.start, numbers.end)], "round {round}");
        assert!(meta.word(READER_ID) > 4, "several pages further");
        drop((raw, meta, data));
        if round == 2 {
            // Some are left in the ring.
            bench.mark(90_000..90_700);
        }
    }
    // What was emptied while nobody mapped it begins with 0, then 1.
    bench.empty();
    let raw = bench.open();
    let meta = Map::meta(&raw);
    assert_eq!(meta.state(), [0; 5]);
    bench.mark(0..3);
    get_reader(&raw).unwrap();
    assert_eq!(meta.state(), [1, 3 * EVENT, 3, 3, 0]);
}

#[test]
fn who_opened_before_a_change_of_size_maps_what_came_after_it() {
    let Some(bench) = Bench::new(4) else { return };
    for (file, value) in [
        ("buffer_size_kb", "128"),
        ("buffer_subbuf_size_kb", "8"),
        ("buffer_subbuf_size_kb", "4"),
        ("trace_clock", "boot"),
    ] {
        let raw = bench.open();
        bench.mark(0..300);
        bench.write(file, value).unwrap();
        // A change of the sub-buffers' size drops what there was in the kernel, one of the clock everywhere.
        bench.mark(300..900);
        let meta = Map::meta(&raw);
        let data = Map::new(&raw, data_range(&meta)).unwrap();
        let seen = consume(&raw, &meta, &data);
        let kept =
            if file == "buffer_size_kb" || (file != "trace_clock" && !bench.is_kernels) { 0 } else { 300 };
        assert_eq!(runs(&seen), [(kept, 900)], "{file} {value}");
        assert_eq!(bench.write("buffer_size_kb", "256"), Err(Errno::BUSY), "it is mapped");
        bench.mark(900..1700);
        assert_eq!(runs(&consume(&raw, &meta, &data)), [(900, 1700)]);
    }
}

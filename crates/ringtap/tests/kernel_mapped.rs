//! The reader on the live kernel's buffers, beside plain `read()` of an identical instance. Skipped, with one line,
//! where there is no tracefs or no right to use it. Under `ringtap exec` they run on ringtap's own buffers instead, by the
//! file, and by the socket.

mod cpus;

use cpus::pin_here;
use ringtap::attach::{Connection, Role};
use ringtap::clock::{ClockId, Conversion};
use ringtap::tracefs::{Instance, Tracefs};
use ringtap::{Config, Host, Input, Item, Merge, ReadError, Reader, Waited};
use ringtap_abi::records::{Walk, Words};
use ringtap_abi::subbuf::{HEADER_LEN, PageCommit};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

fn live() -> Option<Tracefs> {
    // ringtap-cli includes these tests for `ringtap exec`; its other tests fork, which disturbs readers of the kernel's.
    if env!("CARGO_PKG_NAME") != "ringtap" && std::env::var_os("RINGTAP_TEST_INSIDE").is_none() {
        return None;
    }
    let tracefs = Tracefs::find().and_then(|tracefs| tracefs.check_mapping().map(|()| tracefs));
    tracefs.inspect_err(|error| println!("skipped, as it needs the live kernel: {error}")).ok()
}

fn instance(tracefs: &Tracefs, subbuf_kib: u32, buffer_kib: u32) -> Instance {
    let instance = tracefs.create_instance().unwrap();
    instance.set_clock("mono").unwrap();
    instance.set_sizes_kib(subbuf_kib, buffer_kib).unwrap();
    instance.set_buffer_percent(0).unwrap();
    instance.set_recording(true).unwrap();
    instance
}

/// A reader of an instance: by its file, or by ringtap's socket.
fn open(instance: &Instance, cpu: u32) -> Reader {
    if std::env::var_os("RINGTAP_TEST_ON_SOCKET").is_none() {
        return Reader::open_kernel(instance.open_raw(cpu).unwrap(), cpu, ClockId::Mono).unwrap();
    }
    let name = instance.path().file_name().unwrap().to_str().unwrap();
    let connection = Connection::from_environment(Role::Reader).unwrap().expect("exec serves");
    let connection = Arc::new(connection.of_instance(name).unwrap().expect("it was made"));
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        match connection.reader(cpu) {
            // The host hears in its own time that the reader before it has gone.
            Err(error) if Instant::now() > end => panic!("{error}"),
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
            Ok(reader) => return reader,
        }
    }
}

/// Removes an instance that nobody reads any more, as soon as its host has heard of that.
fn remove(instance: Instance) {
    let end = Instant::now() + Duration::from_secs(20);
    while std::fs::remove_dir(instance.path()).is_err() {
        assert!(Instant::now() < end, "{} is in use", instance.path().display());
        std::thread::sleep(Duration::from_millis(1));
    }
    std::mem::drop(instance);
}

/// What a stream brought: payloads and losses, without times.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Payload(Vec<u8>),
    Lost(Option<u64>),
}

fn payload(mut bytes: Vec<u8>) -> Seen {
    // Whether the kernel wanted to reschedule during the write (common_flags 0x02, 0x04, 0x20) is chance.
    bytes[2] &= !0x26;
    Seen::Payload(bytes)
}

fn mapped(reader: &mut Reader) -> Vec<Seen> {
    let mut seen = Vec::new();
    let mut last = 0;
    while let Some(item) = reader.next().unwrap() {
        seen.push(match item {
            Item::Record(record) => {
                assert!(record.ticks >= last && record.ns() == record.ticks);
                last = record.ticks;
                payload(record.payload.to_vec())
            }
            Item::Lost(missing) => Seen::Lost(missing.count),
            other => panic!("{other:?}"),
        });
    }
    seen
}

struct Page(Vec<u8>);

impl Page {
    fn u64_at(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.0[at..at + 8].try_into().unwrap())
    }
}

impl Words for Page {
    fn word(&self, offset: u32) -> u32 {
        let at = (HEADER_LEN + offset) as usize;
        u32::from_le_bytes(self.0[at..at + 4].try_into().unwrap())
    }
}

/// The same by plain `read()`.
fn read(pipe: &mut File, subbuf_size: usize) -> Vec<Seen> {
    let mut seen = Vec::new();
    loop {
        let mut page = Page(vec![0; subbuf_size]);
        match pipe.read(&mut page.0) {
            Ok(len) => assert_eq!(len, subbuf_size),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return seen,
            Err(error) => panic!("{error}"),
        }
        let commit = PageCommit::unpack(page.u64_at(8));
        if commit.is_missed() {
            let count = commit.is_missed_stored().then(|| page.u64_at((HEADER_LEN + commit.len()) as usize));
            seen.push(Seen::Lost(count));
        }
        let mut walk = Walk::new(page.u64_at(0), commit.len());
        while let Some(record) = walk.next(&page).unwrap() {
            let at = (HEADER_LEN + record.offset) as usize;
            seen.push(payload(page.0[at..at + record.len as usize].to_vec()));
        }
    }
}

/// Whether the tracefs is the kernel's.
fn is_kernels(tracefs: &Tracefs) -> bool {
    const TRACEFS: rustix::fs::FsWord = 0x7472_6163;
    rustix::fs::statfs(tracefs.root()).unwrap().f_type == TRACEFS
}

#[test]
fn mapped_records_equal_those_of_read_byte_for_byte() {
    let Some(tracefs) = live() else { return };
    let cpu = pin_here();
    for (subbuf_kib, buffer_kib) in [(4, 16), (16, 128)] {
        let [ours, theirs] = [(); 2].map(|()| instance(&tracefs, subbuf_kib, buffer_kib));
        let mut reader = open(&ours, cpu);
        let mut pipe = File::from(theirs.open_raw(cpu).unwrap());
        let (mut number, mut records, mut known, mut unknown) = (0u32, 0, 0, 0);
        // The kernel adds "\n\0"; these lengths leave no byte of padding, whose content is chance. 214 fills 4 KiB
        // to its last byte, so that there is no room for the number of lost events.
        for (markers, lens) in [
            (0, vec![30]),
            (1, vec![30]),
            (1, vec![30]),
            (50, vec![30, 58, 202, 1002]),
            (1000, vec![30]),
            (3000, vec![30, 58, 46, 334]),
            (1, vec![30]),
            (1500, vec![214]),
            (200, vec![26]),
        ] {
            for at in 0..markers {
                let len = lens[at % lens.len()];
                let text = format!("{:<len$}", format!("marker {number}"));
                ours.write_marker(&text).unwrap();
                theirs.write_marker(&text).unwrap();
                number += 1;
            }
            let (mapped, read) = (mapped(&mut reader), read(&mut pipe, subbuf_kib as usize * 1024));
            assert_eq!(mapped.len(), read.len(), "{markers} markers of {lens:?}");
            for (ours, theirs) in mapped.iter().zip(&read) {
                // ringtap's meta-page has the number even where the sub-buffer has no room for it.
                let is_known = !is_kernels(&tracefs) && matches!(ours, Seen::Lost(Some(_)));
                assert!(ours == theirs || (is_known && *theirs == Seen::Lost(None)), "{ours:?} {theirs:?}");
            }
            for seen in mapped {
                match seen {
                    Seen::Payload(_) => records += 1,
                    Seen::Lost(Some(count)) => known += count,
                    Seen::Lost(None) => unknown += 1,
                }
            }
        }
        let stats = ours.stats(cpu).unwrap();
        assert_eq!((stats.read_events, stats.entries), (records, 0));
        assert_eq!(stats.read_events + stats.overrun, u64::from(number));
        assert!(known > 0, "{stats:?}");
        assert_eq!(
            (unknown > 0, stats.overrun > known),
            [(); 2].map(|()| subbuf_kib == 4 && is_kernels(&tracefs)).into(),
            "{stats:?}, {known} known"
        );
        drop(reader);
        drop(pipe);
        remove(ours);
        remove(theirs);
    }
}

#[test]
fn a_late_reader_begins_where_another_stopped() {
    let Some(tracefs) = live() else { return };
    let cpu = pin_here();
    let instance = instance(&tracefs, 4, 64);
    let write = |text: &str| instance.write_marker(text).unwrap();
    write("one");
    write("two");
    let mut first = open(&instance, cpu);
    assert_eq!(mapped(&mut first).len(), 2);
    write("three");
    drop(first);
    let mut second = open(&instance, cpu);
    let seen = mapped(&mut second);
    assert!(matches!(&seen[..], [Seen::Payload(bytes)] if bytes[16..].starts_with(b"three")), "{seen:?}");
    drop(second);
    remove(instance);
}

#[test]
fn a_wait_ends_for_its_reason() {
    let Some(tracefs) = live() else { return };
    let cpu = pin_here();
    let instance = instance(&tracefs, 4, 64);
    let mut reader = open(&instance, cpu);
    let start = Instant::now();
    assert_eq!(reader.wait(Some(Duration::from_millis(20))).unwrap(), Waited::TimedOut);
    assert!(start.elapsed() >= Duration::from_millis(20));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(20));
            instance.write_marker("wake up").unwrap();
        });
        assert_eq!(reader.wait(None).unwrap(), Waited::Ready);
    });
    assert!(reader.next().unwrap().is_some() && reader.next().unwrap().is_none());
    let waker = reader.waker();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(20));
            waker.wake_all().unwrap();
        });
        assert_eq!(reader.wait(None).unwrap(), Waited::Woken);
    });
    assert_eq!(reader.wait(Some(Duration::ZERO)).unwrap(), Waited::TimedOut);
    drop((reader, waker));
    remove(instance);
}

#[test]
fn kernel_and_application_share_one_timeline() {
    let Some(tracefs) = live() else { return };
    let cpu = pin_here();
    let instance = instance(&tracefs, 4, 256);
    for clock in [ClockId::Mono, ringtap::clock::cheapest()] {
        let host = Host::new(&Config { clock: Some(clock), ..Config::default() }).unwrap();
        let writer = host.writer();
        let kernel =
            Reader::open_kernel_with(instance.open_raw(cpu).unwrap(), cpu, Conversion::IDENTITY).unwrap();
        let mut merge = Merge::new([Input::from(kernel), host.reader(cpu).unwrap().into()]);
        for _ in 0..100 {
            instance.write_marker("kernel").unwrap();
            writer.write(b"application.").unwrap();
        }
        std::thread::sleep(Duration::from_millis(1));
        for at in 0..200 {
            let merged = merge.next().unwrap().expect("all is there");
            assert_eq!(merged.input, at % 2, "event {at} by {}: {merged:?}", clock.name());
        }
        assert!(merge.next().unwrap().is_none());
    }
    instance.remove().unwrap();
}

#[test]
fn what_is_no_buffer_is_refused_with_a_remedy() {
    let file = tempfile();
    let error = Reader::open_kernel(file.into(), 0, ClockId::Mono).unwrap_err();
    assert!(
        matches!(error, ReadError::Foreign(_)) && error.to_string().contains("trace_pipe_raw"),
        "{error}"
    );
    let Some(tracefs) = live() else { return };
    let readme = File::open(tracefs.root().join("README")).unwrap();
    let error = Reader::open_kernel(readme.into(), 0, ClockId::Mono).unwrap_err();
    assert!(matches!(error, ReadError::NoMapping(0)) && error.to_string().contains("6.10"), "{error}");
}

/// A memfd: a file that maps, and is no buffer.
fn tempfile() -> File {
    let file = File::from(rustix::fs::memfd_create("no buffer", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
    file.set_len(1 << 20).unwrap();
    file
}

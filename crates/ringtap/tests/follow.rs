//! Who reads whole sub-buffers, or through a connection, follows a ring that was replaced: read + lost = written.

mod cpus;

use cpus::{allowed, pin};
use ringtap::attach::{Connection, Role};
use ringtap::{Config, Cursor, Host, Item, Refused, Start, WholePage, WholePages};
use ringtap_abi::records::{Walk, Words};
use ringtap_abi::subbuf::PageCommit;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// A host, one of whose CPUs this thread is pinned to.
fn host(ring_subbufs: u32) -> (Host, u32) {
    let host = Host::new(&Config { ring_subbufs, ..Config::default() }).expect("memory");
    let cpu = allowed(&host)[0];
    pin(cpu);
    (host, cpu)
}

fn payload(index: u64) -> [u8; 24] {
    let mut payload = [0; 24];
    payload[..8].copy_from_slice(&index.to_le_bytes());
    payload
}

/// Writes events that carry their own index.
fn write(host: &Host, indices: std::ops::Range<u64>) {
    let writer = host.writer();
    indices.for_each(|index| writer.write_array(&payload(index)).expect("there is room"));
}

fn whole_pages(host: &Host, cpu: u32) -> WholePages {
    host.reader(cpu).expect("nobody else reads").into_whole_pages().expect("it is ringtap's")
}

struct Bytes<'b>(&'b [u8]);

impl Words for Bytes<'_> {
    fn word(&self, offset: u32) -> u32 {
        let at = offset as usize;
        u32::from_le_bytes(self.0[at..at + 4].try_into().expect("four bytes"))
    }
}

/// A stream whose events carry their own index, checked as it comes.
#[derive(Debug, Default)]
struct Seen {
    next: u64,
    records: u64,
    lost: u64,
    last_ticks: u64,
}

impl Seen {
    fn take(&mut self, index: u64, ticks: u64) {
        assert_eq!(index, self.next, "the event's own index: {self:?}");
        assert!(ticks >= self.last_ticks, "time goes backwards");
        self.last_ticks = ticks;
        self.next += 1;
        self.records += 1;
    }

    fn miss(&mut self, count: u64) {
        self.next += count;
        self.lost += count;
    }

    fn page(&mut self, page: &WholePage<'_>) {
        let mut bytes = Vec::new();
        page.copy_to(&mut bytes);
        assert_eq!(bytes.len(), page.size() as usize);
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let commit = PageCommit::unpack(word(8));
        if commit.is_missed() {
            assert!(commit.is_missed_stored(), "these pages have room for the number");
            self.miss(word(16 + commit.len() as usize));
        }
        let data = Bytes(&bytes[16..]);
        let mut walk = Walk::new(word(0), commit.len());
        while let Some(record) = walk.next(&data).expect("sound") {
            let at = 16 + record.offset as usize;
            self.take(word(at), record.time);
        }
    }

    /// All pages that there are.
    fn drain(&mut self, pages: &mut WholePages, is_last: bool) {
        while let Some(page) = pages.next(is_last).expect("the ring is sound") {
            self.page(&page);
        }
    }

    /// All that a cursor finds.
    fn follow(&mut self, cursor: &mut Cursor) {
        while let Some(item) = cursor.next().expect("the ring is sound") {
            match item {
                Item::Record(record) => {
                    self.take(record.payload.u64_at(0).expect("an index"), record.ticks);
                }
                Item::Lost(lost) => self.miss(lost.count.expect("ringtap knows how many")),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn whole_pages_go_on_in_the_ring_that_replaced_theirs() {
    let (host, cpu) = host(64);
    let (mut pages, mut seen) = (whole_pages(&host, cpu), Seen::default());
    write(&host, 0..1000);
    seen.drain(&mut pages, false);
    assert!((500..1000).contains(&seen.records), "the page being written is not complete: {seen:?}");
    host.set_size(Some(cpu), 128).expect("memory");
    // Retired, the old ring's last page is complete.
    seen.drain(&mut pages, false);
    assert_eq!(seen.next, 1000);
    write(&host, 1000..6000);
    seen.drain(&mut pages, false);
    assert!((5800..6000).contains(&seen.records), "{seen:?}");
    host.set_subbuf_size(16_384).expect("memory");
    write(&host, 6000..12_000);
    seen.drain(&mut pages, true);
    assert_eq!((seen.records, seen.lost), (12_000, 0));
    assert_eq!(pages.subbuf_size(), 16_384);
    let stats = host.stats(cpu).expect("it counts");
    assert_eq!((stats.read_events, stats.overrun, stats.entries), (12_000, 0, 0));
}

/// Two resizes before anything was read: the first ring is given up, but for the page that the reader has.
#[test]
fn whole_pages_tell_what_was_given_up() {
    let (host, cpu) = host(64);
    let (mut pages, mut seen) = (whole_pages(&host, cpu), Seen::default());
    write(&host, 0..100);
    seen.drain(&mut pages, false);
    assert_eq!(seen.records, 0, "handed out, and not complete");
    write(&host, 100..1000);
    host.set_size(Some(cpu), 32).expect("memory");
    write(&host, 1000..2000);
    host.set_size(Some(cpu), 48).expect("memory");
    write(&host, 2000..3000);
    seen.drain(&mut pages, true);
    assert_eq!(seen.next, 3000);
    assert_eq!((seen.records, seen.lost), (2100, 900));
    let stats = host.stats(cpu).expect("it counts");
    assert_eq!((stats.read_events, stats.overrun), (2100, 900));
}

/// The last drain may come while writers go on: nothing twice, and nothing left out.
#[test]
fn a_page_that_grows_is_lent_in_parts() {
    let (host, cpu) = host(64);
    let (mut pages, mut seen) = (whole_pages(&host, cpu), Seen::default());
    for round in 0..40 {
        write(&host, round * 17..(round + 1) * 17);
        if round % 3 == 0 {
            seen.drain(&mut pages, false);
        }
        seen.drain(&mut pages, true);
        assert_eq!((seen.records, seen.lost), ((round + 1) * 17, 0));
    }
}

#[test]
fn whole_pages_count_exactly_while_a_ring_is_resized_under_load() {
    let (host, cpu) = host(64);
    let mut pages = whole_pages(&host, cpu);
    let stop = AtomicBool::new(false);
    let (written, seen) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            pin(cpu);
            let (writer, mut index) = (host.writer(), 0);
            while !stop.load(Relaxed) {
                match writer.write_array(&payload(index)) {
                    Ok(()) => index += 1,
                    Err(Refused::Busy) => {}
                    Err(other) => panic!("{other}"),
                }
            }
            index
        });
        let reader = scope.spawn(|| {
            let mut seen = Seen::default();
            while !stop.load(Relaxed) {
                seen.drain(&mut pages, false);
            }
            seen
        });
        for round in 0..60 {
            let done = match round % 4 {
                3 => host.set_subbuf_size(4096 << (round / 4 % 3)),
                _ => host.set_size(Some(cpu), 32 + round),
            };
            done.inspect_err(|_| stop.store(true, Relaxed)).expect("memory");
        }
        stop.store(true, Relaxed);
        (writer.join().expect("it counts"), reader.join().expect("it counts"))
    });
    let mut seen = seen;
    seen.drain(&mut pages, true);
    assert_eq!(seen.next, written, "{seen:?}");
    assert_eq!(seen.records + seen.lost, written);
    let stats = host.stats(cpu).expect("it counts");
    assert_eq!((stats.read_events, stats.overrun), (seen.records, seen.lost));
}

/// A socket's path that goes with it.
struct Socket(PathBuf);

impl Socket {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("ringtap-follow-{name}-{}", std::process::id())))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn a_connections_cursors_go_on_in_the_ring_that_replaced_theirs() {
    let (host, cpu) = host(64);
    let socket = Socket::new("cursors");
    let _server = host.serve(&socket.0).expect("a socket");
    let connection = Arc::new(Connection::connect(&socket.0, Role::Reader).expect("it answers"));
    let mut old = connection.cursor(cpu, Start::Oldest).expect("it maps");
    let mut followed = Seen::default();
    write(&host, 0..1000);
    followed.follow(&mut old);
    assert_eq!(followed.records, 1000);
    host.set_size(Some(cpu), 128).expect("memory");
    write(&host, 1000..2000);
    // One that begins with the oldest event finds those of the old ring, too.
    let mut late = connection.cursor(cpu, Start::Oldest).expect("it maps");
    let mut unread = connection.cursor(cpu, Start::Unread).expect("it maps");
    let mut new = connection.cursor(cpu, Start::Newest).expect("it maps");
    write(&host, 2000..3000);
    for (cursor, seen, count) in [
        (&mut old, &mut followed, 3000),
        (&mut late, &mut Seen::default(), 3000),
        (&mut unread, &mut Seen::default(), 3000),
        (&mut new, &mut Seen { next: 2000, ..Seen::default() }, 1000),
    ] {
        seen.follow(cursor);
        assert_eq!((seen.next, seen.records, seen.lost), (3000, count, 0));
    }
    // Its events are not those of the last two, nor are its sub-buffers.
    host.set_size(None, 16).expect("memory");
    write(&host, 3000..4000);
    host.set_subbuf_size(8192).expect("memory");
    write(&host, 4000..5000);
    followed.follow(&mut old);
    assert_eq!((followed.next, followed.lost), (5000, 0), "nobody consumes: {followed:?}");
}

#[test]
fn a_connections_readers_and_cursors_count_exactly_under_load() {
    let (host, cpu) = host(64);
    let socket = Socket::new("load");
    let _server = host.serve(&socket.0).expect("a socket");
    let connection = Arc::new(Connection::connect(&socket.0, Role::Reader).expect("it answers"));
    let mut pages =
        connection.reader(cpu).expect("nobody else reads").into_whole_pages().expect("it is ringtap's");
    let mut cursor = connection.cursor(cpu, Start::Oldest).expect("it maps");
    let (mut read, mut followed) = (Seen::default(), Seen::default());
    let stop = AtomicBool::new(false);
    let written = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            pin(cpu);
            let (writer, mut index) = (host.writer(), 0);
            // The last event comes behind the last resize: it tells cursors what they missed.
            let mut is_last = false;
            while !is_last {
                let is_over = stop.load(Relaxed);
                match writer.write_array(&payload(index)) {
                    Ok(()) => (index, is_last) = (index + 1, is_over),
                    Err(Refused::Busy) => {}
                    Err(other) => panic!("{other}"),
                }
            }
            index
        });
        scope.spawn(|| {
            let watchdog = Instant::now() + Duration::from_secs(60);
            while !stop.load(Relaxed) && Instant::now() < watchdog {
                read.drain(&mut pages, false);
                followed.follow(&mut cursor);
            }
        });
        for round in 0..30 {
            let resized = host.set_size(Some(cpu), 32 + round);
            resized.inspect_err(|_| stop.store(true, Relaxed)).expect("memory");
        }
        stop.store(true, Relaxed);
        writer.join().expect("it counts")
    });
    read.drain(&mut pages, true);
    followed.follow(&mut cursor);
    assert_eq!((read.next, followed.next), (written, written));
    let stats = host.stats(cpu).expect("it counts");
    assert_eq!((stats.read_events, stats.overrun), (read.records, read.lost));
}

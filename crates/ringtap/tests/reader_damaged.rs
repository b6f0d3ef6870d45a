//! A record whose length lies: a value in the stream, after which it goes on with the next sub-buffer.

mod cpus;

use cpus::pin_here;
use ringtap::{Config, Host, Item, Start, Writer};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, PoisonError};

/// Held by a test: the memory of its buffer is found by a name that others' buffers have too.
static ONLY_HOST: Mutex<()> = Mutex::new(());

/// The memory of a CPU's buffer, open for writing as a writer's process has it.
fn memory(cpu: u32) -> File {
    let name = format!("/memfd:ringtap-cpu{cpu} (deleted)");
    let fds = std::fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().path());
    let path =
        fds.into_iter().find(|path| std::fs::read_link(path).is_ok_and(|link| link.as_os_str() == &*name));
    File::options().read(true).write(true).open(path.expect("the host's memfd")).unwrap()
}

/// 16 bytes each, so that 255 fill a page.
fn write(writer: &Writer, numbers: std::ops::Range<u64>) {
    for number in numbers {
        writer.write(&[number, !0].map(u64::to_le_bytes).concat()[..12]).unwrap();
    }
}

#[test]
fn damage_costs_the_rest_of_its_page_and_no_more() {
    let _only = ONLY_HOST.lock().unwrap_or_else(PoisonError::into_inner);
    let cpu = pin_here();
    let host = Host::new(&Config { ring_subbufs: 8, ..Config::default() }).unwrap();
    let (writer, mut reader) = (host.writer(), host.reader(cpu).unwrap());
    let mut cursor = host.cursor(cpu, Start::Oldest).unwrap();
    write(&writer, 0..300);
    let memory = memory(cpu);
    let mut word = [0; 4];
    memory.read_exact_at(&mut word, 0).unwrap();
    let meta_page_size = u64::from(u32::from_le_bytes(word));
    // The first page written is sub-buffer 1. Its 100th record is now of 4 GiB.
    let record = meta_page_size + 4096 + 16 + 99 * 16;
    memory.write_all_at(&[0, 0, 0, 0, 0xfc, 0xff, 0xff, 0xff], record).unwrap();

    let mut seen = [Vec::new(), Vec::new()];
    let mut note = |at: usize, item: Item<'_>| match item {
        Item::Record(record) => seen[at].push(record.payload.u64_at(0).unwrap()),
        Item::Damaged(damaged) => {
            assert_eq!((damaged.cpu, damaged.damage.offset, damaged.damage.room), (cpu, 99 * 16, 156 * 16));
            seen[at].push(u64::MAX);
        }
        other => panic!("{other:?}"),
    };
    while let Some(item) = reader.next().unwrap() {
        note(0, item);
    }
    while let Some(item) = cursor.next().unwrap() {
        note(1, item);
    }
    let expected: Vec<u64> = (0..99).chain([u64::MAX]).chain(255..300).collect();
    assert_eq!(seen, [expected.clone(), expected]);
    // It is not lost: the host handed it out, and the count of read events says so.
    assert_eq!(host.stats(cpu).unwrap().read_events, 300);
}

#[test]
fn what_comes_later_on_a_damaged_page_is_not_read() {
    let _only = ONLY_HOST.lock().unwrap_or_else(PoisonError::into_inner);
    let cpu = pin_here();
    let host = Host::new(&Config { ring_subbufs: 8, ..Config::default() }).unwrap();
    let (writer, mut reader) = (host.writer(), host.reader(cpu).unwrap());
    write(&writer, 0..10);
    let memory = memory(cpu);
    let mut word = [0; 4];
    memory.read_exact_at(&mut word, 0).unwrap();
    let record = u64::from(u32::from_le_bytes(word)) + 4096 + 16 + 5 * 16;
    memory.write_all_at(&[0, 0, 0, 0, 3, 0, 0, 0], record).unwrap();
    let mut count = || {
        let (mut records, mut damaged) = (0, 0);
        while let Some(item) = reader.next().unwrap() {
            match item {
                Item::Record(_) => records += 1,
                Item::Damaged(_) => damaged += 1,
                other => panic!("{other:?}"),
            }
        }
        (records, damaged)
    };
    assert_eq!(count(), (5, 1));
    write(&writer, 10..20);
    assert_eq!(count(), (0, 0), "their times could not be known");
    write(&writer, 20..300);
    assert_eq!(count(), (45, 0));
}

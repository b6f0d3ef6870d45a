//! The largest ring: 65,535 sub-buffers, gone round.

mod cpus;

use cpus::pin;
use ringtap::{Config, Host, Item};

const PAYLOAD: [u8; 24] = [7; 24];

#[test]
fn the_largest_ring_goes_round_and_counts_each_event() {
    let host = Host::new(&Config { ring_subbufs: 65_535, ..Config::default() })
        .expect("256 MiB for a CPU that writes");
    let cpu = host.cpus()[0];
    pin(cpu);
    let writer = host.writer();
    let mut written = 0;
    // A page takes 145 of them, so that this is a little more than a lap.
    for _ in 0..65_535 * 145 + 100_000 {
        written += u64::from(writer.write(&PAYLOAD).is_ok());
    }
    let overrun = host.stats(cpu).expect("it counts").overrun;
    assert!(overrun > 0, "it went round");
    let (mut read, mut lost) = (0, 0);
    let mut readers = host.readers().expect("nobody else reads");
    while let Some(item) = readers[cpu as usize].next().expect("the ring is sound") {
        match item {
            Item::Record(_) => read += 1,
            Item::Lost(of) => lost += of.count.expect("it is known"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((read + lost, lost), (written, overrun));
}

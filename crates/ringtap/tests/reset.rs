//! Emptying an instance: as the kernel does it, while writers go on, and where the host may not run.

use ringtap::{Config, Host, HostError, Item, Mode, Refused, WriterKind};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

const PAYLOAD: [u8; 24] = [7; 24];

/// Sets a flag when it is dropped.
struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

fn written(host: &Host) -> u64 {
    host.cpus().into_iter().map(|cpu| host.stats(cpu).expect("it counts").written()).sum()
}

fn read(host: &Host) -> u64 {
    let mut events = 0;
    for mut reader in host.readers().expect("nobody else reads") {
        while let Some(item) = reader.next().expect("the ring is sound") {
            events += u64::from(matches!(item, Item::Record(_)));
        }
    }
    events
}

#[test]
fn a_reset_empties_every_buffer_and_counts_anew() {
    for writer in [None, Some(WriterKind::Locked)] {
        for mode in [Mode::Overwrite, Mode::Discard] {
            let config = Config { ring_subbufs: 4, mode, writer, ..Config::default() };
            let host = Host::new(&config).expect("memory");
            let writer = host.writer();
            for round in 0..5 {
                // More than the ring holds: overruns or drops are counted, and forgotten.
                for _ in 0..10_000 {
                    let _ = writer.write(&PAYLOAD);
                }
                host.reset().expect("it can be emptied");
                assert_eq!(written(&host), 0, "{mode:?}, round {round}");
                for cpu in host.cpus() {
                    let stats = host.stats(cpu).expect("it counts");
                    assert_eq!(
                        (stats.overrun, stats.dropped_events, stats.read_events, stats.bytes),
                        (0, 0, 0, 0)
                    );
                }
                for _ in 0..100 {
                    writer.write(&PAYLOAD).expect("an empty ring takes events");
                }
                assert_eq!(written(&host), 100);
                assert_eq!(read(&host), 100, "{mode:?}, round {round}");
            }
        }
    }
}

#[test]
fn resets_while_writers_go_on_lose_nothing_afterwards() {
    let host = Host::new(&Config { ring_subbufs: 8, ..Config::default() }).expect("memory");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Also where this thread panics: the scope waits for the others.
        let _stop = SetAtEnd(&stop);
        for _ in 0..3 {
            scope.spawn(|| {
                let writer = host.writer();
                while !stop.load(Relaxed) {
                    // Writers that share a lock may find it taken for too long.
                    assert!(matches!(writer.write(&PAYLOAD), Ok(()) | Err(Refused::Busy)));
                }
            });
        }
        for _ in 0..40 {
            // A lock that three writers share may be taken each time that it is asked for.
            while let Err(error) = host.reset() {
                assert!(matches!(error, HostError::Busy(_)), "{error}");
            }
            read(&host);
        }
    });
    host.reset().expect("nobody writes");
    assert_eq!((written(&host), read(&host)), (0, 0));
}

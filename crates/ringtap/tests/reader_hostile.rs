//! Hostile memory: while host, writer, reader and cursor run, another mapping of the same memory is scribbled on.
//!
//! Nobody panics, hangs or reads out of bounds (which would end this process). `RINGTAP_SEED` replays a run,
//! `RINGTAP_SECONDS` makes it longer.

mod cpus;

use cpus::pin;
use ringtap::{Config, Host, Item, Merge, Mode, Start};
use rustix::mm::{MapFlags, ProtFlags};
use std::fs::File;
use std::hint::black_box;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// Xorshift: enough chance for a scribbler, and the same from the same seed.
#[derive(Clone, Copy)]
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }
}

/// The memory of a CPU's buffer, mapped once more for writing, as a process that may write can do.
fn scribbled(cpu: u32) -> &'static [AtomicU64] {
    let name = format!("/memfd:ringtap-cpu{cpu} (deleted)");
    let fds = std::fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().path());
    let path =
        fds.into_iter().find(|path| std::fs::read_link(path).is_ok_and(|link| link.as_os_str() == &*name));
    // Its mode allows root, and nobody but its owner, to open it again.
    let file = File::options().read(true).write(true).open(path.expect("the host's memfd")).unwrap();
    let len = usize::try_from(file.metadata().unwrap().len()).unwrap();
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping at a place of the kernel's choice touches nothing that exists.
    let start =
        unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, protection, MapFlags::SHARED, &file, 0) };
    // SAFETY: page-aligned, this long, never unmapped, and used as atomics alone.
    unsafe { std::slice::from_raw_parts(start.unwrap().cast(), len / 8) }
}

/// Scribbles one word somewhere, more often where it hurts.
fn scribble(memory: &[AtomicU64], meta_words: usize, chance: &mut Chance) {
    let at = match chance.below(4) {
        // The kernel's fields, the words of writers and host.
        0 => chance.below(64),
        // Slots and descs.
        1 => 64 + chance.below(32),
        2 => chance.below(meta_words),
        // Headers and records.
        _ => meta_words + chance.below(memory.len() - meta_words),
    };
    let word = &memory[at];
    let old = word.load(Relaxed);
    let new = match chance.below(6) {
        0 => chance.next(),
        1 => u64::MAX,
        2 => chance.next() & 0xffff,
        3 => old ^ 1 << chance.below(64),
        4 => old.wrapping_add(1 << chance.below(64)),
        _ => memory[chance.below(memory.len())].load(Relaxed),
    };
    word.store(new, Relaxed);
}

fn use_item(item: Item<'_>) {
    if let Item::Record(record) = item {
        let payload = record.payload;
        black_box((
            record.ns(),
            payload.u64_at(0),
            payload.u16_at(payload.len().wrapping_sub(2)),
            payload.to_vec(),
        ));
    } else {
        black_box(item);
    }
}

/// Runs one actor until the time is over; it counts its rounds.
fn act(until: Instant, rounds: &AtomicU64, mut round: impl FnMut()) {
    while Instant::now() < until {
        round();
        rounds.fetch_add(1, Relaxed);
    }
}

fn torment(host: &Host, cpu: u32, seed: u64, time: Duration) {
    let memory = scribbled(cpu);
    // The meta-page's size, before it is scribbled on.
    let meta_words = (memory[0].load(Relaxed) & 0xffff_ffff) as usize / 8;
    let pristine: Vec<u64> = memory.iter().map(|word| word.load(Relaxed)).collect();
    let until = Instant::now() + time;
    let rounds: [AtomicU64; 6] = Default::default();
    let nap = Some(Duration::from_millis(2));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut chance = Chance(seed);
            act(until, &rounds[0], || {
                for _ in 0..chance.below(20) {
                    scribble(memory, meta_words, &mut chance);
                }
                // Now and then all is well again, so that everybody gets past the first check.
                if chance.below(50) == 0 {
                    for (word, &was) in memory.iter().zip(&pristine) {
                        word.store(was, Relaxed);
                    }
                    std::thread::sleep(Duration::from_micros(200));
                }
            });
        });
        scope.spawn(|| {
            let (writer, mut chance) = (host.writer(), Chance(!seed));
            // It writes into the buffer that is scribbled on.
            pin(cpu);
            act(until, &rounds[1], || {
                for _ in 0..50 {
                    let len = if chance.below(20) == 0 { chance.below(5000) } else { chance.below(64) };
                    let _ = writer.write(&vec![7; len]);
                }
            });
        });
        scope.spawn(|| {
            let mut reader = host.reader(cpu).ok();
            act(until, &rounds[2], || {
                let Some(open) = &mut reader else {
                    reader = host.reader(cpu).ok();
                    return;
                };
                for _ in 0..10_000 {
                    match open.next() {
                        Ok(Some(item)) => use_item(item),
                        Ok(None) => break,
                        Err(error) => {
                            black_box(error.to_string());
                            break;
                        }
                    }
                }
                let _ = open.wait(nap);
                if rounds[2].load(Relaxed).is_multiple_of(16) {
                    reader = None;
                }
            });
        });
        scope.spawn(|| {
            let mut chance = Chance(seed.rotate_left(32));
            let mut cursor = None;
            act(until, &rounds[3], || {
                let start = if chance.below(2) == 0 { Start::Oldest } else { Start::Newest };
                let Some(open) = &mut cursor else {
                    cursor = host.cursor(cpu, start).ok();
                    return;
                };
                for _ in 0..10_000 {
                    match open.next() {
                        Ok(Some(item)) => use_item(item),
                        Ok(None) => break,
                        Err(error) => {
                            black_box(error.to_string());
                            break;
                        }
                    }
                }
                if chance.below(16) == 0 {
                    cursor = None;
                }
            });
        });
        scope.spawn(|| {
            act(until, &rounds[4], || {
                let Ok(cursor) = host.cursor(cpu, Start::Oldest) else { return };
                let mut merge = Merge::new([cursor]);
                for _ in 0..1000 {
                    let Ok(Some(merged)) = merge.next() else { break };
                    use_item(merged.item);
                }
                let _ = merge.wait(nap);
            });
        });
        scope.spawn(|| {
            act(until, &rounds[5], || {
                black_box((host.stats(cpu).is_ok(), host.get_reader(cpu).is_ok()));
                black_box((
                    host.wait(cpu, 50, nap).is_ok(),
                    host.reset().is_ok(),
                    host.wake_all(cpu).is_ok(),
                ));
            });
        });
        // Everybody moves on, all the time.
        let mut before = [0; 6];
        while Instant::now() + Duration::from_millis(1500) < until {
            std::thread::sleep(Duration::from_secs(1));
            let now = [0, 1, 2, 3, 4, 5].map(|at| rounds[at].load(Relaxed));
            let stuck: Vec<_> = (0..6).filter(|&at| now[at] == before[at]).collect();
            if !stuck.is_empty() {
                // The scope would wait for them for ever.
                eprintln!("seed {seed}: actors {stuck:?} are stuck after {now:?} rounds");
                std::process::abort();
            }
            before = now;
        }
    });
    println!("seed {seed}: rounds {rounds:?}");
}

#[test]
fn nobody_panics_hangs_or_reads_out_of_bounds() {
    let number = |name| std::env::var(name).ok().and_then(|text: String| text.parse::<u64>().ok());
    let clock = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_micros();
    let seed = number("RINGTAP_SEED").unwrap_or(u64::try_from(clock).unwrap()) | 1;
    let time = Duration::from_secs(number("RINGTAP_SECONDS").unwrap_or(6)) / 2;
    println!("RINGTAP_SEED={seed}");
    let cpu = rustix::thread::sched_getcpu();
    for (ring_subbufs, mode) in [(2, Mode::Overwrite), (5, Mode::Discard)] {
        let host = Host::new(&Config { ring_subbufs, mode, buffer_percent: 0, ..Config::default() }).unwrap();
        torment(&host, u32::try_from(cpu).unwrap(), seed, time);
    }
}

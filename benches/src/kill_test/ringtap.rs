//! ringtap's part of the kill test: processes that attach to a host's socket, and a consuming reader that follows
//! the ring meanwhile.
//!
//! The reader checks each event. Between two events of the healthy process that it reads, no more of them may be
//! missing than the reader was told were overwritten there, and the writer was told were refused.

use super::{Account, HEALTHY, Subject};
use crate::PAYLOAD_LEN;
use crate::cpu::{self, monotonic_ns, thread_cpu_ns};
use crate::guest::{self, Role};
use crate::worker::{self, Worker};
use anyhow::{Context as _, bail, ensure};
use ringtap::serve::Server;
use ringtap::{Config, Host, Item, Reader, Record, Refused, Writer, WriterKind, attach};
use rustix::process::{Signal, set_parent_process_death_signal};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// CPU time that no single write of the healthy process may take. An event takes some nanoseconds and the kernel's
/// interrupts some microseconds; a writer that spins until somebody else lets go burns whole slices.
const LONGEST_WRITE: Duration = Duration::from_millis(20);
/// Pause of the reader that has read everything.
const PAUSE: Duration = Duration::from_micros(200);
/// How long a writer may take until its first event is read.
const WRITES_WITHIN: Duration = Duration::from_secs(30);

/// What the healthy process saw of its own writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Events that it tried to write.
    pub tried: u64,
    /// Events that the ring refused because another writer had stopped in the middle of its own.
    pub busy: u64,
    /// Events refused for any other reason.
    pub refused: u64,
    /// The longest write in nanoseconds of the wall's clock, which runs on while others have the CPU.
    pub longest_wall_ns: u64,
    /// The longest write in nanoseconds of CPU time.
    pub longest_cpu_ns: u64,
    /// How often it gave up the CPU by itself, to wait, while it wrote.
    pub waits: u64,
}

/// What the reader and the host's counters say about the whole test.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exact {
    /// Events of all processes in the ring, by the host's counter.
    pub written: u64,
    /// Events read.
    pub read: u64,
    /// Events that the reader was told were overwritten.
    pub lost: u64,
    /// Events refused by the host's counter, of all processes.
    pub refused: u64,
    /// Events read of the healthy process.
    pub healthy_read: u64,
    /// Its events that were neither read, nor can be among those overwritten there, nor were refused.
    pub unaccounted: u64,
    /// The same of the killed writers, of what they wrote before the last event read of them.
    pub victims_unaccounted: u64,
    /// Killed writers of which an event was read.
    pub victims_read: u64,
    /// Events read that nobody wrote like this.
    pub torn: u64,
    /// Events read behind one that their writer wrote later.
    pub disordered: u64,
    /// What the healthy process saw.
    pub tally: Tally,
}

impl Exact {
    /// The promises that were not kept, in words.
    #[must_use]
    pub fn broken(&self, kind: WriterKind) -> Vec<String> {
        let Self { written, read, lost, unaccounted, victims_unaccounted, torn, disordered, tally, .. } =
            self;
        let mut broken = Vec::new();
        let mut promise = |kept: bool, what: String| broken.extend((!kept).then_some(what));
        promise(read + lost == *written, format!("{read} read and {lost} lost are not {written} written"));
        promise(*unaccounted == 0, format!("{unaccounted} events of the healthy process unaccounted for"));
        let victims = format!("{victims_unaccounted} events of killed writers unaccounted for");
        promise(*victims_unaccounted == 0, victims);
        promise(*torn == 0, format!("{torn} events torn"));
        promise(*disordered == 0, format!("{disordered} events out of order"));
        promise(tally.refused == 0, format!("{} events refused", tally.refused));
        // Whoever is preempted holds a lock on, so that only without one nobody is ever refused.
        let is_free = kind == WriterKind::Locked || tally.busy == 0;
        promise(is_free, format!("{} events refused as busy", tally.busy));
        promise(tally.waits == 0, format!("the healthy process waited {} times", tally.waits));
        let longest = Duration::from_nanos(tally.longest_cpu_ns);
        promise(longest <= LONGEST_WRITE, format!("one write took {longest:?} of CPU time"));
        broken
    }
}

impl fmt::Display for Exact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { written, read, lost, refused, healthy_read, torn, disordered, tally, .. } = self;
        let (wall, cpu) = (tally.longest_wall_ns / 1000, tally.longest_cpu_ns / 1000);
        let facts = [
            (
                "ring, all processes",
                format!("{written} written = {read} read + {lost} lost; {refused} refused"),
            ),
            ("torn, out of order", format!("{torn}, {disordered}")),
            ("healthy process, in all", format!("{} tried, {healthy_read} read", tally.tried)),
            ("refused to it", format!("{} as busy, {} otherwise", tally.busy, tally.refused)),
            ("its longest write", format!("{wall} us by the clock, {cpu} us of CPU time")),
            ("it waited", format!("{} times", tally.waits)),
            ("killed writers in trace", self.victims_read.to_string()),
        ];
        facts.iter().try_for_each(|(what, figure)| writeln!(f, "  {what:<26} {figure}"))
    }
}

/// ringtap under test.
#[derive(Debug)]
pub struct Ringtap {
    kind: WriterKind,
    cpu: u32,
    host: Host,
    server: Server,
    tally: PathBuf,
    /// The newest killed writer of which an event was read.
    newest: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    following: Option<JoinHandle<anyhow::Result<Followed>>>,
}

impl Ringtap {
    /// An instance whose writers share `cpu`, and exclude each other in this way.
    ///
    /// # Errors
    /// When it cannot be made or served.
    pub fn new(cpu: usize, kind: WriterKind) -> anyhow::Result<Self> {
        let config = Config { writer: Some(kind), ..Config::default() };
        let host = Host::new(&config).context("cannot make an instance")?;
        let place = std::env::temp_dir().join(format!("ringtap-kill-test-{}", std::process::id()));
        let server = host.serve(place.with_extension("sock"))?;
        let cpu = u32::try_from(cpu)?;
        let mut reader = host.reader(cpu)?;
        let (newest, over) = <(Arc<AtomicU64>, Arc<AtomicBool>)>::default();
        let (tells, ends) = (Arc::clone(&newest), Arc::clone(&over));
        let following = Some(thread::spawn(move || {
            // Where there is but one CPU, it shares that one.
            let _ = cpu::avoid(cpu as usize);
            follow(&mut reader, &tells, &ends)
        }));
        Ok(Self { kind, cpu, host, server, tally: place.with_extension("json"), newest, over, following })
    }
}

impl Subject for Ringtap {
    fn name(&self) -> String {
        let kind = match self.kind {
            WriterKind::Rseq => "restartable sequences",
            WriterKind::Locked => "writers that take a lock",
        };
        format!("ringtap, processes attached to a host, {kind}, a consuming reader")
    }

    fn writer(&mut self, cpu: usize, id: u64) -> anyhow::Result<Worker> {
        let tally = (id == HEALTHY).then(|| self.tally.clone());
        let role = Role::RingtapKillWriter { socket: self.server.path().into(), cpu, id, tally };
        Worker::spawn(format!("ringtap writer {id}"), &mut guest::command(&role)?)
    }

    fn await_event(&mut self, id: u64) -> anyhow::Result<bool> {
        let end = Instant::now() + WRITES_WITHIN;
        // Relaxed: nothing else is published with the number.
        while self.newest.load(Relaxed) != id {
            ensure!(Instant::now() < end, "no event of writer {id} was read within {WRITES_WITHIN:?}");
            thread::sleep(PAUSE / 4);
        }
        Ok(true)
    }

    fn account(&mut self, _id: u64, numbers: &Range<u64>) -> anyhow::Result<Account> {
        self.over.store(true, Relaxed);
        let following = self.following.take().context("the account is asked for once")?;
        let followed = following.join().expect("the reader's thread does not panic")?;
        let tally = std::fs::read(&self.tally).context("the healthy process left no tally")?;
        std::fs::remove_file(&self.tally)?;
        let tally: Tally = serde_json::from_slice(&tally)?;
        for cpu in self.host.cpus().into_iter().filter(|&cpu| cpu != self.cpu) {
            ensure!(self.host.stats(cpu)?.written() == 0, "somebody wrote on CPU {cpu}");
        }
        let stats = self.host.stats(self.cpu)?;
        let refused = stats.commit_overrun + stats.dropped_events;
        let healthy = &followed.healthy;
        let exact = Exact {
            written: stats.written(),
            read: followed.read,
            lost: followed.lost,
            refused,
            healthy_read: healthy.read_in(&(0..u64::MAX)),
            unaccounted: (healthy.missing + healthy.missing_before(tally.tried, followed.lost))
                .saturating_sub(tally.busy + tally.refused),
            victims_unaccounted: followed.victims.missing.saturating_sub(refused),
            victims_read: followed.victims_read,
            torn: followed.torn,
            disordered: followed.disordered,
            tally,
        };
        Ok(Account {
            recorded: healthy.read_in(numbers),
            recorded_earlier: healthy.read_in(&(0..numbers.start)),
            lost_events: followed.lost,
            exact: Some(exact),
            ..Account::default()
        })
    }
}

/// What the reader found.
#[derive(Debug, Default)]
struct Followed {
    read: u64,
    lost: u64,
    torn: u64,
    disordered: u64,
    victims_read: u64,
    healthy: Numbers,
    /// Of the killed writers, the newest one's.
    victims: Numbers,
    newest: u64,
}

/// The numbers of one writer's events, as far as they were read.
#[derive(Debug, Default)]
struct Numbers {
    /// Runs without a gap.
    runs: Vec<Range<u64>>,
    /// Events lost, of all processes, when the last of these was read.
    lost: u64,
    /// Numbers that are missing beyond the losses between their neighbours.
    missing: u64,
}

impl Numbers {
    /// The number that follows.
    fn next(&self) -> u64 {
        self.runs.last().map_or(0, |run| run.end)
    }

    /// How many up to `number` are missing beyond those that were lost since the last one.
    fn missing_before(&self, number: u64, lost: u64) -> u64 {
        number.saturating_sub(self.next()).saturating_sub(lost - self.lost)
    }

    /// Takes the next number; `false` when it was read, or passed, before.
    fn take(&mut self, number: u64, lost: u64) -> bool {
        let next = self.next();
        if number < next {
            return false;
        }
        self.missing += self.missing_before(number, lost);
        self.lost = lost;
        match self.runs.last_mut() {
            Some(run) if number == next => run.end += 1,
            _ => self.runs.push(number..number + 1),
        }
        true
    }

    fn read_in(&self, numbers: &Range<u64>) -> u64 {
        let common = |run: &Range<u64>| run.end.min(numbers.end).saturating_sub(run.start.max(numbers.start));
        self.runs.iter().map(common).sum()
    }
}

impl Followed {
    fn take(&mut self, record: &Record<'_>) {
        self.read += 1;
        let Some((writer, number)) = event_of(record) else {
            self.torn += 1;
            return;
        };
        let in_order = if writer == HEALTHY {
            self.healthy.take(number, self.lost)
        } else {
            if writer > self.newest {
                self.newest = writer;
                self.victims_read += 1;
                self.victims.runs.clear();
            }
            writer == self.newest && self.victims.take(number, self.lost)
        };
        self.disordered += u64::from(!in_order);
    }
}

/// Reads the ring, with a look each [`PAUSE`] where there is nothing new, until it is `over` and all is read.
fn follow(reader: &mut Reader, newest: &AtomicU64, over: &AtomicBool) -> anyhow::Result<Followed> {
    let mut followed = Followed::default();
    loop {
        // Asked before the last look: nobody writes any more then.
        let ends = over.load(Relaxed);
        while let Some(item) = reader.next()? {
            match item {
                Item::Record(record) => followed.take(&record),
                Item::Lost(lost) => {
                    followed.lost += lost.count.context("a ringtap buffer counts its losses")?
                }
                _ => bail!("the ring is damaged: {item:?}"),
            }
            newest.store(followed.newest, Relaxed);
        }
        if ends {
            return Ok(followed);
        }
        thread::sleep(PAUSE);
    }
}

/// The payload of a writer's event: its id, the number, and both combined, which shows a torn event.
fn payload_of(writer: u64, number: u64) -> [u8; PAYLOAD_LEN] {
    let mut payload = [0; PAYLOAD_LEN];
    payload[..8].copy_from_slice(&writer.to_le_bytes());
    payload[8..16].copy_from_slice(&number.to_le_bytes());
    payload[16..].copy_from_slice(&(writer ^ number).to_le_bytes());
    payload
}

/// Writer and number of an event; `None` when it is not as its writer made it.
fn event_of(record: &Record<'_>) -> Option<(u64, u64)> {
    let payload = record.payload;
    let (writer, number) = (payload.u64_at(0)?, payload.u64_at(8)?);
    let is_whole = payload.len() == PAYLOAD_LEN && payload.u64_at(16)? == writer ^ number;
    is_whole.then_some((writer, number))
}

/// A writer's process. With a path for its tally it is the healthy one, which watches its own writes.
///
/// # Errors
/// When it cannot attach.
pub fn serve_writer(socket: &Path, cpu: usize, id: u64, tally: Option<&Path>) -> anyhow::Result<()> {
    // A writer that is asked for events without an end never sees the end of its stdin.
    set_parent_process_death_signal(Some(Signal::KILL)).context("cannot ask to end with the parent")?;
    // One that had gone before serves no socket any more.
    let writer = attach::writer(socket)?;
    cpu::pin(cpu)?;
    let Some(path) = tally else {
        return worker::serve(|iterations| {
            for number in 0..iterations {
                // What is refused is counted by the host.
                let _ = writer.write_array(&payload_of(id, number));
            }
            Ok(())
        });
    };
    let mut tally = Tally::default();
    worker::serve(|iterations| write_watched(&writer, id, iterations, &mut tally))?;
    std::fs::write(path, serde_json::to_vec(&tally)?).context("cannot leave the tally")
}

/// Writes as often as told, and notes what became of it.
fn write_watched(writer: &Writer, id: u64, iterations: u64, tally: &mut Tally) -> anyhow::Result<()> {
    let waits = voluntary_switches()?;
    let (mut wall, mut cpu) = (monotonic_ns(), thread_cpu_ns());
    for number in tally.tried..tally.tried + iterations {
        match writer.write_array(&payload_of(id, number)) {
            Ok(()) => {}
            Err(Refused::Busy) => tally.busy += 1,
            Err(_) => tally.refused += 1,
        }
        let (wall_now, cpu_now) = (monotonic_ns(), thread_cpu_ns());
        tally.longest_wall_ns = tally.longest_wall_ns.max(wall_now - wall);
        tally.longest_cpu_ns = tally.longest_cpu_ns.max(cpu_now - cpu);
        (wall, cpu) = (wall_now, cpu_now);
    }
    tally.tried += iterations;
    tally.waits += voluntary_switches()? - waits;
    Ok(())
}

/// How often this thread has given up the CPU to wait for something.
fn voluntary_switches() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/thread-self/status").context("is /proc mounted?")?;
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.and_then(|count| count.trim().parse().ok()).context("the kernel does not count switches")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_may_be_missing_only_where_events_were_lost() {
        let mut numbers = Numbers::default();
        assert!(numbers.take(0, 0) && numbers.take(1, 0));
        assert!(numbers.take(5, 3) && numbers.missing == 0, "2, 3 and 4 were overwritten");
        assert!(numbers.take(9, 4) && numbers.missing == 2, "one loss cannot explain three missing numbers");
        assert!(!numbers.take(9, 4) && !numbers.take(3, 4));
        assert_eq!(numbers.missing_before(20, 9), 5);
        assert_eq!((numbers.read_in(&(0..u64::MAX)), numbers.read_in(&(1..6))), (4, 2));
    }

    #[test]
    fn each_broken_promise_is_told() {
        let kept = Exact { written: 10, read: 7, lost: 3, ..Exact::default() };
        assert_eq!(kept.broken(WriterKind::Rseq), Vec::<String>::new());
        let busy = Tally { busy: 1, ..Tally::default() };
        assert!(Exact { tally: busy, ..kept }.broken(WriterKind::Locked).is_empty());
        let waited = Tally { waits: 1, ..Tally::default() };
        let slow = Tally { longest_cpu_ns: 21_000_000, ..Tally::default() };
        let unkept = [
            Exact { lost: 2, ..kept },
            Exact { unaccounted: 1, ..kept },
            Exact { victims_unaccounted: 1, ..kept },
            Exact { torn: 1, ..kept },
            Exact { disordered: 1, ..kept },
            Exact { tally: busy, ..kept },
            Exact { tally: waited, ..kept },
            Exact { tally: slow, ..kept },
            Exact { tally: Tally { refused: 1, ..Tally::default() }, ..kept },
        ];
        for exact in unkept {
            assert_eq!(exact.broken(WriterKind::Rseq).len(), 1, "{exact:?}");
        }
    }

    #[test]
    fn a_thread_that_sleeps_has_waited() {
        let before = voluntary_switches().unwrap();
        thread::sleep(Duration::from_millis(2));
        assert!(voluntary_switches().unwrap() > before);
    }
}

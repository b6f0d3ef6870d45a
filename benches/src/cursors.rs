//! What cursors that follow live cost the writer.

use crate::cpu;
use crate::rotation::{Contender, Sample, timed};
use anyhow::{Context as _, ensure};
use ringtap::{Config, Cursor, Host, Start, Writer};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Barrier};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a round must be for all cursors to take part, who share the other CPUs.
pub const SLICE: Duration = Duration::from_millis(100);

/// Longest wait of a cursor that has read everything.
const LOOK: Duration = Duration::from_millis(1);

/// Items that a cursor reads before it lets the next one look.
const TURN: u32 = 10_000;

/// A writer in a tight loop, while this many cursors follow on the other CPUs.
#[derive(Debug)]
pub struct Followed {
    name: String,
    writer: Writer,
    followers: Vec<Follower>,
    _host: Host,
}

/// A thread with one cursor, which follows while it is told to.
#[derive(Debug)]
struct Follower {
    follows: Arc<AtomicBool>,
    ends: Arc<AtomicBool>,
    /// Looks at the ring that found something.
    looks: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Followed {
    /// A writer on `cpu`, to which this thread is pinned.
    ///
    /// # Errors
    /// When the memory or the threads cannot be had.
    pub fn new(cursors: usize, cpu: u32) -> anyhow::Result<Self> {
        let host = Host::new(&Config::default())?;
        let writer = host.writer();
        let start = Arc::new(Barrier::new(cursors + 1));
        let follower = |_| Follower::new(host.cursor(cpu, Start::Newest)?, cpu, Arc::clone(&start));
        let followers = (0..cursors).map(follower).collect::<anyhow::Result<_>>()?;
        start.wait();
        Ok(Self {
            name: format!("event written, {cursors} cursors following"),
            writer,
            followers,
            _host: host,
        })
    }

    fn follow(&self, follows: bool) {
        for follower in &self.followers {
            follower.follows.store(follows, Relaxed);
            if let Some(thread) = &follower.thread {
                thread.thread().unpark();
            }
        }
    }
}

impl Contender for Followed {
    fn name(&self) -> &str {
        &self.name
    }

    fn run(&mut self, iterations: u64) -> anyhow::Result<Sample> {
        self.follow(true);
        let mut written = Ok(());
        let sample = timed(|| {
            for number in 0..iterations {
                let mut event = [0; 24];
                event[16..].copy_from_slice(&number.to_le_bytes());
                written = written.and(self.writer.write_array(&event));
            }
        });
        self.follow(false);
        written?;
        // A short round may end before each has had its turn; the long ones that count must not.
        if Duration::from_nanos(sample.wall_ns) > SLICE / 2 {
            let idle = self.followers.iter().filter(|follower| follower.looks.swap(0, Relaxed) == 0).count();
            ensure!(
                idle * 10 <= self.followers.len(),
                "{idle} of {} cursors saw nothing",
                self.followers.len()
            );
        }
        Ok(sample)
    }
}

impl Follower {
    fn new(mut cursor: Cursor, writers_cpu: u32, start: Arc<Barrier>) -> anyhow::Result<Self> {
        let (follows, ends) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let looks = Arc::new(AtomicU64::new(0));
        let told = (Arc::clone(&follows), Arc::clone(&ends), Arc::clone(&looks));
        let thread = std::thread::Builder::new().name("cursor".into()).spawn(move || {
            let _ = cpu::avoid(writers_cpu as usize);
            start.wait();
            while !told.1.load(Relaxed) {
                if !told.0.load(Relaxed) {
                    std::thread::park_timeout(Duration::from_millis(100));
                    continue;
                }
                let mut items = 0u32;
                while told.0.load(Relaxed) && items < TURN && cursor.next().is_ok_and(|item| item.is_some()) {
                    items += 1;
                }
                told.2.fetch_add(u64::from(items > 0), Relaxed);
                let _ = cursor.wait(Some(LOOK));
            }
        });
        Ok(Self { follows, ends, looks, thread: Some(thread.context("failed to start a cursor's thread")?) })
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.ends.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

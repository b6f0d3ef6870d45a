//! Requests in quick succession, during which idle CPUs are kept awake.
//!
//! A request wakes a thread of ours, and its answer wakes the client. Each is most likely on a CPU that has nothing else to do
//! and halts; to leave that takes some 50 us in a virtual machine, which is ten times what a request takes otherwise.
//! `/dev/cpu_dma_latency` is where a program tells the kernel that it cannot wait so long: idle CPUs look out for work then
//! instead of halting. This is asked for while a client sends one request right after the other, as one does who reads the
//! whole tree, and for no single request. When this process ends, by whatever cause, it no longer holds.

#![forbid(unsafe_code)]

use rustix::event::Timespec;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::time::{Duration, Instant};
use zerocopy::IntoBytes as _;

/// A request is a single one if it comes later than this behind the answer to the one before.
const QUICK: Duration = Duration::from_micros(250);
/// Requests that come quickly one after the other, before CPUs are kept awake for those to come.
const MANY: u32 = 8;
/// How long they are kept awake for one that does not come. Less than a tick of the kernel's would cost a timer for each
/// request.
const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };

/// Microseconds that leaving a CPU's halt may take: none.
const AT_ONCE: i32 = 0;
/// As many as it likes: the kernel's `PM_QOS_CPU_LATENCY_DEFAULT_VALUE`.
const ANY: i32 = 2_000_000_000;

/// What is known of the requests that came last.
#[derive(Debug)]
pub(in crate::fs) struct Burst {
    /// Root's file. Without it, CPUs halt as they like, and requests take as long as they do.
    latency: Option<File>,
    answered: Instant,
    in_a_row: u32,
}

impl Default for Burst {
    fn default() -> Self {
        let latency = OpenOptions::new().write(true).open("/dev/cpu_dma_latency").ok();
        Self { latency, answered: Instant::now(), in_a_row: 0 }
    }
}

impl Burst {
    /// How long to wait for the next request, before this is at its [end](Self::end); `None`: for ever.
    pub(super) fn patience(&self) -> Option<&'static Timespec> {
        self.is_on().then_some(&PATIENCE)
    }

    fn is_on(&self) -> bool {
        self.in_a_row >= MANY
    }

    /// One can be received.
    pub(super) fn request_came(&mut self, now: Instant) {
        if now - self.answered > QUICK {
            return self.end();
        }
        self.in_a_row = self.in_a_row.saturating_add(1);
        if self.in_a_row == MANY {
            self.ask(AT_ONCE);
        }
    }

    /// It was answered, or another thread is to do that.
    pub(super) fn request_done(&mut self, now: Instant) {
        self.answered = now;
    }

    /// No request has come for long.
    pub(super) fn end(&mut self) {
        if self.is_on() {
            self.ask(ANY);
        }
        self.in_a_row = 0;
    }

    fn ask(&mut self, longest_us: i32) {
        if let Some(latency) = &mut self.latency {
            // Where it is refused, nothing has changed.
            let _ = latency.write_all(longest_us.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, memfd_create};
    use std::io::{Read as _, Seek as _};

    #[test]
    fn cpus_are_kept_awake_by_quick_requests_alone() {
        let mut file = File::from(memfd_create("ringtap-latency", MemfdFlags::CLOEXEC).unwrap());
        let mut now = Instant::now();
        let latency = Some(file.try_clone().unwrap());
        let mut burst = Burst { latency, answered: now, in_a_row: 0 };
        let mut request = |burst: &mut Burst, behind: Duration| {
            now += behind;
            burst.request_came(now);
            now += 20 * QUICK;
            burst.request_done(now);
        };
        for _ in 0..100 {
            (1..MANY).for_each(|_| request(&mut burst, QUICK));
            request(&mut burst, QUICK * 2);
        }
        assert!(burst.patience().is_none());
        (0..MANY * 3).for_each(|_| request(&mut burst, QUICK));
        assert!(burst.patience().is_some());
        request(&mut burst, QUICK * 2);
        assert!(burst.patience().is_none());
        (0..MANY).for_each(|_| request(&mut burst, QUICK));
        burst.end();
        assert!(burst.patience().is_none());
        let mut asked = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut asked).unwrap();
        assert_eq!(asked, [AT_ONCE, ANY, AT_ONCE, ANY].as_bytes());
    }
}

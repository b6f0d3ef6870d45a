//! Waking sleepers: a load for the writer, a membarrier for the sleeper.
//!
//! A sleeper reads the futex, arms, makes every running writer pass a barrier, and looks at the ring once
//! more before it sleeps. So either its last look sees the commit, or the writer's look behind its commit sees
//! that somebody is armed: the writer needs no fence of its own (edge E7).
//!
//! Arming is not counted: the writer that wakes takes all of it back, adds one to the futex and wakes
//! everybody; who is not satisfied arms again. A writer that dies between the two leaves sleepers to their next
//! look, which is why nobody sleeps longer than [`NAP`] at a time.

use crate::ring::Ring;
#[cfg(loom)]
use crate::ring::ordering::e7_barrier;
use crate::ring::ordering::{e8_look, e8_wake};
use crate::ring::write::{Refused, Step};
use ringtap_abi::meta::Switches;
#[cfg(not(loom))]
use ringtap_abi::sync::AtomicU32;
#[cfg(not(loom))]
use rustix::thread::futex;
use std::sync::atomic::Ordering::{AcqRel, Relaxed, Release};
use std::time::Duration;
#[cfg(not(loom))]
use std::{sync::atomic::Ordering::Acquire, time::Instant};

/// How a wait ended.
#[cfg(not(loom))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// There is enough to read.
    Ready,
    /// Time ran out.
    TimedOut,
    /// Somebody woke all sleepers.
    Woken,
}

/// Longest sleep between two looks.
pub(crate) const NAP: Duration = Duration::from_millis(100);

/// `MEMBARRIER_CMD_GLOBAL_EXPEDITED` and its registration (`include/uapi/linux/membarrier.h`).
const GLOBAL_EXPEDITED: libc::c_int = 1 << 1;
const REGISTER_GLOBAL_EXPEDITED: libc::c_int = 1 << 2;

fn membarrier(command: libc::c_int) {
    // SAFETY: takes numbers and touches no memory. Where the kernel lacks it, sleepers find out at their next
    // look.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) };
}

/// Lets this process's threads take part in sleepers' barriers.
pub(crate) fn register_writer() {
    membarrier(REGISTER_GLOBAL_EXPEDITED);
}

/// Between what a sleeper armed and its last look: all writers' commits and looks are on either side of it.
fn barrier() {
    // A membarrier is a fence of the caller's and one in each running writer: `writers_share` has that one where a
    // model checker looks.
    #[cfg(loom)]
    ringtap_abi::sync::fence_unless_relaxed(e7_barrier());
    #[cfg(not(loom))]
    membarrier(GLOBAL_EXPEDITED);
}

/// Between a commit and the writer's look behind it: for the compiler alone, the sleeper's membarrier does the rest.
#[inline(always)]
fn writers_share() {
    #[cfg(loom)]
    ringtap_abi::sync::fence_unless_relaxed(e7_barrier());
    #[cfg(not(loom))]
    std::sync::atomic::compiler_fence(std::sync::atomic::Ordering::SeqCst);
}

/// The writer's look behind a round: wakes whom it concerns.
pub(crate) fn look(ring: &Ring<'_>, step: Result<Step, Refused>) {
    writers_share();
    let switches = &ring.meta().switches;
    // E7: pairs with the sleeper's barrier in `arm`.
    match step {
        Ok(Step::Written) if switches.wake_any.load(Relaxed) != 0 => wake(ring),
        Ok(Step::Turned(seq)) if seq >= switches.wake_at.load(Relaxed) => wake(ring),
        _ => {}
    }
}

/// What a sleeper waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// The next event.
    AnyEvent,
    /// The tail's turn to this position.
    Turn(u64),
}

/// Asks the writers for a wake-up. The caller's next look at the ring sees every commit whose writer will not.
pub(crate) fn arm(switches: &Switches, until: Until) {
    match until {
        Until::AnyEvent => switches.wake_any.store(1, Release),
        Until::Turn(seq) => {
            switches.wake_at.fetch_min(seq, AcqRel);
        }
    }
    // E7: pairs with the writers' loads behind their commits.
    barrier();
}

/// Wakes everybody who sleeps on the buffer.
#[cold]
pub(crate) fn wake(ring: &Ring<'_>) {
    let switches = &ring.meta().switches;
    switches.wake_any.store(0, Relaxed);
    switches.wake_at.store(u64::MAX, Relaxed);
    let wakes = &ring.meta().wake.wakes;
    // E8: pairs with the Acquire in `wakes`. Who reads the new number before it arms is armed after us.
    wakes.fetch_add(1, e8_wake());
    // The word is valid; nothing else can go wrong.
    #[cfg(not(loom))]
    let _ = futex::wake(wakes, futex::Flags::empty(), u32::MAX);
}

/// Ends all waits on the buffer, whatever there is to read.
pub(crate) fn send_away(ring: &Ring<'_>) {
    ring.meta().host.kicks.fetch_add(1, Release);
    wake(ring);
}

/// How often the buffer's sleepers were woken: read it before arming.
pub(crate) fn wakes(ring: &Ring<'_>) -> u32 {
    // E8: pairs with the addition in `wake`.
    ring.meta().wake.wakes.load(e8_look())
}

/// Sleeps until the buffer's sleepers were woken more often than `seen`, for [`NAP`] and for `timeout` at most.
#[cfg(not(loom))]
pub(crate) fn sleep(wakes: &AtomicU32, seen: u32, timeout: Duration) {
    let timeout = timeout.min(NAP);
    let timeout =
        futex::Timespec { tv_sec: timeout.as_secs().cast_signed(), tv_nsec: timeout.subsec_nanos().into() };
    // Woken, interrupted, timed out or too late: the caller looks again in each case.
    let _ = futex::wait(wakes, futex::Flags::empty(), seen, Some(&timeout));
}

/// Sleeps until `ready` says so, for `timeout` at most, or until somebody sends all sleepers away. `ready` arms
/// where it says no.
#[cfg(not(loom))]
pub(crate) fn wait<E>(
    ring: &Ring<'_>,
    timeout: Option<Duration>,
    mut ready: impl FnMut() -> Result<bool, E>,
) -> Result<Waited, E> {
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let kicks = &ring.meta().host.kicks;
    let kicked = kicks.load(Acquire);
    loop {
        let seen = wakes(ring);
        if ready()? {
            return Ok(Waited::Ready);
        }
        if kicks.load(Acquire) != kicked {
            return Ok(Waited::Woken);
        }
        let left = deadline.map_or(NAP, |deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_zero() {
            return Ok(Waited::TimedOut);
        }
        sleep(&ring.meta().wake.wakes, seen, left);
    }
}

//! How far the attached processes' links have followed a host's changes, for who must know that all have.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How many links know which generation.
#[derive(Debug, Default)]
pub(crate) struct Followers {
    known: Mutex<BTreeMap<u32, usize>>,
    changed: Condvar,
}

/// One link. Dropped, nobody waits for it any more.
#[derive(Debug)]
pub(crate) struct Follower {
    all: Arc<Followers>,
    generation: u32,
}

thread_local! {
    static SERVES: Cell<bool> = const { Cell::new(false) };
}

/// Says of the calling thread that it answers the links.
pub(crate) fn this_thread_serves() {
    SERVES.set(true);
}

impl Followers {
    /// Counts are changed in single steps, so a panic of another thread changes nothing.
    fn known(&self) -> MutexGuard<'_, BTreeMap<u32, usize>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until all links know this generation, for a while: one that is stopped delays nobody for longer. The thread
    /// that answers them waits for none.
    pub(crate) fn wait(&self, generation: u32, patience: Duration) {
        if SERVES.get() {
            return;
        }
        let is_behind = |known: &mut BTreeMap<u32, usize>| {
            // Generations may wrap around.
            known.keys().any(|&of| generation.wrapping_sub(of).cast_signed() > 0)
        };
        let _ = self.changed.wait_timeout_while(self.known(), patience, is_behind);
    }
}

impl Follower {
    pub(crate) fn new(all: &Arc<Followers>, generation: u32) -> Self {
        *all.known().entry(generation).or_default() += 1;
        Self { all: Arc::clone(all), generation }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut known = self.all.known();
        if let Some(count) = known.get_mut(&self.generation) {
            *count -= 1;
            if *count == 0 {
                known.remove(&self.generation);
            }
        }
        self.all.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn all_are_waited_for_and_none_for_longer_than_patience() {
        let all = Arc::new(Followers::default());
        let (first, second) = (Follower::new(&all, 3), Follower::new(&all, 3));
        let ahead = Follower::new(&all, 5);
        let begun = Instant::now();
        all.wait(4, Duration::from_millis(1));
        assert!(begun.elapsed() >= Duration::from_millis(1));
        drop(first);
        let follows = std::thread::spawn({
            let all = Arc::clone(&all);
            move || {
                let next = Follower::new(&all, 4);
                drop(second);
                next
            }
        });
        all.wait(4, Duration::from_secs(600));
        assert_eq!(*all.known(), BTreeMap::from([(4, 1), (5, 1)]));
        drop((follows.join().expect("no panic"), ahead));
        assert!(all.known().is_empty());
        // Generations wrap around.
        let _old = Follower::new(&all, u32::MAX);
        all.wait(u32::MAX, Duration::from_secs(600));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                this_thread_serves();
                all.wait(1, Duration::from_secs(600));
            });
        });
    }
}

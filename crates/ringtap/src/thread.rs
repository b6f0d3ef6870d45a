//! What a thread is, seen from other processes: its id, its birth, where it runs.

use rustix::fs::{Mode, OFlags};
use rustix::process::Pid;
use std::cell::Cell;
use std::io::Write;
use std::sync::Once;

thread_local! {
    /// The thread's id, 0 until asked for. No destructor: a signal handler may be the first to ask.
    static ID: Cell<u32> = const { Cell::new(0) };
    /// The thread's [`owner_word`], 0 until asked for.
    static OWNER: Cell<u64> = const { Cell::new(0) };
}

/// The calling thread's id, as `common_pid` of its events: asked from the kernel once.
#[inline(always)]
#[must_use]
pub fn id() -> u32 {
    match ID.get() {
        0 => ask_id(),
        id => id,
    }
}

#[cold]
fn ask_id() -> u32 {
    forget_on_fork();
    let id = rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned();
    ID.set(id);
    id
}

/// A forked child is another thread: its first question must go to the kernel again.
fn forget_on_fork() {
    extern "C" fn forget() {
        ID.set(0);
        OWNER.set(0);
    }
    static ONCE: Once = Once::new();
    // SAFETY: `forget` only stores to thread-local cells, which a forked child may do.
    ONCE.call_once(|| unsafe {
        libc::pthread_atfork(None, None, Some(forget));
    });
}

/// Names the calling thread in a lock word so that others can find out whether it died: its id, and a digest
/// of its birth that a later thread of the same id does not share. Never 0.
pub(crate) fn owner_word() -> u64 {
    match OWNER.get() {
        0 => {
            let id = id();
            let born = if let Life::Born(born) = life(id) { born } else { 0 };
            let word = u64::from(namespace() | born) << 32 | u64::from(id);
            OWNER.set(word);
            word
        }
        word => word,
    }
}

/// Whether the thread that a lock word names has died. Where that cannot be known, it has not.
pub(crate) fn is_dead(owner: u64) -> bool {
    #[expect(clippy::cast_possible_truncation, reason = "the halves of the word")]
    let (id, born) = (owner as u32, (owner >> 32) as u32);
    if born & NAMESPACE != namespace() {
        // Of another pid namespace: its id means somebody else here, or nobody.
        return false;
    }
    match life(id) {
        Life::Born(now) => now != born & !NAMESPACE,
        Life::Over => true,
        Life::Unknown => false,
    }
}

/// The bits of a lock word's upper half that tell pid namespaces apart; the others are the birth.
const NAMESPACE: u32 = 0xff << 24;

fn namespace() -> u32 {
    let namespace = rustix::fs::stat("/proc/self/ns/pid").map_or(0, |stat| stat.st_ino);
    #[expect(clippy::cast_possible_truncation, reason = "a digest")]
    let digest = (namespace ^ namespace >> 8 ^ namespace >> 16) as u32;
    digest << 24
}

/// What the kernel tells of a thread.
enum Life {
    /// The time it was born at, in clock ticks since boot, without the bits of [`NAMESPACE`].
    Born(u32),
    /// It ended, or waits as a zombie for its parent to notice.
    Over,
    /// Hidden from us.
    Unknown,
}

fn life(id: u32) -> Life {
    let mut path = [0u8; 32];
    let mut text = [0u8; 1024];
    match stat_path(id, &mut path).and_then(|path| read(path, &mut text)) {
        Some(stat) => parse_life(stat).unwrap_or(Life::Unknown),
        None => match known(id).map(rustix::process::test_kill_process) {
            Some(Err(rustix::io::Errno::SRCH)) => Life::Over,
            _ => Life::Unknown,
        },
    }
}

/// A thread id as the kernel may have given it: a lock word that somebody scribbled on may hold any number.
fn known(id: u32) -> Option<Pid> {
    i32::try_from(id).ok().and_then(Pid::from_raw)
}

fn stat_path(id: u32, path: &mut [u8; 32]) -> Option<&[u8]> {
    let mut rest = &mut path[..];
    write!(rest, "/proc/{id}/stat").ok()?;
    let used = 32 - rest.len();
    Some(&path[..used])
}

/// From `PID (NAME) STATE ...`: the name may hold anything, so the fields count from the last parenthesis.
fn parse_life(stat: &[u8]) -> Option<Life> {
    let after_name = &stat[stat.iter().rposition(|&byte| byte == b')')? + 1..];
    let mut fields = after_name.split(|&byte| byte == b' ').filter(|field| !field.is_empty());
    if matches!(fields.next()?, b"Z" | b"X" | b"x") {
        return Some(Life::Over);
    }
    // Field 22 is `starttime`; `state` was field 3.
    let start = std::str::from_utf8(fields.nth(18)?).ok()?.parse::<u64>().ok()?;
    #[expect(clippy::cast_possible_truncation, reason = "the low bits tell births apart")]
    let start = start as u32;
    Some(Life::Born(start & !NAMESPACE))
}

/// The file's bytes, as many as fit in `text`. Neither allocates nor locks: signal handlers come here.
fn read<'a>(path: &[u8], text: &'a mut [u8]) -> Option<&'a [u8]> {
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let len = rustix::io::read(&file, &mut *text).ok()?;
    Some(&text[..len])
}

/// Lets another thread run on this CPU.
pub(crate) fn yield_now() {
    rustix::thread::sched_yield();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_living_the_dead_and_the_zombies_are_told_apart() {
        assert!(!is_dead(owner_word()));
        let other = std::thread::spawn(owner_word).join().expect("no panic");
        // A joined thread may take the kernel a moment to forget.
        let gone = (0..1000).any(|_| {
            is_dead(other) || {
                std::thread::sleep(std::time::Duration::from_millis(1));
                false
            }
        });
        assert!(gone, "thread {other:#x} ended");

        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("sleep runs");
        let Life::Born(born) = life(child.id()) else { panic!("it lives") };
        let owner = u64::from(namespace() | born) << 32 | u64::from(child.id());
        assert!(!is_dead(owner));
        assert!(is_dead(owner ^ 1 << 32), "another birth under the same id is another thread");
        child.kill().expect("it can be killed");
        let zombie = (0..1000).any(|_| {
            is_dead(owner) || {
                std::thread::sleep(std::time::Duration::from_millis(1));
                false
            }
        });
        assert!(zombie, "a zombie is dead");
        child.wait().expect("it is ours");
    }

    #[test]
    fn any_lock_word_can_be_asked_about() {
        for word in [1, u64::MAX, 1 << 31, u64::from(u32::MAX), 0x8000_0000_8000_0000] {
            let _ = is_dead(word | u64::from(namespace()) << 32);
        }
    }

    #[test]
    fn names_with_parentheses_do_not_confuse() {
        let stat = b"7 (a) b (c)) S 1 1 1 0 -1 4194560 1 1 1 1 1 1 1 1 20 0 1 0 4711 1 1";
        assert!(matches!(parse_life(stat), Some(Life::Born(4711))));
        assert!(parse_life(b"7 (a").is_none());
    }
}

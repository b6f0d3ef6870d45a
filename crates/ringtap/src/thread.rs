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
        #[cfg(not(loom))]
        crate::spot::forget();
        #[cfg(not(loom))]
        crate::instance::tasks::forget();
    }
    static ONCE: Once = Once::new();
    // SAFETY: `forget` only stores to thread-local cells, which a forked child may do.
    ONCE.call_once(|| unsafe {
        libc::pthread_atfork(None, None, Some(forget));
    });
}

/// Names the calling thread in a lock word so that others can find out whether it died: its id, its pid namespace,
/// and a digest of its birth that a later thread of the same id does not share. Never 0.
pub(crate) fn owner_word() -> u64 {
    match OWNER.get() {
        0 => {
            let id = id();
            let born = if let Life::Born(born) = life(id) { born } else { UNKNOWN_BIRTH };
            let word = Owner { id, namespace: namespace(), born }.pack();
            OWNER.set(word);
            word
        }
        word => word,
    }
}

/// Whether the thread that a lock word names has died. Where that cannot be known, it has not.
pub(crate) fn is_dead(owner: u64) -> bool {
    let Owner { id, namespace: its, born } = Owner::unpack(owner);
    if its != namespace() {
        // Of another pid namespace: its id means somebody else here, or nobody.
        return false;
    }
    match life(id) {
        Life::Born(now) => born != UNKNOWN_BIRTH && now != born,
        Life::Over => true,
        Life::Unknown => false,
    }
}

/// The parts of a lock word.
struct Owner {
    /// 22 bits, the kernel's `PID_MAX_LIMIT`.
    id: u32,
    /// 20 bits of the pid namespace's inode. The kernel counts these up, so two differ before a million exist.
    namespace: u32,
    /// 22 bits of the birth, in clock ticks since boot: eleven hours; or [`UNKNOWN_BIRTH`].
    born: u32,
}

const ID_BITS: u32 = 22;
const NAMESPACE_BITS: u32 = 20;
const BIRTH_BITS: u32 = 22;

/// The owner could not find out when it was born: it had no descriptor left to open `/proc` with, or has none.
const UNKNOWN_BIRTH: u32 = 0;

impl Owner {
    fn pack(self) -> u64 {
        (u64::from(self.born) << NAMESPACE_BITS | u64::from(self.namespace)) << ID_BITS | u64::from(self.id)
    }

    fn unpack(word: u64) -> Self {
        Self {
            id: low_bits(word, ID_BITS),
            namespace: low_bits(word >> ID_BITS, NAMESPACE_BITS),
            born: low_bits(word >> (ID_BITS + NAMESPACE_BITS), BIRTH_BITS),
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "no more than 22 bits are asked for")]
fn low_bits(number: u64, bits: u32) -> u32 {
    (number & ((1 << bits) - 1)) as u32
}

fn namespace() -> u32 {
    let inode = rustix::fs::stat("/proc/self/ns/pid").map_or(0, |stat| stat.st_ino);
    low_bits(inode, NAMESPACE_BITS)
}

/// What the kernel tells of a thread.
enum Life {
    /// The time it was born at, as in [`Owner`]; never [`UNKNOWN_BIRTH`].
    Born(u32),
    /// It ended, or waits as a zombie for its parent to notice.
    Over,
    /// Hidden from us.
    Unknown,
}

fn life(id: u32) -> Life {
    let mut path = [0u8; 32];
    let mut text = [0u8; 1024];
    match stat_path(id, &mut path).filter(|_| proc_is_ours()).and_then(|path| read(path, &mut text)) {
        Some(stat) => parse_life(stat).unwrap_or(Life::Unknown),
        None => match known(id).map(rustix::process::test_kill_process) {
            Some(Err(rustix::io::Errno::SRCH)) => Life::Over,
            _ => Life::Unknown,
        },
    }
}

/// Whether `/proc` is of this process's pid namespace: a container that kept its parent's sees other threads under
/// the numbers of its own.
fn proc_is_ours() -> bool {
    let mut text = [0u8; 64];
    let pid = read(b"/proc/self/stat", &mut text).and_then(|stat| stat.split(|&byte| byte == b' ').next());
    let pid = pid.and_then(|pid| std::str::from_utf8(pid).ok()?.parse().ok());
    pid == Some(rustix::process::getpid().as_raw_nonzero().get())
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
    Some(Life::Born(low_bits(start, BIRTH_BITS).max(1)))
}

/// The file's bytes, as many as fit in `text`. Neither allocates nor locks: signal handlers come here.
fn read<'a>(path: &[u8], text: &'a mut [u8]) -> Option<&'a [u8]> {
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let len = rustix::io::read(&file, &mut *text).ok()?;
    Some(&text[..len])
}

/// The CPU that the calling thread runs on, asked from the kernel itself: the rseq area, which the libc reads, is
/// stale in a child that shares its parent's memory.
pub(crate) fn cpu() -> u32 {
    let mut cpu = u32::MAX;
    let nothing = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: the kernel writes a `u32` to the first address and nothing to the others.
    unsafe { libc::syscall(libc::SYS_getcpu, &raw mut cpu, nothing, nothing) };
    cpu
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
        let owner = |born| Owner { id: child.id(), namespace: namespace(), born }.pack();
        let (other, owner) = (owner(born ^ 2), owner(born));
        assert!(!is_dead(owner));
        assert!(is_dead(other), "another birth under the same id is another thread");
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
            let Owner { id, born, .. } = Owner::unpack(word);
            let _ = is_dead(Owner { id, namespace: namespace(), born }.pack());
        }
    }

    /// The owner word of a forked child, once `prepare` has run in it; then the child waits to be killed.
    fn word_of_child(prepare: impl FnOnce()) -> (libc::pid_t, u64) {
        use std::io::Read;
        use std::os::fd::AsRawFd;
        let (mut read, write) = std::io::pipe().expect("pipes can be made");
        // SAFETY: the child makes system calls alone, and never comes back from here.
        let child = unsafe { libc::fork() };
        if child == 0 {
            prepare();
            let word = owner_word().to_le_bytes();
            // SAFETY: the bytes are there.
            unsafe { libc::write(write.as_raw_fd(), word.as_ptr().cast(), word.len()) };
            loop {
                // SAFETY: waits for a signal.
                unsafe { libc::pause() };
            }
        }
        let mut word = [0; 8];
        read.read_exact(&mut word).expect("it tells");
        (child, u64::from_le_bytes(word))
    }

    fn kill(child: libc::pid_t) {
        // SAFETY: it is our own child, not yet waited for.
        unsafe { libc::kill(child, libc::SIGKILL) };
        // SAFETY: as above.
        unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    }

    #[test]
    fn an_owner_that_has_no_descriptor_left_is_not_taken_for_dead() {
        let (child, word) = word_of_child(|| {
            let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            // SAFETY: reads the limits, which are the child's own.
            unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const none) };
        });
        let (dead_alive, born) = (is_dead(word), Owner::unpack(word).born);
        kill(child);
        assert!(!dead_alive, "it lives");
        assert_eq!(born, UNKNOWN_BIRTH, "it could not look");
        assert!(is_dead(word));
    }

    #[test]
    fn under_the_proc_of_another_namespace_nobody_is_mistaken_for_another() {
        let (child, word) = word_of_child(|| {
            // SAFETY: the next child is the first of a new namespace, and sees the old one's /proc.
            if unsafe { libc::unshare(libc::CLONE_NEWPID) } != 0 {
                return;
            }
            // SAFETY: as above; the first child waits.
            if unsafe { libc::fork() } != 0 {
                loop {
                    // SAFETY: waits for a signal.
                    unsafe { libc::pause() };
                }
            }
            // SAFETY: asks for a signal when the parent ends.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        });
        kill(child);
        let owner = Owner::unpack(word);
        if owner.id != 1 {
            return println!("skipped: no permission to make a pid namespace");
        }
        assert_eq!(owner.born, UNKNOWN_BIRTH, "the birth of this machine's first process");
    }

    #[test]
    fn names_with_parentheses_do_not_confuse() {
        let stat = b"7 (a) b (c)) S 1 1 1 0 -1 4194560 1 1 1 1 1 1 1 1 20 0 1 0 4711 1 1";
        assert!(matches!(parse_life(stat), Some(Life::Born(4711))));
        assert!(parse_life(b"7 (a").is_none());
    }
}

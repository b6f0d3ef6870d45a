//! What a thread is, seen from other processes: its id, its birth, where it runs.

use crate::rseq;
use rustix::fd::IntoRawFd;
use rustix::fs::{Mode, OFlags};
use rustix::process::Pid;
use std::cell::Cell;
use std::io::Write;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
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
    ID.set(kernels_id());
    ID.get()
}

/// The calling thread's id, as the kernel has it.
fn kernels_id() -> u32 {
    rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned()
}

/// A forked child is another thread: its first question must go to the kernel again.
pub(crate) fn forget_on_fork() {
    extern "C" fn know() {
        if ID.get() == 0 {
            ID.set(kernels_id());
        }
    }
    extern "C" fn forget() {
        #[cfg(not(loom))]
        crate::board::forked(ID.get(), kernels_id());
        ID.set(0);
        OWNER.set(0);
        #[cfg(not(loom))]
        crate::spot::forget();
        #[cfg(not(loom))]
        crate::instance::tasks::forget();
    }
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        rseq::stay_loaded();
        // SAFETY: the hooks stay loaded, and only store to thread-local cells and to shared memory, and renew a lock, which
        // a forked child may do.
        unsafe { libc::pthread_atfork(Some(know), None, Some(forget)) };
    });
}

/// Names the calling thread in a lock word so that others can find out whether it died: its id, its pid namespace, and
/// digests of its birth and of its program, which a later thread of the same id does not share. Never 0.
pub(crate) fn owner_word() -> u64 {
    match OWNER.get() {
        0 => {
            let id = id();
            let (born, program) = match life(id) {
                Life::Lives { born, program } => (born, program),
                Life::Over | Life::Unknown => (UNKNOWN, UNKNOWN),
            };
            let word = Owner { id, namespace: namespace(), born, program }.pack();
            OWNER.set(word);
            word
        }
        word => word,
    }
}

/// Whether the thread that a lock word names has died. Where that cannot be known, it has not.
pub(crate) fn is_dead(owner: u64) -> bool {
    let Owner { id, namespace: its, born, program } = Owner::unpack(owner);
    if its != namespace() {
        // Of another pid namespace: its id means somebody else here, or nobody.
        return false;
    }
    match life(id) {
        Life::Lives { born: now, program: runs } => is_another(born, now) || is_another(program, runs),
        Life::Over => true,
        Life::Unknown => false,
    }
}

/// Whether two digests are of different things.
fn is_another(then: u32, now: u32) -> bool {
    then != UNKNOWN && now != UNKNOWN && then != now
}

/// The parts of a lock word. Digests that are equal by chance make a dead owner look alive, never the other way round.
struct Owner {
    /// 22 bits, the kernel's `PID_MAX_LIMIT`.
    id: u32,
    /// 20 bits of the pid namespace's inode. The kernel counts these up, so two differ before a million exist.
    namespace: u32,
    /// 12 bits of the birth, in clock ticks since boot; or [`UNKNOWN`].
    born: u32,
    /// 10 bits that say where the program and its stack lie; or [`UNKNOWN`]. A thread that executes a program takes over
    /// id and birth of its process's first thread, which is no more.
    program: u32,
}

const ID_BITS: u32 = 22;
const NAMESPACE_BITS: u32 = 20;
const BIRTH_BITS: u32 = 12;
const PROGRAM_BITS: u32 = 10;

/// What could not be found out: the owner had no descriptor left to open `/proc` with, or has none; or its `/proc` does
/// not tell us where its stack lies.
const UNKNOWN: u32 = 0;

impl Owner {
    fn pack(self) -> u64 {
        let parts = [(self.program, PROGRAM_BITS), (self.born, BIRTH_BITS), (self.namespace, NAMESPACE_BITS)];
        let above = parts.into_iter().fold(0, |word, (part, bits)| word << bits | u64::from(part));
        above << ID_BITS | u64::from(self.id)
    }

    fn unpack(word: u64) -> Self {
        Self {
            id: low_bits(word, ID_BITS),
            namespace: low_bits(word >> ID_BITS, NAMESPACE_BITS),
            born: low_bits(word >> (ID_BITS + NAMESPACE_BITS), BIRTH_BITS),
            program: low_bits(word >> (ID_BITS + NAMESPACE_BITS + BIRTH_BITS), PROGRAM_BITS),
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
    /// When it was born and what it runs, as in [`Owner`]; the first is never [`UNKNOWN`].
    Lives { born: u32, program: u32 },
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
    let mut number = |skipped| std::str::from_utf8(fields.nth(skipped)?).ok()?.parse::<u64>().ok();
    // Field 22 is `starttime`; `state` was field 3.
    let born = low_bits(number(18)?, BIRTH_BITS).max(1);
    // Fields 26 to 28 are `startcode`, `endcode` and `startstack`.
    let program = program(number(3)?, number(0)?, number(0)?);
    Some(Life::Lives { born, program })
}

/// A digest of where a program's code and stack lie. The kernel says that the stack is at 0 to those who may not know.
fn program(code: u64, end: u64, stack: u64) -> u32 {
    /// Odd, and without a pattern: 2^64 divided by the golden ratio.
    const MIXER: u64 = 0x9e37_79b9_7f4a_7c15;
    if stack == 0 {
        return UNKNOWN;
    }
    let mixed = [code, end, stack].into_iter().fold(0u64, |mixed, at| (mixed ^ at).wrapping_mul(MIXER));
    low_bits(mixed >> (u64::BITS - PROGRAM_BITS), PROGRAM_BITS).max(1)
}

/// The file's bytes, as many as fit in `text`. Neither allocates nor locks: signal handlers come here.
fn read<'a>(path: &[u8], text: &'a mut [u8]) -> Option<&'a [u8]> {
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let len = rustix::io::read(&file, &mut *text);
    // Dropped, it would be closed by the C library's `close`. Where that is traced, its event asks for the lock, whose owner
    // word reads a file.
    // SAFETY: nobody else has it.
    unsafe { rustix::io::close(file.into_raw_fd()) };
    Some(&text[..len.ok()?])
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

/// Starts a thread with all signals blocked: the application's handlers belong on its own threads.
///
/// # Errors
/// As [`std::thread::Builder::spawn`].
pub fn spawn_without_signals(
    name: &str,
    run: impl FnOnce() + Send + 'static,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    // A library with threads of its own cannot be unloaded.
    rseq::stay_loaded();
    let _masked = Masked::new();
    std::thread::Builder::new().name(name.into()).spawn(run)
}

/// All signals are blocked for the thread that made it, until it is dropped there.
pub(crate) struct Masked {
    before: libc::sigset_t,
    /// The mask is the thread's own.
    not_send: PhantomData<*const ()>,
}

impl Masked {
    pub(crate) fn new() -> Self {
        let mut all = MaybeUninit::uninit();
        let mut before = MaybeUninit::uninit();
        // SAFETY: fills the set that it is given.
        unsafe { libc::sigfillset(all.as_mut_ptr()) };
        // SAFETY: reads the set that was filled, and fills the other.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) };
        // SAFETY: it was filled: the call cannot fail with these arguments.
        Self { before: unsafe { before.assume_init() }, not_send: PhantomData }
    }
}

impl Drop for Masked {
    fn drop(&mut self) {
        // SAFETY: reads a set.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, std::ptr::null_mut()) };
    }
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
        let Life::Lives { born, .. } = life(child.id()) else { panic!("it lives") };
        // What it runs is not known yet: it may be about to execute it.
        let owner = |born| Owner { id: child.id(), namespace: namespace(), born, program: UNKNOWN }.pack();
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
            let owner = Owner::unpack(word);
            assert_eq!(Owner { ..Owner::unpack(word) }.pack(), word);
            let _ = is_dead(Owner { namespace: namespace(), ..owner }.pack());
        }
    }

    /// The owner word of a forked child, once `prepare` has run in it; then the child waits to be killed.
    fn word_of_child(prepare: impl FnOnce()) -> (libc::pid_t, u64) {
        word_of_child_that(prepare, || ())
    }

    /// As [`word_of_child`]; before it waits, it does `then`.
    fn word_of_child_that(prepare: impl FnOnce(), then: impl FnOnce()) -> (libc::pid_t, u64) {
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
            then();
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
        assert_eq!(born, UNKNOWN, "it could not look");
        assert!(is_dead(word));
    }

    /// The program's first thread had a lock; another one executes a program, and has its id and birth.
    #[test]
    fn an_owner_whose_process_executes_a_program_is_dead() {
        let execute = || {
            let sleep = std::thread::spawn(|| {
                let arguments = [c"sleep".as_ptr(), c"60".as_ptr(), std::ptr::null()];
                // SAFETY: the strings are there, and a null pointer ends them.
                unsafe { libc::execvp(arguments[0], arguments.as_ptr()) };
            });
            let _ = sleep.join();
        };
        let (child, word) = word_of_child_that(|| (), execute);
        let runs = || std::fs::read_to_string(format!("/proc/{child}/comm")).expect("it is there");
        let executed = (0..2000).any(|_| {
            runs() == "sleep\n" || {
                std::thread::sleep(std::time::Duration::from_millis(5));
                false
            }
        });
        let is_dead = is_dead(word);
        kill(child);
        assert!(executed, "it executes sleep");
        assert!(is_dead, "{word:#x} is no more");
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
        assert_eq!(owner.born, UNKNOWN, "the birth of this machine's first process");
    }

    #[test]
    fn names_with_parentheses_do_not_confuse() {
        let stat = |stack| {
            let stat = format!(
                "7 (a) b (c)) S 1 1 1 0 -1 4194560 1 1 1 1 1 1 1 1 20 0 1 0 711 1 1 1 4096 8192 {stack} 0 0"
            );
            parse_life(stat.as_bytes())
        };
        let Some(Life::Lives { born: 711, program: one @ 1.. }) = stat(160_000) else { panic!("it lives") };
        assert!(matches!(stat(160_016), Some(Life::Lives { born: 711, program }) if program != one));
        assert!(matches!(stat(0), Some(Life::Lives { born: 711, program: UNKNOWN })), "hidden");
        assert!(parse_life(b"7 (a").is_none());
    }
}

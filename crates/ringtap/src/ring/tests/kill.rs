//! Real processes, killed by SIGKILL at each instruction of the sections' assembly, or traced one instruction at
//! a time, where no section ever commits and the lock must take over.
//!
//! A breakpoint aborts the section that it stands in: the kernel sends the writer to its abort handler before it
//! reports the stop. What has been stored by then stays, so the writer is killed exactly between two instructions.

use super::kit::{Consumer, Random, Seed, Watchdog, fill};
use crate::ring::swap::Handed;
use crate::{Config, Host, Mode, Writer, WriterKind, clock::ClockId, map, rseq};
use iced_x86::{Decoder, DecoderOptions};
use std::ffi::c_void;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::time::{Duration, Instant};

/// The kernel's `struct rseq_cs`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Descriptor {
    version: u32,
    flags: u32,
    start: u64,
    len: u64,
    abort: u64,
}

unsafe extern "C" {
    // The linker's marks around the section of all descriptors.
    #[link_name = "__start___rseq_cs"]
    static FIRST: Descriptor;
    #[link_name = "__stop___rseq_cs"]
    static END: Descriptor;
}

/// All sections in this program. The linker may have dropped functions whose descriptors are still here.
fn sections() -> &'static [Descriptor] {
    let (first, end) = (&raw const FIRST, &raw const END);
    let len = (end.addr() - first.addr()) / size_of::<Descriptor>();
    // SAFETY: between the linker's marks there are descriptors and nothing else.
    unsafe { std::slice::from_raw_parts(first, len) }
}

/// Addresses of a section's instructions, and of the first one behind it.
fn instructions(section: &Descriptor) -> Vec<u64> {
    // SAFETY: the section is code of this program.
    let code = unsafe { std::slice::from_raw_parts(section.start as *const u8, section.len as usize) };
    let decoder = Decoder::with_ip(64, code, section.start, DecoderOptions::NONE);
    decoder.into_iter().map(|instruction| instruction.ip()).chain([section.start + section.len]).collect()
}

/// A writing process, traced by this one. Killed when dropped.
struct Traced {
    pid: libc::pid_t,
}

/// How a traced process stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Signal(libc::c_int),
    Exited(libc::c_int),
}

impl Traced {
    /// Forks a process that stops itself and then runs `body`.
    fn fork(body: impl FnOnce()) -> Self {
        // SAFETY: the child writes events and ends by `_exit`.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "fork");
        if pid == 0 {
            // SAFETY: asks to be traced by the parent.
            unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) };
            // SAFETY: stops this process until its parent lets it go on.
            unsafe { libc::raise(libc::SIGSTOP) };
            body();
            // SAFETY: ends the process without its parent's exit handlers.
            unsafe { libc::_exit(0) };
        }
        let traced = Self { pid };
        assert_eq!(traced.wait(), Stop::Signal(libc::SIGSTOP));
        traced
    }

    fn ask(&self, request: libc::c_uint, address: u64, data: u64) -> libc::c_long {
        // SAFETY: the requests used here change the traced child alone.
        unsafe { libc::ptrace(request, self.pid, address as *mut c_void, data as *mut c_void) }
    }

    fn wait(&self) -> Stop {
        let mut status = 0;
        // SAFETY: our own child.
        let waited = unsafe { libc::waitpid(self.pid, &raw mut status, libc::__WALL) };
        assert_eq!(waited, self.pid);
        if libc::WIFSTOPPED(status) {
            Stop::Signal(libc::WSTOPSIG(status))
        } else if libc::WIFEXITED(status) {
            Stop::Exited(libc::WEXITSTATUS(status))
        } else {
            panic!("the child died of signal {}", libc::WTERMSIG(status));
        }
    }

    /// Puts a breakpoint there.
    fn set_breakpoint(&self, address: u64) {
        let word = address & !7;
        let shift = 8 * (address - word);
        // SAFETY: the child's code is this program's own, at the same place.
        let code = unsafe { (word as *const u64).read() };
        let with_int3 = code & !(0xff << shift) | 0xcc << shift;
        assert_eq!(self.ask(libc::PTRACE_POKETEXT, word, with_int3), 0, "the child's code can be written");
    }

    fn go_on(&self) -> Stop {
        self.ask(libc::PTRACE_CONT, 0, 0);
        self.wait()
    }

    fn step(&self) -> Stop {
        self.ask(libc::PTRACE_SINGLESTEP, 0, 0);
        self.wait()
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        // SAFETY: our own child; already reaped, these fail.
        unsafe { libc::kill(self.pid, libc::SIGKILL) };
        // SAFETY: as above.
        unsafe { libc::waitpid(self.pid, std::ptr::null_mut(), libc::__WALL) };
    }
}

/// A host, and what its writers count in shared memory.
struct Bench {
    host: Host,
    writer: Writer,
    /// Events whose write returned.
    done: &'static AtomicU32,
    consumers: Vec<(u32, map::Mapping, Consumer)>,
}

impl Bench {
    fn new(writer: WriterKind, mode: Mode) -> Self {
        let config = Config {
            ring_subbufs: 2,
            mode,
            writer: Some(writer),
            clock: Some(ClockId::Cycles),
            ..Config::default()
        };
        let host = Host::new(&config).expect("possible");
        // SAFETY: a new anonymous mapping, shared with forked children and never unmapped.
        let memory = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                4096,
                rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE,
                rustix::mm::MapFlags::SHARED,
            )
        };
        // SAFETY: zeros are a valid counter.
        let done = unsafe { &*memory.expect("memory").cast::<AtomicU32>() };
        let consumers = host.cpus().into_iter().map(|cpu| {
            let mapping = map::open(host.read_only(cpu).expect("it is there"), map::Access::Read);
            let mapping = mapping.expect("it maps");
            let consumer = Consumer::new(&mapping.ring());
            (cpu, mapping, consumer)
        });
        Self { writer: host.writer(), done, consumers: consumers.collect(), host }
    }

    /// Writes event number `done`, of a length that needs both the hot path and the slow one, and turns.
    fn write(&self) {
        let number = self.done.load(Relaxed);
        let mut bytes = [0; 1000];
        let len = [24, 24, 21, 1000, 24, 112][number as usize % 6];
        fill(&mut bytes[..len], 3, number);
        let done = match bytes.first_chunk::<24>() {
            Some(plain) if len == 24 => self.writer.write_array(plain),
            _ => self.writer.write(&bytes[..len]),
        };
        // Refused events were not written: their number is used again.
        if done.is_ok() {
            self.done.store(number + 1, Release);
        }
    }

    /// Reads everything. Each event that was written, and at most one that nobody lived to count, was read or is
    /// counted as lost; returns the number of the uncounted.
    fn settle(&mut self) -> u32 {
        let (mut written, mut sum) = (0, 0);
        for (cpu, mapping, consumer) in &mut self.consumers {
            loop {
                let handed = self.host.get_reader_page(*cpu).expect("the ring is sound");
                consumer.pull(&mapping.ring(), handed, |_, event| assert_eq!(event.writer, 3));
                if handed == Handed::Nothing {
                    break;
                }
            }
            written += mapping.ring().written().expect("sound");
            sum += consumer.read + consumer.lost;
        }
        assert_eq!(sum, written, "read + lost == written");
        let counted = u64::from(self.done.load(Relaxed));
        let uncounted =
            u32::try_from(written.checked_sub(counted).expect("all that returned is there")).expect("few");
        assert!(uncounted <= 1, "{uncounted} events that nobody counted");
        // From here on it counts, so that the next death is judged by itself.
        self.done.fetch_add(uncounted, Relaxed);
        uncounted
    }

    /// Others go on writing, as if nothing had happened.
    fn go_on(&mut self) {
        let before = self.done.load(Relaxed);
        for _ in 0..20 {
            self.write();
        }
        assert_eq!(self.done.load(Relaxed), before + 20, "nobody is kept from writing");
        assert_eq!(self.settle(), 0);
    }
}

fn can_trace() -> bool {
    let traced = std::panic::catch_unwind(|| drop(Traced::fork(|| {})));
    if traced.is_err() {
        println!("skipped: this machine does not let processes trace their children");
    }
    traced.is_ok()
}

/// Each instruction of each section, once in overwrite mode and once in discard mode.
#[test]
fn a_writer_killed_at_any_instruction_costs_only_its_event() {
    if !rseq::available() {
        println!("skipped: no restartable sequences here, so no section runs");
        return;
    }
    if !can_trace() {
        return;
    }
    let _watchdog = Watchdog::new("killing writers at each instruction", Duration::from_secs(120));
    let (mut reached, mut missed) = (0, 0);
    for mode in [Mode::Overwrite, Mode::Discard] {
        let mut bench = Bench::new(WriterKind::Rseq, mode);
        for section in sections() {
            let addresses = instructions(section);
            if !kill_at(&mut bench, addresses[0]) {
                // A section for a payload size that this test does not write, or of a function nobody calls.
                continue;
            }
            for &address in &addresses[1..] {
                match kill_at(&mut bench, address) {
                    true => reached += 1,
                    // A branch that is not taken.
                    false => missed += 1,
                }
            }
        }
    }
    println!("killed at {reached} instructions; {missed} were not reached");
    assert!(reached > 100);
}

fn kill_at(bench: &mut Bench, address: u64) -> bool {
    let traced = Traced::fork(|| (0..60).for_each(|_| bench.write()));
    traced.set_breakpoint(address);
    let stop = traced.go_on();
    assert!(matches!(stop, Stop::Signal(libc::SIGTRAP) | Stop::Exited(0)), "{stop:?} at {address:#x}");
    drop(traced);
    bench.settle();
    bench.go_on();
    stop == Stop::Signal(libc::SIGTRAP)
}

/// A debugger that steps through everything: each section aborts, and each event is written all the same.
/// Then writers that are killed after some number of such steps, wherever that is: in an aborting section, under the
/// lock, on the way into the kernel.
#[test]
fn a_single_stepped_writer_takes_the_lock_and_can_be_killed_anywhere() {
    if !can_trace() {
        return;
    }
    let Seed { seed, duration } = Seed::from_environment("single-stepping", Duration::from_secs(10));
    let _watchdog = Watchdog::new("single-stepping", duration + Duration::from_secs(120));
    let mut random = Random::new(seed);
    for kind in [WriterKind::Rseq, WriterKind::Locked] {
        if kind == WriterKind::Rseq && !rseq::available() {
            continue;
        }
        let mut bench = Bench::new(kind, Mode::Overwrite);
        let steps = step(&bench, u64::MAX);
        println!("{kind:?}: {EVENTS} events took {steps} steps");
        assert_eq!(bench.done.load(Relaxed), EVENTS, "each event is written");
        assert_eq!(bench.settle(), 0);
        let (began, mut deaths) = (Instant::now(), 0);
        while began.elapsed() < duration / 2 {
            step(&bench, random.below(steps));
            bench.settle();
            bench.go_on();
            deaths += 1;
        }
        println!("{kind:?}: killed {deaths} times");
    }
}

/// Events of one single-stepped writer.
const EVENTS: u32 = 2;

/// Lets a writer make `limit` steps and kills it; returns how many it made before it was done or dead.
fn step(bench: &Bench, limit: u64) -> u64 {
    let traced = Traced::fork(|| (0..EVENTS).for_each(|_| bench.write()));
    for steps in 0..limit {
        match traced.step() {
            Stop::Signal(libc::SIGTRAP) => {}
            end => {
                assert_eq!(end, Stop::Exited(0));
                return steps;
            }
        }
        assert!(steps < 2_000_000, "a stepped writer must not try without bound");
    }
    limit
}

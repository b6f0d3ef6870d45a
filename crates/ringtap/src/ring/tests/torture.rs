//! Everything at once, at random: processes, threads and signal handlers that write, hop from CPU to CPU and are
//! killed, while one reader consumes and cursors follow. At the end every event is accounted for, exactly.
//!
//! A short run is part of `cargo test`. For hours:
//!
//! ```text
//! RINGTAP_SECONDS=36000 cargo test --release -p ringtap --lib torture -- --nocapture
//! ```
//!
//! The seed decides all parameters, not the schedule, which is the kernel's.

use super::kit::{Consumer, Event, Follower, MIN_PAYLOAD, Random, Seed, Watchdog, fill};
use crate::map::{self, Access, Mapping};
use crate::ring::swap::Handed;
use crate::ring::write::Refused;
use crate::{Config, Host, Mode, Writer, WriterKind, rseq};
use ringtap_abi::clock::ClockId;
use ringtap_abi::event::max_payload;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::time::{Duration, Instant};

/// One round's parameters, all from the seed.
#[derive(Clone, Debug)]
struct Plan {
    seed: u64,
    config: Config,
    processes: u32,
    threads: u32,
    /// Microseconds between two signals to a writing thread; 0: none.
    signal_us: u64,
    /// Milliseconds between two deaths; 0: nobody is killed.
    kill_ms: u64,
    /// Most bytes of a payload.
    payload: usize,
    hops: bool,
    pauses: bool,
    resets: bool,
    switches: bool,
    cursors: u32,
    duration: Duration,
}

impl Plan {
    fn new(seed: u64, duration: Duration) -> Self {
        let random = &mut Random::new(seed);
        let subbuf_size = random.of(&[4096, 4096, 8192, 65_536]);
        let config = Config {
            subbuf_size,
            ring_subbufs: random.of(&[2, 2, 3, 8, 64, 500]),
            mode: random.of(&[Mode::Overwrite, Mode::Overwrite, Mode::Discard]),
            clock: random.of(&[None, None, Some(ClockId::Mono), Some(ClockId::Cycles)]),
            absolute_stamps: random.one_in(6),
            writer: random.of(&[None, None, Some(WriterKind::Locked)]),
            ..Config::default()
        };
        let largest = max_payload(subbuf_size - 16) as usize - 8;
        Self {
            seed,
            processes: 1 + random.below(4) as u32,
            threads: 1 + random.below(3) as u32,
            signal_us: random.of(&[0, 50, 500]),
            kill_ms: random.of(&[0, 5, 30]),
            payload: random.of(&[24, 48, 200, 1000, largest]).min(largest),
            hops: random.one_in(2),
            pauses: random.one_in(2),
            resets: random.one_in(4),
            switches: random.one_in(4),
            cursors: random.below(4) as u32,
            duration,
            config,
        }
    }
}

/// Most writers of a round: each thread of each process that ever lived, and its signal handler.
const MAX_WRITERS: usize = 4096;

/// What a writer tells the test, in memory that outlives it.
#[repr(C)]
#[derive(Debug, Default)]
struct Account {
    /// Events whose write returned `Ok`: the next event's number.
    committed: AtomicU32,
    /// Events refused because the ring was full.
    full: AtomicU32,
    /// Events refused because the lock was taken.
    busy: AtomicU32,
    /// Events refused because recording was off.
    off: AtomicU32,
    /// Set while an event is being written.
    at_work: AtomicBool,
}

/// Memory that the test and the processes that it forks share.
#[derive(Debug)]
#[repr(C)]
struct Board {
    stop: AtomicBool,
    /// A writer met what must not be; its message is on stderr.
    failed: AtomicBool,
    accounts: [Account; MAX_WRITERS],
}

fn board() -> &'static Board {
    // SAFETY: a new anonymous mapping, zeroed, shared with forked children and never unmapped.
    let start = unsafe {
        rustix::mm::mmap_anonymous(
            std::ptr::null_mut(),
            size_of::<Board>(),
            rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE,
            rustix::mm::MapFlags::SHARED,
        )
    };
    // SAFETY: as large as a board and page-aligned; zeros are valid atomics.
    unsafe { &*start.expect("memory").cast::<Board>() }
}

thread_local! {
    /// What this thread's signal handler writes with. No destructor.
    static HANDLER: Cell<Option<&'static Pencil>> = const { Cell::new(None) };
}

/// One logical writer: a thread, or its signal handler.
#[derive(Debug)]
struct Pencil {
    writer: Writer,
    id: u32,
    account: &'static Account,
    /// Where payloads are built, as long as the longest.
    bytes: RefCell<Box<[u8]>>,
}

impl Pencil {
    /// Writes one event; its length depends on its number. Whatever comes back is counted.
    fn write(&self) -> Result<(), Refused> {
        let number = self.account.committed.load(Relaxed);
        let mut bytes = self.bytes.borrow_mut();
        let spread = bytes.len() - MIN_PAYLOAD + 1;
        let len = MIN_PAYLOAD + number.wrapping_mul(0x9e37_79b1) as usize % spread;
        // Most events are of one plain size, so that the hot path has its share.
        let len = if number.is_multiple_of(4) { len } else { 24.min(bytes.len()) };
        let payload = &mut bytes[..len];
        fill(payload, self.id, number);
        self.account.at_work.store(true, Relaxed);
        let done = match payload.first_chunk::<24>() {
            Some(plain) if len == 24 => self.writer.write_array(plain),
            _ => self.writer.write(payload),
        };
        let count = match done {
            Ok(()) => &self.account.committed,
            Err(Refused::Full) => &self.account.full,
            Err(Refused::Busy) => &self.account.busy,
            Err(Refused::Off) => &self.account.off,
            Err(other) => panic!("writer {}: {other}", self.id),
        };
        count.fetch_add(1, Release);
        self.account.at_work.store(false, Relaxed);
        done
    }
}

extern "C" fn on_signal(_: libc::c_int) {
    if let Some(pencil) = HANDLER.get() {
        let _ = pencil.write();
    }
}

/// A writing process: threads that write until they are told to stop, or killed.
fn child(plan: &Plan, writer: &Writer, board: &'static Board, first_id: u32) -> bool {
    let mut threads = Vec::new();
    for thread in 0..plan.threads {
        let (plan, writer, id) = (plan.clone(), writer.clone(), first_id + 2 * thread);
        threads.push(std::thread::spawn(move || thread_body(&plan, &writer, board, id)));
    }
    // Those whose writers panicked.
    let mut sound = true;
    let mut signals: Vec<_> =
        threads.iter().map(std::os::unix::thread::JoinHandleExt::as_pthread_t).collect();
    signals.retain(|_| plan.signal_us > 0);
    while !board.stop.load(Relaxed) && !signals.is_empty() {
        std::thread::sleep(Duration::from_micros(plan.signal_us));
        for &thread in &signals {
            // SAFETY: the threads are joined below, not before.
            unsafe { libc::pthread_kill(thread, libc::SIGUSR1) };
        }
    }
    for thread in threads {
        sound &= thread.join().is_ok();
    }
    sound
}

fn thread_body(plan: &Plan, writer: &Writer, board: &'static Board, id: u32) {
    let pencil = |id: u32| Pencil {
        writer: writer.clone(),
        id,
        account: &board.accounts[id as usize],
        bytes: RefCell::new(vec![0; plan.payload].into()),
    };
    let own = pencil(id);
    if plan.signal_us > 0 {
        HANDLER.set(Some(Box::leak(Box::new(pencil(id + 1)))));
    }
    let mut random = Random::new(plan.seed ^ u64::from(id) << 32);
    let cpus = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    while !board.stop.load(Relaxed) {
        let _ = own.write();
        if plan.hops && random.one_in(2000) {
            let mut set = rustix::thread::CpuSet::new();
            set.set(random.below(cpus) as usize);
            let _ = rustix::thread::sched_setaffinity(None, &set);
        }
        if plan.pauses && random.one_in(200_000) {
            // More than 2^27 ns, and on most machines than 2^27 cycles: a time extend.
            std::thread::sleep(Duration::from_millis(140));
        }
    }
    // The account of the handler must be quiet before the thread ends.
    HANDLER.set(None);
}

/// Forks a writing process and returns its id.
fn spawn(plan: &Plan, writer: &Writer, board: &'static Board, first_id: u32) -> libc::pid_t {
    // SAFETY: the child uses what fork leaves usable in glibc: memory, threads, mappings; it ends by `_exit`.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork");
    if pid == 0 {
        // Its parent's death is its own.
        // SAFETY: takes numbers.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        let run = || child(plan, writer, board, first_id);
        let sound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_or(false);
        if !sound {
            board.failed.store(true, Relaxed);
        }
        // SAFETY: ends the process without its parent's exit handlers.
        unsafe { libc::_exit(i32::from(!sound)) };
    }
    pid
}

fn reap(pid: libc::pid_t, signal: Option<libc::c_int>) -> libc::c_int {
    if let Some(signal) = signal {
        // SAFETY: our own child, not yet waited for.
        unsafe { libc::kill(pid, signal) };
    }
    let mut status = 0;
    // SAFETY: as above.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    assert_eq!(waited, pid);
    status
}

/// All that was seen of one CPU's ring.
struct Seen {
    mapping: Mapping,
    consumer: Consumer,
    followers: Vec<Follower>,
    /// The next number expected from each writer on this CPU is larger than this.
    last: HashMap<u32, u32>,
    /// The same, as each cursor saw it.
    followers_last: Vec<HashMap<u32, u32>>,
    /// How many events of each writer were read.
    read_of: HashMap<u32, u64>,
    dropped_by_reset: u64,
}

impl Seen {
    fn new(host: &Host, cpu: u32, cursors: u32) -> Self {
        let mapping = map::open(host.read_only(cpu).expect("it has one"), Access::Read).expect("it maps");
        let ring = mapping.ring();
        let followers: Vec<_> = (0..cursors).map(|_| Follower::new(&ring, 0).expect("sound")).collect();
        Self {
            consumer: Consumer::new(&ring),
            followers_last: followers.iter().map(|_| HashMap::new()).collect(),
            followers,
            last: HashMap::new(),
            read_of: HashMap::new(),
            dropped_by_reset: 0,
            mapping,
        }
    }

    /// One GET_READER; whether it brought anything.
    fn consume(&mut self, host: &Host, cpu: u32) -> bool {
        let handed = host.get_reader_page(cpu).expect("the ring is sound");
        let (last, read_of) = (&mut self.last, &mut self.read_of);
        self.consumer.pull(&self.mapping.ring(), handed, |_, event| {
            in_order(last, event, "consumer");
            *read_of.entry(event.writer).or_default() += 1;
        });
        handed != Handed::Nothing
    }

    /// Some steps of each cursor; whether any brought something.
    fn follow(&mut self, steps: u32) -> bool {
        let ring = self.mapping.ring();
        let mut any = false;
        for (follower, last) in self.followers.iter_mut().zip(&mut self.followers_last) {
            for _ in 0..steps {
                if !follower.step(&ring, |_, event| in_order(last, event, "cursor")).expect("sound") {
                    break;
                }
                any = true;
            }
        }
        any
    }
}

fn in_order(last: &mut HashMap<u32, u32>, event: Event, who: &str) {
    let before = last.insert(event.writer, event.number);
    assert!(
        before.is_none_or(|before| before < event.number),
        "{who}: {event:?} comes after number {before:?}"
    );
}

/// What a round came to.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    written: u64,
    read: u64,
    lost: u64,
    left: u64,
    reset: u64,
    dropped: u64,
    busy: u64,
    kills: u64,
    by_cursors: u64,
}

fn round(plan: &Plan) -> Sums {
    let host = Host::new(&plan.config).expect("the plan is possible");
    let cpus = host.cpus();
    let board = board();
    let writer = host.writer();
    let mut seen: Vec<_> = cpus.iter().map(|&cpu| Seen::new(&host, cpu, plan.cursors)).collect();
    let mut next_id = 0;
    let mut children = Vec::new();
    for _ in 0..plan.processes {
        children.push(spawn(plan, &writer, board, next_id));
        next_id += 2 * plan.threads;
    }
    let mut random = Random::new(plan.seed ^ 0x5eed);
    let mut sums = Sums::default();
    let began = Instant::now();
    let mut next_kill = Duration::from_millis(plan.kill_ms);
    let mut off = false;

    while began.elapsed() < plan.duration {
        for (cpu, seen) in cpus.iter().zip(&mut seen) {
            // Now and then a reader that sleeps while everything is overwritten.
            if !random.one_in(50) {
                for _ in 0..random.below(8) {
                    seen.consume(&host, *cpu);
                }
            }
            seen.follow(random.below(8) as u32);
            let _ = host.stats(*cpu).expect("sound");
        }
        if plan.kill_ms > 0 && began.elapsed() > next_kill && (next_id as usize) < MAX_WRITERS - 64 {
            next_kill = began.elapsed() + Duration::from_micros(random.below(2000 * plan.kill_ms));
            let victim = random.below(children.len() as u64) as usize;
            reap(children[victim], Some(libc::SIGKILL));
            children[victim] = spawn(plan, &writer, board, next_id);
            next_id += 2 * plan.threads;
            sums.kills += 1;
        }
        if plan.resets && random.one_in(300) && host.reset().is_ok() {
            for seen in &mut seen {
                let index = seen.mapping.ring().meta().host.next_index.load(Relaxed);
                seen.dropped_by_reset += seen.consumer.skip_to(index);
            }
        }
        if plan.switches && random.one_in(300) {
            off = !off;
            host.set_recording(!off);
        }
        if random.one_in(20) {
            std::thread::sleep(Duration::from_micros(random.below(2000)));
        }
    }

    board.stop.store(true, Release);
    for pid in children {
        assert_eq!(reap(pid, None), 0, "a writing process failed");
    }
    assert!(!board.failed.load(Acquire), "a writer failed");
    host.set_recording(true);
    check(plan, &host, &cpus, &mut seen, board, &mut sums);
    sums
}

/// Counts what is left, reads it, and adds all up.
fn check(plan: &Plan, host: &Host, cpus: &[u32], seen: &mut [Seen], board: &Board, sums: &mut Sums) {
    let mut losses = 0;
    for (&cpu, seen) in cpus.iter().zip(&mut *seen) {
        let stats = host.stats(cpu).expect("sound");
        let ring = seen.mapping.ring();
        let written = ring.written().expect("sound");
        let base = ring.meta().host.base_index.load(Relaxed);
        assert_eq!(stats.written() + base, written, "CPU {cpu}: {stats:?}");
        let left = stats.entries;
        sums.left += left;
        let read_before = seen.consumer.read;
        while seen.consume(host, cpu) {}
        assert_eq!(seen.consumer.read - read_before, left, "what was left can be read");
        while seen.follow(1) {}
        let consumer = &seen.consumer;
        assert_eq!(
            consumer.read + consumer.lost + seen.dropped_by_reset,
            written,
            "CPU {cpu}: read + lost + dropped by resets == written; {stats:?}"
        );
        if plan.config.mode == Mode::Discard && !plan.resets {
            assert_eq!(consumer.lost, 0, "nothing is lost in discard mode");
        }
        sums.written += written;
        sums.read += consumer.read;
        sums.lost += consumer.lost;
        sums.reset += seen.dropped_by_reset;
        sums.dropped += stats.dropped_events;
        sums.busy += stats.commit_overrun;
        losses += consumer.lost + seen.dropped_by_reset;
    }
    check_accounts(plan, seen, board, sums, losses);
    check_cursors(host, cpus, seen, sums);
}

/// Each writer's own count against what was read of it.
fn check_accounts(plan: &Plan, seen: &[Seen], board: &Board, sums: &Sums, losses: u64) {
    let (mut committed, mut full, mut busy, mut gaps, mut in_flight) = (0u64, 0u64, 0u64, 0i64, 0u64);
    for (id, account) in board.accounts.iter().enumerate() {
        let own = u64::from(account.committed.load(Acquire));
        let read: u64 = seen.iter().filter_map(|seen| seen.read_of.get(&(id as u32))).sum();
        // One that was killed between the commit and the count wrote one more.
        let doubt = u64::from(account.at_work.load(Relaxed) && plan.kill_ms > 0);
        assert!(read <= own + doubt, "writer {id} committed {own} events, {read} were read");
        committed += own;
        full += u64::from(account.full.load(Relaxed));
        busy += u64::from(account.busy.load(Relaxed));
        gaps += own as i64 - read as i64;
        in_flight += doubt;
    }
    let in_doubt = |ring: u64, writers: u64| ring >= writers && ring <= writers + in_flight;
    assert!(in_doubt(sums.written, committed), "{} in the rings, {committed} committed", sums.written);
    assert!((losses as i64 - gaps).unsigned_abs() <= in_flight, "{losses} lost, gaps of {gaps}");
    if !plan.resets {
        assert!(in_doubt(sums.dropped, full), "{} dropped, {full} refused", sums.dropped);
        assert!(in_doubt(sums.busy, busy), "{} commit overruns, {busy} refused", sums.busy);
    }
}

/// A last event on each CPU tells every cursor what it missed; then its sums are exact too.
fn check_cursors(host: &Host, cpus: &[u32], seen: &mut [Seen], sums: &mut Sums) {
    let writer = host.writer();
    let numbers = RefCell::new(0);
    for (&cpu, seen) in cpus.iter().zip(seen) {
        let Some(_pin) = crate::pin::Pin::to(cpu) else { continue };
        let mut payload = [0; 24];
        fill(&mut payload, u32::MAX, numbers.replace_with(|&mut number| number + 1));
        writer.write(&payload).expect("the ring was read empty");
        while seen.follow(1) {}
        let written = seen.mapping.ring().written().expect("sound");
        for follower in &seen.followers {
            assert_eq!(follower.read + follower.lost, written, "a cursor's sum on CPU {cpu}");
            sums.by_cursors += follower.read;
        }
    }
}

#[test]
fn torture() {
    let Seed { seed, duration } = Seed::from_environment("torture", Duration::from_secs(20));
    // SAFETY: the handler is async-signal-safe: it writes an event.
    unsafe { libc::signal(libc::SIGUSR1, on_signal as *const () as libc::sighandler_t) };
    println!("rseq is {}", if rseq::available() { "there" } else { "missing: all writers take the lock" });
    let _watchdog = Watchdog::new("torture", duration + Duration::from_secs(120));
    let began = Instant::now();
    let each = (duration / 20).clamp(Duration::from_millis(500), Duration::from_secs(10));
    for number in 0u64.. {
        if began.elapsed() >= duration {
            break;
        }
        let plan = Plan::new(seed.wrapping_add(number), each);
        println!("{plan:?}");
        let sums = round(&plan);
        println!("    {sums:?}");
    }
}

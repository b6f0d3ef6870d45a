//! Rules in real shared memory, between threads and processes, some of them killed.

use super::*;
use crate::event::Common;
use crate::event::registry::USER_STACK_ID;
use crate::map::{Access, Memory};
use ringtap_abi::predicate::{Comparison, Field, Header, Source, Step, Test};
use ringtap_abi::rules::hist::{Part, Scale, Shape};
use ringtap_abi::rules::{LEN, Region, WORDS};
use ringtap_abi::sync::AtomicU64;
use rustix::fd::AsFd;
use rustix::fs::MemfdFlags;
use std::cell::RefCell;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::time::Duration;

const EVENT: u16 = 40;

/// A region in a memfd, mapped.
struct Shared {
    memory: Memory,
}

impl Shared {
    fn new() -> Self {
        let fd = rustix::fs::memfd_create("rules", MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&fd, LEN as u64).unwrap();
        Self { memory: Memory::map(fd.as_fd(), 0, LEN, Access::Write).unwrap() }
    }

    fn words(&self) -> &[AtomicU64] {
        // SAFETY: the memory is mapped as long as `self`, page-aligned, and made of words for which any bits are valid.
        unsafe { std::slice::from_raw_parts(self.memory.start().as_ptr().cast(), WORDS) }
    }

    fn region(&self) -> Region<'_> {
        Region::new(self.words()).unwrap()
    }
}

/// What an actor was told to do.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Done {
    Write(usize, u16),
    Recording(usize, bool),
    Switch(usize, u16, bool),
}

/// Keeps a list of what it was told, and the state that follows from it.
#[derive(Default)]
struct Log {
    done: RefCell<Vec<Done>>,
    stopped: RefCell<Vec<usize>>,
    on: RefCell<Vec<(usize, u16)>>,
}

impl Log {
    fn take(&self) -> Vec<Done> {
        self.done.take()
    }
}

impl Actor for Log {
    fn write(&self, instance: usize, payload: &[u8]) {
        let id = u16::from_le_bytes([payload[0], payload[1]]);
        if self.is_recording(instance) {
            self.done.borrow_mut().push(Done::Write(instance, id));
        }
    }

    fn is_recording(&self, instance: usize) -> bool {
        !self.stopped.borrow().contains(&instance)
    }

    fn set_recording(&self, instance: usize, on: bool) {
        self.done.borrow_mut().push(Done::Recording(instance, on));
        self.stopped.borrow_mut().retain(|stopped| *stopped != instance);
        if !on {
            self.stopped.borrow_mut().push(instance);
        }
    }

    fn is_on(&self, instance: usize, event: u16) -> bool {
        self.on.borrow().contains(&(instance, event))
    }

    fn set_on(&self, instance: usize, event: u16, on: bool) {
        self.done.borrow_mut().push(Done::Switch(instance, event, on));
        self.on.borrow_mut().retain(|known| *known != (instance, event));
        if on {
            self.on.borrow_mut().push((instance, event));
        }
    }
}

const N: Field = Field { source: Source::Int, signed: true, offset: 8, size: 4 };

/// The program of `n == number`.
fn equals(number: u32) -> Vec<u64> {
    let step = Step {
        test: Test::Number(Comparison::Equal),
        field: N,
        branch_if: false,
        target: 2,
        operand: number.into(),
    };
    let mut program = vec![Header { steps: 1, words: 3 }.pack()];
    program.extend(step.pack());
    program
}

fn trigger(action: Action) -> Trigger {
    Trigger { action, counter: None, filter: None, is_paused: false }
}

fn filtered(number: u32) -> Rules {
    Rules { filter: Some(equals(number)), triggers: Vec::new() }
}

fn payload(n: u32) -> [u8; 12] {
    let mut payload = [0; 12];
    payload[..8]
        .copy_from_slice(&Common { id: EVENT, flags: 0, preempt_count: 0, pid: 7 }.word().to_le_bytes());
    payload[8..].copy_from_slice(&n.to_le_bytes());
    payload
}

fn happen(region: &Region<'_>, on: u64, n: u32, actor: &impl Actor) {
    write(region, &Event { id: EVENT, on, payload: &payload(n), pid: 7, cpu: 0 }, actor);
}

#[test]
fn filters_decide_for_each_instance() {
    let shared = Shared::new();
    let (region, log) = (shared.region(), Log::default());
    let publisher = Publisher::new(region);
    let set = |instance, rules| {
        let mut has_rules = None;
        publisher.set(instance, EVENT, rules, |has| has_rules = Some(has)).unwrap();
        has_rules.unwrap()
    };
    assert!(set(1, filtered(1)));
    assert!(set(2, filtered(2)));
    let written = |on, n| {
        happen(&region, on, n, &log);
        log.take()
    };
    assert_eq!(written(0b111, 1), [Done::Write(0, EVENT), Done::Write(1, EVENT)]);
    assert_eq!(written(0b111, 2), [Done::Write(0, EVENT), Done::Write(2, EVENT)]);
    assert_eq!(written(0b110, 3), []);
    assert_eq!(written(0b100, 1), []);
    assert!(set(1, Rules::default()));
    assert_eq!(written(0b111, 3), [Done::Write(0, EVENT), Done::Write(1, EVENT)]);
    assert_eq!(publisher.events(2), [EVENT]);
    assert!(!set(2, Rules::default()));
    assert_eq!(written(0b100, 3), [Done::Write(2, EVENT)]);
}

#[test]
fn lists_of_pids_decide() {
    let shared = Shared::new();
    let (region, log) = (shared.region(), Log::default());
    let publisher = Publisher::new(region);
    let instances = |log: &Log| {
        happen(&region, 0b11, 1, log);
        log.take().len()
    };
    publisher.set_pids(0, PidList::Only, Some(&[8, 100_000])).unwrap();
    assert_eq!(instances(&log), 1);
    publisher.set_pids(0, PidList::Only, Some(&[7, 4_000_000])).unwrap();
    assert_eq!(publisher.pids(0, PidList::Only), Some(vec![7, 4_000_000]));
    assert_eq!(instances(&log), 2);
    publisher.set_pids(1, PidList::Not, Some(&[7])).unwrap();
    assert_eq!(instances(&log), 1);
    publisher.set_pids(0, PidList::Only, Some(&[])).unwrap();
    assert_eq!(instances(&log), 0);
    publisher.set_pids(0, PidList::Only, None).unwrap();
    assert_eq!(publisher.pids(0, PidList::Only), None);
    publisher.set_pids(1, PidList::Not, None).unwrap();
    assert_eq!(instances(&log), 2);
    assert_eq!(publisher.set_pids(0, PidList::Only, Some(&[1 << 22])), Err(RulesError::Pid(1 << 22)));
}

#[test]
fn triggers_act_before_the_record_unless_one_needs_it() {
    let shared = Shared::new();
    let (region, log) = (shared.region(), Log::default());
    let publisher = Publisher::new(region);
    let mut rules = Rules { filter: None, triggers: vec![trigger(Action::TraceOff)] };
    publisher.set(0, EVENT, rules.clone(), |_| {}).unwrap();
    happen(&region, 1, 1, &log);
    assert_eq!(log.take(), [Done::Recording(0, false)], "traceoff keeps its event out");
    rules.triggers[0].action = Action::TraceOn;
    publisher.set(0, EVENT, rules.clone(), |_| {}).unwrap();
    happen(&region, 1, 1, &log);
    assert_eq!(log.take(), [Done::Recording(0, true), Done::Write(0, EVENT)]);
    rules.triggers[0] = Trigger { filter: Some(equals(5)), ..trigger(Action::TraceOff) };
    rules.triggers.push(trigger(Action::EnableEvent(50)));
    publisher.set(0, EVENT, rules, |_| {}).unwrap();
    happen(&region, 1, 1, &log);
    assert_eq!(log.take(), [Done::Write(0, EVENT), Done::Switch(0, 50, true)]);
    happen(&region, 1, 5, &log);
    assert_eq!(log.take(), [Done::Write(0, EVENT), Done::Recording(0, false)], "50 is on already");
}

#[test]
fn triggers_fire_of_events_that_are_not_recorded() {
    let shared = Shared::new();
    let (region, log) = (shared.region(), Log::default());
    let publisher = Publisher::new(region);
    let mut enable = trigger(Action::EnableEvent(50));
    let rules = Rules { filter: Some(equals(1)), triggers: vec![enable.clone()] };
    publisher.set(3, EVENT, rules.clone(), |_| {}).unwrap();
    happen(&region, 0, 2, &log);
    assert_eq!(log.take(), [Done::Switch(3, 50, true)]);
    enable.is_paused = true;
    enable.action = Action::DisableEvent(50);
    publisher.set(3, EVENT, Rules { triggers: vec![enable], ..rules }, |_| {}).unwrap();
    happen(&region, 0, 2, &log);
    assert_eq!(log.take(), [], "it is paused");
}

#[test]
fn stacks_and_snapshots() {
    let shared = Shared::new();
    let (region, log) = (shared.region(), Log::default());
    let publisher = Publisher::new(region);
    let triggers = vec![trigger(Action::Stacktrace), trigger(Action::Snapshot)];
    publisher.set(2, EVENT, Rules { filter: None, triggers }, |_| {}).unwrap();
    happen(&region, 0b100, 2, &log);
    assert_eq!(log.take(), [Done::Write(2, EVENT), Done::Write(2, USER_STACK_ID)]);
    assert_eq!(publisher.wait_for_snapshot_requests(Duration::from_secs(60)), 0b100);
    assert_eq!(publisher.wait_for_snapshot_requests(Duration::ZERO), 0);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| publisher.wait_for_snapshot_requests(Duration::from_secs(60)));
        happen(&region, 0, 2, &Log::default());
        assert_eq!(waiter.join().unwrap(), 0b100);
    });
}

#[test]
fn counters_count_what_had_an_effect() {
    let shared = Shared::new();
    let (region, log) = (shared.region(), Log::default());
    let publisher = Publisher::new(region);
    let counter = publisher.new_counter(2).unwrap();
    let off = Trigger { counter: Some(counter), ..trigger(Action::TraceOff) };
    publisher.set(0, EVENT, Rules { filter: None, triggers: vec![off] }, |_| {}).unwrap();
    for left in [1, 1, 0, 0] {
        happen(&region, 1, 1, &log);
        assert_eq!(publisher.left(counter), left);
        if left == 1 && log.take().is_empty() {
            log.set_recording(0, true);
            log.take();
        }
    }
    publisher.free_counter(counter);
    let other = publisher.new_counter(5).unwrap();
    assert_eq!(other.slot, counter.slot, "the place is used again");
    assert!(!region.count_down(counter), "but not by its old owner");
    assert_eq!((publisher.left(counter), publisher.left(other)), (0, 5));
}

fn shape(bits: u8) -> Shape {
    Shape {
        keys: [Some(Part::Number(N, Scale::None)), None, None],
        values: [Some(Part::Number(N, Scale::None)), None, None],
        bits,
        with_comm: true,
    }
}

fn with_hist(publisher: &Publisher<Region<'_>>, shape: &Shape) -> Hist {
    let hist = publisher.new_hist(shape).unwrap();
    let triggers = vec![trigger(Action::Hist(hist))];
    publisher.set(0, EVENT, Rules { filter: None, triggers }, |_| {}).unwrap();
    hist
}

#[test]
fn histograms_add_up() {
    let shared = Shared::new();
    let (region, log) = (shared.region(), Log::default());
    let publisher = Publisher::new(region);
    let hist = with_hist(&publisher, &shape(7));
    for n in 0..1000 {
        happen(&region, 0, n % 10, &log);
    }
    let (mut rows, totals) = publisher.read_hist(hist);
    rows.sort_by(|a, b| a.key.cmp(&b.key));
    assert_eq!(totals, HistTotals { hits: 1000, drops: 0 });
    assert_eq!(rows.len(), 10);
    let name = std::fs::read_to_string("/proc/thread-self/comm").unwrap();
    for (n, row) in (0..).zip(&rows) {
        assert_eq!((&row.key[..], &row.sums[..]), (&[n][..], &[100, 100 * n][..]));
        assert!(row.comm.unwrap().starts_with(name.trim_end().as_bytes()));
    }
    publisher.free_hist(hist);
    assert_eq!(publisher.read_hist(hist), (Vec::new(), HistTotals::default()));
    happen(&region, 0, 1, &log);
}

#[test]
fn a_full_histogram_drops_new_keys_only() {
    let shared = Shared::new();
    let (region, log) = (shared.region(), Log::default());
    let publisher = Publisher::new(region);
    let hist = with_hist(&publisher, &shape(7));
    for n in 0..500 {
        happen(&region, 0, n, &log);
    }
    happen(&region, 0, 0, &log);
    let (rows, totals) = publisher.read_hist(hist);
    assert_eq!(rows.len(), 128 + 128 / 8, "what it was made for, and the elements for killed writers");
    assert_eq!(totals, HistTotals { hits: 145, drops: 356 });
}

#[test]
fn another_host_goes_on_with_the_rules() {
    let shared = Shared::new();
    let (region, log) = (shared.region(), Log::default());
    let first = Publisher::new(region);
    let hist = with_hist(&first, &shape(8));
    let counter = first.new_counter(3).unwrap();
    let triggers = vec![
        Trigger { counter: Some(counter), filter: Some(equals(4)), ..trigger(Action::EnableEvent(9)) },
        Trigger { is_paused: true, ..trigger(Action::Snapshot) },
    ];
    let rules = Rules { filter: Some(equals(3)), triggers };
    first.set(5, EVENT, rules.clone(), |_| {}).unwrap();
    first.set(5, EVENT + 1, filtered(1), |_| {}).unwrap();
    // What is damaged is given up, and nothing else.
    let damaged = ringtap_abi::rules::Head::unpack(region.head(EVENT + 1).load(Relaxed)).place;
    region.blocks()[damaged as usize].store(7, Relaxed);
    drop(first);

    let second = Publisher::adopt(region).unwrap();
    assert_eq!(second.rules(5, EVENT), rules);
    assert_eq!(second.rules(5, EVENT + 1), Rules::default());
    assert_eq!(second.left(counter), 3);
    happen(&region, 0, 4, &log);
    assert_eq!(log.take(), [Done::Switch(5, 9, true)]);
    assert_eq!(second.read_hist(hist).1.hits, 1);
    let other = second.new_hist(&shape(8)).unwrap();
    assert_ne!(other, hist, "its memory is known to be in use");
    assert_ne!(second.new_counter(1).unwrap().slot, counter.slot);
    assert!(matches!(Publisher::adopt(Shared::new().region()), Err(RulesError::Foreign)));
}

#[test]
fn heads_that_all_name_one_block_are_soon_looked_through() {
    let shared = Shared::new();
    let region = shared.region();
    let first = Publisher::new(region);
    let counter = first.new_counter(3).unwrap();
    let counted = Trigger { counter: Some(counter), ..trigger(Action::TraceOn) };
    first.set(0, EVENT, Rules { filter: None, triggers: vec![counted; 64] }, |_| {}).unwrap();
    let head = region.head(EVENT).load(Relaxed);
    (0..=u16::MAX).for_each(|event| region.head(event).store(head, Relaxed));
    let second = Publisher::adopt(region).unwrap();
    assert_eq!(second.events(0), [0], "the first who names it has it");
    assert_eq!(ringtap_abi::rules::Head::unpack(region.head(EVENT).load(Relaxed)).place, 0);
}

#[test]
fn what_cannot_be_published_changes_nothing() {
    let shared = Shared::new();
    let region = shared.region();
    let publisher = Publisher::new(region);
    publisher.set(0, EVENT, filtered(1), |_| {}).unwrap();
    let refused = |rules| publisher.set(0, EVENT, rules, |_| {}).unwrap_err();
    let program = Rules { filter: Some(vec![1, 2, 3]), triggers: Vec::new() };
    assert_eq!(refused(program), RulesError::Program);
    let many = Rules { filter: None, triggers: vec![trigger(Action::TraceOn); 65] };
    assert_eq!(refused(many), RulesError::TooManyTriggers);
    let mut long = vec![Header { steps: 0, words: 8000 }.pack()];
    long.resize(8000, 0);
    let long = Trigger { filter: Some(long), ..trigger(Action::TraceOn) };
    assert_eq!(refused(Rules { filter: None, triggers: vec![long; 3] }), RulesError::TooLong);
    assert_eq!(publisher.set(63, EVENT, filtered(2), |_| {}), Err(RulesError::NoInstance(63)));
    assert_eq!(publisher.rules(0, EVENT), filtered(1));
    let large = Shape { bits: 18, ..shape(7) };
    assert_eq!(publisher.new_hist(&large), Err(RulesError::Shape));
}

/// splitmix64
struct Random(u64);

impl Random {
    fn new(test: &str) -> Self {
        let seed = std::env::var("RINGTAP_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or(u64::from(std::process::id()) << 20 | 1);
        println!("{test}: RINGTAP_SEED={seed}");
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// Compares what was recorded with what was switched: both come from one block, or it was torn.
struct OneBlock<'a> {
    written: RefCell<bool>,
    switched: RefCell<Option<u16>>,
    torn: &'a AtomicU32,
}

impl Actor for OneBlock<'_> {
    fn write(&self, _: usize, _: &[u8]) {
        *self.written.borrow_mut() = true;
    }

    fn is_recording(&self, _: usize) -> bool {
        true
    }

    fn set_recording(&self, _: usize, _: bool) {
        self.torn.fetch_add(1, Relaxed);
    }

    fn is_on(&self, _: usize, _: u16) -> bool {
        false
    }

    fn set_on(&self, _: usize, event: u16, _: bool) {
        *self.switched.borrow_mut() = Some(event);
    }
}

#[test]
fn a_decision_is_made_by_one_block_however_fast_they_change() {
    let shared = Shared::new();
    let region = shared.region();
    let publisher = Publisher::new(region);
    let mut random = Random::new("a_decision_is_made_by_one_block");
    // Block k accepts n == k, and switches event k on. It is longer than others by k triggers that are paused.
    let rules = |k: u64| {
        let number = u32::try_from(k).unwrap();
        let paused = Trigger { is_paused: true, ..trigger(Action::TraceOff) };
        let mut triggers = vec![paused; usize::try_from(k).unwrap()];
        triggers.push(trigger(Action::EnableEvent(u16::try_from(k).unwrap())));
        Rules { filter: Some(equals(number)), triggers }
    };
    // Room for one block more than there are events: each change writes over the block that the last one left.
    publisher.leave_words(4 * 14 + 14);
    for event in EVENT..EVENT + 4 {
        publisher.set(0, event, rules(8), |_| {}).unwrap();
    }
    let (stop, torn, decisions) = (AtomicBool::new(false), AtomicU32::new(0), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for event in EVENT..EVENT + 4 {
            let (stop, torn, decisions) = (&stop, &torn, &decisions);
            scope.spawn(move || {
                let mut n = 0;
                while !stop.load(Relaxed) {
                    n = n % 8 + 1;
                    let one = OneBlock { written: RefCell::default(), switched: RefCell::default(), torn };
                    let happened = Event { id: event, on: 1, payload: &payload(n), pid: 7, cpu: 0 };
                    write(&region, &happened, &one);
                    let switched = one.switched.into_inner();
                    // None: the rules changed in all rounds, so that the event was recorded as if it had none.
                    let expected = switched.is_none_or(|switched| u32::from(switched) == n);
                    torn.fetch_add(u32::from(one.written.into_inner() != expected), Relaxed);
                    decisions.fetch_add(1, Relaxed);
                }
            });
        }
        for _ in 0..50_000 {
            let event = EVENT + u16::try_from(random.below(4)).unwrap();
            while publisher.set(0, event, rules(1 + random.below(8)), |_| {}).is_err() {
                // Too large for the piece that is free: a smaller one will do.
            }
        }
        stop.store(true, Relaxed);
    });
    println!("{} decisions", decisions.load(Relaxed));
    assert_eq!(torn.load(Relaxed), 0);
    assert!(decisions.load(Relaxed) > 0);
}

#[test]
fn any_words_are_survived() {
    let shared = Shared::new();
    let (region, log) = (shared.region(), Log::default());
    let publisher = Publisher::new(region);
    let mut random = Random::new("any_words_are_survived");
    let hist = with_hist(&publisher, &shape(7));
    let mut rules = publisher.rules(0, EVENT);
    rules.filter = Some(equals(1));
    rules.triggers.push(Trigger { filter: Some(equals(2)), ..trigger(Action::Stacktrace) });
    for _ in 0..5_000 {
        publisher.set(0, EVENT, rules.clone(), |_| {}).unwrap();
        let place = ringtap_abi::rules::Head::unpack(region.head(EVENT).load(Relaxed)).place as usize;
        for _ in 0..=random.below(3) {
            let block = &region.blocks()[place..place + 16];
            let hist = &region.hists()[..64];
            let hurt = if random.below(2) == 0 { block } else { hist };
            let word = &hurt[usize::try_from(random.below(hurt.len() as u64)).unwrap()];
            // A bit, a byte, or all of it.
            let mask = [1, 0xff, u64::MAX][usize::try_from(random.below(3)).unwrap()];
            word.fetch_xor((random.next() & mask) << (8 * random.below(8)), Relaxed);
        }
        happen(&region, 1, u32::try_from(random.below(4)).unwrap(), &log);
        let _ = publisher.read_hist(hist);
        if random.below(16) == 0 {
            let _ = Publisher::adopt(region);
        }
    }
}

/// Forks a process that runs `body` and ends.
fn fork(body: impl FnOnce()) -> libc::pid_t {
    // SAFETY: the child runs code that neither allocates nor locks, and ends by `_exit`.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork");
    if pid == 0 {
        body();
        // SAFETY: ends the process without its parent's exit handlers.
        unsafe { libc::_exit(0) };
    }
    pid
}

fn wait(pid: libc::pid_t) {
    // SAFETY: our own child.
    unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
}

/// Counts what it does in shared words.
struct Counting<'a> {
    done: &'a AtomicU64,
}

impl Actor for Counting<'_> {
    fn write(&self, _: usize, _: &[u8]) {}

    fn is_recording(&self, _: usize) -> bool {
        false
    }

    fn set_recording(&self, _: usize, _: bool) {
        self.done.fetch_add(1, Relaxed);
    }

    fn is_on(&self, _: usize, _: u16) -> bool {
        false
    }

    fn set_on(&self, _: usize, _: u16, _: bool) {}
}

/// Words that no rules use, for the tests' own counts.
fn spare<'m>(region: &Region<'m>) -> &'m [AtomicU64] {
    let hists = region.hists();
    &hists[hists.len() - 512..]
}

#[test]
fn processes_share_a_counter() {
    let shared = Shared::new();
    let region = shared.region();
    let publisher = Publisher::new(region);
    let counter = publisher.new_counter(20_000).unwrap();
    let on = Trigger { counter: Some(counter), ..trigger(Action::TraceOn) };
    publisher.set(0, EVENT, Rules { filter: None, triggers: vec![on] }, |_| {}).unwrap();
    let done = &spare(&region)[0];
    let children: Vec<_> = (0..4)
        .map(|_| fork(|| (0..10_000).for_each(|_| happen(&region, 0, 1, &Counting { done }))))
        .collect();
    children.into_iter().for_each(wait);
    assert_eq!((done.load(Relaxed), publisher.left(counter)), (20_000, 0));
}

#[test]
fn killed_processes_leave_a_histogram_that_others_go_on_with() {
    const ROUNDS: u64 = 60;
    let shared = Shared::new();
    let region = shared.region();
    let publisher = Publisher::new(region);
    let mut random = Random::new("killed_processes_leave_a_histogram");
    let hist = with_hist(&publisher, &shape(10));
    let (begun, done) = (&spare(&region)[0], &spare(&region)[1]);
    let count = |key: u64| {
        begun.fetch_add(1, Relaxed);
        happen(&region, 0, u32::try_from(key).unwrap(), &Log::default());
        done.fetch_add(1, Relaxed);
    };
    for round in 0..ROUNDS {
        let child = fork(|| {
            let mut random = Random(round);
            loop {
                count(random.below(600));
            }
        });
        let until = done.load(Relaxed) + random.below(3000);
        while done.load(Relaxed) < until {
            std::thread::yield_now();
        }
        // SAFETY: our own child.
        unsafe { libc::kill(child, libc::SIGKILL) };
        wait(child);
    }
    (0..600).for_each(count);
    let (rows, totals) = publisher.read_hist(hist);
    let hitcounts: u64 = rows.iter().map(|row| row.sums[0]).sum();
    let (begun, done) = (begun.load(Relaxed), done.load(Relaxed));
    println!("{done} events counted, {} processes killed on the way", begun - done);
    assert!((done..=begun).contains(&hitcounts), "{hitcounts} hits of {done} to {begun} events");
    assert!((done..=begun).contains(&totals.hits));
    assert_eq!(totals.drops, 0);
    let mut keys: Vec<_> = rows.iter().map(|row| row.key[0]).collect();
    keys.sort_unstable();
    assert_eq!(keys, (0..600).collect::<Vec<_>>(), "each key once");
}

//! The writer's side: decide without effect, make sure that it was the event's block, then act.

use super::{hist, stack};
use crate::event::Common;
use crate::event::registry::USER_STACK_ID;
use ringtap_abi::predicate::{self, COMM_LEN, Damaged, Subject};
use ringtap_abi::rules::{self, Counter, Head, Kind, MAX_TRIGGERS, PidList, Region, ordering};
use ringtap_abi::sync::{AtomicU32, AtomicU64};
use rustix::thread::futex;
use std::cell::Cell;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::fence;

/// Rounds that changes of the rules may come between before the event is recorded as if it had none.
const ROUNDS: u32 = 16;

/// Does what an event's rules call for. Called from signal handlers too: no method may allocate, lock or wait.
pub trait Actor {
    /// Writes a payload into an instance's buffer.
    fn write(&self, instance: usize, payload: &[u8]);
    /// Whether an instance records.
    fn is_recording(&self, instance: usize) -> bool;
    /// Switches an instance's recording.
    fn set_recording(&self, instance: usize, on: bool);
    /// Whether an event is on in an instance.
    fn is_on(&self, instance: usize, event: u16) -> bool;
    /// Switches an event in an instance.
    fn set_on(&self, instance: usize, event: u16, on: bool);
}

/// An event that is about to be written.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// Its id.
    pub id: u16,
    /// The instances that it is on in, as bits.
    pub on: u64,
    /// The payload, its common fields first.
    pub payload: &'a [u8],
    /// The thread.
    pub pid: u32,
    /// The CPU.
    pub cpu: u32,
}

/// A trigger that fires. Small: a list of as many as there may be lies on the writer's stack, which may be a signal
/// handler's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fired {
    instance: u8,
    kind: Kind,
    event: u16,
    counter: Option<Counter>,
    hist: u32,
    behind: bool,
}

/// Decides about the event, writes it where it is to be written, and lets its triggers act.
#[cold]
pub fn write(region: &Region<'_>, event: &Event<'_>, actor: &impl Actor) {
    // Mostly none fires: then there is no list to keep.
    let fires = Cell::new(false);
    let record = decide(region, event, || fires.set(false), |_| fires.set(true));
    if fires.get() {
        write_and_act(region, event, actor);
    } else {
        record_in(event, record, actor);
    }
}

#[cold]
fn write_and_act(region: &Region<'_>, event: &Event<'_>, actor: &impl Actor) {
    let fired = Cell::new(0);
    let mut list = [None; MAX_TRIGGERS];
    let record = decide(
        region,
        event,
        || fired.set(0),
        |trigger| {
            if let Some(place) = list.get_mut(fired.get()) {
                *place = Some(trigger);
                fired.set(fired.get() + 1);
            }
        },
    );
    let fired = &list[..fired.get()];
    let act_all = |behind| {
        for trigger in fired.iter().flatten().filter(|trigger| trigger.behind == behind) {
            act(region, trigger, event, actor);
        }
    };
    act_all(false);
    record_in(event, record, actor);
    act_all(true);
}

fn record_in(event: &Event<'_>, instances: u64, actor: &impl Actor) {
    for instance in bits(instances) {
        actor.write(instance, event.payload);
    }
}

/// The numbers of the bits that are set.
fn bits(mut word: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = word.trailing_zeros();
        word &= word.checked_sub(1)?;
        Some(bit as usize)
    })
}

/// The instances that record the event. `fire` is told each trigger that fires, `again` that all of these were told
/// in vain.
fn decide(
    region: &Region<'_>,
    event: &Event<'_>,
    mut again: impl FnMut(),
    mut fire: impl FnMut(Fired),
) -> u64 {
    let wanted = event.on & !ignored(region, event);
    for _ in 0..ROUNDS {
        again();
        // R1: pairs with the Release store in `publish_head`: the block is there.
        let word = region.head(event.id).load(ordering::find());
        let head = Head::unpack(word);
        if head.place == 0 {
            return wanted;
        }
        let decided = by_block(region, head.place as usize, event, wanted, &mut fire);
        // R2: pairs with the fence in `Publisher::set`. If a word of the block's next owner was read, the head
        // is seen to have changed.
        fence(ordering::recheck());
        if region.head(event.id).load(Relaxed) == word {
            // A damaged block must not lose events: they are recorded, and no trigger fires.
            return decided.unwrap_or_else(|Damaged| {
                again();
                wanted
            });
        }
    }
    again();
    wanted
}

/// The instances whose lists of pids keep this thread out.
fn ignored(region: &Region<'_>, event: &Event<'_>) -> u64 {
    // R1: pairs with the Release in `Publisher::set_pids`: the list's pids come with it.
    let listed = |list| region.pid_lists(list).load(ordering::find()) & event.on;
    let (only, not) = (listed(PidList::Only), listed(PidList::Not));
    let mut ignored = 0;
    for instance in bits(only | not) {
        let out = only >> instance & 1 == 1 && !region.has_pid(instance, PidList::Only, event.pid)
            || not >> instance & 1 == 1 && region.has_pid(instance, PidList::Not, event.pid);
        ignored |= u64::from(out) << instance;
    }
    ignored
}

fn by_block(
    region: &Region<'_>,
    place: usize,
    event: &Event<'_>,
    mut wanted: u64,
    fire: &mut impl FnMut(Fired),
) -> Result<u64, Damaged> {
    let blocks = region.blocks();
    let subject = Subject { payload: event.payload, cpu: event.cpu, comm: &comm };
    let accepts = |filter: Option<usize>| match filter {
        Some(program) => predicate::evaluate_at(blocks, program, &subject),
        None => Ok(true),
    };
    for section in rules::sections(blocks, place) {
        let section = section?;
        let instance = usize::from(section.head.instance);
        for trigger in rules::triggers(blocks, &section) {
            let trigger = trigger?;
            let head = trigger.head;
            if !head.is_paused && accepts(trigger.filter)? {
                let (behind, counter) = (section.head.acts_behind, trigger.counter);
                fire(Fired {
                    instance: section.head.instance,
                    kind: head.kind,
                    event: head.event,
                    counter,
                    hist: trigger.hist,
                    behind,
                });
            }
        }
        if wanted >> instance & 1 == 1 && !accepts(section.filter)? {
            wanted &= !(1 << instance);
        }
    }
    Ok(wanted)
}

/// Does what a trigger says. A counter is only counted down by what has an effect.
fn act(region: &Region<'_>, trigger: &Fired, event: &Event<'_>, actor: &impl Actor) {
    let instance = usize::from(trigger.instance);
    let may = || trigger.counter.is_none_or(|counter| region.count_down(counter));
    let on = matches!(trigger.kind, Kind::TraceOn | Kind::EnableEvent);
    match trigger.kind {
        Kind::TraceOn | Kind::TraceOff => {
            if actor.is_recording(instance) != on && may() {
                actor.set_recording(instance, on);
            }
        }
        Kind::EnableEvent | Kind::DisableEvent => {
            if actor.is_on(instance, trigger.event) != on && may() {
                actor.set_on(instance, trigger.event, on);
            }
        }
        Kind::Snapshot if may() => request_snapshot(region, instance),
        Kind::Stacktrace if may() => {
            let common = Common { id: USER_STACK_ID, flags: 0, preempt_count: 0, pid: event.pid };
            actor.write(instance, &stack::payload(common));
        }
        Kind::Hist if may() => {
            let subject = Subject { payload: event.payload, cpu: event.cpu, comm: &comm };
            hist::add(region, trigger.hist as usize, &subject);
        }
        Kind::Snapshot | Kind::Stacktrace | Kind::Hist => {}
    }
}

/// Asks the host for a snapshot, and wakes it.
fn request_snapshot(region: &Region<'_>, instance: usize) {
    // SeqCst, both: the host reads the number, then the bits, then sleeps on the number; either it sees the bit, or the
    // number has changed when it goes to sleep.
    region.snapshots().fetch_or(1 << instance, SeqCst);
    region.requests().fetch_add(1, SeqCst);
    // Always, and not only by whoever set the bit: that one may have been killed before it woke anybody. Where
    // nobody sleeps, nothing is lost.
    let _ = futex::wake(lower_half(region.requests()), futex::Flags::empty(), u32::MAX);
}

/// The half of a word that a futex can be.
pub(super) fn lower_half(word: &AtomicU64) -> &AtomicU32 {
    // SAFETY: it lies in the word, is aligned for it, and lives as long; any bits are valid. It is the first half on a
    // little-endian machine.
    unsafe { &*std::ptr::from_ref(word).cast::<AtomicU32>() }
}

/// The calling thread's name, asked from the kernel: it may change at any time.
fn comm() -> [u8; COMM_LEN] {
    let mut name = [0; COMM_LEN];
    // SAFETY: the kernel writes 16 bytes.
    unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    name
}

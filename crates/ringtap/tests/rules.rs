//! Filters, triggers, lists of pids and histograms of instances, obeyed by real processes.

mod attach_common;

use attach_common::{Other, Place, role, say, wait_for_parent};
use ringtap::attach::Attachment;
use ringtap::rules::{Action, PidList, Rules, Trigger};
use ringtap::serve::Server;
use ringtap::{Config, Instance, InstanceError, Instances, Item};
use ringtap_abi::predicate::{Comparison, Field, Header, Source, Step, Test};
use ringtap_abi::rules::hist::{Part, Scale, Shape};
use std::collections::BTreeMap;
use std::time::Duration;

ringtap::event! {
    /// Counts.
    pub struct Counted as rules:counted { number: u32 }
}

ringtap::event! {
    /// Is switched on by the other.
    pub struct Followed as rules:followed { number: u32 }
}

ringtap::event! {
    /// Has a text.
    pub struct Named<'t> as rules:named { name: &'t str }
}

/// What the other processes do.
#[test]
#[ignore = "a process of the other tests"]
fn process() {
    let (role, socket) = role();
    let attachment = Attachment::attach(&socket).expect("it can attach");
    let writer = attachment.writer();
    Counted::register(&attachment).expect("nothing refuses it");
    Followed::register(&attachment).expect("nothing refuses it");
    let written = |number| u32::from(Counted { number }.try_write(&writer).is_ok());
    match role.as_str() {
        "write a hundred" => {
            say(ringtap::thread::id());
            wait_for_parent();
            say((0..100).map(written).sum::<u32>());
        }
        "write both" => say((0..10)
            .map(|number| written(number) + u32::from(Followed { number }.try_write(&writer).is_ok()))
            .sum::<u32>()),
        "fork" => {
            say(ringtap::thread::id());
            wait_for_line();
            let both = || written(1) == 1 && succeeds_in_child(|| written(2) == 1);
            say((0..10).map(|_| u32::from(succeeds_in_child(both))).sum::<u32>());
            wait_for_line();
            // The kernel tells of it when it has begun.
            std::thread::scope(|scope| drop(scope.spawn(|| while written(3) == 0 {}).join()));
            say(1);
            wait_for_line();
        }
        "write for ever" => {
            say("ready");
            loop {
                (0..600).for_each(|number| Counted { number }.write(&writer));
            }
        }
        other => panic!("no role {other}"),
    }
}

/// Waits for the parent's next line, or its death.
fn wait_for_line() {
    let _ = std::io::stdin().read_line(&mut String::new());
}

/// Whether a forked child does this.
fn succeeds_in_child(body: impl FnOnce() -> bool) -> bool {
    // SAFETY: the child writes events, forks, and ends here.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: ends the child.
        unsafe { libc::_exit(i32::from(!body())) };
    }
    let mut status = -1;
    // SAFETY: it is our own child.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    status == 0
}

struct Host {
    instances: Instances,
    _server: Server,
    place: Place,
}

impl Host {
    fn new() -> Self {
        let config = Config { ring_subbufs: 8, ..Config::default() };
        let instances = Instances::new(&config).expect("buffers can be made");
        for declare in [Counted::declared(), Followed::declared()] {
            let text = declare.format(None);
            instances.register_event("rules", declare.name(), &text).expect("new");
        }
        let place = Place::new();
        Self { _server: instances.serve(place.socket()).expect("it can serve"), place, instances }
    }

    fn counted(&self) -> u16 {
        self.instances.event("rules", "counted").expect("declared").id
    }

    fn followed(&self) -> u16 {
        self.instances.event("rules", "followed").expect("declared").id
    }

    fn start(&self, role: &str) -> Other {
        Other::start(role, &self.place.socket())
    }

    /// How many of a hundred events another process can write.
    fn of_a_hundred(&self) -> u32 {
        let mut other = self.start("write a hundred");
        ready(&mut other);
        go(&mut other)
    }
}

/// Waits until a process is attached; its thread's id.
fn ready(other: &mut Other) -> u32 {
    other.hear().expect("it attaches").parse().expect("a number")
}

fn go(other: &mut Other) -> u32 {
    other.go_on();
    counted(other)
}

/// Lets a process go on to its next step; what it counts in that.
fn step(other: &mut Other) -> u32 {
    other.tell("go on");
    counted(other)
}

fn counted(other: &mut Other) -> u32 {
    other.hear().expect("it goes on").parse().expect("a number")
}

fn written(instance: &Instance) -> u64 {
    let host = instance.host();
    host.cpus().iter().map(|&cpu| host.stats(cpu).expect("it is undamaged").written()).sum()
}

/// `number COMPARISON operand`
fn number(comparison: Comparison, operand: u64) -> Vec<u64> {
    let field = Field { source: Source::Int, signed: false, offset: 8, size: 4 };
    let step = Step { test: Test::Number(comparison), field, branch_if: false, target: 2, operand };
    [&[Header { steps: 1, words: 3 }.pack()][..], &step.pack()].concat()
}

fn below(operand: u64) -> Rules {
    Rules { filter: Some(number(Comparison::Less, operand)), triggers: Vec::new() }
}

fn does(action: Action) -> Trigger {
    Trigger { action, counter: None, filter: None, is_paused: false }
}

fn only(trigger: Trigger) -> Rules {
    Rules { filter: None, triggers: vec![trigger] }
}

#[test]
fn filters_are_obeyed_by_every_process_and_for_each_instance() {
    let host = Host::new();
    let (top, one) = (host.instances.top(), host.instances.create("one").expect("new"));
    for instance in [&top, &one] {
        instance.set_event(host.counted(), true);
    }
    top.set_rules(host.counted(), below(7)).expect("there is room");
    assert_eq!(host.of_a_hundred(), 100, "all of them went to one instance or the other");
    assert_eq!((written(&top), written(&one)), (7, 100));
    one.set_rules(host.counted(), below(3)).expect("there is room");
    // A process that was attached before the change obeys as well.
    let mut attached = host.start("write a hundred");
    ready(&mut attached);
    top.set_rules(host.counted(), below(5)).expect("there is room");
    assert_eq!(top.rules(host.counted()), below(5));
    assert_eq!(go(&mut attached), 5);
    assert_eq!((written(&top), written(&one)), (12, 103));
    top.set_rules(host.counted(), Rules::default()).expect("there are fewer");
    host.instances.remove("one").expect("it is there");
    assert!(matches!(one.set_rules(host.counted(), below(1)), Err(InstanceError::Removed { .. })));
    assert_eq!(host.of_a_hundred(), 100);
    let two = host.instances.create("two").expect("there is room again");
    two.set_event(host.counted(), true);
    assert_eq!((host.of_a_hundred(), written(&two)), (100, 100), "the rules went with their instance");
}

#[test]
fn lists_of_pids_are_obeyed() {
    let host = Host::new();
    let top = host.instances.top();
    top.set_event(host.counted(), true);
    let mut others = [host.start("write a hundred"), host.start("write a hundred")];
    let [first, _] = others.each_mut().map(ready);
    top.set_pids(PidList::Only, Some(&[first])).expect("an instance");
    assert_eq!(others.each_mut().map(go), [100, 0]);
    top.set_pids(PidList::Only, None).expect("an instance");
    let mut other = host.start("write a hundred");
    let tid = ready(&mut other);
    top.set_pids(PidList::Not, Some(&[tid])).expect("an instance");
    assert_eq!((go(&mut other), host.of_a_hundred()), (0, 100));
    // It counts for events that are switched on later, too.
    top.set_event(host.counted(), false);
    top.set_event(host.counted(), true);
    top.set_pids(PidList::Only, Some(&[])).expect("an instance");
    assert_eq!(host.of_a_hundred(), 0);
    top.set_pids(PidList::Only, None).expect("an instance");
    top.set_pids(PidList::Not, None).expect("an instance");
    assert_eq!(host.of_a_hundred(), 100);
}

#[test]
fn lists_of_pids_follow_forks() {
    let host = Host::new();
    let top = host.instances.top();
    top.set_event(host.counted(), true);
    let pids = || top.pids(PidList::Only).expect("there is a list");
    let mut other = host.start("fork");
    let first = ready(&mut other);
    top.set_pids(PidList::Only, Some(&[first])).expect("an instance");
    if let Err(error) = top.follow_forks(true) {
        return println!("skipped: {error}");
    }
    assert_eq!((step(&mut other), written(&top)), (10, 20), "children's and grandchildren's first events");
    assert_eq!(step(&mut other), 1, "and a thread's");
    // Those that ended are on the list no more, and neither is the first, in the end.
    let until = std::time::Instant::now() + Duration::from_secs(60);
    let wait_for = |expected: &[u32]| {
        while pids() != expected {
            assert!(std::time::Instant::now() < until, "{:?} is not {expected:?}", pids());
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    wait_for(&[first]);
    other.kill();
    wait_for(&[]);
    assert_eq!(host.of_a_hundred(), 0, "an empty list is a list");
    // Not followed, children are nobody's.
    top.follow_forks(false).expect("that is possible always");
    let mut other = host.start("fork");
    let first = ready(&mut other);
    top.set_pids(PidList::Only, Some(&[first])).expect("an instance");
    assert_eq!(step(&mut other), 0);
    assert_eq!(pids(), [first]);
    other.kill();
    top.set_pids(PidList::Only, None).expect("an instance");
}

#[test]
fn recording_is_switched_by_triggers() {
    let host = Host::new();
    let top = host.instances.top();
    top.set_event(host.counted(), true);
    let off = Trigger { filter: Some(number(Comparison::Equal, 41)), ..does(Action::TraceOff) };
    top.set_rules(host.counted(), only(off)).expect("there is room");
    assert_eq!(host.of_a_hundred(), 42, "a trigger with a filter acts behind its event");
    assert!(!top.host().is_recording());
    // One without acts before it, and as often as its counter allows.
    let counter = host.instances.new_counter(1).expect("there is one");
    let on = Trigger { counter: Some(counter), ..does(Action::TraceOn) };
    top.set_rules(host.counted(), only(on)).expect("there is room");
    assert_eq!((host.of_a_hundred(), host.instances.left(counter)), (100, 0));
    top.set_recording(false);
    assert_eq!(host.of_a_hundred(), 0);
    host.instances.free_counter(counter);
}

#[test]
fn events_are_switched_by_triggers() {
    let host = Host::new();
    let top = host.instances.top();
    let on =
        Trigger { filter: Some(number(Comparison::Equal, 4)), ..does(Action::EnableEvent(host.followed())) };
    // Not even the event that it belongs to has to be on.
    top.set_rules(host.counted(), only(on)).expect("there is room");
    host.start("write both").expect("6");
    assert!(top.event_state(host.followed()) && !top.event_state(host.counted()));
    let off =
        Trigger { filter: Some(number(Comparison::Equal, 8)), ..does(Action::DisableEvent(host.followed())) };
    top.set_rules(host.counted(), only(off)).expect("there is room");
    host.start("write both").expect("8");
    assert!(!top.event_state(host.followed()));
}

#[test]
fn a_snapshot_is_asked_for() {
    let host = Host::new();
    let one = host.instances.create("one").expect("new");
    one.set_event(host.counted(), true);
    one.set_rules(host.counted(), only(does(Action::Snapshot))).expect("there is room");
    let mut other = host.start("write a hundred");
    ready(&mut other);
    other.go_on();
    let asked = host.instances.wait_for_snapshot_requests(Duration::from_secs(60));
    assert_eq!(asked.iter().map(Instance::name).collect::<Vec<_>>(), ["one"]);
    other.finish();
}

#[test]
fn stacks_follow_their_events() {
    let host = Host::new();
    let top = host.instances.top();
    top.set_event(host.counted(), true);
    let stack = Trigger { filter: Some(number(Comparison::Equal, 1)), ..does(Action::Stacktrace) };
    top.set_rules(host.counted(), only(stack)).expect("there is room");
    let mut other = host.start("write a hundred");
    let pid = other.pid();
    ready(&mut other);
    assert_eq!(go(&mut other), 100);
    other.finish();
    let mut ids = Vec::new();
    for cpu in top.host().cpus() {
        let mut reader = top.host().reader(cpu).expect("nobody else reads");
        while let Some(item) = reader.next().expect("it is undamaged") {
            let Item::Record(record) = item else { panic!("nothing is lost") };
            let id = record.payload.u64_at(0).expect("it has common fields") & 0xffff;
            if id == 13 {
                assert_eq!(record.payload.len(), 80);
                assert_eq!(record.payload.u64_at(8).expect("it has a process"), u64::from(pid));
            }
            ids.push(id);
        }
    }
    assert_eq!(ids.iter().filter(|id| **id == 13).count(), 1);
    assert_eq!(ids.len(), 101);
    assert_eq!(host.instances.event("ftrace", "user_stack").expect("always there").id, 13);
}

#[test]
fn texts_are_filtered_too() {
    let instances = Instances::new(&Config::default()).expect("buffers can be made");
    let id = Named::register(&instances).expect("nothing refuses it");
    let (top, writer) = (instances.top(), instances.writer());
    top.set_event(id, true);
    let field = Field { source: Source::DataLoc, signed: false, offset: 8, size: 4 };
    let step =
        Step { test: Test::Glob { equal: true }, field, branch_if: false, target: 2, operand: 4 << 32 | 3 };
    let mut program = vec![Header { steps: 1, words: 4 }.pack()];
    program.extend(step.pack());
    program.push(u64::from_le_bytes(*b"*bc?\0\0\0\0"));
    top.set_rules(id, Rules { filter: Some(program), triggers: Vec::new() }).expect("there is room");
    let is_written = |name| Named { name }.try_write(&writer).is_ok();
    assert_eq!(["abcd", "abc", "bcd", ""].map(is_written), [true, false, true, false]);
}

fn shape() -> Shape {
    let number = Field { source: Source::Int, signed: false, offset: 8, size: 4 };
    Shape {
        keys: [Some(Part::Number(number, Scale::None)), None, None],
        values: [Some(Part::Number(number, Scale::None)), None, None],
        bits: 10,
        with_comm: false,
    }
}

/// Processes that are killed while rules change under their hands: the others go on, and histograms add up.
#[test]
fn killed_writers_hold_nobody_up() {
    const ROUNDS: u32 = 40;
    let host = Host::new();
    let top = host.instances.top();
    top.set_event(host.counted(), true);
    let hist = host.instances.new_hist(&shape()).expect("there is room");
    let counting = |filter| Rules { filter, triggers: vec![does(Action::Hist(hist))] };
    let mut others: Vec<Other> = Vec::new();
    for round in 0..ROUNDS {
        let mut other = host.start("write for ever");
        other.expect("ready");
        others.push(other);
        // Blocks of different lengths, so that memory is used again in other pieces.
        for change in 0..50u64 {
            let mut rules = counting(Some(number(Comparison::Less, change)));
            rules.triggers.resize(1 + usize::try_from(change % 7).expect("few"), does(Action::TraceOn));
            top.set_rules(host.counted(), rules).expect("there is room");
        }
        if round % 2 == 1 {
            others.swap_remove(usize::try_from(round).expect("few") % others.len()).kill();
        }
        if others.len() > 3 {
            others.remove(0).kill();
        }
    }
    others.into_iter().for_each(Other::kill);
    top.set_rules(host.counted(), counting(None)).expect("there is room");
    let sums = || -> BTreeMap<u64, u64> {
        let (rows, totals) = host.instances.read_hist(hist);
        assert_eq!(totals.drops, 0);
        assert!(rows.iter().all(|row| row.sums[1] <= row.key[0] * row.sums[0]), "sums belong to their hits");
        rows.iter().map(|row| (row.key[0], row.sums[0])).collect()
    };
    let before = sums();
    assert_eq!(host.of_a_hundred(), 100);
    let after = sums();
    let more: u64 = after.iter().map(|(key, hits)| hits - before.get(key).unwrap_or(&0)).sum();
    assert_eq!(more, 100);
    assert!(before.values().sum::<u64>() > 0, "the others counted, too");
}

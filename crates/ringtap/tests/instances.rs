//! Instances and their events, in one process and in several.

mod attach_common;

use attach_common::{Other, Place, eventually, role, say, wait_for_parent};
use ringtap::attach::{Connection, Role};
use ringtap::clock::ClockId;
use ringtap::{Config, Instance, InstanceError, Instances, Mode, Refused};

ringtap::event! {
    /// Counts.
    pub struct Counted as instances:counted { number: u64 }
}

ringtap::event! {
    /// Has a text.
    pub struct Told<'t> as instances:told { text: &'t str }
}

/// What the other processes do.
#[test]
#[ignore = "a process of the other tests"]
fn process() {
    let (role, socket) = role();
    match role.as_str() {
        "write when told" => {
            let connection = Connection::connect(&socket, Role::Writer).expect("it can attach");
            let writer = connection.writer().expect("it can map");
            Counted::register(&connection).expect("nothing refuses it");
            drop(connection);
            say("ready");
            // Switched on from outside, and off again: nothing but the event's own look tells this process.
            let mut written = 0u64;
            while !Counted::is_on() {
                std::hint::spin_loop();
            }
            while let Ok(()) | Err(Refused::Busy) = (Counted { number: written }).try_write(&writer) {
                written += 1;
            }
            say(written);
            wait_for_parent();
        }
        other => panic!("no role {other}"),
    }
}

fn small() -> Config {
    Config { ring_subbufs: 8, ..Config::default() }
}

fn instances() -> Instances {
    Instances::new(&small()).expect("buffers can be made")
}

fn written(instance: &Instance) -> u64 {
    let host = instance.host();
    host.cpus().iter().map(|&cpu| host.stats(cpu).expect("it is undamaged").written()).sum()
}

#[test]
fn instances_are_made_listed_found_and_removed() {
    let instances = instances();
    assert!(instances.top().is_top() && instances.list().is_empty());
    for name in ["net", "disk", "ä b"] {
        assert_eq!(instances.create(name).expect("a new name").name(), name);
    }
    let names = || instances.list().iter().map(|instance| instance.name().to_owned()).collect::<Vec<_>>();
    assert_eq!(names(), ["disk", "net", "ä b"]);
    assert!(matches!(instances.create("net"), Err(InstanceError::Exists { .. })));
    for name in ["", ".", "..", "a/b", "a\0b", &"n".repeat(256)] {
        assert!(matches!(instances.create(name), Err(InstanceError::Name { .. })), "{name:?}");
    }
    let net = instances.get("net").expect("it is there");
    instances.remove("net").expect("it is there");
    assert!(net.is_removed() && instances.get("net").is_none());
    assert!(matches!(net.set_size(None, 4), Err(InstanceError::Removed { .. })));
    assert!(matches!(instances.remove("net"), Err(InstanceError::NotFound { .. })));
    assert!(matches!(instances.remove(""), Err(InstanceError::NotFound { .. })), "the top one stays");
    assert_eq!(names(), ["disk", "ä b"]);
}

#[test]
fn there_is_room_for_63_and_places_are_used_again() {
    let tiny = Config { ring_subbufs: 2, ..Config::default() };
    let instances = Instances::new(&tiny).expect("buffers can be made");
    let id = instances.register_event("app", "e", &attach_common::format_of("e", "u64 a")).expect("new");
    for number in 1..63 {
        instances.create(&number.to_string()).expect("there is room");
    }
    assert!(matches!(instances.create("more"), Err(InstanceError::TooMany)));
    let last = instances.get("62").expect("it is there");
    last.set_event(id, true);
    instances.remove("62").expect("it is there");
    assert!(!last.event_state(id));
    last.set_event(id, true);
    let next = instances.create("more").expect("there is room again");
    assert!(!next.event_state(id), "a handle of a removed instance switches nothing");
    assert_eq!(next.bit(), last.bit());
}

#[test]
fn an_event_goes_where_it_is_on() {
    ringtap::event! { struct Here as instances:here { number: u64 } }
    let instances = instances();
    let all = [instances.top(), instances.create("one").expect("new"), instances.create("two").expect("new")];
    let id = Here::register(&instances).expect("nothing refuses it");
    let writer = instances.writer();
    let mut expected = [0; 3];
    for on in 0..8u32 {
        let is_on = |instance: usize| on & 1 << instance != 0;
        (0..3).for_each(|instance| all[instance].set_event(id, is_on(instance)));
        assert_eq!(Here::is_on(), on != 0);
        let result = Here { number: 7 }.try_write(&writer);
        assert_eq!(result, if on == 0 { Err(Refused::Off) } else { Ok(()) });
        (0..3).for_each(|instance| expected[instance] += u64::from(is_on(instance)));
        assert_eq!(all.each_ref().map(written), expected, "with the bits {on:b}");
    }
    // An instance whose recording is off refuses, and the others take the event.
    all[1].set_recording(false);
    assert_eq!(Here { number: 8 }.try_write(&writer), Err(Refused::Off));
    assert_eq!(all.each_ref().map(written), [expected[0] + 1, expected[1], expected[2] + 1]);
}

#[test]
fn texts_go_to_several_instances_too() {
    let instances = instances();
    let one = instances.create("one").expect("new");
    let id = Told::register(&instances).expect("nothing refuses it");
    one.set_event(id, true);
    Told { text: "a" }.write(&instances.writer());
    instances.top().set_event(id, true);
    Told { text: "b" }.write(&instances.writer());
    assert_eq!((written(&instances.top()), written(&one)), (1, 2));
}

#[test]
fn new_events_are_on_where_that_was_asked() {
    let instances = instances();
    let one = instances.create("one").expect("new");
    let declare = |name| instances.register_event("app", name, &attach_common::format_of(name, "u64 a"));
    let before = declare("before").expect("new");
    one.set_new_events(true);
    let after = declare("after").expect("new");
    assert_eq!((one.event_state(before), one.event_state(after)), (false, true));
    assert!(!instances.top().event_state(after) && one.new_events() && !instances.top().new_events());
    assert_eq!(declare("after"), Ok(after));
    one.set_event(after, false);
    assert_eq!(declare("after"), Ok(after));
    assert!(!one.event_state(after), "declared again, it stays as it was switched");
}

#[test]
fn buffers_are_replaced_and_writers_follow() {
    ringtap::event! { struct Follows as instances:follows { number: u64 } }
    let instances = instances();
    let (top, one) = (instances.top(), instances.create("one").expect("new"));
    let id = Follows::register(&instances).expect("nothing refuses it");
    [&top, &one].iter().for_each(|instance| instance.set_event(id, true));
    let writer = instances.writer();
    let write = |number| Follows { number }.try_write(&writer);
    let changes: [&dyn Fn(&Instance); 6] = [
        &|instance| instance.set_size(None, 16).expect("possible"),
        &|instance| instance.set_size(Some(0), 32).expect("possible"),
        &|instance| instance.set_subbuf_size(8192).expect("possible"),
        &|instance| instance.set_clock(ClockId::Mono).expect("possible"),
        &|instance| instance.set_recording(false),
        &|instance| instance.set_recording(true),
    ];
    for (round, change) in changes.iter().enumerate() {
        change(&top);
        change(&one);
        let before = (written(&top), written(&one));
        let took = u64::from(write(round as u64).is_ok());
        assert_eq!(took == 0, round == 4, "change {round}");
        assert_eq!((written(&top), written(&one)), (before.0 + took, before.1 + took), "change {round}");
        // Markers and plain payloads follow as well.
        let before = written(&top);
        let marked = ringtap::event::marker::print(&writer, "here").is_ok();
        assert_eq!((marked, written(&top)), (took == 1, before + took), "change {round}");
    }
    assert_eq!((top.size(0), top.clock()), (Some(16), ClockId::Mono));
    assert_eq!(top.config().subbuf_size, 8192);
    assert!(top.set_size(Some(10_000), 4).is_err() && top.set_size(None, 1).is_err());
    assert!(top.set_subbuf_size(5000).is_err());
    assert_eq!(top.size(0), Some(16), "what was refused changed nothing");
}

#[test]
fn a_resize_keeps_events_and_readers() {
    let instances = instances();
    let (top, writer) = (instances.top(), instances.writer());
    let mut readers = top.host().readers().expect("nobody else reads");
    let mut read = || -> usize {
        let count = |reader: &mut ringtap::Reader| {
            let mut count = 0;
            while let Some(item) = reader.next().expect("the ring is sound") {
                assert!(matches!(item, ringtap::Item::Record(_)), "{item:?}");
                count += 1;
            }
            count
        };
        readers.iter_mut().map(count).sum()
    };
    let write = |count: u32| (0..count).for_each(|_| writer.write(&[7; 16]).expect("there is room"));
    write(20);
    top.set_size(None, 16).expect("it may be read meanwhile");
    write(20);
    assert_eq!((read(), written(&top)), (40, 40));
    write(20);
    top.set_subbuf_size(8192).expect("it may be read meanwhile");
    assert_eq!((top.config().subbuf_size, top.size(0)), (8192, Some(8)));
    write(20);
    assert_eq!((read(), written(&top)), (40, 80));
    // Only another set of buffers will do for another clock, and that no reader follows.
    assert!(matches!(top.set_clock(ClockId::Mono), Err(InstanceError::InUse { .. })));
    drop(readers);
    top.set_clock(ClockId::Counter).expect("nobody reads");
    write(20);
    top.set_size(None, 4).expect("possible");
    assert_eq!((written(&top), top.size(0), top.clock()), (0, Some(4), ClockId::Counter));
}

#[test]
fn the_mode_and_the_percentage_change_in_place() {
    let instances = instances();
    let (top, writer) = (instances.top(), instances.writer());
    top.set_mode(Mode::Discard);
    while writer.write(&[7; 1000]) != Err(Refused::Full) {}
    top.set_mode(Mode::Overwrite);
    assert!((0..1000).all(|_| writer.write(&[7; 1000]) != Err(Refused::Full)));
    assert_eq!((top.mode(), top.buffer_percent()), (Mode::Overwrite, 50));
    assert!(top.set_buffer_percent(101).is_err());
    top.set_buffer_percent(100).expect("possible");
    assert_eq!((top.buffer_percent(), top.host().buffer_percent()), (100, 100));
}

#[test]
fn threads_that_wrote_are_known_by_name() {
    let instances = instances();
    let writer = instances.writer();
    let thread = std::thread::Builder::new().name("some worker".into());
    let write = move || {
        writer.write(&[7; 16]).expect("an overwriting ring takes it");
        ringtap::thread::id()
    };
    let tid = thread.spawn(write).expect("threads can be made").join().expect("no panic");
    let task = instances.task(tid).expect("it wrote");
    assert_eq!((task.tid, task.tgid, task.comm.as_str()), (tid, std::process::id(), "some worker"));
    assert!(instances.tasks().contains(&task));
    assert_eq!(instances.task(u32::MAX), None);
}

#[test]
fn switching_an_event_reaches_other_processes() {
    let (instances, place) = (instances(), Place::new());
    let _server = instances.serve(place.socket()).expect("it can serve");
    let mut others: Vec<_> = (0..4).map(|_| Other::start("write when told", &place.socket())).collect();
    others.iter_mut().for_each(|other| other.expect("ready"));
    let id = instances.event("instances", "counted").expect("they declared it").id;
    let top = instances.top();
    assert!(!top.event_state(id), "as the kernel's, off at first");
    top.set_event(id, true);
    eventually("all of them write", || {
        others.iter().all(|other| instances.tasks().iter().any(|task| task.tgid == other.pid()))
    });
    top.set_event(id, false);
    let said: Vec<u64> =
        others.iter_mut().map(|other| other.hear().expect("a number").parse().expect("a number")).collect();
    let refused: u64 = {
        let host = top.host();
        host.cpus().iter().map(|&cpu| host.stats(cpu).expect("it is undamaged").commit_overrun).sum()
    };
    assert_eq!(written(&top) + refused, said.iter().sum::<u64>());
    others.into_iter().for_each(Other::finish);
}

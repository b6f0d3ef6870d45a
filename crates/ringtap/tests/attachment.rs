//! Processes that stay attached: they follow the host's instances, outlive hosts, fork, and begin before there is one.

mod attach_common;

use attach_common::{Other, Place, become_nobody, eventually, format_of, role, say, wait_for_parent};
use ringtap::attach::{Attachment, Connection, Early, Role};
use ringtap::serve::{Options, Peer, Tree, TreeCall, TreeRefusal};
use ringtap::{Config, Instance, Instances, Item, Mode, Refused, Stats, Writer};
use std::io::BufRead;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

ringtap::event! {
    /// Says which process wrote, and which of its events it is.
    pub struct Step as attachment:step { process: u32, number: u32 }
}

ringtap::event! {
    /// Declared before the step, so that the step's id is not the first.
    pub struct Before<'t> as attachment:before { text: &'t str }
}

/// What the other processes do.
#[test]
#[ignore = "a process of the other tests"]
fn process() {
    let (role, socket) = role();
    match role.as_str() {
        "obey" => {
            let attachment = Attachment::attach(&socket).expect("it can attach");
            Step::register(&attachment).expect("nothing refuses it");
            say("ready");
            obey(&attachment);
        }
        "obey early" => {
            let attachment = Attachment::attach_early(&socket, Early::Off).expect("it needs no host");
            Step::register(&attachment).expect("nothing refuses it");
            say("ready");
            obey(&attachment);
        }
        "keep early" => {
            let config = Config { ring_subbufs: 8, ..Config::default() };
            let attachment =
                Attachment::attach_early(&socket, Early::Keep(config)).expect("it needs no host");
            Step::register(&attachment).expect("nothing refuses it");
            say("ready");
            obey(&attachment);
        }
        "write at full speed" => write_until_told(&socket),
        "read until told" => read_until_told(&socket),
        "hand over early" => {
            let config = Config { ring_subbufs: 64, ..Config::default() };
            let attachment =
                Attachment::attach_early(&socket, Early::HandOver(config)).expect("it needs no host");
            Before::register(&attachment).expect("nothing refuses it");
            Step::register(&attachment).expect("nothing refuses it");
            Before { text: "early" }.write(&attachment.writer());
            say("ready");
            obey(&attachment);
        }
        "fork" => fork_and_obey(&socket),
        "fork a sandbox" => fork_a_sandbox(&socket),
        "clone without hooks" => clone_without_hooks(&socket),
        "stranger" => listen_as_a_stranger(&socket),
        "nobody of its group" => {
            // SAFETY: changes what the process may do, and no memory.
            let groups = unsafe { libc::setgroups(1, &65534) };
            // SAFETY: as above.
            let group = unsafe { libc::setgid(65534) };
            assert!(groups == 0 && group == 0 && become_nobody(), "root may");
            say(Connection::connect(&socket, Role::Writer).is_ok());
        }
        other => panic!("no role {other}"),
    }
}

/// Does what the parent says, a line each: `write N`, `on`, `attached`, `early`.
fn obey(attachment: &Attachment) {
    let writer = attachment.writer();
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("the pipe is sound");
        match line.split_once(' ') {
            Some(("write", count)) => say(write(&writer, count.parse().expect("a number"))),
            _ if line == "on" => say(Step::is_on()),
            _ if line == "attached" => say(attachment.is_attached()),
            _ if line == "early" => {
                let host = attachment.early().expect("it was asked for");
                let stats =
                    host.cpus().into_iter().map(|cpu| host.stats(cpu).expect("it is sound").written());
                say(stats.sum::<u64>());
            }
            _ => panic!("no order {line}"),
        }
    }
}

/// How many of the events were taken, refused for being off, or refused otherwise.
fn write(writer: &Writer, count: u32) -> String {
    let (mut taken, mut off, mut busy) = (0, 0, 0);
    for number in 0..count {
        match (Step { process: std::process::id(), number }).try_write(writer) {
            Ok(()) => taken += 1,
            Err(Refused::Off) => off += 1,
            Err(_) => busy += 1,
        }
    }
    format!("{taken} {off} {busy}")
}

/// Whether the parent has closed the pipe.
fn watch_parent() -> Arc<AtomicBool> {
    let over = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&over);
    std::thread::spawn(move || {
        wait_for_parent();
        told.store(true, Relaxed);
    });
    over
}

/// Says how many events were written, how many dropped, and how many refused otherwise.
fn write_until_told(socket: &Path) {
    let attachment = Attachment::attach(socket).expect("it can attach");
    Step::register(&attachment).expect("nothing refuses it");
    let (writer, process, over) = (attachment.writer(), std::process::id(), watch_parent());
    say("ready");
    let (mut written, mut dropped, mut busy, mut number) = (0u64, 0u64, 0u64, 0);
    while !over.load(Relaxed) {
        match (Step { process, number }).try_write(&writer) {
            Ok(()) => written += 1,
            Err(Refused::Retired | Refused::Full) => dropped += 1,
            Err(Refused::Busy) => busy += 1,
            Err(other) => panic!("{other}"),
        }
        number += 1;
    }
    say(format!("{written} {dropped} {busy}"));
}

/// Says how many events were read, and how many were told as lost.
fn read_until_told(socket: &Path) {
    let connection = Arc::new(Connection::connect(socket, Role::Reader).expect("it can attach"));
    let mut readers = connection.readers().expect("nobody else reads");
    let over = watch_parent();
    say("ready");
    let (mut read, mut lost) = (0, 0);
    loop {
        let was_over = over.load(Relaxed);
        let mut found = false;
        for reader in &mut readers {
            while let Some(item) = reader.next().expect("the ring is sound") {
                found = true;
                match item {
                    Item::Record(_) => read += 1,
                    Item::Lost(some) => lost += some.count.expect("ringtap knows how many"),
                    other => panic!("{other:?}"),
                }
            }
        }
        if was_over && !found {
            break;
        }
    }
    say(format!("{read} {lost}"));
}

/// The child writes when its parent lets it, and both follow the host.
fn fork_and_obey(socket: &Path) {
    let attachment = Attachment::attach(socket).expect("it can attach");
    Step::register(&attachment).expect("nothing refuses it");
    let writer = attachment.writer();
    write(&writer, 10);
    // SAFETY: the child of a process whose other threads hold no lock that it needs.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // The instance is made after the fork: only the child's own link can hear of it.
        eventually("the child knows the new instance", || {
            write(&writer, 1);
            ringtap::thread::id() == std::process::id() && said_go(socket)
        });
        write(&writer, 1000);
        // SAFETY: ends the child without the parent's destructors.
        unsafe { libc::_exit(0) };
    }
    say(child);
    let mut status = 0;
    // SAFETY: it is our own child.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    say(status);
    wait_for_parent();
}

/// The child has no thread but its own, so it may leave its parent's namespaces.
fn fork_a_sandbox(socket: &Path) {
    let attachment = Attachment::attach(socket).expect("it can attach");
    Step::register(&attachment).expect("nothing refuses it");
    attachment.set_follows_forks(false);
    let writer = attachment.writer();
    // SAFETY: the child of a process whose other threads hold no lock that it needs.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: changes the process's namespace, and no memory.
        let done = unsafe { libc::unshare(libc::CLONE_NEWUSER) };
        let errno = if done == 0 { 0 } else { std::io::Error::last_os_error().raw_os_error().unwrap_or(0) };
        write(&writer, 10);
        // SAFETY: ends the child without the parent's destructors.
        unsafe { libc::_exit(errno) };
    }
    let mut status = 0;
    // SAFETY: it is our own child.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    say(status);
    wait_for_parent();
}

/// The child drops what it has of its parent's attachment, which goes on.
fn clone_without_hooks(socket: &Path) {
    let attachment = Attachment::attach(socket).expect("it can attach");
    Step::register(&attachment).expect("nothing refuses it");
    // SAFETY: as `fork`, but that no hook runs.
    let child = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
    if child == 0 {
        drop(attachment);
        // SAFETY: ends the child without the parent's destructors.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    // SAFETY: it is our own child.
    unsafe { libc::waitpid(i32::try_from(child).expect("a process"), &raw mut status, 0) };
    say(status);
    obey(&attachment);
}

/// Listens where a host was, as another user; what the first who connects sends.
fn listen_as_a_stranger(socket: &Path) {
    use rustix::net::{AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType};
    if !become_nobody() {
        return say("skipped");
    }
    let flags = SocketFlags::CLOEXEC;
    let listener = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
    let listener = listener.expect("a socket");
    rustix::net::bind(&listener, &SocketAddrUnix::new(socket).expect("short"))
        .expect("the directory is everybody's");
    rustix::net::listen(&listener, 8).expect("a new socket");
    // Whoever waits for a host looks again.
    let file = std::fs::metadata(socket).expect("it is there");
    std::fs::set_permissions(socket, file.permissions()).expect("it is ours");
    say("listening");
    let theirs = rustix::net::accept(&listener).expect("somebody comes");
    let (_, len) = rustix::net::recv(&theirs, &mut [0u8; 64], RecvFlags::empty()).expect("or goes");
    say(format!("{len} bytes"));
}

/// The parent's way to tell a forked child something.
fn said_go(socket: &Path) -> bool {
    socket.with_extension("go").exists()
}

fn instances() -> Instances {
    let instances = Instances::new(&Config { ring_subbufs: 64, ..Config::default() });
    instances.expect("buffers can be made")
}

fn written(instance: &Instance) -> u64 {
    let host = instance.host();
    host.cpus().iter().map(|&cpu| host.stats(cpu).expect("it is undamaged").written()).sum()
}

fn order(other: &mut Other, line: &str) -> String {
    other.tell(line);
    other.hear().expect("it answers")
}

#[test]
fn instances_that_are_made_later_reach_attached_processes() {
    let (instances, place) = (instances(), Place::new());
    let _server = instances.serve(place.socket()).expect("it can serve");
    let mut others: Vec<_> = (0..3).map(|_| Other::start("obey", &place.socket())).collect();
    others.iter_mut().for_each(|other| other.expect("ready"));
    let id = instances.event("attachment", "step").expect("they declared it").id;
    for round in 0..3 {
        let late = instances.create("late").expect("a new name");
        late.set_event(id, true);
        for other in &mut others {
            eventually("it knows the instance", || order(other, "write 1") == "1 0 0");
        }
        let before = written(&late);
        for other in &mut others {
            assert_eq!(order(other, "write 100"), "100 0 0");
        }
        assert_eq!(written(&late), before + 300);
        // Other buffers reach them as well.
        late.set_size(None, 32).expect("possible");
        for other in &mut others {
            eventually("it knows the buffers", || order(other, "write 1") == "1 0 0");
        }
        let before = written(&late);
        assert_eq!(order(&mut others[round], "write 100"), "100 0 0");
        assert_eq!(written(&late), before + 100);
        instances.remove("late").expect("it is there");
        assert_eq!(order(&mut others[0], "on"), "false", "at once, without a message");
    }
    others.into_iter().for_each(Other::finish);
}

fn numbers<const N: usize>(other: &mut Other) -> [u64; N] {
    let said = other.hear().expect("it says how many");
    let numbers = said.split(' ').map(|number| number.parse().expect("a number")).collect::<Vec<_>>();
    numbers.try_into().expect("as many")
}

fn sum(instance: &Instance, count: impl Fn(&Stats) -> u64) -> u64 {
    let host = instance.host();
    host.cpus().iter().map(|&cpu| count(&host.stats(cpu).expect("it is undamaged"))).sum()
}

/// Processes that write as fast as they can, a process that reads, and sizes that change all the while.
#[test]
fn sizes_change_while_processes_write_and_read() {
    for mode in [Mode::Overwrite, Mode::Discard] {
        let (instances, place) = (instances(), Place::new());
        let _server = instances.serve(place.socket()).expect("it can serve");
        let top = instances.top();
        top.set_new_events(true);
        let mut reader = Other::start("read until told", &place.socket());
        reader.expect("ready");
        let mut writers: Vec<_> =
            (0..3).map(|_| Other::start("write at full speed", &place.socket())).collect();
        writers.iter_mut().for_each(|other| other.expect("ready"));
        let cpus = top.host().cpus();
        for round in 0u32..30 {
            let before = written(&top);
            match round % 5 {
                0 => top.set_subbuf_size(4096 << (round / 5 % 3)).expect("possible"),
                1 => top.set_size(Some(cpus[round as usize % cpus.len()]), 7).expect("possible"),
                _ => top.set_size(None, [500, 3, 64][round as usize % 3]).expect("possible"),
            }
            // Full rings in discard mode wait for the reader.
            eventually("they write on", || written(&top) > before);
            if round == 10 {
                top.set_mode(mode);
            }
        }
        top.set_mode(Mode::Overwrite);
        let mut all = [0; 3];
        for mut writer in writers {
            writer.go_on();
            let said = numbers::<3>(&mut writer);
            (0..3).for_each(|what| all[what] += said[what]);
            writer.finish();
        }
        reader.go_on();
        let [read, lost] = numbers(&mut reader);
        reader.finish();
        let [ok, dropped, busy] = all;
        println!("{mode:?}: {ok} written, {read} read, {lost} lost, {dropped} dropped, {busy} busy");
        assert_eq!(sum(&top, Stats::written), ok);
        assert_eq!(sum(&top, |stats| stats.dropped_events), dropped);
        assert_eq!(sum(&top, |stats| stats.commit_overrun), busy);
        assert_eq!(sum(&top, |stats| stats.entries), 0, "all was read");
        assert_eq!(sum(&top, |stats| stats.read_events), read);
        assert_eq!(read + sum(&top, |stats| stats.overrun), ok);
        assert!(lost <= ok - read, "{lost}");
    }
}

#[test]
fn a_process_that_starts_before_the_host_attaches_when_it_comes() {
    let place = Place::new();
    let mut other = Other::start("obey early", &place.socket());
    other.expect("ready");
    assert_eq!(order(&mut other, "attached"), "false");
    assert_eq!(order(&mut other, "write 10"), "0 10 0", "nothing is kept");
    let instances = instances();
    // Another event first, so that the process's own ids are not the host's.
    instances.register_event("app", "first", &format_of("first", "u64 a")).expect("new");
    let _server = instances.serve(place.socket()).expect("it can serve");
    eventually("it has attached", || order(&mut other, "attached") == "true");
    let id = instances.event("attachment", "step").expect("its link declared it").id;
    assert_eq!(order(&mut other, "write 10"), "0 10 0", "events are off at first");
    instances.top().set_event(id, true);
    assert_eq!(order(&mut other, "write 10"), "10 0 0");
    assert_eq!(written(&instances.top()), 10);
    let is_named = || instances.tasks().iter().any(|task| task.tgid == other.pid());
    assert!(is_named(), "its thread has a name in the trace");
    other.finish();
}

#[test]
fn threads_that_write_into_a_named_instance_alone_have_their_names() {
    let place = Place::new();
    let instances = instances();
    let _server = instances.serve(place.socket()).expect("it can serve");
    let side = instances.create("side").expect("there is room");
    let mut other = Other::start("obey", &place.socket());
    other.expect("ready");
    side.set_event(instances.event("attachment", "step").expect("it declared it").id, true);
    eventually("it knows the instance", || order(&mut other, "write 1") == "1 0 0");
    assert!(instances.tasks().iter().any(|task| task.tgid == other.pid()), "{:?}", instances.tasks());
    assert_eq!(written(&instances.top()), 0);
    other.finish();
}

ringtap::event! {
    /// Which the host of a test knows otherwise.
    pub struct Unlike as attachment:unlike { number: u32 }
}

#[test]
fn no_event_is_written_as_another_one_of_the_host_that_comes() {
    let step: fn(&Writer) = |writer| Step { process: 1, number: 1 }.write(writer);
    let unlike: fn(&Writer) = |writer| Unlike { number: 1 }.write(writer);
    for (name, write) in [("step", step), ("unlike", unlike)] {
        let place = Place::new();
        let config = Config { ring_subbufs: 8, ..Config::default() };
        let attachment =
            Attachment::attach_early(place.socket(), Early::Keep(config)).expect("it needs no host");
        let early = if name == "step" { Step::register(&attachment) } else { Unlike::register(&attachment) };
        let instances = instances();
        let thing = instances.register_event("other", "thing", &format_of("thing", "u64 a")).expect("new");
        assert_eq!(early.expect("nothing refuses it"), thing, "two events have that id");
        if name == "unlike" {
            instances.register_event("attachment", name, &format_of(name, "u64 other")).expect("new");
        }
        instances.top().set_new_events(true);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                let (writer, stop) = (attachment.writer(), &stop);
                scope.spawn(move || {
                    while !stop.load(Relaxed) {
                        write(&writer);
                    }
                });
            }
            let _server = instances.serve(place.socket()).expect("it can serve");
            eventually("it has attached", || attachment.is_attached());
            let writer = attachment.writer();
            (0..1000).for_each(|_| write(&writer));
            stop.store(true, Relaxed);
        });
        let step = instances.event("attachment", "step").map(|event| event.id);
        let mut found = std::collections::BTreeMap::<u16, u64>::new();
        for mut reader in instances.top().host().readers().expect("they map") {
            while let Some(item) = reader.next().expect("it is undamaged") {
                if let Item::Record(record) = item {
                    *found.entry(record.payload.u16_at(0).expect("it begins with its id")).or_default() += 1;
                }
            }
        }
        // Of the event that the host refused there is nothing.
        let expected: Vec<u16> = step.into_iter().collect();
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), expected, "{name}: {found:?}");
    }
}

#[test]
fn what_was_written_before_the_host_is_kept_where_that_was_asked() {
    let place = Place::new();
    let mut other = Other::start("keep early", &place.socket());
    other.expect("ready");
    assert_eq!(order(&mut other, "write 10"), "10 0 0");
    assert_eq!(order(&mut other, "early"), "10");
    let instances = instances();
    instances.top().set_new_events(true);
    let _server = instances.serve(place.socket()).expect("it can serve");
    eventually("it has attached", || order(&mut other, "attached") == "true");
    assert_eq!(order(&mut other, "write 5"), "5 0 0");
    assert_eq!((written(&instances.top()), order(&mut other, "early")), (5, "10".into()));
    other.finish();
}

#[test]
fn what_was_written_before_the_host_is_handed_over_where_that_was_asked() {
    const EVENTS: u32 = 5000;
    let place = Place::new();
    let mut other = Other::start("hand over early", &place.socket());
    other.expect("ready");
    let order_to_write = format!("write {EVENTS}");
    assert_eq!(order(&mut other, &order_to_write), format!("{EVENTS} 0 0"));
    let instances = instances();
    instances.top().set_new_events(true);
    // Among the host's events, the process's own ids are others', and exchanged.
    let first = instances.register_event("app", "first", &format_of("first", "u64 a")).expect("new");
    let _server = instances.serve(place.socket()).expect("it can serve");
    eventually("it has handed over", || !instances.list().is_empty());
    assert_eq!(order(&mut other, "write 5"), "5 0 0");
    assert_eq!(written(&instances.top()), 5);
    let early = instances.get(&format!("early-{}", other.pid())).expect("it is named after the process");
    assert_eq!(written(&early), u64::from(EVENTS) + 1);
    let id = |name| instances.event("attachment", name).expect("it was declared").id;
    let (step, before) = (id("step"), id("before"));
    assert!(first != step && first != before);
    let connection = Connection::connect(place.socket(), Role::Reader).expect("it can attach");
    let connection = connection.of_instance(early.name()).expect("it answers").expect("it is there");
    let (mut numbers, mut texts, mut lost) = (Vec::new(), 0, 0);
    for mut reader in Arc::new(connection).readers().expect("nobody else reads") {
        while let Some(item) = reader.next().expect("the ring is sound") {
            match item {
                Item::Record(record) if record.payload.u16_at(0) == Some(step) => {
                    assert_eq!(record.payload.u32_at(8), Some(other.pid()));
                    numbers.push(record.payload.u32_at(12).expect("it is there"));
                }
                Item::Record(record) if record.payload.u16_at(0) == Some(before) => texts += 1,
                Item::Lost(some) => lost += some.count.expect("ringtap knows how many"),
                other => panic!("{other:?}"),
            }
        }
    }
    // The thread may have been moved between CPUs.
    numbers.sort_unstable();
    assert_eq!((numbers, texts, lost), ((0..EVENTS).collect(), 1, 0));
    // The host goes on as if it had been an ordinary instance.
    instances.remove(early.name()).expect("nobody reads it any more");
    assert_eq!(order(&mut other, "write 5"), "5 0 0");
    other.finish();
}

#[test]
fn a_new_host_in_a_dead_ones_place_gets_the_processes() {
    let place = Place::new();
    let first = instances();
    let server = first.serve(place.socket()).expect("it can serve");
    first.top().set_new_events(true);
    let mut other = Other::start("obey", &place.socket());
    other.expect("ready");
    assert_eq!(order(&mut other, "write 10"), "10 0 0");
    drop(server);
    eventually("it has noticed", || order(&mut other, "attached") == "false");
    assert_eq!(order(&mut other, "write 10"), "10 0 0", "writers need no host");
    assert_eq!(written(&first.top()), 20);
    let second = instances();
    second.register_event("app", "first", &format_of("first", "u64 a")).expect("new");
    second.top().set_new_events(true);
    let _server = second.serve(place.socket()).expect("it can serve");
    eventually("it has attached", || order(&mut other, "attached") == "true");
    assert_eq!(order(&mut other, "write 10"), "10 0 0");
    assert_eq!((written(&first.top()), written(&second.top())), (20, 10));
    other.finish();
}

#[test]
fn a_forked_child_follows_the_host_by_itself() {
    let (instances, place) = (instances(), Place::new());
    instances.top().set_new_events(true);
    let _server = instances.serve(place.socket()).expect("it can serve");
    let mut parent = Other::start("fork", &place.socket());
    let child: u32 = parent.hear().expect("its child").parse().expect("a number");
    let late = instances.create("late").expect("a new name");
    late.set_event(instances.event("attachment", "step").expect("declared").id, true);
    eventually("the child writes into the new instance", || written(&late) > 0);
    std::fs::write(place.socket().with_extension("go"), "").expect("the directory is there");
    parent.expect("0");
    assert!(written(&late) >= 1000);
    let task = instances.task(child).expect("the child is noted by its own id");
    assert_eq!(task.tgid, child);
    parent.finish();
}

#[test]
fn a_forked_child_without_a_link_may_make_itself_a_sandbox() {
    let (instances, place) = (instances(), Place::new());
    instances.top().set_new_events(true);
    let _server = instances.serve(place.socket()).expect("it can serve");
    let mut parent = Other::start("fork a sandbox", &place.socket());
    let status: i32 = parent.hear().expect("it answers").parse().expect("a number");
    assert_ne!(libc::WEXITSTATUS(status), libc::EINVAL, "it has a second thread");
    assert_eq!(written(&instances.top()), 10);
    parent.finish();
}

#[test]
fn a_child_without_hooks_does_not_end_its_parents_attachment() {
    let (instances, place) = (instances(), Place::new());
    let _server = instances.serve(place.socket()).expect("it can serve");
    let mut parent = Other::start("clone without hooks", &place.socket());
    parent.expect("0");
    let late = instances.create("late").expect("a new name");
    late.set_event(instances.event("attachment", "step").expect("declared").id, true);
    eventually("the parent writes into the new instance", || {
        order(&mut parent, "write 1");
        written(&late) > 0
    });
    parent.finish();
}

#[test]
fn another_user_who_listens_in_a_hosts_place_is_offered_nothing() {
    use std::os::unix::fs::PermissionsExt;
    let (instances, place) = (instances(), Place::new());
    let server = instances.serve(place.socket()).expect("it can serve");
    let mut other = Other::start("obey", &place.socket());
    other.expect("ready");
    let everybodys = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(place.directory(), everybodys).expect("it is ours");
    drop(server);
    let mut stranger = Other::start("stranger", &place.socket());
    if stranger.hear().as_deref() == Some("skipped") {
        return;
    }
    stranger.expect("0 bytes");
    stranger.finish();
    other.finish();
}

#[test]
fn a_hundred_processes_attach_are_switched_and_leave_nothing() {
    const PROCESSES: usize = 100;
    let (instances, place) = (instances(), Place::new());
    let server = instances.serve(place.socket()).expect("it can serve");
    let sockets = || {
        let fds = std::fs::read_dir("/proc/self/fd").expect("/proc is mounted");
        fds.filter(|fd| {
            let target = fd.as_ref().map(|fd| std::fs::read_link(fd.path()));
            matches!(target, Ok(Ok(target)) if target.to_string_lossy().starts_with("socket:"))
        })
        .count()
    };
    let mut others: Vec<_> = (0..PROCESSES).map(|_| Other::start("obey", &place.socket())).collect();
    others.iter_mut().for_each(|other| other.expect("ready"));
    let id = instances.event("attachment", "step").expect("they declared it").id;
    for on in [true, false, true] {
        instances.top().set_event(id, on);
        for other in &mut others {
            assert_eq!(order(other, "on"), on.to_string(), "the first look behind the switch sees it");
        }
    }
    // Some are killed; it is nothing to the others.
    others.drain(..PROCESSES / 4).for_each(Other::kill);
    for other in &mut others {
        assert_eq!(order(other, "write 10"), "10 0 0");
    }
    assert_eq!(written(&instances.top()), 10 * others.len() as u64);
    assert!(sockets() >= others.len(), "each has its link");
    others.into_iter().for_each(Other::finish);
    drop(server);
    // Other tests of this process have sockets, too, but not as many.
    eventually("the host has let go of them", || sockets() < PROCESSES / 4);
}

/// Notes what it is asked.
#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Tree for Notes {
    fn call(&self, peer: Peer, path: &str, call: TreeCall<'_>) -> Result<Vec<u8>, TreeRefusal> {
        assert_eq!((peer.uid, peer.pid), (rustix::process::geteuid().as_raw(), std::process::id()));
        self.0.lock().expect("no panic").push(format!("{path} {call:?}"));
        match call {
            TreeCall::Read(from) => {
                Ok(b"0123456789".repeat(10_000)[usize::try_from(from).expect("small")..].to_vec())
            }
            TreeCall::List(_) => Ok(b"a\nb\n".to_vec()),
            TreeCall::Mkdir => Err(TreeRefusal { errno: 17, reason: format!("{path} exists") }),
            TreeCall::Write(_) | TreeCall::Rmdir => Ok(Vec::new()),
        }
    }
}

#[test]
fn calls_on_files_reach_the_tree() {
    let (instances, place, notes) = (instances(), Place::new(), Arc::new(Notes::default()));
    let options = Options { tree: Some(Arc::clone(&notes) as Arc<dyn Tree>), ..Options::default() };
    let server = instances.serve_with(place.socket(), options).expect("it can serve");
    let connection = Connection::connect(place.socket(), Role::Reader).expect("it can attach");
    let mut text = Vec::new();
    loop {
        let part = connection.tree("trace", TreeCall::Read(text.len() as u64)).expect("it answers");
        if part.is_empty() {
            break;
        }
        text.extend(part);
    }
    assert_eq!(text, b"0123456789".repeat(10_000));
    assert_eq!(connection.tree("", TreeCall::List(0)).expect("it answers"), b"a\nb\n");
    assert_eq!(connection.tree("tracing_on", TreeCall::Write(b"1\0\n")).expect("it answers"), b"");
    let error = connection.tree("instances/x", TreeCall::Mkdir).expect_err("refused");
    assert_eq!((error.is_missing(), error.to_string().as_str()), (false, "instances/x exists"));
    let notes = notes.0.lock().expect("no panic");
    assert!(notes.contains(&"tracing_on Write([49, 0, 10])".to_owned()), "{notes:?}");
    drop(server);
    let (other, place) = (self::instances(), Place::new());
    let _server = other.serve(place.socket()).expect("it can serve");
    let connection = Connection::connect(place.socket(), Role::Reader).expect("it can attach");
    assert!(
        connection.tree("trace", TreeCall::Read(0)).expect_err("no tree").to_string().contains("own host")
    );
}

/// A file's writer waits until it is let go.
struct Waits(Mutex<std::sync::mpsc::Receiver<()>>);

impl Tree for Waits {
    fn call(&self, _peer: Peer, _path: &str, call: TreeCall<'_>) -> Result<Vec<u8>, TreeRefusal> {
        if let TreeCall::Write(_) = call {
            let waits = self.0.lock().expect("no panic");
            // A test that fails lets nobody go.
            let _ = waits.recv_timeout(std::time::Duration::from_secs(30));
        }
        Ok(Vec::new())
    }
}

/// A resize through the tree waits for the very processes that the host serves.
#[test]
fn a_call_on_the_tree_that_waits_keeps_no_client_from_attaching_and_following() {
    let (instances, place) = (instances(), Place::new());
    let (let_go, waits) = std::sync::mpsc::channel();
    let tree: Arc<dyn Tree> = Arc::new(Waits(Mutex::new(waits)));
    let options = Options { tree: Some(tree), ..Options::default() };
    let server = instances.serve_with(place.socket(), options).expect("it can serve");
    std::thread::scope(|scope| {
        let socket = place.socket();
        scope.spawn(move || {
            let patience = std::time::Duration::from_secs(60);
            let connection =
                Connection::connect_within(socket, Role::Reader, patience).expect("it can attach");
            connection.tree("size", TreeCall::Write(b"1")).expect("it answers");
        });
        // Who goes away while it waits is forgotten.
        let gone =
            Connection::connect_within(place.socket(), Role::Reader, std::time::Duration::from_secs(1));
        assert!(gone.expect("it can attach").tree("size", TreeCall::Write(b"1")).is_err());
        instances.top().set_new_events(true);
        let mut other = Other::start("write at full speed", &place.socket());
        other.expect("ready");
        let late = instances.create("late").expect("a new name");
        late.set_event(instances.event("attachment", "step").expect("it is declared").id, true);
        eventually("it follows", || written(&late) > 0);
        (0..2).for_each(|_| let_go.send(()).expect("it waits"));
        other.kill();
    });
    drop(server);
}

#[test]
fn readers_name_the_instance_that_they_mean() {
    let (instances, place) = (instances(), Place::new());
    let _server = instances.serve(place.socket()).expect("it can serve");
    let net = instances.create("net").expect("a new name");
    net.set_buffer_percent(7).expect("possible");
    net.host().writer().write(&[7; 12]).expect("an overwriting ring takes it");
    let connect = || Connection::connect(place.socket(), Role::Reader).expect("it can attach");
    assert_eq!(connect().instances().expect("it answers"), ["net"]);
    assert!(connect().of_instance("none").expect("it answers").is_none());
    let connection = connect().of_instance("net").expect("it answers").expect("it is there");
    assert_eq!(connection.buffer_percent(), 7);
    let sum = |connection: &Connection| -> u64 {
        connection.cpus().iter().map(|&cpu| connection.stats(cpu).expect("it answers").entries).sum()
    };
    assert_eq!((sum(&connection), sum(&connect())), (1, 0));
    let connection = Arc::new(connection);
    let handles: Vec<_> =
        connection.cpus().iter().map(|&cpu| connection.consume(cpu).expect("nobody else")).collect();
    assert!(instances.remove("net").is_err(), "it is being read");
    drop(handles);
    eventually("the host has its claims back", || instances.remove("net").is_ok());
}

#[test]
fn a_group_may_be_let_in() {
    const NOGROUP: u32 = 65534;
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: only root can become another user");
    }
    for (group, may) in [(Some(0), false), (Some(NOGROUP), true)] {
        let (instances, place) = (instances(), Place::new());
        let options = Options { group, ..Options::default() };
        let _server = instances.serve_with(place.socket(), options).expect("it can serve");
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(place.directory(), open).expect("it is ours");
        let mut other = Other::start("nobody of its group", &place.socket());
        assert_eq!(other.hear().as_deref(), Some(if may { "true" } else { "false" }));
    }
}

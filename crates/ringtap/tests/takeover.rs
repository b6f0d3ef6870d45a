//! Hosts are killed, and others take their place.

mod attach_common;

use attach_common::{Other, Place, eventually, role, say, wait_for_parent};
use ringtap::attach::{AttachError, Attachment, Connection, Role};
use ringtap::serve::{Options, take_over};
use ringtap::{Config, Host, Instance, Instances, Mode, Refused};
use rustix::process::Signal;
use std::io::BufRead;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

ringtap::event! {
    /// Counts.
    pub struct Step as takeover:step { process: u32, number: u32 }
}

/// What the other processes do.
#[test]
#[ignore = "a process of the other tests"]
fn process() {
    let (role, socket) = role();
    match role.as_str() {
        "host" => host(&socket),
        "host that reads" => host_that_reads(&socket),
        "host that resizes" => host_that_resizes(&socket),
        "host that forks" => host_that_forks(&socket),
        "write until told" => write_until_told(&socket),
        "die writing" => {
            let attachment = Attachment::attach(&socket).expect("it can attach");
            ringtap::event! { struct Last as takeover:last { number: u64 } }
            let id = Last::register(&attachment).expect("nothing refuses it");
            say(id);
            let writer = attachment.writer();
            while Last::is_on() || !writer.is_off() {
                Last { number: 1 }.write(&writer);
            }
        }
        other => panic!("no role {other}"),
    }
}

fn config() -> Config {
    Config { ring_subbufs: 32, ..Config::default() }
}

fn start(socket: &Path) -> (Instances, ringtap::serve::Server) {
    take_over(socket, &config(), Options::default()).expect("it can serve")
}

/// Serves until it is killed; the first of its kind makes an instance.
fn host(socket: &Path) {
    let (instances, _server) = start(socket);
    if instances.saved_settings().is_none() {
        instances.top().set_new_events(true);
        let net = instances.create("net").expect("a new name");
        net.set_new_events(true);
        net.set_mode(Mode::Discard);
        net.set_buffer_percent(7).expect("possible");
        instances.create("gone").expect("a new name");
        instances.remove("gone").expect("it is there");
        assert!(instances.save_settings(b"first"));
        say("new");
    } else {
        say("taken over");
    }
    // Each line is an instance to be made.
    for name in std::io::stdin().lock().lines().map_while(Result::ok) {
        let made = instances.create(&name).expect("a new name");
        let step = instances.event("takeover", "step").expect("declared");
        made.set_event(step.id, true);
        say("made");
    }
}

/// Consumes its own buffers as fast as it can, until it is killed somewhere in that.
fn host_that_reads(socket: &Path) {
    let (instances, _server) = start(socket);
    instances.top().set_new_events(true);
    say(if instances.saved_settings().is_none() { "new" } else { "taken over" });
    assert!(instances.save_settings(b"first"));
    let host = instances.top().host();
    loop {
        host.cpus().into_iter().for_each(|cpu| host.get_reader(cpu).expect("it is sound"));
    }
}

/// Gives its buffers each size that it is told, in sub-buffers.
fn host_that_resizes(socket: &Path) {
    let (instances, _server) = start(socket);
    instances.top().set_new_events(true);
    assert!(instances.save_settings(b"first"));
    say("new");
    for size in std::io::stdin().lock().lines().map_while(Result::ok) {
        instances.top().set_size(None, size.parse().expect("a number")).expect("it can be resized");
        say("resized");
    }
}

fn persistent(socket: &Path) -> Config {
    Config { directory: Some(socket.with_extension("files")), ..config() }
}

/// Forks a child that does nothing and outlives it, while it serves a client and keeps a directory.
fn host_that_forks(socket: &Path) {
    let host = Host::new(&persistent(socket)).expect("buffers can be made");
    let _server = host.serve(socket).expect("it can serve");
    say("serving");
    let _ = std::io::stdin().lock().read_line(&mut String::new());
    // SAFETY: the child waits for a signal, and does nothing else.
    let child = unsafe { libc::fork() };
    if child == 0 {
        loop {
            // SAFETY: waits for a signal.
            unsafe { libc::pause() };
        }
    }
    say(child);
    wait_for_parent();
}

/// Whether the process is to stop before its next event.
static ASKED_TO_STOP: AtomicBool = AtomicBool::new(false);

extern "C" fn ask_to_stop(_: libc::c_int) {
    ASKED_TO_STOP.store(true, Ordering::Relaxed);
}

fn write_until_told(socket: &Path) {
    let attachment = Attachment::attach(socket).expect("it can attach");
    Step::register(&attachment).expect("nothing refuses it");
    let writer = attachment.writer();
    // SAFETY: the handler stores to a static, and nothing else.
    unsafe { libc::signal(libc::SIGUSR1, ask_to_stop as *const () as libc::sighandler_t) };
    say("writing");
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    std::thread::spawn(move || {
        let _ = std::io::stdin().lock().lines().next();
        told.store(true, Ordering::Relaxed);
    });
    let (mut tried, mut off) = (0u32, 0);
    while !stop.load(Ordering::Relaxed) {
        tried += 1;
        let written = (Step { process: std::process::id(), number: tried }).try_write(&writer);
        off += u32::from(written == Err(Refused::Off));
        if ASKED_TO_STOP.swap(false, Ordering::Relaxed) {
            // SAFETY: stops the process, until it is resumed.
            unsafe { libc::raise(libc::SIGSTOP) };
        }
        // Some hundred thousand a second are enough, and the others get a turn.
        if tried.is_multiple_of(256) {
            std::thread::yield_now();
        }
    }
    say(format!("{tried} {off}"));
    wait_for_parent();
}

/// A writer in [`write_until_told`].
trait Writing {
    /// Stops it where it holds no lock: without restartable sequences, a buffer whose lock is held cannot be resized.
    fn stop_between_events(&self);
}

impl Writing for Other {
    fn stop_between_events(&self) {
        self.stop_with(Signal::USR1);
    }
}

/// Lets all writers stop, and counts what they tried: they never knew of anything.
fn stopped(writers: &mut [Other]) -> u64 {
    writers.iter_mut().for_each(|writer| writer.tell("stop"));
    let mut tried = 0;
    for writer in writers {
        let said = writer.hear().expect("it counts");
        let (its, off) = said.split_once(' ').expect("two numbers");
        assert_eq!(off, "0", "nothing was switched off");
        tried += its.parse::<u64>().expect("a number");
    }
    tried
}

/// Events of an instance, as its counters say, and as a reader finds them: read and lost.
fn counted(instance: &Instance) -> (u64, u64) {
    let host = instance.host();
    let stats: Vec<_> = host.cpus().iter().map(|&cpu| host.stats(cpu).expect("it is undamaged")).collect();
    let written = stats.iter().map(|stats| stats.written()).sum();
    for cpu in host.cpus() {
        // Behind the end of a buffer that was replaced, one finds nothing, and the next one has more.
        while host.stats(cpu).expect("it is undamaged").entries > 0 {
            host.get_reader(cpu).expect("it is sound");
        }
    }
    let stats = host.cpus().into_iter().map(|cpu| host.stats(cpu).expect("it is undamaged"));
    (written, stats.map(|stats| stats.read_events + stats.overrun).sum())
}

/// Events that could not wait for a lock: of writers without restartable sequences.
fn refused(instance: &Instance) -> u64 {
    let host = instance.host();
    host.cpus().iter().map(|&cpu| host.stats(cpu).expect("it is undamaged").commit_overrun).sum()
}

#[test]
fn a_host_that_was_killed_is_replaced_and_nothing_is_lost() {
    let place = Place::new();
    let mut host = Other::start("host", &place.socket());
    host.expect("new");
    let mut writers: Vec<_> = (0..3).map(|_| Other::start("write until told", &place.socket())).collect();
    writers.iter_mut().for_each(|writer| writer.expect("writing"));
    for _ in 0..3 {
        host.kill();
        host = Other::start("host", &place.socket());
        host.expect("taken over");
    }
    // The last one is this process.
    host.kill();
    let (instances, _server) = start(&place.socket());
    assert_eq!(instances.saved_settings().as_deref(), Some(&b"first"[..]));
    let names: Vec<_> = instances.list().iter().map(|each| each.name().to_owned()).collect();
    assert_eq!(names, ["net"]);
    let (top, net) = (instances.top(), instances.get("net").expect("it was made"));
    assert_eq!((net.mode(), net.buffer_percent(), net.new_events()), (Mode::Discard, 7, true));
    let event = instances.event("takeover", "step").expect("its declaration outlives hosts");
    assert!(event.format.contains("field:u32 number;") && top.event_state(event.id));
    // The new host's changes reach them: they are attached to it.
    let late = instances.create("late").expect("a new name");
    late.set_event(event.id, true);
    eventually("the writers know the new instance", || counted(&late).0 > 0);
    let written = stopped(&mut writers);
    let refused = refused(&top);
    let (counted, found) = counted(&top);
    assert_eq!((counted + refused, found), (written, counted));
    assert!(instances.tasks().iter().any(|task| task.tgid == writers[0].pid()));
    writers.into_iter().for_each(Other::finish);
}

#[test]
fn hosts_that_are_killed_while_they_read_lose_nothing() {
    let place = Place::new();
    let mut host = Other::start("host that reads", &place.socket());
    host.expect("new");
    let mut writers: Vec<_> = (0..2).map(|_| Other::start("write until told", &place.socket())).collect();
    writers.iter_mut().for_each(|writer| writer.expect("writing"));
    for round in 0..10u64 {
        // Somewhere in its reading; where is chance.
        std::thread::sleep(std::time::Duration::from_micros(977 * round));
        host.kill();
        host = Other::start("host that reads", &place.socket());
        host.expect("taken over");
    }
    host.kill();
    let (instances, _server) = start(&place.socket());
    let written = stopped(&mut writers);
    let refused = refused(&instances.top());
    let (counted, found) = counted(&instances.top());
    assert_eq!((counted + refused, found), (written, counted));
    writers.into_iter().for_each(Other::finish);
}

#[test]
fn a_writer_that_was_killed_leaves_its_events_and_declarations() {
    let place = Place::new();
    let (instances, _server) = start(&place.socket());
    instances.top().set_new_events(true);
    let mut writer = Other::start("die writing", &place.socket());
    let id: u16 = writer.hear().expect("its id").parse().expect("a number");
    eventually("it writes", || counted(&instances.top()).0 > 100);
    let pid = writer.pid();
    writer.kill();
    let event = instances.event("takeover", "last").expect("its declaration outlives it");
    assert_eq!(event.id, id);
    let (counted, found) = counted(&instances.top());
    assert!(counted > 100 && counted == found);
    assert!(instances.tasks().iter().any(|task| task.tgid == pid), "its name is known");
}

#[test]
fn an_offer_that_is_behind_does_not_take_an_instance_away() {
    let place = Place::new();
    let mut host = Other::start("host", &place.socket());
    host.expect("new");
    let start_writer = || {
        let mut writer = Other::start("write until told", &place.socket());
        writer.expect("writing");
        writer
    };
    let behind = start_writer();
    behind.stop();
    host.tell("late");
    host.expect("made");
    // It attaches when the instance is there.
    let ahead = start_writer();
    ahead.stop();
    host.kill();
    let socket = place.socket();
    let next = std::thread::spawn(move || start(&socket));
    behind.resume();
    // Time for it to be the first, which is the point; but nothing is wrong if it is not.
    std::thread::sleep(std::time::Duration::from_millis(300));
    ahead.resume();
    let (instances, _server) = next.join().expect("no panic");
    let late = instances.get("late").expect("somebody has its buffers");
    eventually("somebody writes into it", || counted(&late).0 > 0);
}

/// Events that were refused, or are lost with a buffer.
fn dropped(instance: &Instance) -> u64 {
    let host = instance.host();
    host.cpus().iter().map(|&cpu| host.stats(cpu).expect("it is undamaged").dropped_events).sum()
}

/// How many files of a host's a process has open.
fn files(pid: u32) -> usize {
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it lives");
    let targets = open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    targets.filter(|target| target.to_string_lossy().contains("memfd:ringtap")).count()
}

fn host_that_resizes_and_two_writers(place: &Place) -> (Other, [Other; 2]) {
    let mut host = Other::start("host that resizes", &place.socket());
    host.expect("new");
    let mut writers = [(); 2].map(|()| Other::start("write until told", &place.socket()));
    writers.iter_mut().for_each(|writer| writer.expect("writing"));
    (host, writers)
}

/// Stops the writers; what they tried, all of which was written, or refused and counted.
fn finish_exactly(mut writers: [Other; 2], top: &Instance) {
    let tried = stopped(&mut writers);
    let settled = || {
        let (written, found) = counted(top);
        assert_eq!(written, found);
        written + dropped(top) + refused(top)
    };
    // What is lost with a buffer is counted once its process comes to it.
    eventually("all that was tried is counted", || settled() == tried);
    writers.into_iter().for_each(Other::finish);
}

#[test]
fn a_buffer_that_was_announced_and_never_used_takes_no_event() {
    let place = Place::new();
    let (mut host, writers) = host_that_resizes_and_two_writers(&place);
    let [behind, ahead] = &writers;
    // The host tells of new buffers, and waits a while for the one that is stopped.
    behind.stop_between_events();
    let known = files(ahead.pid());
    host.tell("64");
    eventually("one is told", || files(ahead.pid()) > known + 1);
    ahead.stop_between_events();
    host.kill();
    behind.resume();
    let (instances, _server) = start(&place.socket());
    instances.top().set_size(None, 48).expect("it can be resized");
    // The old buffers are retired; what it knows behind them never was used, and what is, it does not know yet.
    ahead.resume();
    finish_exactly(writers, &instances.top());
}

#[test]
fn what_is_lost_with_a_buffer_that_nobody_offered_in_time_is_counted() {
    let place = Place::new();
    let (mut host, writers) = host_that_resizes_and_two_writers(&place);
    let [behind, ahead] = &writers;
    behind.stop_between_events();
    host.tell("64");
    host.expect("resized");
    // It writes into the new buffers, alone.
    std::thread::sleep(std::time::Duration::from_millis(20));
    ahead.stop_between_events();
    host.kill();
    behind.resume();
    // Waits for it in vain.
    let (instances, _server) = start(&place.socket());
    ahead.resume();
    eventually("it comes back", || dropped(&instances.top()) > 0);
    finish_exactly(writers, &instances.top());
}

/// A child of a host, which is none of ours.
struct Orphan(i32);

impl Drop for Orphan {
    fn drop(&mut self) {
        // SAFETY: it waits for a signal; nobody else knows of it.
        unsafe { libc::kill(self.0, libc::SIGKILL) };
    }
}

#[test]
fn a_forked_child_keeps_nothing_of_a_host_that_is_killed() {
    let place = Place::new();
    let mut host = Other::start("host that forks", &place.socket());
    host.expect("serving");
    let client = Connection::connect(place.socket(), Role::Reader).expect("it can attach");
    client.stats(0).expect("the host answers");
    host.tell("fork");
    let orphan = Orphan(host.hear().expect("its child").parse().expect("a number"));
    host.kill();
    eventually("the client hears of the host's death", || {
        let done = client.stats(0);
        assert!(!matches!(done, Err(AttachError::Stalled(_))), "nobody closes its socket");
        matches!(done, Err(AttachError::Gone))
    });
    // SAFETY: asks whether it is there.
    assert_eq!(unsafe { libc::kill(orphan.0, 0) }, 0, "the child lives");
    let connected = Connection::connect(place.socket(), Role::Reader);
    assert!(matches!(connected, Err(AttachError::Dead { .. })), "{connected:?}");
    let next = Host::new(&persistent(&place.socket())).expect("nobody has the directory");
    let _server = next.serve(place.socket()).expect("nobody serves");
    Connection::connect(place.socket(), Role::Reader).expect("it can attach");
}

#[test]
fn where_nobody_lives_a_host_begins_anew() {
    let place = Place::new();
    let mut host = Other::start("host", &place.socket());
    host.expect("new");
    host.kill();
    let (instances, _server) = start(&place.socket());
    assert!(instances.list().is_empty() && instances.saved_settings().is_none());
    assert!(Connection::connect(place.socket(), Role::Reader).is_ok());
}

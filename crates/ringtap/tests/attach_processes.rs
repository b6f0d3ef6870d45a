//! Other processes attach, as writers and as readers, and die.

mod attach_common;

use attach_common::{Other, Served, become_nobody, eventually, format_of, role, say, wait_for_parent};
use ringtap::attach::{self, AttachError, Connection, Role};
use ringtap::{Config, Host, Refused, Waited, Writer};
use rustix::fd::AsRawFd;
use rustix::fs::{FallocateFlags, Mode, OFlags, SealFlags};
use rustix::io::Errno;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};
use std::sync::Arc;
use std::time::{Duration, Instant};

const EVENTS: u64 = 20_000;

/// What the other processes do.
#[test]
#[ignore = "a process of the other tests"]
fn process() {
    let (role, socket) = role();
    match role.as_str() {
        "write some" => write(&attach::writer(socket).expect("it can attach"), EVENTS),
        "write for ever" => {
            let writer = attach::writer(socket).expect("it can attach");
            say("writing");
            write(&writer, u64::MAX);
        }
        "write twice" => {
            let writer = attach::writer(socket).expect("it can attach");
            write(&writer, EVENTS);
            say("half");
            wait_for_parent();
            write(&writer, EVENTS);
        }
        "read-only" => try_to_write(&Connection::connect(socket, Role::Reader).expect("it can attach")),
        "consume" => {
            let connection = Arc::new(Connection::connect(socket, Role::Reader).expect("it can attach"));
            let _handle = connection.consume(0).expect("nobody else does");
            say("consuming");
            wait_for_parent();
        }
        "register" => {
            let connection = Connection::connect(socket, Role::Writer).expect("it can attach");
            let same = connection.register_event("app", "start", &format_of("start", "u64 a"));
            say(same.expect("declared alike"));
            let other = connection.register_event("app", "start", &format_of("start", "u64 b"));
            say(other.expect_err("declared otherwise"));
            say(connection.register_event("app", "mine", &format_of("mine", "u64 a")).expect("a new one"));
        }
        "nobody" => {
            if !become_nobody() {
                return say("skipped");
            }
            let first = Connection::connect(&socket, Role::Reader).expect_err("the file's mode forbids it");
            assert!(first.is_permission());
            say(first);
            wait_for_parent();
            let second = Connection::connect(&socket, Role::Reader).expect_err("the host forbids it");
            assert!(second.is_permission());
            say(second);
        }
        "host" => {
            let host = Host::new(&small()).expect("buffers can be made");
            let _server = host.serve(socket).expect("it can serve");
            say("serving");
            wait_for_parent();
        }
        "attach and detach" => attach_and_detach(&socket),
        other => panic!("no role {other}"),
    }
}

fn small() -> Config {
    Config { ring_subbufs: 16, ..Config::default() }
}

fn write(writer: &Writer, count: u64) {
    for number in 0..count {
        while let Err(refused) = writer.write(&number.to_le_bytes()) {
            assert_eq!(refused, Refused::Busy, "a ring that overwrites is never full");
        }
    }
}

#[test]
fn events_of_other_processes_are_counted() {
    let served = Served::new();
    let writers: Vec<Other> = (0..3).map(|_| Other::start("write some", &served.socket())).collect();
    writers.into_iter().for_each(Other::finish);
    assert_eq!(served.written(), 3 * EVENTS);
}

#[test]
fn killed_writers_leave_the_others_alone() {
    let served = Served::new();
    let mut healthy = Other::start("write twice", &served.socket());
    healthy.expect("half");
    for round in 0..20 {
        let mut victim = Other::start("write for ever", &served.socket());
        victim.expect("writing");
        std::thread::sleep(Duration::from_micros(700 * round));
        victim.kill();
    }
    let before = served.written();
    assert!(before >= EVENTS);
    healthy.finish();
    assert_eq!(served.written(), before + EVENTS);
    assert_eq!(served.sum(|stats| stats.commit_overrun + stats.dropped_events), 0);
}

/// Everything a reader could try with the descriptor it was given.
fn try_to_write(connection: &Connection) {
    let fd = connection.descriptor(0).expect("there is a CPU 0");
    let map = |protection| {
        // SAFETY: a new mapping at a place of the kernel's choice.
        unsafe { rustix::mm::mmap(std::ptr::null_mut(), 4096, protection, MapFlags::SHARED, &fd, 0) }
    };
    let denied = |what, result: Result<(), Errno>, errno| assert_eq!(result, Err(errno), "{what}");
    denied("mmap", map(ProtFlags::READ | ProtFlags::WRITE).map(|_| ()), Errno::ACCESS);
    let mapped = map(ProtFlags::READ).expect("it may read");
    // SAFETY: of our own mapping, to which nothing refers.
    let made_writable =
        unsafe { rustix::mm::mprotect(mapped, 4096, MprotectFlags::READ | MprotectFlags::WRITE) };
    denied("mprotect", made_writable, Errno::ACCESS);
    denied("ftruncate", rustix::fs::ftruncate(&fd, 0), Errno::INVAL);
    denied("write", rustix::io::write(&fd, b"x").map(|_| ()), Errno::BADF);
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    denied("fallocate", rustix::fs::fallocate(&fd, punch, 0, 4096), Errno::BADF);
    denied("seal", rustix::fs::fcntl_add_seals(&fd, SealFlags::WRITE), Errno::PERM);
    let writer = connection.writer().expect_err("a reader gets no writer's descriptors");
    assert!(matches!(writer, AttachError::Map { cpu: 0, .. }), "{writer}");
    if become_nobody() {
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let reopen = |flags| rustix::fs::open(&path, flags, Mode::empty()).map(|_| ());
        denied("reopen", reopen(OFlags::RDWR), Errno::ACCESS);
        denied("reopen to truncate", reopen(OFlags::WRONLY | OFlags::TRUNC), Errno::ACCESS);
        denied("fchmod", rustix::fs::fchmod(&fd, Mode::RWXU), Errno::PERM);
    }
}

#[test]
fn readers_cannot_turn_their_memory_writable_nor_truncate_it() {
    let served = Served::new();
    Other::start("read-only", &served.socket()).finish();
    served.host.writer().write(b"it").expect("the ring is whole");
}

#[test]
fn one_reader_consumes_a_buffer_until_it_ends() {
    let served = Served::new();
    let mut first = Other::start("consume", &served.socket());
    first.expect("consuming");
    let connection =
        Arc::new(Connection::connect(served.socket(), Role::Reader).expect("readers are not limited"));
    let refused = connection.consume(0).expect_err("there is one");
    assert!(refused.is_busy());
    let pid = first.pid();
    assert_eq!(
        refused.to_string(),
        format!(
            "the buffer of CPU 0 is being consumed by process {pid}: end it, or follow without consuming, as `ringtap stream --attach` does"
        )
    );
    first.kill();
    let mut handle = None;
    eventually("the claim of the dead reader is released", || {
        handle = connection.consume(0).ok();
        handle.is_some()
    });
    assert!(connection.consume(0).expect_err("it is ours now").is_busy());
    drop(handle);
    connection.consume(0).expect("a handle that is dropped releases");
}

#[test]
fn a_reader_is_woken_and_handed_what_another_process_wrote() {
    let served = Served::new();
    let connection = Arc::new(Connection::connect(served.socket(), Role::Reader).expect("it can attach"));
    let handles: Vec<_> =
        connection.cpus().iter().map(|&cpu| connection.consume(cpu).expect("free")).collect();
    assert_eq!(handles[0].wait(0, Some(Duration::from_millis(20))).expect("alive"), Waited::TimedOut);
    let waiting: Vec<_> = handles
        .into_iter()
        .map(|handle| {
            std::thread::spawn(move || {
                let mut read = 0;
                while handle.wait(0, None).expect("the host lives") != Waited::Woken {
                    handle.get_reader().expect("the host lives");
                    read = handle.connection().stats(handle.cpu()).expect("the host lives").read_events;
                }
                read
            })
        })
        .collect();
    Other::start("write some", &served.socket()).finish();
    eventually("all is read", || served.sum(|stats| stats.entries) == 0);
    let written = served.written();
    assert_eq!(written, EVENTS);
    let overrun = served.sum(|stats| stats.overrun);
    eventually("all sleepers were sent away", || {
        connection.cpus().iter().for_each(|&cpu| connection.wake_all(cpu).expect("the host lives"));
        waiting.iter().all(std::thread::JoinHandle::is_finished)
    });
    let read: u64 = waiting.into_iter().map(|thread| thread.join().expect("no panic")).sum();
    assert_eq!(read + overrun, written);
}

#[test]
fn a_connection_controls_the_host() {
    let served = Served::new();
    let connection = Connection::connect(served.socket(), Role::Reader).expect("it can attach");
    assert_eq!(connection.cpus(), served.host.cpus());
    assert_eq!(connection.clock(), Some(served.host.clock()));
    assert_eq!(connection.buffer_percent(), 50);
    write(&served.host.writer(), 100);
    for &cpu in connection.cpus() {
        let (theirs, ours) = (connection.stats(cpu).expect("alive"), served.host.stats(cpu).expect("alive"));
        assert_eq!(theirs, ringtap::Stats { now_ts: theirs.now_ts, ..ours });
    }
    connection.set_recording(false).expect("alive");
    assert_eq!(served.host.writer().write(b"x"), Err(Refused::Off));
    connection.set_recording(true).expect("alive");
    connection.reset().expect("alive");
    assert_eq!(served.written(), 0);
    for (asked, said) in [
        (
            connection.stats(9999).map(|_| ()),
            "there is no buffer for CPU 9999: see /sys/devices/system/cpu/possible",
        ),
        (connection.arm(0, 101).map(|_| ()), "a buffer cannot be 101 percent full: use 0 to 100"),
    ] {
        assert_eq!(asked.expect_err("refused").to_string(), said);
    }
    connection.stats(0).expect("what is refused ends nothing");
}

#[test]
fn events_outlive_the_process_that_declared_them() {
    let served = Served::new();
    let start = served.host.register_event("app", "start", &format_of("start", "u64 a")).expect("a good one");
    for _ in 0..2 {
        let mut other = Other::start("register", &served.socket());
        other.expect(&start.to_string());
        let said = other.hear().expect("it goes on");
        assert!(said.starts_with("app:start is declared already, with \"field:u64 a;"), "{said}");
        other.expect(&(start + 1).to_string());
        other.finish();
    }
    let connection = Connection::connect(served.socket(), Role::Reader).expect("it can attach");
    let ours: Vec<_> = served.host.events().iter().map(|event| (**event).clone()).collect();
    assert_eq!(connection.events().expect("alive"), ours);
    assert_eq!(
        ours.iter().map(|event| &*event.name).collect::<Vec<_>>(),
        ["print", "user_stack", "raw_data", "start", "mine"]
    );
    let error = connection.register_event("a\nb", "c", "").expect_err("no name");
    assert!(error.to_string().contains("line breaks"), "{error}");
    let long = "x".repeat(1 << 20);
    assert!(matches!(connection.register_event("a", "b", &long), Err(AttachError::TooLong(_))));
    let long = format_of("b", &"x".repeat(15 * 1024));
    let error = connection.register_event("a", "b", &long).expect_err("more than the host takes");
    assert!(error.to_string().contains("15360 are allowed"), "{error}");
}

#[test]
fn another_users_process_may_not_attach() {
    let served = Served::new();
    let mut other = Other::start("nobody", &served.socket());
    let said = other.hear().expect("it goes on");
    if said == "skipped" {
        return println!("skipped: only root can become another user");
    }
    let path = served.socket();
    assert_eq!(
        said,
        format!("may not attach to {}: run as the user who owns it, or as root", path.display())
    );
    // Even where the files let it.
    rustix::fs::chmod(served.place.directory(), Mode::from_raw_mode(0o755)).expect("it is ours");
    rustix::fs::chmod(&path, Mode::from_raw_mode(0o666)).expect("it is ours");
    other.go_on();
    other.expect("user 65534 may not attach: this host serves user 0 and root; run as one of them");
    other.finish();
}

#[test]
fn a_host_that_ends_or_stops_is_an_error_soon() {
    let place = attach_common::Place::new();
    let mut host = Other::start("host", &place.socket());
    host.expect("serving");
    let patience = Duration::from_millis(200);
    let stalled = Connection::connect_within(place.socket(), Role::Reader, patience).expect("it serves");
    let killed = Connection::connect(place.socket(), Role::Reader).expect("it serves");
    let writer = attach::writer(place.socket()).expect("it serves");
    host.stop();
    let since = Instant::now();
    assert!(matches!(stalled.stats(0), Err(AttachError::Stalled(_))));
    assert!(since.elapsed() < 3 * patience);
    let since = Instant::now();
    assert!(
        matches!(stalled.stats(0), Err(AttachError::Stalled(_))),
        "an answer that comes late is not taken"
    );
    let late = Connection::connect_within(place.socket(), Role::Reader, patience);
    assert!(matches!(late, Err(AttachError::Stalled(_))));
    assert!(since.elapsed() < 3 * patience);
    let waiting = std::thread::spawn(move || (killed.stats(0), killed.stats(0)));
    std::thread::sleep(Duration::from_millis(20));
    host.kill();
    let since = Instant::now();
    let (first, second) = waiting.join().expect("no panic");
    assert!(matches!((first, second), (Err(AttachError::Gone), Err(AttachError::Gone))));
    assert!(since.elapsed() < Duration::from_millis(100), "{:?}", since.elapsed());
    let dead = Connection::connect(place.socket(), Role::Reader).expect_err("it is dead");
    assert!(matches!(dead, AttachError::Dead { .. }) && dead.is_gone());
    write(&writer, 1000);
}

#[test]
fn a_server_that_is_dropped_ends_its_connections() {
    let mut served = Served::new();
    let connection = Connection::connect(served.socket(), Role::Reader).expect("it can attach");
    served.server = None;
    let since = Instant::now();
    assert!(matches!(connection.stats(0), Err(AttachError::Gone)));
    assert!(since.elapsed() < Duration::from_millis(100));
    let none = Connection::connect(served.socket(), Role::Reader).expect_err("it was removed");
    assert!(matches!(none, AttachError::NoSocket { .. }));
    served.server = Some(served.host.serve(served.socket()).expect("it can serve again"));
    attach::writer(served.socket()).expect("it can attach again");
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("/proc is mounted").count()
}

fn mappings() -> usize {
    std::fs::read_to_string("/proc/self/maps").expect("/proc is mounted").matches("ringtap-cpu").count()
}

/// In a process of its own, where no other test opens files. Host and clients at once: both sides are counted.
fn attach_and_detach(socket: &std::path::Path) {
    let host = Host::new(&small()).expect("buffers can be made");
    let server = host.serve(socket).expect("it can serve");
    let round = || {
        attach::writer(socket).expect("it can attach").write(b"x").expect("it can write");
        let connection = Arc::new(Connection::connect(socket, Role::Reader).expect("it can attach"));
        let handle = connection.consume(0).expect("it is free");
        handle.get_reader().expect("it is ours");
        assert!(connection.consume(0).is_err());
    };
    round();
    let settle = || std::thread::sleep(Duration::from_millis(50));
    settle();
    let before = (descriptors(), mappings());
    (0..200).for_each(|_| round());
    settle();
    assert_eq!((descriptors(), mappings()), before);
    drop(server);
    assert!(descriptors() < before.0);
}

#[test]
fn nothing_is_left_of_two_hundred_connections() {
    let place = attach_common::Place::new();
    Other::start("attach and detach", &place.socket()).finish();
}

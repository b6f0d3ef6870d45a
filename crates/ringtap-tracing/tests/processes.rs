//! Several processes, threads, signal handlers and forked children at once, and what a `kill -9` leaves: read back by the
//! host, which is another process than those that write.

mod common;

use common::{Field, Line, read};
use ringtap::{Config, Host, Instances};
use ringtap_tracing::{Builder, Session};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tracing::{info, info_span};
use tracing_subscriber::layer::SubscriberExt;

/// Tells a process of this test binary what to do.
const ROLE: &str = "RINGTAP_TEST_ROLE";
const SOCKET: &str = "RINGTAP_TEST_SOCKET";

/// A path for a socket, in a directory that goes with it.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("ringtap-tracing-{name}-{}", std::process::id())))
    }

    fn socket(&self) -> PathBuf {
        self.0.join("host.sock")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Room for all events on one CPU.
fn large() -> Host {
    Host::new(&Config { subbuf_size: 65536, ring_subbufs: 512, ..Config::default() }).expect("memory")
}

/// Runs the test `other_process` of this binary with a role.
fn run(role: &str, socket: &Path) -> (ExitStatus, String) {
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.args(["--exact", "other_process", "--nocapture"]).env(ROLE, role).env(SOCKET, socket);
    let output = command.output().expect("it runs");
    (output.status, String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn other_process() {
    let (Ok(role), Some(socket)) = (std::env::var(ROLE), std::env::var_os(SOCKET)) else { return };
    let builder = Builder::new().attach(&socket).without_log();
    match role.as_str() {
        "killed-subscriber" => {
            let _session = builder.init().expect("the host is there");
            be_killed();
        }
        "killed-layer" => {
            let (layer, _session) = builder.layer().expect("the host is there");
            let registry = tracing_subscriber::registry().with(layer);
            tracing::subscriber::set_global_default(registry).expect("the only one");
            be_killed();
        }
        "panic" | "abort" | "segv" => die(&role, Path::new(&socket)),
        "torture" => torture(&builder.init().expect("the host is there"), &socket),
        "executed" => {
            let _session = builder.init().expect("the host is there");
            write_as_child(EXECUTED);
        }
        "forks" => {
            forks(Builder::new().embedded().serve_at(socket).without_log().init().expect("memory"));
        }
        other => panic!("no such role: {other}"),
    }
}

const EVENTS: u64 = 100_000;

fn be_killed() {
    for number in 0..EVENTS {
        info!(name: "counted", number, square = number * number);
    }
    // SAFETY: ends this process, which is what is wanted.
    unsafe { libc::raise(libc::SIGKILL) };
}

#[test]
fn of_a_killed_program_each_event_is_readable() {
    use std::os::unix::process::ExitStatusExt;
    for role in ["killed-subscriber", "killed-layer"] {
        let (place, host) = (Place::new(role), large());
        let server = host.serve(place.socket()).expect("it can serve");
        let (status, _) = run(role, server.path());
        assert_eq!(status.signal(), Some(libc::SIGKILL), "{role}: {status}");
        let (lines, lost) = read(&host);
        assert_eq!(lost, 0);
        let numbers: Vec<u64> = lines.iter().map(|line| line.number("number")).collect();
        assert!(numbers.into_iter().eq(0..EVENTS), "{role}: {} of {EVENTS}", lines.len());
    }
}

const STEPS: u64 = 5_000;

/// A program with a crash recorder, in two lines of its `main`.
fn die(of: &str, socket: &Path) {
    let file = socket.with_file_name(of);
    let builder = Builder::new().embedded().serve_at(socket).without_log();
    let _session = builder.crash_recorder(file, 16 << 20).init().expect("`ringtap` is there");
    for number in 0..STEPS {
        info!(name: "counted", number);
    }
    match of {
        "panic" => panic!("as asked"),
        "abort" => std::process::abort(),
        // Rust's handler steps aside when it sees that no stack overflowed.
        _ => loop {
            // SAFETY: ends this process.
            unsafe { libc::raise(libc::SIGSEGV) };
        },
    }
}

/// What `trace-cmd` finds in a file, once its writer, who outlives the program, has put it in order.
fn counted_in(file: &Path) -> Vec<u64> {
    let begun = Instant::now();
    loop {
        let mut report = Command::new("trace-cmd");
        let output = report.args(["report", "-i"]).arg(file).output().expect("it runs");
        let text = String::from_utf8_lossy(&output.stdout);
        let numbers = text.lines().filter_map(|line| line.split_once("counted: ")?.1.split_once("number="));
        let number = |rest: &str| rest.split(' ').next()?.parse().ok();
        let numbers: Vec<u64> = numbers.filter_map(|(_, rest)| number(rest)).collect();
        if numbers.last() == Some(&(STEPS - 1)) || begun.elapsed() > Duration::from_secs(60) {
            return numbers;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn of_a_program_that_dies_the_last_event_is_in_its_recorders_file() {
    let this = std::env::current_exe().expect("this binary");
    let ringtap = this.ancestors().nth(2).expect("it lies in deps").join("ringtap");
    if !ringtap.exists() || Command::new("trace-cmd").output().is_err() {
        assert!(std::env::var_os("RINGTAP_SKIP_NOTHING").is_none(), "nothing is missing in CI");
        return println!("skipped: there is no {} or no trace-cmd", ringtap.display());
    }
    for role in ["panic", "abort", "segv"] {
        let place = Place::new(role);
        std::fs::create_dir_all(&place.0).expect("it can be made");
        let mut command = Command::new(&this);
        command.args(["--exact", "other_process"]).env(ROLE, role).env(SOCKET, place.socket());
        let output = command.env(ringtap::crash::PROGRAM_VARIABLE, &ringtap).output().expect("it runs");
        assert!(!output.status.success(), "{role}");
        let numbers = counted_in(&place.0.join(role));
        assert!(numbers.iter().copied().eq(0..STEPS), "{role}: {output:?}: {numbers:?}");
    }
}

const THREADS: u64 = 4;
const CHILDREN: u64 = 3;
const FIRST_CHILD: u64 = 100;
/// The program that one of them becomes.
const EXECUTED: u64 = FIRST_CHILD + CHILDREN;
const ROUNDS: u64 = 5_000;
/// Of these rounds' spans, one has a second handle that another thread drops.
const CLONED: u64 = 50;

static SIGNALS: AtomicU64 = AtomicU64::new(0);

extern "C" fn on_signal(_: libc::c_int) {
    let number = SIGNALS.fetch_add(1, Relaxed);
    info!(name: "signal", number);
}

/// What each thread does.
fn work(who: u64) {
    let (send, receive) = std::sync::mpsc::channel::<tracing::Span>();
    let dropper = std::thread::spawn(move || receive.into_iter().for_each(drop));
    for number in 0..ROUNDS {
        let span = info_span!("round", who, number);
        if number % CLONED == 0 {
            send.send(span.clone()).expect("it listens");
        }
        span.in_scope(|| info!(name: "done", who, number, text = "x".repeat((number % 50) as usize)));
    }
    drop(send);
    dropper.join().expect("no panic");
}

/// What a forked child writes, by a callsite that its parent never met.
fn write_as_child(who: u64) {
    for number in 0..ROUNDS {
        info_span!("child_round", who, number).in_scope(|| info!(name: "done_in_child", who, number));
    }
}

/// A forked child that ends without what its parent's threads left behind.
fn child(who: u64) -> ! {
    write_as_child(who);
    // SAFETY: ends the process.
    unsafe { libc::_exit(0) }
}

/// A forked child that ends while another thread of it writes: by its exit, or since it becomes another program.
fn child_in_the_middle(who: u64, socket: &OsStr) -> ! {
    std::thread::spawn(|| {
        for number in 0u64.. {
            info!(name: "endless", number);
            // Or it would fill the ring.
            std::thread::sleep(Duration::from_micros(20));
        }
    });
    write_as_child(who);
    if who.is_multiple_of(2) {
        // SAFETY: ends the process as `main` would.
        unsafe { libc::exit(0) }
    }
    // The timer lives on behind the exec, the handler not.
    // SAFETY: no handler.
    unsafe { libc::signal(libc::SIGALRM, libc::SIG_IGN) };
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.args(["--exact", "other_process"]).env(ROLE, "executed").env(SOCKET, socket);
    panic!("{}", command.exec())
}

/// Waits for a child, which is to end well; signals may come in between.
fn wait_for(child: libc::pid_t) {
    let mut status = 0;
    loop {
        // SAFETY: our own child.
        let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
        if waited == child {
            break;
        }
    }
    assert_eq!(status, 0);
}

fn torture(session: &Session, socket: &OsStr) {
    // Each callsite is met before signals come: registering in a handler could only give up.
    info!(name: "warm", n = 1);
    on_signal(0);
    let action = on_signal as extern "C" fn(libc::c_int);
    // SAFETY: the handler does what handlers may.
    unsafe { libc::signal(libc::SIGALRM, action as libc::sighandler_t) };
    let every = libc::timeval { tv_sec: 0, tv_usec: 300 };
    let timer = libc::itimerval { it_interval: every, it_value: every };
    // SAFETY: a timer that is given.
    unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()) };
    let children = std::thread::scope(|scope| {
        (0..THREADS).for_each(|who| drop(scope.spawn(move || work(who))));
        (0..CHILDREN)
            .map(|who| {
                // SAFETY: the child writes events, which it may, and ends.
                let pid = unsafe { libc::fork() };
                match (pid, who) {
                    (0, 0) => child(FIRST_CHILD),
                    (0, _) => child_in_the_middle(FIRST_CHILD + who, socket),
                    _ => pid,
                }
            })
            .collect::<Vec<_>>()
    });
    for pid in children {
        wait_for(pid);
    }
    let never = libc::timeval { tv_sec: 0, tv_usec: 0 };
    let timer = libc::itimerval { it_interval: never, it_value: never };
    // SAFETY: as above.
    unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()) };
    println!("signals {} unwritten {}", SIGNALS.load(Relaxed), session.unwritten());
}

/// `RINGTAP_TORTURE` makes it so many times longer.
#[test]
fn threads_children_and_signals_write_at_once() {
    let rounds = std::env::var("RINGTAP_TORTURE").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(1);
    (0..rounds).for_each(|_| write_at_once());
}

fn write_at_once() {
    let (place, host) = (Place::new("torture"), large());
    let server = host.serve(place.socket()).expect("it can serve");
    let (status, said) = run("torture", server.path());
    assert!(status.success(), "{said}");
    let (lines, lost) = read(&host);
    assert_eq!(lost, 0);
    let mut events: BTreeMap<(&str, u64), Vec<&Line>> = BTreeMap::new();
    for line in &lines {
        if let Some(Field::Unsigned(who)) = line.fields.get("who") {
            events.entry((&line.name, *who)).or_default().push(line);
        }
    }
    let signals = lines.iter().filter(|line| line.name == "processes:signal");
    let mut numbers: Vec<u64> = signals.map(|line| line.number("number")).collect();
    numbers.sort_unstable();
    let count = numbers.len() as u64;
    assert!(numbers.into_iter().eq(0..count), "each signal is written once");
    // The test harness's own thread may be about to handle one more when the process tells its count.
    let is_told = |count: u64| said.contains(&format!("signals {count} unwritten 0"));
    assert!(is_told(count) || is_told(count - 1), "{count} signals; {said}");
    let complete = |name: &str, who| {
        let numbers = events[&(name, who)].iter().map(|line| line.number("number"));
        assert!(numbers.eq(0..ROUNDS), "{name} of {who}");
    };
    for who in 0..THREADS {
        complete("processes:done", who);
        complete("processes:round", who);
    }
    for who in FIRST_CHILD..=EXECUTED {
        complete("processes:done_in_child", who);
        complete("processes:child_round", who);
    }
    lives_are_whole(&lines);
}

/// Each span is made, entered and left once, in this order, and its events lie in between. Those that another thread dropped
/// may be closed by themselves.
fn lives_are_whole(lines: &[Line]) {
    let mut lives: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
    for line in lines.iter().filter(|line| line.span() != 0) {
        let name = line.name.split_once(':').expect("a system").1;
        if name != "signal" && name != "endless" {
            lives.entry(line.span()).or_default().push(name);
        }
    }
    assert_eq!(lives.len() as u64, (THREADS + CHILDREN + 1) * ROUNDS);
    for (span, life) in &lives {
        let (kind, event) =
            if life.contains(&"done") { ("round", "done") } else { ("child_round", "done_in_child") };
        let expected = [kind, &format!("{kind}_enter"), event, &format!("{kind}_exit")];
        let closed = life.iter().position(|name| name.ends_with("_close"));
        let steps: Vec<_> = life.iter().copied().filter(|name| !name.ends_with("_close")).collect();
        assert_eq!(steps, expected, "{span:#x}");
        // By another thread, which may hold the last handle or not.
        assert!(closed.is_none_or(|at| at == life.len() - 1), "{span:#x}: {life:?}");
    }
}

/// A host that forks: the child meets callsites that its parent never met, and the parent's trace has them.
fn forks(session: Session) {
    // SAFETY: the child writes events, which it may, and ends.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        child(7);
    }
    wait_for(pid);
    let (lines, lost) = read(session.host().expect("it is embedded"));
    let done = lines.iter().filter(|line| line.name == "processes:done_in_child").count() as u64;
    println!("done {done} of {} lost {lost}", lines.len());
}

#[test]
fn a_hosts_child_writes_into_its_parents_trace() {
    let place = Place::new("forks");
    let (status, said) = run("forks", &place.socket());
    assert!(status.success() && said.contains(&format!("done {ROUNDS} of {} lost 0", 4 * ROUNDS)), "{said}");
}

/// Until something holds; the machine may be busy.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_host_switches_the_callsites_of_a_running_program() {
    let place = Place::new("switched");
    let instances = Instances::new(&Config::default()).expect("memory");
    instances.top().set_new_events(false);
    let server = instances.serve(place.socket()).expect("it can serve");
    // Of this process; the other tests here trace in others.
    let _session = Builder::new().attach(server.path()).without_log().init().expect("a host");
    let hit = || {
        info!(name: "switched", n = 1);
        let event = instances.event("processes", "switched").expect("it was met");
        (event.id, read(&instances.top().host()).0.len())
    };
    let (id, written) = hit();
    assert_eq!(written, 0, "new events are off");
    instances.top().set_event(id, true);
    until("it is on", || hit().1 == 1);
    instances.top().set_event(id, false);
    assert_eq!(hit().1, 0, "off at once");
    let second = instances.create("second").expect("a name that is free");
    second.set_event(id, true);
    until("it goes to the second instance alone", || {
        assert_eq!(hit().1, 0);
        !read(&second.host()).0.is_empty()
    });
}

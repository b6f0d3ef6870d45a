//! Hosts, writers and clients of a mounted tree are killed at random, or stopped for a while, while others resize, take
//! snapshots, switch events and read. Each host is followed by one that takes its buffers over. Afterwards the counts are
//! exact, nobody hangs, and nothing is left behind.
//!
//! `RINGTAP_TORTURE=3600 cargo test -p ringtap-daemon --test torture -- --nocapture` does it for an hour; `RINGTAP_SEED`
//! chooses another course. `cargo test` does it for a few seconds, and `cargo xtask test` for two minutes besides.

mod random;

use random::Random;
use ringtap::attach::Attachment;
use ringtap::serve::{Options, Server, take_over};
use ringtap::{Config, Instances};
use ringtap_daemon::control::Control;
use ringtap_daemon::fs::{Mount, MountError, Ownership, Tree};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, Signal};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

ringtap::event! {
    /// On in the top instance all the time: its counts are exact.
    struct Step as torture:step { number: u64 }
}

ringtap::event! {
    /// Switched in the other instances.
    struct Noise as torture:noise { number: u64 }
}

const WRITERS: usize = 3;
const CLIENTS: usize = 6;
/// Seconds of torture, unless `RINGTAP_TORTURE` says otherwise.
const SECONDS: u64 = 5;
/// Longest time that anything may take that is not to hang.
const WATCHDOG: Duration = Duration::from_secs(60);
/// What a process is told: its role, the directory, its seed.
const TASK: &str = "RINGTAP_TEST_TORTURE";
/// Instances that are made, resized and removed all the time.
const OTHERS: u64 = 3;

/// Where it all happens: a socket, a directory to mount on, and the writers' counts.
struct Place(PathBuf);

impl Place {
    fn socket(&self) -> PathBuf {
        self.0.join("run/host.sock")
    }

    fn root(&self) -> PathBuf {
        self.0.join("tracing")
    }
}

/// One of the processes.
#[test]
#[ignore = "started by the torture"]
fn process() {
    let task = std::env::var(TASK).unwrap();
    let mut words = task.split(' ');
    let role = words.next().unwrap();
    let place = Place(words.next().unwrap().into());
    let seed: u64 = words.next().unwrap().parse().unwrap();
    match role {
        "host" => {
            let host = Host::start(&place).unwrap();
            println!("\nSAYS {}", if host.is_new { "new" } else { "taken over" });
            while !is_told_to_end(1000) {}
        }
        "writer" => write(&place, seed),
        "client" => {
            let mut random = Random(seed | 1);
            println!("\nSAYS begun");
            while !is_told_to_end(0) {
                operate(&place.root(), &mut random);
            }
        }
        other => panic!("no role {other}"),
    }
}

/// Whether the parent closed our input, or ended.
fn is_told_to_end(patience_ms: i64) -> bool {
    let input = std::io::stdin();
    let wait = Timespec { tv_sec: patience_ms / 1000, tv_nsec: patience_ms % 1000 * 1_000_000 };
    rustix::event::poll(&mut [PollFd::new(&input, PollFlags::IN)], Some(&wait)) != Ok(0)
}

/// A host with its socket and its tree.
struct Host {
    mount: Mount,
    _server: Server,
    instances: Instances,
    is_new: bool,
}

impl Host {
    fn start(place: &Place) -> Result<Self, MountError> {
        let config = Config { ring_subbufs: 64, ..Config::default() };
        let (instances, server) = take_over(place.socket(), &config, Options::default()).unwrap();
        let is_new = instances.saved_settings().is_none();
        if is_new {
            instances.top().await_events(&"torture:step".parse().unwrap()).unwrap();
            assert!(instances.save_settings(b"not the first"));
        }
        let tree = Tree::new(Control::new(instances.clone()), Ownership::default());
        let mount = Mount::new(&tree, &place.root())?;
        Ok(Self { mount, _server: server, instances, is_new })
    }
}

/// Writes until told to end. What it tried and what came of it stands in a file, which outlives it.
fn write(place: &Place, seed: u64) {
    let attachment = Attachment::attach(place.socket()).unwrap();
    Step::register(&attachment).unwrap();
    Noise::register(&attachment).unwrap();
    let writer = attachment.writer();
    let counts = File::create(place.0.join(format!("counts/{seed}"))).unwrap();
    let note = |tried: u64, settled: u64| {
        let bytes = [tried.to_le_bytes(), settled.to_le_bytes()].concat();
        counts.write_all_at(&bytes, 0).unwrap();
    };
    println!("\nSAYS begun");
    for number in 0u64.. {
        if number.is_multiple_of(64) && is_told_to_end(0) {
            break;
        }
        note(number + 1, number);
        // What is refused is counted.
        let _ = (Step { number }).try_write(&writer);
        note(number + 1, number + 1);
        let _ = (Noise { number }).try_write(&writer);
        if number.is_multiple_of(16) {
            std::thread::sleep(Duration::from_micros(300));
        }
    }
}

/// Writes to a file that is there: between two hosts there is none, and none is to be made.
fn set(file: &Path, text: String) -> std::io::Result<()> {
    File::options().write(true).open(file)?.write_all(text.as_bytes())
}

/// Something that a client does. It may be refused: others do as much, and hosts die.
fn operate(root: &Path, random: &mut Random) {
    let other = root.join(format!("instances/other{}", random.below(OTHERS)));
    let place = if random.below(2) == 0 { root } else { &other };
    let raw = place.join(format!("per_cpu/cpu{}/trace_pipe_raw", random.below(2)));
    let open = |flags| rustix::fs::open(&raw, flags | OFlags::CLOEXEC, Mode::empty());
    let on = random.below(2).to_string();
    match random.below(13) {
        0 => drop(fs::create_dir(&other)),
        1 => drop(fs::remove_dir(&other)),
        2 => drop(set(&other.join("buffer_size_kb"), (16 + random.below(256)).to_string())),
        12 => drop(set(&place.join("buffer_size_kb"), (16 + random.below(256)).to_string())),
        3 => drop(set(&other.join("tracing_on"), on)),
        4 => drop(set(&other.join("events/torture/noise/enable"), on)),
        5 => drop(set(&place.join("snapshot"), random.below(3).to_string())),
        6 => drop(fs::read(place.join("snapshot"))),
        7 => drop(fs::read(place.join("trace"))),
        8 => drop(File::create(other.join("trace"))),
        9 => {
            let Ok(raw) = open(OFlags::RDONLY) else { return };
            let wait = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };
            let _ = rustix::event::poll(&mut [PollFd::new(&raw, PollFlags::IN)], Some(&wait));
        }
        10 => {
            let Ok(raw) = open(OFlags::RDONLY | OFlags::NONBLOCK) else { return };
            for _ in 0..random.below(8) {
                let _ = rustix::io::read(&raw, &mut [0; 4096]);
            }
        }
        _ => {
            let Ok(raw) = open(OFlags::RDONLY) else { return };
            let Ok(mut reader) = ringtap::Reader::open_kernel(raw, 0, ringtap::clock::ClockId::Mono) else {
                return;
            };
            for _ in 0..random.below(200) {
                let _ = reader.next();
            }
        }
    }
}

/// Another process.
struct Other {
    child: Child,
    input: Option<ChildStdin>,
}

impl Other {
    /// Starts a process; with what it says once it is ready.
    fn start(role: &str, place: &Place, seed: u64) -> (Self, String) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["process", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
            .env(TASK, format!("{role} {} {seed}", place.0.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take(), child.stdout.take().unwrap());
        let (begun, mut said) = (Self { child, input }, String::new());
        let mut lines = BufReader::new(output);
        loop {
            said.clear();
            assert!(lines.read_line(&mut said).unwrap() > 0, "a {role} did not begin");
            if let Some((_, said)) = said.trim_end().split_once("SAYS ") {
                let said = said.to_owned();
                // Reads to the end, so that it can say more; with the process it ends.
                std::thread::spawn(move || drop(lines.read_to_end(&mut Vec::new())));
                return (begun, said);
            }
        }
    }

    /// Stops it, and has it go on after this time, if it lives.
    fn stop_for(&self, time: Duration) {
        let process = Pid::from_child(&self.child);
        let open = rustix::process::pidfd_open(process, PidfdFlags::empty()).unwrap();
        rustix::process::pidfd_send_signal(&open, Signal::STOP).unwrap();
        std::thread::spawn(move || {
            std::thread::sleep(time);
            let _ = rustix::process::pidfd_send_signal(&open, Signal::CONT);
        });
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Lets it end, which it must do in time.
    fn finish(mut self, what: &str) {
        self.input = None;
        let begin = Instant::now();
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None => assert!(begin.elapsed() < WATCHDOG, "a {what} hangs: {}", self.child.id()),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        assert!(status.success(), "a {what} failed: {status}");
    }

    /// Its memfds, as descriptors.
    fn descriptors(&self) -> usize {
        descriptors(self.child.id())
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn memfds(pid: u32) -> usize {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    maps.matches("memfd:ringtap").count() + descriptors(pid)
}

fn descriptors(pid: u32) -> usize {
    let links = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let open = links.filter_map(|link| fs::read_link(link.ok()?.path()).ok());
    open.filter(|target| target.to_string_lossy().contains("memfd:ringtap")).count()
}

/// Threads of a host's in this process.
fn threads() -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    // One that ends meanwhile has no name any more.
    let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.starts_with("ringtap-")).count()
}

/// Waits until `done`, or says what is wrong.
fn eventually(wrong: &str, done: impl Fn() -> bool) {
    let until = Instant::now() + WATCHDOG;
    while !done() {
        assert!(Instant::now() < until, "{wrong}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Events of the top instance: written, refused, and found by reading it to its end.
fn counted(instances: &Instances) -> [u64; 3] {
    let host = instances.top().host();
    let sum = |count: &dyn Fn(&ringtap::Stats) -> u64| -> u64 {
        host.cpus().into_iter().map(|cpu| count(&host.stats(cpu).unwrap())).sum()
    };
    // Of a process that has not heard of a resize in time, events are dropped.
    let (written, refused) =
        (sum(&|stats| stats.written()), sum(&|stats| stats.commit_overrun + stats.dropped_events));
    let until = Instant::now() + WATCHDOG;
    while sum(&|stats| stats.entries) > 0 {
        assert!(Instant::now() < until, "reading has no end");
        host.cpus().into_iter().for_each(|cpu| host.get_reader(cpu).unwrap());
    }
    [written, refused, sum(&|stats| stats.read_events + stats.overrun)]
}

/// What the writers, those that were killed too, tried and settled.
fn noted(place: &Place) -> [u64; 2] {
    let mut sums = [0; 2];
    for file in fs::read_dir(place.0.join("counts")).unwrap() {
        let bytes = fs::read(file.unwrap().path()).unwrap();
        for (sum, bytes) in sums.iter_mut().zip(bytes.chunks_exact(8)) {
            *sum += u64::from_le_bytes(bytes.try_into().unwrap());
        }
    }
    sums
}

fn environment(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|number| number.parse().ok()).unwrap_or(otherwise)
}

#[test]
fn nothing_is_lost_or_left_when_anybody_is_killed() {
    let place = Place(std::env::temp_dir().join(format!("ringtap-torture-{}", std::process::id())));
    ["run", "tracing", "counts"].iter().for_each(|name| fs::create_dir_all(place.0.join(name)).unwrap());
    rustix::fs::chmod(place.0.join("run"), Mode::from_raw_mode(0o700)).unwrap();
    match Host::start(&place) {
        Err(error @ (MountError::NoFuse(_) | MountError::NotPermitted { .. })) => {
            println!("skipped, as a FUSE cannot be mounted: {error}");
            return fs::remove_dir_all(&place.0).unwrap();
        }
        host => drop(host.unwrap()),
    }
    let (seed, seconds) = (environment("RINGTAP_SEED", 1), environment("RINGTAP_TORTURE", SECONDS));
    println!("RINGTAP_SEED={seed} RINGTAP_TORTURE={seconds}");
    torture(&place, seed, Duration::from_secs(seconds));
    let left: Vec<_> =
        fs::read_dir(place.0.join("run")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(!fs::read_to_string("/proc/self/mounts").unwrap().contains(place.0.to_str().unwrap()));
    // Fails where anything is still mounted.
    fs::remove_dir(place.root()).unwrap();
    fs::remove_dir_all(&place.0).unwrap();
}

fn torture(place: &Place, seed: u64, time: Duration) {
    let mut random = Random(seed.wrapping_mul(2) | 1);
    let (mut host, said) = Other::start("host", place, 0);
    assert_eq!(said, "new");
    let mut last = 0;
    let mut begin = |role: &str| {
        last += 1;
        Other::start(role, place, last).0
    };
    // The first is never killed: with the last process that has it, memory goes.
    let mut writers: Vec<_> = (0..WRITERS).map(|_| begin("writer")).collect();
    let held = writers[0].descriptors();
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| begin("client")).collect();
    let (start, mut kills, mut stops) = (Instant::now(), [0; 3], 0);
    while start.elapsed() < time {
        std::thread::sleep(Duration::from_millis(random.below(60)));
        let victim = |random: &mut Random, of: usize| usize::try_from(random.below(of as u64)).unwrap();
        match random.below(5) {
            4 => {
                // For less than another host waits for its offer.
                writers[victim(&mut random, WRITERS)].stop_for(Duration::from_millis(random.below(400)));
                stops += 1;
            }
            0 => {
                host.kill();
                let said;
                (host, said) = Other::start("host", place, 0);
                assert_eq!(said, "taken over", "after {kills:?} kills");
                kills[0] += 1;
            }
            1 => {
                let at = 1 + victim(&mut random, WRITERS - 1);
                std::mem::replace(&mut writers[at], begin("writer")).kill();
                kills[1] += 1;
            }
            _ => {
                let at = victim(&mut random, CLIENTS);
                std::mem::replace(&mut clients[at], begin("client")).kill();
                kills[2] += 1;
            }
        }
    }
    println!(
        "killed {} hosts, {} writers, {} clients; stopped {stops} writers",
        kills[0], kills[1], kills[2]
    );
    // Nobody follows this one: whatever a client is doing ends with an error.
    host.kill();
    clients.into_iter().for_each(|client| client.finish("client"));
    let before = memfds(std::process::id());
    let host = Host::start(place).unwrap();
    assert!(!host.is_new);
    for number in 0..OTHERS {
        let _ = fs::remove_dir(place.root().join(format!("instances/other{number}")));
    }
    assert!(host.instances.list().is_empty());
    // What it was told of and is gone is unmapped.
    let kept = 2 * std::thread::available_parallelism().unwrap().get();
    eventually("a writer keeps memfds", || writers[0].descriptors() <= held + kept);
    let is_read = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            is_read.store(fs::read_to_string(place.root().join("trace")).unwrap().contains("step:"), Relaxed);
        });
    });
    assert!(is_read.load(Relaxed), "the living instances are served again");
    writers.into_iter().for_each(|writer| writer.finish("writer"));
    let [written, refused, found] = counted(&host.instances);
    let [tried, settled] = noted(place);
    println!("{tried} events tried, {settled} settled: {written} written, {refused} refused");
    assert_eq!(written, found, "written is what is read or overwritten");
    assert!(
        (settled..=tried).contains(&(written + refused)),
        "{settled} to {tried}: {written} and {refused}"
    );
    assert!(host.mount.is_mounted());
    drop(host);
    // The thread that takes snapshots notices in its own time.
    eventually("the host's memfds stay", || memfds(std::process::id()) == before);
    eventually("the host's threads stay", || threads() == 0);
}

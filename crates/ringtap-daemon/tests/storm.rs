//! Many processes at once open, map, read, poll, close, make, resize and remove, while tracing goes on. Nothing is left
//! behind afterwards, and everybody can be killed.
//!
//! `RINGTAP_STORM=10000 cargo test -p ringtap-daemon --test storm -- --nocapture` is the long one; `RINGTAP_SEED`
//! repeats one.

mod mounts;
mod random;
mod storming;

use mounts::{Mounted, mounted};
use random::Random;
use ringtap_daemon::fs::Held;
use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use storming::operate;

const PROCESSES: u64 = 32;
/// Operations of all processes together, unless `RINGTAP_STORM` says otherwise.
const OPERATIONS: u64 = 4_000;
/// What a process of the storm is told: the directory, its seed, its number of operations.
const TASK: &str = "RINGTAP_TEST_STORM";
/// Longest time that the storm may take: a deadlock, if it takes longer.
const WATCHDOG: Duration = Duration::from_secs(240);

/// One of the storm's processes. That an operation is refused is no failure: others remove and resize meanwhile.
#[test]
#[ignore = "started by the storm"]
fn process() {
    let task = std::env::var(TASK).unwrap();
    let mut words = task.split(' ');
    let root = Path::new(words.next().unwrap());
    let [seed, operations] = [(); 2].map(|()| words.next().unwrap().parse::<u64>().unwrap());
    let mut random = Random(seed | 1);
    for _ in 0..operations {
        operate(root, &mut random);
    }
}

fn count(directory: &str) -> usize {
    fs::read_dir(directory).unwrap().count()
}

/// How many memfds this process maps.
fn mapped_memfds() -> usize {
    fs::read_to_string("/proc/self/maps").unwrap().matches("memfd:ringtap").count()
}

fn environment(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|number| number.parse().ok()).unwrap_or(otherwise)
}

fn start(mounted: &Mounted, seed: u64, operations: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["process", "--exact", "--ignored", "--test-threads=1"])
        .env(TASK, format!("{} {seed} {operations}", mounted.root().display()))
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn nothing_is_left_of_a_storm() {
    let Some(mounted) = mounted(64) else { return };
    let operations = environment("RINGTAP_STORM", OPERATIONS);
    let seed = environment("RINGTAP_SEED", Instant::now().elapsed().subsec_nanos().into());
    println!("RINGTAP_SEED={seed} RINGTAP_STORM={operations}");
    let (descriptors, threads) = (count("/proc/self/fd"), count("/proc/self/task"));
    let before = mapped_memfds();
    let generation = mounted.instances.generation();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let writer = mounted.instances.writer();
            while !stop.load(Relaxed) {
                // What is refused is counted.
                let _ = ringtap::event::marker::print(&writer, "goes on");
                std::thread::sleep(Duration::from_micros(100));
            }
        });
        let share = operations.div_ceil(PROCESSES);
        let mut children: Vec<_> =
            (0..PROCESSES).map(|number| start(&mounted, seed + number * 7919, share)).collect();
        let begin = Instant::now();
        // Some are killed in whatever they do.
        let mut random = Random(seed | 1);
        while children.iter_mut().any(|child| child.try_wait().unwrap().is_none()) {
            assert!(begin.elapsed() < WATCHDOG, "a deadlock");
            std::thread::sleep(Duration::from_millis(20));
            if random.below(8) == 0 {
                let victim = usize::try_from(random.below(PROCESSES)).unwrap();
                let _ = children[victim].kill();
                // Killed, it ends.
                children[victim].wait().unwrap();
            }
        }
        stop.store(true, Relaxed);
    });
    for number in 0..6 {
        let _ = fs::remove_dir(mounted.root().join(format!("instances/storm{number}")));
    }
    assert_eq!(count(mounted.path("instances").to_str().unwrap()), 0, "an instance is held by nobody");
    let mount = mounted.mount.as_ref().unwrap();
    // The kernel tells of closed files in its own time; and it keeps the inode that it looked up last for each path.
    let deadline = Instant::now() + Duration::from_secs(20);
    let is_clean = |held: Held| held.files == 0 && held.backings == 0 && held.waiting == 0;
    while !is_clean(mount.held()) {
        assert!(Instant::now() < deadline, "{:?}", mount.held());
        std::thread::sleep(Duration::from_millis(10));
    }
    println!("{:?}", mount.held());
    if std::env::var_os("RINGTAP_STORM").is_some() {
        // The kernel forgets what nobody uses when it is told to, for the whole machine: not in every run of this.
        fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
        while mount.held().inodes > 0 {
            assert!(Instant::now() < deadline, "{:?}", mount.held());
            std::thread::sleep(Duration::from_millis(10));
        }
    } else {
        assert!(mount.held().inodes <= 64, "{:?}", mount.held());
    }
    assert_eq!(count("/proc/self/task"), threads);
    // Writers may stand in what was resized away: its meta-page stays mapped, one for each CPU and change (ADR 10).
    let cpus = mounted.instances.top().host().cpus().len();
    let changes = usize::try_from(mounted.instances.generation() - generation).unwrap();
    let left = cpus * (changes + 1);
    assert!(mapped_memfds() <= before + left, "{before} memfds before, {} after", mapped_memfds());
    let retired = 2 * cpus;
    // A buffer has two.
    assert!(count("/proc/self/fd") <= descriptors + 2 * retired, "{descriptors} descriptors before");
    // It still serves.
    fs::write(mounted.path("trace_marker"), "after the storm").unwrap();
    assert!(fs::read_to_string(mounted.path("trace")).unwrap().contains("after the storm"));
}

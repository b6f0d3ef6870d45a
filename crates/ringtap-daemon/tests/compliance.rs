//! The same operations on the kernel's tracefs and on ringtap's tree, without mounting it: what differs stands in
//! docs/differences.md, and nothing else does.

mod ops;

use ops::{File as _, Files, InTree, Mounted, Outcome, kernel, run, stay_on};
use ringtap::{Config, Instances};
use ringtap_daemon::control::Control;
use ringtap_daemon::fs::{Mount, Ownership, Tree};
use rustix::fs::OFlags;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The kernel whose answers docs/differences.md describes.
const RELEASE: &str = "6.18.";
/// Where the rows are.
const HEADING: &str = "## The files of a tracefs";
/// And those of what FUSE changes.
const HEADING_MOUNTED: &str = "### Through a mount";
/// Characters of an outcome that a row shows.
const SHOWN: usize = 60;
/// Characters that it shows before the difference.
const BEFORE: usize = 20;

/// A tree that has the events of these systems of the kernel.
fn tree(kernel: &Path, systems: &[&str]) -> Tree {
    let instances =
        Instances::new(&Config { clock: Some(ringtap::clock::ClockId::Mono), ..Config::default() }).unwrap();
    for system in systems {
        let directory = kernel.join("events").join(system);
        let mut names: Vec<_> =
            fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        for event in names.into_iter().filter(|path| path.is_dir()) {
            let format = fs::read_to_string(event.join("format")).unwrap();
            let name = event.file_name().unwrap().to_str().unwrap().to_owned();
            instances.register_event(system, &name, &format).unwrap();
        }
    }
    Tree::new(Control::new(instances), Ownership::default())
}

/// Two outcomes as a row shows them: from a little before where they part.
fn shown(theirs: &str, ours: &str) -> (String, String) {
    let common = theirs.chars().zip(ours.chars()).take_while(|(a, b)| a == b).count();
    let skip = if common > BEFORE * 2 { common - BEFORE } else { 0 };
    let cell = |text: &str| {
        let before = if skip > 0 { "… " } else { "" };
        let part: String = text.chars().skip(skip).take(SHOWN).collect();
        let after = if text.chars().count() > skip + SHOWN { " …" } else { "" };
        format!("`{before}{part}{after}`").replace('|', "\\|")
    };
    (cell(theirs), cell(ours))
}

/// The rows of a section of docs/differences.md, without the last column: that says why, and is for people.
fn written(heading: &str) -> String {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/differences.md")).unwrap();
    let section = text.split(&format!("{heading}\n")).nth(1).expect("the section is there");
    let section = section.split("\n#").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| match row.trim_end_matches(" |").rsplit_once(" | ") {
        Some((compared, _why)) => format!("{compared} |\n"),
        None => format!("{row}\n"),
    })
    .collect()
}

/// The rows for what differs.
fn rows(theirs: &[Outcome], ours: &[Outcome]) -> String {
    let mut rows = String::new();
    for (theirs, ours) in theirs.iter().zip(ours) {
        assert_eq!(theirs.operation, ours.operation);
        if theirs.result != ours.result {
            if std::env::var_os("RINGTAP_COMPLIANCE_FULL").is_some() {
                println!("{}\n  {}\n  {}", ours.operation, theirs.result, ours.result);
            }
            let (theirs, shown) = shown(&theirs.result, &ours.result);
            let _ = writeln!(rows, "| `{}` | {theirs} | {shown} |", ours.operation.replace('|', "\\|"));
        }
    }
    rows
}

#[test]
fn differences_are_those_that_are_written_down() {
    let Some(kernel) = kernel() else {
        return println!("skipped: no tracefs that this user may write to at /sys/kernel/tracing");
    };
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    if !release.starts_with(RELEASE) {
        return println!("skipped: docs/differences.md describes Linux {RELEASE}x, this is {release}");
    }
    stay_on(0);
    let name = format!("ringtap-compliance-{}", std::process::id());
    let theirs = run(&Mounted(kernel.clone()), &name);
    let ours = run(&InTree(tree(&kernel, &["signal"])), &name);
    assert!(ours.len() > 150, "{} operations", ours.len());
    assert_eq!(rows(&theirs, &ours), written(HEADING), "rows of docs/differences.md under {HEADING:?}");
}

#[test]
fn a_mount_differs_from_its_tree_where_that_is_written_down() {
    let Some(kernel) = kernel() else {
        return println!("skipped: no tracefs whose events could be declared");
    };
    let directory = std::env::temp_dir().join(format!("ringtap-compliance-{}", std::process::id()));
    fs::create_dir(&directory).unwrap();
    stay_on(0);
    let mounted = tree(&kernel, &["signal"]);
    match Mount::new(&mounted, &directory) {
        Ok(mount) => {
            let through = run(&Mounted(directory.clone()), "one");
            drop(mount);
            let within = run(&InTree(tree(&kernel, &["signal"])), "one");
            assert_eq!(rows(&within, &through), written(HEADING_MOUNTED), "rows under {HEADING_MOUNTED:?}");
        }
        Err(error) => println!("skipped: {error}"),
    }
    fs::remove_dir(&directory).unwrap();
}

/// A thread that makes others, threads and processes, when it is told to.
struct Maker {
    tid: u32,
    /// `None` once it is to end.
    tell: Option<Sender<Box<dyn FnOnce() + Send>>>,
    thread: Option<JoinHandle<()>>,
}

impl Maker {
    fn new() -> Self {
        let (tell, told) = channel::<Box<dyn FnOnce() + Send>>();
        let (say, said) = channel();
        let thread = std::thread::spawn(move || {
            say.send(rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned()).unwrap();
            told.iter().for_each(|task| task());
        });
        Self { tid: said.recv().unwrap(), tell: Some(tell), thread: Some(thread) }
    }

    /// What that thread makes.
    fn make<T: Send + 'static>(&self, make: impl FnOnce() -> T + Send + 'static) -> T {
        let (say, said) = channel();
        self.tell.as_ref().unwrap().send(Box::new(move || say.send(make()).unwrap())).unwrap();
        said.recv().unwrap()
    }

    fn process(&self) -> Child {
        self.make(|| Command::new("sleep").arg("600").spawn().unwrap())
    }
}

impl Drop for Maker {
    fn drop(&mut self) {
        self.tell = None;
        let _ = self.thread.take().unwrap().join();
    }
}

/// What the option `event-fork` does to lists of tasks, step by step.
fn follow_forks(files: &impl Files, instance: &str) {
    let at = |file: &str| format!("instances/{instance}/{file}");
    let set = |file: &str, flags: OFlags, text: String| {
        files.open(&at(file), OFlags::WRONLY | flags).unwrap().write(text.as_bytes()).unwrap();
    };
    let wait_for = |file: &str, expected: &[u32]| {
        let mut sorted = expected.to_vec();
        sorted.sort_unstable();
        let expected: String = sorted.iter().map(|tid| format!("{tid}\n")).collect();
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let text = files.open(&at(file), OFlags::RDONLY).unwrap().read(4096).unwrap();
            let text = String::from_utf8(text).unwrap();
            if text == expected {
                return;
            }
            assert!(Instant::now() < until, "{file} of {instance}: {text:?} is not {expected:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    let (on, off) = (OFlags::empty(), OFlags::TRUNC);
    files.mkdir(&format!("instances/{instance}")).unwrap();
    let (listed, other) = (Maker::new(), Maker::new());
    let (list, not) = ("set_event_pid", "set_event_notrace_pid");
    set("options/event-fork", on, "1".into());
    set(list, on, listed.tid.to_string());
    set(not, on, other.tid.to_string());
    // Each thread's own are listed, not its process's.
    let (others, one) = (other.make(Maker::new), listed.make(Maker::new));
    wait_for(list, &[listed.tid, one.tid]);
    wait_for(not, &[other.tid, others.tid]);
    // So are processes, and those that are made by those that were made.
    let (mut child, two) = (one.process(), one.make(Maker::new));
    wait_for(list, &[listed.tid, one.tid, child.id(), two.tid]);
    // Who ends is listed no more; whom it made is.
    drop(one);
    wait_for(list, &[listed.tid, child.id(), two.tid]);
    child.kill().unwrap();
    child.wait().unwrap();
    wait_for(list, &[listed.tid, two.tid]);
    // Others can be added, also such as are listed, and are followed as well.
    set(list, on, format!("{} {}", two.tid, others.tid));
    let three = others.make(Maker::new);
    wait_for(list, &[listed.tid, two.tid, others.tid, three.tid]);
    wait_for(not, &[other.tid, others.tid, three.tid]);
    // Without the option, lists stay as they are.
    set("options/event-fork", on, "0".into());
    let four = listed.make(Maker::new);
    drop(three);
    set("options/event-fork", on, "1".into());
    let five = listed.make(Maker::new);
    set(list, off, listed.tid.to_string());
    let six = listed.make(Maker::new);
    wait_for(list, &[listed.tid, six.tid]);
    drop((listed, two, four, five));
    wait_for(list, &[six.tid]);
    drop(six);
    wait_for(list, &[]);
    set(list, off, String::new());
    set(not, off, String::new());
    drop((other, others));
    files.rmdir(&format!("instances/{instance}")).unwrap();
}

#[test]
fn forks_are_followed_as_by_the_kernel() {
    let Some(kernel) = kernel() else {
        return println!("skipped: no tracefs that this user may write to at /sys/kernel/tracing");
    };
    let name = format!("ringtap-forks-{}", std::process::id());
    follow_forks(&Mounted(kernel.clone()), &name);
    follow_forks(&InTree(tree(&kernel, &["signal"])), &name);
}

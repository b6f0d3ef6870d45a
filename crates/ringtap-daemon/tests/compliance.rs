//! The same operations on the kernel's tracefs and on ringtap's tree, without mounting it: what differs stands in
//! docs/differences.md, and nothing else does.

mod ops;

use ops::{InTree, Mounted, Outcome, kernel, run, stay_on};
use ringtap::{Config, Instances};
use ringtap_daemon::control::Control;
use ringtap_daemon::fs::{Mount, Ownership, Tree};
use std::fmt::Write;
use std::fs;
use std::path::Path;

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

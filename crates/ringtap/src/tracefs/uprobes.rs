//! Probes in programs and libraries, by the kernel's `uprobe_events`.
//!
//! The file belongs to the whole machine. What is ours is told by its group, whose name says which process made it:
//! so nobody's probes meet, and those of a process that was killed are found, and removed, by the next.

use super::Tracefs;
use super::error::{self, Error, Problem};
use super::events::EventName;
use super::name::InstanceName;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

const FILE: &str = "uprobe_events";

/// How long a removal waits for the kernel to let go of an instance that was just removed: 20 tries, 5 ms apart.
const REMOVE_TRIES: u32 = 20;
const REMOVE_PAUSE: Duration = Duration::from_millis(5);

/// Where a probe is put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The program or library.
    pub path: PathBuf,
    /// Byte offset of the instruction in the file.
    pub offset: u64,
    /// Byte offset in the file of the counter that the kernel raises while the probe is in use; programs look at it.
    pub counter: Option<u64>,
    /// Whether the probe is hit when the function that begins there returns.
    pub is_return: bool,
}

/// Probes of this process's own, in one group. Dropping it removes them; instances that use them have to be gone by then.
#[derive(Debug)]
pub struct Uprobes {
    file: PathBuf,
    group: String,
    names: Vec<String>,
}

impl Tracefs {
    /// Whether this kernel has uprobes and this process may use them.
    ///
    /// # Errors
    /// [`super::Kind::NoUprobes`] or [`super::Kind::NoPermission`].
    pub fn check_uprobes(&self) -> Result<(), Error> {
        let file = self.root().join(FILE);
        if !file.exists() {
            return Err(Problem::NoUprobes.into());
        }
        open(&file).map(drop).map_err(error::at("write", file))
    }

    /// A group of probes, empty so far.
    ///
    /// # Errors
    /// As [`check_uprobes`](Self::check_uprobes).
    pub fn uprobes(&self) -> Result<Uprobes, Error> {
        self.check_uprobes()?;
        let group = InstanceName::unused()?.to_string().replace('-', "_");
        Ok(Uprobes { file: self.root().join(FILE), group, names: Vec::new() })
    }

    /// Removes the probes of ringtap processes that no longer run, and returns how many these were. One that is still
    /// enabled in an instance stays.
    ///
    /// # Errors
    /// The list of probes cannot be read.
    pub fn remove_stale_uprobes(&self) -> Result<usize, Error> {
        let file = self.root().join(FILE);
        let list = fs::read_to_string(&file).map_err(error::at("read", &file))?;
        let stale = list.lines().filter_map(name_of).filter(|name| is_stale(&name.system));
        Ok(stale.filter(|name| write(&file, &format!("-:{}/{}", name.system, name.name)).is_ok()).count())
    }
}

/// The group and name of a probe as the kernel lists it: `p:GROUP/NAME PATH:OFFSET ...`.
fn name_of(line: &str) -> Option<EventName> {
    let (system, name) = line.split_whitespace().next()?.split_once(':')?.1.split_once('/')?;
    Some(EventName { system: system.to_owned(), name: name.to_owned() })
}

fn is_stale(group: &str) -> bool {
    InstanceName::parse(&group.replace('_', "-")).is_some_and(|name| name.is_stale())
}

/// Without truncation, which would remove everybody's probes.
fn open(file: &Path) -> io::Result<fs::File> {
    fs::File::options().append(true).open(file)
}

fn write(file: &Path, line: &str) -> io::Result<()> {
    open(file)?.write(line.as_bytes()).map(drop)
}

impl Uprobes {
    /// Adds a probe, under a name that is near to this one, and returns the name of its event. `fetch` says what is
    /// recorded, as in the kernel's `Documentation/trace/uprobetracer.rst`.
    ///
    /// # Errors
    /// [`super::Kind::Refused`] with the kernel's reason.
    pub fn add(&mut self, name: &str, place: &Place, fetch: &str) -> Result<EventName, Error> {
        let name = self.unused(name);
        let kind = if place.is_return { 'r' } else { 'p' };
        let counter = place.counter.map_or_else(String::new, |counter| format!("({counter:#x})"));
        let (group, path, offset) = (&self.group, place.path.display(), place.offset);
        let line = format!("{kind}:{group}/{name} {path}:{offset:#x}{counter} {fetch}");
        if let Err(reason) = write(&self.file, line.trim_end()) {
            return Err(match reason.kind() {
                io::ErrorKind::PermissionDenied => error::at("write", &self.file)(reason),
                _ => Problem::Uprobe { line, reason: self.reason(place, &reason) }.into(),
            });
        }
        self.names.push(name.clone());
        Ok(EventName { system: self.group.clone(), name })
    }

    /// A name that the kernel takes, and that no other probe here has.
    fn unused(&self, name: &str) -> String {
        const LONGEST: usize = 48;
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
        let mut plain: String = name.chars().map(plain).take(LONGEST).collect();
        if !plain.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
            plain.insert(0, '_');
        }
        let numbered = (1u32..).map(|number| format!("{plain}_{number}"));
        let mut candidates = std::iter::once(plain.clone()).chain(numbered);
        candidates.find(|name| !self.names.contains(name)).unwrap_or_default()
    }

    /// The kernel's sentence about the last refusal, where it keeps one.
    fn reason(&self, place: &Place, error: &io::Error) -> String {
        let probes = fs::read_to_string(&self.file).unwrap_or_default();
        let at = format!(" {}:{:#018x}", place.path.display(), place.offset);
        if error.kind() == io::ErrorKind::InvalidInput && probes.contains(&at) {
            return format!(
                "{error}; at the same instruction is another probe, which has another counter or none"
            );
        }
        let log = fs::read_to_string(self.file.with_file_name("error_log")).unwrap_or_default();
        let last = log.lines().rev().find_map(|line| line.split_once("trace_uprobe: error: "));
        last.map_or_else(|| error.to_string(), |(_, sentence)| sentence.trim().to_owned())
    }
}

impl Drop for Uprobes {
    fn drop(&mut self) {
        for name in &self.names {
            let line = format!("-:{}/{name}", self.group);
            for _ in 0..REMOVE_TRIES {
                // Nobody is left to be told. What stays behind is found by the next `remove_stale_uprobes`.
                if !write(&self.file, &line).is_err_and(|error| error.kind() == io::ErrorKind::ResourceBusy) {
                    break;
                }
                sleep(REMOVE_PAUSE);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_groups_name_tells_whose_it_is() {
        let own = InstanceName::unused().unwrap();
        let group = own.to_string().replace('-', "_");
        assert!(!is_stale(&group));
        assert!(is_stale(&InstanceName { start: own.start - 1, ..own }.to_string().replace('-', "_")));
        assert!(!is_stale("probe_libc") && !is_stale("ringtap"));
        let line = format!("p:{group}/malloc /usr/lib/libc.so.6:0x0000000000097100 size=%di:u64");
        assert_eq!(name_of(&line), Some(EventName { system: group, name: "malloc".into() }));
        assert_eq!(name_of(""), None);
    }

    #[test]
    fn probes_have_names_that_the_kernel_takes() {
        let mut probes = Uprobes { file: "/none".into(), group: "none".into(), names: vec!["main".into()] };
        assert_eq!(probes.unused("main"), "main_1");
        assert_eq!(probes.unused("_ZN3foo.constprop.0"), "_ZN3foo_constprop_0");
        assert_eq!(probes.unused("7zip"), "_7zip");
        probes.names.clear();
    }

    #[test]
    fn a_probe_is_made_and_removed() {
        let Ok(tracefs) = Tracefs::find() else { return println!("skipped, as it needs the live kernel") };
        if let Err(error) = tracefs.check_uprobes() {
            return println!("skipped: {error}");
        }
        let mut probes = tracefs.uprobes().unwrap();
        let path = std::env::current_exe().unwrap();
        let at = |offset| Place { path: path.clone(), offset, counter: None, is_return: false };
        // Any offset inside will do for a probe that is not enabled.
        let event =
            probes.add("here", &at(0x2000), "arg=%di:u64").or_else(|_| probes.add("here", &at(0x2000), ""));
        let event = event.unwrap();
        let listed = || fs::read_to_string(tracefs.root().join(FILE)).unwrap().contains(&event.system);
        assert!(listed() && tracefs.format(&event).unwrap().contains("__probe_ip"));
        let refused = probes.add("there", &at(0x2000), "arg=%nosuch:u64").unwrap_err();
        assert_eq!(refused.kind(), crate::tracefs::Kind::Refused);
        assert!(refused.to_string().contains("nvalid"), "{refused}");
        drop(probes);
        assert!(!listed());
    }
}

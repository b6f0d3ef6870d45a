//! The kernel's own tracing: its mount, its events, and private instances of its buffers.
//!
//! ```text
//!   Tracefs::find()          where it is mounted, and may we?
//!     .resolve("sched:*")    which events are meant
//!     .create_instance()     buffers of our own       instances/ringtap-PIDNS-PID-START-N
//!        .enable(event)      what goes into them
//!        .open_raw(cpu)      what a reader maps        per_cpu/cpuN/trace_pipe_raw
//!     drop                   the kernel as we found it
//! ```
//!
//! Nothing here changes the top-level buffers, which belong to whoever uses the machine. An instance whose
//! owner was killed stays behind in the kernel; [`Tracefs::remove_stale`] finds and removes those.

mod error;
mod events;
mod instance;
mod name;
mod stats;
mod uprobes;

pub use error::{Error, Kind};
pub use events::{EventName, distance};
pub use instance::{Buffer, Instance};
pub use uprobes::{Place, Uprobes};

use crate::cpus;
use error::Problem;
use name::InstanceName;
use std::fs;
use std::path::{Path, PathBuf};

/// First kernel whose `trace_pipe_raw` can be mapped.
const FIRST_MAPPABLE: (u32, u32) = (6, 10);

/// A mounted tracefs that this process may use.
#[derive(Clone, Debug)]
pub struct Tracefs {
    root: PathBuf,
}

impl Tracefs {
    /// Finds the first tracefs in the mount table, as other tools do.
    ///
    /// # Errors
    /// [`Kind::NotMounted`], or [`Kind::NoPermission`] where this process may not look inside.
    pub fn find() -> Result<Self, Error> {
        let mounts =
            fs::read_to_string("/proc/self/mounts").map_err(error::at("read", "/proc/self/mounts"))?;
        let root = first_tracefs(&mounts).ok_or(Problem::NotMounted)?;
        let instances = root.join("instances");
        fs::read_dir(&instances).map_err(error::at("open", &instances))?;
        Ok(Self { root })
    }

    /// The mount point.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether this kernel's buffers can be mapped (Linux 6.10 and later), told by its release number.
    ///
    /// # Errors
    /// [`Kind::KernelTooOld`].
    pub fn check_mapping(&self) -> Result<(), Error> {
        let path = "/proc/sys/kernel/osrelease";
        let release = fs::read_to_string(path).map_err(error::at("read", path))?;
        match parse_release(&release) {
            Some(version) if version < FIRST_MAPPABLE => {
                Err(Problem::KernelTooOld { release: release.trim().into() }.into())
            }
            // A release that nobody can read is left to the mapping itself to refuse.
            _ => Ok(()),
        }
    }

    /// The clocks that a buffer can be stamped with, by the kernel's names.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn clocks(&self) -> Result<Vec<String>, Error> {
        let text = self.top_level().read("trace_clock")?;
        Ok(text.split_whitespace().map(|name| name.trim_matches(['[', ']']).to_owned()).collect())
    }

    /// All events that the kernel offers, in its order.
    ///
    /// # Errors
    /// The list cannot be read.
    pub fn events(&self) -> Result<Vec<EventName>, Error> {
        let text = self.top_level().read("available_events")?;
        Ok(text.lines().filter_map(EventName::parse).collect())
    }

    /// The events that a pattern means: `SYSTEM:EVENT`, either part with `*` and `?`, or one word that names
    /// an event or a whole system.
    ///
    /// # Errors
    /// [`Kind::UnknownEvent`], naming the nearest events, where nothing matches.
    pub fn resolve(&self, pattern: &str) -> Result<Vec<EventName>, Error> {
        events::resolve(&self.events()?, pattern)
    }

    /// The text of the event's `format` file.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn format(&self, event: &EventName) -> Result<String, Error> {
        self.top_level().read(&format!("events/{}/{}/format", event.system, event.name))
    }

    /// The text of `events/header_page`: the layout of a sub-buffer's header.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn header_page(&self) -> Result<String, Error> {
        self.top_level().read("events/header_page")
    }

    /// Names of tasks the kernel has seen while tracing, one `PID NAME` a line.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn saved_cmdlines(&self) -> Result<String, Error> {
        self.top_level().read("saved_cmdlines")
    }

    /// The CPUs that run now, in rising order. One that is brought up later gets a buffer too, but only
    /// whoever asks again learns of it.
    ///
    /// # Errors
    /// The list cannot be read.
    pub fn cpus(&self) -> Result<Vec<u32>, Error> {
        let path = "/sys/devices/system/cpu/online";
        let list = fs::read_to_string(path).map_err(error::at("read", path))?;
        cpus::parse(&list).ok_or_else(|| Problem::Malformed { file: path.into(), text: list }.into())
    }

    /// The buffers that belong to the whole machine. To look at; ringtap never changes them.
    #[must_use]
    pub fn top_level(&self) -> Buffer {
        Buffer::at(self.root.clone())
    }

    /// The buffers of an instance that somebody else made.
    ///
    /// # Errors
    /// [`Kind::UnknownInstance`] where there is none of this name.
    pub fn existing_instance(&self, name: &str) -> Result<Buffer, Error> {
        let folder = self.root.join("instances");
        let path = folder.join(name);
        let is_plain = !name.is_empty() && !name.contains('/') && name != "." && name != "..";
        if is_plain && path.join("tracing_on").exists() {
            return Ok(Buffer::at(path));
        }
        Err(Problem::UnknownInstance { name: name.into(), folder }.into())
    }

    /// Makes buffers of our own, with recording off and no event enabled.
    ///
    /// # Errors
    /// [`Kind::NoPermission`], or the kernel's reason (out of memory).
    pub fn create_instance(&self) -> Result<Instance, Error> {
        let name = InstanceName::unused()?;
        Instance::create(self.root.join("instances").join(name.to_string()))
    }

    /// Removes the instances of ringtap processes that no longer run, and returns their names.
    ///
    /// An instance that somebody has open or mapped is left alone: the kernel refuses to remove it.
    ///
    /// # Errors
    /// The folder of instances cannot be read.
    pub fn remove_stale(&self) -> Result<Vec<String>, Error> {
        let folder = self.root.join("instances");
        let entries = fs::read_dir(&folder).map_err(error::at("read", &folder))?;
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let stale = names.filter(|name| InstanceName::parse(name).is_some_and(|name| name.is_stale()));
        Ok(stale.filter(|name| fs::remove_dir(folder.join(name)).is_ok()).collect())
    }
}

/// The mount point in the first line of type tracefs.
fn first_tracefs(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let point = words.next()?;
        (words.next()? == "tracefs").then(|| PathBuf::from(unescape(point)))
    })
}

/// Undoes the mount table's octal escapes of blanks and backslashes.
fn unescape(escaped: &str) -> String {
    let mut plain = String::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some((before, after)) = rest.split_once('\\') {
        plain.push_str(before);
        let code = after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        plain.push(code.map_or('\\', char::from));
        rest = if code.is_some() { &after[3..] } else { after };
    }
    plain + rest
}

/// Major and minor number of a release such as `6.18.44-amd64`.
fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests;

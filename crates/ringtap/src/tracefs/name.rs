//! Names of instances, from which anybody can tell whether their owner still runs.
//!
//! `ringtap-PIDNS-PID-START-N`: the owner's pid, the pid namespace in which that number means something, the
//! moment the owner started (so that another process which was given the same pid is not taken for it), and
//! a number that tells one process's instances apart.

use super::error::{self, Error, Problem};
use std::fmt;
use std::fs;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

const PREFIX: &str = "ringtap";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InstanceName {
    pub(super) pid_namespace: u64,
    pub(super) pid: u32,
    /// Clock ticks from the machine's boot to the process's start.
    pub(super) start: u64,
    pub(super) number: u32,
}

impl InstanceName {
    /// A name that no process, this one included, has used before.
    pub(super) fn unused() -> Result<Self, Error> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let pid = std::process::id();
        let stat = format!("/proc/{pid}/stat");
        let start = start_of(pid).ok_or_else(|| {
            Error::from(Problem::Malformed { file: stat.into(), text: "no start time".into() })
        })?;
        // Relaxed: the counter only has to hand out each number once.
        let number = NEXT.fetch_add(1, Relaxed);
        Ok(Self { pid_namespace: own_pid_namespace()?, pid, start, number })
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut words = text.strip_prefix(PREFIX)?.strip_prefix('-')?.split('-');
        let name = Self {
            pid_namespace: words.next()?.parse().ok()?,
            pid: words.next()?.parse().ok()?,
            start: words.next()?.parse().ok()?,
            number: words.next()?.parse().ok()?,
        };
        words.next().is_none().then_some(name)
    }

    /// Whether its owner is certainly gone. Owners in other pid namespaces cannot be seen from here.
    pub(super) fn is_stale(&self) -> bool {
        own_pid_namespace().is_ok_and(|own| own == self.pid_namespace)
            && start_of(self.pid) != Some(self.start)
    }
}

impl fmt::Display for InstanceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}-{}-{}-{}-{}", self.pid_namespace, self.pid, self.start, self.number)
    }
}

fn own_pid_namespace() -> Result<u64, Error> {
    use std::os::unix::fs::MetadataExt;
    let path = "/proc/self/ns/pid";
    Ok(fs::metadata(path).map_err(error::at("look at", path))?.ino())
}

/// When a running process started; `None` where none has this pid, or only a zombie that its parent has not seen.
fn start_of(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name in brackets and may hold anything, so count from its end; the start is
    // the 22nd field of all.
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_differ() {
        let (one, two) = (InstanceName::unused().unwrap(), InstanceName::unused().unwrap());
        assert_ne!(one, two);
        assert_eq!(InstanceName::parse(&one.to_string()), Some(one));
        for foreign in ["ringtap", "ringtap-1-2-3", "ringtap-1-2-3-4-5", "ringtap-a-2-3-4", "perf-1-2-3-4"] {
            assert_eq!(InstanceName::parse(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn only_the_dead_are_stale() {
        let own = InstanceName::unused().unwrap();
        assert!(!own.is_stale());
        assert!(InstanceName { start: own.start - 1, ..own }.is_stale(), "a reused pid");
        assert!(!InstanceName { pid_namespace: own.pid_namespace + 1, start: 0, ..own }.is_stale());
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        let of_child = |start| InstanceName { pid, start, ..own };
        // It ends in its own time, and is a zombie then.
        let start = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let start = start.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap().parse().unwrap();
        let ends = || {
            std::thread::sleep(std::time::Duration::from_millis(1));
            of_child(start).is_stale()
        };
        assert!((0..5000).any(|_| ends()), "a zombie is gone");
        child.wait().unwrap();
        assert!(of_child(start).is_stale());
    }
}

//! Programs whose crash is waited for, and what a crash is.
//!
//! Linux tells since 6.15 how any process ended, through a descriptor of it; before, only of our own child, and of others
//! until their parent has asked.

use anyhow::{Context, Result};
use ringtap::process::Process;
use ringtap::serve::Peer;
use signal_hook::consts::{SIGHUP, SIGINT, SIGKILL, SIGPIPE, SIGTERM};
use std::fmt;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::mpsc::{Receiver, Sender, channel};

/// The exit status of a Rust program whose main thread panicked.
const PANICKED: i32 = 101;
/// What shells add to the number of the signal that ended their command.
const SIGNALLED: i32 = 128;
/// The last signal that a shell can tell so.
const LAST_SIGNAL: i32 = 64;
/// Signals that ask a program to end: dying of them is no crash.
const ASKED: [i32; 4] = [SIGHUP, SIGINT, SIGPIPE, SIGTERM];

/// How a program crashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Crash {
    name: String,
    pid: u32,
    how: How,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Signal(i32),
    Panic,
    /// The kernel does not say.
    Unknown,
}

impl How {
    fn of(status: ExitStatus) -> Option<Self> {
        let of_signal = |signal| (!ASKED.contains(&signal)).then_some(Self::Signal(signal));
        match (status.signal(), status.code()) {
            (Some(signal), _) => of_signal(signal),
            (_, Some(PANICKED)) => Some(Self::Panic),
            (_, Some(code)) if (SIGNALLED + 1..=SIGNALLED + LAST_SIGNAL).contains(&code) => {
                of_signal(code - SIGNALLED)
            }
            _ => None,
        }
    }
}

impl Crash {
    /// Whether a command that ended like this crashed.
    pub(super) fn of_command(name: &str, pid: u32, status: ExitStatus) -> Option<Self> {
        How::of(status).map(|how| Self { name: name.to_owned(), pid, how })
    }
}

impl fmt::Display for Crash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {}) ", self.name, self.pid)?;
        match self.how {
            How::Signal(SIGKILL) => f.write_str("was killed"),
            How::Signal(signal) => match signal_hook::low_level::signal_name(signal) {
                Some(name) => write!(f, "died of {name}"),
                None => write!(f, "died of signal {signal}"),
            },
            How::Panic => f.write_str("panicked"),
            How::Unknown => f.write_str("ended, this kernel does not tell how"),
        }
    }
}

/// The processes that are watched.
#[derive(Debug)]
pub(super) struct Watch {
    watched: Vec<Watched>,
    arrivals: Receiver<Watched>,
    to: Sender<Watched>,
}

#[derive(Debug)]
struct Watched {
    process: Process,
    name: String,
    /// The program that we were started for, whose end is the end of the recording.
    is_main: bool,
}

impl Watched {
    fn new(pid: u32, is_main: bool) -> std::io::Result<Self> {
        let process = Process::open(pid)?;
        Ok(Self { process, name: name_of(pid).unwrap_or_default(), is_main })
    }
}

impl Watch {
    /// Nobody yet.
    pub(super) fn new() -> Self {
        let (to, arrivals) = channel();
        Self { watched: Vec::new(), arrivals, to }
    }

    /// Watches a program to its end.
    ///
    /// # Errors
    /// It has ended.
    pub(super) fn main(&mut self, pid: u32) -> Result<()> {
        let watched = Watched::new(pid, true).with_context(|| format!("cannot watch process {pid}"))?;
        self.watched.push(watched);
        Ok(())
    }

    /// Watches who attaches to a host from now on.
    pub(super) fn arrivals(&self) -> impl Fn(Peer) + Send + Sync + use<> {
        let to = self.to.clone();
        let own = std::process::id();
        move |peer| {
            // One that has ended already tells nothing any more.
            if let Ok(watched) = Watched::new(peer.pid, false)
                && peer.pid != own
            {
                let _ = to.send(watched);
            }
        }
    }

    /// Whether the program is still there that we wait for.
    pub(super) fn has_main(&self) -> bool {
        self.watched.iter().any(|watched| watched.is_main)
    }

    /// A crash since the last time. `reaped`: a process that the caller has waited for, and knows about.
    pub(super) fn crashed(&mut self, reaped: Option<u32>) -> Option<Crash> {
        while let Ok(arrived) = self.arrivals.try_recv() {
            if !self.watched.iter().any(|watched| watched.process.pid() == arrived.process.pid()) {
                self.watched.push(arrived);
            }
        }
        while let Some(place) = self.watched.iter().position(|watched| watched.process.has_ended()) {
            let ended = self.watched.swap_remove(place);
            let pid = ended.process.pid();
            if Some(pid) == reaped {
                continue;
            }
            let how = match ended.process.status() {
                Some(status) => How::of(status),
                // Rather a file too many than none.
                None => ended.is_main.then_some(How::Unknown),
            };
            if let Some(how) = how {
                // By now it may have become another program.
                let name = name_of(pid).filter(|name| !name.is_empty()).unwrap_or(ended.name);
                return Some(Crash { name, pid, how });
            }
        }
        None
    }
}

fn name_of(pid: u32) -> Option<String> {
    let comm = fs::read(format!("/proc/{pid}/comm")).ok()?;
    Some(String::from_utf8_lossy(comm.trim_ascii_end()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_asked_to_end_did_not_crash() {
        let of = |raw| Crash::of_command("app", 7, ExitStatus::from_raw(raw)).map(|crash| crash.to_string());
        assert_eq!(of(11), Some("app (pid 7) died of SIGSEGV".into()));
        assert_eq!(of(6 | 0x80), Some("app (pid 7) died of SIGABRT".into()), "it left a core");
        assert_eq!(of(9), Some("app (pid 7) was killed".into()));
        assert_eq!(of(101 << 8), Some("app (pid 7) panicked".into()));
        assert_eq!(of(139 << 8), Some("app (pid 7) died of SIGSEGV".into()), "a shell tells of its command");
        for calm in [0, 1 << 8, 2, 15, 1, 13, 130 << 8, 127 << 8, 128 << 8, 255 << 8] {
            assert_eq!(of(calm), None, "{calm}");
        }
    }
}

//! This process's part in a trace: where its events go, and the clock that they are timed with.

use crate::suspend;
use ringtap::Writer;
use ringtap::attach::{Connection, Role, SOCKET_VARIABLE};
use ringtap::clock::{self, ClockId, Since};
use ringtap::tracefs::EventName;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::Duration;

/// Patterns of the events that are wanted, separated by commas; all, where there are none.
const EVENTS_VARIABLE: &str = "RINGTAP_PRELOAD_EVENTS";
/// Says on the standard error why a process is not traced, where it is set.
const VERBOSE_VARIABLE: &str = "RINGTAP_PRELOAD_VERBOSE";
/// Has forked children tell the host that they are there, where it is set: it knows those that execute a program anyhow, and
/// none but a crash recorder needs to know the others.
const CHILDREN_VARIABLE: &str = "RINGTAP_PRELOAD_CHILDREN";
/// How long a host may take to answer: programs wait for it before they begin. On a machine with much to do, a second can pass
/// before it is its turn, and the program would go untraced.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Where events go, once that is known; it is never taken back.
static SESSION: AtomicPtr<Session> = AtomicPtr::new(ptr::null_mut());

/// A process that is traced.
#[derive(Debug)]
pub(crate) struct Session {
    writer: Writer,
    clock: ClockId,
    /// Nanoseconds per tick, times 2^32.
    mult: u64,
    /// Where forked children tell that they are there, if they are to.
    told: Option<PathBuf>,
}

impl Session {
    /// The session, unless there is none or this thread must not write.
    #[inline(always)]
    pub(crate) fn get() -> Option<&'static Self> {
        if suspend::is_suspended() {
            return None;
        }
        // SAFETY: null, or made by `begin` and never freed.
        unsafe { SESSION.load(Acquire).as_ref() }
    }

    /// Writes events. What the buffers refuse is counted there.
    #[inline(always)]
    pub(crate) fn writer(&self) -> &Writer {
        &self.writer
    }

    /// Whether events are stamped with the processor's counter.
    #[inline(always)]
    pub(crate) fn is_by_cycles(&self) -> bool {
        self.clock == ClockId::Cycles
    }

    /// The time now, in ticks.
    #[inline(always)]
    pub(crate) fn now(&self) -> u64 {
        if self.is_by_cycles() { clock::read(ClockId::Cycles) } else { self.now_otherwise() }
    }

    /// Apart, or the compiler makes a table of all clocks.
    #[cold]
    #[inline(never)]
    fn now_otherwise(&self) -> u64 {
        clock::read(self.clock)
    }

    /// That time, as something whose end is asked for later.
    #[inline(always)]
    pub(crate) fn since(&self, then: u64) -> Since {
        Since { clock: self.clock, ticks: then, mult: self.mult }
    }

    /// Nanoseconds since then.
    #[inline(always)]
    pub(crate) fn ns_since(&self, then: u64) -> u64 {
        self.since(then).ns()
    }
}

/// Attaches to the host that the environment names, if it names one.
pub(crate) fn begin() {
    let Some(socket) = std::env::var_os(SOCKET_VARIABLE).filter(|socket| !socket.is_empty()) else {
        return complain(&format!("{SOCKET_VARIABLE} names no host"));
    };
    match attach(socket.as_ref()) {
        // Release: whoever finds it finds it whole.
        Ok(session) => {
            suspend::learn_anew_in_children();
            if session.told.is_some() {
                // SAFETY: the hook is a function that stays loaded.
                unsafe { libc::pthread_atfork(None, None, Some(tell_of_child)) };
            }
            SESSION.store(Box::into_raw(Box::new(session)), Release);
        }
        Err(error) => complain(&format!("{error}")),
    }
}

fn attach(socket: &Path) -> Result<Session, Box<dyn Error>> {
    let connection = Connection::connect_within(socket, Role::Writer, TIMEOUT)?.without_descriptors();
    let known = connection.known_events()?;
    let writer = connection.writer()?;
    let wanted = std::env::var(EVENTS_VARIABLE).unwrap_or_default();
    let patterns: Vec<_> = wanted.split(',').filter(|pattern| !pattern.is_empty()).collect();
    for event in crate::events() {
        let name = EventName { system: event.system().into(), name: event.name().into() };
        if patterns.is_empty() || patterns.iter().any(|pattern| name.is_meant_by(pattern)) {
            event.register(&known)?;
        }
    }
    let clock = connection.clock().unwrap_or(ClockId::Mono);
    let told = is_set(CHILDREN_VARIABLE).then(|| socket.to_owned());
    Ok(Session { mult: writer.conversion().mult, writer, clock, told })
}

/// In a forked child: has the host know this process, which it does once it has answered.
extern "C" fn tell_of_child() {
    let Some(socket) = Session::get().and_then(|session| session.told.as_ref()) else { return };
    // Where the host is gone, nobody wants to know.
    suspend::untraced(|| drop(Connection::connect_within(socket, Role::Writer, TIMEOUT)));
}

fn is_set(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| !value.is_empty())
}

/// Programs go on whether or not anybody traces them, and their output stays theirs, unless somebody asks.
fn complain(why: &str) {
    if is_set(VERBOSE_VARIABLE) {
        let line = format!("ringtap: {} is not traced: {why}\n", std::process::id());
        // SAFETY: the bytes are there.
        let _ = unsafe { crate::io::write::call(libc::STDERR_FILENO, line.as_ptr().cast(), line.len()) };
    }
}

//! Where a process's declared events and markers go: its host, and its events, under one lock.

use crate::error::{Code, Error};
use crate::event::{AllKnown, Description, Event, Known};
use crate::fork::{Guard, Lock};
use crate::host::Inner;
use crate::{switches, thread};
use ringtap::Writer;
use ringtap::attach::Attachment;
use ringtap::event::EventError;
use std::cell::UnsafeCell;
use std::ffi::{CString, c_char};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::sync::atomic::{AtomicBool, AtomicPtr};
use std::sync::{Arc, Once};

/// What events are written with; null while the process does not trace. Never freed: a thread may be about to use it.
static WRITER: AtomicPtr<Writer> = AtomicPtr::new(ptr::null_mut());

/// Whether forked children have threads of the library's. Relaxed: it is stored before the fork that it is about.
static FOLLOWS_FORKS: AtomicBool = AtomicBool::new(true);

static PROCESS: Lock<Process> = Lock::new(Process::new(), watch_forks);

/// What events are written with.
#[inline(always)]
pub(crate) fn writer() -> Option<&'static Writer> {
    // SAFETY: null, or one that is never freed. Acquire: it was made before it was stored here.
    unsafe { WRITER.load(Acquire).as_ref() }
}

#[derive(Debug)]
struct Process {
    /// The events of the program and its shared libraries: each is there until it is forgotten.
    events: Vec<Address>,
    known: Option<AllKnown>,
    trace: Option<Trace>,
    socket: Option<CString>,
    /// Writers of before, kept.
    writers: Vec<Address>,
}

/// Of something that no thread owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Address(usize);

impl Address {
    fn of<T>(what: *const T) -> Self {
        Self(what.expose_provenance())
    }
}

/// Where they go.
#[derive(Debug)]
pub(crate) enum Trace {
    /// To a host of another process.
    There(Attachment),
    /// Into a host of this process.
    Here(Arc<Inner>),
}

impl Trace {
    fn writer(&self) -> Option<Writer> {
        match self {
            Self::There(attachment) => Some(attachment.writer()),
            Self::Here(host) => host.writer(),
        }
    }

    fn register(&self, known: &'static Known) -> Result<(), Error> {
        let registered: Result<u16, EventError> = match self {
            Self::There(attachment) => known.declared.register(attachment),
            Self::Here(host) => return host.register(&known.declared),
        };
        registered.map(drop).map_err(Error::from)
    }
}

impl Process {
    const fn new() -> Self {
        Self { events: Vec::new(), known: None, trace: None, socket: None, writers: Vec::new() }
    }

    fn is_attached(&self) -> bool {
        matches!(self.trace, Some(Trace::There(_)))
    }

    fn register(&self, known: &'static Known) -> Result<(), Error> {
        match &self.trace {
            Some(trace) if known.declared.id().is_none() => trace.register(known),
            _ => Ok(()),
        }
    }

    fn refresh(&self) {
        for event in &self.events {
            let event = ptr::with_exposed_provenance::<Event>(event.0);
            // SAFETY: whoever declared it leaves it where it is until it is forgotten, which takes this lock.
            unsafe { &*event }.refresh();
        }
    }

    fn known(&self) -> impl Iterator<Item = &'static Known> {
        self.known.iter().flat_map(AllKnown::iter)
    }

    /// Begins to trace; gives back what is not needed, since the process traces already.
    fn open(&mut self, trace: Trace, socket: Option<CString>) -> Result<(), Trace> {
        if self.trace.is_some() {
            return Err(trace);
        }
        let Some(writer) = trace.writer() else { return Err(trace) };
        if let Trace::There(attachment) = &trace {
            attachment.set_follows_forks(FOLLOWS_FORKS.load(Relaxed));
        }
        let writer = Box::into_raw(Box::new(writer));
        self.writers.push(Address::of(writer));
        WRITER.swap(writer, AcqRel);
        (self.trace, self.socket) = (Some(trace), socket);
        for known in self.known() {
            // Why one could not be registered is said when it is declared once more.
            let _ = self.register(known);
        }
        self.refresh();
        Ok(())
    }
}

pub(crate) fn declare(event: &Event, description: &Description) -> Result<Code, Error> {
    let mut process = PROCESS.lock();
    let known = process.known.get_or_insert_default().find_or_make(description)?;
    event.set_known(known);
    let address = Address::of(event);
    if !process.events.contains(&address) {
        process.events.push(address);
    }
    let registered = process.register(known);
    event.refresh();
    registered.map(|()| Code::Ok)
}

pub(crate) fn forget(event: *const Event) {
    // A handler that interrupted the lock's owner ends the program: nobody looks at the event any more.
    if PROCESS.is_mine() {
        return;
    }
    let address = Address::of(event);
    PROCESS.lock().events.retain(|known| *known != address);
}

/// Has all events say what their switches say.
pub(crate) fn refresh() {
    PROCESS.lock().refresh();
}

/// Begins to trace there. `socket` is where this process's own host is served.
pub(crate) fn begin(trace: Trace, socket: Option<&Path>) -> Result<Code, Error> {
    let socket = socket.and_then(|path| CString::new(path.as_os_str().as_bytes()).ok());
    let is_attached = matches!(trace, Trace::There(_));
    let mut process = PROCESS.lock();
    let opened = process.open(trace, socket);
    drop(process);
    // Not needed, it is dropped here, where nobody waits for the lock.
    opened.map_err(|_| Error::new(Code::State, "the process traces already: call ringtap_detach first"))?;
    if is_attached {
        switches::watch(refresh);
    }
    Ok(Code::Ok)
}

/// Has forked children start threads, or leave it.
pub(crate) fn follow_forks(follows: bool) {
    let process = PROCESS.lock();
    FOLLOWS_FORKS.store(follows, Relaxed);
    if let Some(Trace::There(attachment)) = &process.trace {
        attachment.set_follows_forks(follows);
    }
}

pub(crate) fn is_tracing() -> bool {
    PROCESS.lock().trace.is_some()
}

/// Ends it.
pub(crate) fn end() {
    let mut process = PROCESS.lock();
    let trace = process.trace.take();
    let socket = process.socket.take();
    WRITER.swap(ptr::null_mut(), AcqRel);
    process.known().for_each(|known| known.declared.unregister());
    process.refresh();
    drop(process);
    switches::end();
    drop((trace, socket));
}

/// The process's own host, if events go there. `None`, too, in a handler that interrupted the lock's owner, and ends the
/// program.
pub(crate) fn own_host() -> Option<Arc<Inner>> {
    if PROCESS.is_mine() {
        return None;
    }
    match &PROCESS.lock().trace {
        Some(Trace::Here(host)) => Some(Arc::clone(host)),
        _ => None,
    }
}

/// Where the host is served that [`begin`] was given; null where it is not. It is there until the end.
pub(crate) fn socket() -> *const c_char {
    PROCESS.lock().socket.as_ref().map_or(ptr::null(), |socket| socket.as_ptr())
}

/// The process's lock while its fork is under way.
struct Held(UnsafeCell<Option<Guard<'static, Process>>>);

// SAFETY: only who has the lock touches it.
unsafe impl Sync for Held {}

static HELD: Held = Held(UnsafeCell::new(None));

/// Takes the process's lock at each fork, from the first time on that somebody else takes it.
fn watch_forks() {
    static ONCE: Once = Once::new();
    // SAFETY: the hooks are functions of this library, which is not unloaded.
    ONCE.call_once(|| unsafe {
        libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child));
    });
}

extern "C" fn before() {
    // A handler that interrupted the lock's owner forks: the child has that owner, who will let go of it.
    if PROCESS.is_mine() {
        return;
    }
    let guard = PROCESS.lock();
    // SAFETY: the lock is held.
    unsafe { *HELD.0.get() = Some(guard) };
}

extern "C" fn in_parent() {
    if PROCESS.is_mine() {
        // SAFETY: the lock is held; where that was so before the fork, there is nothing here.
        unsafe { *HELD.0.get() = None };
    }
}

extern "C" fn in_child() {
    thread::forget();
    // The thread has another id here than its guard says.
    // SAFETY: there is no other thread.
    let guard = unsafe { (*HELD.0.get()).take() };
    let is_attached = guard.as_ref().is_some_and(|process| process.is_attached());
    match guard {
        Some(guard) => drop(guard),
        None => PROCESS.inherit(),
    }
    if is_attached && FOLLOWS_FORKS.load(Relaxed) {
        switches::watch(refresh);
    }
}

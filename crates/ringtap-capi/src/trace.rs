//! Where a process's declared events and markers go.

use crate::error::{Code, Error, guard, guard_value};
use crate::event::{AllKnown, Description, Event, Known};
use crate::fork::Lock;
use crate::host::{CHost, Inner};
use crate::{switches, text};
use ringtap::attach::{Attachment, Early, SOCKET_VARIABLE};
use ringtap::event::EventError;
use ringtap::{Config, Writer, serve};
use std::ffi::{CString, c_char, c_int};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::{AcqRel, Acquire};
use std::sync::{Arc, Once};

/// The name of the daemon's socket, see [`serve::default_path`].
const DAEMON: &str = "default";

/// What events are written with; null while the process does not trace. Never freed: a thread may be about to use it.
static WRITER: AtomicPtr<Writer> = AtomicPtr::new(ptr::null_mut());

pub(crate) static PROCESS: Lock<Process> = Lock::new(Process::new());

/// What events are written with.
#[inline(always)]
pub(crate) fn writer() -> Option<&'static Writer> {
    // SAFETY: null, or one that is never freed. Acquire: it was made before it was stored here.
    unsafe { WRITER.load(Acquire).as_ref() }
}

#[derive(Debug)]
pub(crate) struct Process {
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

#[derive(Debug)]
enum Trace {
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

    pub(crate) fn is_attached(&self) -> bool {
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
    let address = Address::of(event);
    PROCESS.lock().events.retain(|known| *known != address);
}

/// Has all events say what their switches say.
pub(crate) fn refresh() {
    PROCESS.lock().refresh();
}

fn begin(trace: Trace, socket: Option<&Path>) -> Result<Code, Error> {
    let socket = socket.and_then(|path| CString::new(path.as_os_str().as_bytes()).ok());
    let is_attached = matches!(trace, Trace::There(_));
    let mut process = PROCESS.lock();
    let opened = process.open(trace, socket);
    drop(process);
    // Not needed, it is dropped here, where nobody waits for the lock.
    opened.map_err(|_| Error::new(Code::State, "the process traces already: call ringtap_detach first"))?;
    if is_attached {
        switches::watch();
    }
    Ok(Code::Ok)
}

fn is_tracing() -> bool {
    PROCESS.lock().trace.is_some()
}

/// `ringtap_init`. [thread]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn ringtap_init() -> c_int {
    guard(|| {
        if is_tracing() {
            return Ok(Code::Ok);
        }
        // A program does its work whether or not anybody records it: where there is no host after all, it has its own.
        let attached = daemon().and_then(|path| Attachment::attach(path).ok());
        let begun = match attached {
            Some(attachment) => begin(Trace::There(attachment), None),
            None => begin_here(),
        };
        // Another thread was faster.
        begun.or_else(|error| if is_tracing() { Ok(Code::Ok) } else { Err(error) })
    })
}

/// The socket of the host that the environment names, or of the daemon if it is there.
fn daemon() -> Option<PathBuf> {
    match std::env::var_os(SOCKET_VARIABLE).filter(|path| !path.is_empty()) {
        Some(path) => Some(path.into()),
        None => serve::default_path(DAEMON).ok().filter(|path| path.exists()),
    }
}

fn begin_here() -> Result<Code, Error> {
    let host = Inner::new(&Config::default())?;
    let socket = serve_somewhere(&host);
    remove_socket_at_exit();
    begin(Trace::Here(host), socket.as_deref())
}

/// Serves a host under the program's name, or its name and number where another of its kind runs. Without a directory
/// for it, nobody can look in.
fn serve_somewhere(host: &Inner) -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    let program: String = program.file_name()?.to_string_lossy().chars().map(plain).collect();
    let program = program.trim_start_matches('.');
    let names = [program.to_owned(), format!("{program}-{}", std::process::id())];
    names.iter().find_map(|name| {
        let path = serve::default_path(name).ok()?;
        host.serve(&path).ok().map(|()| path)
    })
}

/// A program that ends leaves no socket behind that nobody answers.
fn remove_socket_at_exit() {
    extern "C" fn remove() {
        let served = match &PROCESS.lock().trace {
            Some(Trace::Here(host)) => Some(Arc::clone(host)),
            _ => None,
        };
        served.inspect(|host| host.stop_serving());
    }
    static ONCE: Once = Once::new();
    // SAFETY: a function of this library, which is not unloaded.
    ONCE.call_once(|| unsafe {
        libc::atexit(remove);
    });
}

/// `ringtap_attach`. [thread]
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ringtap_attach(socket: *const c_char, early: c_int) -> c_int {
    guard(|| {
        // SAFETY: as the header says.
        let socket = unsafe { text::copied(socket, "the socket") }?;
        if is_tracing() {
            return Err(Error::new(Code::State, "the process traces already: call ringtap_detach first"));
        }
        let attachment = match early {
            0 => Attachment::attach(socket),
            1 => Attachment::attach_early(socket, Early::Off),
            2 => Attachment::attach_early(socket, Early::HandOver(Config::default())),
            _ => return Err(Error::argument("what becomes of early events is none of enum ringtap_early")),
        };
        begin(Trace::There(attachment?), None)
    })
}

/// `ringtap_trace_to`. [thread]
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ringtap_trace_to(host: *mut CHost) -> c_int {
    guard(|| {
        // SAFETY: as the header says.
        let host = unsafe { CHost::get(host) }?;
        if host.writer().is_none() {
            return Err(Error::argument("the host is of another process: use ringtap_attach"));
        }
        begin(Trace::Here(Arc::clone(host)), None)
    })
}

/// `ringtap_detach`. [thread]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn ringtap_detach() -> c_int {
    guard(|| {
        let mut process = PROCESS.lock();
        let trace = process.trace.take();
        let socket = process.socket.take();
        WRITER.swap(ptr::null_mut(), AcqRel);
        process.known().for_each(|known| known.declared.unregister());
        process.refresh();
        drop(process);
        switches::end();
        drop((trace, socket));
        Ok(Code::Ok)
    })
}

/// `ringtap_socket`. [thread]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn ringtap_socket() -> *const c_char {
    guard_value(ptr::null(), || PROCESS.lock().socket.as_ref().map_or(ptr::null(), |socket| socket.as_ptr()))
}

//! Hosts, in this process or another.

use crate::error::{Code, Error, guard, guard_value};
use crate::text;
use ringtap::attach::{Connection, Role};
use ringtap::clock::ClockId;
use ringtap::event::Declared;
use ringtap::event::registry::Event;
use ringtap::serve::Server;
use ringtap::{Config, Cursor, Host, Mode, Reader, Start, Stats, Writer, WriterKind};
use std::ffi::{c_char, c_int};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// `ringtap_host`: a handle.
#[derive(Debug)]
pub(crate) struct CHost(Arc<Inner>);

impl CHost {
    /// # Safety
    /// Null, or a handle that is not freed.
    pub(crate) unsafe fn get<'h>(host: *mut Self) -> Result<&'h Arc<Inner>, Error> {
        // SAFETY: as the caller says.
        unsafe { host.cast_const().as_ref() }.map(|host| &host.0).ok_or_else(|| Error::null("the host"))
    }
}

/// A host.
#[derive(Debug)]
pub(crate) enum Inner {
    Here {
        host: Host,
        server: Mutex<Option<Server>>,
        /// Where its server is; kept for forked children, which cannot ask for the lock.
        socket: OnceLock<PathBuf>,
        /// The process that it is in: forked children have a copy of it that nobody else knows.
        pid: u32,
        /// Of forked children, with their numbers: how they ask their parent. Kept, since they keep the words mapped at
        /// which the events look that were declared so.
        to_parent: Mutex<Vec<(u32, Connection)>>,
    },
    There(Arc<Connection>),
}

impl Inner {
    pub(crate) fn new(config: &Config) -> Result<Arc<Self>, Error> {
        Ok(Arc::new(Self::Here {
            host: Host::new(config)?,
            server: Mutex::default(),
            socket: OnceLock::new(),
            pid: std::process::id(),
            to_parent: Mutex::default(),
        }))
    }

    /// A writer, where the memory is this process's own.
    pub(crate) fn writer(&self) -> Option<Writer> {
        match self {
            Self::Here { host, .. } => Some(host.writer()),
            Self::There(_) => None,
        }
    }

    /// Registers an event: in a forked child, with the parent.
    pub(crate) fn register(&self, declared: &'static Declared) -> Result<(), Error> {
        match self {
            Self::Here { host, pid, .. } if *pid == std::process::id() => declared.register(host)?,
            Self::Here { socket, to_parent, .. } => {
                let socket = socket.get().ok_or_else(|| {
                    let message =
                        "a forked child cannot declare events: serve the host, or declare them before";
                    Error::new(Code::Host, message)
                })?;
                // Only taken under the process's lock, which no other thread holds while one forks.
                let mut to_parent = to_parent.lock().unwrap_or_else(PoisonError::into_inner);
                let pid = std::process::id();
                if to_parent.last().is_none_or(|(its, _)| *its != pid) {
                    to_parent.push((pid, Connection::connect(socket, Role::Writer)?));
                }
                let (_, connection) = to_parent.last().expect("it was just made");
                declared.register(connection)?
            }
            Self::There(connection) => declared.register(&**connection)?,
        };
        Ok(())
    }

    pub(crate) fn serve(&self, path: &Path) -> Result<(), Error> {
        let Self::Here { host, server, socket, .. } = self else {
            return Err(Error::argument("the host is of another process, which serves it"));
        };
        let mut server = server.lock().unwrap_or_else(PoisonError::into_inner);
        if server.is_some() || socket.get().is_some() {
            return Err(Error::new(Code::State, "the host is served already"));
        }
        *server = Some(host.serve(path)?);
        // Only here is it set.
        let _ = socket.set(path.to_owned());
        Ok(())
    }

    pub(crate) fn stop_serving(&self) {
        if let Self::Here { server, .. } = self {
            let server = server.lock().unwrap_or_else(PoisonError::into_inner).take();
            drop(server);
        }
    }

    pub(crate) fn cpus(&self) -> Vec<u32> {
        match self {
            Self::Here { host, .. } => host.cpus(),
            Self::There(connection) => connection.cpus().to_vec(),
        }
    }

    pub(crate) fn reader(&self, cpu: u32) -> Result<Reader, Error> {
        Ok(match self {
            Self::Here { host, .. } => host.reader(cpu)?,
            Self::There(connection) => connection.reader(cpu)?,
        })
    }

    pub(crate) fn cursor(&self, cpu: u32, start: Start) -> Result<Cursor, Error> {
        Ok(match self {
            Self::Here { host, .. } => host.cursor(cpu, start)?,
            Self::There(connection) => connection.cursor(cpu, start)?,
        })
    }

    /// The system and format text of the event of this number.
    pub(crate) fn event(&self, id: u16) -> Option<(String, String)> {
        match self {
            Self::Here { host, .. } => {
                let events = host.events();
                let event = events.iter().find(|event| event.id == id)?;
                Some((event.system.clone(), event.format.clone()))
            }
            Self::There(connection) => {
                let event = connection.next_event(id.checked_sub(1)?).ok()??;
                (event.id == id).then_some((event.system, event.format))
            }
        }
    }

    /// The numbers, systems and format texts of all events.
    pub(crate) fn events(&self) -> Result<Vec<(u16, String, String)>, Error> {
        let parts = |event: &Event| (event.id, event.system.clone(), event.format.clone());
        Ok(match self {
            Self::Here { host, .. } => host.events().iter().map(|event| parts(event)).collect(),
            Self::There(connection) => connection.events()?.iter().map(parts).collect(),
        })
    }

    fn stats(&self, cpu: u32) -> Result<Stats, Error> {
        Ok(match self {
            Self::Here { host, .. } => host.stats(cpu)?,
            Self::There(connection) => connection.stats(cpu)?,
        })
    }
}

/// `struct ringtap_config`.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct CConfig {
    subbuf_size: u32,
    ring_subbufs: u32,
    discard: u32,
    buffer_percent: u32,
    locked: u32,
    off: u32,
    clock: *const c_char,
    directory: *const c_char,
}

impl CConfig {
    /// # Safety
    /// As the header says.
    unsafe fn read(&self) -> Result<Config, Error> {
        // SAFETY: as the caller says, here and below.
        let clock = unsafe { text::optional(self.clock, "the clock") }?;
        // SAFETY: as above.
        let directory = unsafe { text::optional(self.directory, "the directory") }?;
        let clock = clock.map(|name| {
            let none = || Error::argument("the clock has a name that no clock has");
            ClockId::from_name(&name).ok_or_else(none)
        });
        let percent = || Error::argument("a buffer cannot be more than 100 percent full");
        Ok(Config {
            subbuf_size: self.subbuf_size,
            ring_subbufs: self.ring_subbufs,
            mode: if self.discard != 0 { Mode::Discard } else { Mode::Overwrite },
            clock: clock.transpose()?,
            writer: (self.locked != 0).then_some(WriterKind::Locked),
            buffer_percent: u8::try_from(self.buffer_percent).map_err(|_| percent())?,
            off: self.off != 0,
            directory: directory.map(PathBuf::from),
            ..Config::default()
        })
    }
}

/// Hands a handle to C.
///
/// # Safety
/// `to` is null or can be written.
pub(crate) unsafe fn give<T>(
    to: *mut *mut T,
    make: impl FnOnce() -> Result<T, Error>,
) -> Result<Code, Error> {
    if to.is_null() {
        return Err(Error::null("the place of the result"));
    }
    let made = Box::into_raw(Box::new(make()?));
    // SAFETY: as the caller says.
    unsafe { to.write(made) };
    Ok(Code::Ok)
}

/// Takes a handle back from C.
///
/// # Safety
/// Null, or a handle that [`give`] gave and that is used no more.
pub(crate) unsafe fn free<T>(handle: *mut T) {
    if !handle.is_null() {
        guard_value((), || {
            // SAFETY: as the caller says.
            drop(unsafe { Box::from_raw(handle) });
        });
    }
}

/// `ringtap_host_new`. [thread]
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ringtap_host_new(config: *const CConfig, host: *mut *mut CHost) -> c_int {
    guard(|| {
        // SAFETY: as the header says.
        let config = unsafe { config.as_ref() };
        // SAFETY: as above.
        let config = config.map(|config| unsafe { config.read() }).transpose()?.unwrap_or_default();
        // SAFETY: as above.
        unsafe { give(host, || Ok(CHost(Inner::new(&config)?))) }
    })
}

/// `ringtap_host_connect`. [thread]
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ringtap_host_connect(socket: *const c_char, host: *mut *mut CHost) -> c_int {
    guard(|| {
        // SAFETY: as the header says.
        let socket = unsafe { text::optional(socket, "the socket") }?;
        let connect = || {
            let connection = match socket {
                Some(socket) => Connection::connect(socket, Role::Reader)?,
                None => Connection::from_environment(Role::Reader)?
                    .ok_or_else(|| Error::new(Code::Host, "RINGTAP_SOCKET names no host: name its socket"))?,
            };
            Ok(CHost(Arc::new(Inner::There(Arc::new(connection)))))
        };
        // SAFETY: as the header says.
        unsafe { give(host, connect) }
    })
}

/// `ringtap_host_serve`. [handle]
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ringtap_host_serve(host: *mut CHost, socket: *const c_char) -> c_int {
    guard(|| {
        // SAFETY: as the header says.
        let socket = unsafe { text::copied(socket, "the socket") }?;
        // SAFETY: as above.
        unsafe { CHost::get(host) }?.serve(Path::new(&socket)).map(|()| Code::Ok)
    })
}

/// `ringtap_host_set_recording`. [thread]
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ringtap_host_set_recording(host: *mut CHost, on: c_int) -> c_int {
    guard(|| {
        // SAFETY: as the header says.
        match &**unsafe { CHost::get(host) }? {
            Inner::Here { host, .. } => host.set_recording(on != 0),
            Inner::There(connection) => connection.set_recording(on != 0)?,
        }
        Ok(Code::Ok)
    })
}

/// `ringtap_host_free`. [handle]
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ringtap_host_free(host: *mut CHost) {
    // SAFETY: as the header says.
    if let Ok(inner) = unsafe { CHost::get(host) } {
        guard_value((), || inner.stop_serving());
    }
    // SAFETY: as above.
    unsafe { free(host) };
}

/// `struct ringtap_stats`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct CStats {
    written: u64,
    unread: u64,
    overwritten: u64,
    read: u64,
    dropped: u64,
    refused: u64,
}

/// `ringtap_host_stats`. [thread]
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ringtap_host_stats(host: *mut CHost, stats: *mut CStats) -> c_int {
    guard(|| {
        // SAFETY: as the header says.
        let host = unsafe { CHost::get(host) }?;
        if stats.is_null() {
            return Err(Error::null("the place of the result"));
        }
        let mut all = CStats::default();
        for cpu in host.cpus() {
            let one = host.stats(cpu)?;
            all.written += one.written();
            all.unread += one.entries;
            all.overwritten += one.overrun;
            all.read += one.read_events;
            all.dropped += one.dropped_events;
            all.refused += one.commit_overrun;
        }
        // SAFETY: as the header says.
        unsafe { stats.write(all) };
        Ok(Code::Ok)
    })
}

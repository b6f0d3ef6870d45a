//! Where a program's events go: to a host that runs already, or into memory of its own.

use crate::layer::Layer;
use crate::recorder::{Options, Recorder};
use crate::source::Source;
use crate::subscriber::Subscriber;
use ringtap::attach::{AttachError, Attachment, SOCKET_VARIABLE};
use ringtap::serve::{self, ServeError, Server};
use ringtap::{Config, Host, HostError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tracing_core::LevelFilter;
use tracing_core::dispatcher::{self, Dispatch, SetGlobalDefaultError};

/// The name of the daemon's socket, see [`serve::default_path`].
const DAEMON: &str = "default";

/// Why tracing could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InitError {
    /// There is no memory of our own.
    #[error("failed to make the trace's buffers")]
    Host(#[from] HostError),
    /// The host that was named cannot be reached.
    #[error("failed to attach to the host at {path}")]
    Attach {
        /// Its socket.
        path: PathBuf,
        /// What is in the way.
        #[source]
        source: AttachError,
    },
    /// The socket that was asked for cannot be served.
    #[error("failed to serve the trace")]
    Serve(#[from] ServeError),
    /// Another subscriber is there.
    #[error("the program has another global subscriber: put a ringtap layer on it instead")]
    Taken(#[source] SetGlobalDefaultError),
    /// Another logger is there.
    #[error("the program has another logger: leave log records to it with `without_log`")]
    Logger(#[source] tracing_log::log::SetLoggerError),
}

/// Sets up tracing for the whole program: to the daemon where there is one, else into memory of its own, which it
/// serves so that `ringtap stream --attach` can follow it. `log` records come along.
///
/// ```no_run
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let _session = ringtap_tracing::init()?;
///     tracing::info!(answer = 42, "ready");
///     Ok(())
/// }
/// ```
///
/// # Errors
/// [`InitError`].
pub fn init() -> Result<Session, InitError> {
    Builder::new().init()
}

/// Where events go.
#[derive(Clone, Debug, Default)]
enum Where {
    /// To the daemon or into memory of our own.
    #[default]
    Any,
    /// Into memory of our own.
    Here,
    /// To the host with this socket.
    There(PathBuf),
}

/// How tracing is set up, where [`init`] does not fit.
#[derive(Clone, Debug)]
pub struct Builder {
    place: Where,
    config: Config,
    socket: Option<PathBuf>,
    is_served: bool,
    options: Options,
    has_log: bool,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            place: Where::default(),
            config: Config::default(),
            socket: None,
            is_served: true,
            options: Options { max_level: LevelFilter::TRACE, every_close: false },
            has_log: true,
        }
    }
}

impl Builder {
    /// As [`init`] does it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Never attaches to another process's host.
    #[must_use]
    pub fn embedded(mut self) -> Self {
        self.place = Where::Here;
        self
    }

    /// Attaches to the host with this socket, and fails where it is not there.
    #[must_use]
    pub fn attach(mut self, socket: impl Into<PathBuf>) -> Self {
        self.place = Where::There(socket.into());
        self
    }

    /// How large the memory of our own is, and what happens when it is full.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Where memory of our own is served, and fails where it cannot be.
    #[must_use]
    pub fn serve_at(mut self, socket: impl Into<PathBuf>) -> Self {
        self.socket = Some(socket.into());
        self
    }

    /// Serves memory of our own nowhere: only this process reads it, by [`Session::host`].
    #[must_use]
    pub fn unserved(mut self) -> Self {
        self.is_served = false;
        self
    }

    /// Callsites above this level are off, whatever else is said.
    #[must_use]
    pub fn max_level(mut self, level: impl Into<LevelFilter>) -> Self {
        self.options.max_level = level.into();
        self
    }

    /// Writes each span's close. Else a span is closed with its last `_exit` where its thread wrote nothing in between.
    #[must_use]
    pub fn every_close(mut self) -> Self {
        self.options.every_close = true;
        self
    }

    /// Leaves records of the `log` crate alone.
    #[must_use]
    pub fn without_log(mut self) -> Self {
        self.has_log = false;
        self
    }

    /// Sets the program's global subscriber.
    ///
    /// # Errors
    /// [`InitError`].
    pub fn init(self) -> Result<Session, InitError> {
        let (has_log, max_level) = (self.has_log, self.options.max_level);
        let (subscriber, session) = self.subscriber()?;
        dispatcher::set_global_default(Dispatch::new(subscriber)).map_err(InitError::Taken)?;
        if has_log {
            let level = tracing_log::AsLog::as_log(&max_level);
            tracing_log::LogTracer::builder().with_max_level(level).init().map_err(InitError::Logger)?;
        }
        Ok(session)
    }

    /// A subscriber to be put where it belongs by the caller.
    ///
    /// # Errors
    /// [`InitError`].
    pub fn subscriber(self) -> Result<(Subscriber, Session), InitError> {
        let session = self.session()?;
        watch_switches(&session.recorder);
        Ok((Subscriber::new(Arc::clone(&session.recorder)), session))
    }

    /// A layer for a registry of `tracing_subscriber`.
    ///
    /// # Errors
    /// [`InitError`].
    pub fn layer(self) -> Result<(Layer, Session), InitError> {
        let (subscriber, session) = self.subscriber()?;
        Ok((subscriber.into_layer(), session))
    }

    fn session(self) -> Result<Session, InitError> {
        let attach = |path: &Path| Attached::new(path, self.options);
        match &self.place {
            Where::There(path) => attach(path)
                .map(Session::from)
                .map_err(|source| InitError::Attach { path: path.clone(), source }),
            Where::Here => self.embed(None),
            Where::Any => match daemon().map(|path| (attach(&path), path)) {
                Some((Ok(attached), _)) => Ok(attached.into()),
                // A program does its work whether or not anybody records it.
                Some((Err(error), _)) => self.embed(Some(error)),
                None => self.embed(None),
            },
        }
    }

    fn embed(self, not_attached: Option<AttachError>) -> Result<Session, InitError> {
        let host = Host::new(&self.config)?;
        let server = match (&self.socket, self.is_served) {
            (Some(path), true) => Some(host.serve(path)?),
            // Without a directory for it, the trace can still be read from within.
            (None, true) => serve_somewhere(&host),
            (_, false) => None,
        };
        let source = Source::here(host.clone(), server.as_ref().map(Server::path));
        let recorder = Arc::new(Recorder::new(host.writer(), source, self.options));
        Ok(Session { recorder, host: Some(host), server, not_attached })
    }
}

/// How often is looked whether the host switched events: then callsites are off for `tracing`, too, or on again.
const LOOK: Duration = Duration::from_millis(100);

/// Looks at the switches as long as the recorder lives. Where there can be no thread, events that are switched off still are
/// not written, but cost more than nothing.
fn watch_switches(recorder: &Arc<Recorder>) {
    let recorder = Arc::downgrade(recorder);
    let watch = move || {
        while let Some(recorder) = recorder.upgrade() {
            recorder.notice_switches();
            drop(recorder);
            std::thread::sleep(LOOK);
        }
    };
    let _ = std::thread::Builder::new().name("ringtap-switches".into()).spawn(watch);
}

/// A recorder that writes to another process's host.
struct Attached(Recorder);

impl Attached {
    fn new(path: &Path, options: Options) -> Result<Self, AttachError> {
        let attachment = Attachment::attach(path)?;
        Ok(Self(Recorder::new(attachment.writer(), Source::there(attachment), options)))
    }
}

impl From<Attached> for Session {
    fn from(attached: Attached) -> Self {
        Self { recorder: Arc::new(attached.0), host: None, server: None, not_attached: None }
    }
}

/// The socket of the host that the environment names, or of the daemon if it is there.
fn daemon() -> Option<PathBuf> {
    match std::env::var_os(SOCKET_VARIABLE).filter(|path| !path.is_empty()) {
        Some(path) => Some(path.into()),
        None => serve::default_path(DAEMON).ok().filter(|path| path.exists()),
    }
}

/// Serves a host under the program's name, or its name and number where another of its kind runs.
fn serve_somewhere(host: &Host) -> Option<Server> {
    let program = std::env::current_exe().ok()?;
    let program: String = program.file_name()?.to_string_lossy().chars().map(plain).collect();
    let program = program.trim_start_matches('.');
    [program.to_owned(), format!("{program}-{}", std::process::id())]
        .iter()
        .find_map(|name| host.serve(serve::default_path(name).ok()?).ok())
}

fn plain(c: char) -> char {
    if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' }
}

/// A program's trace. Kept for as long as others shall be able to attach to memory of its own.
#[derive(Debug)]
#[must_use = "dropped, nobody can attach to the program any more"]
pub struct Session {
    recorder: Arc<Recorder>,
    host: Option<Host>,
    server: Option<Server>,
    not_attached: Option<AttachError>,
}

impl Session {
    /// The host, where events go into memory of our own.
    #[must_use]
    pub fn host(&self) -> Option<&Host> {
        self.host.as_ref()
    }

    /// The socket under which this process's memory is served.
    #[must_use]
    pub fn socket(&self) -> Option<&Path> {
        self.server.as_ref().map(Server::path)
    }

    /// Why events go into memory of our own although there seemed to be another host.
    #[must_use]
    pub fn not_attached(&self) -> Option<&AttachError> {
        self.not_attached.as_ref()
    }

    /// Switches events on or off: `SYSTEM:NAME`, stars allowed. The system is the crate. Callsites that were not met
    /// so far obey, too. Returns how many known events are named.
    pub fn switch(&self, pattern: &str, on: bool) -> usize {
        self.recorder.switch(pattern, on)
    }

    /// Records that were not written since their events could not be registered with the host: it is full or gone, or
    /// another thread was at it for seconds. What a ring refuses is counted there.
    #[must_use]
    pub fn unwritten(&self) -> u64 {
        self.recorder.unwritten()
    }
}

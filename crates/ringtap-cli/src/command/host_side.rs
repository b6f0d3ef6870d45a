//! The host whose events are followed or recorded: another process's, or one of our own.

use crate::application::Registry;
use crate::child::Running;
use crate::decode::Names;
use crate::preload::Preload;
use crate::private::Folder;
use crate::remote::{self, Remote};
use crate::switched::Switched;
use anyhow::{Context, Result};
use ringtap::attach::{Connection, Role, SOCKET_VARIABLE, Switchboard};
use ringtap::clock::ClockId;
use ringtap::event::registry::Event;
use ringtap::instance::{Pattern, Task};
use ringtap::serve::{Options, Server};
use ringtap::tracefs::EventName;
use ringtap::{Config, Host, Input, Instances, Reader, Start, Stats};
use std::ffi::OsString;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Where the application's events come from.
#[derive(Clone, Debug)]
pub(super) enum ApplicationPlan {
    /// The buffers of another process's host.
    Attach(AttachPlan),
    /// A host of our own, for the command. Only these events are recorded; all, where there are none.
    Embed { subbuf_kib: u32, buffer_kib: u32, clock: Option<ClockId>, events: Vec<Pattern> },
}

/// Which buffers of another process's host, and how they are read.
#[derive(Clone, Debug)]
pub(super) struct AttachPlan {
    pub(super) socket: PathBuf,
    /// The instance; without it the top one.
    pub(super) instance: Option<String>,
    pub(super) consume: bool,
    /// Without what is in the buffers already.
    pub(super) new: bool,
    /// What is on as long as we read; without any, what is on anyway.
    pub(super) events: Vec<Pattern>,
    /// Where they cannot be switched, there is nothing to be done.
    pub(super) must_switch: bool,
}

/// That host.
pub(super) enum HostSide {
    Attached {
        connection: Arc<Connection>,
        socket: PathBuf,
        instance: Option<String>,
        consume: bool,
        new: bool,
        /// Events that are on as long as we follow them.
        switched: Mutex<Option<Switched>>,
    },
    /// The server goes before the folder of its socket.
    Embedded { host: Host, instances: Instances, server: Server, _folder: Folder },
}

impl HostSide {
    pub(super) fn open(plan: &ApplicationPlan) -> Result<Self> {
        Self::open_with(plan, Options::default())
    }

    /// As [`open`](Self::open); `options` are those of a host of our own.
    pub(super) fn open_with(plan: &ApplicationPlan, options: Options) -> Result<Self> {
        match plan {
            ApplicationPlan::Attach(plan) => Self::attach(plan),
            ApplicationPlan::Embed { subbuf_kib, buffer_kib, clock, events } => {
                let config = Config {
                    subbuf_size: subbuf_kib * 1024,
                    // As many as a ring can have, where more were asked for.
                    ring_subbufs: (buffer_kib / subbuf_kib).clamp(2, u16::MAX.into()),
                    clock: *clock,
                    ..Config::default()
                };
                let instances = Instances::new(&config).context("cannot make the buffers")?;
                let top = instances.top();
                top.set_new_events(events.is_empty());
                events.iter().try_for_each(|pattern| top.await_events(pattern))?;
                let folder = Folder::new()?;
                let server = instances.serve_with(folder.socket(), options)?;
                Ok(Self::Embedded { host: top.host(), instances, server, _folder: folder })
            }
        }
    }

    fn attach(plan: &AttachPlan) -> Result<Self> {
        let AttachPlan { socket, instance, events, .. } = plan;
        let connect = || remote::connect(socket, instance.as_deref());
        let connection = Arc::new(connect()?);
        let switched = match events.as_slice() {
            [] => None,
            events => match Switched::on(Remote::new(connect()?, instance.clone()), events.to_vec()) {
                Err(_) if !plan.must_switch => None,
                switched => Some(switched?),
            },
        };
        for pattern in switched.iter().filter(|_| plan.must_switch).flat_map(Switched::awaited).flatten() {
            anstream::eprintln!(
                "ringtap: {pattern} is not declared yet; it is on as soon as a program declares it"
            );
        }
        Ok(Self::Attached {
            connection,
            socket: socket.clone(),
            instance: instance.clone(),
            consume: plan.consume,
            new: plan.new,
            switched: Mutex::new(switched),
        })
    }

    /// Another connection to the same buffers, as a reader.
    pub(super) fn connect_again(&self) -> Result<Connection> {
        match self {
            Self::Attached { socket, instance, .. } => remote::connect(socket, instance.as_deref()),
            Self::Embedded { server, .. } => remote::connect(server.path(), None),
        }
    }

    /// Switches off what was switched on for us.
    pub(super) fn switch_back(&self) {
        if let Self::Attached { switched, .. } = self {
            drop(switched.lock().unwrap_or_else(PoisonError::into_inner).take());
        }
    }

    pub(super) fn socket(&self) -> &Path {
        match self {
            Self::Attached { socket, .. } => socket,
            Self::Embedded { server, .. } => server.path(),
        }
    }

    pub(super) fn registry(&self) -> Registry {
        match self {
            Self::Attached { connection, .. } => Registry::There(Arc::clone(connection)),
            Self::Embedded { host, .. } => Registry::Here(host.clone()),
        }
    }

    pub(super) fn cpus(&self) -> usize {
        match self {
            Self::Attached { connection, .. } => connection.cpus().len(),
            Self::Embedded { host, .. } => host.cpus().len(),
        }
    }

    /// The consuming readers of all CPUs.
    pub(super) fn readers(&self) -> Result<Vec<Reader>> {
        Ok(match self {
            Self::Attached { connection, .. } => connection.readers()?,
            Self::Embedded { host, .. } => host.readers()?,
        })
    }

    /// Another process's host.
    pub(super) fn connection(&self) -> Option<&Arc<Connection>> {
        match self {
            Self::Attached { connection, .. } => Some(connection),
            Self::Embedded { .. } => None,
        }
    }

    /// The instances of a host of our own.
    pub(super) fn instances(&self) -> Option<&Instances> {
        match self {
            Self::Attached { .. } => None,
            Self::Embedded { instances, .. } => Some(instances),
        }
    }

    /// Says which event was asked for and never declared, where we are the host: it was probably mistyped.
    pub(super) fn warn_of_unmet(&self, wanted: &[Pattern]) {
        let declared = self.instances().map(Instances::events).unwrap_or_default();
        let is_met =
            |pattern: &&Pattern| declared.iter().any(|event| pattern.names(&event.system, &event.name));
        if let Some(pattern) = wanted.iter().find(|pattern| !is_met(pattern)) {
            let name =
                |event: &Arc<Event>| EventName { system: event.system.clone(), name: event.name.clone() };
            anstream::eprintln!("{}", unmet(pattern, &declared.iter().map(name).collect::<Vec<_>>()));
        }
    }

    /// Tells the names of the threads that wrote, also of those that are gone.
    pub(super) fn names(&self) -> Names {
        match self {
            Self::Embedded { instances, .. } => names_of(instances),
            Self::Attached { socket, .. } => {
                let (socket, switchboard) = (socket.clone(), OnceLock::new());
                // Who may read and not write is told no names.
                let look = move || Connection::connect(&socket, Role::Writer).ok()?.switchboard().ok();
                Box::new(move || {
                    let switchboard: &Option<Switchboard> = switchboard.get_or_init(&look);
                    switchboard.as_ref().map_or_else(String::new, |board| task_lines(&board.tasks()))
                })
            }
        }
    }

    /// The clock that stamps events.
    pub(super) fn clock(&self) -> Option<ClockId> {
        match self {
            Self::Attached { connection, .. } => connection.clock(),
            Self::Embedded { host, .. } => Some(host.clock()),
        }
    }

    /// A CPU's counters.
    pub(super) fn stats(&self, cpu: u32) -> Result<Stats> {
        match self {
            Self::Attached { connection, .. } => Ok(connection.stats(cpu)?),
            Self::Embedded { host, .. } => Ok(host.stats(cpu)?),
        }
    }

    /// Switches recording on or off, for all writers at once.
    pub(super) fn set_recording(&self, on: bool) -> Result<()> {
        match self {
            Self::Attached { connection, .. } => Ok(connection.set_recording(on)?),
            Self::Embedded { host, .. } => {
                host.set_recording(on);
                Ok(())
            }
        }
    }

    pub(super) fn inputs(&self) -> Result<Vec<Input>> {
        match self {
            Self::Attached { socket, consume: true, .. } => {
                let readers = self.readers().with_context(|| {
                    format!("cannot consume the events of {}; leave out --consume", socket.display())
                })?;
                Ok(readers.into_iter().map(Input::from).collect())
            }
            Self::Attached { connection, new, .. } => {
                let start = if *new { Start::Newest } else { Start::Oldest };
                Ok(connection.cursors(start)?.into_iter().map(Input::from).collect())
            }
            Self::Embedded { host, .. } => Ok(host.readers()?.into_iter().map(Input::from).collect()),
        }
    }
}

/// Starts the command to be followed, if there is one: held, and with the host and what traces it in its environment.
pub(super) fn start_held(
    command: &[OsString],
    host: Option<&HostSide>,
    preload: Option<&Preload>,
) -> Result<Option<Running>> {
    if command.is_empty() {
        return Ok(None);
    }
    let socket = host.map(|host| (SOCKET_VARIABLE, host.socket().into()));
    let preload = preload.into_iter().flat_map(Preload::environment);
    Running::start_held(command, &socket.into_iter().chain(preload).collect::<Vec<_>>()).map(Some)
}

/// Tells the names of the threads that wrote to a host of our own.
pub(super) fn names_of(instances: &Instances) -> Names {
    let instances = instances.clone();
    Box::new(move || task_lines(&instances.tasks()))
}

/// Tasks as `saved_cmdlines` has them.
fn task_lines(tasks: &[Task]) -> String {
    tasks.iter().map(|task| format!("{} {}\n", task.tid, task.comm)).collect()
}

/// The warning of a pattern that no event of an application matched.
pub(super) fn unmet(pattern: impl Display, events: &[EventName]) -> String {
    format!("ringtap: no event matched '{pattern}'; the application declared {}", list(events))
}

/// What an application declared, shortened.
pub(super) fn list(events: &[EventName]) -> String {
    const SHOWN: usize = 8;
    let own: Vec<_> =
        events.iter().filter(|event| event.system != "ftrace").map(EventName::to_string).collect();
    match own.len() {
        0 => "none".to_owned(),
        1..=SHOWN => own.join(", "),
        more => format!("{} and {} more", own[..SHOWN].join(", "), more - SHOWN),
    }
}

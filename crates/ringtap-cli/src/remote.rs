//! A host's files, over its socket: what `trace-cmd` does with a tracefs, without one being mounted.

use anyhow::{Context, Result, bail};
use ringtap::attach::{AttachError, Connection, Role, SOCKET_VARIABLE};
use ringtap::event::registry::Event;
use ringtap::serve::TreeCall;
use rustix::io::Errno;
use std::path::{Path, PathBuf};

/// Which host, and which of its instances: the same for all commands.
#[derive(Clone, Debug, clap::Args)]
#[group(id = "host")]
pub struct Args {
    /// The socket of the host; without it RINGTAP_SOCKET, else that of this user's `ringtap serve`
    #[arg(long, value_name = "SOCKET")]
    attach: Option<PathBuf>,
    /// The instance; without it the top one
    #[arg(short = 'B', long = "instance", value_name = "NAME", value_parser = parse_instance)]
    pub instance: Option<String>,
}

/// Parses the name of an instance.
///
/// # Errors
/// What is wrong with it, for the user.
pub fn parse_instance(name: &str) -> Result<String, String> {
    match name {
        "" | "." | ".." => Err("is no name".to_owned()),
        _ if name.contains('/') => Err("must not contain '/'".to_owned()),
        _ if name.contains(char::is_control) => Err("must not contain control characters".to_owned()),
        _ if name.len() > 255 => Err("is longer than 255 bytes".to_owned()),
        _ => Ok(name.to_owned()),
    }
}

impl Args {
    /// The socket that is meant.
    ///
    /// # Errors
    /// There is no place for one.
    pub fn socket(&self) -> Result<PathBuf> {
        self.attach.clone().map_or_else(default_socket, Ok)
    }

    /// Connects to the host. The instance need not be there.
    ///
    /// # Errors
    /// There is no host, or it lets us not in.
    pub fn connect(&self) -> Result<Remote> {
        Ok(Remote { connection: self.connection()?, instance: self.instance.clone() })
    }

    fn connection(&self) -> Result<Connection> {
        connect(&self.socket()?, None)
    }

    /// Connects to the host for the buffers of the instance.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn buffers(&self) -> Result<Connection> {
        connect(&self.socket()?, self.instance.as_deref())
    }

    /// Connects to the host, whose instance is there.
    ///
    /// # Errors
    /// As [`connect`](Self::connect); or there is no such instance.
    pub fn open(&self) -> Result<Remote> {
        let remote = self.connect()?;
        remote.check_instance()?;
        Ok(remote)
    }
}

/// Connects to the host of a socket, for the buffers of an instance; without it for those of the top one.
///
/// # Errors
/// There is no host, it lets us not in, or it has no such instance.
pub fn connect(socket: &Path, instance: Option<&str>) -> Result<Connection> {
    let connection = match Connection::connect(socket, Role::Reader) {
        Err(AttachError::NoSocket { .. }) if is_default(socket) => {
            bail!("no host of this user runs: start one with `ringtap serve`, or name a socket with --attach")
        }
        connection => connection?,
    };
    let Some(name) = instance else { return Ok(connection) };
    let instances = connection.instances()?;
    match connection.of_instance(name)? {
        Some(connection) => Ok(connection),
        None => no_instance(name, &instances),
    }
}

/// Whether nobody has named this socket.
fn is_default(socket: &Path) -> bool {
    named_socket().is_none() && ringtap::serve::default_path("default").is_ok_and(|path| path == socket)
}

/// The socket that RINGTAP_SOCKET names.
fn named_socket() -> Option<PathBuf> {
    std::env::var_os(SOCKET_VARIABLE).filter(|socket| !socket.is_empty()).map(PathBuf::from)
}

/// The socket of RINGTAP_SOCKET, else that of this user's `ringtap serve`.
///
/// # Errors
/// There is no place for one.
pub fn default_socket() -> Result<PathBuf> {
    named_socket().map_or_else(|| Ok(ringtap::serve::default_path("default")?), Ok)
}

/// Says that there is no such instance, and which there are.
///
/// # Errors
/// Always.
pub fn no_instance<T>(name: &str, instances: &[String]) -> Result<T> {
    match instances {
        [] => {
            bail!(
                "there is no instance {name}, and none but the top one; `ringtap instance add {name}` makes it"
            )
        }
        names => bail!("there is no instance {name}; there are {}", names.join(", ")),
    }
}

/// A connection to a host, seen from one of its instances.
#[derive(Debug)]
pub struct Remote {
    connection: Connection,
    instance: Option<String>,
}

impl Remote {
    /// The host of this connection, seen from one of its instances.
    #[must_use]
    pub fn new(connection: Connection, instance: Option<String>) -> Self {
        Self { connection, instance }
    }

    /// The instance's name; `None` for the top one.
    #[must_use]
    pub fn instance(&self) -> Option<&str> {
        self.instance.as_deref()
    }

    /// The same host, from another instance.
    #[must_use]
    fn of(mut self, instance: Option<String>) -> Self {
        self.instance = instance;
        self
    }

    /// Calls `each` with this instance, and with all that have a name where `all` are meant.
    ///
    /// # Errors
    /// The host is gone, or the error of `each`.
    pub fn visit(mut self, all: bool, mut each: impl FnMut(&Self) -> Result<()>) -> Result<()> {
        each(&self)?;
        if all {
            for name in self.instances()? {
                self = self.of(Some(name));
                each(&self)?;
            }
        }
        Ok(())
    }

    /// Whether the instance is there.
    ///
    /// # Errors
    /// The host is gone.
    pub fn has_instance(&self) -> Result<bool> {
        let Some(name) = &self.instance else { return Ok(true) };
        Ok(self.instances()?.contains(name))
    }

    fn check_instance(&self) -> Result<()> {
        match &self.instance {
            Some(name) if !self.has_instance()? => no_instance(name, &self.instances()?),
            _ => Ok(()),
        }
    }

    /// The instances that have a name, sorted.
    ///
    /// # Errors
    /// The host is gone.
    pub fn instances(&self) -> Result<Vec<String>> {
        let mut names = self.connection.instances()?;
        names.sort();
        Ok(names)
    }

    /// Switches recording on or off, also where the host is a program's own, which has no files.
    ///
    /// # Errors
    /// The host is gone, or refuses it.
    pub fn set_recording(&self, on: bool) -> Result<()> {
        match self.write("tracing_on", if on { "1" } else { "0" }) {
            Err(error) if is_programs_own(&error) => Ok(self.connection.set_recording(on)?),
            set => set,
        }
    }

    /// Empties the buffers of a program's own host.
    ///
    /// # Errors
    /// The host is gone, or a buffer is in use.
    pub fn empty_own(&self) -> Result<()> {
        self.connection.reset().map_err(Into::into)
    }

    /// Makes the instance.
    ///
    /// # Errors
    /// There is one, or there are too many.
    pub fn make_instance(&self, name: &str) -> Result<()> {
        let made = self.connection.tree(&format!("instances/{name}"), TreeCall::Mkdir);
        match made.map(drop).map_err(anyhow::Error::from) {
            Err(error) if errno(&error) == Some(Errno::EXIST) => bail!("there is an instance {name} already"),
            Err(error) if errno(&error) == Some(Errno::NOSPC) => {
                bail!(
                    "cannot make the instance {name}: the host has as many as it can; `ringtap instance rm` makes room"
                )
            }
            made => made.with_context(|| format!("cannot make the instance {name}")),
        }
    }

    /// Says that there is no such CPU, and which there are.
    ///
    /// # Errors
    /// Always.
    pub fn no_cpu<T>(&self, cpu: u32) -> Result<T> {
        let cpus = self.list("per_cpu")?.into_iter().map(|name| name.replace("cpu", ""));
        bail!("there is no CPU {cpu} here; there are {}", cpus.collect::<Vec<_>>().join(", "))
    }

    /// Removes the instance.
    ///
    /// # Errors
    /// There is none, or it is in use.
    pub fn remove_instance(&self, name: &str) -> Result<()> {
        let removed = self.connection.tree(&format!("instances/{name}"), TreeCall::Rmdir);
        match removed.map(drop).map_err(anyhow::Error::from) {
            Err(error) if errno(&error) == Some(Errno::NOENT) => no_instance(name, &self.instances()?),
            Err(error) if errno(&error) == Some(Errno::BUSY) => {
                bail!(
                    "the instance {name} is in use: somebody reads its buffers, or has one of its files open"
                )
            }
            removed => removed.with_context(|| format!("cannot remove the instance {name}")),
        }
    }

    fn path(&self, file: &str) -> String {
        match &self.instance {
            Some(name) => format!("instances/{name}/{file}"),
            None => file.to_owned(),
        }
    }

    /// Hands a file's bytes to `each`, piece by piece.
    ///
    /// # Errors
    /// It cannot be read, or the error of `each`.
    pub fn read_to(&self, file: &str, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let (path, mut from) = (self.path(file), 0);
        loop {
            let bytes =
                self.connection.tree(&path, TreeCall::Read(from)).context("cannot read from the host")?;
            if bytes.is_empty() {
                return Ok(());
            }
            from += u64::try_from(bytes.len())?;
            each(&bytes)?;
        }
    }

    /// A file's text.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(&self, file: &str) -> Result<String> {
        let mut bytes = Vec::new();
        self.read_to(file, |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A file's text; `None` where there is no such file.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read_if_there(&self, file: &str) -> Result<Option<String>> {
        match self.read(file) {
            Ok(text) => Ok(Some(text)),
            Err(error) if errno(&error) == Some(Errno::NOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes a text to a file, as a shell's `>>` does; an empty one empties it.
    ///
    /// # Errors
    /// The host refuses it.
    pub fn write(&self, file: &str, text: &str) -> Result<()> {
        self.connection.tree(&self.path(file), TreeCall::Write(text.as_bytes())).map(drop).map_err(Into::into)
    }

    /// A directory's names.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn list(&self, directory: &str) -> Result<Vec<String>> {
        let (path, mut text) = (self.path(directory), Vec::new());
        loop {
            let from = u64::try_from(text.len())?;
            let names =
                self.connection.tree(&path, TreeCall::List(from)).context("cannot list the host's files")?;
            if names.is_empty() {
                return Ok(String::from_utf8_lossy(&text).lines().map(str::to_owned).collect());
            }
            text.extend_from_slice(&names);
        }
    }

    /// The events that the host knows, switchable or not, but for the kernel's own.
    ///
    /// # Errors
    /// The host is gone.
    pub fn declared(&self) -> Result<Vec<Event>> {
        let mut events = self.connection.events()?;
        events.retain(|event| event.system != "ftrace");
        Ok(events)
    }

    /// The events that can be switched: system and name.
    ///
    /// # Errors
    /// The host is gone.
    pub fn events(&self) -> Result<Vec<(String, String)>> {
        let mut events = Vec::new();
        for system in self.list("events")? {
            // Files, and what every trace has.
            if matches!(system.as_str(), "enable" | "header_event" | "header_page" | "ftrace") {
                continue;
            }
            let names = self.list(&format!("events/{system}"))?;
            let names = names.into_iter().filter(|name| name != "enable" && name != "filter");
            events.extend(names.map(|name| (system.clone(), name)));
        }
        events.sort();
        Ok(events)
    }
}

/// Whether a host refused because it is a program's own, which has no files.
#[must_use]
pub fn is_programs_own(error: &anyhow::Error) -> bool {
    errno(error) == Some(Errno::NOSYS)
}

/// The kernel's number for what went wrong, where the host gave one.
#[must_use]
pub fn errno(error: &anyhow::Error) -> Option<Errno> {
    error.chain().find_map(|cause| match cause.downcast_ref::<AttachError>() {
        Some(AttachError::Refused { errno, .. }) => Some(Errno::from_raw_os_error(*errno)),
        _ => None,
    })
}

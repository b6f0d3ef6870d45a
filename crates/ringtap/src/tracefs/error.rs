//! What can go wrong with the kernel's tracing, each with its remedy.

use std::io;
use std::path::{Path, PathBuf};

/// A refusal by the kernel or by this module, as one sentence.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(#[from] Box<Problem>);

/// What sort of problem an [`Error`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// No tracefs is mounted.
    NotMounted,
    /// This process may not use it.
    NoPermission,
    /// The kernel's buffers cannot be mapped.
    KernelTooOld,
    /// The kernel cannot probe programs.
    NoUprobes,
    /// No event matches.
    UnknownEvent,
    /// There is no instance of this name.
    UnknownInstance,
    /// Somebody holds the thing open or mapped.
    Busy,
    /// The kernel refused a value.
    Refused,
    /// Anything else that the system reports.
    Io,
}

/// Each sentence is whole, the system's reason included, so none has a source to print behind it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    #[error(
        "no tracefs is mounted; as root, run `mount -t tracefs nodev /sys/kernel/tracing` (it needs a kernel with CONFIG_TRACING)"
    )]
    NotMounted,
    #[error("no permission to {action} {}; run as root, and outside a container or kernel lockdown", path.display())]
    NoPermission { action: &'static str, path: PathBuf },
    #[error("Linux {release} cannot map its trace buffers; boot Linux 6.10 or later")]
    KernelTooOld { release: String },
    #[error("no event matches '{pattern}'; {}", suggestion(near))]
    UnknownEvent { pattern: String, near: Vec<String> },
    #[error("there is no tracing instance '{name}'; `ls {}` shows those that exist", folder.display())]
    UnknownInstance { name: String, folder: PathBuf },
    #[error("cannot {action} {}: somebody else holds it open or mapped; stop that reader first", path.display())]
    Busy { action: &'static str, path: PathBuf },
    #[error("the kernel does not accept '{value}' for {}", path.display())]
    Refused { value: String, path: PathBuf },
    #[error("this kernel cannot probe programs; it needs CONFIG_UPROBE_EVENTS")]
    NoUprobes,
    #[error("the kernel refuses the probe `{line}`: {reason}")]
    Uprobe { line: String, reason: String },
    #[error("cannot {action} {}: {reason}", path.display())]
    Io { action: &'static str, path: PathBuf, reason: io::Error },
    #[error("cannot understand {}: '{}'", file.display(), text.trim())]
    Malformed { file: PathBuf, text: String },
}

impl Error {
    /// What sort of problem it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match *self.0 {
            Problem::NotMounted => Kind::NotMounted,
            Problem::NoPermission { .. } => Kind::NoPermission,
            Problem::KernelTooOld { .. } => Kind::KernelTooOld,
            Problem::UnknownEvent { .. } => Kind::UnknownEvent,
            Problem::UnknownInstance { .. } => Kind::UnknownInstance,
            Problem::Busy { .. } => Kind::Busy,
            Problem::NoUprobes => Kind::NoUprobes,
            Problem::Refused { .. } | Problem::Uprobe { .. } => Kind::Refused,
            Problem::Io { .. } | Problem::Malformed { .. } => Kind::Io,
        }
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self(Box::new(problem))
    }
}

fn suggestion(near: &[String]) -> String {
    match near {
        [] => "see available_events in the tracefs for all names".into(),
        near => format!("did you mean {}?", near.join(" or ")),
    }
}

/// Turns the system's error about doing `action` to `path` into ours.
pub(super) fn at(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Error {
    let path = path.as_ref().to_owned();
    move |reason| match reason.kind() {
        io::ErrorKind::PermissionDenied => Problem::NoPermission { action, path }.into(),
        io::ErrorKind::ResourceBusy => Problem::Busy { action, path }.into(),
        _ => Problem::Io { action, path, reason }.into(),
    }
}

/// As [`at`], for a value written to a control file: the kernel's way to refuse one is EINVAL.
pub(super) fn setting(value: &str, path: PathBuf) -> impl FnOnce(io::Error) -> Error {
    move |reason| match reason.kind() {
        io::ErrorKind::InvalidInput => Problem::Refused { value: value.into(), path }.into(),
        _ => at("write", path)(reason),
    }
}

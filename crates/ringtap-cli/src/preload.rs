//! `--preload`: the library that makes an unchanged COMMAND trace what it asks of the C library.

use anyhow::{Result, bail};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Where the library is, if it is none of the places that are looked at.
const LIBRARY_VARIABLE: &str = "RINGTAP_PRELOAD_LIBRARY";
/// What the library reads: patterns of the events that are wanted.
const EVENTS_VARIABLE: &str = "RINGTAP_PRELOAD_EVENTS";
/// What the library reads: has forked children tell their host that they are there.
const CHILDREN_VARIABLE: &str = "RINGTAP_PRELOAD_CHILDREN";
/// What `held` reads: a library for COMMAND alone.
const HELD_VARIABLE: &str = "RINGTAP_HELD_PRELOAD";
/// What the dynamic linker reads.
const LINKER_VARIABLE: &str = "LD_PRELOAD";

const FILE: &str = "libringtap_preload.so";

/// Whose functions are traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Library {
    /// The C library's.
    Libc,
}

/// The library, found, and the events that are wanted of it; all, where there are none.
#[derive(Clone, Debug)]
pub struct Preload {
    path: PathBuf,
    events: String,
    /// Whether the host has to know of children that execute no program, too.
    with_children: bool,
}

impl Preload {
    /// Finds the library, if one was asked for.
    ///
    /// # Errors
    /// It is nowhere, or where the dynamic linker cannot be told of it.
    pub fn find(library: Option<Library>, events: &[String]) -> Result<Option<Self>> {
        if library.is_none() {
            return Ok(None);
        }
        let places = places();
        let Some(path) = places.iter().find(|path| path.is_file()) else {
            let places: Vec<_> = places.iter().map(|path| path.display().to_string()).collect();
            bail!(
                "cannot find the library to preload at {}; build it with `cargo build --release -p ringtap-preload`, or \
                 name it in {LIBRARY_VARIABLE}",
                places.join(" or ")
            );
        };
        if path.as_os_str().as_bytes().iter().any(|byte| matches!(byte, b' ' | b':' | b'\t' | b'\n')) {
            bail!(
                "the dynamic linker cannot be told of {}: move it to a path without spaces and colons",
                path.display()
            );
        }
        Ok(Some(Self { path: path.clone(), events: events.join(","), with_children: false }))
    }

    /// Has the host know of children that execute no program, too. It costs each fork a request to the host.
    #[must_use]
    pub fn with_children(self, with_children: bool) -> Self {
        Self { with_children, ..self }
    }

    /// The library's file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What COMMAND is to find in its environment.
    #[must_use]
    pub fn environment(&self) -> [(&'static str, OsString); 3] {
        let with_children = if self.with_children { "1" } else { "" };
        [
            (HELD_VARIABLE, self.path.clone().into()),
            (EVENTS_VARIABLE, self.events.clone().into()),
            (CHILDREN_VARIABLE, with_children.into()),
        ]
    }
}

/// Where the library may be, in this order.
fn places() -> Vec<PathBuf> {
    if let Some(path) = std::env::var_os(LIBRARY_VARIABLE).filter(|path| !path.is_empty()) {
        return vec![path.into()];
    }
    let Ok(program) = std::env::current_exe() else { return vec![FILE.into()] };
    let folder = program.parent().unwrap_or(Path::new("/"));
    vec![folder.join(FILE), folder.with_file_name("lib/ringtap").join(FILE)]
}

/// In the process that becomes COMMAND: the dynamic linker's variable and its value, where a library was asked for. Those
/// that are preloaded already go behind it.
#[must_use]
pub fn for_command() -> Option<(&'static str, OsString)> {
    let mut list = std::env::var_os(HELD_VARIABLE)?;
    if let Some(others) = std::env::var_os(LINKER_VARIABLE).filter(|others| !others.is_empty()) {
        list.push(OsStr::new(":"));
        list.push(others);
    }
    Some((LINKER_VARIABLE, list))
}

/// What COMMAND does not need any more.
pub const NOT_FOR_COMMAND: &str = HELD_VARIABLE;

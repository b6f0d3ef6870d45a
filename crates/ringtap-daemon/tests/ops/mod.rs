//! Interprets compliance/tracefs.ops on a tracefs: the kernel's, ringtap's tree, or ringtap's mounted one.
#![allow(dead_code, reason = "not every test needs all of it")]

use ringtap_daemon::control::Caller;
use ringtap_daemon::fs::{Access, Answer, Handle, Kind, Node, Tree};
use rustix::fs::{Mode, OFlags, open, stat};
use rustix::io::Errno;
use std::collections::HashMap;
use std::fs::{create_dir, read_dir, remove_dir};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// The operations.
pub(crate) const SCRIPT: &str = include_str!("../../../../compliance/tracefs.ops");

/// Files to operate on.
pub(crate) trait Files {
    type File: File;
    fn open(&self, path: &str, flags: OFlags) -> Result<Self::File, Errno>;
    fn mode(&self, path: &str) -> Result<u32, Errno>;
    fn list(&self, path: &str) -> Result<Vec<String>, Errno>;
    fn mkdir(&self, path: &str) -> Result<(), Errno>;
    fn rmdir(&self, path: &str) -> Result<(), Errno>;
}

/// An open file, with an offset.
pub(crate) trait File {
    fn read(&mut self, len: usize) -> Result<Vec<u8>, Errno>;
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Errno>;
}

/// A tracefs somewhere in the file system.
pub(crate) struct Mounted(pub(crate) PathBuf);

impl Mounted {
    fn at(&self, path: &str) -> PathBuf {
        // Not `join`: an empty name is one of the cases.
        PathBuf::from(format!("{}/{path}", self.0.display()))
    }
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).expect("an error of the system")
}

impl Files for Mounted {
    type File = OwnedFd;

    fn open(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        open(self.at(path), flags | OFlags::CLOEXEC, Mode::empty())
    }

    fn mode(&self, path: &str) -> Result<u32, Errno> {
        stat(self.at(path)).map(|stat| stat.st_mode)
    }

    fn list(&self, path: &str) -> Result<Vec<String>, Errno> {
        let entries = read_dir(self.at(path)).map_err(|error| errno(&error))?;
        Ok(entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect())
    }

    fn mkdir(&self, path: &str) -> Result<(), Errno> {
        create_dir(self.at(path)).map_err(|error| errno(&error))
    }

    fn rmdir(&self, path: &str) -> Result<(), Errno> {
        remove_dir(self.at(path)).map_err(|error| errno(&error))
    }
}

impl File for OwnedFd {
    fn read(&mut self, len: usize) -> Result<Vec<u8>, Errno> {
        let mut bytes = vec![0; len];
        let len = rustix::io::read(&self, &mut bytes)?;
        bytes.truncate(len);
        Ok(bytes)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        rustix::io::write(self, bytes)
    }
}

/// ringtap's tree, called as a server of files calls it.
pub(crate) struct InTree(pub(crate) Tree);

pub(crate) struct InTreeFile {
    handle: Handle,
    offset: u64,
}

impl InTree {
    fn split<'p>(&self, path: &'p str) -> Result<(Node, &'p str), Errno> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        Ok((self.0.resolve(parent)?, name))
    }
}

impl Files for InTree {
    type File = InTreeFile;

    fn open(&self, path: &str, flags: OFlags) -> Result<InTreeFile, Errno> {
        let node = self.0.resolve(path)?;
        let write = flags.contains(OFlags::WRONLY);
        let access = Access { read: !write, write, truncate: flags.contains(OFlags::TRUNC) };
        Ok(InTreeFile { handle: self.0.open(node, access, &Caller::of_thread())?, offset: 0 })
    }

    fn mode(&self, path: &str) -> Result<u32, Errno> {
        let attributes = self.0.attributes(self.0.resolve(path)?)?;
        let kind = if attributes.kind == Kind::Directory { 0o040_000 } else { 0o100_000 };
        Ok(kind | u32::from(attributes.mode))
    }

    fn list(&self, path: &str) -> Result<Vec<String>, Errno> {
        Ok(self.0.list(self.0.resolve(path)?)?.into_iter().map(|entry| entry.name).collect())
    }

    // The kernel resolves names that end in `.` or `/` before it asks a file system.
    fn mkdir(&self, path: &str) -> Result<(), Errno> {
        let (parent, name) = self.split(path)?;
        if self.0.lookup(parent, name).is_ok() {
            return Err(Errno::EXIST);
        }
        self.0.make_dir(parent, name).map(|_| ())
    }

    fn rmdir(&self, path: &str) -> Result<(), Errno> {
        let (parent, name) = self.split(path)?;
        self.0.remove_dir(parent, name)
    }
}

impl File for InTreeFile {
    fn read(&mut self, len: usize) -> Result<Vec<u8>, Errno> {
        match self.handle.read(self.offset, len)? {
            Answer::Bytes(bytes) => {
                self.offset += bytes.len() as u64;
                Ok(bytes)
            }
            Answer::Wait(_) => Err(Errno::AGAIN),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        self.handle.write(bytes, &Caller::of_thread())
    }
}

/// What one operation came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// The line of the script, and which time it stands there.
    pub(crate) operation: String,
    /// What came of it, on one line.
    pub(crate) result: String,
}

/// Does all operations in a new instance of `files`, which is gone afterwards.
pub(crate) fn run<F: Files>(files: &F, instance: &str) -> Vec<Outcome> {
    let directory = format!("instances/{instance}");
    files.mkdir(&directory).expect("an instance can be made");
    let mut runner = Runner { files, directory, held: HashMap::new() };
    let mut seen: HashMap<&str, u32> = HashMap::new();
    let mut outcomes = Vec::new();
    for line in SCRIPT.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let times = seen.entry(line).or_default();
        *times += 1;
        let operation = if *times == 1 { line.to_owned() } else { format!("{line} ({times})") };
        outcomes.push(Outcome { operation, result: runner.operate(line) });
    }
    runner.held.clear();
    files.rmdir(&runner.directory).expect("nothing of the instance is open");
    outcomes
}

struct Runner<'f, F: Files> {
    files: &'f F,
    directory: String,
    held: HashMap<String, F::File>,
}

impl<F: Files> Runner<'_, F> {
    fn operate(&mut self, line: &str) -> String {
        let (verb, rest) = line.split_once(' ').expect("a verb and what it is about");
        let (first, second) = rest.split_once(' ').unwrap_or((rest, ""));
        let done = match verb {
            "read" => self.read_all(first).map(|text| masked(first, &text)),
            "sorted" => self.read_all(first).map(|text| {
                let mut lines: Vec<_> = text.lines().collect();
                lines.sort_unstable();
                lines.join("\n")
            }),
            "block" => self.read_once(first).map(|text| masked(first, &text)),
            "mode" => self.files.mode(&self.at(first)).map(|mode| format!("{mode:o}")),
            "list" => self.files.list(&self.at(first)).map(|mut names| {
                names.sort_unstable();
                names.join(" ")
            }),
            "write" => self.write(first, second, OFlags::empty()),
            "trunc" => self.write(first, second, OFlags::TRUNC),
            "append" => self.write(first, second, OFlags::APPEND),
            "open" => {
                self.files.open(&self.at(first), OFlags::RDONLY | OFlags::NONBLOCK).map(|_| "done".into())
            }
            "hold" => self.files.open(&self.at(second), OFlags::RDONLY | OFlags::NONBLOCK).map(|file| {
                self.held.insert(first.to_owned(), file);
                "done".into()
            }),
            "drop" => {
                self.held.remove(first);
                Ok("done".into())
            }
            "from" => match self.held.get_mut(first) {
                Some(file) => file
                    .read(second.parse().expect("a length"))
                    .map(|bytes| String::from_utf8(bytes).unwrap()),
                None => Ok("not held".into()),
            },
            "mkdir" => self.files.mkdir(&self.at(rest)).map(|()| "done".into()),
            "rmdir" => self.files.rmdir(&self.at(rest)).map(|()| "done".into()),
            _ => panic!("no such verb: {line}"),
        };
        match done {
            Ok(text) => text.escape_debug().to_string(),
            Err(errno) => name_of(errno),
        }
    }

    fn at(&self, path: &str) -> String {
        match path.strip_prefix('/') {
            Some(path) => path.to_owned(),
            None if path == "." => self.directory.clone(),
            None => format!("{}/{path}", self.directory),
        }
    }

    fn read_all(&self, path: &str) -> Result<String, Errno> {
        let mut file = self.files.open(&self.at(path), OFlags::RDONLY | OFlags::NONBLOCK)?;
        let mut text = Vec::new();
        loop {
            let more = file.read(4096)?;
            if more.is_empty() {
                return Ok(String::from_utf8_lossy(&text).into_owned());
            }
            text.extend_from_slice(&more);
        }
    }

    fn read_once(&self, path: &str) -> Result<String, Errno> {
        let mut file = self.files.open(&self.at(path), OFlags::RDONLY | OFlags::NONBLOCK)?;
        Ok(String::from_utf8_lossy(&file.read(65536)?).into_owned())
    }

    fn write(&self, path: &str, text: &str, flags: OFlags) -> Result<String, Errno> {
        let mut file = self.files.open(&self.at(path), OFlags::WRONLY | flags)?;
        file.write(&unquoted(text)).map(|len| len.to_string())
    }
}

fn name_of(errno: Errno) -> String {
    let name = match errno {
        Errno::ACCESS => "EACCES",
        Errno::AGAIN => "EAGAIN",
        Errno::BADF => "EBADF",
        Errno::BUSY => "EBUSY",
        Errno::EXIST => "EEXIST",
        Errno::INVAL => "EINVAL",
        Errno::IO => "EIO",
        Errno::ISDIR => "EISDIR",
        Errno::NAMETOOLONG => "ENAMETOOLONG",
        Errno::NODEV => "ENODEV",
        Errno::NOENT => "ENOENT",
        Errno::NOMEM => "ENOMEM",
        Errno::NOSPC => "ENOSPC",
        Errno::NOTDIR => "ENOTDIR",
        Errno::OVERFLOW => "EOVERFLOW",
        Errno::PERM => "EPERM",
        Errno::RANGE => "ERANGE",
        Errno::SRCH => "ESRCH",
        other => return format!("errno {}", other.raw_os_error()),
    };
    name.to_owned()
}

/// The bytes between quotes.
fn unquoted(text: &str) -> Vec<u8> {
    let inner = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).expect("a text in quotes");
    let mut bytes = Vec::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match (c, if c == '\\' { chars.next() } else { None }) {
            (_, Some('n')) => bytes.push(b'\n'),
            (_, Some('0')) => bytes.push(0),
            (_, Some('x')) => {
                let digits: String = chars.by_ref().take(2).collect();
                bytes.push(u8::from_str_radix(&digits, 16).expect("two digits"));
            }
            (_, Some(c)) | (c, None) => bytes.extend(c.to_string().bytes()),
        }
    }
    bytes
}

/// A text without what differs from run to run: times, tasks, numbers of events.
fn masked(path: &str, text: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or(path);
    let line = |line: &str| match name {
        "trace" | "trace_pipe" if !line.starts_with('#') => masked_entry(line),
        "trace" => between(line, "(M:", " VP:", "MODEL"),
        "stats" if line.contains(" ts:") => line.split_once(':').map_or(line, |(key, _)| key).to_owned(),
        "error_log" if line.starts_with('[') => {
            line.split_once("] ").map_or(line, |(_, rest)| rest).to_owned()
        }
        _ => line.to_owned(),
    };
    text.split_inclusive('\n').map(|text| line(text.trim_end_matches('\n')) + "\n").collect()
}

/// `TASK (TGID) [000] ....., TIME: text`: task, group and time are not compared.
fn masked_entry(line: &str) -> String {
    if let Some(masked) = masked_latency(line) {
        return masked;
    }
    let Some((task, rest)) = line.split_once(" [") else { return line.to_owned() };
    let Some((place, text)) = rest.split_once(": ") else { return line.to_owned() };
    let group = if task.contains('(') { " (TGID)" } else { "" };
    let (place, time) = place.rsplit_once(' ').unwrap_or((place, ""));
    // Where in the kernel markers are written.
    let text = between(text, "tracing_mark_write+", ": ", "OFFSET");
    let text = between(&text, "tracing_mark_write <", ">: ", "ADDRESS");
    let time = if time.contains('.') { "S.US" } else { "TICKS" };
    format!("TASK{group} [{} {time}: {text}", place.trim_end())
}

/// A text with something else between two others that it has.
fn between(text: &str, before: &str, behind: &str, masked: &str) -> String {
    let replaced = || {
        let (head, rest) = text.split_once(before)?;
        let (_, tail) = rest.split_once(behind)?;
        Some(format!("{head}{before}{masked}{behind}{tail}"))
    };
    replaced().unwrap_or_else(|| text.to_owned())
}

/// A line of `latency-format`, if it is one: `TASK-PID CPUFLAGS TIMEusMARK: text`, or with `verbose`
/// `TASK PID CPU FLAGS DEPTH NUMBER [TIME] TIMEms (+PAUSEms): text`.
fn masked_latency(line: &str) -> Option<String> {
    let (columns, text) = line.split_once(": ")?;
    if let Some((place, _)) = columns.split_once(" [").filter(|_| columns.ends_with("ms)")) {
        let words: Vec<_> = place.split_whitespace().collect();
        return Some(format!("TASK {} [US] MS (+MS): {text}", words[words.len() - 4..].join(" ")));
    }
    let (place, mark) = columns.rsplit_once("us")?;
    let place = place.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end();
    let place = place.rsplit(' ').next().filter(|_| mark.len() == 1)?;
    Some(format!("TASK {place} US: {text}"))
}

/// A directory under which a tracefs is mounted, and this process may make instances.
pub(crate) fn kernel() -> Option<PathBuf> {
    let path = Path::new("/sys/kernel/tracing");
    let usable =
        path.join("README").exists() && open(path.join("tracing_on"), OFlags::WRONLY, Mode::empty()).is_ok();
    usable.then(|| path.to_owned())
}

/// Keeps this thread on a CPU, so that markers are written to one ring.
pub(crate) fn stay_on(cpu: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    rustix::thread::sched_setaffinity(None, &set).expect("the CPU is online");
}

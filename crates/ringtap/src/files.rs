//! The directory of a host with persistent buffers: one file for each CPU, one of events, and what the last host left.

use crate::event::registry::Event;
use crate::map::{self, MapError};
use crate::unshared::Unshared;
use ringtap_abi::switchboard::TASKS_LEN;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The file beside the buffers that holds the events' declarations.
pub(crate) const EVENTS: &str = "events";
/// The file beside the buffers that holds who the threads were.
pub(crate) const TASKS: &str = "tasks";
/// The folder beside the buffers where the last boot's files are kept.
pub(crate) const LAST: &str = "last";

#[derive(Debug)]
pub(crate) struct Files {
    folder: PathBuf,
    /// Locked while the host lives.
    _lock: Unshared,
    /// Appended to with each declaration.
    events: Mutex<Appended>,
}

#[derive(Debug)]
struct Appended {
    file: File,
    path: PathBuf,
    /// Where the next one goes. Zeros may follow: a file in huge pages is longer than what is in it.
    end: u64,
    /// The highest id of the events in it.
    last: Option<u16>,
    /// Whether it outlives a reset of the machine, once its length does.
    is_dax: bool,
}

impl Appended {
    fn new(file: File, path: PathBuf, end: u64, last: Option<u16>) -> Self {
        let is_dax = map::is_dax(&file);
        Self { file, path, end, last, is_dax }
    }

    fn append(&mut self, event: &Event) -> Result<(), MapError> {
        let declaration = declaration(event);
        map::write_at(&self.file, &self.path, self.end, declaration.as_bytes())?;
        self.end += declaration.len() as u64;
        self.last = Some(event.id);
        if self.is_dax {
            let path = self.path.clone();
            self.file.sync_data().map_err(|source| MapError::File { action: "sync", path, source })?;
        }
        Ok(())
    }
}

impl Files {
    /// Takes the directory, made where it does not exist, and moves aside what the last host left in it.
    pub(crate) fn new(folder: &Path) -> Result<Self, MapError> {
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source: io::Error| MapError::File { action, path, source }
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(failed("make the directory", folder))?;
        let lock = open(folder).map_err(|errno| failed("open", folder)(errno.into()))?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| MapError::InUse { path: folder.to_owned() })?;
        move_aside(folder).map_err(failed("move the last host's files aside in", folder))?;
        let path = folder.join(EVENTS);
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(failed("make the file", &path))?;
        map::prepare(&file, &path).inspect_err(|_| {
            let _ = fs::remove_file(&path);
        })?;
        let events = Mutex::new(Appended::new(file, path, 0, None));
        Ok(Self { folder: folder.to_owned(), _lock: lock, events })
    }

    /// Takes the directory of a host that was killed, to go on with the buffers that are in it. `None` where these files
    /// are not there, or somebody else has them.
    pub(crate) fn resume(folder: &Path, buffers: &[map::File]) -> Option<Self> {
        let lock = open(folder).ok()?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).ok()?;
        let path = folder.join(EVENTS);
        let file = OpenOptions::new().read(true).write(true).open(&path).ok()?;
        let all = fs::read(&path).ok()?;
        let (events, whole) = whole_events(all.utf8_chunks().next().map_or("", |text| text.valid()));
        // What the last host wrote half before it was killed: it may be longer than what takes its place.
        let end = all.iter().rposition(|byte| *byte != 0).map_or(whole, |last| whole.max(last + 1));
        map::cut(&file, &path, whole..end).ok()?;
        let last = events.iter().map(|event| event.id).max();
        let events = Mutex::new(Appended::new(file, path, whole as u64, last));
        let files = Self { folder: folder.to_owned(), _lock: lock, events };
        let is_there = |(cpu, buffer): (u32, &map::File)| {
            File::open(files.buffer(cpu))
                .is_ok_and(|file| map::File::of(file.as_fd()).is_ok_and(|it| it == *buffer))
        };
        (0..).zip(buffers).all(is_there).then_some(files)
    }

    /// The file of a CPU's buffer.
    pub(crate) fn buffer(&self, cpu: u32) -> PathBuf {
        self.folder.join(format!("cpu{cpu}"))
    }

    /// The file of the host's tasks, made where it is not there: all of it, so that no writer finds the disk full.
    pub(crate) fn tasks(&self) -> Result<OwnedFd, MapError> {
        let path = self.folder.join(TASKS);
        let failed = |action| {
            let path = path.clone();
            move |errno: Errno| MapError::File { action, path, source: errno.into() }
        };
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file =
            rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR).map_err(failed("make the file"))?;
        map::reserve(&file, &path, TASKS_LEN as u64)?;
        Ok(file)
    }

    /// Removes what was made, after a host could not be.
    pub(crate) fn discard(&self) {
        let names = fs::read_dir(&self.folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
        for name in names.filter(|name| name.to_str().is_some_and(is_ours)) {
            let _ = fs::remove_file(self.folder.join(name));
        }
    }

    /// Keeps the declarations of those events that are not kept yet; they come in the order of their ids.
    pub(crate) fn keep(&self, events: impl Iterator<Item = impl AsRef<Event>>) -> Result<(), MapError> {
        let mut appended = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        for event in events {
            if appended.last.is_none_or(|last| event.as_ref().id > last) {
                appended.append(event.as_ref())?;
            }
        }
        Ok(())
    }
}

/// Opens the directory, to be locked by this process and no forked child.
fn open(folder: &Path) -> Result<Unshared, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Unshared::new(|| rustix::fs::open(folder, flags, Mode::empty()))
}

fn is_ours(name: &str) -> bool {
    name == EVENTS
        || name == TASKS
        || name.strip_prefix("cpu").is_some_and(|number| number.parse::<u32>().is_ok())
}

/// Moves buffers and events to the folder of the last boot, whose files give way.
fn move_aside(folder: &Path) -> io::Result<()> {
    let names = fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.file_name()));
    let names: Vec<_> = names.collect::<io::Result<_>>()?;
    let ours: Vec<_> = names.into_iter().filter(|name| name.to_str().is_some_and(is_ours)).collect();
    if ours.iter().all(|name| name == EVENTS || name == TASKS) {
        // No buffer: a host that could not be made left the others.
        return ours.iter().try_for_each(|name| fs::remove_file(folder.join(name)));
    }
    let last = folder.join(LAST);
    match fs::remove_dir_all(&last) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::DirBuilder::new().mode(0o700).create(&last)?;
    ours.iter().try_for_each(|name| fs::rename(folder.join(name), last.join(name)))
}

/// A declaration, as it is appended to the events' file.
pub(crate) fn declaration(event: &Event) -> String {
    let Event { id, system, name, format } = event;
    let mut text = String::new();
    // To a string, which takes all.
    let _ = writeln!(text, "event {id} {system} {name} {}\n{format}", format.len());
    text
}

/// The declarations up to the first that is not whole, and how many bytes they have.
pub(crate) fn whole_events(all: &str) -> (Vec<Event>, usize) {
    let (mut events, mut text) = (Vec::new(), all);
    while let Some((head, rest)) = text.split_once('\n') {
        let mut words = head.split(' ');
        let fields = [words.next(), words.next(), words.next(), words.next(), words.next()];
        let [Some("event"), Some(id), Some(system), Some(name), Some(len)] = fields else { break };
        let (Ok(id), Ok(len)) = (id.parse(), len.parse::<usize>()) else { break };
        let Some((format, behind)) = rest.split_at_checked(len) else { break };
        let Some(behind) = behind.strip_prefix('\n') else { break };
        let (system, name, format) = (system.to_owned(), name.to_owned(), format.to_owned());
        events.push(Event { id, system, name, format });
        text = behind;
    }
    (events, all.len() - text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_host_wrote_half_is_gone_and_what_follows_is_read() {
        let folder = std::env::temp_dir().join(format!("ringtap-files-{}", std::process::id()));
        let event = |id, name: &str| Event {
            id,
            system: "app".to_owned(),
            name: name.to_owned(),
            format: "a text\n".to_owned(),
        };
        let files = Files::new(&folder).expect("it can be written");
        files.keep([Box::new(event(20, "whole"))].iter()).expect("there is room");
        drop(files);
        // Cut between the bytes of a letter; in huge pages the end is there and the first byte is not.
        for half in
            [b"event 21 app half 500\nmuch text \xc3".as_slice(), b"\0vent 21 app half 3\na\xc3\xa4\n"]
        {
            let path = folder.join(EVENTS);
            let whole = declaration(&event(20, "whole"));
            fs::write(&path, [whole.as_bytes(), half].concat()).expect("it can be written");
            let files = Files::resume(&folder, &[]).expect("they are there");
            files.keep([Box::new(event(20, "whole")), Box::new(event(21, "x"))].iter()).expect("room");
            let (events, _) = whole_events(&fs::read_to_string(&path).expect("it is text"));
            let names: Vec<_> = events.iter().map(|event| (event.id, event.name.as_str())).collect();
            assert_eq!(names, [(20, "whole"), (21, "x")]);
        }
        fs::remove_dir_all(&folder).expect("it is ours");
    }
}

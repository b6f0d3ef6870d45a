//! The tree: names to nodes, nodes to rows of the table.

#![forbid(unsafe_code)]

use super::node::{Node, Place};
use super::table::{self, At, File, Of};
use crate::control::catalog::{Catalog, FTRACE};
use crate::control::instance::Instance;
use crate::control::options::FLAGS;
use crate::control::{Caller, Control, Mapped};
use ringtap::event::registry::Event;
use ringtap::instance::Attendant;
use rustix::io::Errno;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Whether a node is a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It has entries.
    Directory,
    /// It has contents.
    File,
}

/// What `stat` shows. Sizes are 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// File or directory.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u16,
    /// Its links.
    pub links: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// A directory's entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Which file it is.
    pub node: Node,
    /// File or directory.
    pub kind: Kind,
}

/// Who owns the files at first, and what modes they have: the mount options `uid=`, `gid=` and `mode=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ownership {
    /// Owner of all files.
    pub uid: u32,
    /// Group of all files.
    pub gid: u32,
    /// Mode of the root directory.
    pub mode: u16,
}

impl Default for Ownership {
    /// Root's, as a tracefs is without options.
    fn default() -> Self {
        Self { uid: 0, gid: 0, mode: table::ROOT_MODE }
    }
}

/// What `chmod` and `chown` changed of a file.
#[derive(Clone, Copy, Debug, Default)]
struct Changed {
    mode: Option<u16>,
    uid: Option<u32>,
    gid: Option<u32>,
}

/// The tree. Clones are handles of the same one; every call may come from any thread, and none waits.
#[derive(Clone, Debug)]
pub struct Tree {
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) control: Control,
    ownership: Ownership,
    changed: Mutex<HashMap<Node, Changed>>,
}

impl Attendant for Shared {
    fn declared(&self, event: &Event) {
        self.control.declared(event);
    }
}

/// Longest name, in bytes.
const NAME_LEN: usize = 255;

impl Tree {
    /// The tree of a host.
    #[must_use]
    pub fn new(control: Control, ownership: Ownership) -> Self {
        let shared = Arc::new(Shared { control, ownership, changed: Mutex::default() });
        let attendant: Weak<dyn Attendant> = Arc::<Shared>::downgrade(&shared);
        shared.control.instances().set_attendant(attendant);
        Self { shared }
    }

    /// Whose files they are.
    #[must_use]
    pub fn control(&self) -> &Control {
        &self.shared.control
    }

    /// Names who knows about mappings: from now on the kernel's rules about them hold.
    pub fn set_strict(&self, mapped: Arc<dyn Mapped>) {
        self.control().set_strict(mapped);
    }

    fn changed(&self) -> MutexGuard<'_, HashMap<Node, Changed>> {
        self.shared.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The entry of this name.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR`, `ENAMETOOLONG`.
    pub fn lookup(&self, parent: Node, name: &str) -> Result<Node, Errno> {
        if name.len() > NAME_LEN {
            return Err(Errno::NAMETOOLONG);
        }
        let instance = self.control().instance(parent.instance)?;
        let place = match parent.place {
            Place::Instances => {
                let found = self.control().find(name).ok_or(Errno::NOENT)?;
                return Ok(Node { instance: found.number, place: Place::Root });
            }
            Place::Root => match name {
                "events" => Place::Events,
                "options" => Place::Options,
                "per_cpu" => Place::PerCpu,
                "instances" if instance.is_top() => Place::Instances,
                _ => {
                    let file = row(table::INSTANCE, name)?;
                    if !is_in(table::INSTANCE, file, &instance) {
                        return Err(Errno::NOENT);
                    }
                    Place::File(file)
                }
            },
            Place::Options => {
                let flag = table::flag_of(name).ok_or(Errno::NOENT)?;
                let known = FLAGS.get(flag).is_some_and(|flag| table::has_file(flag, instance.is_top()));
                Place::Flag(u8::try_from(flag).ok().filter(|_| known).ok_or(Errno::NOENT)?)
            }
            Place::PerCpu => Place::Cpu(cpu_of(name, &instance).ok_or(Errno::NOENT)?),
            Place::Cpu(cpu) => Place::CpuFile(cpu, row(table::CPU, name)?),
            Place::Events => match row(table::EVENTS, name) {
                Ok(file) => Place::EventsFile(file),
                Err(_) => Place::System(first_id(self.control().catalog().system(name)).ok_or(Errno::NOENT)?),
            },
            Place::System(id) => {
                let catalog = self.control().catalog();
                let system = &catalog.by_id(id).ok_or(Errno::NOENT)?.system;
                match row(table::SYSTEM, name) {
                    Ok(file) if system != FTRACE => Place::SystemFile(id, file),
                    _ => Place::Event(catalog.find(system, name).ok_or(Errno::NOENT)?.id),
                }
            }
            Place::Event(id) => {
                let catalog = self.control().catalog();
                let event = catalog.by_id(id).ok_or(Errno::NOENT)?;
                let file = row(event_files(event), name)?;
                Place::EventFile(id, file)
            }
            _ => return Err(Errno::NOTDIR),
        };
        Ok(Node { instance: parent.instance, place })
    }

    /// The node at a path below the root, `/` between names.
    ///
    /// # Errors
    /// As [`lookup`](Self::lookup).
    pub fn resolve(&self, path: &str) -> Result<Node, Errno> {
        let mut names = path.split('/').filter(|name| !name.is_empty() && *name != ".");
        names.try_fold(Node::ROOT, |node, name| self.lookup(node, name))
    }

    /// What `stat` shows.
    ///
    /// # Errors
    /// `ENOENT` where its instance is gone.
    pub fn attributes(&self, node: Node) -> Result<Attributes, Errno> {
        self.control().instance(node.instance)?;
        let (kind, mode) = match self.file(node.place) {
            Some(file) => (Kind::File, file.mode),
            None => (Kind::Directory, self.directory_mode(node)),
        };
        let links = match (kind, node.place) {
            (Kind::File, _) => 1,
            // As the kernel's: these directories count no links.
            (_, Place::Events | Place::System(_) | Place::Event(_)) => 1,
            (_, Place::Root) => 2 + 3 + u32::from(node.instance == 0),
            (_, Place::PerCpu) => 2 + self.control().instance(node.instance)?.nr_cpus(),
            (_, Place::Instances) => 2 + u32::try_from(self.control().named().len()).unwrap_or(0),
            _ => 2,
        };
        let Ownership { uid, gid, .. } = self.shared.ownership;
        let changed = self.changed().get(&node).copied().unwrap_or_default();
        Ok(Attributes {
            kind,
            mode: changed.mode.unwrap_or(mode),
            links,
            uid: changed.uid.unwrap_or(uid),
            gid: changed.gid.unwrap_or(gid),
        })
    }

    fn directory_mode(&self, node: Node) -> u16 {
        match node.place {
            Place::Root if node.instance == 0 => self.shared.ownership.mode,
            Place::Events | Place::System(_) | Place::Event(_) => table::EVENTS_MODE,
            _ => table::DIRECTORY_MODE,
        }
    }

    /// Changes mode or owner of a file, as `chmod` and `chown` do.
    ///
    /// # Errors
    /// `ENOENT` where its instance is gone.
    pub fn set_attributes(
        &self,
        node: Node,
        mode: Option<u16>,
        uid: Option<u32>,
        gid: Option<u32>,
    ) -> Result<(), Errno> {
        self.control().instance(node.instance)?;
        let mut changed = self.changed();
        let changed = changed.entry(node).or_default();
        changed.mode = mode.map(|mode| mode & 0o7777).or(changed.mode);
        (changed.uid, changed.gid) = (uid.or(changed.uid), gid.or(changed.gid));
        Ok(())
    }

    /// A directory's entries, without `.` and `..`.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR`.
    pub fn list(&self, node: Node) -> Result<Vec<Entry>, Errno> {
        let instance = self.control().instance(node.instance)?;
        let mut list = List { instance: node.instance, entries: Vec::new() };
        match node.place {
            Place::Root => {
                list.files(table::INSTANCE.len(), table::INSTANCE, Place::File, |file| {
                    is_in(table::INSTANCE, file, &instance)
                });
                list.directory("events", Place::Events);
                if instance.is_top() {
                    list.directory("instances", Place::Instances);
                }
                list.directory("options", Place::Options);
                list.directory("per_cpu", Place::PerCpu);
            }
            Place::Instances => {
                list.entries.extend(self.control().named().into_iter().map(|instance| Entry {
                    name: instance.name().to_owned(),
                    node: Node { instance: instance.number, place: Place::Root },
                    kind: Kind::Directory,
                }))
            }
            Place::Options => {
                for (place, flag) in (0..).zip(FLAGS) {
                    if table::has_file(flag, instance.is_top()) {
                        list.push(flag.name, Place::Flag(place), Kind::File);
                    }
                }
            }
            Place::PerCpu => {
                for cpu in instance.cpus() {
                    list.directory(&format!("cpu{cpu}"), Place::Cpu(u16::try_from(cpu).unwrap_or(u16::MAX)));
                }
            }
            Place::Cpu(cpu) => {
                list.files(table::CPU.len(), table::CPU, |file| Place::CpuFile(cpu, file), |_| true);
            }
            Place::Events => {
                list.files(table::EVENTS.len(), table::EVENTS, Place::EventsFile, |_| true);
                for (name, events) in self.control().catalog().systems() {
                    if let Some(id) = first_id(events) {
                        list.directory(name, Place::System(id));
                    }
                }
            }
            Place::System(id) => {
                let catalog = self.control().catalog();
                let system = &catalog.by_id(id).ok_or(Errno::NOENT)?.system;
                if system != FTRACE {
                    list.files(
                        table::SYSTEM.len(),
                        table::SYSTEM,
                        |file| Place::SystemFile(id, file),
                        |_| true,
                    );
                }
                for event in catalog.system(system) {
                    list.directory(&event.name, Place::Event(event.id));
                }
            }
            Place::Event(id) => {
                let catalog = self.control().catalog();
                let files = event_files(catalog.by_id(id).ok_or(Errno::NOENT)?);
                list.files(files.len(), files, |file| Place::EventFile(id, file), |_| true);
            }
            _ => return Err(Errno::NOTDIR),
        }
        Ok(list.entries)
    }

    /// Makes an instance.
    ///
    /// # Errors
    /// `EPERM` outside `instances`, `EEXIST`, `ENAMETOOLONG`, `ENOMEM`, `ENOSPC`.
    pub fn make_dir(&self, parent: Node, name: &str) -> Result<Node, Errno> {
        if parent.place != Place::Instances {
            return Err(Errno::PERM);
        }
        if name.len() > NAME_LEN {
            return Err(Errno::NAMETOOLONG);
        }
        if name.is_empty() || name.contains('/') || name == "." || name == ".." {
            return Err(Errno::EXIST);
        }
        let made = self.control().create(name)?;
        Ok(Node { instance: made.number, place: Place::Root })
    }

    /// Removes an instance.
    ///
    /// # Errors
    /// `EPERM` outside `instances`, `ENOENT`, `EBUSY` while a file in it is open.
    pub fn remove_dir(&self, parent: Node, name: &str) -> Result<(), Errno> {
        let node = self.lookup(parent, name)?;
        if parent.place != Place::Instances {
            return Err(Errno::PERM);
        }
        self.control().remove(name)?;
        self.changed().retain(|changed, _| changed.instance != node.instance);
        Ok(())
    }

    /// The row of a file; `None` for a directory.
    pub(super) fn file(&self, place: Place) -> Option<&'static File> {
        match place {
            Place::File(file) => table::INSTANCE.get(usize::from(file)),
            Place::Flag(_) => Some(&table::FLAG),
            Place::CpuFile(_, file) => table::CPU.get(usize::from(file)),
            Place::EventsFile(file) => table::EVENTS.get(usize::from(file)),
            Place::SystemFile(_, file) => table::SYSTEM.get(usize::from(file)),
            Place::EventFile(_, file) => table::EVENT.get(usize::from(file)),
            _ => None,
        }
    }

    /// Calls `with` where the file is.
    pub(super) fn at<T>(
        &self,
        instance: &Instance,
        place: Place,
        caller: &Caller,
        with: impl FnOnce(&At<'_>) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let control = self.control();
        let catalog: Arc<Catalog>;
        let mut at = At { control, instance, cpu: None, flag: 0, events: &[], caller };
        let all: Vec<Arc<Event>>;
        match place {
            Place::Flag(flag) => at.flag = usize::from(flag),
            Place::CpuFile(cpu, _) => at.cpu = Some(u32::from(cpu)),
            Place::EventsFile(_) => {
                catalog = control.catalog();
                all = catalog.switchable().cloned().collect();
                at.events = &all;
            }
            Place::SystemFile(id, _) => {
                catalog = control.catalog();
                at.events = catalog.system(&catalog.by_id(id).ok_or(Errno::NOENT)?.system);
            }
            Place::EventFile(id, _) => {
                catalog = control.catalog();
                at.events = std::slice::from_ref(catalog.by_id(id).ok_or(Errno::NOENT)?);
            }
            _ => {}
        }
        with(&at)
    }
}

/// The entries of a directory, as they are gathered.
struct List {
    instance: u32,
    entries: Vec<Entry>,
}

impl List {
    fn push(&mut self, name: &str, place: Place, kind: Kind) {
        let node = Node { instance: self.instance, place };
        self.entries.push(Entry { name: name.to_owned(), node, kind });
    }

    fn directory(&mut self, name: &str, place: Place) {
        self.push(name, place, Kind::Directory);
    }

    fn files(&mut self, count: usize, files: &[File], place: impl Fn(u8) -> Place, has: impl Fn(u8) -> bool) {
        for (at, file) in (0..).zip(files.iter().take(count)) {
            if has(at) {
                self.push(file.name, place(at), Kind::File);
            }
        }
    }
}

fn row(files: &[File], name: &str) -> Result<u8, Errno> {
    let at = files.iter().position(|file| file.name == name).ok_or(Errno::NOENT)?;
    u8::try_from(at).map_err(|_| Errno::NOENT)
}

fn is_in(files: &[File], file: u8, instance: &Instance) -> bool {
    files.get(usize::from(file)).is_some_and(|file| file.of == Of::All || instance.is_top())
}

fn event_files(event: &Event) -> &'static [File] {
    if event.system == FTRACE { table::EVENT.split_at(table::FTRACE_EVENT_FILES).0 } else { table::EVENT }
}

fn first_id(events: &[Arc<Event>]) -> Option<u16> {
    events.first().map(|event| event.id)
}

fn cpu_of(name: &str, instance: &Instance) -> Option<u16> {
    let number = name.strip_prefix("cpu")?;
    let cpu: u16 = number.parse().ok()?;
    // No leading zeros or signs: a CPU has one name.
    (number == cpu.to_string() && u32::from(cpu) < instance.nr_cpus()).then_some(cpu)
}

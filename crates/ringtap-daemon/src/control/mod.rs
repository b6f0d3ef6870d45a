//! What the files of a tracefs say and set, as text.
//!
//! [`Control`] is a host's: its instances, its events, its tasks. Each file's text has a function here; which file that is
//! stands in the table of [`fs`](crate::fs).

#![forbid(unsafe_code)]

mod buffers;
pub(crate) mod catalog;
mod clocks;
mod entry;
mod errno;
mod errors;
mod event_rules;
pub(crate) mod instance;
mod kept;
mod lane;
mod marker;
mod mask;
pub(crate) mod number;
pub(crate) mod options;
mod pids;
pub(crate) mod pipe;
pub(crate) mod readme;
pub(crate) mod rules;
mod saved;
mod saver;
mod set_event;
mod sizes;
pub(crate) mod stats;
mod tasks;
pub(crate) mod trace;
pub(crate) mod uses;

use catalog::Catalog;
use instance::Instance;
use ringtap::Host;
use ringtap::event::registry::Event;
use ringtap::thread::spawn_without_signals;
use rustix::io::Errno;
use saver::Saver;
use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Duration;
use tasks::{Task, Tasks};

/// Who makes a call: what the kernel knows of its caller, and a server is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The calling thread; 0 where nobody said.
    pub tid: u32,
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// The CPU that it makes the call on, where that is known; else it is looked up when it matters.
    pub cpu: Option<u32>,
}

impl Caller {
    /// The calling thread itself.
    #[must_use]
    pub fn of_thread() -> Self {
        Self {
            tid: rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned(),
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            cpu: u32::try_from(rustix::thread::sched_getcpu()).ok(),
        }
    }

    /// The CPU that it is on: asleep in its call, it stays there.
    #[must_use]
    pub fn cpu(&self) -> Option<u32> {
        /// The field of `/proc/TID/stat` that says so, counted behind the name, which may hold anything.
        const PROCESSOR: usize = 36;
        self.cpu.or_else(|| {
            let stat = fs::read_to_string(format!("/proc/{}/stat", self.tid)).ok()?;
            let (_, fields) = stat.rsplit_once(") ")?;
            fields.split(' ').nth(PROCESSOR)?.parse().ok()
        })
    }
}

/// Says whether somebody maps a buffer, where somebody can know (the FUSE server: by a lease on the memfd).
///
/// Resize, sub-buffer size and snapshot say `EBUSY` while it is so, as the kernel does.
pub trait Mapped: Send + Sync {
    /// Whether any process has this CPU's buffer mapped for reading. `instance` is its number in the tree.
    fn is_mapped(&self, instance: u32, host: &Host, cpu: u32) -> bool;
}

/// A host's control plane.
pub struct Control {
    instances: ringtap::Instances,
    table: RwLock<Table>,
    catalog: RwLock<Arc<Catalog>>,
    tasks: Mutex<Tasks>,
    mapped: RwLock<Option<Arc<dyn Mapped>>>,
    saver: Arc<Saver>,
    /// What could not be restored, after a daemon was killed.
    not_restored: Vec<String>,
    /// Ends the thread that takes snapshots when it is dropped.
    _alive: Arc<()>,
}

/// The instances, as of a generation of the host's: it makes and removes them for others, too.
#[derive(Debug)]
struct Table {
    generation: u32,
    by_number: BTreeMap<u32, Arc<Instance>>,
    /// The last number given.
    last: u32,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").field("table", &self.table).finish_non_exhaustive()
    }
}

impl Control {
    /// The control plane of these instances. Where they were a daemon's that was killed, its settings are restored.
    #[must_use]
    pub fn new(instances: ringtap::Instances) -> Self {
        let saver = Arc::new(Saver::new(instances.clone()));
        let top = Arc::new(Instance::new(0, instances.top(), &saver));
        let generation = instances.generation();
        let mut table = Table { generation, by_number: BTreeMap::from([(0, top)]), last: 0 };
        table.follow(&instances, &saver);
        let alive = Arc::new(());
        let (asked, host) = (Arc::downgrade(&alive), instances.clone());
        // Where no thread is to be had, triggers take no snapshots; everything else works.
        let _ = spawn_without_signals("ringtap-snapshot", move || take_snapshots(&host, &asked));
        let mut control = Self {
            instances,
            table: RwLock::new(table),
            catalog: RwLock::default(),
            tasks: Mutex::default(),
            mapped: RwLock::default(),
            saver,
            not_restored: Vec::new(),
            _alive: alive,
        };
        control.not_restored = control.restore();
        control
    }

    /// What could not be restored of the settings of a daemon that was killed, a sentence each.
    #[must_use]
    pub fn not_restored(&self) -> &[String] {
        &self.not_restored
    }

    /// The instances.
    #[must_use]
    pub fn instances(&self) -> &ringtap::Instances {
        &self.instances
    }

    /// Names who knows about mappings: from now on the kernel's rules about them hold.
    pub fn set_strict(&self, mapped: Arc<dyn Mapped>) {
        *self.mapped.write().unwrap_or_else(PoisonError::into_inner) = Some(mapped);
    }

    /// Whether some process maps a buffer of these CPUs, where that is asked about.
    pub(crate) fn is_mapped(&self, instance: &Instance, cpus: &[u32]) -> bool {
        let mapped = self.mapped.read().unwrap_or_else(PoisonError::into_inner);
        let Some(mapped) = mapped.as_ref() else { return false };
        let host = instance.host();
        cpus.iter().any(|&cpu| mapped.is_mapped(instance.number, &host, cpu))
    }

    /// Calls `with` with the instances that there are now.
    fn table<T>(&self, with: impl FnOnce(&Table) -> T) -> T {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        if table.generation == self.instances.generation() {
            return with(&table);
        }
        drop(table);
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        table.follow(&self.instances, &self.saver);
        with(&table)
    }

    /// The instance of this number.
    pub(crate) fn instance(&self, number: u32) -> Result<Arc<Instance>, Errno> {
        self.table(|table| table.by_number.get(&number).cloned()).ok_or(Errno::NOENT)
    }

    /// The named instances.
    pub(crate) fn named(&self) -> Vec<Arc<Instance>> {
        self.table(|table| table.named().cloned().collect())
    }

    /// The instance of this name.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<Instance>> {
        self.table(|table| table.named().find(|instance| instance.name() == name).cloned())
    }

    /// Makes an instance.
    pub(crate) fn create(&self, name: &str) -> Result<Arc<Instance>, Errno> {
        self.instances.create(name).map_err(|error| errno::instance_errno(&error))?;
        // It may be gone already.
        self.find(name).ok_or(Errno::NOENT)
    }

    /// Removes an instance, unless one of its files is open.
    pub(crate) fn remove(&self, name: &str) -> Result<(), Errno> {
        let instance = self.find(name).ok_or(Errno::NOENT)?;
        // A mapping outlives the file that it was made of.
        if instance.is_used() || self.is_mapped(&instance, &instance.cpus()) {
            return Err(Errno::BUSY);
        }
        self.instances.remove(name).map_err(|error| errno::instance_errno(&error))?;
        instance.free_rules(self);
        Ok(())
    }

    /// The generation of the host's buffers.
    pub(crate) fn generation(&self) -> u32 {
        self.instances.generation()
    }

    /// All events, as of now.
    pub(crate) fn catalog(&self) -> Arc<Catalog> {
        let known = Arc::clone(&self.catalog.read().unwrap_or_else(PoisonError::into_inner));
        if self.instances.event_count() == known.len() {
            return known;
        }
        let catalog = Arc::new(Catalog::new(self.instances.events()));
        *self.catalog.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&catalog);
        catalog
    }

    /// Gives a new event what each instance keeps for it.
    pub(crate) fn declared(&self, event: &Event) {
        let event = Arc::new(event.clone());
        self.all().iter().for_each(|instance| instance.give_rules(self, &event));
    }

    /// Names of tasks: those that wrote events, which are on the host's switchboard, and those that called the tree.
    pub(crate) fn tasks(&self) -> MutexGuard<'_, Tasks> {
        let mut tasks = self.callers();
        for task in self.instances.tasks() {
            tasks.insert(task.tid, Task { name: task.comm, tgid: task.tgid });
        }
        tasks
    }

    fn callers(&self) -> MutexGuard<'_, Tasks> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many tasks are remembered, as text.
    pub(crate) fn tasks_kept(&self) -> Vec<u8> {
        self.callers().limit_text()
    }

    /// Sets how many tasks are remembered.
    pub(crate) fn keep_tasks(&self, bytes: &[u8]) -> Result<(), Errno> {
        let limit = number::unsigned(bytes)?;
        self.callers().set_limit(limit)
    }

    /// Remembers who wrote something.
    pub(crate) fn remember(&self, caller: &Caller) {
        if caller.tid != 0 {
            self.callers().remember(caller.tid);
        }
    }
}

/// Takes the snapshots that triggers ask for, until nobody needs them.
fn take_snapshots(instances: &ringtap::Instances, alive: &Weak<()>) {
    /// How long it takes at most to see that.
    const PATIENCE: Duration = Duration::from_secs(1);
    while alive.strong_count() > 0 {
        for instance in instances.wait_for_snapshot_requests(PATIENCE) {
            // Whoever wrote the event can be told nothing: there is no memory, or the instance is gone.
            let _ = instance.host().take_snapshot(None);
        }
    }
}

impl Table {
    /// Takes over what the host made and removed meanwhile.
    fn follow(&mut self, instances: &ringtap::Instances, saver: &Arc<Saver>) {
        // Before the look, so that what changes during it is seen next time.
        self.generation = instances.generation();
        for (_, removed) in self.by_number.extract_if(.., |_, instance| instance.inner.is_removed()) {
            saver.forget(removed.name());
        }
        for inner in instances.list() {
            let is_known = self.named().any(|known| known.name() == inner.name());
            let Some(number) = self.last.checked_add(1).filter(|_| !is_known) else { continue };
            self.by_number.insert(number, Arc::new(Instance::new(number, inner, saver)));
            self.last = number;
        }
    }

    fn named(&self) -> impl Iterator<Item = &Arc<Instance>> {
        self.by_number.values().filter(|instance| !instance.is_top())
    }
}

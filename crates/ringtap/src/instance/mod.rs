//! A host's instances: named sets of per-CPU buffers that share their events.
//!
//! ```text
//!   Instances ── one registry of events, one switchboard, one socket
//!     ├─ top      bit 0 of each event's word: buffers, size, mode, clock, recording
//!     ├─ "net"    bit 1
//!     └─ ...      63 in all, the top one included
//! ```
//!
//! An event is declared once for the host, and is on or off in each instance: a bit of its word on the
//! [switchboard](ringtap_abi::switchboard), which this process and all attached ones look at with each event. Switching
//! it is one store. What changes less often, instances and their buffers, is announced to the attached processes,
//! whose links map it ahead.
//!
//! ```
//! use ringtap::{Config, Instances};
//!
//! ringtap::event! {
//!     /// A request came in.
//!     pub struct Request as demo:request { bytes: u64 }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let instances = Instances::new(&Config::default())?;
//! let net = instances.create("net")?;
//! let id = Request::register(&instances)?;
//! let writer = instances.writer();
//! Request { bytes: 1 }.write(&writer); // off everywhere, as the kernel's events are at first
//! net.set_event(id, true);
//! Request { bytes: 2 }.write(&writer);
//! let written = |host: ringtap::Host| host.cpus().iter().map(|&cpu| host.stats(cpu).unwrap().written()).sum();
//! assert_eq!((written(instances.top().host()), written(net.host())), (0u64, 1u64));
//! # Ok(())
//! # }
//! ```

mod awaited;
pub(crate) mod common;
pub(crate) mod followers;
mod named;
pub(crate) mod remains;
pub(crate) mod targets;
pub(crate) mod tasks;

pub use awaited::{MAX_AWAITED, Pattern, PatternError};
pub use named::Instance;
pub use tasks::Task;

use crate::event::registry::{Event, RegisterError};
use crate::host::{Config, Host, HostError};
use crate::rules::{Counter, Hist, HistRow, HistTotals, RulesError};
use crate::writer::Writer;
use common::Common;
use named::Named;
use ringtap_abi::rules::hist::Shape;
use ringtap_abi::switchboard::{MAX_INSTANCES, NAME_LEN};
use rustix::fd::OwnedFd;
use std::sync::atomic::Ordering::Release;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// Why instances could not be made, found or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InstanceError {
    /// A name that cannot be a directory's.
    #[error("{name:?} cannot name an instance: use 1 to {NAME_LEN} bytes, no '/', not '.' or '..'")]
    Name {
        /// The name.
        name: String,
    },
    /// There is one of this name.
    #[error("there is an instance {name} already: use it, or choose another name")]
    Exists {
        /// The name.
        name: String,
    },
    /// There is none of this name.
    #[error("there is no instance {name}: create it, or list those that there are")]
    NotFound {
        /// The name.
        name: String,
    },
    /// There is no room for one more.
    #[error("this host has {MAX_INSTANCES} instances, which is all it takes: remove one first")]
    TooMany,
    /// The instance was removed.
    #[error("the instance {name} was removed: create it again")]
    Removed {
        /// The name.
        name: String,
    },
    /// Somebody consumes its buffers.
    #[error("the instance {name} is being consumed by process {pid}: end it first")]
    InUse {
        /// The name.
        name: String,
        /// The reader.
        pid: u32,
    },
    /// There is no room for one more pattern.
    #[error("this host awaits {MAX_AWAITED} patterns of events, which is all it keeps: forget some first")]
    TooManyAwaited,
    /// Its buffers could not be made or changed.
    #[error(transparent)]
    Host(#[from] HostError),
    /// An event's filter or triggers, or a list of pids, were refused.
    #[error(transparent)]
    Rules(#[from] RulesError),
}

/// Who hears of each new event: to give it the rules that were set for events of its name, before it can be on.
pub trait Attendant: std::fmt::Debug + Send + Sync {
    /// The event was declared just now, and nobody was told its number. It is called by who declares, and may set rules.
    fn declared(&self, event: &Event);
}

/// The instances of a host. Clones are handles of the same host.
#[derive(Clone, Debug)]
pub struct Instances {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    common: Arc<Common>,
    /// How named instances are made.
    config: Config,
    /// The index is the instance's bit; the top instance is always there.
    table: Mutex<Vec<Option<Arc<Named>>>>,
}

impl Instances {
    /// Makes a host whose top instance has buffers as the configuration says; named instances are made alike. As
    /// in the kernel, events are off until somebody switches them on.
    ///
    /// # Errors
    /// [`HostError`] where the sizes are impossible or the kernel refuses the memory.
    pub fn new(config: &Config) -> Result<Self, HostError> {
        let common = Arc::new(Common::new(0)?);
        let top = Host::with(config, &Arc::clone(&common), None, 0)?;
        Ok(Self::of(common, config.clone(), top))
    }

    /// A host that is used alone, as the only instance.
    pub(crate) fn around(host: &Host) -> Self {
        Self::of(Arc::clone(host.common()), Config::default(), host.clone())
    }

    fn of(common: Arc<Common>, config: Config, top: Host) -> Self {
        top.publish_newest(0);
        common.board().entry(0).epoch.fetch_max(1, Release);
        let top = Named::new(String::new(), 0, config.clone(), top, &common);
        let table = Mutex::new(vec![Some(Arc::new(top))]);
        Self { inner: Arc::new(Inner { common, config, table }) }
    }

    pub(crate) fn common(&self) -> &Arc<Common> {
        &self.inner.common
    }

    /// The instance without a name.
    ///
    /// # Panics
    /// Never: it is always there.
    #[must_use]
    pub fn top(&self) -> Instance {
        self.at(0).expect("the top instance is always there")
    }

    /// Makes an instance, in which all events are off. Its buffers are in memory alone, also where the top instance's are
    /// persistent: give it a directory of its own with [`create_with`](Self::create_with).
    ///
    /// # Errors
    /// [`InstanceError`].
    pub fn create(&self, name: &str) -> Result<Instance, InstanceError> {
        // One host has the directory of persistent buffers: named instances are in memory alone.
        self.create_with(name, &Config { directory: None, ..self.inner.config.clone() })
    }

    /// As [`create`](Self::create), with buffers as this configuration says.
    ///
    /// # Errors
    /// [`InstanceError`].
    pub fn create_with(&self, name: &str, config: &Config) -> Result<Instance, InstanceError> {
        self.add(name, config, |common, bit| Host::with(config, common, None, bit))
    }

    /// Makes an instance of buffers that a process wrote before it had a host. Nobody writes them any more.
    pub(crate) fn take_in(&self, name: &str, fds: Vec<(u32, OwnedFd)>) -> Result<Instance, InstanceError> {
        let common = &self.inner.common;
        let percent = self.inner.config.buffer_percent;
        check_name(name)?;
        let host = Host::adopt(fds, common, percent)?;
        host.check_ended()?;
        self.add(name, &host.stated_config(), |_, _| Ok(host))
    }

    fn add(
        &self,
        name: &str,
        config: &Config,
        make: impl FnOnce(&Arc<Common>, usize) -> Result<Host, HostError>,
    ) -> Result<Instance, InstanceError> {
        check_name(name)?;
        let common = &self.inner.common;
        let mut table = self.table();
        if table.iter().flatten().any(|named| !named.is_top() && named.name() == name) {
            return Err(InstanceError::Exists { name: name.to_owned() });
        }
        let free = table.iter().position(Option::is_none).unwrap_or(table.len());
        if free >= MAX_INSTANCES {
            return Err(InstanceError::TooMany);
        }
        let host = make(common, free)?;
        common.targets().set(free, Some(host.writer()), common.board());
        let named = Arc::new(Named::new(name.to_owned(), free, config.clone(), host, common));
        if free == table.len() {
            table.push(None);
        }
        table[free] = Some(Arc::clone(&named));
        let entry = common.board().entry(free);
        entry.set_name(name);
        named.announce(&named.host());
        Ok(Instance::new(named))
    }

    /// Removes an instance. Its events are off at once; its memory goes when the last who maps it does.
    ///
    /// # Errors
    /// [`InstanceError::NotFound`]; [`InstanceError::InUse`] while somebody consumes its buffers.
    pub fn remove(&self, name: &str) -> Result<(), InstanceError> {
        let mut table = self.table();
        let is_it = |named: &Option<Arc<Named>>| named.as_ref().is_some_and(|named| named.is_called(name));
        let Some(place) = table.iter().position(is_it) else {
            return Err(InstanceError::NotFound { name: name.to_owned() });
        };
        if let Some(named) = &table[place] {
            named.remove()?;
        }
        table[place] = None;
        Ok(())
    }

    /// The instance of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Instance> {
        self.table().iter().flatten().find(|named| named.is_called(name)).cloned().map(Instance::new)
    }

    /// The instances that have a name, by their names.
    #[must_use]
    pub fn list(&self) -> Vec<Instance> {
        let mut list: Vec<_> = self.table().iter().flatten().skip(1).cloned().map(Instance::new).collect();
        list.sort_by(|a, b| a.name().cmp(b.name()));
        list
    }

    /// The instance of this bit.
    pub(crate) fn at(&self, bit: usize) -> Option<Instance> {
        self.table().get(bit)?.clone().map(Instance::new)
    }

    /// A writer of this process: typed events go to each instance in which they are on, all else to the top one.
    #[must_use]
    pub fn writer(&self) -> Writer {
        self.top().host().writer()
    }

    /// Names who hears of new events, as long as he is there; in place of who did before.
    pub fn set_attendant(&self, attendant: Weak<dyn Attendant>) {
        self.inner.common.set_attendant(attendant);
    }

    /// Declares an event for all instances: as [`Host::register_event`].
    ///
    /// # Errors
    /// [`RegisterError`] names what is wrong, or what differs from an event declared under this name.
    pub fn register_event(&self, system: &str, name: &str, format: &str) -> Result<u16, RegisterError> {
        let hosts: Vec<_> = self.table().iter().flatten().map(|named| named.host()).collect();
        let persistent: Vec<_> = hosts.into_iter().filter(Host::is_persistent).collect();
        self.top().host().declare_kept(&persistent, system, name, format)
    }

    /// All events declared, in the order of their ids.
    #[must_use]
    pub fn events(&self) -> Vec<Arc<Event>> {
        self.inner.common.registry().events().map(Arc::clone).collect()
    }

    /// How many events are declared: events are only ever added, so who knows as many knows all.
    #[must_use]
    pub fn event_count(&self) -> usize {
        self.inner.common.registry().len()
    }

    /// The event with the lowest id above `id`.
    pub(crate) fn next_event(&self, id: u16) -> Option<Arc<Event>> {
        self.inner.common.registry().next_after(id).map(Arc::clone)
    }

    /// The event of this system and name.
    #[must_use]
    pub fn event(&self, system: &str, name: &str) -> Option<Arc<Event>> {
        self.inner.common.registry().find(system, name).map(Arc::clone)
    }

    /// The threads that wrote events, by their ids: as lossy as the kernel's `saved_cmdlines`.
    #[must_use]
    pub fn tasks(&self) -> Vec<Task> {
        tasks::all(self.inner.common.board())
    }

    /// The thread of this id, if it wrote events.
    #[must_use]
    pub fn task(&self, tid: u32) -> Option<Task> {
        tasks::find(self.inner.common.board(), tid)
    }

    /// Keeps some bytes for whoever takes over when this host dies: what a daemon knows and the instances do not.
    /// `false` where they are more than 512 KiB.
    #[must_use]
    pub fn save_settings(&self, settings: &[u8]) -> bool {
        self.inner.common.board().save(settings)
    }

    /// What was kept last, by this host or the one whose place it took.
    #[must_use]
    pub fn saved_settings(&self) -> Option<Vec<u8>> {
        self.inner.common.board().saved()
    }

    /// How often instances were made, removed, or given other buffers.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.inner.common.generation()
    }

    /// Makes a counter for a trigger that is to act so often at most.
    ///
    /// # Errors
    /// [`InstanceError::Rules`] where there are too many.
    pub fn new_counter(&self, count: u32) -> Result<Counter, InstanceError> {
        Ok(self.inner.common.rules().new_counter(count)?)
    }

    /// How often a counter's trigger may still act.
    #[must_use]
    pub fn left(&self, counter: Counter) -> u32 {
        self.inner.common.rules().left(counter)
    }

    /// Forgets a counter that is in no rules any more.
    pub fn free_counter(&self, counter: Counter) {
        self.inner.common.rules().free_counter(counter);
    }

    /// Makes an empty histogram, for the triggers of any events to count in.
    ///
    /// # Errors
    /// [`InstanceError::Rules`] where it is not possible, or there is no room.
    pub fn new_hist(&self, shape: &Shape) -> Result<Hist, InstanceError> {
        Ok(self.inner.common.rules().new_hist(shape)?)
    }

    /// What a histogram holds, in no order, while writers go on.
    #[must_use]
    pub fn read_hist(&self, hist: Hist) -> (Vec<HistRow>, HistTotals) {
        self.inner.common.rules().read_hist(hist)
    }

    /// Forgets a histogram that is in no rules any more.
    pub fn free_hist(&self, hist: Hist) {
        self.inner.common.rules().free_hist(hist);
    }

    /// The instances of which triggers ask for a snapshot, each once for all that asked since the last call. Waits for
    /// the first one at most this long.
    #[must_use]
    pub fn wait_for_snapshot_requests(&self, timeout: Duration) -> Vec<Instance> {
        let asked = self.inner.common.rules().wait_for_snapshot_requests(timeout);
        (0..MAX_INSTANCES).filter(|bit| asked >> bit & 1 == 1).filter_map(|bit| self.at(bit)).collect()
    }

    /// Draws the clocks' conversions anew where they are old.
    pub(crate) fn calibrate(&self) {
        let hosts: Vec<_> = self.table().iter().flatten().map(|named| named.host()).collect();
        hosts.iter().for_each(Host::calibrate);
    }

    /// The table. It is changed in single steps, so a panic of another thread changes nothing.
    fn table(&self) -> MutexGuard<'_, Vec<Option<Arc<Named>>>> {
        self.inner.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn check_name(name: &str) -> Result<(), InstanceError> {
    let is_good = !name.is_empty() && name.len() <= NAME_LEN && !name.contains(['/', '\0']);
    if is_good && name != "." && name != ".." {
        return Ok(());
    }
    Err(InstanceError::Name { name: name.chars().take(NAME_LEN + 1).collect() })
}

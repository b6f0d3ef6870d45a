//! One instance: its present buffers, and what can be set.

use super::InstanceError;
use super::awaited::Pattern;
use super::common::Common;
use crate::clock::ClockId;
use crate::event::registry::FIRST_ID;
use crate::host::{Config, Host, HostError, Mode};
use crate::resize::Replacement;
use crate::rules::{PidList, Rules, RulesError};
use ringtap_abi::meta::Rank;
use ringtap_abi::switchboard::MAX_INSTANCES;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a resize waits for attached processes to map what follows. The events of those that have not by then are
/// refused until they have, and counted.
const PATIENCE: Duration = Duration::from_millis(200);

/// A named set of per-CPU buffers. Clones are handles of the same instance; one that was removed takes no changes.
#[derive(Clone, Debug)]
pub struct Instance {
    named: Arc<Named>,
}

#[derive(Debug)]
pub(super) struct Named {
    name: String,
    /// Its bit in each event's word.
    bit: usize,
    common: Arc<Common>,
    present: Mutex<Present>,
    /// Held while the buffers change. `present` is not, where attached processes are waited for.
    changing: Mutex<()>,
}

#[derive(Debug)]
struct Present {
    host: Host,
    /// What the buffers were made from.
    config: Config,
    /// Sub-buffers of each CPU's ring.
    sizes: Vec<u32>,
    is_removed: bool,
}

impl Named {
    pub(super) fn new(name: String, bit: usize, config: Config, host: Host, common: &Arc<Common>) -> Self {
        assert!(bit < MAX_INSTANCES);
        let sizes = host.ring_sizes();
        common.board().entry(bit).buffer_percent.store(config.buffer_percent.into(), Relaxed);
        let present = Mutex::new(Present { host, config, sizes, is_removed: false });
        Self { name, bit, common: Arc::clone(common), present, changing: Mutex::default() }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn is_top(&self) -> bool {
        self.bit == 0
    }

    pub(super) fn is_called(&self, name: &str) -> bool {
        !self.is_top() && self.name == name
    }

    pub(super) fn host(&self) -> Host {
        self.present().host.clone()
    }

    fn bits(&self) -> u64 {
        1 << self.bit
    }

    /// The buffers. Each change is complete or absent, so a panic of another thread changes nothing.
    fn present(&self) -> MutexGuard<'_, Present> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the attached processes that there is another set of buffers here.
    pub(super) fn announce(&self, host: &Host) {
        let lineage = &self.common.board().entry(self.bit).lineage;
        let next = lineage.load(Relaxed).wrapping_add(1);
        host.set_lineage(Rank::lineage_of(next));
        lineage.store(next, Relaxed);
        // Behind that: a successor that finds the present set incomplete does not look for these in the one before.
        host.publish_newest();
        self.announce_more();
    }

    /// Tells the attached processes that there are more buffers here.
    fn announce_more(&self) {
        // S5: pairs with the Acquire of who looks: the name is there.
        self.common.board().entry(self.bit).epoch.fetch_add(1, Release);
        self.common.changed();
    }

    pub(super) fn remove(&self) -> Result<(), InstanceError> {
        let _turn = self.changing();
        let mut present = self.present();
        if let Some(pid) = present.host.consumer() {
            return Err(InstanceError::InUse { name: self.name.clone(), pid });
        }
        present.is_removed = true;
        present.host.set_recording(false);
        self.common.awaited().clear(self.bits());
        self.common.forget_rules(self.bit);
        self.common.targets().set(self.bit, None, self.common.board());
        self.common.forget(self.bit);
        self.common.changed();
        present.host.retire();
        Ok(())
    }

    /// Puts buffers of another configuration in the present ones' place. What those hold is for readers that have
    /// them open.
    fn replace(&self, config: Config, sizes: Vec<u32>) -> Result<(), InstanceError> {
        let _turn = self.changing();
        let mut present = self.present();
        if present.is_removed {
            return Err(InstanceError::Removed { name: self.name.clone() });
        }
        if let Some(pid) = present.host.consumer() {
            return Err(InstanceError::InUse { name: self.name.clone(), pid });
        }
        if present.host.is_persistent() {
            return Err(HostError::Persistent.into());
        }
        let off = !present.host.is_recording();
        let config = Config { off, ..config };
        let host = Host::with(&config, &self.common, Some(&sizes), self.bit)?;
        self.common.targets().set(self.bit, Some(host.writer_here()), self.common.board());
        let old = std::mem::replace(&mut present.host, host);
        (present.config, present.sizes) = (config, sizes);
        self.announce(&present.host);
        drop(present);
        // Attached processes map the new buffers, and go over: what is refused below is what those lose that do not answer.
        self.common.followers().wait(self.common.generation(), PATIENCE);
        old.retire();
        Ok(())
    }

    /// Resizes the buffers as `config` and `sizes` say, while writers and readers go on.
    fn resize(
        &self,
        config: Config,
        sizes: Vec<u32>,
        resize: impl FnOnce(&Host, &dyn Fn(&[Replacement<'_>])) -> Result<(), HostError>,
    ) -> Result<(), InstanceError> {
        let turn = self.changing();
        let host = {
            let present = self.present();
            if present.is_removed {
                return Err(InstanceError::Removed { name: self.name.clone() });
            }
            present.host.clone()
        };
        let announce = |news: &[Replacement<'_>]| {
            if !news.is_empty() {
                self.announce_more();
                self.common.followers().wait(self.common.generation(), PATIENCE);
            }
        };
        match resize(&host, &announce) {
            // Processes that come later would count in another place: only another set of buffers will do.
            Err(HostError::Counter) => {
                drop(turn);
                self.replace(config, sizes)
            }
            done => {
                let mut present = self.present();
                present.sizes = host.ring_sizes();
                done?;
                present.config = Config { off: present.config.off, mode: present.config.mode, ..config };
                Ok(())
            }
        }
    }
}

impl Instance {
    pub(super) fn new(named: Arc<Named>) -> Self {
        Self { named }
    }

    /// Its name; empty for the top instance.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.named.name
    }

    /// Whether it is the top instance.
    #[must_use]
    pub fn is_top(&self) -> bool {
        self.named.is_top()
    }

    /// Whether it was removed: then it is on nobody's list, and no event goes there.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.named.present().is_removed
    }

    /// Its bit in each event's word.
    #[must_use]
    pub fn bit(&self) -> usize {
        self.named.bit
    }

    /// Its present buffers. Those may be replaced: ask again for each use.
    #[must_use]
    pub fn host(&self) -> Host {
        self.named.host()
    }

    /// Whether its present buffers are files, which outlive the host: see [`recover`](crate::recover).
    #[must_use]
    pub fn is_persistent(&self) -> bool {
        self.host().is_persistent()
    }

    /// How its present buffers were made.
    #[must_use]
    pub fn config(&self) -> Config {
        self.named.present().config.clone()
    }

    /// Switches recording on or off, for all writers at once (the kernel's `tracing_on`).
    pub fn set_recording(&self, on: bool) {
        let present = self.named.present();
        if !present.is_removed {
            present.host.set_recording(on);
        }
    }

    /// Whether recording is on.
    #[must_use]
    pub fn is_recording(&self) -> bool {
        self.host().is_recording()
    }

    /// Sub-buffers of a CPU's ring, the reader page not counted; `None` where it has none.
    #[must_use]
    pub fn size(&self, cpu: u32) -> Option<u32> {
        self.named.present().sizes.get(cpu as usize).copied()
    }

    /// Gives a CPU's ring, or with `None` all of them, this many sub-buffers, the reader page not counted. Events and
    /// counters stay; readers go on, and so do this process's writers and those of attached ones: see
    /// [`Host::set_size`]. With the clock `counter`, what the buffers hold goes.
    ///
    /// # Errors
    /// [`InstanceError`].
    pub fn set_size(&self, cpu: Option<u32>, ring_subbufs: u32) -> Result<(), InstanceError> {
        let (config, mut sizes) = self.made_from();
        match cpu {
            None => sizes.fill(ring_subbufs),
            Some(cpu) => *sizes.get_mut(cpu as usize).ok_or(HostError::NoSuchCpu(cpu))? = ring_subbufs,
        }
        self.named.resize(Config { ring_subbufs, ..config }, sizes, |host, announce| {
            host.set_size_with(cpu, ring_subbufs, announce)
        })
    }

    /// Gives the buffers sub-buffers of another size, in bytes, so many that the rings keep about their size,
    /// as [`set_size`](Self::set_size) does.
    ///
    /// # Errors
    /// [`InstanceError`].
    pub fn set_subbuf_size(&self, subbuf_size: u32) -> Result<(), InstanceError> {
        let (config, sizes) = self.made_from();
        let fitted = |subbufs: u32| {
            let bytes = u64::from(subbufs) * u64::from(config.subbuf_size);
            u32::try_from(bytes.div_ceil(u64::from(subbuf_size.max(1))).max(2)).unwrap_or(u32::MAX)
        };
        let ring_subbufs = fitted(config.ring_subbufs);
        let sizes = sizes.into_iter().map(fitted).collect();
        self.named.resize(Config { subbuf_size, ring_subbufs, ..config }, sizes, |host, announce| {
            host.set_subbuf_size_with(subbuf_size, announce)
        })
    }

    /// Stamps events with another clock from now on. As in the kernel, what is in the buffers goes: two clocks
    /// have no order.
    ///
    /// # Errors
    /// [`InstanceError`].
    pub fn set_clock(&self, clock: ClockId) -> Result<(), InstanceError> {
        let (config, sizes) = self.made_from();
        self.named.replace(Config { clock: Some(clock), ..config }, sizes)
    }

    /// The clock that stamps events.
    #[must_use]
    pub fn clock(&self) -> ClockId {
        self.host().clock()
    }

    /// Lets a full ring overwrite its oldest events or refuse new ones, from now on.
    pub fn set_mode(&self, mode: Mode) {
        let mut present = self.named.present();
        present.host.set_mode(mode);
        present.config.mode = mode;
    }

    /// What happens when a ring is full.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.named.present().config.mode
    }

    /// Sets how full a buffer is when readers are woken, in percent.
    ///
    /// # Errors
    /// [`HostError::Percent`].
    pub fn set_buffer_percent(&self, percent: u8) -> Result<(), InstanceError> {
        let mut present = self.named.present();
        present.host.set_buffer_percent(percent)?;
        present.config.buffer_percent = percent;
        self.named.common.board().entry(self.named.bit).buffer_percent.store(percent.into(), Relaxed);
        Ok(())
    }

    /// How full a buffer is when readers are woken, in percent.
    #[must_use]
    pub fn buffer_percent(&self) -> u8 {
        self.named.present().config.buffer_percent
    }

    /// Empties all buffers and sets their counters to 0, while writers go on.
    ///
    /// # Errors
    /// As [`Host::reset`].
    pub fn reset(&self) -> Result<(), InstanceError> {
        Ok(self.host().reset()?)
    }

    /// Switches an event on or off in this instance: in all attached processes at once, without a call from them.
    pub fn set_event(&self, id: u16, on: bool) {
        let present = self.named.present();
        if !present.is_removed {
            self.named.common.switch(id, self.named.bits(), on);
        }
    }

    /// Whether an event is on in this instance.
    #[must_use]
    pub fn event_state(&self, id: u16) -> bool {
        self.named.common.board().word(id).load(Relaxed) & self.named.bits() != 0
    }

    /// Replaces what an event does here besides being recorded, and which of its records are: in all attached processes
    /// at once, all of it or none. Rules count whether the event is on or off.
    ///
    /// # Errors
    /// [`InstanceError::Rules`], [`InstanceError::Removed`].
    pub fn set_rules(&self, id: u16, rules: Rules) -> Result<(), InstanceError> {
        self.rules_with(|common, bit| common.set_rules(bit, id, rules))
    }

    /// An event's rules.
    #[must_use]
    pub fn rules(&self, id: u16) -> Rules {
        self.named.common.rules().rules(self.named.bit, id)
    }

    /// Records the events of these threads only, or those of all others: the kernel's `set_event_pid` and
    /// `set_event_notrace_pid`. `None` takes the list away.
    ///
    /// # Errors
    /// [`InstanceError::Rules`], [`InstanceError::Removed`].
    pub fn set_pids(&self, list: PidList, pids: Option<&[u32]>) -> Result<(), InstanceError> {
        self.rules_with(|common, bit| common.set_pids(bit, list, pids))
    }

    /// Adds threads to a list, which is made where there is none.
    ///
    /// # Errors
    /// [`InstanceError::Rules`], [`InstanceError::Removed`].
    pub fn add_pids(&self, list: PidList, pids: &[u32]) -> Result<(), InstanceError> {
        self.rules_with(|common, bit| common.add_pids(bit, list, pids))
    }

    /// Whether the lists follow forks, as with the kernel's option `event-fork`: who is made by a thread of a list,
    /// another thread or a process, is put into it, and who ends is taken out. Not at first.
    ///
    /// A process that is forked by an attached one is in the list before it does anything; of all else the host is told
    /// by the kernel, shortly after it began.
    ///
    /// # Errors
    /// [`InstanceError::Rules`] where the kernel does not tell; [`InstanceError::Removed`].
    pub fn follow_forks(&self, on: bool) -> Result<(), InstanceError> {
        self.rules_with(|common, bit| common.follow_forks(bit, on))
    }

    /// Whether the lists of threads follow forks.
    #[must_use]
    pub fn follows_forks(&self) -> bool {
        self.named.common.follows_forks(self.named.bit)
    }

    /// The threads of a list; `None` where there is none.
    #[must_use]
    pub fn pids(&self, list: PidList) -> Option<Vec<u32>> {
        self.named.common.rules().pids(self.named.bit, list)
    }

    fn rules_with(
        &self,
        change: impl FnOnce(&Common, usize) -> Result<(), RulesError>,
    ) -> Result<(), InstanceError> {
        let present = self.named.present();
        if present.is_removed {
            return Err(InstanceError::Removed { name: self.named.name.clone() });
        }
        Ok(change(&self.named.common, self.named.bit)?)
    }

    /// Whether events that are declared from now on are on in this instance at once; they are not, where nothing is
    /// said.
    pub fn set_new_events(&self, on: bool) {
        let present = self.named.present();
        if !present.is_removed {
            self.named.common.switch_new_events(self.named.bits(), on);
        }
    }

    /// Switches these events on: those that are declared, and others as soon as they are.
    ///
    /// # Errors
    /// [`InstanceError::Removed`], [`InstanceError::TooManyAwaited`].
    pub fn await_events(&self, pattern: &Pattern) -> Result<(), InstanceError> {
        let (named, present) = (&self.named, self.named.present());
        if present.is_removed {
            return Err(InstanceError::Removed { name: named.name.clone() });
        }
        if !named.common.awaited().add(pattern.clone(), named.bits()) {
            return Err(InstanceError::TooManyAwaited);
        }
        // A declaration that comes from now on finds the pattern; one that came before is found here.
        let registry = named.common.registry();
        for event in registry.events().filter(|event| event.id >= FIRST_ID) {
            if pattern.names(&event.system, &event.name) {
                named.common.switch(event.id, named.bits(), true);
            }
        }
        Ok(())
    }

    /// As [`await_events`](Self::await_events), and leaves those that are declared as they are.
    ///
    /// # Errors
    /// As there.
    pub fn await_new_events(&self, pattern: &Pattern) -> Result<(), InstanceError> {
        let (named, present) = (&self.named, self.named.present());
        if present.is_removed {
            return Err(InstanceError::Removed { name: named.name.clone() });
        }
        if named.common.awaited().add(pattern.clone(), named.bits()) {
            Ok(())
        } else {
            Err(InstanceError::TooManyAwaited)
        }
    }

    /// What is awaited in this instance.
    #[must_use]
    pub fn awaited(&self) -> Vec<Pattern> {
        self.named.common.awaited().of(self.named.bits())
    }

    /// Does not await this any more; events that are on stay on.
    pub fn await_no_more(&self, pattern: &Pattern) {
        self.named.common.awaited().remove(pattern, self.named.bits());
    }

    /// Awaits nothing any more; events that are on stay on.
    pub fn await_none(&self) {
        self.named.common.awaited().clear(self.named.bits());
    }

    /// Has these events switch recording off, as a trigger `traceoff` does, with their next record: those that are
    /// declared, and others as soon as they are.
    ///
    /// # Errors
    /// [`InstanceError::Removed`], [`InstanceError::TooManyAwaited`], [`InstanceError::Rules`].
    pub fn stop_at(&self, pattern: &Pattern) -> Result<(), InstanceError> {
        let (named, present) = (&self.named, self.named.present());
        if present.is_removed {
            return Err(InstanceError::Removed { name: named.name.clone() });
        }
        match named.common.stop_at(named.bit, pattern)? {
            true => Ok(()),
            false => Err(InstanceError::TooManyAwaited),
        }
    }

    /// Whether both are handles of the same instance.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.named, &other.named)
    }

    /// Takes back all of [`stop_at`](Self::stop_at).
    pub fn stop_at_none(&self) {
        if !self.named.present().is_removed {
            self.named.common.stop_at_none(self.named.bit);
        }
    }

    /// Whether events that are declared from now on are on in this instance.
    #[must_use]
    pub fn new_events(&self) -> bool {
        self.named.common.new_events() & self.named.bits() != 0
    }

    fn made_from(&self) -> (Config, Vec<u32>) {
        let present = self.named.present();
        (present.config.clone(), present.sizes.clone())
    }
}

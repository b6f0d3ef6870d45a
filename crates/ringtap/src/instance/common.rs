//! What all instances of a host have in common: events, switchboard, this process's writers.

use super::Attendant;
use super::awaited::{Awaited, Pattern};
use super::followers::Followers;
use super::targets::Targets;
use crate::board::{self, Board};
use crate::event::registry::{FIRST_ID, RegisterError, Registry};
use crate::event::switch::Word;
use crate::map::MapError;
use crate::rules::forks::Forks;
use crate::rules::{Action, HasRegion, PidList, Publisher, Rules, RulesError, Trigger};
use ringtap_abi::control::split_event;
use ringtap_abi::switchboard::RULES;
use rustix::fd::OwnedFd;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering::{Relaxed, Release, SeqCst};
use std::sync::atomic::fence;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

#[derive(Debug)]
pub(crate) struct Common {
    registry: Mutex<Registry>,
    board: Arc<Board>,
    targets: Arc<Targets>,
    rules: Publisher<Arc<Board>>,
    /// Who hears of forks, while there are lists that follow them.
    forks: Mutex<Option<Forks>>,
    awaited: Awaited,
    /// Which events switch recording off, and where.
    stops: Awaited,
    followers: Arc<Followers>,
    /// Eventfds of those who tell the attached processes of changes.
    tellers: Mutex<Vec<Weak<OwnedFd>>>,
    /// Who hears of each new event before it can be on.
    attendant: Mutex<Option<Weak<dyn Attendant>>>,
}

impl Common {
    /// A new host's. `new_events`: in which instances an event is on when it is declared.
    pub(crate) fn new(new_events: u64) -> Result<Self, MapError> {
        let board = Arc::new(Board::create()?);
        let targets = Arc::new(Targets::new(Arc::clone(&board)));
        board.head().new_events.store(new_events, Relaxed);
        let rules = Publisher::new(Arc::clone(&board));
        Ok(Self::of(Registry::default(), board, targets, rules))
    }

    /// A dead host's, from its switchboard: with all events that it declared, as they were switched, and their rules.
    pub(crate) fn adopt(board: Board) -> Result<Self, RulesError> {
        let mut registry = Registry::default();
        for (id, text) in board.formats() {
            if let Some((system, name, format)) = split_event(text.as_bytes()) {
                // What it does not take cannot be a host's.
                let _ = registry.restore(id, system, name, format);
            }
        }
        let board = Arc::new(board);
        let targets = Arc::new(Targets::new(Arc::clone(&board)));
        let rules = Publisher::adopt(Arc::clone(&board))?;
        let common = Self::of(registry, board, targets, rules);
        common.follow_on();
        Ok(common)
    }

    fn of(
        registry: Registry,
        board: Arc<Board>,
        targets: Arc<Targets>,
        rules: Publisher<Arc<Board>>,
    ) -> Self {
        let (awaited, stops, tellers) = (Awaited::default(), Awaited::default(), Mutex::default());
        let (followers, attendant, forks) = (Arc::default(), Mutex::default(), Mutex::default());
        board::follow_forks(&board);
        Self {
            registry: Mutex::new(registry),
            board,
            targets,
            rules,
            forks,
            awaited,
            stops,
            followers,
            tellers,
            attendant,
        }
    }

    /// What is declared. A declaration is complete or absent, so a panic of another thread changes nothing.
    pub(crate) fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn board(&self) -> &Arc<Board> {
        &self.board
    }

    /// Who publishes the rules of events; [`set_rules`](Self::set_rules) and [`set_pids`](Self::set_pids) keep the
    /// words in step with them.
    pub(crate) fn rules(&self) -> &Publisher<Arc<Board>> {
        &self.rules
    }

    /// Replaces an event's rules in an instance.
    pub(crate) fn set_rules(&self, instance: usize, id: u16, rules: Rules) -> Result<(), RulesError> {
        self.rules.set(instance, id, rules, |has_rules| self.mark(id, has_rules))
    }

    /// Replaces an instance's list of pids.
    pub(crate) fn set_pids(
        &self,
        instance: usize,
        list: PidList,
        pids: Option<&[u32]>,
    ) -> Result<(), RulesError> {
        self.settle_forks();
        if let Some(pids) = pids.filter(|_| self.follows_forks(instance)) {
            self.hear_of(pids)?;
        }
        self.rules.set_pids(instance, list, pids)?;
        self.hear_no_more();
        // S7: pairs with the fence in `Board::switch_on`.
        fence(SeqCst);
        for (id, word) in (0..=u16::MAX).zip(self.board.words()) {
            if word.load(Relaxed) != 0 {
                self.rules.mark(id, |has_rules| self.mark(id, has_rules));
            }
        }
        Ok(())
    }

    /// Adds to an instance's list of pids.
    pub(crate) fn add_pids(&self, instance: usize, list: PidList, pids: &[u32]) -> Result<(), RulesError> {
        self.settle_forks();
        if self.follows_forks(instance) {
            self.hear_of(pids)?;
        }
        match self.rules.add_pids(instance, list, pids)? {
            true => Ok(()),
            false => self.set_pids(instance, list, Some(pids)),
        }
    }

    /// Whether an instance's lists of pids follow forks.
    pub(crate) fn follows_forks(&self, instance: usize) -> bool {
        self.board.region().follows_forks().load(Relaxed) >> instance & 1 == 1
    }

    /// Has an instance's lists of pids follow forks, or stay as they are.
    pub(crate) fn follow_forks(&self, instance: usize, on: bool) -> Result<(), RulesError> {
        self.settle_forks();
        let follows = self.board.region();
        let follows = follows.follows_forks();
        if on {
            self.hear_of(&self.listed(1 << instance))?;
            follows.fetch_or(1 << instance, Relaxed);
        } else {
            follows.fetch_and(!(1 << instance), Relaxed);
            self.hear_no_more();
        }
        Ok(())
    }

    /// Who was forked before a list is changed is in the list as it was, or is not: in the kernel forks are carried out at once,
    /// here when they are heard of.
    fn settle_forks(&self) {
        if let Some(forks) = &*self.forks.lock().unwrap_or_else(PoisonError::into_inner) {
            forks.settle();
        }
    }

    /// The threads in the lists of these instances.
    fn listed(&self, instances: u64) -> Vec<u32> {
        let of = (0..u64::BITS as usize).filter(|instance| instances >> instance & 1 == 1);
        let lists = of.flat_map(|instance| [(instance, PidList::Only), (instance, PidList::Not)]);
        let pids = lists.filter_map(|(instance, list)| self.rules.pids(instance, list)).flatten();
        pids.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// From now on the kernel tells what these threads fork, and when they end. Those that are not there.
    fn hear_of(&self, threads: &[u32]) -> Result<Vec<u32>, RulesError> {
        if threads.is_empty() {
            return Ok(Vec::new());
        }
        let mut forks = self.forks.lock().unwrap_or_else(PoisonError::into_inner);
        let hearing = match &mut *forks {
            Some(forks) => forks,
            none => none.insert(Forks::start(&self.board).map_err(RulesError::Forks)?),
        };
        hearing.follow(threads).map_err(RulesError::Forks)
    }

    /// Where nobody is in a list that follows forks, nobody has to be heard of.
    fn hear_no_more(&self) {
        let mut forks = self.forks.lock().unwrap_or_else(PoisonError::into_inner);
        let follows = self.board.region().follows_forks().load(Relaxed);
        if forks.is_some() && self.listed(follows).is_empty() {
            *forks = None;
        }
    }

    /// Goes on where a dead host left off. Who ended meanwhile is taken out of the lists; whom it forked stays unknown,
    /// unless it was attached.
    fn follow_on(&self) {
        let region = self.board.region();
        // Not possible any more: the lists stay as they are.
        let gone = self.hear_of(&self.listed(region.follows_forks().load(Relaxed))).unwrap_or_default();
        gone.into_iter().for_each(|pid| region.ended(pid));
    }

    /// Has the event's writers look at its rules, or look no more. Lists of pids count for all events.
    fn mark(&self, id: u16, has_rules: bool) {
        // Relaxed: a rule counts from whenever a writer sees it.
        if has_rules || self.rules.region().has_pid_lists() {
            self.board.word(id).fetch_or(RULES, Relaxed);
        } else {
            self.board.word(id).fetch_and(!RULES, Relaxed);
        }
    }

    /// Takes an instance's rules away, and its lists of pids.
    pub(crate) fn forget_rules(&self, instance: usize) {
        // Not to follow is always possible.
        let _ = self.follow_forks(instance, false);
        for list in [PidList::Only, PidList::Not] {
            // An instance that there is can have no list.
            let _ = self.set_pids(instance, list, None);
        }
        for id in self.rules.events(instance) {
            // Where there is no room even for the smaller block, the rules stay, and nothing is on that they are about.
            let _ = self.set_rules(instance, id, Rules::default());
        }
    }

    pub(crate) fn targets(&self) -> &Arc<Targets> {
        &self.targets
    }

    /// Declares an event. A new one is on where new events are, and where it is awaited; before that its attendant gave
    /// it its rules.
    pub(crate) fn declare(&self, system: &str, name: &str, format: &str) -> Result<u16, RegisterError> {
        let mut registry = self.registry();
        if let Some(event) = registry.find(system, name) {
            let id = event.id;
            return registry.declare(system, name, format).map(|_| id);
        }
        let id = registry.declare(system, name, format)?;
        let event = registry.find(system, name).map(Arc::clone);
        if let Some(event) = &event {
            let text = format!("{system}\n{name}\n{}", event.format);
            // The log has room for all that the registry takes.
            self.board.log_format(id, &text);
        }
        // The attendant looks at the registry, too. Who declares the event again meanwhile finds it off.
        drop(registry);
        if let (Some(attendant), Some(event)) = (self.attendant(), &event) {
            attendant.declared(event);
        }
        let stops = self.stops.word(system, name);
        for instance in (0..u64::BITS as usize).filter(|bit| stops >> bit & 1 == 1) {
            // Where there is no room for the rule, the event is recorded, and nothing stops.
            let _ = self.set_stop(instance, id, true);
        }
        self.switch(id, self.new_events() | self.awaited.word(system, name), true);
        Ok(id)
    }

    fn attendant(&self) -> Option<Arc<dyn Attendant>> {
        self.attendant.lock().unwrap_or_else(PoisonError::into_inner).as_ref().and_then(Weak::upgrade)
    }

    /// Names who hears of new events.
    pub(crate) fn set_attendant(&self, attendant: Weak<dyn Attendant>) {
        *self.attendant.lock().unwrap_or_else(PoisonError::into_inner) = Some(attendant);
    }

    /// Has events of this name switch an instance's recording off, with their next record: those that are declared, and
    /// others as soon as they are. `Ok(false)` where there are too many names.
    pub(crate) fn stop_at(&self, instance: usize, pattern: &Pattern) -> Result<bool, RulesError> {
        if !self.stops.add(pattern.clone(), 1 << instance) {
            return Ok(false);
        }
        // A declaration that comes from now on finds the pattern; one that came before is found here.
        self.set_stops(instance, true, |system, event| pattern.names(system, event)).map(|()| true)
    }

    /// No event switches an instance's recording off any more by way of [`stop_at`](Self::stop_at).
    pub(crate) fn stop_at_none(&self, instance: usize) {
        let patterns = self.stops.of(1 << instance);
        self.stops.clear(1 << instance);
        let is_named =
            |system: &str, event: &str| patterns.iter().any(|pattern| pattern.names(system, event));
        // There is room for fewer rules.
        let _ = self.set_stops(instance, false, is_named);
    }

    fn set_stops(
        &self,
        instance: usize,
        on: bool,
        is_meant: impl Fn(&str, &str) -> bool,
    ) -> Result<(), RulesError> {
        let registry = self.registry();
        let meant = registry.events().filter(|event| is_meant(&event.system, &event.name));
        meant.filter(|event| event.id >= FIRST_ID).try_for_each(|event| self.set_stop(instance, event.id, on))
    }

    fn set_stop(&self, instance: usize, id: u16, on: bool) -> Result<(), RulesError> {
        const STOP: Trigger =
            Trigger { action: Action::TraceOff, counter: None, filter: None, is_paused: false };
        let mut rules = self.rules.rules(instance, id);
        rules.triggers.retain(|trigger| *trigger != STOP);
        if on {
            rules.triggers.push(STOP);
        }
        self.set_rules(instance, id, rules)
    }

    /// An event's word, for a switch of this process.
    pub(crate) fn word(&self, id: u16) -> Word {
        Word::new(self.board.word_for_ever(id))
    }

    /// Sets or clears bits of an event's word: from now on, in all attached processes.
    pub(crate) fn switch(&self, id: u16, bits: u64, on: bool) {
        match (on, bits) {
            // Where it is on nowhere, nobody has to look at its rules.
            (true, 0) => {}
            (true, _) => self.board.switch_on(id, bits),
            // Relaxed: an event about to be written while it is switched may be either.
            (false, _) => _ = self.board.word(id).fetch_and(!bits, Relaxed),
        }
    }

    /// Takes an instance off the switchboard: no event goes there, and its place is free.
    pub(crate) fn forget(&self, instance: usize) {
        let bits = 1 << instance;
        self.switch_new_events(bits, false);
        for word in self.board.words().iter().filter(|word| word.load(Relaxed) & bits != 0) {
            word.fetch_and(!bits, Relaxed);
        }
        let entry = self.board.entry(instance);
        entry.name_len.store(0, Relaxed);
        // By two, so that nobody takes what it had for what the next one had before.
        entry.lineage.fetch_add(2, Relaxed);
        // The next instance in this place continues the count, so that nobody takes it for this one.
        entry.epoch.fetch_add(1, Release);
    }

    /// Whether events that are declared from now on are on in an instance.
    pub(crate) fn switch_new_events(&self, bits: u64, on: bool) {
        let new_events = &self.board.head().new_events;
        if on {
            new_events.fetch_or(bits, Relaxed)
        } else {
            new_events.fetch_and(!bits, Relaxed)
        };
    }

    /// Who awaits which events.
    pub(crate) fn awaited(&self) -> &Awaited {
        &self.awaited
    }

    pub(crate) fn new_events(&self) -> u64 {
        self.board.head().new_events.load(Relaxed)
    }

    /// Has the eventfd signalled with each change that attached processes must hear of.
    pub(crate) fn tell(&self, teller: &Arc<OwnedFd>) {
        let mut tellers = self.tellers.lock().unwrap_or_else(PoisonError::into_inner);
        tellers.retain(|teller| teller.strong_count() > 0);
        tellers.push(Arc::downgrade(teller));
    }

    /// The attached processes that follow the instances.
    pub(crate) fn followers(&self) -> &Arc<Followers> {
        &self.followers
    }

    /// How many changes attached processes had to hear of.
    pub(crate) fn generation(&self) -> u32 {
        self.board.head().generation.load(Relaxed)
    }

    /// Tells the attached processes to look at the instances anew.
    pub(crate) fn changed(&self) {
        // S5: pairs with the Acquire of who looks at the entries: they are what the generation says.
        self.board.head().generation.fetch_add(1, Release);
        let tellers = self.tellers.lock().unwrap_or_else(PoisonError::into_inner);
        for teller in tellers.iter().filter_map(Weak::upgrade) {
            // A counter that is full will be read.
            let _ = rustix::io::write(&*teller, &1u64.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringtap_abi::switchboard::TOP;
    use std::sync::Barrier;

    #[test]
    fn an_event_that_is_switched_on_while_a_list_is_made_looks_at_the_list() {
        let common = Common::new(0).expect("memory");
        let id = FIRST_ID;
        let turn = Barrier::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..3000 {
                    turn.wait();
                    common.switch(id, TOP, true);
                    turn.wait();
                }
            });
            for round in 0..3000 {
                common.set_pids(0, PidList::Only, None).expect("it is possible");
                common.switch(id, TOP, false);
                common.board().word(id).store(0, Relaxed);
                turn.wait();
                common.set_pids(0, PidList::Only, Some(&[7])).expect("it is possible");
                turn.wait();
                assert_eq!(common.board().word(id).load(Relaxed), TOP | RULES, "round {round}");
            }
        });
    }
}

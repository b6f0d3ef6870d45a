//! Hosts that resize one CPU's buffer and die at any step of it, and processes that are told and offer, each when it gets to
//! it: a model of who writes where, against which the rules stand.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// What may happen next. A process is named by a number, modulo how many there are.
#[derive(Clone, Copy, Debug)]
enum Event {
    Attach,
    /// A link asks the host what follows.
    Follow(usize),
    /// A process writes an event.
    Write(usize),
    Kill(usize),
    /// The next step of a resize.
    Resize,
    /// The resize fails before anything was retired.
    Fail,
    /// A reader is through with the oldest buffer.
    Read,
    /// The host is killed. Who is named by a bit of `late` offers only once another one has begun.
    Die {
        first: usize,
        late: u8,
    },
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        2 => Just(Event::Attach),
        6 => (0usize..8).prop_map(Event::Follow),
        4 => (0usize..8).prop_map(Event::Write),
        1 => (0usize..8).prop_map(Event::Kill),
        12 => Just(Event::Resize),
        1 => Just(Event::Fail),
        2 => Just(Event::Read),
        3 => ((0usize..8), any::<u8>()).prop_map(|(first, late)| Event::Die { first, late }),
    ];
    prop::collection::vec(event, 1..80)
}

/// A process. The buffers are known by their places in the world's list.
#[derive(Clone, Debug, Default)]
struct Process {
    /// What its writers were told of, ever.
    chain: Vec<usize>,
    /// Where in that they are.
    present: usize,
    /// What its link offers.
    held: Vec<usize>,
}

#[derive(Clone, Debug)]
struct Host {
    older: Vec<usize>,
    newest: usize,
    pending: Option<usize>,
}

#[derive(Clone, Debug)]
struct World {
    buffers: Vec<Said>,
    /// The switchboard's word.
    newest: Mention,
    processes: Vec<Process>,
    host: Host,
    /// Buffers that were written, and that no host has: nobody offered them in time.
    lost: BTreeSet<usize>,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            buffers: Vec::new(),
            newest: Mention::default(),
            processes: Vec::new(),
            host: Host { older: Vec::new(), newest: 0, pending: None },
            lost: BTreeSet::new(),
        };
        world.make();
        world.newest = world.mention(0);
        world.buffers[0].is_first = true;
        world
    }

    fn make(&mut self) -> usize {
        let ordinal = u32::try_from(self.buffers.len()).unwrap() + 1;
        let next = Mention::default();
        self.buffers.push(Said { ordinal, next, is_retired: false, is_first: false, is_given_up: false });
        self.buffers.len() - 1
    }

    fn mention(&self, buffer: usize) -> Mention {
        Mention { ordinal: self.buffers[buffer].ordinal, is_told: false }
    }

    /// Where the writers are who know all that there is.
    fn written(&self) -> usize {
        let Host { newest, pending, .. } = self.host;
        if self.buffers[newest].is_retired { pending.expect("it is retired behind that") } else { newest }
    }

    fn front(&self) -> usize {
        self.host.older.first().copied().unwrap_or(self.host.newest)
    }

    /// As `Host::read_write`.
    fn give(&mut self, known: Option<usize>) -> usize {
        let all: Vec<_> =
            self.host.older.iter().copied().chain([self.host.newest]).chain(self.host.pending).collect();
        let at = known.and_then(|known| all.iter().position(|&each| each == known));
        let given = at.map_or(self.front(), |at| all.get(at + 1).copied().unwrap_or(all[at]));
        if given == self.host.newest {
            self.newest.is_told = true;
        } else if Some(given) == self.host.pending {
            self.buffers[self.host.newest].next.is_told = true;
        }
        given
    }

    /// As `Line::follow`.
    fn follow(&mut self, process: usize) {
        if self.processes[process].held.is_empty() {
            let oldest = self.give(None);
            self.processes[process] = Process { chain: vec![oldest], present: 0, held: vec![oldest] };
        }
        let mut asked = self.processes[process].held.len() - 1;
        loop {
            let given = self.give(Some(self.processes[process].held[asked]));
            let held = &mut self.processes[process].held;
            if given == held[asked] {
                held.truncate(asked + 1);
                break;
            }
            let said: Vec<_> = held.iter().map(|&at| self.buffers[at]).collect();
            let ordinal = self.buffers[given].ordinal;
            if held[..asked].contains(&given) || asked > 0 && ordinal < said[asked].ordinal {
                asked -= 1;
                continue;
            }
            let forgotten: Vec<_> = held.drain(known(&said, asked, ordinal)..).collect();
            held.push(given);
            asked = held.len() - 1;
            self.processes[process].chain.push(given);
            for buffer in forgotten {
                assert!(buffer != self.written(), "a living buffer is given up");
                self.pass_over(buffer);
            }
        }
        // As `Line::forget_what_is_read`.
        let held = &mut self.processes[process].held;
        let first = held.iter().rposition(|&each| self.buffers[each].is_first).unwrap_or(0);
        held.drain(..first);
        assert_eq!(self.write(process), Some(self.written()), "who was told writes where the others do");
    }

    /// As `resize::pass_over`.
    fn pass_over(&mut self, buffer: usize) {
        let ordinal = self.newest.ordinal;
        let said = &mut self.buffers[buffer];
        (said.next, said.is_retired, said.is_given_up) = (Mention { ordinal, is_told: true }, true, true);
    }

    /// As `Lane::move_on`: the buffer that takes an event, unless that is counted as refused.
    fn write(&mut self, process: usize) -> Option<usize> {
        let Process { chain, present, .. } = &mut self.processes[process];
        loop {
            let said = self.buffers[chain[*present]];
            if !said.is_retired {
                return Some(chain[*present]);
            }
            let is_it = |&at: &usize| said.leads_to(self.buffers[chain[at]].ordinal);
            *present = (*present + 1..chain.len()).find(is_it)?;
        }
    }

    /// The next step of a resize, as `Host::resize` does it.
    fn resize(&mut self) {
        let newest = self.host.newest;
        let Some(pending) = self.host.pending else {
            let new = self.make();
            self.buffers[newest].next = self.mention(new);
            self.host.pending = Some(new);
            return;
        };
        if !self.buffers[newest].is_retired {
            self.buffers[newest].is_retired = true;
        } else if self.newest.ordinal != self.buffers[pending].ordinal {
            self.newest = self.mention(pending);
        } else {
            self.host.pending = None;
            self.host.older.push(newest);
            self.host.newest = pending;
            while self.host.older.len() > 1 {
                self.host.older.remove(0);
            }
            let front = self.front();
            self.buffers[front].is_first = true;
        }
    }

    fn fail(&mut self) {
        if let Some(pending) = self.host.pending
            && !self.buffers[self.host.newest].is_retired
        {
            self.buffers[pending].is_retired = true;
            self.host.pending = None;
        }
    }

    fn read(&mut self) {
        if !self.host.older.is_empty() {
            self.host.older.remove(0);
            let front = self.front();
            self.buffers[front].is_first = true;
        }
    }

    /// Another host in a dead one's place. `false` where it begins anew.
    fn succeed(&mut self, first: usize, late: u8) -> bool {
        let written = self.written();
        let count = self.processes.len();
        let in_time: Vec<_> =
            (0..count).map(|at| (first + at) % count).filter(|&at| late >> (at % 8) & 1 == 0).collect();
        let mut offered = BTreeSet::new();
        let mut whole = Whole::No;
        for process in in_time {
            offered.extend(self.processes[process].held.iter().copied());
            let said: Vec<_> = offered.iter().map(|&at| self.buffers[at]).collect();
            whole = if said.is_empty() { Whole::No } else { is_whole(&said, self.newest) };
            if whole != Whole::No {
                break;
            }
        }
        let said: Vec<_> = offered.iter().map(|&at| self.buffers[at]).collect();
        let is_real = are_real(&said, self.newest);
        let split = |wanted: bool| {
            let pairs = offered.iter().zip(&is_real);
            pairs.filter(|&(_, &is)| is == wanted).map(|(&at, _)| at).collect::<Vec<_>>()
        };
        let (mut real, never) = (split(true), split(false));
        assert!(!never.contains(&written), "the buffer that is written is given up");
        let Some(&last) = real.last() else {
            assert_eq!(whole, Whole::No);
            return false;
        };
        let is_open = !self.buffers[last].is_retired;
        let is_had = self.processes.iter().any(|process| process.chain.contains(&written));
        match whole {
            Whole::Yes => assert!(is_open, "it is whole"),
            Whole::AsFarAsCanBe => assert!(!is_open && !is_had, "nobody can have what is missing"),
            Whole::No => {}
        }
        assert_eq!(is_open, last == written, "an open buffer is gone on with that is not written");
        let first = real.iter().rposition(|&at| self.buffers[at].is_first).unwrap_or(0);
        real.drain(..first);
        if !is_open {
            if is_had {
                self.lost.insert(written);
            }
            let new = self.make();
            self.buffers[last].next = self.mention(new);
            real.push(new);
        }
        let newest = real.pop().expect("there is one");
        self.newest = Mention { is_told: is_open, ..self.mention(newest) };
        for never in never {
            self.pass_over(never);
        }
        self.host = Host { older: real, newest, pending: None };
        let front = self.front();
        self.buffers[front].is_first = true;
        true
    }

    /// `false` where nothing of this world is left.
    fn happen(&mut self, event: Event) -> bool {
        let count = self.processes.len().max(1);
        match event {
            Event::Attach => {
                self.processes.push(Process::default());
                self.follow(self.processes.len() - 1);
            }
            Event::Follow(process) if !self.processes.is_empty() => self.follow(process % count),
            Event::Write(process) if !self.processes.is_empty() => {
                if let Some(buffer) = self.write(process % count) {
                    let is_right = buffer == self.written() || self.lost.contains(&buffer);
                    assert!(is_right, "an event goes to a buffer that nobody reads");
                }
            }
            Event::Kill(process) if !self.processes.is_empty() => {
                self.processes.swap_remove(process % count);
            }
            Event::Resize => self.resize(),
            Event::Fail => self.fail(),
            Event::Read => self.read(),
            Event::Die { first, late } => {
                return !self.processes.is_empty() && self.succeed(first % count, late);
            }
            Event::Follow(_) | Event::Write(_) | Event::Kill(_) => {}
        }
        true
    }
}

proptest! {
    // As many as PROPTEST_CASES says, where it does.
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(20_000), ..ProptestConfig::default() })]
    #[test]
    fn writers_and_successors_agree_on_the_way_whoever_dies_when(events in events()) {
        let mut world = World::new();
        for event in events {
            if !world.happen(event) {
                break;
            }
        }
    }
}

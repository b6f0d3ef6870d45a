//! What an event does in each instance, and how it is laid into one block of words ([`ringtap_abi::rules`]).

use super::error::RulesError;
use ringtap_abi::predicate;
use ringtap_abi::rules::{self, BlockHead, Counter, Kind, MAX_BLOCK, MAX_TRIGGERS, SectionHead, TriggerHead};
use ringtap_abi::sync::AtomicU64;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

/// What an event does in one instance besides being recorded, and whether it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// The program of the filter: [`ringtap_abi::predicate`].
    pub filter: Option<Vec<u64>>,
    /// What the event sets off, in this order.
    pub triggers: Vec<Trigger>,
}

impl Rules {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.filter.is_none() && self.triggers.is_empty()
    }
}

/// Something that an event sets off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trigger {
    /// What.
    pub action: Action,
    /// How often it still may.
    pub counter: Option<Counter>,
    /// The program of its own filter.
    pub filter: Option<Vec<u64>>,
    /// Whether it does nothing for the present.
    pub is_paused: bool,
}

/// What a trigger does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Switches recording on.
    TraceOn,
    /// Switches recording off.
    TraceOff,
    /// Asks the host for a snapshot.
    Snapshot,
    /// Records the thread's stack.
    Stacktrace,
    /// Switches the event of this id on.
    EnableEvent(u16),
    /// Switches the event of this id off.
    DisableEvent(u16),
    /// Counts the event.
    Hist(Hist),
}

/// Names a histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hist(pub(super) u32);

/// An event's block; empty where it has no rules.
pub(super) fn block(all: &BTreeMap<u8, Rules>) -> Result<Vec<u64>, RulesError> {
    if all.is_empty() {
        return Ok(Vec::new());
    }
    if all.values().map(|rules| rules.triggers.len()).sum::<usize>() > MAX_TRIGGERS {
        return Err(RulesError::TooManyTriggers);
    }
    let mut block = vec![0];
    for (instance, rules) in all {
        section(&mut block, *instance, rules)?;
    }
    let words =
        u32::try_from(block.len()).ok().filter(|words| *words <= MAX_BLOCK).ok_or(RulesError::TooLong)?;
    let sections = u8::try_from(all.len()).map_err(|_| RulesError::TooLong)?;
    block[0] = BlockHead { words, sections }.pack();
    Ok(block)
}

fn section(block: &mut Vec<u64>, instance: u8, rules: &Rules) -> Result<(), RulesError> {
    let start = block.len();
    block.push(0);
    program(block, rules.filter.as_deref())?;
    for trigger in &rules.triggers {
        trigger.append(block)?;
    }
    let needs_record =
        |trigger: &Trigger| trigger.filter.is_some() || trigger.action.parts().0.needs_record();
    block[start] = SectionHead {
        words: words_since(block, start)?,
        triggers: u16::try_from(rules.triggers.len()).map_err(|_| RulesError::TooManyTriggers)?,
        instance,
        has_filter: rules.filter.is_some(),
        acts_behind: rules.triggers.iter().any(needs_record),
    }
    .pack();
    Ok(())
}

fn words_since(block: &[u64], start: usize) -> Result<u32, RulesError> {
    u32::try_from(block.len() - start).map_err(|_| RulesError::TooLong)
}

/// Appends a program that is as long as it says.
fn program(block: &mut Vec<u64>, program: Option<&[u64]>) -> Result<(), RulesError> {
    let Some(program) = program else { return Ok(()) };
    let header = program.first().and_then(|word| predicate::Header::unpack(*word));
    if header.is_none_or(|header| header.words as usize != program.len()) {
        return Err(RulesError::Program);
    }
    block.extend(program);
    Ok(())
}

impl Action {
    /// What the trigger's head says of it, and its histogram.
    fn parts(self) -> (Kind, u16, Option<Hist>) {
        match self {
            Self::TraceOn => (Kind::TraceOn, 0, None),
            Self::TraceOff => (Kind::TraceOff, 0, None),
            Self::Snapshot => (Kind::Snapshot, 0, None),
            Self::Stacktrace => (Kind::Stacktrace, 0, None),
            Self::EnableEvent(event) => (Kind::EnableEvent, event, None),
            Self::DisableEvent(event) => (Kind::DisableEvent, event, None),
            Self::Hist(hist) => (Kind::Hist, 0, Some(hist)),
        }
    }

    fn of_parts(kind: Kind, event: u16, hist: u32) -> Self {
        match kind {
            Kind::TraceOn => Self::TraceOn,
            Kind::TraceOff => Self::TraceOff,
            Kind::Snapshot => Self::Snapshot,
            Kind::Stacktrace => Self::Stacktrace,
            Kind::EnableEvent => Self::EnableEvent(event),
            Kind::DisableEvent => Self::DisableEvent(event),
            Kind::Hist => Self::Hist(Hist(hist)),
        }
    }
}

impl Trigger {
    /// A trigger of a block, as it was found there.
    pub(super) fn read(blocks: &[AtomicU64], found: &rules::Trigger) -> Self {
        let head = found.head;
        Self {
            action: Action::of_parts(head.kind, head.event, found.hist),
            counter: found.counter,
            filter: read_program(blocks, found.filter),
            is_paused: head.is_paused,
        }
    }

    fn append(&self, block: &mut Vec<u64>) -> Result<(), RulesError> {
        let start = block.len();
        let (kind, event, hist) = self.action.parts();
        block.push(0);
        block.extend(self.counter.map(Counter::pack));
        block.extend(hist.map(|hist| u64::from(hist.0)));
        program(block, self.filter.as_deref())?;
        block[start] = TriggerHead {
            words: words_since(block, start)?,
            event,
            kind,
            has_filter: self.filter.is_some(),
            is_counted: self.counter.is_some(),
            is_paused: self.is_paused,
        }
        .pack();
        Ok(())
    }
}

/// A program's words, which were walked over.
pub(super) fn read_program(blocks: &[AtomicU64], program: Option<usize>) -> Option<Vec<u64>> {
    let words = blocks.get(program?..)?;
    let len = predicate::Header::unpack(words.first()?.load(Relaxed))?.words as usize;
    words.get(..len).map(|words| words.iter().map(|word| word.load(Relaxed)).collect())
}

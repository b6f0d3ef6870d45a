//! `event_rules`, a file that the kernel lacks: filters and triggers for the events of a pattern, also for those that
//! programs are yet to declare.
//!
//! ```text
//!   try                      as the first line: looks whether all of it could be done, and does nothing
//!   on PATTERN               switches the events on
//!   filter PATTERN FILTER    sets the filter of those that have its fields; 0 takes it away
//!   trigger PATTERN TRIGGER  adds the trigger to those that have its fields; with ! in front it is taken away
//! ```
//!
//! A write is carried out as a whole or not at all. It is refused where a filter or trigger fits none of the events that
//! there are. Filters and triggers of a pattern that may come to name more events are kept, and given to each new event
//! that they fit before it can be on. Reading says what is kept; emptying the file takes the rules of all events away,
//! kept ones and those in force.

use super::Control;
use super::catalog::Catalog;
use super::errno::instance_errno;
use super::instance::Instance;
use super::kept::{Kind, Rule, is_of_one};
use super::rules::{self, Wrong};
use crate::limits::KEPT_RULES;
use ringtap::event::registry::Event;
use ringtap::instance::Pattern;
use ringtap_format::{Dialect, Formats, Target};
use rustix::io::Errno;
use std::sync::Arc;

/// A change that can be undone by another.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// What the event's `filter` file says, and what is in force.
    Filter(Arc<Event>, Option<String>, Option<Vec<u64>>),
    /// A write to the event's `trigger` file, and what undoes it, if anything does.
    Trigger(Arc<Event>, String, Option<String>),
    Switch(u16, bool),
    Await(Pattern),
    AwaitNoMore(Pattern),
}

/// What a write does, as far as can be foreseen without a hitch.
struct Plan {
    steps: Vec<Step>,
    kept: Vec<Rule>,
}

/// The event that all have in common: what does not fit it for other reasons than a field fits none.
fn plain_event() -> Formats {
    /// The fields that each event begins with.
    const PLAIN: &str = "name: event\nID: 1\nformat:\n\
        \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
        \tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;\n\
        \tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;\n\
        \tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\nprint fmt: \"\"\n";
    let mut formats = Formats::new(Target::LE64, Dialect::Kernel);
    let _ = formats.add("event", PLAIN);
    formats
}

impl Instance {
    /// The file's text.
    pub(crate) fn event_rules_text(&self) -> Vec<u8> {
        self.kept_rules().into_bytes()
    }

    /// What is kept, a line each.
    pub(super) fn kept_rules(&self) -> String {
        self.kept().iter().map(|rule| format!("{rule}\n")).collect()
    }

    /// Keeps what a daemon kept that was killed.
    pub(super) fn restore_kept(&self, line: &str) -> Result<(), Errno> {
        self.kept().push(Rule::parse(line).ok_or(Errno::INVAL)?);
        Ok(())
    }

    /// Carries a write out, or nothing of it.
    pub(crate) fn write_event_rules(&self, control: &Control, bytes: &[u8]) -> Result<(), Errno> {
        let done = self.change_event_rules(control, bytes);
        self.save();
        done
    }

    fn change_event_rules(&self, control: &Control, bytes: &[u8]) -> Result<(), Errno> {
        let text = std::str::from_utf8(bytes).map_err(|_| Errno::INVAL)?;
        let lines = text.trim_start_matches("try\n");
        // A declaration from now on waits for what is kept; one that came before is in the catalog.
        let mut kept = self.kept();
        let plan = self.plan(control, lines, kept.clone())?;
        if lines.len() == text.len() {
            self.carry_out(control, plan.steps)?;
            *kept = plan.kept;
        }
        Ok(())
    }

    fn plan(&self, control: &Control, lines: &str, kept: Vec<Rule>) -> Result<Plan, Errno> {
        let catalog = control.catalog();
        let mut plan = Plan { steps: Vec::new(), kept };
        for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if let Some(pattern) = line.strip_prefix("on ") {
                self.plan_on(&catalog, pattern.trim().parse().map_err(|_| Errno::INVAL)?, &mut plan);
                continue;
            }
            let Some(rule) = Rule::parse(line) else {
                self.log("event rules", "write on, filter or trigger, and a pattern of events", line, 0);
                return Err(Errno::INVAL);
            };
            self.plan_rule(control, &catalog, rule, &mut plan)?;
        }
        if plan.kept.len() > KEPT_RULES {
            self.log(
                "event rules",
                "too many are kept for events that are not declared yet",
                lines.trim(),
                0,
            );
            return Err(Errno::NOSPC);
        }
        Ok(plan)
    }

    fn plan_on(&self, catalog: &Catalog, pattern: Pattern, plan: &mut Plan) {
        let named = catalog.switchable().filter(|event| pattern.names(&event.system, &event.name));
        let before = plan.steps.len();
        plan.steps.extend(named.map(|event| Step::Switch(event.id, true)));
        if plan.steps.len() == before || !is_of_one(&pattern) {
            plan.steps.push(Step::Await(pattern));
        }
    }

    fn plan_rule(
        &self,
        control: &Control,
        catalog: &Catalog,
        rule: Rule,
        plan: &mut Plan,
    ) -> Result<(), Errno> {
        let formats = catalog.formats();
        let (mut wrong, mut fits, mut waits) = (None, false, true);
        for event in catalog.switchable().filter(|event| rule.names(event)) {
            match self.step_for(control, &rule, event, &formats) {
                Ok(step) => {
                    fits = true;
                    waits &= step.is_none();
                    plan.steps.extend(step);
                }
                Err(error) => wrong = wrong.or(Some(error)),
            }
        }
        if wrong.is_none() && !fits {
            let formats = plain_event();
            wrong = formats
                .by_id(1)
                .and_then(|plain| rules::misfit(rule.kind == Kind::Trigger, &rule.text, plain));
        }
        if let Some(wrong) = wrong.filter(|_| !fits) {
            self.log_entry(&format!(
                "{} of {}: error: {}\n",
                rule.noun(),
                rule.pattern,
                wrong.text(&rule.text)
            ));
            return Err(wrong.errno());
        }
        plan.kept.retain(|known| !known.is_replaced_by(&rule));
        if rule.removed().is_none() && (waits || !rule.is_of_one()) {
            plan.kept.push(rule);
        }
        Ok(())
    }

    /// What gives an event this rule: `None` where nothing is to be done, or not yet.
    fn step_for(
        &self,
        control: &Control,
        rule: &Rule,
        event: &Arc<Event>,
        formats: &Formats,
    ) -> Result<Option<Step>, Wrong> {
        let decoded = formats.by_id(event.id).ok_or(Wrong::Format)?;
        match rule.kind {
            Kind::Filter if rule.removed().is_some() => Ok(Some(Step::Filter(Arc::clone(event), None, None))),
            Kind::Filter => {
                let program = rules::checked_filter(&rule.text, decoded)?;
                Ok(Some(Step::Filter(Arc::clone(event), Some(rule.text.clone()), Some(program))))
            }
            Kind::Trigger => {
                let undo = self.checked_trigger(control, event.id, decoded, &rule.text)?;
                Ok(undo.map(|undo| Step::Trigger(Arc::clone(event), rule.text.clone(), undo)))
            }
        }
    }

    /// Takes all steps or, where one is refused, none.
    fn carry_out(&self, control: &Control, steps: Vec<Step>) -> Result<(), Errno> {
        let mut undo = Vec::new();
        for step in steps {
            match self.step(control, step) {
                Ok(step) => undo.extend(step),
                Err(errno) => {
                    for step in undo.into_iter().rev() {
                        // Room that was given back is there again.
                        let _ = self.step(control, step);
                    }
                    return Err(errno);
                }
            }
        }
        Ok(())
    }

    /// Takes a step; what undoes it, if anything has to.
    fn step(&self, control: &Control, step: Step) -> Result<Option<Step>, Errno> {
        match step {
            Step::Filter(event, text, program) => {
                let before = self.filter_of(event.id);
                self.set_filter(&event, text, program)?;
                Ok(Some(Step::Filter(event, before.0, before.1)))
            }
            Step::Trigger(event, text, undo) => {
                self.change_trigger(control, &event, text.as_bytes())?;
                Ok(undo.map(|undo| Step::Trigger(event, undo, None)))
            }
            Step::Switch(id, on) => {
                let was_on = self.inner.event_state(id);
                self.inner.set_event(id, on);
                Ok((was_on != on).then_some(Step::Switch(id, was_on)))
            }
            Step::Await(pattern) if self.inner.awaited().contains(&pattern) => Ok(None),
            Step::Await(pattern) => {
                self.inner.await_new_events(&pattern).map_err(|error| instance_errno(&error))?;
                Ok(Some(Step::AwaitNoMore(pattern)))
            }
            Step::AwaitNoMore(pattern) => {
                self.inner.await_no_more(&pattern);
                Ok(None)
            }
        }
    }

    /// Gives a new event what is kept for it.
    pub(super) fn give_rules(&self, control: &Control, event: &Arc<Event>) {
        let mut kept = self.kept();
        let concerned = |rule: &&Rule| rule.names(event) || rule.switches(event);
        let rules: Vec<Rule> = kept.iter().filter(concerned).cloned().collect();
        if rules.is_empty() {
            return;
        }
        let catalog = control.catalog();
        for rule in rules {
            let of_others = rule.switches(event);
            let named = catalog.switchable().filter(|it| rule.names(it) && (of_others || it.id == event.id));
            let given = named.map(|it| self.give(control, &rule, it)).collect::<Vec<_>>();
            if rule.is_of_one() && given.contains(&true) {
                kept.retain(|known| *known != rule);
            }
        }
        drop(kept);
        self.save();
    }

    /// Gives an event a rule, where it fits: whether that is done.
    fn give(&self, control: &Control, rule: &Rule, event: &Arc<Event>) -> bool {
        let mut formats = Formats::new(Target::LE64, Dialect::Kernel);
        let _ = formats.add(&event.system, &event.format);
        let given = match self.step_for(control, rule, event, &formats) {
            Ok(Some(step)) => self.step(control, step).map(|_| true),
            Ok(None) => Ok(false),
            Err(wrong) if rule.is_of_one() => {
                let text = wrong.text(&rule.text);
                self.log_entry(&format!("{} of {}: error: {text}\n", rule.noun(), rule.pattern));
                Ok(true)
            }
            // As in a subsystem of the kernel's: it counts for those that have the fields.
            Err(_) => Ok(false),
        };
        given.unwrap_or_else(|_| {
            self.log("event rules", "there is no room for another event's", &rule.to_string(), 0);
            false
        })
    }

    /// Takes all rules of the instance's events away, kept ones too.
    pub(crate) fn forget_event_rules(&self, control: &Control) -> Result<(), Errno> {
        self.kept().clear();
        let done = self.forget_rules(control);
        self.save();
        done
    }
}

//! Which events, with the filters and triggers that were typed behind each.

use crate::misuse;
use crate::remote::Remote;
use anyhow::Result;
use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches, value_parser};
use ringtap::instance::Pattern;

/// Events in the order in which they were typed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Choices {
    events: Vec<Choice>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Choice {
    event: String,
    filter: Option<String>,
    triggers: Vec<String>,
}

const EVENT: &str = "event";
const FILTER: &str = "filter";
const TRIGGER: &str = "trigger";

impl clap::Args for Choices {
    fn augment_args(command: Command) -> Command {
        let option = |id: &'static str, short: char, value: &'static str| {
            Arg::new(id)
                .short(short)
                .long(id)
                .value_name(value)
                .action(ArgAction::Append)
                .value_parser(value_parser!(String))
        };
        command
            .arg(option(EVENT, 'e', "EVENT").help(
                "An event: SYSTEM:EVENT, SYSTEM:*, a name of either, or `all`. One that nobody has declared yet is on as soon as \
                 somebody does",
            ))
            .arg(option(FILTER, 'f', "FILTER").requires(EVENT).help("A filter for the event before it, as the kernel's: 'bytes > 100'"))
            .arg(option(TRIGGER, 'R', "TRIGGER").requires(EVENT).help("A trigger for the event before it, as the kernel's: 'traceoff:1 if bytes == 0'"))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Choices {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut typed: Vec<(usize, &str, &String)> = Vec::new();
        for id in [EVENT, FILTER, TRIGGER] {
            let places = matches.indices_of(id).into_iter().flatten();
            let values = matches.get_many::<String>(id).into_iter().flatten();
            typed.extend(places.zip(values).map(|(place, value)| (place, id, value)));
        }
        typed.sort();
        let mut choices = Self::default();
        for (_, id, value) in typed {
            if id == EVENT {
                choices.events.push(Choice { event: value.clone(), filter: None, triggers: Vec::new() });
                continue;
            }
            let Some(of) = choices.events.last_mut() else {
                let wrong = format!("'{value}' is typed before its event: write -e EVENT first\n");
                return Err(clap::Error::raw(clap::error::ErrorKind::ArgumentConflict, wrong));
            };
            if value.trim().is_empty() {
                let wrong = format!(
                    "the {id} of {} is empty: a filter is taken away by 0, a trigger by '!' before it\n",
                    of.event
                );
                return Err(clap::Error::raw(clap::error::ErrorKind::InvalidValue, wrong));
            }
            if id == TRIGGER {
                of.triggers.push(value.clone());
            } else if of.filter.replace(value.clone()).is_some() {
                let wrong = format!("{} has two filters: join them by '&&'\n", of.event);
                return Err(clap::Error::raw(clap::error::ErrorKind::ArgumentConflict, wrong));
            }
        }
        Ok(choices)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Choices {
    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// The lines of the rules' file that say the same: filters and triggers, then what is switched on.
    ///
    /// # Errors
    /// What was typed names no event.
    pub(super) fn lines(&self, on: bool) -> Result<String> {
        let mut lines = String::new();
        let one_line = |text: &str| text.replace('\n', " ");
        for choice in &self.events {
            let pattern = choice.pattern()?;
            if let Some(filter) = &choice.filter {
                lines += &format!("filter {pattern} {}\n", one_line(filter));
            }
            for trigger in &choice.triggers {
                lines += &format!("trigger {pattern} {}\n", one_line(trigger));
            }
        }
        for choice in self.events.iter().filter(|_| on) {
            lines += &format!("on {}\n", choice.pattern()?);
        }
        Ok(lines)
    }

    /// What the user is told of events that are not declared, or lack a filter's fields.
    pub(super) fn notes(&self, remote: &Remote, on: bool) -> Result<Vec<String>> {
        let declared = if self.is_empty() { Vec::new() } else { remote.events()? };
        let mut notes = Vec::new();
        for choice in &self.events {
            let (pattern, event) = (choice.pattern()?, &choice.event);
            let named = declared.iter().filter(|(system, event)| pattern.names(system, event));
            let named = named.collect::<Vec<_>>();
            if named.is_empty() {
                let then = if on { "it is on" } else { "its filter and triggers count" };
                notes.push(format!("{event} is not declared yet; {then} as soon as a program declares it"));
                continue;
            }
            let Some(filter) = choice.filter.as_ref().filter(|filter| filter.trim() != "0") else { continue };
            for (system, event) in named {
                // It may have gone on meanwhile, and then is nobody's business any more.
                let in_force = remote.read_if_there(&format!("events/{system}/{event}/filter"))?;
                if in_force.is_some_and(|in_force| in_force.trim() != filter.replace('\n', " ").trim()) {
                    notes.push(format!(
                        "{system}:{event} lacks what '{filter}' asks for, and is not filtered by it"
                    ));
                }
            }
        }
        Ok(notes)
    }
}

impl Choice {
    fn pattern(&self) -> Result<Pattern> {
        match self.event.as_str() {
            "all" | "*" => Ok(Pattern::Both(None, None)),
            event => match event.parse() {
                Ok(pattern) => Ok(pattern),
                Err(error) => misuse!("'{event}' names no event: {error}"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Args as _;

    fn parsed(words: &[&str]) -> Result<Choices, clap::Error> {
        let command = Choices::augment_args(Command::new("start"));
        let matches = command.try_get_matches_from([&["start"], words].concat())?;
        Choices::from_arg_matches(&matches)
    }

    #[test]
    fn filters_and_triggers_belong_to_the_event_before_them() {
        let words = ["-e", "a:b", "-f", "x > 1", "-e", "c", "-R", "traceoff", "-R", "snapshot", "-e", "d:*"];
        let of = |event: &str, filter: Option<&str>, triggers: &[&str]| Choice {
            event: event.to_owned(),
            filter: filter.map(str::to_owned),
            triggers: triggers.iter().map(|&trigger| trigger.to_owned()).collect(),
        };
        let events = vec![
            of("a:b", Some("x > 1"), &[]),
            of("c", None, &["traceoff", "snapshot"]),
            of("d:*", None, &[]),
        ];
        assert_eq!(parsed(&words).unwrap(), Choices { events });
        for wrong in [
            &["-f", "x > 1"][..],
            &["-f", "x", "-e", "a"],
            &["-e", "a", "-f", "x", "-f", "y"],
            &["-e", "a", "-f", " "],
        ] {
            parsed(wrong).unwrap_err();
        }
    }
}

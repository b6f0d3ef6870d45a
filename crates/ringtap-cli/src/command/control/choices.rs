//! Which events, with the filters and triggers that were typed behind each.

use super::changes::Changes;
use crate::remote::Remote;
use anyhow::{Result, bail};
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

    /// Sets filters and triggers, and switches the events on where that is wanted. Returns those that nobody has declared yet.
    pub(super) fn set(&self, remote: &Remote, changes: &mut Changes<'_>, on: bool) -> Result<Vec<String>> {
        let declared = remote.events()?;
        let mut awaited = Vec::new();
        for choice in &self.events {
            let (named, pattern) = choice.find(&declared)?;
            if named.is_empty() && (choice.filter.is_some() || !choice.triggers.is_empty()) {
                bail!(
                    "{} is not declared yet, and a filter or trigger needs its fields: start the program first, or leave them out",
                    choice.event
                );
            }
            for (system, event) in &named {
                let folder = format!("events/{system}/{event}");
                if let Some(filter) = &choice.filter {
                    changes.set(&format!("{folder}/filter"), filter)?;
                }
                for trigger in &choice.triggers {
                    changes.add(&format!("{folder}/trigger"), trigger, &format!("!{trigger}"))?;
                }
                if on {
                    changes.set(&format!("{folder}/enable"), "1")?;
                }
            }
            // A pattern may come to name more than it does now.
            let may_grow = !matches!(&pattern, Pattern::Both(Some(_), Some(_))) || named.is_empty();
            if on && may_grow && choice.filter.is_none() && choice.triggers.is_empty() {
                remote.write("awaited_events", &pattern.to_string())?;
            }
            if named.is_empty() {
                awaited.push(choice.event.clone());
            }
        }
        Ok(awaited)
    }
}

impl Choice {
    /// The declared events that it names.
    fn find<'d>(&self, declared: &'d [(String, String)]) -> Result<(Vec<&'d (String, String)>, Pattern)> {
        let pattern = match self.event.as_str() {
            "all" | "*" => Pattern::Both(None, None),
            event => match event.parse() {
                Ok(pattern) => pattern,
                Err(error) => bail!("'{event}' names no event: {error}"),
            },
        };
        Ok((declared.iter().filter(|(system, event)| pattern.names(system, event)).collect(), pattern))
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
        for wrong in [&["-f", "x > 1"][..], &["-f", "x", "-e", "a"], &["-e", "a", "-f", "x", "-f", "y"]] {
            parsed(wrong).unwrap_err();
        }
    }
}

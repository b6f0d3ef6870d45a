//! Settings that are kept for the daemon that takes this one's place, should it be killed.
//!
//! Buffers, instances, switches of events, lists of tasks and the rules in force live on in the attached processes'
//! memory. What only a daemon knows is text: options, the mask of CPUs, the clock's name, what is awaited, and what was
//! written to `filter` and `trigger` files. It is kept beside the switchboard with each change, before the change is
//! answered.
//!
//! ```text
//!   instance NAME          for each; the top one's name is empty
//!   clock NAME | options WORDS | cpus MASK | awaited PATTERN
//!   rule LINE              of `event_rules`
//!   filter EVENT TEXT      as its file shows it
//!   trigger EVENT TEXT     as it was written, the newest first
//! ```

use super::Control;
use super::instance::Instance;
use super::saver::{TOO_LONG, Texts, unescaped};
use std::collections::BTreeMap;
use std::sync::Arc;

impl Control {
    /// Restores what the daemon that was killed kept, if one was; what could not be, a sentence each.
    pub(super) fn restore(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        let kept = self.instances.saved_settings();
        let text = String::from_utf8_lossy(kept.as_deref().unwrap_or_default()).into_owned();
        if text == TOO_LONG {
            complaints.push("its options, filters and triggers were too long to be kept".to_owned());
        } else {
            for (name, settings) in sections_of(&text) {
                self.restore_instance(&name, &settings, &mut complaints);
            }
        }
        self.saver.open();
        self.all().iter().for_each(|instance| instance.save());
        complaints
    }

    fn restore_instance(&self, name: &str, settings: &[&str], complaints: &mut Vec<String>) {
        let Some(instance) = self.all().into_iter().find(|instance| instance.name() == name) else {
            complaints.push(format!("the instance {name}: its buffers are gone"));
            return;
        };
        let mut complain = |what: &str| {
            let of = if name.is_empty() { String::new() } else { format!("of the instance {name}: ") };
            complaints.push(format!("{of}{what}"));
        };
        let mut events: BTreeMap<u16, Texts> = BTreeMap::new();
        for line in settings {
            let (key, value) = line.split_once(' ').unwrap_or((line, ""));
            let of_event =
                || value.split_once(' ').and_then(|(id, text)| Some((id.parse().ok()?, unescaped(text))));
            let is_done = match key {
                "filter" => {
                    of_event().map(|(id, text)| events.entry(id).or_default().filter = Some(text)).is_some()
                }
                "trigger" => {
                    of_event().map(|(id, text)| events.entry(id).or_default().triggers.push(text)).is_some()
                }
                _ => instance.restore_setting(key, value).is_ok(),
            };
            if !is_done {
                complain(line);
            }
        }
        let catalog = self.catalog();
        for (id, texts) in events {
            let Some(event) = catalog.by_id(id) else {
                complain(&format!("the rules of event {id}, which is not declared"));
                continue;
            };
            instance.restore_rules(self, event, texts, &mut complain);
        }
    }

    pub(super) fn all(&self) -> Vec<Arc<Instance>> {
        self.table(|table| table.by_number.values().cloned().collect())
    }
}

/// Each instance's name, and the lines of its settings.
fn sections_of(text: &str) -> Vec<(String, Vec<&str>)> {
    let mut sections: Vec<(String, Vec<&str>)> = Vec::new();
    for line in text.lines() {
        match (line.strip_prefix("instance "), sections.last_mut()) {
            (Some(name), _) => sections.push((unescaped(name), Vec::new())),
            (None, Some((_, lines))) => lines.push(line),
            (None, None) => {}
        }
    }
    sections
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_instance_has_its_lines() {
        let sections = sections_of("instance \nclock mono\ninstance a\\nb\nfilter 7 instance x\n");
        let expected =
            [(String::new(), vec!["clock mono"]), ("a\nb".to_owned(), vec!["filter 7 instance x"])];
        assert_eq!(sections, expected);
    }
}

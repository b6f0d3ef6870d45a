//! What keeps the settings, beside the switchboard: see [`saved`](super::saved).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// What stands in the settings' place where they are too long to be kept.
pub(super) const TOO_LONG: &str = "too long\n";

/// Keeps each instance's settings.
#[derive(Debug)]
pub(super) struct Saver {
    instances: ringtap::Instances,
    /// By the instances' names.
    sections: Mutex<BTreeMap<String, String>>,
    /// Not before what the last daemon kept is restored: it would be lost if this one died in that.
    is_open: AtomicBool,
}

impl Saver {
    pub(super) fn new(instances: ringtap::Instances) -> Self {
        Self { instances, sections: Mutex::default(), is_open: AtomicBool::new(false) }
    }

    /// Keeps an instance's settings, as they are when it is this one's turn.
    pub(super) fn keep(&self, name: &str, settings: impl FnOnce() -> String) {
        if self.is_open.load(Ordering::Relaxed) {
            self.change(|sections| drop(sections.insert(name.to_owned(), settings())));
        }
    }

    /// From now on settings are kept.
    pub(super) fn open(&self) {
        self.is_open.store(true, Ordering::Relaxed);
    }

    /// Forgets an instance's settings.
    pub(super) fn forget(&self, name: &str) {
        if self.is_open.load(Ordering::Relaxed) {
            self.change(|sections| drop(sections.remove(name)));
        }
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, String>)) {
        let mut sections = self.sections.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut sections);
        let text = |(name, settings): (&String, &String)| format!("instance {}\n{settings}", escaped(name));
        let all: String = sections.iter().map(text).collect();
        if !self.instances.save_settings(all.as_bytes()) {
            // It is short enough.
            let _ = self.instances.save_settings(TOO_LONG.as_bytes());
        }
    }
}

/// A text on one line.
pub(super) fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n")
}

pub(super) fn unescaped(line: &str) -> String {
    let mut text = String::new();
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => text.push(if chars.next() == Some('n') { '\n' } else { '\\' }),
            c => text.push(c),
        }
    }
    text
}

/// An event's texts.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Texts {
    pub(super) filter: Option<String>,
    /// The newest first.
    pub(super) triggers: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_any_shape_are_read_back() {
        for text in ["", "a", "bytes > 1\n^\nparse_error: \\n", "\\", "\\\\n\n", "instance x"] {
            assert_eq!(unescaped(&escaped(text)), text);
            assert!(!escaped(text).contains('\n'));
        }
    }
}

//! `set_event`: names of events, one to a write.

use super::catalog::Catalog;
use rustix::io::Errno;
use std::ops::ControlFlow;

/// One command of a write: which events, and whether they shall be on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Command<'a> {
    pub(super) on: bool,
    pattern: Pattern<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pattern<'a> {
    /// A name alone: of a system or of an event.
    Either(&'a str),
    /// System and event; `None` stands for all.
    Both(Option<&'a str>, Option<&'a str>),
}

/// The first word of a write, and how many bytes of it were used: the kernel takes one command at a time, and who writes
/// more writes the rest again.
pub(super) fn first_word(bytes: &[u8]) -> (&[u8], usize) {
    let is_space = |byte: &u8| byte.is_ascii_whitespace() || *byte == 0;
    let start = bytes.iter().position(|byte| !is_space(byte)).unwrap_or(bytes.len());
    let (_, rest) = bytes.split_at(start);
    let len = rest.iter().position(is_space).unwrap_or(rest.len());
    let (word, rest) = rest.split_at(len);
    (word, start + len + usize::from(!rest.is_empty()))
}

impl<'a> Command<'a> {
    pub(super) fn parse(word: &'a [u8]) -> Result<Self, Errno> {
        let word = std::str::from_utf8(word).map_err(|_| Errno::INVAL)?;
        let (word, on) = word.strip_prefix('!').map_or((word, true), |word| (word, false));
        let all = |name: &'a str| if name.is_empty() || name == "*" { None } else { Some(name) };
        let pattern = match word.split_once(':') {
            Some((system, event)) => Pattern::Both(all(system), all(event)),
            None => Pattern::Either(word),
        };
        Ok(Self { on, pattern })
    }

    /// The numbers of the events that it names; `EINVAL` where there are none.
    pub(super) fn events(&self, catalog: &Catalog) -> Result<Vec<u16>, Errno> {
        let ids = catalog.switchable().filter(|event| self.names(&event.system, &event.name));
        let ids: Vec<u16> = ids.map(|event| event.id).collect();
        if ids.is_empty() { Err(Errno::INVAL) } else { Ok(ids) }
    }

    fn names(&self, system: &str, event: &str) -> bool {
        match self.pattern {
            Pattern::Either(name) => name == system || name == event,
            Pattern::Both(of, name) => {
                of.is_none_or(|of| of == system) && name.is_none_or(|name| name == event)
            }
        }
    }
}

/// What stands for the state of several events: all off, all on, mixed, or there are none.
pub(super) fn summary(states: impl IntoIterator<Item = bool>) -> u8 {
    let all = states.into_iter().try_fold(None, |all, on| match all {
        Some(before) if before != on => ControlFlow::Break(()),
        _ => ControlFlow::Continue(Some(on)),
    });
    match all {
        ControlFlow::Break(()) => b'X',
        ControlFlow::Continue(None) => b'?',
        ControlFlow::Continue(Some(on)) => b'0' + u8::from(on),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_word_at_a_time() {
        assert_eq!(first_word(b"sched:a sched:b"), (b"sched:a".as_slice(), 8));
        assert_eq!(first_word(b"  sched:a"), (b"sched:a".as_slice(), 9));
        assert_eq!(first_word(b"x\n"), (b"x".as_slice(), 2));
        assert_eq!(first_word(b" \n"), (b"".as_slice(), 2));
    }

    #[test]
    fn patterns() {
        let names = |word: &str, system, event| Command::parse(word.as_bytes()).unwrap().names(system, event);
        assert!(names("app", "app", "x") && names("x", "app", "x") && !names("a*", "app", "x"));
        assert!(names("app:*", "app", "x") && names("app:", "app", "x") && names("*:*", "app", "x"));
        assert!(names("app:x", "app", "x") && !names("app:y", "app", "x") && !names(":y", "app", "x"));
        assert!(!Command::parse(b"!app:x").unwrap().on);
    }

    #[test]
    fn summaries() {
        let shown = |states: &[bool]| summary(states.iter().copied());
        assert_eq!(
            [shown(&[]), shown(&[true, true]), shown(&[false]), shown(&[true, false, true])],
            *b"?10X"
        );
    }
}

//! Names of tasks: `saved_cmdlines` and `saved_tgids`.

use rustix::io::Errno;
use std::collections::{HashMap, VecDeque};
use std::fs;

/// How many are kept at first, as in the kernel.
const DEFAULT: usize = 6552;
/// How many can be kept: the kernel's bound on task numbers.
const MOST: u64 = 4 << 20;

/// What is known of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Task {
    pub(crate) name: String,
    pub(crate) tgid: u32,
}

/// The tasks that wrote something, the last ones.
#[derive(Debug)]
pub(crate) struct Tasks {
    by_tid: HashMap<u32, Task>,
    /// In the order in which they came.
    order: VecDeque<u32>,
    limit: usize,
}

impl Default for Tasks {
    fn default() -> Self {
        Self { by_tid: HashMap::new(), order: VecDeque::new(), limit: DEFAULT }
    }
}

impl Tasks {
    /// Looks a living task up and remembers it.
    pub(super) fn remember(&mut self, tid: u32) {
        let Ok(status) = fs::read_to_string(format!("/proc/{tid}/status")) else { return };
        let value = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
        let (Some(name), Some(tgid)) = (value("Name:"), value("Tgid:").and_then(|tgid| tgid.parse().ok()))
        else {
            return;
        };
        self.insert(tid, Task { name: name.to_owned(), tgid });
    }

    pub(super) fn insert(&mut self, tid: u32, task: Task) {
        if self.by_tid.insert(tid, task).is_none() {
            self.order.push_back(tid);
        }
        self.shrink();
    }

    fn shrink(&mut self) {
        while self.order.len() > self.limit {
            if let Some(tid) = self.order.pop_front() {
                self.by_tid.remove(&tid);
            }
        }
    }

    /// The tasks, in the order in which they came.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Task)> {
        self.order.iter().filter_map(|tid| Some((*tid, self.by_tid.get(tid)?)))
    }

    pub(super) fn limit_text(&self) -> Vec<u8> {
        format!("{}\n", self.limit).into_bytes()
    }

    /// Sets how many are kept.
    pub(super) fn set_limit(&mut self, limit: u64) -> Result<(), Errno> {
        if limit == 0 || limit > MOST {
            return Err(Errno::INVAL);
        }
        self.limit = usize::try_from(limit).map_err(|_| Errno::INVAL)?;
        self.shrink();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten() {
        let mut tasks = Tasks::default();
        tasks.set_limit(2).unwrap();
        for tid in [1, 2, 1, 3] {
            tasks.insert(tid, Task { name: format!("t{tid}"), tgid: tid });
        }
        assert_eq!(tasks.iter().map(|(tid, _)| tid).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(tasks.set_limit(0), Err(Errno::INVAL));
        tasks.remember(std::process::id());
        let (_, task) = tasks.iter().last().unwrap();
        assert_eq!(task.tgid, std::process::id());
        assert!(!task.name.is_empty());
    }
}

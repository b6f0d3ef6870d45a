//! Which file: a place in the tree, as a number that is computed and never handed out.

#![forbid(unsafe_code)]

/// A file or directory of the tree.
///
/// It names the file, and holds nothing: an instance that was removed leaves nodes of which every call says `ENOENT`, and
/// an instance made later under the same name has other nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    /// The instance's number: 0 for the top one, others are never used twice.
    pub(super) instance: u32,
    pub(super) place: Place,
}

/// Where in an instance's directory. Files are rows of the tables in [`super::tree`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Place {
    /// The instance's own directory.
    Root,
    /// A file in it.
    File(u8),
    /// The directory of the named instances.
    Instances,
    /// `options`
    Options,
    /// A file in it.
    Flag(u8),
    /// `per_cpu`
    PerCpu,
    /// `per_cpu/cpuN`
    Cpu(u16),
    /// A file in it.
    CpuFile(u16, u8),
    /// `events`
    Events,
    /// A file in it.
    EventsFile(u8),
    /// A system, named by its first event's id.
    System(u16),
    /// A file in it.
    SystemFile(u16, u8),
    /// An event, by its id.
    Event(u16),
    /// A file in it.
    EventFile(u16, u8),
}

impl Node {
    /// The tree's root.
    pub const ROOT: Self = Self { instance: 0, place: Place::Root };

    /// Whether it is a named instance's directory.
    pub(super) fn is_instance(self) -> bool {
        self.instance != 0 && self.place == Place::Root
    }

    /// The file's number: 1 for the root, never 0; the top bit is never set.
    #[must_use]
    pub fn ino(self) -> u64 {
        use Place::*;
        let (table, file, key) = match self.place {
            Root => (0, 0, 1),
            File(file) => (1, file, 0),
            Instances => (2, 0, 0),
            Options => (3, 0, 0),
            Flag(flag) => (4, flag, 0),
            PerCpu => (5, 0, 0),
            Cpu(cpu) => (6, 0, cpu),
            CpuFile(cpu, file) => (7, file, cpu),
            Events => (8, 0, 0),
            EventsFile(file) => (9, file, 0),
            System(id) => (10, 0, id),
            SystemFile(id, file) => (11, file, id),
            Event(id) => (12, 0, id),
            EventFile(id, file) => (13, file, id),
        };
        u64::from(self.instance) << 28 | table << 24 | u64::from(file) << 16 | u64::from(key)
    }

    /// The node of this number; `None` where no file ever has it.
    #[must_use]
    pub fn from_ino(ino: u64) -> Option<Self> {
        use Place::*;
        let [key_low, key_high, file, ..] = ino.to_le_bytes();
        let key = u16::from_le_bytes([key_low, key_high]);
        let place = match ino >> 24 & 15 {
            0 => Root,
            1 => File(file),
            2 => Instances,
            3 => Options,
            4 => Flag(file),
            5 => PerCpu,
            6 => Cpu(key),
            7 => CpuFile(key, file),
            8 => Events,
            9 => EventsFile(file),
            10 => System(key),
            11 => SystemFile(key, file),
            12 => Event(key),
            13 => EventFile(key, file),
            _ => return None,
        };
        let node = Self { instance: u32::try_from(ino >> 28).ok()?, place };
        (node.ino() == ino).then_some(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_lead_back() {
        assert_eq!(Node::ROOT.ino(), 1);
        for instance in [0, 1, 77, u32::MAX] {
            for place in [
                Place::Root,
                Place::File(3),
                Place::Instances,
                Place::Options,
                Place::Flag(250),
                Place::PerCpu,
                Place::Cpu(511),
                Place::CpuFile(3, 4),
                Place::Events,
                Place::EventsFile(2),
                Place::System(5),
                Place::SystemFile(32, 1),
                Place::Event(u16::MAX),
                Place::EventFile(u16::MAX, 255),
            ] {
                let node = Node { instance, place };
                assert_eq!(Node::from_ino(node.ino()), Some(node));
                assert!(node.ino() != 0 && node.ino() >> 63 == 0);
            }
        }
        assert_eq!(Node::from_ino(0), None);
        assert_eq!(Node::from_ino(u64::MAX), None);
        // A directory has no file number.
        assert_eq!(Node::from_ino(5 << 24 | 1), None);
    }
}

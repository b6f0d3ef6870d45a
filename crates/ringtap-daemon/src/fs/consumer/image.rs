//! A sub-buffer as `read` and `splice` hand it out: a copy, in the format of the kernel's files.

#![forbid(unsafe_code)]

use ringtap_abi::records::{Walk, Words};
use ringtap_abi::subbuf::{HEADER_LEN, PageCommit};

const HEADER: usize = HEADER_LEN as usize;

/// What was handed out of a sub-buffer, copied from the ring's memory.
#[derive(Debug)]
pub(super) struct Copied {
    /// The whole sub-buffer.
    pub(super) bytes: Vec<u8>,
    /// Data bytes handed out.
    pub(super) read: u32,
    /// Events lost before it.
    pub(super) lost: u64,
}

struct DataWords<'a>(&'a [u8]);

impl Words for DataWords<'_> {
    fn word(&self, offset: u32) -> u32 {
        let at = HEADER + offset as usize;
        // The walk asks for nothing behind the data that it was promised.
        self.0.get(at..at + 4).map_or(0, |word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
    }
}

impl Copied {
    /// The records from data byte `from` on that find room in `room` bytes, header included, as a sub-buffer of its own;
    /// and where they end. `None` where not even the first one does.
    pub(super) fn image(&self, from: u32, room: usize) -> Option<(Vec<u8>, u32)> {
        let to = self.cut(from, room)?;
        let mut image = vec![0; self.bytes.len()];
        let data = &self.bytes[HEADER + from as usize..HEADER + to as usize];
        image[HEADER..HEADER + data.len()].copy_from_slice(data);
        image[..8].copy_from_slice(&self.time_before(from).to_le_bytes());
        let mut commit = PageCommit::new(to - from);
        if from == 0 && self.lost > 0 {
            // Their number stands behind the events, where there is room.
            let number = image.get_mut(HEADER + data.len()..HEADER + data.len() + 8);
            commit = commit.with_missed(number.is_some());
            if let Some(number) = number {
                number.copy_from_slice(&self.lost.to_le_bytes());
            }
        }
        image[8..16].copy_from_slice(&commit.pack().to_le_bytes());
        Some((image, to))
    }

    /// Where to end so that the records between find room.
    fn cut(&self, from: u32, room: usize) -> Option<u32> {
        let has_room = |to: u32| HEADER + (to - from) as usize <= room;
        if has_room(self.read) {
            return Some(self.read);
        }
        let mut walk = self.walk_to(from);
        let mut last = None;
        // What cannot be walked is passed on as a whole, to who has room for it.
        while let Ok(Some(_)) = walk.next(&DataWords(&self.bytes))
            && has_room(walk.offset())
        {
            last = Some(walk.offset());
        }
        last
    }

    /// The time of the last record before `offset`, which those behind it count from.
    fn time_before(&self, offset: u32) -> u64 {
        if offset == 0 { self.time_stamp() } else { self.walk_to(offset).time() }
    }

    /// A walk that has come to `offset`.
    fn walk_to(&self, offset: u32) -> Walk {
        let mut walk = Walk::new(self.time_stamp(), self.read);
        while walk.offset() < offset && matches!(walk.next(&DataWords(&self.bytes)), Ok(Some(_))) {}
        walk
    }

    fn time_stamp(&self) -> u64 {
        let mut word = [0; 8];
        word.copy_from_slice(&self.bytes[..8]);
        u64::from_le_bytes(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page of 4096 bytes with `count` records of 16 bytes, one tick apart, begun at 1000.
    fn copied(count: u32, lost: u64) -> Copied {
        let mut bytes = vec![0xee; 4096];
        bytes[..8].copy_from_slice(&1000u64.to_le_bytes());
        for at in 0..count as usize {
            let record = HEADER + at * 16;
            // type_len 3: 12 bytes of payload.
            bytes[record..record + 4].copy_from_slice(&(3u32 | 1 << 5).to_le_bytes());
            bytes[record + 4..record + 16].fill(at.to_le_bytes()[0]);
        }
        Copied { bytes, read: count * 16, lost }
    }

    fn commit(image: &[u8]) -> PageCommit {
        PageCommit::unpack(u64::from_le_bytes(image[8..16].try_into().unwrap()))
    }

    #[test]
    fn with_room_for_all_it_is_the_page_with_zeros_behind_the_events() {
        let (image, end) = copied(3, 0).image(0, 4096).unwrap();
        assert_eq!((image.len(), end, commit(&image).len()), (4096, 48, 48));
        assert!(!commit(&image).is_missed());
        assert!(image[HEADER + 48..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn parts_hold_whole_records_and_keep_their_times() {
        let copied = copied(5, 0);
        assert_eq!(copied.image(0, 16 + 15), None);
        let (image, middle) = copied.image(0, 16 + 40).unwrap();
        assert_eq!((commit(&image).len(), middle), (32, 32));
        let (image, end) = copied.image(middle, 4096).unwrap();
        assert_eq!((commit(&image).len(), end), (48, 80));
        assert_eq!(image[..8], 1002u64.to_le_bytes());
        assert_eq!(image[HEADER + 4], 2);
    }

    #[test]
    fn losses_stand_before_the_first_part_alone() {
        let copied = copied(5, 77);
        let (image, middle) = copied.image(0, 16 + 40).unwrap();
        assert!(commit(&image).is_missed_stored());
        assert_eq!(image[HEADER + 32..HEADER + 40], 77u64.to_le_bytes());
        let (image, _) = copied.image(middle, 4096).unwrap();
        assert!(!commit(&image).is_missed());
        let full = Copied { bytes: vec![0; 4096], read: 4080, lost: 77 };
        let (image, _) = full.image(0, 4096).unwrap();
        assert!(commit(&image).is_missed() && !commit(&image).is_missed_stored());
    }
}

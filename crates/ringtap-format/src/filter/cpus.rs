//! Lists of CPUs: `0-3,7,16-31:2/8`.

use crate::target::Target;

/// Most CPUs that a kernel can be built for.
const MAX_CPUS: usize = 8192;

/// A set of CPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CpuSet {
    /// Bit `n % 64` of word `n / 64` for CPU n; the last word is not 0.
    words: Vec<u64>,
}

impl CpuSet {
    /// The CPUs of a list; `None` where it is not one.
    pub(super) fn parse(list: &str) -> Option<Self> {
        let mut set = Self { words: Vec::new() };
        for region in list.split(',').map(str::trim).filter(|region| !region.is_empty()) {
            set.add_region(region)?;
        }
        Some(set)
    }

    /// `n`, `n-m`, or `n-m:used/group`: the first `used` of each `group`.
    fn add_region(&mut self, region: &str) -> Option<()> {
        let (range, pattern) = match region.split_once(':') {
            Some((range, pattern)) => (range, Some(pattern.split_once('/')?)),
            None => (region, None),
        };
        let (low, high) = match range.split_once('-') {
            Some((low, high)) => (number(low)?, number(high)?),
            None => (number(range)?, number(range)?),
        };
        let (used, group) = match pattern {
            Some((used, group)) => (number(used)?, number(group)?),
            None => (1, 1),
        };
        if low > high || used > group || group == 0 {
            return None;
        }
        for cpu in low..=high {
            if cpu.saturating_sub(low).checked_rem(group)? < used {
                self.insert(cpu);
            }
        }
        Some(())
    }

    fn insert(&mut self, cpu: usize) {
        let word = cpu / 64;
        if self.words.len() <= word {
            self.words.resize(word.saturating_add(1), 0);
        }
        if let Some(word) = self.words.get_mut(word) {
            *word |= 1u64.wrapping_shl(u32::try_from(cpu % 64).unwrap_or(0));
        }
    }

    /// The set as a mask: bit `n % 64` of word `n / 64` for CPU n.
    pub(super) fn words(&self) -> &[u64] {
        &self.words
    }

    pub(super) fn contains(&self, cpu: u64) -> bool {
        let word = usize::try_from(cpu / 64).ok().and_then(|word| self.words.get(word));
        word.is_some_and(|word| word.wrapping_shr(u32::try_from(cpu % 64).unwrap_or(0)) & 1 == 1)
    }

    /// Whether it is this CPU and no other.
    pub(super) fn is_only(&self, cpu: u64) -> bool {
        self.contains(cpu) && self.words.iter().map(|word| word.count_ones()).sum::<u32>() == 1
    }

    /// Whether `mask`, words of the target's `long` size, holds the same CPUs, and whether it shares one.
    pub(super) fn compare(&self, mask: &[u8], target: Target) -> (bool, bool) {
        let size = usize::from(target.long_size).max(1);
        let longs_a_word = (8usize).checked_div(size).unwrap_or(1).max(1);
        let theirs = |place: usize| {
            (0..longs_a_word).rev().fold(0u64, |sum, nth| {
                let offset = place.saturating_mul(longs_a_word).saturating_add(nth).saturating_mul(size);
                let long = target.uint(mask, offset, target.long_size).unwrap_or(0);
                if size >= 8 { long } else { sum << 32 | long }
            })
        };
        let words = self.words.len().max(mask.len().div_ceil(8));
        let pairs = (0..words).map(|place| (self.words.get(place).copied().unwrap_or(0), theirs(place)));
        pairs.fold((true, false), |(same, shared), (ours, theirs)| {
            (same && ours == theirs, shared || ours & theirs != 0)
        })
    }
}

fn number(text: &str) -> Option<usize> {
    text.parse().ok().filter(|number| *number < MAX_CPUS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        let cpus = |list: &str| {
            CpuSet::parse(list).map(|set| (0..200).filter(|cpu| set.contains(*cpu)).collect::<Vec<_>>())
        };
        assert_eq!(cpus("0-2,7"), Some(vec![0, 1, 2, 7]));
        assert_eq!(cpus("0-7:2/4"), Some(vec![0, 1, 4, 5]));
        assert_eq!(cpus("130"), Some(vec![130]));
        for wrong in ["a", "3-1", "0-", "0-3:2", "9999", "0-3:4/2", "0-3:0/0"] {
            assert_eq!(cpus(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn masks() {
        let set = CpuSet::parse("1,64").unwrap();
        let mut mask = [0; 16];
        mask[0] = 2;
        assert_eq!(set.compare(&mask, Target::LE64), (false, true));
        mask[8] = 1;
        assert_eq!(set.compare(&mask, Target::LE64), (true, true));
        assert_eq!(set.compare(&[1, 0, 0, 0, 0, 0, 0, 0], Target::LE64), (false, false));
        let narrow = Target { long_size: 4, ..Target::LE64 };
        assert_eq!(set.compare(&mask, narrow), (true, true));
    }
}

//! Hashing of small numbers that traces tell, such as thread ids: one multiplication for each.
//!
//! A trace may be made to hurt, so a number's hash depends on a key that is chosen at random.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Makes hashers of one key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keyed(u64);

impl Default for Keyed {
    fn default() -> Self {
        Self(RandomState::new().hash_one(0))
    }
}

impl BuildHasher for Keyed {
    type Hasher = Folded;

    fn build_hasher(&self) -> Folded {
        Folded(self.0)
    }
}

/// Multiplies, and folds the product's halves into one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Folded(u64);

/// Odd, with as many ones as zeros.
const MULTIPLE: u128 = 0x9e37_79b9_7f4a_7c15;

impl Hasher for Folded {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u64(byte.into()));
    }

    fn write_u16(&mut self, number: u16) {
        self.write_u64(number.into());
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(number.into());
    }

    fn write_u64(&mut self, number: u64) {
        let product = u128::from(self.0 ^ number).wrapping_mul(MULTIPLE);
        let folded = (product ^ product.wrapping_shr(u64::BITS)) & u128::from(u64::MAX);
        self.0 = u64::try_from(folded).unwrap_or(0);
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(u64::try_from(number).unwrap_or(u64::MAX));
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn neighbours_differ_at_both_ends_of_their_hashes() {
        let keyed = Keyed::default();
        // Tables take the lowest bits for the place, and the highest to tell places apart.
        let places: HashSet<u64> = (0..4096).map(|pid: i32| keyed.hash_one(pid) & 0xffff).collect();
        let tags: HashSet<u64> = (0..4096).map(|pid: i32| keyed.hash_one(pid) >> 57).collect();
        assert!(places.len() > 3000 && tags.len() == 128, "{} {}", places.len(), tags.len());
    }

    #[test]
    fn what_is_equal_has_one_hash() {
        let keyed = Keyed::default();
        assert_eq!(keyed.hash_one((1u32, 2u16)), keyed.hash_one((1u32, 2u16)));
        assert_ne!(keyed.hash_one((1u32, 2u16)), keyed.hash_one((2u32, 1u16)));
    }
}

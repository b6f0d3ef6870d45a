//! Sizes in KiB as the kernel takes and shows them.

use ringtap_abi::subbuf::HEADER_LEN;
use rustix::io::Errno;

/// Fewest sub-buffers of a ring.
pub(super) const FEWEST: u32 = 2;
/// Most sub-buffers of a ring.
const MOST: u64 = 65_535;

/// The ring's sub-buffers for a buffer of `kb` KiB of data.
pub(super) fn ring_subbufs(kb: u64, subbuf_size: u32) -> Result<u32, Errno> {
    if kb == 0 {
        return Err(Errno::INVAL);
    }
    let bytes = kb.checked_mul(1024).ok_or(Errno::NOMEM)?;
    match bytes.div_ceil(u64::from(subbuf_size - HEADER_LEN)).max(u64::from(FEWEST)) {
        subbufs if subbufs > MOST => Err(Errno::NOMEM),
        subbufs => u32::try_from(subbufs).map_err(|_| Errno::NOMEM),
    }
}

/// What is shown for so many sub-buffers.
pub(super) fn kb(ring_subbufs: u32, subbuf_size: u32) -> u64 {
    u64::from(ring_subbufs) * u64::from(subbuf_size - HEADER_LEN) / 1024
}

/// The sub-buffer's bytes for a wish in KiB: rounded up to a power of two of pages, 512 KiB at most.
pub(super) fn subbuf_size(kb: u64) -> Result<u32, Errno> {
    const PAGE_KB: u64 = 4;
    const MOST_KB: u64 = 512;
    if kb == 0 || kb > MOST_KB {
        return Err(Errno::INVAL);
    }
    u32::try_from(kb.div_ceil(PAGE_KB).next_power_of_two() * PAGE_KB * 1024).map_err(|_| Errno::INVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_on_a_kernel() {
        for (wished, shown) in
            [(1, 7), (4, 7), (16, 19), (40, 43), (64, 67), (100, 103), (513, 513), (1408, 1410)]
        {
            assert_eq!(kb(ring_subbufs(wished, 4096).unwrap(), 4096), shown, "{wished}");
        }
        assert_eq!(ring_subbufs(0, 4096), Err(Errno::INVAL));
        assert_eq!(ring_subbufs(99_999_999_999, 4096), Err(Errno::NOMEM));
        for (wished, bytes) in [(1, 4096), (3, 4096), (5, 8192), (512, 524_288)] {
            assert_eq!(subbuf_size(wished), Ok(bytes));
        }
        assert_eq!(subbuf_size(0), Err(Errno::INVAL));
        assert_eq!(subbuf_size(513), Err(Errno::INVAL));
    }
}

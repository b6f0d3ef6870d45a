//! Small numbers as Parquet stores levels and places in a dictionary: runs of one number, and eights that are packed bit by
//! bit (<https://parquet.apache.org/docs/file-format/data-pages/encodings/>, "RLE").

/// Most bits of a number, so that eight of them fit in a `u128`.
pub(super) const MAX_BITS: u32 = 16;
/// Numbers that are packed together; and how many of one are a run.
const GROUP: usize = 8;

/// The bits of numbers up to `last`.
pub(super) const fn bits_for(last: u32) -> u32 {
    let bits = u32::BITS - last.leading_zeros();
    if bits == 0 { 1 } else { bits }
}

/// A run: its length in groups of seven bits, the lowest bit of all being 0; then what it repeats.
pub(super) fn put_run(out: &mut Vec<u8>, len: u32, value: u32, bits: u32) {
    put_header(out, u64::from(len) << 1);
    out.extend(value.to_le_bytes().iter().take(bits.div_ceil(8) as usize));
}

/// Numbers of so many bits each, at most [`MAX_BITS`].
pub(super) fn put_all(out: &mut Vec<u8>, numbers: &[u32], bits: u32) {
    debug_assert!(bits <= MAX_BITS);
    // What is not written yet begins at `start`, and is no run up to `at`.
    let (mut start, mut at) = (0, 0);
    while at < numbers.len() {
        let rest = &numbers[at..];
        let len = rest.iter().take_while(|number| **number == rest[0]).count();
        if len < GROUP {
            at += GROUP.min(rest.len());
            continue;
        }
        put_packed(out, &numbers[start..at], bits);
        put_run(out, u32::try_from(len).unwrap_or(u32::MAX), rest[0], bits);
        at += len;
        start = at;
    }
    put_packed(out, &numbers[start..], bits);
}

/// Groups; the last one, and no other, may be filled up with zeros.
fn put_packed(out: &mut Vec<u8>, numbers: &[u32], bits: u32) {
    if numbers.is_empty() {
        return;
    }
    put_header(out, numbers.len().div_ceil(GROUP) as u64 * 2 + 1);
    let len = bits as usize;
    for group in numbers.chunks(GROUP) {
        if bits <= u64::BITS / 8 {
            let packed = group.iter().rev().fold(0, |packed, number| packed << bits | u64::from(*number));
            out.extend_from_slice(&packed.to_le_bytes()[..len]);
        } else {
            let packed = group.iter().rev().fold(0, |packed, number| packed << bits | u128::from(*number));
            out.extend_from_slice(&packed.to_le_bytes()[..len]);
        }
    }
}

fn put_header(out: &mut Vec<u8>, mut header: u64) {
    while header > 0x7f {
        out.push(0x80 | u8::try_from(header & 0x7f).unwrap_or(0));
        header >>= 7;
    }
    out.push(u8::try_from(header).unwrap_or(0));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a reader finds.
    fn read(mut bytes: &[u8], bits: u32, len: usize) -> Vec<u32> {
        let mut numbers = Vec::new();
        while numbers.len() < len {
            let mut header = 0u64;
            for place in 0.. {
                header |= u64::from(bytes[place] & 0x7f) << (7 * place);
                if bytes[place] < 0x80 {
                    bytes = &bytes[place + 1..];
                    break;
                }
            }
            let count = usize::try_from(header >> 1).unwrap();
            let used = if header & 1 == 0 { bits.div_ceil(8) as usize } else { count * bits as usize };
            let bit = |at: usize| u32::from(bytes[at / 8] >> (at % 8) & 1);
            let number = |place: usize| {
                let first = place * bits as usize;
                (0..bits as usize).fold(0, |number, at| number | bit(first + at) << at)
            };
            match header & 1 {
                0 => numbers.extend(std::iter::repeat_n(number(0), count)),
                _ => numbers.extend((0..count * GROUP).map(number)),
            }
            bytes = &bytes[used..];
        }
        assert_eq!(bytes, b"", "nothing is behind the last number");
        numbers.truncate(len);
        numbers
    }

    #[test]
    fn a_reader_finds_the_numbers() {
        let mut random = 88_172_645_463_325_252_u64;
        let mut next = |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        for bits in 1..=MAX_BITS {
            for len in [0, 1, 7, 8, 9, 15, 100, 1000] {
                let mut numbers = Vec::new();
                while numbers.len() < len {
                    let number = u32::try_from(next(1 << bits)).unwrap();
                    let run = if next(3) == 0 { next(40) + 1 } else { 1 };
                    numbers.extend((0..run).map(|_| number));
                }
                numbers.truncate(len);
                let mut bytes = Vec::new();
                put_all(&mut bytes, &numbers, bits);
                assert_eq!(read(&bytes, bits, len), numbers, "{len} numbers of {bits} bits");
            }
        }
    }

    #[test]
    fn a_runs_length_is_cut_into_sevens() {
        for (rows, bytes) in
            [(1, &[2, 9][..]), (63, &[126, 9]), (64, &[128, 1, 9]), (100_000, &[192, 154, 12, 9])]
        {
            let mut out = Vec::new();
            put_run(&mut out, rows, 9, 4);
            assert_eq!(out, bytes, "{rows}");
        }
    }

    #[test]
    fn a_number_has_as_many_bits_as_the_last_needs() {
        assert_eq!([0, 1, 2, 255, 256].map(bits_for), [1, 1, 2, 8, 9]);
    }
}

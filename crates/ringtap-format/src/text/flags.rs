//! The flag columns: what the CPU was doing when it wrote a record.

use super::Common;
use crate::out;

const IRQS_OFF: u8 = 0x01;
const NEED_RESCHED_LAZY: u8 = 0x02;
const NEED_RESCHED: u8 = 0x04;
const HARDIRQ: u8 = 0x08;
const SOFTIRQ: u8 = 0x10;
const PREEMPT_RESCHED: u8 = 0x20;
const NMI: u8 = 0x40;
const BH_OFF: u8 = 0x80;

/// The five columns of the kernel's `trace` file.
pub(super) fn kernel(common: Common, out: &mut Vec<u8>) {
    let has = |bit| common.flags & bit != 0;
    let irqs = match (has(IRQS_OFF), has(BH_OFF)) {
        (true, true) => b'D',
        (true, false) => b'd',
        (false, true) => b'b',
        (false, false) => b'.',
    };
    let resched = match (has(NEED_RESCHED), has(PREEMPT_RESCHED), has(NEED_RESCHED_LAZY)) {
        (true, true, true) => b'B',
        (true, true, false) => b'N',
        (true, false, true) => b'b',
        (true, false, false) => b'n',
        (false, true, true) => b'L',
        (false, true, false) => b'p',
        (false, false, true) => b'l',
        (false, false, false) => b'.',
    };
    out.extend_from_slice(&[irqs, resched, context(common)]);
    depth(common.preempt_count & 15, out);
    depth(common.preempt_count >> 4, out);
}

/// Which interrupt the CPU was in.
fn context(common: Common) -> u8 {
    let has = |bit| common.flags & bit != 0;
    match (has(NMI), has(HARDIRQ), has(SOFTIRQ)) {
        (true, true, _) => b'Z',
        (true, false, _) => b'z',
        (_, true, true) => b'H',
        (_, true, false) => b'h',
        (_, false, true) => b's',
        _ => b'.',
    }
}

fn depth(depth: u8, out: &mut Vec<u8>) {
    if depth == 0 { out.push(b'.') } else { out::hex(out, u64::from(depth)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_the_kernel() {
        let shown = |flags, preempt_count| {
            let mut out = Vec::new();
            kernel(Common { flags, preempt_count, ..Common::default() }, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(shown(0, 0), ".....");
        assert_eq!(shown(0, 1), "...1.");
        assert_eq!(shown(0x81 | 0x24, 0x2f), "DN.f2");
        assert_eq!(shown(0x08 | 0x10 | 0x02, 0), ".lH..");
        assert_eq!(shown(0x48 | 0x01, 0), "d.Z..");
    }
}

//! The sections in x86-64 assembly.
//!
//! Labels: `2` the section's descriptor, `3` its start, `4` the first instruction behind its commit, `5` its
//! abort handler, which the kernel wants out of line behind a signature. Everything from `3` to `4` may be
//! cut off before any instruction; the last one before `4` is the only store that anybody acts on.
//!
//! x86 keeps stores in order, so a plain store is a release store, and the stores before the commit are
//! visible before it.

use super::area::{Area, SIGNATURE};
use super::{Append, Expected, Outcome, Sections, Turn};
use crate::ring::Ring;
use core::arch::asm;
use core::mem::offset_of;
use ringtap_abi::meta::{Desc, MetaPage, WriterWords};
use ringtap_abi::subbuf::SubbufHeader;
use ringtap_abi::words::Commit;

/// Sections of the calling thread.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rseq(pub(crate) &'static Area);

const TAIL: usize = offset_of!(MetaPage, writer) + offset_of!(WriterWords, tail);
const LOCK: usize = offset_of!(MetaPage, writer) + offset_of!(WriterWords, lock);

/// The descriptor and the abort handler that every section begins with, and arming it.
macro_rules! section {
    ($($line:literal),+ $(,)?; $($operands:tt)+) => {
        asm!(
            // The descriptor: version 0, no flags, start, length, abort handler.
            ".pushsection __rseq_cs, \"aw\"",
            ".balign 32",
            "2:",
            ".long 0, 0",
            ".quad 3f, 4f - 3f, 5f",
            ".popsection",
            // The abort handler: a signature, dressed up as an undefined instruction, stands before it.
            ".pushsection __rseq_failure, \"ax\"",
            ".byte 0x0f, 0xb9, 0x3d",
            ".long {signature}",
            "5:",
            "jmp {aborted}",
            ".popsection",
            // rax = descriptor; from this store on the kernel knows of the section.
            "lea rax, [rip + 2b]",
            "mov qword ptr [{rseq} + {RSEQ_CS}], rax",
            "3:",
            $($line,)+
            "4:",
            out("rax") _,
            signature = const SIGNATURE,
            RSEQ_CS = const offset_of!(Area, rseq_cs),
            CPU_ID = const offset_of!(Area, cpu_id),
            LOCK = const LOCK,
            TAIL = const TAIL,
            W = const offset_of!(Desc, w),
            $($operands)+
        )
    };
}

/// The hot path: a record of one header word and a payload of `body.len()` bytes, a multiple of 4 and not 0,
/// stamped with the processor's counter. [`Outcome::Changed`] also where the delta to `last` does not fit.
///
/// The counter is read inside the section, behind the comparisons: on some machines it waits for the loads
/// before it and holds up what comes behind it, so as little as possible does. It also means that a
/// writer that was preempted reads it again.
///
/// # Safety
/// 1. `expected.tail.page` is a sub-buffer of the ring, and `desc` is its desc.
/// 2. `at + 4 + body.len()` lies within it.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "each is a register")]
pub(crate) unsafe fn append_small(
    rseq: &Area,
    ring: &Ring<'_>,
    expected: &Expected,
    desc: &Desc,
    at: u32,
    type_len: u32,
    body: &[u8],
    last: u64,
    commit: Commit,
) -> Outcome {
    debug_assert!(!body.is_empty() && body.len().is_multiple_of(4));
    let record = ring.data().at(expected.tail.page(), at);
    // SAFETY: by 1 and 2, all addresses lie in the ring's mapping, which the borrow keeps alive, and the
    // payload is only read. The copy ends at the payload's end because its length is a multiple of 4. The
    // thread's own area is registered: its CPU compared equal to a CPU number.
    unsafe {
        section!(
            // The four comparisons. From here on cpu, tail and w are free.
            "cmp dword ptr [{rseq} + {CPU_ID}], {t:e}",
            "jne {changed}",
            "cmp qword ptr [{meta} + {LOCK}], 0",
            "jne {changed}",
            "cmp qword ptr [{meta} + {TAIL}], {tail}",
            "jne {changed}",
            "cmp qword ptr [{desc} + {W}], {w}",
            "jne {changed}",
            // w = the last event's time; t = type_len.
            "movq {w}, {last}",
            "movd {t:e}, {type_len}",
            // rdx = now, rax = the delta; one that is negative is huge.
            "rdtsc",
            "shl rdx, 32",
            "or rdx, rax",
            "mov rax, rdx",
            "sub rax, {w}",
            "cmp rax, {DELTA_LIMIT}",
            "jae {changed}",
            // The event header. left = -(payload bytes to copy).
            "shl eax, 5",
            "or eax, {t:e}",
            "mov dword ptr [{to} + {left} - 4], eax",
            // One odd word, then two words at a time.
            "test {left:e}, 4",
            "jz 6f",
            "mov {t:e}, dword ptr [{from} + {left}]",
            "mov dword ptr [{to} + {left}], {t:e}",
            "add {left}, 4",
            "jz 7f",
            "6:",
            "mov {t}, qword ptr [{from} + {left}]",
            "mov qword ptr [{to} + {left}], {t}",
            "add {left}, 8",
            "jnz 6b",
            "7:",
            // The event's time, then the commit.
            "mov qword ptr [{stamp_at}], rdx",
            "movq qword ptr [{desc} + {W}], {commit}";
            rseq = in(reg) rseq,
            t = inout(reg) u64::from(expected.cpu) => _,
            meta = in(reg) ring.meta(),
            tail = in(reg) expected.tail.pack(),
            desc = in(reg) desc,
            w = inout(reg) expected.w.pack() => _,
            to = in(reg) record.wrapping_add(4 + body.len()),
            from = in(reg) body.as_ptr_range().end,
            left = inout(reg) -body.len().cast_signed() => _,
            last = in(xmm_reg) last,
            type_len = in(xmm_reg) type_len,
            stamp_at = in(reg) &raw const desc.stamp[commit.parity()],
            commit = in(xmm_reg) commit.pack(),
            DELTA_LIMIT = const ringtap_abi::event::DELTA_LIMIT,
            out("rdx") _,
            changed = label { return Outcome::Changed },
            aborted = label { return Outcome::Aborted },
            options(nostack)
        );
    }
    Outcome::Committed
}

/// What [`Sections::append`]'s section loads as it goes: it has more operands than there are registers.
#[repr(C)]
struct AppendArgs {
    stamp: u64,
    stamp_at: *const u8,
    commit: u64,
    head_end: *const u32,
    head_left: isize,
    body_end: *const u8,
    body_left: isize,
    /// Where the head ends and the body begins in the sub-buffer.
    body_at: *mut u8,
    foot: u32,
}

impl Sections for Rseq {
    #[inline(never)]
    fn append(&self, ring: &Ring<'_>, append: &Append<'_>) -> Outcome {
        let Append { expected, at, parts, stamp, commit } = *append;
        let (page, head_len, body_len) = (expected.tail.page(), size_of_val(parts.head), parts.body.len());
        ring.assert_record_fits(page, at, head_len + body_len + 4);
        assert!(!parts.head.is_empty() && body_len.is_multiple_of(4), "parts are made of words");
        let desc = ring.desc(page);
        let args = AppendArgs {
            stamp,
            stamp_at: (&raw const desc.stamp[commit.parity()]).cast(),
            commit: commit.pack(),
            head_end: parts.head.as_ptr_range().end,
            head_left: -head_len.cast_signed(),
            body_end: parts.body.as_ptr_range().end,
            body_left: -body_len.cast_signed(),
            body_at: ring.data().at(page, at).wrapping_add(head_len),
            foot: parts.foot,
        };
        // SAFETY: the assertions above keep every store inside the sub-buffer; the parts and `args` outlive
        // the section and are only read.
        unsafe {
            section!(
                "cmp dword ptr [{rseq} + {CPU_ID}], {cpu:e}",
                "jne {changed}",
                "cmp qword ptr [{meta} + {LOCK}], 0",
                "jne {changed}",
                "cmp qword ptr [{meta} + {TAIL}], {tail}",
                "jne {changed}",
                "cmp qword ptr [{desc} + {W}], {w}",
                "jne {changed}",
                // to = body_at. The head's words go before it.
                "mov {to}, qword ptr [{args} + {BODY_AT}]",
                "mov {from}, qword ptr [{args} + {HEAD_END}]",
                "mov {left}, qword ptr [{args} + {HEAD_LEFT}]",
                "6:",
                "mov eax, dword ptr [{from} + {left}]",
                "mov dword ptr [{to} + {left}], eax",
                "add {left}, 4",
                "jnz 6b",
                // to = where the body ends; the foot goes there.
                "mov {left}, qword ptr [{args} + {BODY_LEFT}]",
                "sub {to}, {left}",
                "mov eax, dword ptr [{args} + {FOOT}]",
                "mov dword ptr [{to}], eax",
                // The body's words, if any.
                "mov {from}, qword ptr [{args} + {BODY_END}]",
                "test {left}, {left}",
                "jz 8f",
                "7:",
                "mov eax, dword ptr [{from} + {left}]",
                "mov dword ptr [{to} + {left}], eax",
                "add {left}, 4",
                "jnz 7b",
                "8:",
                // The event's time, then the commit.
                "mov rax, qword ptr [{args} + {STAMP}]",
                "mov {to}, qword ptr [{args} + {STAMP_AT}]",
                "mov qword ptr [{to}], rax",
                "mov rax, qword ptr [{args} + {COMMIT}]",
                "mov qword ptr [{desc} + {W}], rax";
                rseq = in(reg) self.0,
                cpu = in(reg) expected.cpu,
                meta = in(reg) ring.meta(),
                tail = in(reg) expected.tail.pack(),
                desc = in(reg) desc,
                w = in(reg) expected.w.pack(),
                args = in(reg) &raw const args,
                to = out(reg) _,
                from = out(reg) _,
                left = out(reg) _,
                STAMP = const offset_of!(AppendArgs, stamp),
                STAMP_AT = const offset_of!(AppendArgs, stamp_at),
                COMMIT = const offset_of!(AppendArgs, commit),
                HEAD_END = const offset_of!(AppendArgs, head_end),
                HEAD_LEFT = const offset_of!(AppendArgs, head_left),
                BODY_END = const offset_of!(AppendArgs, body_end),
                BODY_LEFT = const offset_of!(AppendArgs, body_left),
                BODY_AT = const offset_of!(AppendArgs, body_at),
                FOOT = const offset_of!(AppendArgs, foot),
                changed = label { return Outcome::Changed },
                aborted = label { return Outcome::Aborted },
                options(nostack)
            );
        }
        Outcome::Committed
    }

    #[inline(never)]
    fn turn(&self, ring: &Ring<'_>, turn: &Turn) -> Outcome {
        let Turn { expected, page, first, stamp, commit } = *turn;
        let desc = ring.desc(expected.tail.page());
        let next = ring.desc(page);
        let header = ring.data().header(page);
        // SAFETY: `desc`, `next` and `header` are references into the mapping; the stores go to atomics there.
        unsafe {
            section!(
                "cmp dword ptr [{rseq} + {CPU_ID}], {cpu:e}",
                "jne {changed}",
                "cmp qword ptr [{meta} + {LOCK}], 0",
                "jne {changed}",
                "cmp qword ptr [{meta} + {TAIL}], {tail}",
                "jne {changed}",
                "cmp qword ptr [{desc} + {W}], {w}",
                "jne {changed}",
                // The next page is empty, and says from which event on it counts.
                "mov qword ptr [{header} + {HEADER_COMMIT}], 0",
                "mov qword ptr [{next} + {FIRST}], {first}",
                "mov qword ptr [{next} + {STAMP}], {stamp}",
                "mov eax, {BLANK}",
                "mov qword ptr [{next} + {W}], rax",
                // The commit: the tail moves.
                "mov qword ptr [{meta} + {TAIL}], {commit}";
                rseq = in(reg) self.0,
                cpu = in(reg) expected.cpu,
                meta = in(reg) ring.meta(),
                tail = in(reg) expected.tail.pack(),
                desc = in(reg) desc,
                w = in(reg) expected.w.pack(),
                next = in(reg) next,
                header = in(reg) header,
                first = in(reg) first,
                stamp = in(reg) stamp,
                commit = in(reg) commit.pack(),
                HEADER_COMMIT = const offset_of!(SubbufHeader, commit),
                FIRST = const offset_of!(Desc, first),
                STAMP = const offset_of!(Desc, stamp),
                BLANK = const Commit::BLANK.pack(),
                changed = label { return Outcome::Changed },
                aborted = label { return Outcome::Aborted },
                options(nostack)
            );
        }
        Outcome::Committed
    }
}

//! The sections in x86-64 assembly.
//!
//! Labels: `2` the section's descriptor, `3` its start, `4` the first instruction behind its commit, `5` its
//! abort handler, which the kernel wants out of line behind a signature. Everything from `3` to `4` may be
//! cut off before any instruction; the last one before `4` is the only store that anybody acts on.
//!
//! x86 keeps stores in order, so a plain store is a release store, and the stores before the commit are
//! visible before it.

use super::area::{Area, SIGNATURE};
use super::{Append, IN_REGISTERS, Outcome, Plain, Sections, Turn};
use crate::ring::Ring;
use crate::ring::write::is_plain;
use crate::spot::Spot;
use crate::writer::Writer;
use core::arch::asm;
use core::mem::{MaybeUninit, offset_of};
use ringtap_abi::event::DELTA_LIMIT;
use ringtap_abi::meta::{Desc, MetaPage, Switches, WriterWords};
use ringtap_abi::subbuf::SubbufHeader;
use ringtap_abi::words::Commit;

/// Sections of the calling thread.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rseq(pub(crate) &'static Area);

const TAIL: usize = offset_of!(MetaPage, writer) + offset_of!(WriterWords, tail);
const LOCK: usize = offset_of!(MetaPage, writer) + offset_of!(WriterWords, lock);

/// A section: what is to be done before it, its instructions, what follows behind its commit, the operands. The
/// descriptor and the abort handler that every section begins with, and arming it, are the macro's.
macro_rules! section {
    ($($before:literal),*; $($line:literal),+; $($after:literal),*; $($operands:tt)+) => {
        asm!(
            $($before,)*
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
            $($after,)*
            out("rax") _,
            signature = const SIGNATURE,
            RSEQ_CS = const offset_of!(Area, rseq_cs),
            W = const offset_of!(Desc, w),
            $($operands)+
        )
    };
}

/// How far ahead memory is fetched, in bytes: two cache lines and more are written while the next one comes.
const AHEAD: usize = 256;

/// The hot path's section, for payloads of `N` bytes of which `GIVEN` are given: in registers up to [`IN_REGISTERS`], or as an
/// address. What else is done behind the stamp, before the commit, and with which operands, comes first.
macro_rules! append_section {
    (
        $spot:ident, $writer:ident, [$p0:ident, $p1:ident, $p2:ident], $n:expr, $given:expr;
        $($line:literal),*; $($operands:tt)*
    ) => { {
        debug_assert!(is_plain($n), "the caller asked");
        // SAFETY: by 1, it is the calling thread's, which nobody else writes.
        let area = unsafe { (*$spot).area };
        // SAFETY: the spot and the area that it names are the thread's own, or the area is a dummy on no CPU. Once the
        // writer's number compared equal, the spot's addresses lie in a mapping that it keeps, and `desc` and
        // `data` are of one sub-buffer. The record ends within it: that is compared.
        unsafe {
            section!(
            ;
                // The spot is about this writer (at), and this thread still where it was.
                "mov rax, qword ptr [{rseq}]",
                "xor rax, qword ptr [{spot} + {KEY}]",
                "cmp rax, qword ptr [{at} + {NUMBER}]",
                "jne {changed}",
                // rseq = the desc from here on, w = the commit word, at = its parity.
                "mov {rseq}, qword ptr [{spot} + {DESC}]",
                "mov {w}, qword ptr [{rseq} + {W}]",
                "mov {at}, {w}",
                "shr {at}, 63",
                // The record fits; a closed page has no room. to = where it begins, w = the new commit word.
                "mov {to:e}, {w:e}",
                "lea rax, [{to} + {TOTAL}]",
                "cmp rax, qword ptr [{spot} + {CAPACITY}]",
                "ja {changed}",
                "add {to}, qword ptr [{spot} + {DATA}]",
                // A buffer is larger than the fastest cache: where the events behind this one go is fetched meanwhile. Beyond
                // the buffer's end this does nothing.
                "prefetchw byte ptr [{to} + {AHEAD}]",
                "add {w}, qword ptr [rip + 6f]",
                // rdx = now, rax = the delta; one that is negative is huge.
                "rdtsc",
                "shl rdx, 32",
                "or rdx, rax",
                "mov rax, rdx",
                "sub rax, qword ptr [{rseq} + 8 * {at} + {STAMP}]",
                "cmp rax, {DELTA_LIMIT}",
                "jae {changed}",
                // The event header, then the payload, as it was stored: two words at a time, then an odd one.
                "shl eax, 5",
                "or eax, {TYPE_LEN}",
                "mov dword ptr [{to}], eax",
                ".if {GIVEN} > {IN_REGISTERS}",
                ".set ringtap_at, 0",
                ".rept {GIVEN} / 8",
                "mov rax, qword ptr [{p0} + ringtap_at]",
                "mov qword ptr [{to} + ringtap_at + 4], rax",
                ".set ringtap_at, ringtap_at + 8",
                ".endr",
                ".if {GIVEN} % 8",
                "mov eax, dword ptr [{p0} + ringtap_at]",
                "mov dword ptr [{to} + ringtap_at + 4], eax",
                ".endif",
                ".else",
                ".if {GIVEN} < 8",
                "mov dword ptr [{to} + 4], {p0:e}",
                ".else",
                "mov qword ptr [{to} + 4], {p0}",
                ".endif",
                ".if {GIVEN} >= 16",
                "mov qword ptr [{to} + 12], {p1}",
                ".elseif {GIVEN} > 8",
                "mov dword ptr [{to} + 12], {p1:e}",
                ".endif",
                ".if {GIVEN} >= 24",
                "mov qword ptr [{to} + 20], {p2}",
                ".elseif {GIVEN} > 16",
                "mov dword ptr [{to} + 20], {p2:e}",
                ".endif",
                ".endif",
                // The other parity's stamp.
                "xor {at:e}, 1",
                "mov qword ptr [{rseq} + 8 * {at} + {STAMP}], rdx",
                $($line,)*
                // to = the meta-page from here on. The commit.
                "mov {to}, qword ptr [{spot} + {META}]",
                "mov qword ptr [{rseq} + {W}], {w}";
                // E7: the sleeper's membarrier stands between the commit and this look.
                "cmp dword ptr [{to} + {WAKE_ANY}], 0",
                "jne {sleepers}",
                // What the event adds to the commit word: in memory, because registers are few.
                ".pushsection .rodata.ringtap, \"a\"",
                ".balign 8",
                "6:",
                ".quad {STEP}",
                ".popsection";
                spot = in(reg) $spot,
                rseq = inout(reg) area => _,
                at = inout(reg) $writer => _,
                p0 = in(reg) $p0,
                p1 = in(reg) $p1,
                p2 = in(reg) $p2,
                to = out(reg) _,
                w = out(reg) _,
                out("rdx") _,
                $($operands)*
                AHEAD = const AHEAD,
                GIVEN = const $given,
                IN_REGISTERS = const IN_REGISTERS,
                TOTAL = const $n + 4,
                TYPE_LEN = const $n / 4,
                STEP = const Commit::step(record_len($n)),
                DELTA_LIMIT = const DELTA_LIMIT,
                STAMP = const offset_of!(Desc, stamp),
                NUMBER = const Writer::NUMBER_OFFSET,
                KEY = const offset_of!(Spot, key),
                META = const offset_of!(Spot, meta),
                DESC = const offset_of!(Spot, desc),
                CAPACITY = const offset_of!(Spot, capacity),
                DATA = const offset_of!(Spot, data),
                WAKE_ANY = const offset_of!(MetaPage, switches) + offset_of!(Switches, wake_any),
                changed = label { return Plain::Not },
                aborted = label { return Plain::Not },
                sleepers = label { return Plain::CommittedForSleepers },
                options(nostack)
            );
        }
        Plain::Committed
    } };
}

/// The hot path: appends a payload of `N` bytes where the thread's spot says, stamped with the processor's
/// counter. It commits, or nothing has happened: the slow path then finds out why not.
///
/// All is inside the section, because a signal handler may change the spot, and the counter is read behind the
/// comparisons: on some machines it waits for the loads before it and holds up what comes behind it, so that
/// each chain of loads and each instruction would show. It also means that a writer that was preempted
/// reads the counter again.
///
/// It compares neither the tail nor the lock: an open page is the tail, and nobody holds the lock and is at
/// work on it. See [`Commit`] and `docs/adr/0008-closed-pages.md`.
///
/// # Safety
/// 1. `spot` is the calling thread's.
/// 2. The payload is that of [`in_registers`](super::in_registers), and its bytes live.
#[inline(always)]
pub(crate) unsafe fn append_plain<const N: usize>(
    spot: *const Spot,
    writer: &Writer,
    [p0, p1, p2]: [MaybeUninit<u64>; 3],
) -> Plain {
    append_section!(spot, writer, [p0, p1, p2], N, N;;)
}

/// As [`append_plain`], of a payload whose last four bytes become how long something took. Where that is less than nothing or
/// more than they hold, nothing has happened.
///
/// # Safety
/// 1. `spot` is the calling thread's.
/// 2. The payload is that of [`in_registers_but_last`](super::in_registers_but_last), and its bytes live.
#[inline(always)]
pub(crate) unsafe fn append_since<const N: usize>(
    spot: *const Spot,
    writer: &Writer,
    [p0, p1, p2]: [MaybeUninit<u64>; 3],
    since: u64,
) -> Plain {
    append_section!(
        spot, writer, [p0, p1, p2], N, N - 4;
        // rax = the ticks since then; then rdx, rax = their nanoseconds, times 2^32.
        "mov rax, rdx",
        "sub rax, {since}",
        "jb {changed}",
        "mul qword ptr [{spot} + {MULT}]",
        "shr rax, 32",
        "test rdx, rdx",
        "jnz {changed}",
        "mov dword ptr [{to} + {TOTAL} - 4], eax";
        since = in(reg) since,
        MULT = const offset_of!(Spot, mult),
    )
}

/// Bytes of the record of a plain payload.
const fn record_len(payload_len: usize) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "a plain payload has at most 112 bytes")]
    let len = payload_len as u32;
    4 + len
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
            section!(;
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
                "mov qword ptr [{desc} + {W}], rax";;
                rseq = in(reg) self.0,
                CPU_ID = const offset_of!(Area, cpu_id),
                LOCK = const LOCK,
                TAIL = const TAIL,
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
            section!(;
                "cmp dword ptr [{rseq} + {CPU_ID}], {cpu:e}",
                "jne {changed}",
                "cmp qword ptr [{meta} + {LOCK}], 0",
                "jne {changed}",
                "cmp qword ptr [{meta} + {TAIL}], {tail}",
                "jne {changed}",
                "cmp qword ptr [{desc} + {W}], {w}",
                "jne {changed}",
                // The old page is closed: the hot path looks at nothing else.
                "bts {w}, 31",
                "mov qword ptr [{desc} + {W}], {w}",
                // The next page is empty, and says from which event on it counts.
                "mov qword ptr [{header} + {HEADER_COMMIT}], 0",
                "mov qword ptr [{next} + {FIRST}], {first}",
                "mov qword ptr [{next} + {STAMP}], {stamp}",
                "mov eax, {BLANK}",
                "mov qword ptr [{next} + {W}], rax",
                // The commit: the tail moves.
                "mov qword ptr [{meta} + {TAIL}], {commit}";;
                rseq = in(reg) self.0,
                CPU_ID = const offset_of!(Area, cpu_id),
                LOCK = const LOCK,
                TAIL = const TAIL,
                cpu = in(reg) expected.cpu,
                meta = in(reg) ring.meta(),
                tail = in(reg) expected.tail.pack(),
                desc = in(reg) desc,
                w = inout(reg) expected.w.pack() => _,
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

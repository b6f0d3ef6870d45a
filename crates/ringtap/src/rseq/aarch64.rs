//! The sections in aarch64 assembly.
//!
//! Labels as on x86-64: `2` the section's descriptor, `3` its start, `4` the first instruction behind its commit,
//! `5` its abort handler, which the kernel wants out of line behind a signature. Everything from `3` to `4` may
//! be cut off before any instruction; the last one before `4` is the only store that anybody acts on.
//!
//! # Ordering
//!
//! aarch64 promises less than x86-64. What each section needs, by the edges of `docs/memory-ordering.md`:
//!
//! * The commit is a store with Release (`stlr`): it becomes visible behind the record, its time and all that this
//!   CPU committed before (E1, E2). `stlr` takes no offset, so its address is in a register of its own.
//! * The stamp is stored with Release too. Whoever looks for the newest event's time reads `w`, the stamp of its
//!   parity, and `w` again. The event after the next stores the same stamp; it must not be visible while the
//!   commit between the two is not.
//! * The loads are plain. All that they compare was stored by this thread, or on this CPU by another one whose stores
//!   a switch of threads leaves in order, or (the lock) by an owner pinned to it, or one that has none to protect.
//!   What follows them is ordered by dependencies, which the processor keeps and no compiler sees: in the hot path the
//!   address of the stamp loaded and of every word stored is computed from `w`; in the other two every store is
//!   behind a branch on all four words.
//! * E3 needs no barrier here. The claim is followed by a `dmb ish` on the CPU that claimed, and again on the one that
//!   found the slot claimed and turns; sections write the page on that CPU alone, so in its order behind the
//!   barrier, whichever thread they belong to. aarch64 is multi-copy atomic: who sees one of these
//!   stores, and has its own `fence(Acquire)`, sees the claim, whoever made it.
//! * The counter is read without a barrier (`isb`), as `clock::cycles` does. The processor may read it early; a
//!   time before the last event's counts as a large delta, which the slow path sets right.
//!
//! # What was run
//!
//! Nothing of this ran on an aarch64 machine. The unit tests hand each section, as written here, to rustc for
//! aarch64, run what it makes in qemu's user-mode emulator, and compare all memory with what [`super::portable`]
//! does to it. That emulator has no restartable sequences: the tests jump to the abort handler in the kernel's stead, before
//! each instruction. The orderings above are shown by argument alone.

use super::area::Area;
use super::{Append, IN_REGISTERS, Outcome, Plain, Sections, Turn};
use crate::ring::Ring;
use crate::ring::write::is_plain;
use crate::spot::Spot;
use crate::writer::Writer;
#[cfg(target_arch = "aarch64")]
use core::arch::asm;
use core::mem::{MaybeUninit, offset_of};
#[cfg(not(target_arch = "aarch64"))]
use emulated::asm;
use ringtap_abi::event::DELTA_LIMIT;
use ringtap_abi::meta::{Desc, MetaPage, Switches, WriterWords};
use ringtap_abi::subbuf::SubbufHeader;
use ringtap_abi::words::Commit;

#[cfg(not(target_arch = "aarch64"))]
mod emulated;

/// The four bytes before an abort handler: `brk #0x45e0`, which nobody executes. As the area was registered with,
/// said again because the tests run where the area's is another.
const SIGNATURE: u32 = 0xd428_bc00;

/// Sections of the calling thread.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rseq(pub(crate) &'static Area);

const TAIL: usize = offset_of!(MetaPage, writer) + offset_of!(WriterWords, tail);
const LOCK: usize = offset_of!(MetaPage, writer) + offset_of!(WriterWords, lock);
const DELTA_BITS: u32 = DELTA_LIMIT.trailing_zeros();

const _: () = {
    #[cfg(target_arch = "aarch64")]
    assert!(SIGNATURE == super::area::SIGNATURE);
    // `stlr` has no offset.
    assert!(offset_of!(Desc, w) == 0);
    // A shift asks whether a delta is too large.
    assert!(DELTA_LIMIT.is_power_of_two());
};

/// A section: its instructions, what follows behind its commit, the operands. The descriptor and the abort
/// handler that every section begins with, and arming it, are the macro's.
macro_rules! section {
    ($($line:literal),+; $($after:literal),*; $($operands:tt)+) => {
        asm!(
            // The descriptor: version 0, no flags, start, length, abort handler.
            ".pushsection __rseq_cs, \"aw\"",
            ".balign 32",
            "2:",
            ".long 0, 0",
            ".quad 3f, 4f - 3f, 5f",
            ".popsection",
            // The abort handler: a signature, which is an instruction that traps, stands before it.
            ".pushsection __rseq_failure, \"ax\"",
            ".balign 4",
            ".inst {SIGNATURE}",
            "5:",
            "b {aborted}",
            ".popsection",
            // tmp = descriptor; from this store on the kernel knows of the section.
            "adrp {tmp}, 2b",
            "add {tmp}, {tmp}, :lo12:2b",
            "str {tmp}, [{rseq}, #{RSEQ_CS}]",
            "3:",
            $($line,)+
            "4:",
            $($after,)*
            tmp = out(reg) _,
            SIGNATURE = const SIGNATURE,
            RSEQ_CS = const offset_of!(Area, rseq_cs),
            $($operands)+
        )
    };
}

/// The hot path: appends a payload of `N` bytes where the thread's spot says, stamped with the processor's
/// counter. It commits, or nothing has happened: the slow path then finds out why not.
///
/// As on x86-64, all is inside the section, and neither the tail nor the lock is compared: an open page is the tail,
/// and nobody holds the lock and is at work on it. See [`Commit`] and `docs/adr/0008-closed-pages.md`.
///
/// # Safety
/// 1. `spot` is the calling thread's.
/// 2. The payload is that of [`in_registers`](super::in_registers), and its bytes live.
#[inline(always)]
pub(crate) unsafe fn append_plain<const N: usize>(
    spot: *const Spot,
    writer: &Writer,
    words: [MaybeUninit<u64>; 3],
) -> Plain {
    // Whoever emulates hands all words on.
    let none = if cfg!(target_arch = "aarch64") { MaybeUninit::uninit() } else { MaybeUninit::new(0) };
    // SAFETY: 1., 2. As the caller says.
    unsafe { append::<N, false>(spot, writer, words, none) }
}

/// As [`append_plain`], of a payload whose last four bytes become how long something took: 0 where that is less, the most that
/// they hold where it is more.
///
/// # Safety
/// 1. `spot` is the calling thread's.
/// 2. The payload is that of [`in_registers_but_last`](super::in_registers_but_last), and its bytes live.
#[inline(always)]
pub(crate) unsafe fn append_since<const N: usize>(
    spot: *const Spot,
    writer: &Writer,
    words: [MaybeUninit<u64>; 3],
    since: u64,
) -> Plain {
    // SAFETY: 1., 2. As the caller says.
    unsafe { append::<N, true>(spot, writer, words, MaybeUninit::new(since)) }
}

/// Both.
///
/// # Safety
/// 1., 2. As above.
#[inline(always)]
unsafe fn append<const N: usize, const TIMED: bool>(
    spot: *const Spot,
    writer: &Writer,
    [p0, p1, p2]: [MaybeUninit<u64>; 3],
    since: MaybeUninit<u64>,
) -> Plain {
    debug_assert!(is_plain(N), "the caller asked");
    // SAFETY: by 1, it is the calling thread's, which nobody else writes.
    let area = unsafe { (*spot).area };
    // SAFETY: the spot and the area that it names are the thread's own, or the area is a dummy on no CPU. Once the
    // writer's number compared equal, the spot's addresses lie in a mapping that it keeps, and `desc` and
    // `data` are of one sub-buffer. The record ends within it: that is compared.
    unsafe {
        section!(
            // The spot is about this writer, and this thread still where it was.
            "ldr {tmp}, [{rseq}]",
            "ldr {at}, [{spot}, #{KEY}]",
            "eor {tmp}, {tmp}, {at}",
            "ldr {at}, [{writer}, #{NUMBER}]",
            "cmp {tmp}, {at}",
            "b.ne {changed}",
            // desc, w = the commit word.
            "ldr {desc}, [{spot}, #{DESC}]",
            "ldr {w}, [{desc}]",
            // The record fits; a closed page has no room. to = where it begins.
            "mov {to:w}, {w:w}",
            "add {tmp}, {to}, #{TOTAL}",
            "ldr {at}, [{spot}, #{CAPACITY}]",
            "cmp {tmp}, {at}",
            "b.hi {changed}",
            "ldr {tmp}, [{spot}, #{DATA}]",
            "add {to}, {to}, {tmp}",
            // at = the last event's stamp. tmp = now, last = the delta; one that is negative is huge.
            "lsr {at}, {w}, #63",
            "add {at}, {desc}, {at}, lsl #3",
            "add {at}, {at}, #{STAMP}",
            "ldr {last}, [{at}]",
            "mrs {tmp}, cntvct_el0",
            "sub {last}, {tmp}, {last}",
            "lsr {at}, {last}, #{DELTA_BITS}",
            "cbnz {at}, {changed}",
            // The event header, then the payload: two words at a time, then an odd one.
            "lsl {last:w}, {last:w}, #5",
            "add {last:w}, {last:w}, #{TYPE_LEN}",
            ".if {GIVEN} > {IN_REGISTERS}",
            "str {last:w}, [{to}], #4",
            ".rept {GIVEN} / 8",
            "ldr {last}, [{p0}], #8",
            "str {last}, [{to}], #8",
            ".endr",
            ".if {GIVEN} % 8",
            "ldr {last:w}, [{p0}], #4",
            "str {last:w}, [{to}], #4",
            ".endif",
            ".else",
            "str {last:w}, [{to}]",
            ".if {GIVEN} < 8",
            "str {p0:w}, [{to}, #4]",
            ".else",
            "stur {p0}, [{to}, #4]",
            ".endif",
            ".if {GIVEN} >= 16",
            "stur {p1}, [{to}, #12]",
            ".elseif {GIVEN} > 8",
            "str {p1:w}, [{to}, #12]",
            ".endif",
            ".if {GIVEN} >= 24",
            "stur {p2}, [{to}, #20]",
            ".elseif {GIVEN} > 16",
            "str {p2:w}, [{to}, #20]",
            ".endif",
            ".endif",
            ".if {TIMED}",
            // last = the ticks since then, none where they are negative; then their nanoseconds. What is more than 32 bits
            // hold, is all that they do.
            "subs {last}, {tmp}, {since}",
            "csel {last}, {last}, xzr, hs",
            "ldr {mult}, [{spot}, #{MULT}]",
            "umulh {at}, {last}, {mult}",
            "mul {last}, {last}, {mult}",
            "lsr {last}, {last}, #32",
            "cmp {at}, #0",
            "csinv {last:w}, {last:w}, wzr, eq",
            "str {last:w}, [{to}, #{LAST}]",
            ".endif",
            // w = the new commit word, at = the stamp of its parity. to = the meta-page from here on.
            "add {w}, {w}, {step}",
            "lsr {at}, {w}, #63",
            "add {at}, {desc}, {at}, lsl #3",
            "add {at}, {at}, #{STAMP}",
            "ldr {to}, [{spot}, #{META}]",
            // The time, behind the commit before; then the commit. E1.
            "stlr {tmp}, [{at}]",
            "stlr {w}, [{desc}]";
            // E7: the sleeper's membarrier stands between the commit and this look.
            "ldr {tmp:w}, [{to}, #{WAKE_ANY}]",
            "cbnz {tmp:w}, {sleepers}";
            spot = in(reg) spot,
            rseq = in(reg) area,
            writer = in(reg) writer,
            p0 = inout(reg) p0 => _,
            p1 = in(reg) p1,
            p2 = in(reg) p2,
            since = in(reg) since,
            mult = out(reg) _,
            step = in(reg) const { Commit::step(record_len(N)) },
            desc = out(reg) _,
            to = out(reg) _,
            w = out(reg) _,
            at = out(reg) _,
            last = out(reg) _,
            GIVEN = const given_len(N, TIMED),
            IN_REGISTERS = const IN_REGISTERS,
            TIMED = const TIMED as u8,
            // Copying from memory, `to` moves along.
            LAST = const if given_len(N, TIMED) > IN_REGISTERS { 0 } else { N },
            TOTAL = const N + 4,
            TYPE_LEN = const N / 4,
            DELTA_BITS = const DELTA_BITS,
            STAMP = const offset_of!(Desc, stamp),
            NUMBER = const Writer::NUMBER_OFFSET,
            KEY = const offset_of!(Spot, key),
            META = const offset_of!(Spot, meta),
            MULT = const offset_of!(Spot, mult),
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
}

/// Bytes of a payload that are given.
const fn given_len(len: usize, is_timed: bool) -> usize {
    if is_timed { len - 4 } else { len }
}

/// Bytes of the record of a plain payload.
const fn record_len(payload_len: usize) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "a plain payload has at most 112 bytes")]
    let len = payload_len as u32;
    4 + len
}

impl Sections for Rseq {
    #[inline(never)]
    fn append(&self, ring: &Ring<'_>, append: &Append<'_>) -> Outcome {
        let Append { expected, at, parts, stamp, commit } = *append;
        let (page, head_len, body_len) = (expected.tail.page(), size_of_val(parts.head), parts.body.len());
        ring.assert_record_fits(page, at, head_len + body_len + 4);
        assert!(!parts.head.is_empty() && body_len.is_multiple_of(4), "parts are made of words");
        let desc = ring.desc(page);
        // SAFETY: the assertions above keep every store inside the sub-buffer; the parts outlive the section and
        // are only read.
        unsafe {
            section!(
                "ldr {tmp:w}, [{rseq}, #{CPU_ID}]",
                "cmp {tmp:w}, {cpu:w}",
                "b.ne {changed}",
                "ldr {tmp}, [{meta}, #{LOCK}]",
                "cbnz {tmp}, {changed}",
                "ldr {tmp}, [{meta}, #{TAIL}]",
                "cmp {tmp}, {tail}",
                "b.ne {changed}",
                "ldr {tmp}, [{desc}]",
                "cmp {tmp}, {w}",
                "b.ne {changed}",
                // The head's words. There is one at least.
                "6:",
                "ldr {tmp:w}, [{head}], #4",
                "str {tmp:w}, [{to}], #4",
                "cmp {head}, {head_end}",
                "b.ne 6b",
                // The body's words, if any.
                "7:",
                "cmp {body}, {body_end}",
                "b.eq 8f",
                "ldr {tmp:w}, [{body}], #4",
                "str {tmp:w}, [{to}], #4",
                "b 7b",
                "8:",
                "str {foot:w}, [{to}]",
                // The event's time, behind the commit before; then the commit. E1.
                "stlr {stamp}, [{stamp_at}]",
                "stlr {commit}, [{desc}]";;
                rseq = in(reg) self.0,
                CPU_ID = const offset_of!(Area, cpu_id),
                LOCK = const LOCK,
                TAIL = const TAIL,
                cpu = in(reg) expected.cpu,
                meta = in(reg) ring.meta(),
                tail = in(reg) expected.tail.pack(),
                desc = in(reg) desc,
                w = in(reg) expected.w.pack(),
                to = inout(reg) ring.data().at(page, at) => _,
                head = inout(reg) parts.head.as_ptr() => _,
                head_end = in(reg) parts.head.as_ptr_range().end,
                body = inout(reg) parts.body.as_ptr() => _,
                body_end = in(reg) parts.body.as_ptr_range().end,
                foot = in(reg) parts.foot,
                stamp = in(reg) stamp,
                stamp_at = in(reg) &raw const desc.stamp[commit.parity()],
                commit = in(reg) commit.pack(),
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
                "ldr {tmp:w}, [{rseq}, #{CPU_ID}]",
                "cmp {tmp:w}, {cpu:w}",
                "b.ne {changed}",
                "ldr {tmp}, [{meta}, #{LOCK}]",
                "cbnz {tmp}, {changed}",
                "ldr {tmp}, [{meta}, #{TAIL}]",
                "cmp {tmp}, {tail}",
                "b.ne {changed}",
                "ldr {tmp}, [{desc}]",
                "cmp {tmp}, {w}",
                "b.ne {changed}",
                // The old page is closed: the hot path looks at nothing else.
                "orr {tmp}, {w}, #{CLOSED}",
                "str {tmp}, [{desc}]",
                // The next page is empty, and says from which event on it counts.
                "str xzr, [{header}, #{HEADER_COMMIT}]",
                "str {first}, [{next}, #{FIRST}]",
                "str {stamp}, [{next}, #{STAMP}]",
                "mov {tmp}, #{BLANK}",
                "str {tmp}, [{next}]",
                // The commit: the tail moves. E2.
                "add {tmp}, {meta}, #{TAIL}",
                "stlr {commit}, [{tmp}]";;
                rseq = in(reg) self.0,
                CPU_ID = const offset_of!(Area, cpu_id),
                LOCK = const LOCK,
                TAIL = const TAIL,
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
                CLOSED = const Commit::CLOSED_BIT,
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

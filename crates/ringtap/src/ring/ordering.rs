//! The ring's memory orderings, one function for each side of an edge; `docs/memory-ordering.md` says what each is for.
//!
//! The sections in assembly have theirs from the instructions they use. The models in `tests::loom` run the
//! sections in Rust, and `cargo xtask loom` takes away one of these at a time.

pub(crate) use ringtap_abi::sync::fence_unless_relaxed as fence;

ringtap_abi::edges! {
    /// Append: the store of `w`.
    e1_commit: Release;
    /// Whoever looks how far a page is committed.
    e1_look: Acquire;
    /// Turn: the store of `tail`.
    e2_turn: Release;
    /// Retirement: the store of the marked `tail`.
    e2_retire: Release;
    /// Whoever looks where the writers are.
    e2_look: Acquire;
    /// The fence behind a claim.
    e3_claim: Release;
    /// The fence before a record's first byte.
    e3_record: Release;
    /// A cursor's fence between a page's `first` and the second look at the word that named the page.
    e3_found: Acquire;
    /// A cursor's fence between what it copied and the second look at `first`.
    e3_copied: Acquire;
    /// The host's fence between a page's `first` and the second look at slot or tail.
    e3_counted: Acquire;
    /// The owner's last store to the lock.
    e4_release: Release;
    /// The CAS that takes the lock.
    e4_acquire: Acquire;
    /// The writer's look at the slot that it claims next.
    e5_look: Acquire;
    /// The writer's claim.
    e5_claim: AcqRel;
    /// The reader's swap.
    e5_swap: AcqRel;
    /// The reset's mark on what it drops.
    e5_drop: AcqRel;
    /// The reader tells where its page is.
    e6_publish: Release;
    /// A cursor looks where the reader's page is.
    e6_find: Acquire;
    /// The wake-up's addition.
    e8_wake: AcqRel;
    /// A sleeper's look at the wake-ups before it arms.
    e8_look: Acquire;
}

#[cfg(loom)]
ringtap_abi::edges! {
    /// The sleeper's membarrier, and what it does to each running writer: a fence on both sides.
    e7_barrier: SeqCst;
}

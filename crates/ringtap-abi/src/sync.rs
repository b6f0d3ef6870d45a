//! The atomics that shared memory is made of: `core`'s, or loom's when a model checker runs the ring.
//!
//! loom's atomics are handles, not plain words, so they cannot be laid over mapped bytes. Under `cfg(loom)`
//! the shared structures are therefore built with `new`, and nothing is mapped.
//!
//! Each ordering that an edge of `docs/memory-ordering.md` needs is a function made by [`edges!`](crate::edges):
//! the model checker's runs can then take one away and see its test fail.

use core::sync::atomic::Ordering;

#[cfg(not(loom))]
pub use core::sync::atomic::{AtomicU32, AtomicU64, fence};
#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU32, AtomicU64, fence};

/// What the side of an edge with this name asks for. A constant, but for the model checker: there
/// `RINGTAP_WEAKEN` is a list of those that become Relaxed.
#[cfg(not(loom))]
#[inline(always)]
#[must_use]
pub const fn strength(_name: &str, ordering: Ordering) -> Ordering {
    ordering
}

/// As above.
#[cfg(loom)]
#[must_use]
pub fn strength(name: &str, ordering: Ordering) -> Ordering {
    static WEAKENED: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let weakened = WEAKENED.get_or_init(|| std::env::var("RINGTAP_WEAKEN").ok());
    let is_weakened = weakened.iter().any(|names| names.split(',').any(|weakened| weakened == name));
    if is_weakened { Ordering::Relaxed } else { ordering }
}

/// A fence that a model checker's run may take away: Relaxed is none.
#[inline(always)]
pub fn fence_unless_relaxed(ordering: Ordering) {
    if ordering != Ordering::Relaxed {
        fence(ordering);
    }
}

/// Names the sides of edges: one function each, which returns its ordering.
#[macro_export]
macro_rules! edges {
    ($($(#[doc = $doc:literal])+ $name:ident: $ordering:ident;)+) => {$(
        $(#[doc = $doc])+
        #[inline(always)]
        pub(crate) fn $name() -> core::sync::atomic::Ordering {
            $crate::sync::strength(stringify!($name), core::sync::atomic::Ordering::$ordering)
        }
    )+};
}

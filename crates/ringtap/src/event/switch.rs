//! Whether an event is on, and where it goes: a pointer to its word on a switchboard.
//!
//! A switch starts at a word of its own that is always 0. Registered, it points to its event's word on the host's
//! [switchboard](ringtap_abi::switchboard), which all attached processes share: so the host switches an event in all of
//! them with one store. Words lie so that their address says the event's id, and are never unmapped: one load tells
//! where the word is and whose, a second one whether the event is on.

use ringtap_abi::switchboard::{TOP, WORDS, WORDS_LEN};
use ringtap_abi::sync::AtomicU64;
use std::alloc::Layout;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::Relaxed;

/// An event's word on a switchboard.
#[derive(Clone, Copy, Debug)]
pub struct Word(&'static AtomicU64);

impl Word {
    /// The word must be a [`Board`](crate::board::Board)'s, or lie as if it were.
    pub(crate) fn new(word: &'static AtomicU64) -> Self {
        Self(word)
    }

    /// The word of an event that no host switches: it is on in the writer's own instance.
    pub(crate) fn always_on(id: u16) -> Self {
        static TABLE: OnceLock<&'static [AtomicU64]> = OnceLock::new();
        let word = &TABLE.get_or_init(private_words)[usize::from(id)];
        word.store(TOP, Relaxed);
        Self(word)
    }

    /// The event's id.
    #[must_use]
    pub fn id(self) -> u16 {
        id_of(self.0)
    }
}

/// Words for ids that come from elsewhere than a host, aligned as a switchboard's.
fn private_words() -> &'static [AtomicU64] {
    let layout = Layout::from_size_align(WORDS_LEN, WORDS_LEN).expect("a power of two");
    // SAFETY: the layout's size is not 0.
    let words = unsafe { std::alloc::alloc_zeroed(layout) };
    if words.is_null() {
        std::alloc::handle_alloc_error(layout);
    }
    // SAFETY: as many zeros as there are words, aligned for them, never freed.
    unsafe { std::slice::from_raw_parts(words.cast(), WORDS) }
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the low bits are the id")]
fn id_of(word: *const AtomicU64) -> u16 {
    (word.addr() / size_of::<AtomicU64>()) as u16
}

/// Where an event goes that is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The event's id.
    pub id: u16,
    /// Its word: a bit for each instance, and [`RULES`](ringtap_abi::switchboard::RULES). Never 0.
    pub word: u64,
}

/// The word of an event that is off.
static OFF: AtomicU64 = AtomicU64::new(0);

/// An event's switch in this process.
#[derive(Debug)]
pub struct Switch {
    /// What each event looks at: its word, or [`OFF`].
    word: AtomicPtr<AtomicU64>,
    /// The registered event's word; null while it is not registered.
    home: AtomicPtr<AtomicU64>,
}

impl Default for Switch {
    fn default() -> Self {
        Self::new()
    }
}

impl Switch {
    /// The switch of an event that is not registered: off.
    #[must_use]
    pub const fn new() -> Self {
        Self { word: AtomicPtr::new((&raw const OFF).cast_mut()), home: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Where the event goes; `None` while it is off, which costs two loads and a branch.
    #[inline(always)]
    #[must_use]
    pub fn route(&self) -> Option<Route> {
        // Relaxed: the word is never written by this process's stores before the pointer, and an event about to be
        // written while it is switched may be either.
        let word = self.word.load(Relaxed).cast_const();
        // SAFETY: `OFF`, or a word that can be read for ever.
        match unsafe { &*word }.load(Relaxed) {
            0 => None,
            bits => Some(Route { id: id_of(word), word: bits }),
        }
    }

    /// The event's id, once it is registered.
    #[must_use]
    pub fn id(&self) -> Option<u16> {
        let home = self.home.load(Relaxed);
        (!home.is_null()).then(|| id_of(home))
    }

    /// The address of the registered event's word; null while it is not registered.
    pub(crate) fn home(&self) -> *const AtomicU64 {
        self.home.load(Relaxed)
    }

    /// Points the switch at a registered event's word, unless it belongs to another id: then that is the error. A
    /// word of another host under the same id replaces the old one.
    pub(crate) fn register(&self, word: Word) -> Result<(), u16> {
        let new = ptr::from_ref(word.0).cast_mut();
        match self.home.compare_exchange(ptr::null_mut(), new, Relaxed, Relaxed) {
            Ok(_) => self.word.store(new, Relaxed),
            Err(old) if id_of(old) != word.id() => return Err(id_of(old)),
            Err(_) => self.move_to(word),
        }
        Ok(())
    }

    /// Points the switch at another word, perhaps of another id; on or off in this process as it was.
    pub(crate) fn move_to(&self, word: Word) {
        let new = ptr::from_ref(word.0).cast_mut();
        let old = self.home.swap(new, Relaxed);
        // Where it fails, the event is off in this process, or another thread moves it as well.
        let _ = self.word.compare_exchange(old, new, Relaxed, Relaxed);
    }

    /// Takes the event's word away: it is off and has no id.
    pub(crate) fn unregister(&self) {
        self.word.store((&raw const OFF).cast_mut(), Relaxed);
        self.home.store(ptr::null_mut(), Relaxed);
    }

    /// Switches the event off in this process, or lets its word decide again. Without an id it stays off.
    pub fn set_on(&self, on: bool) {
        let home = self.home.load(Relaxed);
        let word = if on && !home.is_null() { home } else { (&raw const OFF).cast_mut() };
        self.word.store(word, Relaxed);
    }
}

//! The kernel's tracefs over ringtap's instances.
//!
//! [`control`] is what the files of a tracefs say and set, as text; [`fs`] is the tree of these files, as a table. Neither
//! knows who asks: FUSE, the host's socket and an embedding program all make the same calls.
#![deny(unsafe_code)]

pub mod control;
pub mod fs;
pub mod limits;

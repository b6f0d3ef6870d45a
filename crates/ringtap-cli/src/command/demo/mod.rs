//! `ringtap demo`: several processes read the files under a folder, and trace what they do.

pub mod work;
pub mod worker;
pub mod workers;

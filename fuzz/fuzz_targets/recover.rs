//! The file of a dead host's buffer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ringtap::recover::check_recover(bytes));

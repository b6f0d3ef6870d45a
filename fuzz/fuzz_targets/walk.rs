//! Words of a sub-buffer, walked where they lie.
#![no_main]

libfuzzer_sys::fuzz_target!(|words: Vec<u32>| ringtap_abi::records::check_walk(&words));

//! A block of rules or a histogram's head, and a payload.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: (Vec<u64>, &[u8])| ringtap_abi::rules::check_rules(&input.0, input.1));

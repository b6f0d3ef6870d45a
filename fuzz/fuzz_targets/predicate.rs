//! Byte code of a filter, and a payload.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: (Vec<u64>, &[u8])| ringtap_abi::predicate::check_predicate(&input.0, input.1));

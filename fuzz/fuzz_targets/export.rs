//! A trace.dat through each exporter and each layout of text.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ringtap_format::check::check_export(bytes));

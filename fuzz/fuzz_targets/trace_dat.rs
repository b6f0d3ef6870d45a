//! The descriptions at the start of a trace.dat.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ringtap_format::check::check_trace_dat(bytes));

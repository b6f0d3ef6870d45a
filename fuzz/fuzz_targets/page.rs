//! A sub-buffer as `trace_pipe_raw` hands it out, of either byte order.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ringtap_format::check::check_page(bytes));

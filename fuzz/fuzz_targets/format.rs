//! A format file and a record of its event.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: (&str, &[u8])| ringtap_format::check::check_format(input.0, input.1));

//! A `print fmt` and a record of its event.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: (&str, &[u8])| ringtap_format::check::check_print_fmt(input.0, input.1));

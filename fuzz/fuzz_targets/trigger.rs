//! A trigger of an event with fields of each kind.
#![no_main]

use ringtap_format::{Dialect, Formats, Target};
use std::sync::LazyLock;

const FORMAT: &str = "name: e\nID: 1\nformat:\n\
    \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
    \tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n\
    \tfield:int n;\toffset:8;\tsize:4;\tsigned:1;\n\
    \tfield:u64 big;\toffset:16;\tsize:8;\tsigned:0;\n\
    \tfield:char comm[16];\toffset:24;\tsize:16;\tsigned:0;\n\
    \tfield:__data_loc char[] path;\toffset:40;\tsize:4;\tsigned:0;\n\
    \tfield:__data_loc cpumask_t mask;\toffset:44;\tsize:4;\tsigned:0;\n\
    \tfield:void * call;\toffset:48;\tsize:8;\tsigned:0;\n\n\
    print fmt: \"\"\n";

static FORMATS: LazyLock<Formats> = LazyLock::new(|| {
    let mut formats = Formats::new(Target::LE64, Dialect::Kernel);
    formats.add("test", FORMAT).unwrap();
    formats
});

libfuzzer_sys::fuzz_target!(|text: &str| ringtap_format::check::check_trigger(text, FORMATS.by_id(1).unwrap()));

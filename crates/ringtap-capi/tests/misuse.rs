//! Programs that make mistakes, and compilers that find more of them than most.

mod common;

use common::{Language, Link, compile, crate_dir, has, run, scratch};
use ringtap::{Config, Host};
use std::process::Command;

#[test]
fn mistakes_are_told_and_end_no_program() {
    let Some(program) = compile("misuse.c", Language::C, Link::Shared) else { return };
    run(&mut Command::new(program));
}

#[test]
fn a_handler_that_exits_never_waits_for_what_it_interrupted() {
    let Some(program) = compile("misuse.c", Language::C, Link::Shared) else { return };
    let runtime = scratch("exits");
    run(Command::new(program).arg("exits").env("XDG_RUNTIME_DIR", runtime).env_remove("RINGTAP_SOCKET"));
}

#[test]
fn a_forked_child_may_be_alone() {
    let Some(program) = compile("misuse.c", Language::C, Link::Shared) else { return };
    let socket = scratch("alone").join("host.sock");
    let host = Host::new(&Config::default()).expect("there is memory");
    let _server = host.serve(&socket).expect("it serves");
    run(Command::new(program).arg(&socket));
}

#[test]
fn the_header_passes_the_strictest_compilers() {
    let more = ["-Wconversion", "-Wsign-conversion", "-Wshadow", "-Wcast-qual", "-Wundef", "-Wcast-align"];
    for (compiler, language, standards, options) in [
        ("gcc", "c", ["c99", "c17"], ["-O2", "-Wstrict-prototypes"]),
        ("g++", "c++", ["c++17", "c++20"], ["-O2", "-Wnon-virtual-dtor"]),
    ] {
        for standard in standards.into_iter().filter(|_| has(compiler)) {
            let mut command = Command::new(compiler);
            command.args(["-x", language, &format!("-std={standard}"), "-fsyntax-only"]);
            command.args(["-Wall", "-Wextra", "-Werror", "-pedantic"]).args(more).args(options);
            command.arg("-I").arg(crate_dir().join("include")).arg(crate_dir().join("tests/c/strict.c"));
            run(&mut command);
        }
    }
}

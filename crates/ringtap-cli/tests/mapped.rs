//! The tests of the kernel's `trace_pipe_raw`, of the mapped reader and of the mapping itself, on that of ringtap's tree.

#[path = "../../ringtap/tests/kernel_map.rs"]
mod kernel_map;
#[path = "../../ringtap/tests/kernel_mapped.rs"]
mod kernel_mapped;
mod support;

use support::{cannot_exec, ringtap};

/// Set where the tests run on ringtap's tree.
const INSIDE: &str = "RINGTAP_TEST_INSIDE";

/// Set where the mapped reader is to be opened by the socket.
const ON_SOCKET: &str = "RINGTAP_TEST_ON_SOCKET";

/// Runs the tests of this name under `ringtap exec`, and expects that so many pass.
fn run_inside(filter: &str, variable: &str, passed: &str) {
    if std::env::var_os(INSIDE).is_some() || cannot_exec() {
        return;
    }
    let tests = std::env::current_exe().unwrap();
    let mut command = ringtap();
    command.args(["exec", "--"]).arg(tests).args([filter, "--test-threads=1", "--nocapture"]);
    let command = command.env(INSIDE, "1").env(variable, "1").output().unwrap();
    let said = String::from_utf8_lossy(&command.stdout);
    assert!(command.status.success(), "{said}{}", String::from_utf8_lossy(&command.stderr));
    assert!(said.contains(passed) && !said.contains("skipped"), "{said}");
}

#[test]
fn the_same_tests_pass_on_the_fuse_file() {
    run_inside("kernel_map", INSIDE, "16 passed");
}

#[test]
fn the_mapped_readers_tests_pass_on_the_socket() {
    run_inside("kernel_mapped", ON_SOCKET, "5 passed");
}

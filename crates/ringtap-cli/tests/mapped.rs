//! The mapped reader's tests of the kernel's `trace_pipe_raw`, on that of ringtap's tree.

#[path = "../../ringtap/tests/kernel_mapped.rs"]
mod kernel_mapped;
mod support;

use support::{cannot_exec, ringtap};

/// Set where the tests run on ringtap's tree.
const INSIDE: &str = "RINGTAP_TEST_INSIDE";

#[test]
fn the_same_tests_pass_on_the_fuse_file() {
    if std::env::var_os(INSIDE).is_some() || cannot_exec() {
        return;
    }
    let tests = std::env::current_exe().unwrap();
    let command = ringtap()
        .args(["exec", "--"])
        .arg(tests)
        .args(["kernel_mapped::", "--test-threads=1", "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&command.stdout);
    assert!(command.status.success(), "{said}{}", String::from_utf8_lossy(&command.stderr));
    assert!(said.contains("5 passed") && !said.contains("skipped"), "{said}");
}

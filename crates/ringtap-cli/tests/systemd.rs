//! The units of `packaging/systemd`, as systemd reads them.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;
use support::Temporary;

#[test]
fn systemd_takes_the_units() {
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/systemd");
    let folder = Temporary::new("systemd");
    for (unit, manager) in [("ringtap.service", "--system"), ("user/ringtap.service", "--user")] {
        let text = fs::read_to_string(units.join(unit)).unwrap();
        // Where the program is installed is the package's business: here it is this one.
        let text = text.replace("/usr/bin/ringtap", env!("CARGO_BIN_EXE_ringtap"));
        let (_, arguments) = text.split_once(env!("CARGO_BIN_EXE_ringtap")).unwrap();
        assert!(arguments.starts_with(" serve\n"), "{unit}");
        let path = folder.path().join("ringtap.service");
        fs::write(&path, text).unwrap();
        let mut verify = Command::new("systemd-analyze");
        let verify =
            verify.args([manager, "verify", "--man=no"]).arg(&path).env("XDG_RUNTIME_DIR", folder.path());
        let Ok(verified) = verify.output() else {
            return println!("skipped: there is no systemd-analyze");
        };
        let said = String::from_utf8_lossy(&verified.stderr).into_owned();
        // It also speaks of units of this machine.
        assert!(!said.lines().any(|line| line.contains("ringtap.service")), "{unit}: {said}");
    }
}

//! What programs will declare, read from their files before they run.

use ringtap::Instances;
use ringtap::event::manifests;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// Largest program that is looked at, in bytes.
const MAX_LEN: u64 = 1 << 30;

/// Declares the events of all programs that a command line names, so that they can be switched before they run. Returns
/// how many there are.
pub fn declare(instances: &Instances, command: &[impl AsRef<OsStr>]) -> usize {
    let programs = command.iter().filter_map(|word| program(word.as_ref()));
    programs.map(|program| declare_events(instances, &program)).sum()
}

fn declare_events(instances: &Instances, program: &[u8]) -> usize {
    // An event that cannot be declared now cannot be declared by the program, which then says why.
    let declared = |(system, name, format)| instances.register_event(system, name, format).is_ok();
    manifests(program).filter(|manifest| declared(*manifest)).count()
}

/// The bytes of the program of this name, if it is one: a file that can be executed, and no script.
fn program(word: &OsStr) -> Option<Vec<u8>> {
    let path = match word.as_bytes().contains(&b'/') {
        true => PathBuf::from(word),
        false => std::env::split_paths(&std::env::var_os("PATH")?)
            .map(|folder| folder.join(word))
            .find(|path| is_file(path))?,
    };
    if !is_file(&path) {
        return None;
    }
    let mut file = File::open(path).ok()?;
    let len = file.metadata().ok().filter(|file| file.len() <= MAX_LEN)?.len();
    let mut magic = [0; 4];
    file.read_exact(&mut magic).ok()?;
    if magic != *b"\x7fELF" {
        return None;
    }
    let mut bytes = Vec::with_capacity(usize::try_from(len).ok()?);
    file.read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

fn is_file(path: &Path) -> bool {
    path.metadata().is_ok_and(|file| file.is_file())
}

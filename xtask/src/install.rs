//! `cargo xtask install-capi`: the C library where compilers and pkg-config find it.

use anyhow::{Context, Result, bail};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
}

/// Puts header, libraries and ringtap.pc below `prefix`. `built` has the libraries; without it they are built.
pub(crate) fn run(prefix: &Path, built: Option<PathBuf>) -> Result<()> {
    let prefix = std::path::absolute(prefix)?;
    let built = match built {
        Some(built) => built,
        None => build()?,
    };
    let (lib, include) = (prefix.join("lib"), prefix.join("include"));
    fs::create_dir_all(lib.join("pkgconfig"))?;
    fs::create_dir_all(&include)?;
    let ours = workspace().join("crates/ringtap-capi");
    copy(&ours.join("include/ringtap.h"), &include.join("ringtap.h"))?;
    copy(&built.join("libringtap_c.a"), &lib.join("libringtap.a"))?;
    let name = format!("libringtap.so.{VERSION}");
    copy(&built.join("libringtap_c.so"), &lib.join(&name))?;
    for link in ["libringtap.so.0", "libringtap.so"].map(|link| lib.join(link)) {
        // One of an earlier version may be there.
        let _ = fs::remove_file(&link);
        symlink(&name, &link).with_context(|| format!("failed to make {}", link.display()))?;
    }
    let template = fs::read_to_string(ours.join("ringtap.pc.in"))?;
    let text = template.replace("@prefix@", &prefix.display().to_string()).replace("@version@", VERSION);
    fs::write(lib.join("pkgconfig/ringtap.pc"), text)?;
    println!("installed libringtap {VERSION} in {}", prefix.display());
    Ok(())
}

fn build() -> Result<PathBuf> {
    let command = ["build", "--release", "--package", "ringtap-capi"];
    let status = Command::new("cargo").args(command).current_dir(workspace()).status()?;
    if !status.success() {
        bail!("failed to build the library ({status})");
    }
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from);
    Ok(target.join("release"))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    // A program may run what is there: it keeps the old file.
    let _ = fs::remove_file(to);
    fs::copy(from, to).with_context(|| format!("failed to copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

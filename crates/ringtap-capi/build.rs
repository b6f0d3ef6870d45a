//! How the shared library is linked.

fn main() {
    // Programs look for this name, whatever the file is called.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libringtap.so.0");
    // It has threads, hooks of fork and words that writers look at: unloaded, it would leave them pointing nowhere.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    println!("cargo:rerun-if-changed=build.rs");
}

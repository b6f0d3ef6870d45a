//! A shared library that writes events is unloaded right behind its last one.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;

/// Loads the example `plugin`, lets it write, unloads it, and lets the kernel look at the thread's area. Events
/// written, or what failed, as a negative number.
fn load_and_unload(library: &CString) -> i32 {
    // SAFETY: the library's initialisers are Rust's own.
    let handle = unsafe { libc::dlopen(library.as_ptr(), libc::RTLD_NOW) };
    if handle.is_null() {
        return -1;
    }
    // SAFETY: the handle is valid.
    let work = unsafe { libc::dlsym(handle, c"work".as_ptr()) };
    if work.is_null() {
        return -2;
    }
    // SAFETY: the example defines it so.
    let work = unsafe { std::mem::transmute::<*mut libc::c_void, extern "C" fn() -> i32>(work) };
    work();
    let written = work();
    // SAFETY: the handle is valid, and nothing of the library is used any more.
    unsafe { libc::dlclose(handle) };
    for _ in 0..20 {
        // SAFETY: sleeps.
        unsafe { libc::usleep(100) };
    }
    written
}

#[test]
fn a_library_with_sections_may_be_closed() {
    let deps = std::env::current_exe().expect("this program has a path");
    let library = deps.ancestors().nth(2).expect("it lies in deps").join("examples/libplugin.so");
    if !library.exists() {
        return println!("skipped: the example plugin was not built");
    }
    let library = CString::new(library.as_os_str().as_bytes()).expect("a path has no zeros");
    // In a child: the kernel would kill it.
    // SAFETY: the test's other threads hold no lock that the child needs: there is one test.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let written = load_and_unload(&library);
        // SAFETY: ends the child.
        unsafe { libc::_exit(i32::from(written != 100)) };
    }
    let mut status = 0;
    // SAFETY: waits for our own child.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(status, 0, "the child ended with wait status {status:#x}");
}

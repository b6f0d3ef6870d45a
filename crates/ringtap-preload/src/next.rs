//! The functions that ours stand in for, found by the dynamic linker.
//!
//! A function's address is at first that of a stub, which finds the right one, stores it, and goes on there. So it is
//! there whoever calls first, a constructor that runs before ours included, and later calls need not look whether it is.

use crate::{arena, suspend};
use std::ffi::{CStr, c_void};
use std::ptr;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::Relaxed;

/// A function of the libraries behind this one.
#[derive(Debug)]
pub(crate) struct Next {
    address: AtomicPtr<c_void>,
    name: &'static CStr,
    /// Where the library has several functions of this name: the version that programs of today are linked with.
    version: Option<&'static CStr>,
    /// What to call where there is none of this name.
    missing: *const c_void,
}

// SAFETY: `missing` is the address of code.
unsafe impl Sync for Next {}

impl Next {
    pub(crate) const fn new(
        name: &'static CStr,
        version: Option<&'static CStr>,
        stub: *const c_void,
        missing: *const c_void,
    ) -> Self {
        Self { address: AtomicPtr::new(stub.cast_mut()), name, version, missing }
    }

    /// Where to go on: the function, or the stub that finds it.
    #[inline(always)]
    pub(crate) fn address(&self) -> *mut c_void {
        // Relaxed: code is there before its address is.
        self.address.load(Relaxed)
    }

    /// Changes where to go on.
    pub(crate) fn replace(&self, address: *mut c_void) {
        self.address.store(address, Relaxed);
    }

    /// Finds the function.
    pub(crate) fn find(&self) {
        // Meanwhile memory comes from the arena: some dynamic linkers allocate here.
        let before = suspend::set_finding(true);
        let mut found = ptr::null_mut();
        if let Some(version) = self.version {
            // SAFETY: both are strings.
            found = unsafe { libc::dlvsym(libc::RTLD_NEXT, self.name.as_ptr(), version.as_ptr()) };
        }
        if found.is_null() {
            // SAFETY: as above.
            found = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
        }
        let found = if found.is_null() { self.missing.cast_mut() } else { found };
        self.replace(arena::guarded(self.name, found));
        suspend::set_finding(before);
    }
}

/// Declares functions of the libraries behind this one: each becomes a module with `NEXT` and `call`.
macro_rules! next {
    ($(
        fn $name:ident($($arg:ident: $type:ty),* $(,)?) -> $ret:ty $([$version:literal])? $(=> $early:expr)? ;
    )*) => { $(
        pub(crate) mod $name {
            #[allow(unused_imports, reason = "the types of the arguments")]
            use super::*;
            use crate::next::Next;

            type Function = unsafe extern "C-unwind" fn($($type),*) -> $ret;

            #[allow(unused_mut, unused_assignments, reason = "few functions have versions")]
            const VERSION: Option<&::std::ffi::CStr> = {
                let mut version: Option<&::std::ffi::CStr> = None;
                $(version = $crate::next::version($version);)?
                version
            };
            pub(crate) static NEXT: Next = Next::new(
                match ::std::ffi::CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                    Ok(name) => name,
                    Err(_) => panic!("no identifier has a NUL"),
                },
                VERSION,
                first as Function as *const ::std::ffi::c_void,
                missing as Function as *const ::std::ffi::c_void,
            );

            /// Calls the function.
            ///
            /// # Safety
            /// As the function's.
            #[inline(always)]
            pub(crate) unsafe fn call($($arg: $type),*) -> $ret {
                // SAFETY: `first`, `missing` or a function of this name, whose type the C library's headers tell.
                let function = unsafe {
                    ::std::mem::transmute::<*mut ::std::ffi::c_void, Function>(NEXT.address())
                };
                // SAFETY: as the caller says.
                unsafe { function($($arg),*) }
            }

            /// What is called until the function is found.
            unsafe extern "C-unwind" fn first($($arg: $type),*) -> $ret {
                $(if crate::suspend::is_finding() {
                    return $early;
                })?
                NEXT.find();
                // SAFETY: as the caller says.
                unsafe { call($($arg),*) }
            }

            /// What is called where there is no such function.
            unsafe extern "C-unwind" fn missing($($arg: $type),*) -> $ret {
                $(let _ = $arg;)*
                crate::value::set_errno(libc::ENOSYS);
                <$ret as crate::value::Ret>::REFUSED
            }
        }
    )* };
}
pub(crate) use next;

/// A symbol's version, where this machine's C library has others for older programs.
pub(crate) const fn version(name: &'static CStr) -> Option<&'static CStr> {
    if cfg!(all(target_arch = "x86_64", target_env = "gnu")) { Some(name) } else { None }
}

//! Beginning and ending to trace, from C.

use crate::error::{Code, Error, guard, guard_value};
use crate::host::{CHost, Inner};
use crate::process::{self, Trace, begin, is_tracing};
use crate::text;
use ringtap::attach::{Attachment, Early, SOCKET_VARIABLE};
use ringtap::{Config, serve};
use std::ffi::{c_char, c_int};
use std::path::PathBuf;
use std::ptr;
use std::sync::{Arc, Once};

/// The name of the daemon's socket, see [`serve::default_path`].
const DAEMON: &str = "default";

/// `ringtap_init`. [thread]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn ringtap_init() -> c_int {
    guard(|| {
        if is_tracing() {
            return Ok(Code::Ok);
        }
        // A program does its work whether or not anybody records it: where there is no host after all, it has its own.
        let attached = daemon().and_then(|path| Attachment::attach(path).ok());
        let begun = match attached {
            Some(attachment) => begin(Trace::There(attachment), None),
            None => begin_here(),
        };
        // Another thread was faster.
        begun.or_else(|error| if is_tracing() { Ok(Code::Ok) } else { Err(error) })
    })
}

/// The socket of the host that the environment names, or of the daemon if it is there.
fn daemon() -> Option<PathBuf> {
    match std::env::var_os(SOCKET_VARIABLE).filter(|path| !path.is_empty()) {
        Some(path) => Some(path.into()),
        None => serve::default_path(DAEMON).ok().filter(|path| path.exists()),
    }
}

fn begin_here() -> Result<Code, Error> {
    let host = Inner::new(&Config::default())?;
    let socket = serve_somewhere(&host);
    remove_socket_at_exit();
    begin(Trace::Here(host), socket.as_deref())
}

/// Serves a host under the program's name, or its name and number where another of its kind runs. Without a directory
/// for it, nobody can look in.
fn serve_somewhere(host: &Inner) -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    let program: String = program.file_name()?.to_string_lossy().chars().map(plain).collect();
    let program = program.trim_start_matches('.');
    let names = [program.to_owned(), format!("{program}-{}", std::process::id())];
    names.iter().find_map(|name| {
        let path = serve::default_path(name).ok()?;
        host.serve(&path).ok().map(|()| path)
    })
}

/// A program that ends leaves no socket behind that nobody answers.
fn remove_socket_at_exit() {
    extern "C" fn remove() {
        process::own_host().inspect(|host| host.stop_serving());
    }
    static ONCE: Once = Once::new();
    // SAFETY: a function of this library, which is not unloaded.
    ONCE.call_once(|| unsafe {
        libc::atexit(remove);
    });
}

/// `ringtap_attach`. [thread]
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ringtap_attach(socket: *const c_char, early: c_int) -> c_int {
    guard(|| {
        // SAFETY: as the header says.
        let socket = unsafe { text::copied(socket, "the socket") }?;
        if is_tracing() {
            return Err(Error::new(Code::State, "the process traces already: call ringtap_detach first"));
        }
        let attachment = match early {
            0 => Attachment::attach(socket),
            1 => Attachment::attach_early(socket, Early::Off),
            2 => Attachment::attach_early(socket, Early::HandOver(Config::default())),
            _ => return Err(Error::argument("what becomes of early events is none of enum ringtap_early")),
        };
        begin(Trace::There(attachment?), None)
    })
}

/// `ringtap_trace_to`. [thread]
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ringtap_trace_to(host: *mut CHost) -> c_int {
    guard(|| {
        // SAFETY: as the header says.
        let host = unsafe { CHost::get(host) }?;
        if host.writer().is_none() {
            return Err(Error::argument("the host is of another process: use ringtap_attach"));
        }
        begin(Trace::Here(Arc::clone(host)), None)
    })
}

/// `ringtap_detach`. [thread]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn ringtap_detach() -> c_int {
    guard(|| {
        process::end();
        Ok(Code::Ok)
    })
}

/// `ringtap_follow_forks`. [thread]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn ringtap_follow_forks(follow: c_int) -> c_int {
    guard(|| {
        process::follow_forks(follow != 0);
        Ok(Code::Ok)
    })
}

/// `ringtap_socket`. [thread]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn ringtap_socket() -> *const c_char {
    guard_value(ptr::null(), process::socket)
}

//! What the calls' arguments and results are in an event.

use ringtap::event::{Count, Kind, Scalar, Shown, Value};
use std::ffi::{c_char, c_void};
use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};

/// The calling thread's `errno`.
#[inline(always)]
pub(crate) fn errno() -> i32 {
    // SAFETY: always valid.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: the calling thread's own.
    unsafe { *place }
}

/// Sets the calling thread's `errno`.
#[inline(always)]
pub(crate) fn set_errno(errno: i32) {
    // SAFETY: always valid.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: the calling thread's own.
    unsafe { *place = errno };
}

/// A result of the C library's functions.
pub(crate) trait Ret: Copy {
    /// The result that says that the call failed, and `errno` why.
    const REFUSED: Self;

    /// Whether it is that.
    fn is_refused(self) -> bool;
}

macro_rules! rets {
    ($($type:ty: $refused:expr;)*) => { $(
        impl Ret for $type {
            const REFUSED: Self = $refused;

            #[inline(always)]
            fn is_refused(self) -> bool {
                self == Self::REFUSED
            }
        }
    )* };
}

rets! {
    i32: -1;
    i64: -1;
    isize: -1;
    u32: u32::MAX;
    *mut c_void: std::ptr::null_mut();
}

impl Ret for () {
    const REFUSED: Self = ();

    fn is_refused(self) -> bool {
        false
    }
}

/// Where memory was mapped.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(crate) struct Mapped(*mut c_void);

impl Ret for Mapped {
    const REFUSED: Self = Self(libc::MAP_FAILED);

    fn is_refused(self) -> bool {
        self.0 == libc::MAP_FAILED
    }
}

impl Value for Mapped {
    const KIND: Kind = <*mut c_void as Value>::KIND;

    #[inline(always)]
    fn put(&self, words: &mut [u64], at: usize) {
        self.0.put(words, at);
    }
}

/// An error of the system's: `0`, or its name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Errno(pub(crate) i32);

macro_rules! errnos {
    ($($name:ident)*) => {
        /// Those that programs meet. Others are shown as numbers.
        const NAMES: &[(u64, &str)] = &[(0, "0"), $((libc::$name.unsigned_abs() as u64, stringify!($name))),*];
    };
}

errnos! {
    EPERM ENOENT EINTR EIO ENXIO E2BIG EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT EBUSY EEXIST EXDEV ENODEV ENOTDIR
    EISDIR EINVAL ENFILE EMFILE ENOTTY EFBIG ENOSPC ESPIPE EROFS EPIPE EDEADLK ENAMETOOLONG ENOSYS ELOOP EOVERFLOW
    ENOTSOCK EMSGSIZE EOPNOTSUPP EADDRINUSE EADDRNOTAVAIL ENETUNREACH ECONNABORTED ECONNRESET EISCONN ENOTCONN
    ETIMEDOUT ECONNREFUSED EHOSTUNREACH EALREADY EINPROGRESS ECANCELED EOWNERDEAD
}

impl Value for Errno {
    const KIND: Kind = Kind::number("u16", 2, false, Shown::Symbol(NAMES));

    #[inline(always)]
    fn put(&self, words: &mut [u64], at: usize) {
        // The kernel's errors are below 4096.
        u16::try_from(self.0).unwrap_or(u16::MAX).put(words, at);
    }
}

impl Scalar for Errno {
    fn bits(self) -> u64 {
        u16::try_from(self.0).unwrap_or(u16::MAX).into()
    }
}

/// Bytes of a path that an event takes: its end is cut off.
const PATH_LIMIT: usize = 511;

/// A path, or another string of C's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path<'p>(&'p [u8]);

impl Path<'_> {
    /// Reads a string that was given to a call which ended with this error. It is not looked at where there may be no such
    /// memory: the kernel says so, or refuses flags before it looks.
    ///
    /// # Safety
    /// 1. Unless the error is `EFAULT` or `EINVAL`, the pointer is null or a string's that lives as long as the result.
    pub(crate) unsafe fn of(path: *const c_char, errno: i32) -> Self {
        if matches!(errno, libc::EFAULT | libc::EINVAL) || path.is_null() {
            return Self(&[]);
        }
        // SAFETY: by 1.
        let len = unsafe { libc::strnlen(path, PATH_LIMIT) };
        // SAFETY: by 1, they are there.
        Self(unsafe { std::slice::from_raw_parts(path.cast(), len) })
    }
}

impl Value for Path<'_> {
    const KIND: Kind =
        Kind { c_type: "char", element_size: 1, count: Count::Dynamic, signed: false, shown: Shown::Text };

    #[inline(always)]
    fn put(&self, _: &mut [u64], _: usize) {}

    #[inline(always)]
    fn tail(&self) -> &[u8] {
        self.0
    }
}

/// Longest text of a socket's address: a Unix socket's path, with `unix:@` before it.
const ADDRESS_LEN: usize = 116;

/// A socket's address as text: `127.0.0.1:80`, `[::1]:80`, `unix:/run/x.sock`, `unix:@abstract`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Address {
    text: [u8; ADDRESS_LEN],
    len: usize,
}

impl Address {
    /// Reads an address that was given to a call, unless that ended with an error before the kernel had read it: of the
    /// address itself, of the descriptor, or of a length that no address has.
    ///
    /// # Safety
    /// 1. Unless the error is one of these, the pointer is null, or there are `len` bytes.
    pub(crate) unsafe fn of(address: *const libc::sockaddr, len: libc::socklen_t, errno: i32) -> Self {
        let mut text = Self { text: [0; ADDRESS_LEN], len: 0 };
        let mut storage = [0; size_of::<libc::sockaddr_storage>()];
        let len = len as usize;
        let is_read = !matches!(errno, libc::EFAULT | libc::EBADF | libc::ENOTSOCK) && len <= storage.len();
        if is_read && !address.is_null() {
            // SAFETY: by 1.
            unsafe { std::ptr::copy_nonoverlapping(address.cast(), storage.as_mut_ptr(), len) };
            // What does not fit is cut off.
            let _ = text.show(&storage[..len]);
        }
        text
    }

    fn show(&mut self, address: &[u8]) -> std::fmt::Result {
        let Some((family, rest)) = address.split_first_chunk::<2>() else { return Ok(()) };
        // As this machine, which is little-endian, stores numbers.
        match i32::from(u16::from_le_bytes(*family)) {
            libc::AF_UNIX => match rest.split_first() {
                None => self.write_str("unix:"),
                Some((0, name)) => {
                    self.write_str("unix:@")?;
                    self.push(name);
                    Ok(())
                }
                Some(_) => {
                    self.write_str("unix:")?;
                    self.push(rest.split(|&byte| byte == 0).next().unwrap_or_default());
                    Ok(())
                }
            },
            libc::AF_INET => match rest {
                [p, q, a, b, c, d, ..] => {
                    let ip = Ipv4Addr::new(*a, *b, *c, *d);
                    write!(self, "{}", SocketAddrV4::new(ip, u16::from_be_bytes([*p, *q])))
                }
                _ => Ok(()),
            },
            libc::AF_INET6 => {
                match (rest.first_chunk::<2>(), rest.get(6..).and_then(|rest| rest.first_chunk())) {
                    (Some(port), Some(ip)) => {
                        let ip = Ipv6Addr::from(*ip);
                        write!(self, "{}", SocketAddrV6::new(ip, u16::from_be_bytes(*port), 0, 0))
                    }
                    _ => Ok(()),
                }
            }
            libc::AF_NETLINK => self.write_str("netlink"),
            libc::AF_PACKET => self.write_str("packet"),
            family => write!(self, "family {family}"),
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        let room = &mut self.text[self.len..];
        let len = bytes.len().min(room.len());
        room[..len].copy_from_slice(&bytes[..len]);
        self.len += len;
    }
}

impl Write for Address {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.push(text.as_bytes());
        Ok(())
    }
}

impl Value for Address {
    const KIND: Kind = <Path<'_> as Value>::KIND;

    #[inline(always)]
    fn put(&self, _: &mut [u64], _: usize) {}

    #[inline(always)]
    fn tail(&self) -> &[u8] {
        &self.text[..self.len]
    }
}

/// Nanoseconds in 32 bits: the largest number stands for all above it.
#[inline(always)]
pub(crate) fn short_ns(ns: u64) -> u32 {
    u32::try_from(ns).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(address: &[u8]) -> String {
        // SAFETY: they are there.
        let address =
            unsafe { Address::of(address.as_ptr().cast(), u32::try_from(address.len()).unwrap(), 0) };
        String::from_utf8_lossy(address.tail()).into_owned()
    }

    #[test]
    fn addresses_are_text() {
        let family =
            |family: i32, rest: &[u8]| [&u16::try_from(family).unwrap().to_le_bytes()[..], rest].concat();
        assert_eq!(shown(&family(libc::AF_INET, &[0, 80, 127, 0, 0, 1, 0, 0])), "127.0.0.1:80");
        let mut six = vec![31, 144, 0, 0, 0, 0];
        six.extend(Ipv6Addr::LOCALHOST.octets());
        assert_eq!(shown(&family(libc::AF_INET6, &six)), "[::1]:8080");
        assert_eq!(shown(&family(libc::AF_UNIX, b"/run/x\0\0\0")), "unix:/run/x");
        assert_eq!(shown(&family(libc::AF_UNIX, b"\0name")), "unix:@name");
        assert_eq!(shown(&family(libc::AF_UNIX, &[b'x'; 108])), format!("unix:{}", "x".repeat(108)));
        for len in 0..40 {
            for kind in [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK, 77] {
                let _ = shown(&family(kind, &vec![0xff; len]));
            }
        }
        // SAFETY: with this error nobody looks.
        let none = unsafe { Address::of(std::ptr::without_provenance(8), 16, libc::EFAULT) };
        assert_eq!(none.len, 0);
    }

    #[test]
    fn paths_are_cut_and_none_is_read_that_the_kernel_could_not() {
        // SAFETY: a string.
        let path = unsafe { Path::of(c"/etc/hosts".as_ptr(), libc::ENOENT) };
        assert_eq!(path.0, b"/etc/hosts");
        let long = [vec![b'x'; 5000], vec![0]].concat();
        // SAFETY: a string.
        assert_eq!(unsafe { Path::of(long.as_ptr().cast(), 0) }.0.len(), PATH_LIMIT);
        // SAFETY: with this error nobody looks.
        assert_eq!(unsafe { Path::of(std::ptr::without_provenance(8), libc::EFAULT) }.0, b"");
    }
}

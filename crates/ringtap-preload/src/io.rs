//! Files and sockets.
//!
//! What the C library reads and writes for itself does not come by here: `printf`, `fread` and the like call the kernel
//! from within.

use crate::call::traced;
use crate::value::{Address, Path};
use libc::{iovec, mmsghdr, mode_t, msghdr, off64_t, sockaddr, socklen_t, timespec};
use std::ffi::{c_char, c_int, c_uint, c_void};

ringtap::symbols! {
    /// How a file is opened; reading is no flag.
    flags Open: u32 {
        WRONLY = 1, RDWR = 2, CREAT = 0x40, EXCL = 0x80, NOCTTY = 0x100, TRUNC = 0x200, APPEND = 0x400, NONBLOCK = 0x800,
        DSYNC = 0x1000, CLOEXEC = 0x80000
    }
}

fn open_flags(flags: c_int) -> Open {
    Open(flags.cast_unsigned())
}

/// The mode, where the flags say that there is one.
fn mode_of(flags: c_int, mode: mode_t) -> u32 {
    if flags & libc::O_CREAT != 0 || flags & libc::O_TMPFILE == libc::O_TMPFILE { mode } else { 0 }
}

/// Bytes in all parts of a vector, unless the call ended with `EFAULT`.
///
/// # Safety
/// 1. Unless the error is `EFAULT`, or the result is an error, there are `count` parts.
unsafe fn length_of(parts: *const iovec, count: c_int, ret: isize) -> usize {
    let count = if ret < 0 || parts.is_null() { 0 } else { usize::try_from(count).unwrap_or(0) };
    // SAFETY: by 1.
    (0..count).map(|index| unsafe { parts.wrapping_add(index).read_unaligned() }.iov_len).sum()
}

traced! {
    result, errno;

    /// A file was opened, or not.
    OpenFile<'a> as libc_io:open {
        // SAFETY: what the call was given.
        path: Path<'a> = unsafe { Path::of(path, errno) },
        flags: Open = open_flags(flags),
        mode: u32 = mode_of(flags, mode),
    } -> errno c_int {
        // The mode is there or not, as the flags say; one that is not is not looked at.
        open(path: *const c_char, flags: c_int, mode: mode_t);
        open64(path: *const c_char, flags: c_int, mode: mode_t);
        // What a program calls that was compiled with _FORTIFY_SOURCE, as all that end in _2 or _chk: this has no mode.
        __open_2(path: *const c_char, flags: c_int, mode: mode_t);
        __open64_2(path: *const c_char, flags: c_int, mode: mode_t);
    }

    /// A file was opened below a directory, or not.
    OpenAt<'a> as libc_io:openat {
        dirfd: i32 = dirfd,
        // SAFETY: what the call was given.
        path: Path<'a> = unsafe { Path::of(path, errno) },
        flags: Open = open_flags(flags),
        mode: u32 = mode_of(flags, mode),
    } -> errno c_int {
        openat(dirfd: c_int, path: *const c_char, flags: c_int, mode: mode_t);
        openat64(dirfd: c_int, path: *const c_char, flags: c_int, mode: mode_t);
        __openat_2(dirfd: c_int, path: *const c_char, flags: c_int, mode: mode_t);
        __openat64_2(dirfd: c_int, path: *const c_char, flags: c_int, mode: mode_t);
    }

    /// A file was created, or not.
    Creat<'a> as libc_io:creat {
        // SAFETY: what the call was given.
        path: Path<'a> = unsafe { Path::of(path, errno) },
        mode: u32 = mode,
    } -> errno c_int {
        creat(path: *const c_char, mode: mode_t);
        creat64(path: *const c_char, mode: mode_t);
    }

    /// A descriptor was closed.
    Close as libc_io:close { fd: i32 = fd } -> errno c_int {
        close(fd: c_int);
    }

    /// Bytes were read.
    Read as libc_io:read { fd: i32 = fd, count: usize = count } -> errno isize {
        read(fd: c_int, buffer: *mut c_void, count: usize);
        __read_chk(fd: c_int, buffer: *mut c_void, count: usize, size: usize);
    }

    /// Bytes were written.
    Write as libc_io:write { fd: i32 = fd, count: usize = count } -> errno isize {
        write(fd: c_int, buffer: *const c_void, count: usize);
    }

    /// Bytes were read from a place in a file.
    Pread as libc_io:pread { fd: i32 = fd, count: usize = count, offset: i64 = offset } -> errno isize {
        pread(fd: c_int, buffer: *mut c_void, count: usize, offset: off64_t);
        pread64(fd: c_int, buffer: *mut c_void, count: usize, offset: off64_t);
        __pread_chk(fd: c_int, buffer: *mut c_void, count: usize, offset: off64_t, size: usize);
        __pread64_chk(fd: c_int, buffer: *mut c_void, count: usize, offset: off64_t, size: usize);
    }

    /// Bytes were written to a place in a file.
    Pwrite as libc_io:pwrite { fd: i32 = fd, count: usize = count, offset: i64 = offset } -> errno isize {
        pwrite(fd: c_int, buffer: *const c_void, count: usize, offset: off64_t);
        pwrite64(fd: c_int, buffer: *const c_void, count: usize, offset: off64_t);
    }

    /// Bytes were read into several places.
    Readv as libc_io:readv {
        // SAFETY: what the call was given.
        fd: i32 = fd, parts: i32 = parts, count: usize = unsafe { length_of(vector, parts, result) },
    } -> errno isize {
        readv(fd: c_int, vector: *const iovec, parts: c_int);
    }

    /// Bytes were written from several places.
    Writev as libc_io:writev {
        // SAFETY: what the call was given.
        fd: i32 = fd, parts: i32 = parts, count: usize = unsafe { length_of(vector, parts, result) },
    } -> errno isize {
        writev(fd: c_int, vector: *const iovec, parts: c_int);
    }

    /// Bytes were read from a place in a file into several places.
    Preadv as libc_io:preadv {
        fd: i32 = fd,
        parts: i32 = parts,
        // SAFETY: what the call was given.
        count: usize = unsafe { length_of(vector, parts, result) },
        offset: i64 = offset,
    } -> errno isize {
        preadv(fd: c_int, vector: *const iovec, parts: c_int, offset: off64_t);
        preadv64(fd: c_int, vector: *const iovec, parts: c_int, offset: off64_t);
        preadv2(fd: c_int, vector: *const iovec, parts: c_int, offset: off64_t, flags: c_int);
        preadv64v2(fd: c_int, vector: *const iovec, parts: c_int, offset: off64_t, flags: c_int);
    }

    /// Bytes were written to a place in a file from several places.
    Pwritev as libc_io:pwritev {
        fd: i32 = fd,
        parts: i32 = parts,
        // SAFETY: what the call was given.
        count: usize = unsafe { length_of(vector, parts, result) },
        offset: i64 = offset,
    } -> errno isize {
        pwritev(fd: c_int, vector: *const iovec, parts: c_int, offset: off64_t);
        pwritev64(fd: c_int, vector: *const iovec, parts: c_int, offset: off64_t);
        pwritev2(fd: c_int, vector: *const iovec, parts: c_int, offset: off64_t, flags: c_int);
        pwritev64v2(fd: c_int, vector: *const iovec, parts: c_int, offset: off64_t, flags: c_int);
    }

    /// A file's bytes were sent to another descriptor.
    SendFile as libc_io:sendfile { out_fd: i32 = out_fd, in_fd: i32 = in_fd, count: usize = count } -> errno isize {
        sendfile(out_fd: c_int, in_fd: c_int, offset: *mut off64_t, count: usize);
        sendfile64(out_fd: c_int, in_fd: c_int, offset: *mut off64_t, count: usize);
    }

    /// Bytes were copied from one file to another.
    CopyFileRange as libc_io:copy_file_range {
        in_fd: i32 = in_fd, out_fd: i32 = out_fd, count: usize = count,
    } -> errno isize {
        copy_file_range(
            in_fd: c_int, in_offset: *mut off64_t, out_fd: c_int, out_offset: *mut off64_t, count: usize, flags: c_uint
        );
    }

    /// Bytes were moved to or from a pipe.
    Splice as libc_io:splice { in_fd: i32 = in_fd, out_fd: i32 = out_fd, count: usize = count } -> errno isize {
        splice(
            in_fd: c_int, in_offset: *mut off64_t, out_fd: c_int, out_offset: *mut off64_t, count: usize, flags: c_uint
        );
    }

    /// A file's contents and properties are on the disk.
    Fsync as libc_io:fsync { fd: i32 = fd } -> errno c_int {
        fsync(fd: c_int);
    }

    /// A file's contents are on the disk.
    Fdatasync as libc_io:fdatasync { fd: i32 = fd } -> errno c_int {
        fdatasync(fd: c_int);
    }

    /// A file was made longer or shorter.
    Ftruncate as libc_io:ftruncate { fd: i32 = fd, length: i64 = length } -> errno c_int {
        ftruncate(fd: c_int, length: off64_t);
        ftruncate64(fd: c_int, length: off64_t);
    }

    /// A pipe was made.
    Pipe as libc_io:pipe {
        // SAFETY: the call has written there, where it succeeded.
        read_fd: i32 = if result == 0 { unsafe { *fds } } else { -1 },
        // SAFETY: as above.
        write_fd: i32 = if result == 0 { unsafe { *fds.wrapping_add(1) } } else { -1 },
    } -> errno c_int {
        pipe(fds: *mut c_int);
        pipe2(fds: *mut c_int, flags: c_int);
    }

    /// A descriptor was copied.
    Dup as libc_io:dup { fd: i32 = fd } -> errno c_int {
        dup(fd: c_int);
        dup2(fd: c_int, to: c_int);
        dup3(fd: c_int, to: c_int, flags: c_int);
    }

    /// A socket was made.
    Socket as libc_io:socket { family: i32 = family, kind: i32 = kind, protocol: i32 = protocol } -> errno c_int {
        socket(family: c_int, kind: c_int, protocol: c_int);
    }

    /// A socket was connected, or not.
    Connect as libc_io:connect {
        // SAFETY: what the call was given.
        fd: i32 = fd, address: Address = unsafe { Address::of(address, len, errno) },
    } -> errno c_int {
        connect(fd: c_int, address: *const sockaddr, len: socklen_t);
    }

    /// A socket was given its own address.
    Bind as libc_io:bind {
        // SAFETY: what the call was given.
        fd: i32 = fd, address: Address = unsafe { Address::of(address, len, errno) },
    } -> errno c_int {
        bind(fd: c_int, address: *const sockaddr, len: socklen_t);
    }

    /// A connection was accepted.
    Accept as libc_io:accept { fd: i32 = fd } -> errno c_int {
        accept(fd: c_int, address: *mut sockaddr, len: *mut socklen_t);
        accept4(fd: c_int, address: *mut sockaddr, len: *mut socklen_t, flags: c_int);
    }

    /// One direction of a connection was ended, or both.
    Shutdown as libc_io:shutdown { fd: i32 = fd, how: i32 = how } -> errno c_int {
        shutdown(fd: c_int, how: c_int);
    }

    /// Bytes were sent.
    Send as libc_io:send { fd: i32 = fd, count: usize = count } -> errno isize {
        send(fd: c_int, buffer: *const c_void, count: usize, flags: c_int);
    }

    /// Bytes were sent to an address.
    SendTo as libc_io:sendto {
        fd: i32 = fd,
        count: usize = count,
        // SAFETY: what the call was given.
        address: Address = unsafe { Address::of(address, len, errno) },
    } -> errno isize {
        sendto(
            fd: c_int, buffer: *const c_void, count: usize, flags: c_int, address: *const sockaddr, len: socklen_t
        );
    }

    /// A message was sent.
    SendMsg as libc_io:sendmsg { fd: i32 = fd } -> errno isize {
        sendmsg(fd: c_int, message: *const msghdr, flags: c_int);
    }

    /// Messages were sent; the result is their number.
    SendMmsg as libc_io:sendmmsg { fd: i32 = fd, count: u32 = count } -> errno c_int {
        sendmmsg(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int);
    }

    /// Bytes were received.
    Recv as libc_io:recv { fd: i32 = fd, count: usize = count } -> errno isize {
        recv(fd: c_int, buffer: *mut c_void, count: usize, flags: c_int);
        __recv_chk(fd: c_int, buffer: *mut c_void, count: usize, size: usize, flags: c_int);
    }

    /// Bytes were received from an address.
    RecvFrom as libc_io:recvfrom { fd: i32 = fd, count: usize = count } -> errno isize {
        recvfrom(
            fd: c_int, buffer: *mut c_void, count: usize, flags: c_int, address: *mut sockaddr, len: *mut socklen_t
        );
        __recvfrom_chk(
            fd: c_int, buffer: *mut c_void, count: usize, size: usize, flags: c_int, address: *mut sockaddr,
            len: *mut socklen_t
        );
    }

    /// A message was received.
    RecvMsg as libc_io:recvmsg { fd: i32 = fd } -> errno isize {
        recvmsg(fd: c_int, message: *mut msghdr, flags: c_int);
    }

    /// Messages were received; the result is their number.
    RecvMmsg as libc_io:recvmmsg { fd: i32 = fd, count: u32 = count } -> errno c_int {
        recvmmsg(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int, timeout: *mut timespec);
    }
}

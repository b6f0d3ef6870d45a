//! The first request, with which the kernel and this server agree on what both know.

#![forbid(unsafe_code)]

use super::request::Request;
use super::{MAX_WRITE, Server};
use crate::fs::fuse::abi::*;
use crate::fs::fuse::device::Device;
use crate::fs::mount::MountError;
use crate::fs::tree::Tree;
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use std::sync::Arc;
use zerocopy::{FromBytes as _, IntoBytes as _};

/// Longest read that comes as one request, in pages: a sub-buffer of 512 KiB comes as one.
const MAX_PAGES: u16 = 128;

impl Server {
    /// Agrees with the kernel on what both know.
    pub(in crate::fs) fn greet(device: Arc<Device>, tree: Tree) -> Result<Self, MountError> {
        let failed = |errno: Errno| MountError::System {
            action: "greet the kernel through",
            path: "/dev/fuse".into(),
            source: errno.into(),
        };
        let mut buffer = vec![0; MAX_WRITE + 4096];
        rustix::event::poll(&mut [PollFd::new(&*device, PollFlags::IN)], None).map_err(failed)?;
        let len = device.receive(&mut buffer).map_err(failed)?;
        let request = Request::parse(&buffer[..len]).ok_or(Errno::PROTO).map_err(failed)?;
        let (theirs, rest) = request.arguments::<InitIn>().map_err(failed)?;
        if theirs.major != MAJOR || theirs.minor < OLDEST_MINOR {
            return Err(MountError::TooOld { found: format!("{}.{}", theirs.major, theirs.minor) });
        }
        // Kernels that know more than 32 flags send the others behind.
        let more = u32::read_from_prefix(rest).map_or(0, |(flags2, _)| flags2);
        let theirs_flags = u64::from(theirs.flags)
            | if u64::from(theirs.flags) & init::INIT_EXT == 0 { 0 } else { u64::from(more) << 32 };
        let flags = theirs_flags
            & (init::ATOMIC_O_TRUNC
                | init::BIG_WRITES
                | init::PARALLEL_DIROPS
                | init::MAX_PAGES
                | init::DO_READDIRPLUS
                | init::READDIRPLUS_AUTO
                | init::INIT_EXT
                | init::PASSTHROUGH);
        let [low, high] = [flags & u64::from(u32::MAX), flags >> 32].map(|half| half.try_into().unwrap_or(0));
        let ours = InitOut {
            major: MAJOR,
            minor: MINOR.min(theirs.minor),
            max_readahead: theirs.max_readahead,
            flags: low,
            flags2: high,
            max_write: u32::try_from(MAX_WRITE).unwrap_or(u32::MAX),
            max_background: 16,
            congestion_threshold: 12,
            time_gran: 1,
            max_pages: MAX_PAGES,
            // Memfds lie on no other file system.
            max_stack_depth: u32::from(flags & init::PASSTHROUGH != 0),
            ..InitOut::default()
        };
        device.answer(request.header.unique, 0, &[ours.as_bytes()]).map_err(failed)?;
        let can_map = flags & init::PASSTHROUGH != 0 && can_back(&device);
        Ok(Self::new(device, tree, can_map))
    }
}

/// Whether this process may let others map its files. A file of no bytes is enough to find out.
fn can_back(device: &Arc<Device>) -> bool {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    rustix::fs::memfd_create("ringtap-probe", flags)
        .is_ok_and(|file| device.back(rustix::fd::AsFd::as_fd(&file)).is_ok())
}

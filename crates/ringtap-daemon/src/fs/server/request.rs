//! A request's bytes, taken apart.

#![forbid(unsafe_code)]

use crate::control::Caller;
use crate::fs::fuse::abi::InHeader;
use rustix::io::Errno;
use zerocopy::{FromBytes, Immutable, KnownLayout};

/// A request's header and body.
pub(super) struct Request<'a> {
    pub(super) header: InHeader,
    pub(super) body: &'a [u8],
}

impl<'a> Request<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (header, body) = InHeader::read_from_prefix(bytes).ok()?;
        Some(Self { header, body })
    }

    /// The struct that the body begins with, and what stands behind it.
    pub(super) fn arguments<T: FromBytes + KnownLayout + Immutable>(&self) -> Result<(T, &'a [u8]), Errno> {
        T::read_from_prefix(self.body).map_err(|_| Errno::INVAL)
    }

    pub(super) fn caller(&self) -> Caller {
        let InHeader { pid, uid, gid, .. } = self.header;
        Caller { tid: pid, uid, gid, cpu: None }
    }
}

/// The name that a body consists of.
pub(super) fn name(bytes: &[u8]) -> Result<&str, Errno> {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    // Names that are no text are nobody's.
    std::str::from_utf8(&bytes[..end]).map_err(|_| Errno::NOENT)
}

//! The kernel's FUSE protocol, as much of it as a tree of control files needs.

pub(super) mod abi;
pub(super) mod device;

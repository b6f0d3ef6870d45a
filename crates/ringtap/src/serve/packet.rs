//! Packets on a socket, for both sides: sent whole or not at all, received into a buffer that takes the largest.

use ringtap_abi::control::{Header, Part};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;

/// Sends a packet, with a descriptor or without. Neither blocks nor raises SIGPIPE.
pub(crate) fn send(
    socket: impl AsFd,
    header: &Header,
    body: &[u8],
    descriptor: Option<BorrowedFd<'_>>,
) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = descriptor.as_slice();
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Errno::NOBUFS);
    }
    let parts = [IoSlice::new(header.bytes()), IoSlice::new(body)];
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    // A packet of this kind of socket is sent whole.
    rustix::io::retry_on_intr(|| rustix::net::sendmsg(&socket, &parts, &mut ancillary, flags)).map(|_| ())
}

/// What was received.
#[derive(Debug)]
pub(crate) struct Received {
    /// Bytes in the buffer; 0 when the other side has closed.
    pub(crate) len: usize,
    /// The packet was longer than the buffer, or carried more than one descriptor.
    pub(crate) truncated: bool,
    /// What came with it.
    pub(crate) descriptor: Option<OwnedFd>,
}

/// Receives a packet and the descriptor that it may carry. Does not block.
pub(crate) fn receive(socket: impl AsFd, buffer: &mut [u8]) -> Result<Received, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let message = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(&socket, &mut [IoSliceMut::new(buffer)], &mut ancillary, flags)
    })?;
    let mut descriptor = None;
    for part in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = part {
            // Those that are replaced are closed.
            descriptors.for_each(|fd| descriptor = Some(fd));
        }
    }
    let truncated = message.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC);
    Ok(Received { len: message.bytes, truncated, descriptor })
}

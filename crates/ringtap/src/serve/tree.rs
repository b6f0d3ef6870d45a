//! The hook by which a host answers requests about files: the control protocol is a tree of them.

use super::requests::{Answer, Refusal, ok, refusal};
use ringtap_abi::control::{MAX_BODY, request};
use rustix::io::Errno;

/// The process at the other end of a connection, as the kernel states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
    /// Its id; 0 where it has none in our pid namespace.
    pub pid: u32,
}

/// What is asked of a file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TreeCall<'r> {
    /// The file's bytes from this one on; none behind the end.
    Read(u64),
    /// To write these bytes.
    Write(&'r [u8]),
    /// The directory's names, a line each, from this byte on; none behind the end.
    List(u64),
    /// To make the directory.
    Mkdir,
    /// To remove the directory.
    Rmdir,
}

/// Why a call on the tree is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeRefusal {
    /// The kernel's number for such a refusal.
    pub errno: i32,
    /// One sentence for the user.
    pub reason: String,
}

/// Answers calls on files, such as the tracefs does. One thread makes all calls: what takes long keeps other clients' calls
/// waiting, and nothing else.
pub trait Tree: Send + Sync {
    /// Answers a call about the path, whose parts are separated by slashes. An answer longer than a packet takes is
    /// cut; the client asks for the rest.
    ///
    /// # Errors
    /// [`TreeRefusal`], which the client is told.
    fn call(&self, peer: Peer, path: &str, call: TreeCall<'_>) -> Result<Vec<u8>, TreeRefusal>;
}

/// Whether a request is one about the tree.
pub(super) fn is_call(kind: u32) -> bool {
    (request::TREE_READ..=request::TREE_RMDIR).contains(&kind)
}

/// Why a host without a tree answers none.
pub(super) fn none() -> Refusal {
    let reason = "this is a program's own host, whose events are always on and which has no settings: `ringtap list`, `stat`, `stream`, \
         `record`, `start`, `stop` and `reset` work; for all else have the program attach to `ringtap serve`, by RINGTAP_SOCKET";
    refusal(Errno::NOSYS, reason)
}

/// Answers a request about the tree.
pub(super) fn answer(
    tree: &dyn Tree,
    peer: Peer,
    kind: u32,
    value: u64,
    body: &[u8],
) -> Result<Answer, Refusal> {
    let (path, bytes) = match body.iter().position(|&byte| byte == 0) {
        Some(end) if kind == request::TREE_WRITE => (&body[..end], &body[end + 1..]),
        _ => (body, &[][..]),
    };
    let path = std::str::from_utf8(path).map_err(|_| refusal(Errno::INVAL, "the path is not UTF-8"))?;
    let call = match kind {
        request::TREE_READ => TreeCall::Read(value),
        request::TREE_WRITE => TreeCall::Write(bytes),
        request::TREE_LIST => TreeCall::List(value),
        request::TREE_MKDIR => TreeCall::Mkdir,
        _ => TreeCall::Rmdir,
    };
    let told = |refused: TreeRefusal| refusal(Errno::from_raw_os_error(refused.errno), refused.reason);
    let mut body = tree.call(peer, path, call).map_err(told)?;
    body.truncate(MAX_BODY);
    Ok(Answer { body, ..ok(0) })
}

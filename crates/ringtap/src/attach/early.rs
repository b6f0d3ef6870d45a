//! What a process wrote before it had a host, handed over to the host that came.
//!
//! ```text
//!   end       the rings: nothing is written to them any more (ring/retire.rs)
//!   declare   the events with the host, where they have other ids
//!   rewrite   the ids in the records: the memory is this process's own
//!   hand over the descriptors, one a CPU; the host makes an instance of them, `early-PID`
//! ```

use super::Connection;
use super::error::AttachError;
use crate::event::registry::FIRST_ID;
use crate::host::{Buffer, Host};
use crate::ring::recover::PageWords;
use crate::ring::{Corrupt, Ring};
use ringtap_abi::SubbufId;
use ringtap_abi::records::Walk;
use ringtap_abi::subbuf::HEADER_LEN;
use std::collections::BTreeMap;

/// The ids that the events have in the records now, by those that they were declared under here.
#[derive(Debug, Default)]
pub(super) struct Ids(BTreeMap<u16, u16>);

/// Hands them over.
pub(super) fn hand_over(early: &Host, ids: &mut Ids, connection: &Connection) -> Result<(), AttachError> {
    early.end().map_err(|source| AttachError::Early { source })?;
    let events = early.events();
    let mut now = BTreeMap::new();
    for event in events.iter().filter(|event| event.id >= FIRST_ID) {
        now.insert(event.id, connection.register_event(&event.system, &event.name, &event.format)?);
    }
    let changes = now.iter().map(|(own, new)| (*ids.0.get(own).unwrap_or(own), *new)).collect();
    let buffers = early.buffers();
    for buffer in &buffers {
        let damaged = |Corrupt| AttachError::Early { source: buffer.damaged() };
        rewrite(&buffer.mapping().ring(), &changes).map_err(damaged)?;
    }
    ids.0 = now;
    let descriptors = buffers.iter().map(|buffer| (buffer.cpu(), Buffer::descriptor(buffer)));
    connection.hand_over(&format!("early-{}", std::process::id()), descriptors)
}

/// Replaces the ids in all records of a ring that nobody writes.
fn rewrite(ring: &Ring<'_>, changes: &BTreeMap<u16, u16>) -> Result<(), Corrupt> {
    let pages = u16::try_from(ring.geometry().nr_subbufs()).map_err(|_| Corrupt)?;
    for page in (0..pages).map(SubbufId) {
        let words = PageWords { ring, page };
        let mut walk = Walk::new(0, ring.commit(page)?.offset());
        while let Ok(Some(record)) = walk.next(&words) {
            let at = HEADER_LEN + record.offset;
            if record.len < 4 {
                continue;
            }
            let [first, second, rest @ ..] = ring.data().load(page, at).to_le_bytes();
            if let Some(id) = changes.get(&u16::from_le_bytes([first, second])) {
                let ([first, second], [third, fourth]) = (id.to_le_bytes(), rest);
                ring.data().store(page, at, u32::from_le_bytes([first, second, third, fourth]));
            }
        }
    }
    Ok(())
}

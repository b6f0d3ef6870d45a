//! The sub-buffers of a host and the payloads in them, read from its memory as a reader does.

use crate::Host;
use crate::ring::swap::Handed;
use ringtap_abi::records::{Walk, Words};
use std::os::fd::AsFd;

/// A sub-buffer that was handed out.
pub(super) struct Page {
    pub(super) cpu: u32,
    pub(super) bytes: Vec<u8>,
}

impl Words for Page {
    fn word(&self, offset: u32) -> u32 {
        number(&self.bytes, 16 + offset as usize, 4).try_into().expect("four bytes")
    }
}

/// The number of `size` bytes at `at`.
pub(super) fn number(bytes: &[u8], at: usize, size: usize) -> u64 {
    let mut padded = [0; 8];
    padded[..size].copy_from_slice(&bytes[at..at + size]);
    u64::from_le_bytes(padded)
}

/// All that can be consumed.
pub(super) fn take(host: &Host) -> Vec<Page> {
    let mut pages = Vec::new();
    for cpu in host.cpus() {
        while host.get_reader_page(cpu).expect("an undamaged buffer") != Handed::Nothing {
            let memory = host.read_only(cpu).expect("it has a buffer");
            let meta = read(&memory, 0, 80);
            let (meta_len, subbuf_size) = (number(&meta, 0, 4), number(&meta, 8, 4));
            let at = meta_len + number(&meta, 24, 4) * subbuf_size;
            let len = usize::try_from(subbuf_size).expect("a page");
            pages.push(Page { cpu, bytes: read(&memory, at, len) });
        }
    }
    pages
}

/// The payloads of all events.
pub(super) fn payloads(host: &Host) -> Vec<Vec<u8>> {
    let mut payloads = Vec::new();
    for page in take(host) {
        let committed = u32::try_from(number(&page.bytes, 8, 4) & 0x3fff_ffff).expect("a length");
        let mut walk = Walk::new(number(&page.bytes, 0, 8), committed);
        while let Some(record) = walk.next(&page).expect("an undamaged page") {
            let at = 16 + record.offset as usize;
            payloads.push(page.bytes[at..at + record.len as usize].to_vec());
        }
    }
    payloads
}

fn read(memory: impl AsFd, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let got = rustix::io::pread(memory, &mut bytes, at).expect("a memfd can be read");
    assert_eq!(got, len);
    bytes
}

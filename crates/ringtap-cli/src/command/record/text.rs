//! What a file says of the machine, and of sub-buffers where no kernel describes them.

use crate::provenance::Provenance;
use ringtap_format::header;
use ringtap_format::trace_dat::Descriptions;

/// What is known without the kernel's tracing.
pub(super) fn machine(subbuf_kib: u32) -> Descriptions {
    let uname = rustix::system::uname();
    let words = [uname.sysname(), uname.nodename(), uname.release(), uname.machine()];
    Descriptions {
        header_page: header::page_text(subbuf_kib * 1024),
        header_event: header::HEADER_EVENT.to_owned(),
        clocks: "[mono]\n".to_owned(),
        uname: words.map(|word| word.to_string_lossy().into_owned()).join(" "),
        writer: format!("ringtap {} {}", env!("CARGO_PKG_VERSION"), Provenance::here().of_boot()),
        trace_id: ringtap::clock::monotonic_ns() ^ u64::from(std::process::id()) << 48,
        ..Descriptions::default()
    }
}

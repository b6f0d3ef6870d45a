//! What a file says of the machine, and of sub-buffers where no kernel describes them.

use crate::provenance::Provenance;
use ringtap_format::trace_dat::Descriptions;

/// The layout of a sub-buffer's records, in the kernel's words.
const HEADER_EVENT: &str = "# compressed entry header\n\
    \ttype_len    :    5 bits\n\
    \ttime_delta  :   27 bits\n\
    \tarray       :   32 bits\n\
    \n\
    \tpadding     : type == 29\n\
    \ttime_extend : type == 30\n\
    \ttime_stamp : type == 31\n\
    \tdata max type_len  == 28\n";

/// Bytes of a sub-buffer's header.
const HEADER_LEN: u32 = 16;

/// What is known without the kernel's tracing.
pub(super) fn machine(subbuf_kib: u32) -> Descriptions {
    let data = subbuf_kib * 1024 - HEADER_LEN;
    let uname = rustix::system::uname();
    let words = [uname.sysname(), uname.nodename(), uname.release(), uname.machine()];
    Descriptions {
        header_page: format!(
            "\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n\
             \tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;\n\
             \tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;\n\
             \tfield: char data;\toffset:{HEADER_LEN};\tsize:{data};\tsigned:0;\n"
        ),
        header_event: HEADER_EVENT.to_owned(),
        clocks: "[mono]\n".to_owned(),
        uname: words.map(|word| word.to_string_lossy().into_owned()).join(" "),
        writer: format!("ringtap {} {}", env!("CARGO_PKG_VERSION"), Provenance::here().of_boot()),
        trace_id: ringtap::clock::monotonic_ns() ^ u64::from(std::process::id()) << 48,
        ..Descriptions::default()
    }
}

//! Files made by hand, cut, and overwritten with anything.

use super::*;
use proptest::prelude::*;

const PAGE: &str = "\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n\tfield: local_t commit;\toffset:8;\t\
                    size:8;\tsigned:1;\n\tfield: char data;\toffset:16;\tsize:4080;\tsigned:0;\n";

fn start() -> Vec<u8> {
    let mut file = b"\x17\x08\x44tracing6\0\0\x08\x00\x10\x00\x00header_page\0".to_vec();
    file.extend_from_slice(&u64::try_from(PAGE.len()).unwrap().to_le_bytes());
    file.extend_from_slice(PAGE.as_bytes());
    file.extend_from_slice(b"header_event\0\0\0\0\0\0\0\0\0");
    file
}

#[test]
fn a_file_without_events() {
    let mut file = start();
    // No formats of ftrace, no systems, no symbols, no strings, no tasks, one CPU, no options.
    file.extend_from_slice(&[0; 4 + 4 + 4 + 4 + 8]);
    file.extend_from_slice(b"\x01\0\0\0options  \0\0\0flyrecord\0");
    let place = u64::try_from(file.len() + 16).unwrap();
    file.extend_from_slice(&place.to_le_bytes());
    file.extend_from_slice(&3u64.to_le_bytes());
    let described = file.len();
    file.extend_from_slice(b"abc");
    let parsed = TraceDat::open(&file.as_slice()).unwrap();
    assert_eq!(parsed.buffers[0].cpus, [CpuData::plain(0, place..place + 3)]);
    assert_eq!(parsed.layout.data_size, 4080);
    assert_eq!(parsed.complaints, []);
    for len in 0..file.len() {
        let cut = TraceDat::open(&&file[..len]);
        let missing = u64::try_from(file.len() - len).unwrap();
        match cut {
            Err(error) => assert!(len < described, "{error}"),
            Ok(cut) => {
                let offset = place + 3 - missing;
                assert_eq!(cut.complaints, [TraceDatError::Missing { offset, cpu: 0, len: missing }]);
            }
        }
    }
}

#[test]
fn other_files_are_refused_with_the_place() {
    let said = |bytes: &[u8]| TraceDat::open(&bytes).unwrap_err().to_string();
    assert_eq!(said(b"hello"), "trace.dat: byte 0: expected the magic bytes of trace.dat");
    assert_eq!(said(b"\x17\x08\x44tracing8\0"), "trace.dat: byte 10: expected version 6 or 7");
    let mut file = start();
    file.extend_from_slice(&[1, 0, 0, 0, 200]);
    assert!(said(&file).contains("found the file's end"));
    let lzma = b"\x17\x08\x44tracing7\0\0\x08\x00\x10\x00\x00lzma\x001\0";
    assert_eq!(said(lzma), "trace.dat: byte 18: expected a compression: none, zstd or zlib");
}

#[test]
fn ticks_become_nanoseconds_and_offsets_are_added() {
    let mut clock = Clock::default();
    assert_eq!(clock.ns(77), 77);
    clock.tsc = Some(TscToNs { mult: 3, shift: 1, offset: 0 });
    clock.offset = -5;
    assert_eq!(clock.ns(100), 145);
    assert_eq!(clock.ns(0), 0);
    clock.tsc = Some(TscToNs { mult: u32::MAX, shift: 0, offset: 0 });
    assert_eq!(clock.ns(u64::MAX), u64::MAX - 5);
}

proptest! {
    #[test]
    fn any_bytes_behind_a_true_start(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        check_trace_dat(&[start(), bytes].concat());
    }

    #[test]
    fn any_bytes_behind_the_start_of_version_7(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        check_trace_dat(&[b"\x17\x08\x44tracing7\0\0\x08\x00\x10\x00\x00zstd\x001\0".as_slice(), &bytes].concat());
    }
}

//! The `format` text, and that the records are as it says.

use super::pages::{number, payloads};
use super::{Bare, Dynamic, Fixed, IDS, Told, host};
use crate::event::{Declared, PAYLOAD_LIMIT, marker};
use std::collections::HashMap;

#[test]
fn every_kind_of_field_has_the_kernels_text() {
    assert_eq!(Fixed::declared().format(Some(40)), include_str!("fixed.format"));
    assert_eq!(Dynamic::declared().format(Some(41)), include_str!("dynamic.format"));
    assert_eq!(Told::declared().format(Some(42)), include_str!("told.format"));
    assert_eq!(Bare::declared().format(Some(43)), include_str!("bare.format"));
}

/// A line `field:` of a format text.
#[derive(Clone, Copy, Debug)]
struct Line<'t> {
    c_type: &'t str,
    offset: usize,
    size: usize,
    signed: bool,
}

/// The fields by name, parsed from the text alone.
fn parse(text: &str) -> HashMap<&str, Line<'_>> {
    let fields = text.lines().filter_map(|line| line.strip_prefix("\tfield:"));
    let parse = |line| {
        let mut parts = str::split(line, ";\t");
        let declaration = parts.next().expect("a declaration");
        let mut value = |key: &str| {
            let part = parts.next().expect("another part").trim_end_matches(';');
            part.strip_prefix(key).expect(key).parse::<usize>().expect("a number")
        };
        let (c_type, name) = declaration.rsplit_once(' ').expect("a type and a name");
        let name = name.split('[').next().expect("a name");
        let (offset, size) = (value("offset:"), value("size:"));
        (name, Line { c_type, offset, size, signed: value("signed:") == 1 })
    };
    fields.map(parse).collect()
}

struct Record<'r> {
    fields: HashMap<&'r str, Line<'r>>,
    payload: &'r [u8],
}

impl<'r> Record<'r> {
    fn number(&self, name: &str) -> i128 {
        let Line { offset, size, signed, .. } = self.fields[name];
        let value = number(self.payload, offset, size);
        let unused = 64 - 8 * size;
        if signed { i128::from((value << unused).cast_signed() >> unused) } else { value.into() }
    }

    fn bytes(&self, name: &str) -> &'r [u8] {
        let Line { c_type, offset, size, .. } = self.fields[name];
        if !c_type.starts_with("__data_loc ") {
            return &self.payload[offset..offset + size];
        }
        let loc = usize::try_from(number(self.payload, offset, 4)).expect("four bytes");
        &self.payload[loc & 0xffff..][..loc >> 16]
    }
}

fn with_record(declared: &Declared, payload: &[u8], check: impl FnOnce(&Record<'_>)) {
    let text = declared.format(declared.id());
    let record = Record { fields: parse(&text), payload };
    assert_eq!(record.number("common_type"), declared.id().expect("it is registered").into());
    assert_eq!(record.number("common_pid"), crate::thread::id().into());
    assert_eq!(record.number("common_flags") + record.number("common_preempt_count"), 0);
    check(&record);
}

#[test]
fn fixed_fields_lie_where_the_text_says_and_padding_is_zero() {
    let host = host();
    Fixed::register(&*IDS).expect("nothing refuses it");
    Fixed::sample().try_write(&host.writer()).expect("an empty ring");
    let payloads = payloads(&host);
    with_record(Fixed::declared(), &payloads[0], |record| {
        let numbers = [
            ("tiny", 200),
            ("word", 60_000),
            ("count", 4_000_000_000),
            ("bytes", i128::from(u64::MAX - 1)),
            ("size", 1 << 40),
            ("minus", -1),
            ("minus_two", -20_000),
            ("minus_three", -2_000_000_000),
            ("minus_four", i64::MIN.into()),
            ("distance", -3),
            ("ok", 1),
            ("ratio", i128::from(1.5f32.to_bits())),
            ("load", i128::from((-0.25f64).to_bits().cast_signed())),
            ("at", 0xffff_8000_1234_5678),
            ("source", 7),
            ("access", 0x401),
            ("last", 9),
        ];
        for (name, value) in numbers {
            assert_eq!(record.number(name), value, "{name}");
        }
        assert_eq!(record.bytes("mac"), [2, 0, 0x5e, 0x10, 0xff, 1]);
        assert_eq!(record.bytes("regs"), [1, 0, 0, 0, 0xef, 0xbe, 0xad, 0xde, 3, 0, 0, 0]);
        let steps: Vec<u8> = [-1i64, 5].iter().flat_map(|step| step.to_le_bytes()).collect();
        assert_eq!(record.bytes("steps"), steps);
        assert_eq!(record.bytes("comm"), b"worker/0\0\0\0\0\0\0\0\0");

        let mut covered = vec![false; record.payload.len()];
        for Line { offset, size, .. } in record.fields.values() {
            assert!(!covered[*offset..offset + size].contains(&true), "fields overlap");
            covered[*offset..offset + size].fill(true);
        }
        let padding = covered.iter().zip(record.payload).filter(|(covered, _)| !**covered);
        assert!(padding.clone().count() > 10, "the event has padding");
        assert!(padding.into_iter().all(|(_, &byte)| byte == 0), "padding is zero");
    });
}

#[test]
fn dynamic_fields_lie_where_their_locations_say() {
    let host = host();
    Dynamic::register(&*IDS).expect("nothing refuses it");
    Dynamic::sample().try_write(&host.writer()).expect("an empty ring");
    with_record(Dynamic::declared(), &payloads(&host)[0], |record| {
        assert_eq!((record.number("id"), record.number("tail")), (3, 77));
        assert_eq!(record.bytes("path"), "/etc/höst\0".as_bytes());
        assert_eq!(record.bytes("data"), [0xca, 0xfe, 0]);
        assert_eq!(record.bytes("numbers"), [1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(record.bytes("times")[..8], (-1i64).to_le_bytes());
        assert_eq!(record.bytes("empty"), b"\0");
    });
}

crate::event! {
    struct Long<'e> as demo:long { path: &'e str, numbers: &'e [u32], name: &'e str }
}

#[test]
fn what_is_too_long_is_cut_between_characters_and_elements() {
    let host = host();
    let writer = host.writer();
    Long::register(&*IDS).expect("nothing refuses it");
    let (text, numbers) = ("ä".repeat(5000), [7; 5000]);
    Long { path: &text, numbers: &numbers, name: "gone" }.try_write(&writer).expect("an empty ring");
    Long { path: "a", numbers: &numbers, name: "gone" }.try_write(&writer).expect("room");
    let payloads = payloads(&host);
    assert!(payloads.iter().all(|payload| payload.len() <= PAYLOAD_LIMIT));
    // 8 + 3 * 4 bytes and two NULs leave room for 1002.
    with_record(Long::declared(), &payloads[0], |record| {
        assert_eq!(record.bytes("path"), format!("{}\0", "ä".repeat(501)).as_bytes());
        assert_eq!(record.bytes("numbers"), b"");
        assert_eq!(record.bytes("name"), b"\0");
    });
    with_record(Long::declared(), &payloads[1], |record| {
        assert_eq!(record.bytes("path"), b"a\0");
        assert_eq!(record.bytes("numbers").len(), 1000);
        assert_eq!(record.bytes("name"), b"g\0");
    });
}

#[test]
fn an_event_without_fields_is_its_common_ones() {
    let host = host();
    Bare::register(&*IDS).expect("nothing refuses it");
    Bare {}.try_write(&host.writer()).expect("an empty ring");
    with_record(Bare::declared(), &payloads(&host)[0], |record| assert_eq!(record.payload[8..], [0; 4]));
}

#[test]
fn markers_are_stored_as_the_kernel_stores_them() {
    let host = host();
    let writer = host.writer();
    assert_eq!(marker::print(&writer, ""), Ok(0));
    assert_eq!(marker::print(&writer, "x"), Ok(1));
    assert_eq!(marker::print_at(&writer, 0x1234, "line\n"), Ok(5));
    assert_eq!(marker::print(&writer, "y".repeat(5000)), Ok(4054));
    assert_eq!(marker::raw_data(&writer, 0xabcd, b"bytes"), Ok(()));
    assert_eq!(marker::raw_data(&writer, 1, &[1; 4060]), Ok(()));
    assert_eq!(marker::raw_data(&writer, 1, &[1; 4061]), Err(crate::Refused::TooLarge));
    let payloads = payloads(&host);
    assert_eq!(payloads.len(), 5);
    let ip = |payload: &[u8]| number(payload, 8, 8);
    let [short, line, long, raw, _] = &payloads[..] else { panic!("five") };
    assert_eq!((number(short, 0, 2), ip(short), &short[16..]), (5, 0, &b"x\n\0\0"[..]));
    assert_eq!((number(line, 0, 2), ip(line), &line[16..]), (5, 0x1234, &b"line\n\0\0\0"[..]));
    assert_eq!(&long[16 + 4053..], b"y\n\0");
    assert_eq!((number(raw, 0, 2), number(raw, 8, 4), &raw[12..]), (19, 0xabcd, &b"bytes\0\0\0"[..]));
}

/// The declarations of this file, found in the program that the test runs in.
#[test]
fn a_programs_file_tells_what_it_declares() {
    let program = std::fs::read("/proc/self/exe").expect("this program");
    let found: Vec<_> = crate::event::manifests(&program).collect();
    for declared in [Fixed::declared(), Dynamic::declared(), Told::declared()] {
        // What is never asked for is not in the file.
        std::hint::black_box(declared.manifest());
        let of_name =
            found.iter().filter(|(system, name, _)| (*system, *name) == (declared.system(), declared.name()));
        let formats: Vec<_> = of_name.map(|(.., format)| (*format).to_owned()).collect();
        assert_eq!(formats, [declared.format(None)]);
    }
    let damaged = [&Fixed::declared().manifest()[..20], b"\0", Told::declared().manifest()].concat();
    let found: Vec<_> = crate::event::manifests(&damaged).map(|(_, name, _)| name).collect();
    assert_eq!(found, [Told::declared().name()]);
}

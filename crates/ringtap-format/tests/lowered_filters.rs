//! Filters as byte code answer as the filters do that decoders use, on any record.

use proptest::prelude::*;
use ringtap_abi::predicate::{Subject, evaluate};
use ringtap_format::text::Entry;
use ringtap_format::{Dialect, Filter, Formats, LowerError, Symbols, Target, Tasks};

const FORMAT: &str = "name: e\nID: 1\nformat:\n\
    \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
    \tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;\n\
    \tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n\
    \tfield:int n;\toffset:8;\tsize:4;\tsigned:1;\n\
    \tfield:u8 small;\toffset:12;\tsize:1;\tsigned:0;\n\
    \tfield:s16 short;\toffset:14;\tsize:2;\tsigned:1;\n\
    \tfield:u64 big;\toffset:16;\tsize:8;\tsigned:0;\n\
    \tfield:char name[8];\toffset:24;\tsize:8;\tsigned:0;\n\
    \tfield:__data_loc char[] path;\toffset:32;\tsize:4;\tsigned:0;\n\
    \tfield:__rel_loc char[] text;\toffset:36;\tsize:4;\tsigned:0;\n\
    \tfield:cpumask_t mask;\toffset:40;\tsize:8;\tsigned:0;\n\
    \tfield:__data_loc cpumask_t cpus;\toffset:48;\tsize:4;\tsigned:0;\n\
    \tfield:unsigned long call;\toffset:56;\tsize:8;\tsigned:0;\n\
    \tfield:char rest[];\toffset:64;\tsize:0;\tsigned:0;\n\n\
    print fmt: \"\"\n";

const PID: i32 = 7;

fn formats(target: Target) -> Formats {
    let mut formats = Formats::new(target, Dialect::Kernel);
    formats.add("test", FORMAT).unwrap();
    formats
}

fn symbols() -> Symbols {
    Symbols::parse("0000000000000000 T zero\n0000000000000010 T low\n0000000000000200 T high\n")
}

/// Whether both answers agree, and which it was.
fn accepted(text: &str, cpu: u32, comm: [u8; 16], record: &[u8]) -> bool {
    let formats = formats(Target::LE64);
    let event = formats.by_id(1).unwrap();
    let filter = Filter::parse(text, event, &symbols()).unwrap_or_else(|error| panic!("{text}: {error}"));
    let mut tasks = Tasks::default();
    tasks.set(PID, comm.split(|byte| *byte == 0).next().unwrap());
    let plain = filter.matches(&Entry { cpu, time: 0, record }, &tasks);
    let program = filter.lower().unwrap();
    let lowered = evaluate(&program[..], &Subject { payload: record, cpu, comm: &|| comm });
    assert_eq!(lowered, Ok(plain), "{text} of {record:x?}: {program:x?}");
    plain
}

fn number() -> impl Strategy<Value = String> {
    let number = prop_oneof![0u64..4, 0u64..300, any::<u64>().prop_map(|n| n >> 1), Just(1 << 31)];
    number.prop_map(|number| number.to_string())
}

fn pattern() -> impl Strategy<Value = String> {
    "[ab*?]{0,4}|\\[a-b\\]\\*|!a\\*|[ab]{7,12}"
}

fn comparison() -> impl Strategy<Value = String> {
    let operator = proptest::sample::select(&["==", "!=", "<", "<=", ">", ">=", "&"][..]);
    let int = proptest::sample::select(
        &["n", "small", "short", "big", "call", "common_pid", "common_flags", "cpu", "CPU"][..],
    );
    let signed = proptest::sample::select(&["n", "short", "cpu"][..]);
    let text = proptest::sample::select(&["name", "path", "text", "comm", "rest"][..]);
    let equal = proptest::sample::select(&["==", "!=", "~"][..]);
    let masked = proptest::sample::select(&["mask", "cpus", "n", "cpu", "small"][..]);
    let masking = proptest::sample::select(&["==", "!=", "&"][..]);
    let list = proptest::sample::select(&["0", "0-3", "1,64", "0-63:1/2", "200-300"][..]);
    let function = proptest::sample::select(&["zero", "low", "high", "0x11"][..]);
    prop_oneof![
        (int, operator.clone(), number()).prop_map(|(field, is, n)| format!("{field} {is} {n}")),
        (signed, operator, 0..200).prop_map(|(field, is, n)| format!("{field} {is} -{n}")),
        (text, equal, pattern()).prop_map(|(field, is, text)| format!("{field} {is} \"{text}\"")),
        (masked, masking, list).prop_map(|(field, is, list)| format!("{field} {is} CPUS{{{list}}}")),
        function.clone().prop_map(|name| format!("call.function == {name}")),
        function.prop_map(|name| format!("call.function != {name}")),
    ]
}

fn filter() -> impl Strategy<Value = String> {
    comparison().prop_recursive(5, 40, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 1..4).prop_map(|all| format!("({})", all.join(" && "))),
            proptest::collection::vec(inner.clone(), 1..4).prop_map(|any| format!("({})", any.join(" || "))),
            inner.clone().prop_map(|inner| format!("!({inner})")),
            (inner.clone(), inner.clone(), inner).prop_map(|(a, b, c)| format!("!({a} || {b}) && {c}")),
        ]
    })
}

fn record() -> impl Strategy<Value = Vec<u8>> {
    let near =
        proptest::collection::vec(proptest::sample::select(b"\0\0\0\x01\x02ab\xff\x80".as_slice()), 0..96);
    let loc = (0u32..100, 0u32..12).prop_map(|(offset, len)| (len << 16 | offset).to_le_bytes());
    (near, loc.clone(), loc.clone(), loc).prop_map(|(mut bytes, path, text, cpus)| {
        for (at, word) in [(32, path), (36, text), (48, cpus), (4, PID.to_le_bytes())] {
            if let Some(field) = bytes.get_mut(at..at + 4) {
                field.copy_from_slice(&word);
            }
        }
        // A record without its common fields would be another task's.
        bytes.resize(bytes.len().max(8), 0);
        bytes[4..8].copy_from_slice(&PID.to_le_bytes());
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn byte_code_answers_as_the_filter(
        filter in filter(),
        records in proptest::collection::vec((0u32..80, record()), 1..8),
        comm in prop_oneof![Just(*b"a\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"), Just(*b"abababab\0\0\0\0\0\0\0\0")],
    ) {
        for (cpu, record) in &records {
            accepted(&filter, *cpu, comm, record);
        }
    }
}

#[test]
fn both_answers_occur() {
    let mut record = vec![0; 64];
    record[4] = 7;
    record[8] = 5;
    record[24..26].copy_from_slice(b"ab");
    let name = *b"tester\0\0\0\0\0\0\0\0\0\0";
    for (filter, expected) in [
        ("n == 5", true),
        ("n == 4 || n == 5 && big == 0", true),
        ("!(n == 5)", false),
        ("!(n == 4 || n == 6) && name ~ \"a*\"", true),
        ("comm == \"tester\" && cpu & CPUS{2}", true),
        ("comm == \"tester\" && cpu & CPUS{3}", false),
        ("!(name == \"ab\" && !(n < 5))", false),
        ("rest == \"\"", true),
    ] {
        assert_eq!(accepted(filter, 2, name, &record), expected, "{filter}");
    }
}

#[test]
fn the_longest_filters_have_byte_code() {
    let many = vec!["n<1"; 800].join("||");
    assert!(!accepted(&many, 0, [0; 16], &[1; 64]));
    let masks = vec!["n==CPUS{0-8191}"; 200].join("||");
    assert!(!accepted(&masks, 0, [0; 16], &[1; 64]));
}

#[test]
fn what_has_no_byte_code_is_refused() {
    let lower = |formats: &Formats, text: &str| {
        Filter::parse(text, formats.by_id(1).unwrap(), &symbols()).unwrap().lower()
    };
    assert_eq!(lower(&formats(Target::BE64), "n == 1"), Err(LowerError::OtherMachine));
    let different: Vec<String> = (8000..8150).map(|cpu| format!("n==CPUS{{{cpu}}}")).collect();
    assert_eq!(lower(&formats(Target::LE64), &different.join("||")), Err(LowerError::TooLarge));
    let mut far = Formats::new(Target::LE64, Dialect::Kernel);
    far.add("test", &FORMAT.replace("offset:56", "offset:70000")).unwrap();
    assert_eq!(lower(&far, "call == 1"), Err(LowerError::FieldOutOfReach));
}

use super::*;
use proptest::prelude::*;

fn step(test: Test, field: Field, operand: u64) -> Step {
    Step { test, field, branch_if: false, target: 2, operand }
}

const N: Field = Field { source: Source::Int, signed: true, offset: 8, size: 4 };

fn program(steps: &[Step], pool: &[u64]) -> Vec<u64> {
    let words = 1 + 2 * steps.len() + pool.len();
    let header = Header { steps: steps.len().try_into().unwrap(), words: words.try_into().unwrap() };
    let mut program = vec![header.pack()];
    program.extend(steps.iter().flat_map(|step| step.pack()));
    program.extend(pool);
    program
}

fn subject(payload: &[u8]) -> Subject<'_> {
    Subject { payload, cpu: 70, comm: &|| *b"writer\0\0\0\0\0\0\0\0\0\0" }
}

fn record(n: i32) -> Vec<u8> {
    [&[0; 8][..], &n.to_le_bytes()].concat()
}

#[test]
fn numbers_keep_their_signs() {
    let less = program(&[step(Test::Number(Comparison::Less), N, (-3i64).cast_unsigned())], &[]);
    assert_eq!(evaluate(&less[..], &subject(&record(-4))), Ok(true));
    assert_eq!(evaluate(&less[..], &subject(&record(4))), Ok(false));
    let unsigned = Field { signed: false, ..N };
    let less = program(&[step(Test::Number(Comparison::Less), unsigned, 5)], &[]);
    assert_eq!(evaluate(&less[..], &subject(&record(-4))), Ok(false));
    assert_eq!(evaluate(&less[..], &subject(&record(4))), Ok(true));
}

#[test]
fn a_field_behind_the_end_satisfies_nothing() {
    for comparison in Comparison::ALL {
        let program = program(&[step(Test::Number(comparison), N, 0)], &[]);
        assert_eq!(evaluate(&program[..], &subject(&[0; 11])), Ok(false));
    }
}

#[test]
fn branches_join_steps() {
    // n == 1 || n == 2
    let equal = |n| step(Test::Number(Comparison::Equal), N, n);
    let either =
        program(&[Step { branch_if: true, target: 2, ..equal(1) }, Step { target: 3, ..equal(2) }], &[]);
    for (n, accepted) in [(1, true), (2, true), (3, false)] {
        assert_eq!(evaluate(&either[..], &subject(&record(n))), Ok(accepted), "{n}");
    }
}

#[test]
fn tasks_and_cpus() {
    let comm = Field { source: Source::Comm, signed: false, offset: 0, size: 0 };
    let glob = program(
        &[step(Test::Glob { equal: true }, comm, operand(3, 4))],
        &[u64::from_le_bytes(*b"wr*r\0\0\0\0")],
    );
    assert_eq!(evaluate(&glob[..], &subject(&[])), Ok(true));
    let cpu = Field { source: Source::Cpu, ..comm };
    let shares = |mask: &[u64]| {
        let place = operand(3, u32::try_from(8 * mask.len()).unwrap());
        let program = program(&[step(Test::Cpus(Comparison::BitAnd), cpu, place)], mask);
        evaluate(&program[..], &subject(&[])).unwrap()
    };
    assert!(shares(&[0, 1 << 6]));
    assert!(!shares(&[u64::MAX]));
    assert!(!shares(&[u64::MAX, !(1 << 6)]));
}

#[test]
fn what_breaks_the_rules_is_damaged() {
    let good = step(Test::Number(Comparison::Equal), N, 1);
    let damaged = |program: &[u64]| {
        assert_eq!(evaluate(program, &subject(&record(1))), Err(Damaged), "{program:x?}");
    };
    damaged(&[]);
    damaged(&[0]);
    damaged(&program(&[good], &[])[..2]);
    damaged(&program(&[Step { branch_if: true, target: 0, ..good }], &[]));
    damaged(&program(&[Step { branch_if: true, target: 9, ..good }], &[]));
    let text = Field { source: Source::Rest, ..N };
    for place in [operand(3, 1), operand(u32::MAX, 8), operand(0, u32::MAX), operand(0, 300)] {
        damaged(&program(&[step(Test::Text { equal: true }, text, place)], &[]));
    }
}

#[test]
fn a_hostile_program_does_not_look_at_patterns_without_end() {
    let text = Field { source: Source::Rest, signed: false, offset: 0, size: 0 };
    let long = Step {
        branch_if: true,
        target: MAX_STEPS,
        ..step(Test::Glob { equal: true }, text, operand(1 + 2 * u32::from(MAX_STEPS), 255))
    };
    let pattern = u64::from_le_bytes(*b"*a*a*a*a");
    let program = program(&vec![long; MAX_STEPS.into()], &[pattern; 32]);
    assert_eq!(evaluate(&program[..], &subject(&[b'b'; 4000])), Err(Damaged));
}

fn words() -> impl Strategy<Value = Vec<u64>> {
    let near = prop_oneof![
        any::<u64>(),
        (0u64..2, 0u64..7, 0u64..9, 0u64..40, 0u64..12, 0u64..24).prop_map(
            |(branch, source, size, offset, target, test)| {
                test | branch << 7 | source << 8 | size << 16 | offset << 32 | target << 48
            }
        ),
        (0u32..30, 0u32..40).prop_map(|(place, len)| operand(place, len)),
    ];
    (0u16..12, proptest::collection::vec(near, 0..40)).prop_map(|(steps, mut words)| {
        let header = Header { steps, words: u32::try_from(words.len() + 1).unwrap() };
        words.insert(0, header.pack());
        words
    })
}

proptest! {
    #[test]
    fn any_words_are_survived(words in words(), payload in proptest::collection::vec(any::<u8>(), 0..60)) {
        check_predicate(&words, &payload);
        let atomic: Vec<AtomicU64> = words.iter().map(|word| AtomicU64::new(*word)).collect();
        let subject = subject(&payload);
        prop_assert_eq!(evaluate(&words[..], &subject), evaluate(&atomic[..], &subject));
    }
}

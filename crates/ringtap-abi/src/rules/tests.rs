use super::*;
use proptest::prelude::*;

/// Words of which many are heads of something.
fn words() -> impl Strategy<Value = Vec<u64>> {
    let word = prop_oneof![
        any::<u64>(),
        (0u32..40, 0u8..4).prop_map(|(words, sections)| BlockHead { words, sections }.pack()),
        (0u32..20, 0u16..4, 0u8..4, any::<bool>()).prop_map(|(words, triggers, instance, has_filter)| {
            SectionHead { words, triggers, instance, has_filter, acts_behind: !has_filter }.pack()
        }),
        (0u32..10, 0usize..7, any::<bool>(), any::<bool>()).prop_map(
            |(words, kind, has_filter, is_counted)| {
                let kind = Kind::ALL[kind];
                TriggerHead { words, event: 7, kind, has_filter, is_counted, is_paused: false }.pack()
            }
        ),
        (0u16..2, 1u32..6).prop_map(|(steps, words)| predicate::Header { steps, words }.pack()),
        0u64..4,
    ];
    proptest::collection::vec(word, 0..48).prop_map(|mut words| {
        let len = u32::try_from(words.len() + 1).unwrap();
        words.insert(0, BlockHead { words: len, sections: 3 }.pack());
        words
    })
}

proptest! {
    #[test]
    fn any_words_are_survived(words in words(), payload in proptest::collection::vec(any::<u8>(), 0..40)) {
        check_rules(&words, &payload);
    }
}

#[test]
fn a_block_is_walked_to_its_end_and_no_further() {
    let program = predicate::Header { steps: 0, words: 1 }.pack();
    let counter = Counter { slot: 3, generation: 9 };
    let trigger = |words, kind, has_filter, is_counted| TriggerHead {
        words,
        event: 5,
        kind,
        has_filter,
        is_counted,
        is_paused: false,
    };
    let first = SectionHead { words: 8, triggers: 2, instance: 1, has_filter: true, acts_behind: true };
    let second = SectionHead { words: 1, triggers: 0, instance: 2, has_filter: false, acts_behind: false };
    let enable = trigger(3, Kind::EnableEvent, true, true);
    let hist = trigger(3, Kind::Hist, true, false);
    let mut block = vec![
        BlockHead { words: 10, sections: 2 }.pack(),
        first.pack(),
        program,
        enable.pack(),
        counter.pack(),
        program,
        hist.pack(),
        17,
        program,
        second.pack(),
        // Of another block.
        first.pack(),
    ];
    let found: Vec<_> = sections(&block[..], 0).map(Result::unwrap).collect();
    assert_eq!(found.iter().map(|section| section.head).collect::<Vec<_>>(), [first, second]);
    assert_eq!(found[0].filter, Some(2));
    let found: Vec<_> = triggers(&block[..], &found[0]).map(Result::unwrap).collect();
    assert_eq!(found[0], Trigger { head: enable, counter: Some(counter), hist: 0, filter: Some(5) });
    assert_eq!(found[1], Trigger { head: hist, counter: None, hist: 17, filter: Some(8) });
    for (place, wrong) in [(0, BlockHead { words: 9, sections: 2 }.pack()), (9, 0), (0, 0)] {
        let right = std::mem::replace(&mut block[place], wrong);
        let last = sections(&block[..], 0).last();
        assert_eq!(last, Some(Err(Damaged)), "{place}: {wrong:x}");
        block[place] = right;
    }
}

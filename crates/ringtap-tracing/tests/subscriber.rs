//! What callsites become, by our own subscriber and by the layer: read back from the ring by the format texts.

mod common;

use common::{Field, Line, names, read};
use ringtap::{Config, Host};
use ringtap_tracing::{Builder, Session};
use std::fmt;
use tracing::field::Empty;
use tracing::{Dispatch, dispatcher, info, info_span, trace, warn};
use tracing_subscriber::layer::SubscriberExt;

/// Runs under our subscriber, then under the layer on a registry, and hands over what each wrote.
fn both(run: impl Fn(&Session), check: impl Fn(&str, Vec<Line>)) {
    let builder = || Builder::new().embedded().unserved().without_log();
    let finish = |kind: &str, dispatch: Dispatch, session: Session| {
        dispatcher::with_default(&dispatch, || run(&session));
        let (lines, lost) = read(session.host().expect("it is embedded"));
        assert_eq!((lost, session.unwritten()), (0, 0));
        check(kind, lines);
    };
    let (subscriber, session) = builder().subscriber().expect("memory");
    finish("subscriber", Dispatch::new(subscriber), session);
    let (layer, session) = builder().layer().expect("memory");
    finish("layer", Dispatch::new(tracing_subscriber::registry().with(layer)), session);
}

#[test]
fn fields_keep_their_names_and_types() {
    let run = |_: &Session| {
        info!(
            count = 7u8,
            change = -3i32,
            ratio = 0.5,
            ok = true,
            name = "cart",
            shown = %format_args!("{}/{}", 1, 2),
            list = ?[1, 2],
            huge = u128::MAX,
            r#type = "keyword",
            span = 9u64,
            "done with {}",
            "it"
        );
        warn!("only a message");
        trace!(target: "audit log", bytes = &b"\x01\x02"[..]);
        info!(name: "a name", last = 1);
    };
    both(run, |kind, lines| {
        let [all, message, bytes, named] = lines.as_slice() else { panic!("{kind}: {lines:#?}") };
        assert!(all.name.starts_with("subscriber:subscriber_"), "{}", all.name);
        for (name, expected) in [
            ("count", Field::Unsigned(7)),
            ("change", Field::Signed(-3)),
            ("ratio", Field::Float(0.5)),
            ("ok", Field::Unsigned(1)),
            ("name", Field::Text("cart".into())),
            ("shown", Field::Text("1/2".into())),
            ("list", Field::Text("[1, 2]".into())),
            ("huge", Field::Text(u128::MAX.to_string())),
            ("type", Field::Text("keyword".into())),
            ("span", Field::Unsigned(0)),
            ("_span", Field::Unsigned(9)),
            ("message", Field::Text("done with it".into())),
        ] {
            assert_eq!(all.get(name), &expected, "{name}");
        }
        // Floats are shown by the fields' types.
        assert!(all.text.contains("ratio=0.5"), "{}", all.text);
        assert!(message.text.starts_with("WARN only a message span=0x0 (subscriber.rs:"), "{}", message.text);
        assert!(bytes.name.starts_with("audit_log:subscriber_"), "{}", bytes.name);
        assert_eq!(bytes.get("bytes"), &Field::Bytes(vec![1, 2]));
        assert_eq!(
            (named.name.as_str(), named.text.split(" (").next()),
            ("subscriber:a_name", Some("INFO last=1 span=0x0"))
        );
    });
}

#[test]
fn a_span_tells_its_life() {
    let run = |_: &Session| {
        let other = info_span!("other");
        let span = info_span!("request", path = "/cart", status = Empty);
        span.in_scope(|| {
            info!("inside");
            let child = info_span!("query");
            child.in_scope(|| ());
            span.record("status", 200);
        });
        span.follows_from(&other);
        let second = span.clone();
        drop(span);
        second.in_scope(|| ());
        info_span!(parent: &second, "explicit");
        info_span!(parent: None, "root");
        info!(parent: &other, "in another");
    };
    both(run, |kind, lines| {
        let short: Vec<&str> =
            names(&lines).into_iter().map(|name| name.split_once(':').unwrap().1).collect();
        let [
            other,
            request,
            enter,
            inside,
            query,
            ..,
            exit,
            follows,
            again,
            out,
            explicit,
            _,
            root,
            _,
            elsewhere,
            _,
            _,
        ] = lines.as_slice()
        else {
            panic!("{kind}: {short:#?}")
        };
        let parts = ["request", "query", "query_enter", "query_exit", "request_record", "query_close"];
        assert_eq!(short[1], parts[0]);
        assert_eq!(short[4..9], parts[1..], "{kind}");
        for (line, name) in [(enter, "enter"), (exit, "exit"), (again, "enter"), (out, "exit")] {
            assert_eq!(line.name, format!("subscriber:request_{name}"), "{kind}: {short:#?}");
            assert_eq!(line.span(), request.span(), "{kind}");
        }
        assert_eq!(request.get("path"), &Field::Text("/cart".into()));
        assert!(!request.fields.contains_key("status"), "it came later");
        assert_eq!(request.number("parent"), 0);
        assert_eq!(inside.span(), request.span(), "{kind}");
        assert_eq!(query.number("parent"), request.span(), "{kind}");
        let record = &lines[7];
        assert_eq!((record.span(), record.get("status")), (request.span(), &Field::Signed(200)));
        assert_eq!((follows.span(), follows.number("follows")), (request.span(), other.span()));
        assert_eq!(explicit.number("parent"), request.span());
        assert_eq!(root.number("parent"), 0);
        assert_eq!(elsewhere.span(), other.span());
        let ends =
            [&lines[lines.len() - 2], &lines[lines.len() - 1]].map(|line| (line.name.as_str(), line.span()));
        assert_eq!(
            ends,
            [("subscriber:request_close", request.span()), ("subscriber:other_close", other.span())]
        );
    });
}

/// One callsite, several types.
fn generic(value: impl tracing::Value, maybe: Option<u64>) {
    info!(name: "generic", value, maybe);
}

#[test]
fn a_callsite_with_several_types_is_several_events() {
    let run = |_: &Session| {
        for _ in 0..2 {
            generic(1u64, None);
            generic("text", Some(2));
            generic(0.5, Some(3));
            generic(1u64, Some(4));
        }
    };
    both(run, |kind, lines| {
        let expected =
            ["generic", "generic_2", "generic_3", "generic_4"].map(|name| format!("subscriber:{name}"));
        assert_eq!(names(&lines)[..4], expected, "{kind}");
        assert_eq!(names(&lines)[4..], expected, "{kind}");
        assert_eq!(lines[5].get("value"), &Field::Text("text".into()));
        assert_eq!(lines[5].get("maybe"), &Field::Unsigned(2));
        assert_eq!(lines[4].fields.keys().collect::<Vec<_>>(), ["span", "value"]);
    });
}

mod one {
    pub(super) fn span() -> tracing::Span {
        tracing::info_span!("same", a = 1)
    }
}

mod two {
    pub(super) fn span() -> tracing::Span {
        tracing::info_span!("same", a = 1)
    }
}

#[test]
fn callsites_of_one_name_are_told_apart() {
    let run = |_: &Session| drop((one::span(), two::span()));
    both(run, |kind, lines| {
        let made: Vec<_> = lines.iter().filter(|line| line.fields.contains_key("parent")).collect();
        assert_eq!(made[0].name, "subscriber:same", "{kind}");
        assert_eq!(made[1].name, "subscriber:two_same", "{kind}");
    });
}

/// Text of any length, and a `Debug` that panics on request.
struct Awkward(usize, bool);

impl fmt::Debug for Awkward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        assert!(!self.1, "told to");
        (0..self.0).try_for_each(|_| f.write_str("é"))
    }
}

#[test]
fn long_texts_are_cut_and_awkward_ones_do_no_harm() {
    let run = |_: &Session| {
        for len in [0, 1, 900, 1500, 100_000] {
            info!(name: "long", first = ?Awkward(len, false), second = "behind", number = 5);
        }
        let panics = std::panic::catch_unwind(|| info!(name: "panics", field = ?Awkward(3, true)));
        assert!(panics.is_err());
        info!(name: "after", number = 6);
    };
    both(run, |kind, lines| {
        let long: Vec<&Line> = lines.iter().filter(|line| line.name == "subscriber:long").collect();
        assert_eq!(long.len(), 5, "{kind}");
        for (line, len) in long.into_iter().zip([0, 1, 900, 1500, 100_000]) {
            let Field::Text(first) = line.get("first") else { panic!("{line:?}") };
            assert!(first.chars().all(|c| c == 'é'));
            let expected = if len > 900 { 900..1100 } else { len..len + 1 };
            assert!(expected.contains(&first.chars().count()), "{len}: {}", first.len());
            assert_eq!(line.get("number"), &Field::Signed(5));
            let second = if len > 900 { "" } else { "behind" };
            assert_eq!(line.get("second"), &Field::Text(second.into()));
        }
        assert_eq!(lines.last().expect("one").name, "subscriber:after", "{kind}");
    });
}

#[test]
fn events_are_switched_while_the_program_runs() {
    let run = |session: &Session| {
        let hit = || {
            info!(name: "first", n = 1);
            info_span!("work").in_scope(|| info!(name: "second", n = 2));
        };
        hit();
        assert_eq!(session.switch("subscriber:first", false), 1);
        hit();
        assert!(session.switch("subscriber:*", false) >= 6);
        hit();
        info!(name: "second_of_all", n = 3);
        session.switch("subscriber:work_e*", true);
        hit();
        session.switch("*", true);
        hit();
    };
    both(run, |kind, lines| {
        let names: Vec<_> = names(&lines).into_iter().map(|name| name.split_once(':').unwrap().1).collect();
        let work = ["work", "work_enter", "second", "work_exit"];
        let all: Vec<&str> = ["first"].into_iter().chain(work).collect();
        let expected = [all.clone(), work.to_vec(), vec!["work_enter", "work_exit"], all].concat();
        assert_eq!(names, expected, "{kind}");
    });
}

#[test]
fn a_close_that_tells_nothing_is_left_out() {
    let hit = || {
        info_span!("plain").in_scope(|| ());
        let late = info_span!("late");
        late.in_scope(|| ());
        info!(name: "between", n = 1);
        drop(late);
        drop(info_span!("unused"));
    };
    for every in [false, true] {
        let builder = Builder::new().embedded().unserved();
        let builder = if every { builder.every_close() } else { builder };
        let (subscriber, session) = builder.subscriber().expect("memory");
        tracing::subscriber::with_default(subscriber, hit);
        let lines = read(session.host().expect("embedded")).0;
        let closed: Vec<_> = names(&lines).into_iter().filter(|name| name.ends_with("_close")).collect();
        let expected = ["subscriber:plain_close", "subscriber:late_close", "subscriber:unused_close"];
        assert_eq!(closed, expected[usize::from(!every)..]);
    }
}

#[test]
fn levels_are_bounded() {
    let builder = Builder::new().embedded().unserved().max_level(tracing::Level::WARN);
    let (subscriber, session) = builder.subscriber().expect("memory");
    tracing::subscriber::with_default(subscriber, || {
        info!("no");
        warn!("yes");
        assert!(info_span!("no").is_disabled());
    });
    assert_eq!(read(session.host().expect("embedded")).0.len(), 1);
}

#[test]
fn filters_stand_on_the_subscriber_itself() {
    let (subscriber, session) = Builder::new().embedded().unserved().subscriber().expect("memory");
    let filtered = subscriber.with(tracing_subscriber::filter::LevelFilter::WARN);
    tracing::subscriber::with_default(filtered, || {
        info!("no");
        tracing::warn_span!("yes").in_scope(|| warn!("yes"));
    });
    assert_eq!(read(session.host().expect("embedded")).0.len(), 4);
}

#[test]
fn other_layers_come_along() {
    use std::sync::{Arc, Mutex};
    #[derive(Clone, Default)]
    struct Text(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Text {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("no panic").extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let text = Text::default();
    let (subscriber, session) = Builder::new().embedded().unserved().subscriber().expect("memory");
    let writer = text.clone();
    let fmt = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(move || writer.clone());
    tracing::subscriber::with_default(subscriber.and(fmt), || {
        info_span!("request", path = "/").in_scope(|| info!("both see it"));
    });
    let lines = read(session.host().expect("embedded")).0;
    assert_eq!(lines.len(), 4);
    let text = String::from_utf8(text.0.lock().expect("no panic").clone()).expect("UTF-8");
    assert!(text.contains("request{path=\"/\"}: subscriber: both see it"), "{text}");
}

#[test]
fn two_programs_of_one_kind_share_events() {
    let host = Host::new(&Config::default()).expect("memory");
    let place = std::env::temp_dir().join(format!("ringtap-tracing-{}", std::process::id()));
    let server = host.serve(place.join("host.sock")).expect("it can serve");
    for _ in 0..2 {
        let (subscriber, session) =
            Builder::new().attach(server.path()).subscriber().expect("a host is there");
        assert!(session.host().is_none());
        tracing::subscriber::with_default(subscriber, || {
            info_span!("shared", n = 1u64).in_scope(|| info!(name: "inner", n = 2u64));
            generic("text", None);
        });
        assert_eq!(session.unwritten(), 0);
    }
    let (lines, _) = read(&host);
    assert_eq!(lines.len(), 10);
    assert_eq!(names(&lines)[..5], names(&lines)[5..]);
    assert_ne!(lines[0].span(), lines[5].span());
    drop(server);
    let _ = std::fs::remove_dir_all(&place);
}

#[test]
fn a_host_that_is_gone_is_named() {
    let missing = std::env::temp_dir().join("ringtap-tracing-no-such-directory/host.sock");
    let error = Builder::new().attach(&missing).subscriber().expect_err("nobody is there");
    assert!(error.to_string().starts_with("failed to attach to the host at "), "{error}");
}

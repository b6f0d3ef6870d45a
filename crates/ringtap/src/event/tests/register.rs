//! Ids: one for each event of a process, whoever asks and however often.

use super::{Ids, host};
use crate::Refused;
use crate::event::{EventError, Register};
use std::io;

#[test]
fn threads_that_register_the_same_event_get_one_id() {
    crate::event! { struct Shared as demo:shared { number: u32 } }
    let ids = Ids::from(60);
    let register =
        || (0..100).map(|_| Shared::register(&ids).expect("nothing refuses it")).collect::<Vec<_>>();
    let seen: Vec<u16> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(register)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    });
    assert_eq!(seen, [60; 800]);
    assert_eq!(Shared::declared().id(), Some(60));
}

#[test]
fn an_event_is_off_until_registered_and_stays_as_it_was_switched() {
    crate::event! { struct Switched as demo:switched { number: u32 } }
    let (host, ids) = (host(), Ids::from(61));
    let writer = host.writer();
    let event = Switched { number: 1 };
    assert_eq!(event.try_write(&writer), Err(Refused::Off));
    Switched::set_on(true);
    assert!(!Switched::is_on(), "an event without an id cannot be on");
    Switched::register(&ids).expect("nothing refuses it");
    event.write(&writer);
    Switched::set_on(false);
    Switched::register(&ids).expect("nothing refuses it");
    assert!(!Switched::is_on(), "registering again does not switch");
    event.write(&writer);
    Switched::write_with(&writer, || unreachable!("the event is off"));
    Switched::set_on(true);
    Switched::write_with(&writer, || event);
    assert_eq!(super::pages::payloads(&host).len(), 2);
}

#[test]
fn a_second_instance_has_to_give_the_same_id() {
    crate::event! { struct Twice as demo:twice { number: u32 } }
    Twice::register(&Ids::from(62)).expect("nothing refuses it");
    assert_eq!(Twice::register(&Ids::from(62)).expect("the same id"), 62);
    let error = Twice::register(&Ids::from(63)).expect_err("another id");
    assert!(matches!(error, EventError::OtherId { given: 63, held: 62, .. }));
    assert_eq!(
        error.to_string(),
        "the event demo:twice has the id 63 here but 62 where this process registered it before: \
         unregister it there, or register the same events in the same order with both"
    );
    Twice::declared().unregister();
    assert_eq!(Twice::register(&Ids::from(63)).expect("it was free"), 63);
}

#[test]
fn two_hosts_that_are_told_the_same_share_an_events_id() {
    crate::event! { struct First as demo:first { number: u32 } }
    crate::event! { struct Second as demo:second { number: u32 } }
    let (one, other) = (host(), host());
    let ids = (First::register(&one).expect("a new event"), Second::register(&one).expect("a new event"));
    assert!(matches!(Second::register(&other), Err(EventError::OtherId { .. })), "another order");
    let third = host();
    assert_eq!(First::register(&third).expect("the same order"), ids.0);
    assert_eq!(Second::register(&third).expect("the same order"), ids.1);
}

#[test]
fn another_event_of_the_same_name_is_refused_with_the_hosts_reason() {
    mod other {
        crate::event! { pub(super) struct Same as demo:same { bytes: u64 } }
    }
    crate::event! { struct Same as demo:same { number: u32 } }
    let host = host();
    Same::register(&host).expect("a new event");
    let error = other::Same::register(&host).expect_err("another event");
    let source = std::error::Error::source(&error).expect("why").to_string();
    assert!(source.contains("field:u32 number;") && source.contains("field:u64 bytes;"), "{source}");
    assert!(!other::Same::is_on());
}

#[test]
fn what_the_instance_says_is_the_errors_source() {
    struct Refuses;
    impl Register for Refuses {
        type Error = io::Error;
        fn register_event(&self, _: &str, _: &str, _: &str) -> io::Result<u16> {
            Err(io::Error::other("the table is full"))
        }
    }
    crate::event! { struct Unwanted as demo:unwanted { number: u32 } }
    let error = Unwanted::register(&Refuses).expect_err("it refuses");
    assert_eq!(error.to_string(), "failed to register the event demo:unwanted");
    let source = std::error::Error::source(&error).expect("why");
    assert_eq!(source.to_string(), "the table is full");
    assert!(!Unwanted::is_on());
}

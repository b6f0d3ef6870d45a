//! Fields of records as Perfetto's values.

use super::Names;
use super::proto::{
    Annotated, DebugAnnotation, Event, FtraceEvent, SchedSwitchFtraceEvent, SchedWakeupFtraceEvent,
};
use crate::format::{Element, Field, Meaning};
use crate::out;
use crate::target::Target;
use crate::text::{Common, Entry};
use crate::value::Value;

/// An annotation of one number.
pub(super) fn number(name: u64, value: Annotated) -> DebugAnnotation {
    DebugAnnotation { name_iid: Some(name), value: Some(value), array_values: Vec::new() }
}

/// An annotation of bytes whose meaning is not known.
pub(super) fn bytes(name: u64, bytes: &[u8]) -> DebugAnnotation {
    number(name, Annotated::String(hex(bytes)))
}

/// An event's fields; those that the record is too short for are left out.
pub(super) fn annotations(event: &crate::Event, record: &[u8], names: &mut Names) -> Vec<DebugAnnotation> {
    let target = event.target();
    let one = |field: &Field| {
        let value = field.value(record, target)?;
        let name = Some(names.id(&field.name));
        Some(match (value, field.element()) {
            (Value::Bytes(bytes), Some(element)) => array(name, bytes, element, target),
            (Value::Bytes(bytes), None) => single(name, Annotated::String(hex(bytes))),
            (value, _) => single(name, scalar(value)),
        })
    };
    event.fields().iter().filter_map(one).collect()
}

fn single(name_iid: Option<u64>, value: Annotated) -> DebugAnnotation {
    DebugAnnotation { name_iid, value: Some(value), array_values: Vec::new() }
}

fn scalar(value: Value<'_>) -> Annotated {
    match value {
        Value::Unsigned(value) => Annotated::Uint(value),
        Value::Signed(value) => Annotated::Int(value),
        Value::Address(value) => Annotated::Pointer(value),
        Value::Float(value) => Annotated::Double(value),
        Value::Text(text) => Annotated::String(lossy(text)),
        Value::Bytes(bytes) => Annotated::String(hex(bytes)),
    }
}

/// As JSON lines have them: masks and structures are strings.
fn array(name_iid: Option<u64>, bytes: &[u8], element: Element, target: Target) -> DebugAnnotation {
    match (element.meaning, u8::try_from(element.size)) {
        (Meaning::Mask, _) => {
            let mut words = Vec::new();
            crate::print::print_mask(bytes, target, &mut words);
            single(name_iid, Annotated::String(lossy(&words)))
        }
        (meaning, Ok(size @ (1 | 2 | 4 | 8))) => {
            let value = |chunk: &[u8]| {
                let value = target.int(chunk, 0, size, element.signed).unwrap_or(0);
                let value = match (meaning, element.signed) {
                    (Meaning::Pointers, _) => Annotated::Pointer(value),
                    (_, true) => Annotated::Int(value.cast_signed()),
                    (_, false) => Annotated::Uint(value),
                };
                single(None, value)
            };
            let array_values = bytes.chunks_exact(usize::from(size)).map(value).collect();
            DebugAnnotation { name_iid, value: None, array_values }
        }
        _ => single(name_iid, Annotated::String(hex(bytes))),
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut text = Vec::with_capacity(bytes.len().saturating_mul(2));
    bytes.iter().for_each(|byte| out::hex_byte(&mut text, *byte, false));
    lossy(&text)
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A switch or a wake-up; `None` where the record lacks what Perfetto needs of it.
pub(super) fn scheduled(event: &crate::Event, entry: &Entry<'_>, common: Common) -> Option<FtraceEvent> {
    let (record, target) = (entry.record, event.target());
    let text = |name: &str| Some(lossy(event.field(name)?.text(record, target)?));
    let long = |name: &str| Some(event.field(name)?.int(record, target)?.cast_signed());
    let int = |name: &str| i32::try_from(long(name)?).ok();
    let wake = || {
        Some(SchedWakeupFtraceEvent {
            comm: Some(text("comm")?),
            pid: Some(int("pid")?),
            prio: int("prio"),
            success: int("success"),
            target_cpu: int("target_cpu"),
        })
    };
    let made = match event.name() {
        "sched_switch" => Event::SchedSwitch(SchedSwitchFtraceEvent {
            prev_comm: Some(text("prev_comm")?),
            prev_pid: Some(int("prev_pid")?),
            prev_prio: int("prev_prio"),
            prev_state: Some(long("prev_state")?),
            next_comm: Some(text("next_comm")?),
            next_pid: Some(int("next_pid")?),
            next_prio: int("next_prio"),
        }),
        "sched_waking" => Event::SchedWaking(wake()?),
        "sched_wakeup" => Event::SchedWakeup(wake()?),
        "sched_wakeup_new" => Event::SchedWakeupNew(wake()?),
        _ => return None,
    };
    Some(FtraceEvent {
        timestamp: Some(entry.time),
        pid: Some(common.pid.cast_unsigned()),
        common_flags: Some(common.flags.into()),
        event: Some(made),
    })
}

//! Numbers of the kernel's that a `print fmt` names: enum members that were not replaced when the kernel was built.

use std::collections::HashMap;

/// Enum members and macros by name, and sizes of structures.
///
/// It starts with those that the kernel's user-space interface fixes for good; what changes from kernel to kernel
/// can be added with [`define`](Self::define).
#[derive(Clone, Debug, Default)]
pub struct Constants {
    values: HashMap<Box<str>, i64>,
    sizes: HashMap<Box<str>, u32>,
    hz: Option<u32>,
}

impl Constants {
    /// The constants that no kernel changes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives `name` a value, before the formats that use it are added.
    pub fn define(&mut self, name: &str, value: i64) {
        self.values.insert(name.into(), value);
    }

    /// Gives `name` a value unless it has one.
    pub(crate) fn define_if_new(&mut self, name: &str, value: i64) {
        if self.value(name).is_none() {
            self.define(name, value);
        }
    }

    /// Gives a type, spelled as in the `print fmt`, its size in bytes.
    pub fn define_size(&mut self, type_name: &str, size: u32) {
        self.sizes.insert(type_name.into(), size);
    }

    /// Sets the length of a jiffy: `CONFIG_HZ` of the kernel that wrote the trace.
    pub fn set_hz(&mut self, hz: u32) {
        self.hz = Some(hz).filter(|&hz| hz > 0);
    }

    /// Jiffies a second, where they are known.
    #[must_use]
    pub const fn hz(&self) -> Option<u32> {
        self.hz
    }

    /// The value of `name`.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<i64> {
        self.values.get(name).copied().or_else(|| fixed(name))
    }

    /// The size of a type that is not one of C's integers, in bytes.
    #[must_use]
    pub fn size(&self, type_name: &str) -> Option<u32> {
        self.sizes.get(type_name).copied()
    }
}

/// Members of enums that user space sees, which therefore never change.
fn fixed(name: &str) -> Option<i64> {
    const TCP: [&str; 13] = [
        "",
        "TCP_ESTABLISHED",
        "TCP_SYN_SENT",
        "TCP_SYN_RECV",
        "TCP_FIN_WAIT1",
        "TCP_FIN_WAIT2",
        "TCP_TIME_WAIT",
        "TCP_CLOSE",
        "TCP_CLOSE_WAIT",
        "TCP_LAST_ACK",
        "TCP_LISTEN",
        "TCP_CLOSING",
        "TCP_NEW_SYN_RECV",
    ];
    const IO_PRIORITY: [&str; 4] =
        ["IOPRIO_CLASS_NONE", "IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE"];
    const SOFTIRQ: [&str; 10] = [
        "HI_SOFTIRQ",
        "TIMER_SOFTIRQ",
        "NET_TX_SOFTIRQ",
        "NET_RX_SOFTIRQ",
        "BLOCK_SOFTIRQ",
        "IRQ_POLL_SOFTIRQ",
        "TASKLET_SOFTIRQ",
        "SCHED_SOFTIRQ",
        "HRTIMER_SOFTIRQ",
        "RCU_SOFTIRQ",
    ];
    let place = |list: &[&str]| list.iter().zip(0i64..).find(|(known, _)| **known == name).map(|(_, at)| at);
    if name.is_empty() {
        return None;
    }
    place(&TCP).or_else(|| place(&IO_PRIORITY)).or_else(|| place(&SOFTIRQ)).or(match name {
        "IOPRIO_CLASS_INVALID" => Some(7),
        "HRTIMER_NORESTART" | "false" | "NULL" => Some(0),
        "HRTIMER_RESTART" | "true" => Some(1),
        "AF_UNIX" => Some(1),
        "AF_INET" => Some(2),
        "AF_INET6" => Some(10),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_and_defined_ones() {
        let mut constants = Constants::new();
        assert_eq!(constants.value("TCP_LISTEN"), Some(10));
        assert_eq!(constants.value("IOPRIO_CLASS_BE"), Some(2));
        assert_eq!(constants.value("I_NEW"), None);
        constants.define("I_NEW", 1);
        assert_eq!(constants.value("I_NEW"), Some(1));
        assert_eq!(constants.value(""), None);
        constants.set_hz(0);
        assert_eq!(constants.hz(), None);
    }
}

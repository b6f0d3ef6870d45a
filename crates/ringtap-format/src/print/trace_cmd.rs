//! What libtraceevent, and so `trace-cmd report`, knows and the kernel does not, or the other way round.

/// The value that it gives to a name in the table of `__print_flags` or `__print_symbolic`. It knows the software
/// interrupts and the answers of timers by heart, and takes all others for -1.
pub(super) fn constant(name: &str) -> u64 {
    const KNOWN: [(&str, u64); 14] = [
        ("HI_SOFTIRQ", 0),
        ("TIMER_SOFTIRQ", 1),
        ("NET_TX_SOFTIRQ", 2),
        ("NET_RX_SOFTIRQ", 3),
        ("BLOCK_SOFTIRQ", 4),
        ("IRQ_POLL_SOFTIRQ", 5),
        ("TASKLET_SOFTIRQ", 6),
        ("SCHED_SOFTIRQ", 7),
        ("HRTIMER_SOFTIRQ", 8),
        ("RCU_SOFTIRQ", 9),
        ("HRTIMER_NORESTART", 0),
        ("HRTIMER_RESTART", 1),
        ("BLOCK_IOPOLL_SOFTIRQ", 5),
        ("false", u64::MAX),
    ];
    KNOWN.iter().find(|(known, _)| *known == name).map_or(u64::MAX, |(_, value)| *value)
}

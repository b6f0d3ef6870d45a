//! What libtraceevent, and so `trace-cmd report`, knows and the kernel does not, or the other way round.

use crate::format::Format;

/// The value that it gives to a name in the table of `__print_flags` or `__print_symbolic`. It knows the software
/// interrupts and the answers of timers by heart, and takes all others for -1.
pub(super) fn constant(name: &str) -> u64 {
    const KNOWN: [(&str, u64); 13] = [
        ("HI_SOFTIRQ", 0),
        ("TIMER_SOFTIRQ", 1),
        ("NET_TX_SOFTIRQ", 2),
        ("NET_RX_SOFTIRQ", 3),
        ("BLOCK_SOFTIRQ", 4),
        ("IRQ_POLL_SOFTIRQ", 5),
        ("BLOCK_IOPOLL_SOFTIRQ", 5),
        ("TASKLET_SOFTIRQ", 6),
        ("SCHED_SOFTIRQ", 7),
        ("HRTIMER_SOFTIRQ", 8),
        ("RCU_SOFTIRQ", 9),
        ("HRTIMER_NORESTART", 0),
        ("HRTIMER_RESTART", 1),
    ];
    KNOWN.iter().find(|(known, _)| *known == name).map_or(u64::MAX, |(_, value)| *value)
}

/// The `print fmt` that does what libtraceevent's plugin for this event does, where there is one. Three calls in it
/// are ours: `__caller()`, `__function()` and `__argument()`.
pub(crate) fn plugin(system: &str, format: &Format) -> Option<String> {
    let has = |name: &str| format.field(name).is_some();
    let print_fmt = match (system, format.name.as_str()) {
        ("sched", "sched_switch") if has("prev_state") => SCHED_SWITCH,
        ("sched", "sched_wakeup" | "sched_wakeup_new") if has("target_cpu") && !has("success") => {
            SCHED_WAKEUP
        }
        ("timer", "hrtimer_start") if has("softexpires") => HRTIMER_START,
        ("timer", "hrtimer_expire_entry") if has("now") && has("function") => HRTIMER_EXPIRE_ENTRY,
        ("tlb", "tlb_flush") if has("pages") => TLB_FLUSH,
        ("syscalls", "sys_enter_futex") if has("val3") => return Some(futex()),
        (
            "kmem",
            "kmalloc"
            | "kmalloc_node"
            | "kfree"
            | "kmem_cache_alloc"
            | "kmem_cache_alloc_node"
            | "kmem_cache_free",
        ) if has("call_site") => {
            let (head, args) = format.print_fmt.strip_prefix('"')?.split_once('"')?;
            return Some(format!("\"%s{head}\", __caller(REC->call_site){args}"));
        }
        _ => return None,
    };
    Some(print_fmt.to_owned())
}

/// The states' letters are those of old kernels.
const SCHED_SWITCH: &str = r#""%s:%d [%d] %s ==> %s:%d [%d]", REC->prev_comm, REC->prev_pid, REC->prev_prio,
    REC->prev_state & 255 ? __print_flags(REC->prev_state & 255, "|", {1, "S"}, {2, "D"}, {4, "T"}, {8, "t"},
    {16, "Z"}, {32, "X"}, {64, "x"}, {128, "W"}) : "R", REC->next_comm, REC->next_pid, REC->next_prio"#;

const SCHED_WAKEUP: &str = r#""%s:%d [%d] CPU:%03d", REC->comm, REC->pid, REC->prio, REC->target_cpu"#;

const HRTIMER_START: &str = r#""hrtimer=0x%llx function=%s expires=%lld softexpires=%lld", REC->hrtimer,
    __function(REC->function), REC->expires, REC->softexpires"#;

const HRTIMER_EXPIRE_ENTRY: &str = r#""hrtimer=0x%llx now=%llu function=%s", REC->hrtimer, REC->now,
    __function(REC->function)"#;

/// Reasons that it does not know it leaves out.
const TLB_FLUSH: &str = r#""pages=%ld reason=%s (%d)", REC->pages, REC->reason < 4 ? __print_symbolic(REC->reason,
    {0, "flush on task switch"}, {1, "remote shootdown"}, {2, "local shootdown"}, {3, "local mm shootdown"}) : "",
    REC->reason"#;

/// The operation's name, and of the other arguments those that it uses.
fn futex() -> String {
    /// The name and a letter for each argument: `v`al, val as a decimal `n`umber, u`t`ime, val`2` (a number in the
    /// timeout's place), `u`addr2, val`3`.
    const OPERATIONS: [(&str, &str); 13] = [
        ("FUTEX_WAIT", "vt"),
        ("FUTEX_WAKE", "n"),
        ("FUTEX_FD", "n"),
        ("FUTEX_REQUEUE", "n2u"),
        ("FUTEX_CMP_REQUEUE", "n2u3"),
        ("FUTEX_WAKE_OP", "n2u3"),
        ("FUTEX_LOCK_PI", "t"),
        ("FUTEX_UNLOCK_PI", ""),
        ("FUTEX_TRYLOCK_PI", ""),
        ("FUTEX_WAIT_BITSET", "vt3"),
        ("FUTEX_WAKE_BITSET", "n3"),
        ("FUTEX_WAIT_REQUEUE_PI", "vtu3"),
        ("FUTEX_CMP_REQUEUE_PI", "n2u3"),
    ];
    let operation = "REC->op & ~384";
    let named =
        |letter: char| OPERATIONS.iter().zip(0u32..).filter(move |((_, used), _)| used.contains(letter));
    let argument = |letter: char, text: &str, field: &str, digits: u8| {
        let mask = named(letter).fold(0u64, |mask, (_, number)| mask | 1u64.wrapping_shl(number));
        format!(", __argument({mask:#x}, REC->op & 127, \"{text}\", {field}, {digits})")
    };
    let arguments = [
        argument('v', " val=0x", "REC->val", 8),
        argument('n', " val=", "REC->val", 0),
        argument('t', " utime=0x", "REC->utime", 8),
        argument('2', " val2=", "REC->utime", 0),
        argument('u', " uaddr2=0x", "REC->uaddr2", 8),
        argument('3', " val3=0x", "REC->val3", 8),
    ];
    let names: String =
        OPERATIONS.iter().zip(0..).map(|((name, _), number)| format!(", {{{number}, \"{name}\"}}")).collect();
    format!(
        "\"op=%s%s%s uaddr=0x%08llx%s%s%s%s%s%s\", __print_symbolic({operation}{names}), REC->op & 128 ? \
         \"|FUTEX_PRIVATE_FLAG\" : \"\", REC->op & 256 ? \"|FUTEX_CLOCK_REALTIME\" : \"\", REC->uaddr{}",
        arguments.concat()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Target;

    #[test]
    fn only_events_with_the_fields_have_plugins() {
        let format = |name: &str, field: &str| {
            let text =
                format!("name: {name}\nID: 1\nformat:\n\tfield:int {field};offset:8;size:4;signed:1;\n");
            Format::parse("x", &text, Target::LE64).unwrap()
        };
        assert!(plugin("sched", &format("sched_switch", "prev_state")).is_some());
        assert!(plugin("sched", &format("sched_switch", "state")).is_none());
        assert!(plugin("mine", &format("sched_switch", "prev_state")).is_none());
    }
}

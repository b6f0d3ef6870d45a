//! Events that libtraceevent's plugins print in their own way instead of by the `print fmt`.

use super::Sources;
use crate::event::Event;
use crate::out;
use crate::print::Dialect;

/// Appends the text of an event that has a plugin; false where it has none or lacks a field.
pub(super) fn print(event: &Event, record: &[u8], sources: &Sources<'_>, out: &mut Vec<u8>) -> bool {
    let fields = Fields { event, record, sources };
    let start = out.len();
    let printed = match (event.system(), event.name()) {
        ("sched", "sched_switch") => fields.sched_switch(out),
        ("sched", "sched_wakeup" | "sched_wakeup_new") => fields.sched_wakeup(out),
        ("timer", "hrtimer_start") => fields.hrtimer_start(out),
        ("timer", "hrtimer_expire_entry") => fields.hrtimer_expire_entry(out),
        ("kmem", "kmalloc" | "kmalloc_node" | "kfree") => fields.call_site(out),
        ("kmem", "kmem_cache_alloc" | "kmem_cache_alloc_node" | "kmem_cache_free") => fields.call_site(out),
        ("tlb", "tlb_flush") => fields.tlb_flush(out),
        ("syscalls", "sys_enter_futex") => fields.futex(out),
        _ => None,
    };
    if printed.is_none() {
        out.truncate(start);
    }
    printed.is_some()
}

/// The operations of futex(2) by number: the name, and a letter for each argument that is printed: `v`al, val as a
/// decimal `n`umber, u`t`ime, val`2`, `u`addr2, val`3`.
const FUTEX_OPS: [(&[u8], &[u8]); 13] = [
    (b"FUTEX_WAIT", b"vt"),
    (b"FUTEX_WAKE", b"n"),
    (b"FUTEX_FD", b"n"),
    (b"FUTEX_REQUEUE", b"n2u"),
    (b"FUTEX_CMP_REQUEUE", b"n2u3"),
    (b"FUTEX_WAKE_OP", b"n2u3"),
    (b"FUTEX_LOCK_PI", b"t"),
    (b"FUTEX_UNLOCK_PI", b""),
    (b"FUTEX_TRYLOCK_PI", b""),
    (b"FUTEX_WAIT_BITSET", b"vt3"),
    (b"FUTEX_WAKE_BITSET", b"n3"),
    (b"FUTEX_WAIT_REQUEUE_PI", b"vtu3"),
    (b"FUTEX_CMP_REQUEUE_PI", b"n2u3"),
];

#[derive(Clone, Copy)]
struct Fields<'a> {
    event: &'a Event,
    record: &'a [u8],
    sources: &'a Sources<'a>,
}

impl Fields<'_> {
    fn int(&self, name: &str) -> Option<u64> {
        self.event.field(name)?.int(self.record, self.event.target())
    }

    fn put_int(&self, name: &str, out: &mut Vec<u8>) -> Option<()> {
        out::signed(out, self.int(name)?.cast_signed());
        Some(())
    }

    fn put_text(&self, name: &str, out: &mut Vec<u8>) -> Option<()> {
        out.extend_from_slice(out::until_nul(
            self.event.field(name)?.bytes(self.record, self.event.target())?,
        ));
        Some(())
    }

    fn put_hex(&self, name: &str, out: &mut Vec<u8>) -> Option<()> {
        out.extend_from_slice(b"0x");
        out::hex(out, self.int(name)?);
        Some(())
    }

    /// `comm:pid [prio]`
    fn task(&self, comm: &str, pid: &str, prio: &str, out: &mut Vec<u8>) -> Option<()> {
        self.put_text(comm, out)?;
        out.push(b':');
        self.put_int(pid, out)?;
        out.extend_from_slice(b" [");
        self.put_int(prio, out)?;
        out.push(b']');
        Some(())
    }

    fn sched_switch(&self, out: &mut Vec<u8>) -> Option<()> {
        self.task("prev_comm", "prev_pid", "prev_prio", out)?;
        out.push(b' ');
        self.state(self.int("prev_state")?, out);
        out.extend_from_slice(b" ==> ");
        self.task("next_comm", "next_pid", "next_prio", out)
    }

    /// A task's state: the letters of its bits, the lowest first; `R` where none is set.
    fn state(&self, state: u64, out: &mut Vec<u8>) {
        const LETTERS: &[u8] = b"SDTtZXxW";
        let before = out.len();
        for (bit, letter) in (0u32..).zip(LETTERS) {
            if state.wrapping_shr(bit) & 1 == 1 {
                if out.len() > before {
                    out.push(b'|');
                }
                out.push(*letter);
            }
        }
        if out.len() == before {
            out.push(b'R');
        }
    }

    fn sched_wakeup(&self, out: &mut Vec<u8>) -> Option<()> {
        self.task("comm", "pid", "prio", out)?;
        if self.event.field("success").is_some() {
            out.extend_from_slice(if self.int("success")? == 0 { b" failed!" } else { b" success=" });
        }
        out.extend_from_slice(b" CPU:");
        out::dec_wide(out, self.int("target_cpu")?, 3, b'0');
        Some(())
    }

    fn timer(&self, out: &mut Vec<u8>) -> Option<()> {
        out.extend_from_slice(b"hrtimer=");
        self.put_hex("hrtimer", out)
    }

    fn hrtimer_start(&self, out: &mut Vec<u8>) -> Option<()> {
        self.timer(out)?;
        self.function(out)?;
        out.extend_from_slice(b" expires=");
        self.put_int("expires", out)?;
        out.extend_from_slice(b" softexpires=");
        self.put_int("softexpires", out)
    }

    fn hrtimer_expire_entry(&self, out: &mut Vec<u8>) -> Option<()> {
        self.timer(out)?;
        out.extend_from_slice(b" now=");
        self.put_int("now", out)?;
        self.function(out)
    }

    /// The plugin prints the function's own address as if it were an offset: always 0.
    fn function(&self, out: &mut Vec<u8>) -> Option<()> {
        out.extend_from_slice(b" function=");
        let address = self.int("function")?;
        self.sources.symbols.print(address, false, Dialect::TraceCmd, out);
        out.extend_from_slice(b"/0x0");
        Some(())
    }

    /// The caller in front of what the `print fmt` says.
    fn call_site(&self, out: &mut Vec<u8>) -> Option<()> {
        let address = self.int("call_site")?;
        out.push(b'(');
        self.sources.symbols.print(address, true, Dialect::TraceCmd, out);
        out.extend_from_slice(b") ");
        let _ = self.event.print(self.record, &self.sources.context(), out);
        Some(())
    }

    /// The operation's name, and of the other arguments those that it uses.
    fn futex(&self, out: &mut Vec<u8>) -> Option<()> {
        const PRIVATE: u64 = 128;
        const REALTIME: u64 = 256;
        let op = self.int("op")?;
        out.extend_from_slice(b"op=");
        let number = op & !(PRIVATE | REALTIME);
        let known = usize::try_from(number).ok().and_then(|number| FUTEX_OPS.get(number));
        match known {
            Some((name, _)) => out.extend_from_slice(name),
            None => out::dec(out, number),
        }
        for (bit, name) in [(PRIVATE, &b"|FUTEX_PRIVATE_FLAG"[..]), (REALTIME, b"|FUTEX_CLOCK_REALTIME")] {
            if op & bit != 0 {
                out.extend_from_slice(name);
            }
        }
        self.futex_argument(b" uaddr=0x", "uaddr", out)?;
        for argument in known.map(|(_, arguments)| *arguments).unwrap_or_default() {
            match argument {
                b'v' => self.futex_argument(b" val=0x", "val", out)?,
                b'n' => {
                    out.extend_from_slice(b" val=");
                    out::dec(out, self.int("val")?);
                }
                b't' => self.futex_argument(b" utime=0x", "utime", out)?,
                // The timeout's place holds a number for these operations.
                b'2' => {
                    out.extend_from_slice(b" val2=");
                    out::dec(out, self.int("utime")?);
                }
                b'u' => self.futex_argument(b" uaddr2=0x", "uaddr2", out)?,
                _ => self.futex_argument(b" val3=0x", "val3", out)?,
            }
        }
        Some(())
    }

    fn futex_argument(&self, name: &[u8], field: &str, out: &mut Vec<u8>) -> Option<()> {
        out.extend_from_slice(name);
        out::hex_wide(out, self.int(field)?, 8);
        Some(())
    }

    fn tlb_flush(&self, out: &mut Vec<u8>) -> Option<()> {
        const REASONS: [&[u8]; 4] =
            [b"flush on task switch", b"remote shootdown", b"local shootdown", b"local mm shootdown"];
        out.extend_from_slice(b"pages=");
        self.put_int("pages", out)?;
        let reason = self.int("reason")?;
        out.extend_from_slice(b" reason=");
        let name = usize::try_from(reason).ok().and_then(|reason| REASONS.get(reason));
        out.extend_from_slice(name.copied().unwrap_or_default());
        out.extend_from_slice(b" (");
        out::dec(out, reason);
        out.push(b')');
        Some(())
    }
}

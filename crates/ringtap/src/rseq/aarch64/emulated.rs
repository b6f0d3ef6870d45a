//! Runs the sections of this directory's parent where there is no aarch64 machine.
//!
//! The parent's `asm!` is here a macro that hands the same lines and operands to rustc, as a function of a crate
//! without even `core` (which is not to be had for foreign targets everywhere), and runs what comes out in
//! `qemu-aarch64`. All memory that the section touches, the stack of the test included, lies in one file that
//! both processes map at the same address. So the code around the assembly is the real one, too.
//!
//! The kernel's part is played by the tests: they say before which instruction the section is cut off.

use rustix::fs::MemfdFlags;
use rustix::mm::{MapFlags, ProtFlags};
use std::cell::Cell;
use std::fmt::Write as _;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::process::{Command, Output, Stdio};

#[expect(
    clippy::cast_possible_truncation,
    clippy::multiple_unsafe_ops_per_block,
    reason = "numbers in tests are small, and the unsafe code there is about one thing each"
)]
mod tests;

/// Where both processes map the file.
const ARENA: usize = 0x1000_0000_0000;
const ARENA_LEN: usize = 8 << 20;
/// The first page takes the registers in and the exit out; the ring and the stack follow.
const RING: usize = ARENA + 0x10_0000;
const STACK: usize = ARENA + 0x40_0000;
const STACK_LEN: usize = ARENA + ARENA_LEN - STACK;
/// In the first page: the section's descriptor as the runner found it, and the word before its abort handler.
const FOUND: usize = 1024;

thread_local! {
    /// The instruction, counted from the section's start, before which the next one is cut off.
    static CUT: Cell<Option<usize>> = const { Cell::new(None) };
}

/// What an `asm!` may take in a register.
pub(super) trait Word {
    fn word(self) -> u64;
}

impl Word for u64 {
    fn word(self) -> u64 {
        self
    }
}

impl Word for u32 {
    fn word(self) -> u64 {
        // What the upper half of the register holds is undefined.
        u64::from(self) | 0xdead_beef << 32
    }
}

impl Word for MaybeUninit<u64> {
    fn word(self) -> u64 {
        // SAFETY: the tests fill all words.
        unsafe { self.assume_init() }
    }
}

impl<T> Word for *const T {
    fn word(self) -> u64 {
        self.addr() as u64
    }
}

impl<T> Word for *mut T {
    fn word(self) -> u64 {
        self.addr() as u64
    }
}

impl<T> Word for &T {
    fn word(self) -> u64 {
        std::ptr::from_ref(self).word()
    }
}

/// An `asm!` being taken apart.
#[derive(Debug, Default)]
pub(super) struct Asm {
    lines: Vec<&'static str>,
    /// In the order of their registers.
    inputs: Vec<(&'static str, u64)>,
    operands: String,
    labels: Vec<&'static str>,
    options: &'static str,
}

impl Asm {
    pub(super) fn line(&mut self, line: &'static str) {
        self.lines.push(line);
    }

    pub(super) fn constant(&mut self, name: &str, value: u64) {
        let _ = writeln!(self.operands, "{name} = const {value}u64,");
    }

    pub(super) fn input(&mut self, name: &'static str, class: &str, word: impl Word) {
        let out = if class == "inout" { " => _" } else { "" };
        let _ = writeln!(self.operands, "{name} = {class}(reg) (*regs).r_{name}{out},");
        self.inputs.push((name, word.word()));
    }

    pub(super) fn output(&mut self, name: &str) {
        let _ = writeln!(self.operands, "{name} = out(reg) _,");
    }

    pub(super) fn label(&mut self, name: &'static str) {
        self.labels.push(name);
        let _ = writeln!(self.operands, "{name} = label {{ return {} }},", self.labels.len());
    }

    pub(super) fn options(&mut self, options: &'static str) {
        self.options = options;
    }

    /// The lines, with a jump to the abort handler where the section is to be cut off. Where it has no such
    /// instruction, [`CUT`] is taken back.
    fn cut(&self) -> Vec<&'static str> {
        let (mut lines, mut inside, mut left) = (Vec::new(), false, CUT.get());
        for &line in &self.lines {
            inside = (inside || line == "3:") && line != "4:";
            if inside && !line.ends_with(':') && !line.starts_with('.') {
                if left == Some(0) {
                    lines.push("b 5b");
                }
                left = left.and_then(|left| left.checked_sub(1));
            }
            lines.push(line);
        }
        if left.is_some() {
            CUT.set(None);
        }
        lines
    }

    /// The section as a crate of its own.
    fn source(&self) -> String {
        let mut fields = String::new();
        for (name, _) in &self.inputs {
            let _ = write!(fields, "r_{name}: u64, ");
        }
        let mut lines = String::new();
        for line in self.cut() {
            let _ = writeln!(lines, "{line:?},");
        }
        let (operands, options) = (&self.operands, self.options);
        format!(
            r#"
#![feature(no_core, lang_items, rustc_attrs)]
#![allow(internal_features, dead_code)]
#![no_core]
#![crate_type = "lib"]
#[lang = "pointee_sized"] trait PointeeSized {{}}
#[lang = "meta_sized"] trait MetaSized: PointeeSized {{}}
#[lang = "sized"] trait Sized: MetaSized {{}}
#[lang = "copy"] trait Copy {{}}
impl Copy for u64 {{}}
#[rustc_builtin_macro] macro_rules! asm {{ () => {{}} }}
#[repr(C)] pub struct Regs {{ {fields} }}
#[unsafe(no_mangle)]
pub unsafe extern "C" fn section(regs: *const Regs) -> u32 {{
unsafe {{ asm!({lines}{operands}{options}) }}
0
}}
"#
        )
    }

    /// Runs it, and returns the label that it left by; 0 where it ran to its end.
    fn exit(&self, file: &OwnedFd) -> usize {
        for (at, (_, word)) in self.inputs.iter().enumerate() {
            // SAFETY: the arena's first page is nobody else's.
            unsafe { (ARENA as *mut u64).wrapping_add(at).write_volatile(*word) };
        }
        let source = self.source();
        // The child must not be made on the stack that it would share.
        let code = std::thread::scope(|scope| scope.spawn(|| emulate(&source, file)).join().expect("it ran"));
        check_descriptor();
        code
    }
}

fn emulate(source: &str, file: &OwnedFd) -> usize {
    let dir = std::env::temp_dir().join(format!("ringtap-aarch64-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a directory");
    std::fs::write(dir.join("section.rs"), source).expect("a file");
    std::fs::write(dir.join("runner.s"), runner()).expect("a file");
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let built = Command::new(rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .args(["--edition=2024", "--target=aarch64-unknown-linux-gnu", "--emit=obj", "-O", "-Cpanic=abort"])
        .args(["section.rs", "-osection.o"])
        .current_dir(&dir)
        .output();
    succeed(built, source);
    let linked = Command::new(GCC)
        .args(["-nostdlib", "-static", "runner.s", "section.o", "-osection"])
        .current_dir(&dir)
        .output();
    succeed(linked, source);
    let status = Command::new(QEMU)
        // The oldest architecture, and a counter that newer emulators do not make faster.
        .args(["-cpu", "cortex-a57"])
        .arg(dir.join("section"))
        .stdin(Stdio::from(file.try_clone().expect("a descriptor")))
        .status()
        .expect("qemu ran");
    std::fs::remove_dir_all(&dir).expect("it was made above");
    let code = status.code().unwrap_or_else(|| panic!("{status}:\n{}", source));
    usize::try_from(code).expect("not negative")
}

const GCC: &str = "aarch64-linux-gnu-gcc";
const QEMU: &str = "qemu-aarch64";

fn succeed(output: std::io::Result<Output>, source: &str) {
    let output = output.expect("it started");
    assert!(output.status.success(), "{}\n{source}", String::from_utf8_lossy(&output.stderr));
}

/// Maps the arena, runs the section, copies its descriptor, exits with what it returned.
fn runner() -> String {
    format!(
        "
.globl _start
_start:
    ldr x0, ={ARENA}
    ldr x1, ={ARENA_LEN}
    mov x2, #3
    mov x3, #0x11
    mov x4, #0
    mov x5, #0
    mov x8, #222
    svc #0
    ldr x1, ={ARENA}
    cmp x0, x1
    b.eq 2f
    mov x0, #99
    b 3f
2:  mov x19, x0
    bl section
    // The area is the arena's at this offset, and its word at 8 the descriptor's address.
    ldr x2, ={AREA}
    ldr x2, [x2, #8]
    add x1, x19, #{FOUND}
    ldp x4, x5, [x2]
    stp x4, x5, [x1]
    ldp x4, x5, [x2, #16]
    stp x4, x5, [x1, #16]
    ldur w4, [x5, #-4]
    str w4, [x1, #32]
3:  mov x8, #93
    svc #0
"
    )
}

/// Where the tests keep the thread's area.
const AREA: usize = ARENA + 2048;

/// What the kernel checks before it accepts a section.
fn check_descriptor() {
    // SAFETY: the runner wrote it there.
    let [head, start, len, abort, signature] =
        unsafe { ((ARENA + FOUND) as *const [u64; 5]).read_volatile() };
    assert_eq!(head, 0, "version and flags");
    assert!(len > 0 && len % 4 == 0 && len < 1024, "the section is {len} bytes");
    assert!(!(start..start + len).contains(&abort), "the abort handler is out of line");
    assert_eq!(signature, u64::from(super::SIGNATURE));
}

/// Maps the file. It stays as long as the process.
fn arena() -> OwnedFd {
    let file = rustix::fs::memfd_create("ringtap-aarch64", MemfdFlags::CLOEXEC).expect("a memfd");
    rustix::fs::ftruncate(&file, ARENA_LEN as u64).expect("it grows");
    let (protection, flags) =
        (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::FIXED_NOREPLACE);
    // SAFETY: the flag says that nothing which exists is touched.
    unsafe { rustix::mm::mmap(ARENA as *mut _, ARENA_LEN, protection, flags, &file, 0) }.expect("room");
    file
}

thread_local! {
    static FILE: Cell<Option<&'static OwnedFd>> = const { Cell::new(None) };
}

/// Runs a taken-apart `asm!`; see [`Asm::exit`].
///
/// # Safety
/// As for the `asm!`.
pub(super) unsafe fn run(asm: &Asm) -> &'static str {
    match asm.exit(FILE.get().expect("on the arena's stack")) {
        0 => "",
        label => asm.labels.get(label - 1).unwrap_or_else(|| panic!("left by {label}")),
    }
}

macro_rules! emulated_asm {
    // The end: what was collected runs, and its exits are taken.
    (@ $asm:ident [$($name:ident $block:block)*]) => {
        let exit = $crate::rseq::aarch64::emulated::run(&$asm);
        $(if exit == stringify!($name) $block)*
    };
    // Lines, eight at a time: macros may not recurse as deep as the sections are long.
    (@ $asm:ident $labels:tt
        $a:literal, $b:literal, $c:literal, $d:literal, $e:literal, $f:literal, $g:literal, $h:literal, $($rest:tt)*
    ) => {
        for line in [$a, $b, $c, $d, $e, $f, $g, $h] {
            $asm.line(line);
        }
        $crate::rseq::aarch64::emulated::asm!(@ $asm $labels $($rest)*);
    };
    (@ $asm:ident $labels:tt $line:literal, $($rest:tt)*) => {
        $asm.line($line);
        $crate::rseq::aarch64::emulated::asm!(@ $asm $labels $($rest)*);
    };
    (@ $asm:ident $labels:tt $name:ident = const $value:expr, $($rest:tt)*) => {
        $asm.constant(stringify!($name), $value as u64);
        $crate::rseq::aarch64::emulated::asm!(@ $asm $labels $($rest)*);
    };
    (@ $asm:ident $labels:tt $name:ident = in(reg) $value:expr, $($rest:tt)*) => {
        $asm.input(stringify!($name), "in", $value);
        $crate::rseq::aarch64::emulated::asm!(@ $asm $labels $($rest)*);
    };
    (@ $asm:ident $labels:tt $name:ident = inout(reg) $value:expr => _, $($rest:tt)*) => {
        $asm.input(stringify!($name), "inout", $value);
        $crate::rseq::aarch64::emulated::asm!(@ $asm $labels $($rest)*);
    };
    (@ $asm:ident $labels:tt $name:ident = out(reg) _, $($rest:tt)*) => {
        $asm.output(stringify!($name));
        $crate::rseq::aarch64::emulated::asm!(@ $asm $labels $($rest)*);
    };
    (@ $asm:ident [$($labels:tt)*] $name:ident = label $block:block, $($rest:tt)*) => {
        $asm.label(stringify!($name));
        $crate::rseq::aarch64::emulated::asm!(@ $asm [$($labels)* $name $block] $($rest)*);
    };
    (@ $asm:ident $labels:tt options($($option:ident),*)) => {
        $asm.options(concat!("options(", stringify!($($option),*), ")"));
        $crate::rseq::aarch64::emulated::asm!(@ $asm $labels);
    };
    ($($all:tt)+) => {{
        let mut asm = $crate::rseq::aarch64::emulated::Asm::default();
        $crate::rseq::aarch64::emulated::asm!(@ asm [] $($all)+);
    }};
}
pub(super) use emulated_asm as asm;

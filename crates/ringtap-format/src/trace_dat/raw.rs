//! Numbers of the file, by the names of trace-cmd's manual (`trace-cmd.dat.v6(5)`, `trace-cmd.dat.v7(5)`).

/// How every trace.dat begins; the version as text and a NUL follow.
pub const MAGIC: &[u8; 10] = b"\x17\x08\x44tracing";

/// Flag of a section whose body is compressed.
pub const COMPRESSED: u16 = 1;

/// Bytes of a section's header: u16 id, u16 flags, u32 description, u64 length of the body.
pub const SECTION_HEADER_LEN: u64 = 16;

/// Names of options; an option that names a section holds the section's place and has the section's id.
pub mod option {
    /// The last of a row; the place of the next row, or 0.
    pub const DONE: u16 = 0;
    /// Microseconds to add to each time, as text.
    pub const DATE: u16 = 1;
    /// A CPU's counters, as text.
    pub const CPUSTAT: u16 = 2;
    /// A buffer: its name, clock and CPUs.
    pub const BUFFER: u16 = 3;
    /// The clocks, as `trace_clock` shows them.
    pub const TRACECLOCK: u16 = 4;
    /// The system's name and release.
    pub const UNAME: u16 = 5;
    /// Nanoseconds to add to each time, as text.
    pub const OFFSET: u16 = 7;
    /// The number of CPUs.
    pub const CPUCOUNT: u16 = 8;
    /// The version of the program that wrote the file.
    pub const VERSION: u16 = 9;
    /// A number that tells traces apart.
    pub const TRACEID: u16 = 11;
    /// How ticks become nanoseconds.
    pub const TSC2NSEC: u16 = 14;
    /// `header_page` and `header_event`.
    pub const HEADER_INFO: u16 = 16;
    /// Formats of the kernel's internal events.
    pub const FTRACE_EVENTS: u16 = 17;
    /// Formats of all other events.
    pub const EVENT_FORMATS: u16 = 18;
    /// `/proc/kallsyms`
    pub const KALLSYMS: u16 = 19;
    /// `printk_formats`
    pub const PRINTK: u16 = 20;
    /// `saved_cmdlines`
    pub const CMDLINES: u16 = 21;
}

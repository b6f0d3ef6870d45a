//! A trace.dat of our own making, with what no application writes in one run: fields of every kind, odd names and
//! strings, losses, records that make no sense; in either byte order.
#![allow(dead_code, reason = "each test program uses its part")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "small numbers, and signed ones whose bits are wanted"
)]

const PAGE: usize = 4096;
const HEADER: usize = 16;

/// A number in the trace's byte order.
#[derive(Clone, Copy)]
pub(crate) struct Order {
    pub(crate) is_big: bool,
}

impl Order {
    pub(crate) fn put(self, out: &mut Vec<u8>, value: u64, size: usize) {
        match self.is_big {
            false => out.extend_from_slice(&value.to_le_bytes()[..size]),
            true => out.extend_from_slice(&value.to_be_bytes()[8 - size..]),
        }
    }
}

/// One CPU's sub-buffers as they grow.
pub(crate) struct Cpu {
    order: Order,
    pages: Vec<u8>,
    page: Vec<u8>,
    first: u64,
    last: u64,
    lost: Option<Option<u64>>,
}

impl Cpu {
    fn new(order: Order) -> Self {
        Self { order, pages: Vec::new(), page: Vec::new(), first: 0, last: 0, lost: None }
    }

    /// Adds a record; its bytes are filled up to whole words.
    pub(crate) fn record(&mut self, time: u64, record: &[u8]) {
        let len = record.len().next_multiple_of(4);
        if self.page.len() + len + 8 > PAGE - HEADER - 8 || time - self.last >= 1 << 27 {
            self.end_page();
        }
        if self.page.is_empty() {
            (self.first, self.last) = (time, time);
        }
        let delta = time - self.last;
        self.last = time;
        // A length of up to 28 words stands in the header, a longer one behind it.
        let words = if len <= 112 { len as u64 / 4 } else { 0 };
        let header = if self.order.is_big { words << 27 | delta } else { delta << 5 | words };
        self.order.put(&mut self.page, header, 4);
        if words == 0 {
            self.order.put(&mut self.page, len as u64 + 4, 4);
        }
        self.page.extend_from_slice(record);
        self.page.resize(self.page.len().next_multiple_of(4), 0);
    }

    /// What follows comes after a loss.
    pub(crate) fn lose(&mut self, count: Option<u64>) {
        self.end_page();
        self.lost = Some(count);
    }

    fn end_page(&mut self) {
        if self.page.is_empty() {
            return;
        }
        let (missed, count) = match self.lost.take() {
            None => (0, None),
            Some(None) => (1 << 31, None),
            Some(Some(count)) => (1 << 31 | 1 << 30, Some(count)),
        };
        let start = self.pages.len();
        self.order.put(&mut self.pages, self.first, 8);
        self.order.put(&mut self.pages, self.page.len() as u64 | missed, 8);
        self.pages.append(&mut self.page);
        if let Some(count) = count {
            self.order.put(&mut self.pages, count, 8);
        }
        self.pages.resize(start + PAGE, 0);
    }
}

/// The file as it grows.
pub(crate) struct Trace {
    pub(crate) order: Order,
    pub(crate) cpus: Vec<Cpu>,
    formats: Vec<(&'static str, String)>,
}

/// The common fields of a record.
pub(crate) fn common(order: Order, id: u16, pid: i32) -> Vec<u8> {
    let mut record = Vec::new();
    order.put(&mut record, id.into(), 2);
    record.extend_from_slice(&[0x11, 0x02]);
    order.put(&mut record, u64::from(pid.cast_unsigned()), 4);
    record
}

const COMMON: &str = "\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
    \tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;\n\
    \tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;\n\
    \tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n";

impl Trace {
    pub(crate) fn new(is_big: bool, cpus: usize) -> Self {
        let order = Order { is_big };
        Self { order, cpus: (0..cpus).map(|_| Cpu::new(order)).collect(), formats: Vec::new() }
    }

    /// Declares an event; each field as its declaration, offset, size and sign.
    pub(crate) fn event(
        &mut self,
        system: &'static str,
        name: &str,
        id: u16,
        fields: &[(&str, u32, u32, u8)],
    ) {
        let mut text = format!("name: {name}\nID: {id}\nformat:\n{COMMON}");
        for (declaration, offset, size, signed) in fields {
            text += &format!("\tfield:{declaration};\toffset:{offset};\tsize:{size};\tsigned:{signed};\n");
        }
        text += "\nprint fmt: \"\"\n";
        self.formats.push((system, text));
    }

    /// The file's bytes, of version 6.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        let order = self.order;
        let mut file = b"\x17\x08\x44tracing6\0".to_vec();
        file.extend_from_slice(&[u8::from(order.is_big), 8]);
        order.put(&mut file, PAGE as u64, 4);
        let sized = |file: &mut Vec<u8>, text: &[u8], size| {
            order.put(file, text.len() as u64, size);
            file.extend_from_slice(text);
        };
        file.extend_from_slice(b"header_page\0");
        let header_page = "\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n\
            \tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;\n\
            \tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;\n\
            \tfield: char data;\toffset:16;\tsize:4080;\tsigned:1;\n";
        sized(&mut file, header_page.as_bytes(), 8);
        file.extend_from_slice(b"header_event\0");
        let header_event = "# compressed entry header\n\ttype_len    :    5 bits\n\ttime_delta  :   27 bits\n\
            \tarray       :   32 bits\n\n\tpadding     : type == 29\n\ttime_extend : type == 30\n\
            \ttime_stamp : type == 31\n\tdata max type_len  == 28\n";
        sized(&mut file, header_event.as_bytes(), 8);
        order.put(&mut file, 0, 4);
        order.put(&mut file, self.formats.len() as u64, 4);
        for (system, text) in &self.formats {
            file.extend_from_slice(system.as_bytes());
            file.push(0);
            order.put(&mut file, 1, 4);
            sized(&mut file, text.as_bytes(), 8);
        }
        order.put(&mut file, 0, 4);
        order.put(&mut file, 0, 4);
        sized(&mut file, b"100 plain\n200 a \"b\"\\\xff\x01\n", 8);
        order.put(&mut file, self.cpus.len() as u64, 4);
        file.extend_from_slice(b"flyrecord\0");
        let mut offset = (file.len() + 16 * self.cpus.len()).next_multiple_of(PAGE);
        let start = offset;
        for cpu in &mut self.cpus {
            cpu.end_page();
            order.put(&mut file, offset as u64, 8);
            order.put(&mut file, cpu.pages.len() as u64, 8);
            offset += cpu.pages.len();
        }
        file.resize(start, 0);
        self.cpus.iter().for_each(|cpu| file.extend_from_slice(&cpu.pages));
        file
    }
}

/// Strings that writers of other formats tend to get wrong.
pub(crate) fn odd_strings() -> Vec<Vec<u8>> {
    let mut strings: Vec<Vec<u8>> =
        ["", "plain", "a\"b\\c{d}[e], = f", "line\nend\ttab\r", "\u{1}\u{7f}\u{1b}[2J", "日本 é 🦀"]
            .iter()
            .map(|text| text.as_bytes().to_vec())
            .collect();
    strings.extend([b"\xff\xfe\x80".to_vec(), b"cut\xe6\x97".to_vec(), b"with\0inside".to_vec()]);
    strings.push("long ".repeat(600).into_bytes());
    strings
}

/// The whole of it. CPU 0 loses 7 events and then an unknown number, CPU 1 loses 3 before its first event.
pub(crate) fn all_kinds(is_big: bool) -> Vec<u8> {
    let mut trace = Trace::new(is_big, 3);
    let order = trace.order;
    trace.event(
        "app",
        "kinds",
        40,
        &[
            ("u8 a", 8, 1, 0),
            ("s8 b", 9, 1, 1),
            ("u16 c", 10, 2, 0),
            ("int d", 12, 4, 1),
            ("u64 e", 16, 8, 0),
            ("s64 f", 24, 8, 1),
            ("void * p", 32, 8, 0),
            ("double real", 40, 8, 1),
            ("float small", 48, 4, 1),
            ("unsigned int low:3", 52, 4, 0),
            ("unsigned int high:29", 52, 4, 0),
            ("char text[8]", 56, 8, 0),
            ("u16 numbers[3]", 64, 6, 0),
            ("s8 bytes[2]", 70, 2, 1),
            ("void * pointers[2]", 72, 16, 0),
            ("struct timespec opaque", 88, 16, 0),
            ("__data_loc char[] string", 104, 4, 0),
            ("__rel_loc s32[] relative", 108, 4, 1),
            ("__data_loc cpumask_t mask", 112, 4, 0),
            ("unsigned long integer", 116, 8, 0),
        ],
    );
    trace.event("app", "rest-of.it \"q\"", 41, &[("u32 class", 8, 4, 0), ("u16 struct[]", 12, 0, 0)]);
    trace.event("app", "words", 42, &[("char buf[]", 8, 0, 0)]);
    for (place, string) in odd_strings().into_iter().enumerate() {
        let place = place as u64;
        let mut record = common(order, 40, if place.is_multiple_of(2) { 100 } else { 200 });
        order.put(&mut record, 200 + place, 1);
        order.put(&mut record, (-5i64 as u64).wrapping_sub(place), 1);
        order.put(&mut record, 65_000 + place, 2);
        order.put(&mut record, (i32::MIN as i64 as u64).wrapping_add(place), 4);
        order.put(&mut record, u64::MAX - place, 8);
        order.put(&mut record, (i64::MIN as u64).wrapping_add(place), 8);
        order.put(&mut record, 0xffff_8880_0000_0000 + place, 8);
        order.put(&mut record, (-0.25f64).to_bits(), 8);
        order.put(&mut record, u64::from(1.5f32.to_bits()), 4);
        order.put(&mut record, 0xabcd_1235, 4);
        record.extend_from_slice(if place.is_multiple_of(2) { b"fixed\0zz" } else { b"all of 8" });
        for number in [1, 0xffff, place] {
            order.put(&mut record, number, 2);
        }
        record.extend_from_slice(&[0x80, 0x7f]);
        for pointer in [0, u64::MAX] {
            order.put(&mut record, pointer, 8);
        }
        record.extend(0..16);
        let (dynamic, relative) = (124, 4 * place.min(3));
        let len = string.len() as u64 + 1;
        let behind = (dynamic + len).next_multiple_of(4);
        order.put(&mut record, len << 16 | dynamic, 4);
        order.put(&mut record, relative << 16 | (behind - 112), 4);
        order.put(&mut record, 8 << 16 | (behind + relative), 4);
        order.put(&mut record, 0x1122_3344_5566_7788, 8);
        record.extend_from_slice(&string);
        record.resize(behind as usize, 0);
        for number in 0..relative / 4 {
            order.put(&mut record, (-1i64 as u64).wrapping_sub(number), 4);
        }
        order.put(&mut record, 0x8000_0000_0000_0005, 8);
        trace.cpus[(place % 2) as usize].record(1_000_000_000 + place * 1000, &record);

        let mut record = common(order, 41, 300);
        order.put(&mut record, place, 4);
        for number in 0..place {
            order.put(&mut record, number * 1000, 2);
        }
        // The ring fills records up to whole words, so an odd number of elements gains one.
        record.resize(record.len().next_multiple_of(4), 0);
        trace.cpus[0].record(1_000_000_100 + place * 1000, &record);

        let mut record = common(order, 42, -1);
        record.extend_from_slice(&string);
        record.push(0);
        trace.cpus[1].record(1_000_000_200 + place * 1000, &record);
    }
    trace.cpus[0].lose(Some(7));
    let mut words = common(order, 42, 100);
    words.extend_from_slice(b"found\0");
    trace.cpus[0].record(1_000_100_000, &words);
    trace.cpus[0].record(1_000_200_000, &words);
    trace.cpus[0].lose(None);
    trace.cpus[0].record(8_000_200_000, &words);
    trace.cpus[2].lose(Some(3));
    trace.cpus[2].record(1_000_000_050, &words);
    // An event that no format describes, and one that is too short for its own.
    trace.cpus[2].record(1_000_000_060, &common(order, 999, 100));
    trace.cpus[2].record(1_000_000_070, &common(order, 40, 100));
    trace.finish()
}

/// An application on a time line: switches, spans that nest and one whose end is lost, counters, flows and markers.
pub(crate) fn time_line() -> Vec<u8> {
    let mut trace = Trace::new(false, 2);
    let order = trace.order;
    trace.event(
        "sched",
        "sched_switch",
        10,
        &[
            ("char prev_comm[16]", 8, 16, 0),
            ("pid_t prev_pid", 24, 4, 1),
            ("int prev_prio", 28, 4, 1),
            ("long prev_state", 32, 8, 1),
            ("char next_comm[16]", 40, 16, 0),
            ("pid_t next_pid", 56, 4, 1),
            ("int next_prio", 60, 4, 1),
        ],
    );
    trace.event(
        "sched",
        "sched_waking",
        11,
        &[
            ("char comm[16]", 8, 16, 0),
            ("pid_t pid", 24, 4, 1),
            ("int prio", 28, 4, 1),
            ("int target_cpu", 32, 4, 1),
        ],
    );
    trace.event("app", "work_begin", 20, &[("u64 flow", 8, 8, 0), ("u32 id", 16, 4, 0)]);
    trace.event("app", "work_end", 21, &[("u64 flow_end", 8, 8, 0), ("int status", 16, 4, 1)]);
    trace.event("app", "enter_step", 22, &[("u32 step", 8, 4, 0)]);
    trace.event("app", "exit_step", 23, &[]);
    trace.event("app", "queue_counter", 24, &[("s64 value", 8, 8, 1), ("char name[8]", 16, 8, 0)]);
    trace.event("app", "load.gauge", 25, &[("double value", 8, 8, 1)]);
    trace.event("irq", "irq_handler_entry", 26, &[("int irq", 8, 4, 1)]);
    trace.event("irq", "irq_handler_exit", 27, &[("int irq", 8, 4, 1)]);
    trace.event("ftrace", "print", 5, &[("unsigned long ip", 8, 8, 0), ("char buf[]", 16, 0, 0)]);

    let comm = |out: &mut Vec<u8>, name: &str| {
        out.extend_from_slice(name.as_bytes());
        out.resize(out.len() + 16 - name.len(), 0);
    };
    let switch = |from: (&str, i32), to: (&str, i32)| {
        let mut record = common(order, 10, from.1);
        comm(&mut record, from.0);
        order.put(&mut record, u64::from(from.1.cast_unsigned()), 4);
        order.put(&mut record, 120, 4);
        order.put(&mut record, 1, 8);
        comm(&mut record, to.0);
        order.put(&mut record, u64::from(to.1.cast_unsigned()), 4);
        order.put(&mut record, 99, 4);
        record
    };
    let numbers = |id, pid, numbers: &[(u64, usize)]| {
        let mut record = common(order, id, pid);
        numbers.iter().for_each(|&(number, size)| order.put(&mut record, number, size));
        record
    };
    let marker = |text: &str| {
        let mut record = numbers(5, 500, &[(0xffff_ffff_8100_0000, 8)]);
        record.extend_from_slice(text.as_bytes());
        record.extend_from_slice(b"\n\0");
        record
    };
    let mut waking = common(order, 11, 500);
    comm(&mut waking, "worker");
    [501, 120, 1].into_iter().for_each(|number| order.put(&mut waking, number, 4));
    let mut queue = numbers(24, 500, &[((-3i64) as u64, 8)]);
    queue.extend_from_slice(b"jobs\0\0\0\0");

    let cpu = &mut trace.cpus[0];
    let mut time = 5_000_000_000;
    let mut add = |cpu: &mut Cpu, record: Vec<u8>| {
        time += 1500;
        cpu.record(time, &record);
    };
    add(cpu, switch(("swapper/0", 0), ("main", 500)));
    add(cpu, numbers(20, 500, &[(77, 8), (1, 4)]));
    add(cpu, numbers(22, 500, &[(1, 4)]));
    add(cpu, numbers(26, 500, &[(9, 4)]));
    add(cpu, numbers(27, 500, &[(9, 4)]));
    add(cpu, numbers(23, 500, &[]));
    add(cpu, waking);
    add(cpu, queue);
    add(cpu, numbers(25, 500, &[(0.5f64.to_bits(), 8)]));
    // Its end is lost, so it ends with what it is in.
    add(cpu, numbers(22, 500, &[(2, 4)]));
    cpu.lose(Some(2));
    add(cpu, numbers(21, 500, &[(0, 8), ((-1i64) as u64, 4)]));
    // Nothing of the kind is open: an instant.
    add(cpu, numbers(21, 500, &[(0, 8), (0, 4)]));
    add(cpu, marker("B|500|draw \"it\""));
    add(cpu, marker("C|500|frames|60"));
    add(cpu, marker("E|500"));
    add(cpu, marker("a text"));
    add(cpu, switch(("main", 500), ("swapper/0", 0)));
    let cpu = &mut trace.cpus[1];
    add(cpu, switch(("swapper/1", 0), ("worker", 501)));
    add(cpu, numbers(20, 501, &[(77, 8), (2, 4)]));
    add(cpu, numbers(21, 501, &[(77, 8), (0, 4)]));
    add(cpu, switch(("worker", 501), ("swapper/1", 0)));
    trace.finish()
}

/// Stacks, as a kernel records them behind the events that they are of.
pub(crate) fn stacks() -> Vec<u8> {
    let mut trace = Trace::new(false, 1);
    let order = trace.order;
    trace.event("app", "alloc", 30, &[("s32 size", 8, 4, 1), ("char what[8]", 12, 8, 0)]);
    trace.event("ftrace", "kernel_stack", 4, &[("int size", 8, 4, 1), ("unsigned long caller[]", 16, 0, 0)]);
    for place in 0..10u64 {
        let mut record = common(order, 30, 100);
        order.put(&mut record, 3u64.wrapping_sub(place), 4);
        record.extend_from_slice(if place < 7 { b"page\0\0\0\0" } else { b"a <b>\0\0\0" });
        trace.cpus[0].record(1000 + place * 10, &record);
        let mut record = common(order, 4, 100);
        order.put(&mut record, 3, 8);
        for address in [0xff01, 0xff02 + place % 2, 0xff09] {
            order.put(&mut record, address, 8);
        }
        trace.cpus[0].record(1005 + place * 10, &record);
    }
    trace.finish()
}

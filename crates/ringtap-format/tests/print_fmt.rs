//! What `print fmt`s print, for each helper and conversion, on machines of either byte order and word size.

use ringtap_format::{ByteOrder, Constants, Context, Dialect, Formats, Stop, Strings, Symbols, Target};

const LE: Target = Target::LE64;

/// A record with a few fields of each kind, and the format that describes it.
struct Record {
    target: Target,
    fields: String,
    bytes: Vec<u8>,
    dynamic: Vec<(usize, bool, Vec<u8>)>,
}

impl Record {
    fn new(target: Target) -> Self {
        Self { target, fields: String::new(), bytes: vec![0; 8], dynamic: Vec::new() }
    }

    fn raw(&mut self, value: u64, size: usize) {
        match self.target.order {
            ByteOrder::Little => self.bytes.extend_from_slice(&value.to_le_bytes()[..size]),
            ByteOrder::Big => self.bytes.extend_from_slice(&value.to_be_bytes()[8 - size..]),
        }
    }

    fn declare(&mut self, declaration: &str, size: usize, signed: bool) {
        let offset = self.bytes.len();
        let signed = u8::from(signed);
        self.fields += &format!("\tfield:{declaration};\toffset:{offset};\tsize:{size};\tsigned:{signed};\n");
    }

    fn int(mut self, declaration: &str, size: usize, value: i64) -> Self {
        self.declare(declaration, size, value < 0);
        self.raw(value.cast_unsigned(), size);
        self
    }

    fn array(mut self, declaration: &str, bytes: &[u8]) -> Self {
        self.declare(declaration, bytes.len(), false);
        self.bytes.extend_from_slice(bytes);
        self
    }

    fn dynamic(mut self, declaration: &str, relative: bool, bytes: &[u8]) -> Self {
        self.declare(declaration, 4, false);
        self.dynamic.push((self.bytes.len(), relative, bytes.to_vec()));
        self.raw(0, 4);
        self
    }

    /// The bytes of the record, its dynamic arrays behind the fixed part.
    fn build(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        for (at, relative, held) in &self.dynamic {
            let base = if *relative { at + 4 } else { 0 };
            let word = u32::try_from(held.len() << 16 | (bytes.len() - base)).unwrap();
            let word =
                if self.target.order == ByteOrder::Little { word.to_le_bytes() } else { word.to_be_bytes() };
            bytes[*at..at + 4].copy_from_slice(&word);
            bytes.extend_from_slice(held);
        }
        bytes
    }

    fn print_as(&self, dialect: Dialect, print_fmt: &str) -> (String, Result<(), Stop>) {
        let mut formats = Formats::new(self.target, dialect);
        let constants: &mut Constants = formats.constants_mut();
        constants.define("MY_ENUM", 3);
        constants.define_size("struct page", 64);
        let text = format!(
            "name: e\nID: 0\nformat:\n\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\n{}\nprint \
             fmt: {print_fmt}\n",
            self.fields
        );
        let event = formats.add("x", &text).unwrap();
        let symbols = Symbols::parse(
            "ffffffff81000000 T schedule\nffffffff81000100 t inner\t[module]\n\
                                      ffffffff81000200 t last\n",
        );
        let strings = Strings::parse("0xffffffff82000000 : \"known text\"\n");
        let mut out = Vec::new();
        let printed = event.print(
            &self.build(),
            &Context { symbols: &symbols, strings: &strings, hz: Some(250) },
            &mut out,
        );
        (String::from_utf8(out).unwrap(), printed)
    }

    fn print(&self, print_fmt: &str) -> String {
        let (text, printed) = self.print_as(Dialect::Kernel, print_fmt);
        printed.unwrap_or_else(|stop| panic!("{print_fmt}: {stop}"));
        text
    }
}

fn all_targets() -> impl Iterator<Item = Target> {
    let orders = [ByteOrder::Little, ByteOrder::Big];
    orders.into_iter().flat_map(|order| [4, 8].map(|long_size| Target { order, long_size }))
}

#[test]
fn numbers_are_those_of_c() {
    for target in all_targets() {
        let record = Record::new(target)
            .int("int a", 4, -5)
            .int("u8 b", 1, 200)
            .int("u16 c", 2, 0xabc)
            .int("u64 d", 8, 77);
        let cases = [
            (r#""%d %u %x %o", REC->a, REC->a, REC->a, REC->b"#, "-5 4294967291 fffffffb 310"),
            (
                r#""%5d|%-5d|%05d|%+d|% d|%.3d", REC->a, REC->a, REC->a, REC->b, REC->b, REC->b"#,
                "   -5|-5   |-0005|+200| 200|200",
            ),
            (r#""%#x %#o %#x %X %08x", REC->c, REC->b, 0, REC->c, REC->c"#, "0xabc 0310 0x0 ABC 00000abc"),
            (r#""%hhd %hd %lld %c%%", REC->b, REC->a, REC->d, 'x'"#, "-56 -5 77 x%"),
            (r#""%*d|%-*d|%.*s", 4, REC->b, 6, REC->b, 2, "abc""#, " 200|200   |ab"),
            (r#""%d %d", REC->a >> 1, (u32)REC->a >> 28"#, "-3 15"),
            (r#""%d %d %d", REC->a / 2, REC->a % 2, -7 / REC->b"#, "-2 -1 0"),
            (r#""%d", REC->a < 1u"#, "0"),
            (r#""%d", REC->d == 77 && !(REC->b & 1) || REC->c"#, "1"),
            (r#""%d %d", REC->a ?: 9, REC->d - 77 ?: 9"#, "-5 9"),
            (r#""%u", ((REC->b) << 24)"#, "3355443200"),
            (r#""%d", ({ int x = REC->b; int y = 3; x < y ? x : y; })"#, "3"),
            (r#""%d %d", sizeof(u16), (int)sizeof(REC->d)"#, "2 8"),
            (r#""%d %s", MY_ENUM, REC->a == -5 ? "yes" : "no""#, "3 yes"),
            (
                r#""%llu.%06u", __print_ns_to_secs(5000000077ULL), __print_ns_without_secs(5000000077ULL)"#,
                "5.000077",
            ),
            (r#""%u", jiffies_to_msecs(REC->d)"#, "308"),
            (r#""%x", __builtin_bswap16(REC->c)"#, "bc0a"),
        ];
        for (print_fmt, expected) in cases {
            assert_eq!(record.print(print_fmt), expected, "{target:?}: {print_fmt}");
        }
    }
}

#[test]
fn a_long_is_as_wide_as_the_machines() {
    let wide = |long_size| Record::new(Target { long_size, ..LE }).int("u64 d", 8, -1);
    assert_eq!(wide(8).print(r#""%lx %lu", REC->d, sizeof(long)"#), "ffffffffffffffff 8");
    assert_eq!(wide(4).print(r#""%lx %lu", REC->d, sizeof(void *)"#), "ffffffff 4");
}

#[test]
fn flags_and_symbols() {
    let record = Record::new(LE).int("unsigned long f", 8, 0x15).int("int n", 4, -1).int("int z", 4, 0);
    let flags = r#""%s", __print_flags(REC->f, "|", { 1, "A" }, { 4, "B" "C" }, { 2, "D" })"#;
    assert_eq!(record.print(flags), "A|BC|0x10");
    assert_eq!(record.print(r#""<%s>", __print_flags(REC->z, "|", { 1, "A" })"#), "<>");
    assert_eq!(record.print(r#""%s", __print_flags_u64(REC->f, " ", { 0x15, "ALL" })"#), "ALL");
    let symbols = r#""%8s|%-4s|%s", __print_symbolic(REC->n, { 0, "zero" }, { -1, "none" }), __print_symbolic(REC->z, { 0, "o" }), __print_symbolic(REC->f, { 1, "x" })"#;
    assert_eq!(record.print(symbols), "    none|o   |0x15");
    let unknown = r#""%s", __print_symbolic(REC->z, { NOBODY_KNOWS, "x" }, { 0, "zero" })"#;
    assert_eq!(record.print(unknown), "zero");
}

#[test]
fn arrays_and_texts() {
    for target in all_targets() {
        let long = usize::from(target.long_size);
        let mut mask = vec![0; long];
        mask[if target.order == ByteOrder::Little { 0 } else { long - 1 }] = 0x0d;
        let numbers = match target.order {
            ByteOrder::Little => [1u16.to_le_bytes(), 0x203u16.to_le_bytes()],
            ByteOrder::Big => [1u16.to_be_bytes(), 0x203u16.to_be_bytes()],
        }
        .concat();
        let record = Record::new(target)
            .array("char name[8]", b"task\0old")
            .array("u8 mac[6]", &[0, 0x11, 0x22, 0xaa, 0xbb, 0xcc])
            .dynamic("__data_loc char[] path", false, b"/tmp\0")
            .dynamic("__rel_loc char[] near", true, b"here\0")
            .dynamic("__data_loc u16[] list", false, &numbers)
            .dynamic("__data_loc cpumask_t cpus", false, &mask);
        let all = if long == 8 { "00000000,0000000d" } else { "0000000d" };
        let cases = [
            (r#""%s %s %s", REC->name, __get_str(path), __get_rel_str(near)"#, "task /tmp here"),
            (r#""%c %d", __get_str(path)[1], REC->mac[3]"#, "t 170"),
            (r#""%s %s", __print_hex(REC->mac, 3), __print_hex_str(REC->mac, 6)"#, "00 11 22 001122aabbcc"),
            (r#""%*ph %6phC %3phN", 2, REC->mac, REC->mac, REC->mac"#, "00 11 00:11:22:aa:bb:cc 001122"),
            (
                r#""%pM %pMF %pmR", REC->mac, REC->mac, REC->mac"#,
                "00:11:22:aa:bb:cc 00-11-22-aa-bb-cc ccbbaa221100",
            ),
            (
                r#""%s", __print_array(__get_dynamic_array(list), __get_dynamic_array_len(list) / sizeof(u16), sizeof(u16))"#,
                "{0x1,0x203}",
            ),
            (r#""%s", __print_dynamic_array(list, sizeof(u16))"#, "{0x1,0x203}"),
            (r#""%x", *(u16 *)__get_dynamic_array(list)"#, "1"),
            (r#""%x", ((u16 *)__get_dynamic_array(list))[1]"#, "203"),
            (
                r#""%s|%s", __get_cpumask(cpus), __get_bitmask(cpus)"#,
                Box::leak(format!("{all}|{all}").into_boxed_str()),
            ),
            (r#""%*pbl %4pb", 32, __get_dynamic_array(cpus), __get_dynamic_array(cpus)"#, "0,2-3 d"),
            (r#""%pE", __get_dynamic_array(path)"#, "/tmp\\0"),
            (r#""%s", __get_str(path)[0] ? __get_str(path) : "none""#, "/tmp"),
        ];
        for (print_fmt, expected) in cases {
            assert_eq!(record.print(print_fmt), expected, "{target:?}: {print_fmt}");
        }
    }
}

#[test]
fn hex_dumps() {
    let record = Record::new(LE).array("u8 buf[20]", b"0123456789abcdef\x01\x02xy");
    let dump = r#""buf:%s", __print_hex_dump("event: ", DUMP_PREFIX_OFFSET, 16, 1, REC->buf, 18, true)"#;
    assert_eq!(
        record.print(dump),
        "buf:\nevent: 00000000: 30 31 32 33 34 35 36 37 38 39 61 62 63 64 65 66  0123456789abcdef\n\
         event: 00000010: 01 02                                            ..\n"
    );
    let words = r#""%s", __print_hex_dump("", 0, 16, 4, REC->buf, 20, 0)"#;
    assert_eq!(record.print(words), "\n33323130 37363534 62613938 66656463\n79780201\n");
}

#[test]
fn network_addresses() {
    let socket = [2, 0, 0x1f, 0x90, 10, 0, 0, 1];
    let record = Record::new(LE)
        .array("__u8 v4[4]", &[192, 168, 0, 1])
        .array("__u8 v6[16]", &[0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])
        .array("u8 id[16]", &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15])
        .dynamic("__data_loc u8[] addr", false, &socket);
    assert_eq!(
        record.print(r#""%pI4 %pi4 %pI4l", REC->v4, REC->v4, REC->v4"#),
        "192.168.0.1 192.168.000.001 1.0.168.192"
    );
    let v6 = r#""%pI6 %pI6c %pi6", REC->v6, REC->v6, REC->v6"#;
    assert_eq!(
        record.print(v6),
        "fe80:0000:0000:0000:0000:0000:0000:0001 fe80::1 fe800000000000000000000000000001"
    );
    assert_eq!(record.print(r#""%pISpc", __get_sockaddr(addr)"#), "10.0.0.1:8080");
    let ids = r#""%pU %pUl", REC->id, REC->id"#;
    assert_eq!(
        record.print(ids),
        "00010203-0405-0607-0809-0a0b0c0d0e0f 03020100-0504-0706-0809-0a0b0c0d0e0f"
    );
}

#[test]
fn addresses_in_both_dialects() {
    let record = Record::new(LE)
        .int("void * f", 8, 0xffff_ffff_8100_0110_u64.cast_signed())
        .int("const char * s", 8, 0xffff_ffff_8200_0000_u64.cast_signed())
        .int("void * p", 8, 0x1234)
        .int("void * n", 8, 0);
    let both = |print_fmt: &str| {
        [Dialect::Kernel, Dialect::TraceCmd].map(|dialect| record.print_as(dialect, print_fmt).0)
    };
    assert_eq!(
        both(r#""%ps %pS", REC->f, REC->f"#),
        ["inner [module] inner+0x10/0x100 [module]", "inner inner+0x10"]
    );
    assert_eq!(both(r#""%p %p", REC->p, REC->n"#), ["0000000000001234 0000000000000000", "0x1234 (nil)"]);
    assert_eq!(both(r#""%s %s", REC->s, REC->p"#), ["known text 0x1234", "known text 1234"]);
    let page = r#""%p", (((struct page *)REC->n) + (2))"#;
    assert_eq!(both(page), ["0000000000000080", "0x2"]);
    assert_eq!(record.print_as(Dialect::Kernel, r#""%pI4", REC->p"#).0, "0000000000001234");
}

#[test]
fn what_cannot_be_printed_is_listed_field_by_field() {
    let record =
        Record::new(LE).int("int a", 4, -5).array("char c[4]", b"abc\0").array("u16 n[2]", &[1, 0, 2, 0]);
    let fields = "[FAILED TO PARSE] a=-5 c=abc n={1,2}";
    for print_fmt in
        [r#""%d", some_function(REC->a)"#, r#""%d", REC->nothing"#, r#""%d %d", REC->a"#, r#""%d", jiffies"#]
    {
        assert_eq!(record.print_as(Dialect::Kernel, print_fmt), (fields.to_owned(), Ok(())), "{print_fmt}");
    }
    let (text, stop) = record.print_as(Dialect::Kernel, r#""%d", 1 / (REC->a + 5)"#);
    assert_eq!((text.as_str(), stop), (fields, Err(Stop::DivisionByZero)));
    let (text, stop) = record.print_as(Dialect::Kernel, r#""%d", REC->n[REC->a]"#);
    assert_eq!((text.as_str(), stop), (fields, Err(Stop::Index)));
}

//! The macros: a declaration becomes a struct that knows its layout, and nothing that runs before it is used.

/// Declares an event: a struct of its fields, `as` its system and name, and how it is printed.
///
/// ```
/// ringtap::event! {
///     /// A connection was accepted.
///     pub struct Accepted<'a> as demo:accepted {
///         /// The descriptor that it got.
///         fd: i32,
///         port: u16,
///         peer: &'a str,
///     }
///     print "%s:%u fd=%d open=%d", peer, port, fd, "REC->fd >= 0";
/// }
/// assert!(Accepted::declared().format(Some(40)).ends_with(
///     "print fmt: \"%s:%u fd=%d open=%d\", __get_str(peer), REC->port, REC->fd, REC->fd >= 0\n"
/// ));
/// ```
///
/// The struct gets a lifetime where it has strings or slices. Its fields can be of any type in the
/// [table](mod@crate::event#fields) and are as visible as the struct; it derives `Clone`, `Copy` and `Debug`.
///
/// The line `print` can be left out: then each field is printed with its name. It takes a format of the
/// kernel's printf, fields by name, and C expressions in quotes. That the conversions suit the fields
/// is checked when the program is compiled:
///
/// ```compile_fail
/// ringtap::event! {
///     struct Read as demo:read { bytes: u64 }
///     print "bytes=%u", bytes; // 64 bits: needs %llu
/// }
/// ```
///
/// The struct has these functions:
///
/// | | |
/// | --- | --- |
/// | `register(&host)` | gets the event's id from the host, whose word says from then on whether the event is on |
/// | `.write(&writer)` | writes the event if it is on; an event that the ring refuses is counted there |
/// | `.try_write(&writer)` | the same, and says why it was refused |
/// | `write_with(&writer, \|\| Event { .. })` | computes the fields only if the event is on |
/// | `is_on()` | whether the event is on somewhere, for this process |
/// | `set_on(bool)` | the switch of this process alone |
/// | `declared()` | the rest: `format`, `id`, `unregister`; see [`Declared`](crate::event::Declared) |
#[macro_export]
macro_rules! event {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident as $system:ident : $event:ident { $($fields:tt)* }
        $($print:tt)*
    ) => {
        $crate::__event! { ($(#[$meta])*) ($vis) $name () () $system $event { $($fields)* } $($print)* }
    };
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident<$life:lifetime> as $system:ident : $event:ident { $($fields:tt)* }
        $($print:tt)*
    ) => {
        $crate::__event! {
            ($(#[$meta])*) ($vis) $name (<$life>) (<'static>) $system $event { $($fields)* } $($print)*
        }
    };
}

/// The parts of [`event!`](crate::event!), with its lifetime as declared and as `'static`.
#[doc(hidden)]
#[macro_export]
macro_rules! __event {
    (
        ($($meta:tt)*) ($vis:vis) $name:ident ($($life:tt)*) ($($static:tt)*) $system:ident $event:ident
        { $($(#[$field_meta:meta])* $field:ident : $type:ty),* $(,)? }
        $(print $format:literal $(, $arg:tt)* $(,)? ;)?
    ) => {
        $($meta)*
        #[derive(Clone, Copy, Debug)]
        $vis struct $name $($life)* { $(
            $(#[$field_meta])*
            #[allow(missing_docs, reason = "the field's name is what a trace shows")]
            $vis $field: $type
        ),* }

        const _: () = {
            static DECLARED: $crate::event::Declared = $crate::event::Declared::new(
                stringify!($system),
                stringify!($event),
                &<$name $($static)*>::__FIELDS,
                PRINT,
            )
            .with_manifest(&MANIFEST);
            const PRINT: Option<$crate::event::Print> =
                $crate::__event_print!(<$name $($static)*>::__FIELDS; $($format $(, $arg)*)?);
            static MANIFEST: [u8; $crate::event::private::manifest_len(
                stringify!($system), stringify!($event), &<$name $($static)*>::__FIELDS, PRINT.as_ref(),
            )] = $crate::event::private::manifest(
                stringify!($system), stringify!($event), &<$name $($static)*>::__FIELDS, PRINT.as_ref(),
            );

            impl $($life)* $name $($life)* {
                const __FIELDS: [$crate::event::Field; <[&str]>::len(&[$(stringify!($field)),*])] =
                    $crate::event::private::lay_out([
                        $($crate::event::Field::new::<$type>(stringify!($field))),*
                    ]);
                const __LEN: usize = $crate::event::private::payload_len(&Self::__FIELDS);

                /// The event's description, id and switch.
                #[must_use]
                #[allow(dead_code, reason = "not every event is asked")]
                $vis fn declared() -> &'static $crate::event::Declared {
                    &DECLARED
                }

                /// Gets the event's id from a host, whose word says from then on whether the event is on.
                ///
                /// # Errors
                /// [`ringtap::event::EventError`]($crate::event::EventError).
                #[allow(dead_code, reason = "an event that is only described needs no id")]
                $vis fn register<R>(with: &R) -> Result<u16, $crate::event::EventError>
                where
                    R: $crate::event::Register + ?Sized,
                {
                    DECLARED.register(with)
                }

                /// Whether the event is registered and on.
                #[inline(always)]
                #[must_use]
                #[allow(dead_code, reason = "not every event is asked")]
                $vis fn is_on() -> bool {
                    DECLARED.route().is_some()
                }

                /// Switches the event off in this process, or lets the host's word decide again.
                #[allow(dead_code, reason = "not every event is switched")]
                $vis fn set_on(on: bool) {
                    DECLARED.set_on(on);
                }

                /// Writes the event if it is on. One that the ring refuses is counted there.
                #[inline(always)]
                #[allow(dead_code, reason = "one of three ways to write")]
                $vis fn write(&self, writer: &$crate::Writer) {
                    let _ = self.try_write(writer);
                }

                /// Writes the event that `event` makes, which is asked only if it is on.
                #[inline(always)]
                #[allow(dead_code, reason = "one of three ways to write")]
                $vis fn write_with(writer: &$crate::Writer, event: impl FnOnce() -> Self) {
                    if let Some(route) = DECLARED.route() {
                        let _ = event().__write_to(writer, route);
                    }
                }

                /// Writes the event.
                ///
                /// # Errors
                /// Why it was not written: `Off` where the event or the recording is off.
                #[inline(always)]
                #[allow(dead_code, reason = "one of three ways to write")]
                $vis fn try_write(&self, writer: &$crate::Writer) -> Result<(), $crate::Refused> {
                    match DECLARED.route() {
                        Some(route) => self.__write_to(writer, route),
                        None => Err($crate::Refused::Off),
                    }
                }

                #[inline(always)]
                fn __write_to(
                    &self,
                    writer: &$crate::Writer,
                    route: $crate::event::Route,
                ) -> Result<(), $crate::Refused> {
                    const LEN: usize = <$name $($static)*>::__LEN;
                    const PLAIN: usize = $crate::event::private::plain_len(LEN);
                    const WORDS: usize = LEN.div_ceil(8);
                    // Built in whole words: narrow stores that are loaded as wide ones would stall.
                    let mut words = [0u64; WORDS];
                    words[0] = $crate::event::Common::of_thread(route.id).word();
                    $($crate::event::Value::put(
                        &self.$field,
                        &mut words,
                        const { $crate::event::private::offset_of(&Self::__FIELDS, stringify!($field)) },
                    );)*
                    if const { $crate::event::private::is_dynamic(&Self::__FIELDS) } {
                        let tails = [$($crate::event::private::Tail {
                            bytes: $crate::event::Value::tail(&self.$field),
                        }),*];
                        $crate::event::private::write_dynamic(
                            writer, route, &mut words, &Self::__FIELDS, tails,
                        )
                    } else if const { LEN == PLAIN } {
                        writer.write_to(route, $crate::event::private::view::<WORDS, PLAIN>(&words))
                    } else {
                        writer.write_to(route, $crate::event::private::view::<WORDS, LEN>(&words))
                    }
                }
            }
        };
    };
}

/// The print format of [`event!`](crate::event!), checked.
#[doc(hidden)]
#[macro_export]
macro_rules! __event_print {
    ($fields:expr;) => { None };
    ($fields:expr; $format:literal $(, $arg:tt)*) => {{
        const PRINT: $crate::event::Print =
            $crate::event::Print { format: $format, args: &[$($crate::__event_arg!($arg)),*] };
        const { $crate::event::private::check_print(&$fields, &PRINT) };
        Some(PRINT)
    }};
}

/// An argument of a print format: a field or a C expression.
#[doc(hidden)]
#[macro_export]
macro_rules! __event_arg {
    ($field:ident) => {
        $crate::event::Arg::Field(stringify!($field))
    };
    ($expression:literal) => {
        $crate::event::Arg::C($expression)
    };
}

/// Declares an enum or flags whose values have names in a trace. The representation is `u8`, `u16`, `u32` or
/// `u64`; a value is shown under its Rust name, or the text behind `=>`.
///
/// ```
/// ringtap::symbols! {
///     /// How a request ended.
///     pub enum Outcome: u8 { Done = 0, TimedOut = 1 => "timed out" }
/// }
/// ringtap::symbols! {
///     /// How a file is open.
///     pub flags Access: u32 { READ = 1, WRITE = 2 }
/// }
/// ringtap::event! {
///     pub struct Closed as demo:closed { outcome: Outcome, access: Access }
/// }
/// let event = Closed { outcome: Outcome::TimedOut, access: Access::READ | Access::WRITE };
/// # let _ = event;
/// assert!(Closed::declared().format(None).contains("{ 0x1, \"timed out\" }"));
/// ```
///
/// Flags are a struct around their bits, `Access(3)`, that can be joined with `|`.
#[macro_export]
macro_rules! symbols {
    (
        $(#[$meta:meta])*
        $vis:vis enum $name:ident : $repr:ident {
            $($(#[$symbol_meta:meta])* $symbol:ident = $value:literal $(=> $text:literal)?),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr($repr)]
        #[allow(missing_docs, dead_code, reason = "the symbol's name is what a trace shows, used or not")]
        $vis enum $name { $($(#[$symbol_meta])* $symbol = $value),* }

        $crate::__symbols! {
            $name $repr Symbol |value| value as $repr; $($value, $symbol $(, $text)?);*
        }
    };
    (
        $(#[$meta:meta])*
        $vis:vis flags $name:ident : $repr:ident {
            $($(#[$symbol_meta:meta])* $symbol:ident = $value:literal $(=> $text:literal)?),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        $vis struct $name($vis $repr);

        #[allow(missing_docs, dead_code, reason = "the flag's name is what a trace shows, used or not")]
        impl $name {
            $($(#[$symbol_meta])* $vis const $symbol: Self = Self($value);)*
        }

        impl ::core::ops::BitOr for $name {
            type Output = Self;

            fn bitor(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }
        }

        $crate::__symbols! {
            $name $repr Flags |value| value.0; $($value, $symbol $(, $text)?);*
        }
    };
}

/// What enums and flags of [`symbols!`](crate::symbols!) have in common.
#[doc(hidden)]
#[macro_export]
macro_rules! __symbols {
    ($name:ident $repr:ident $shown:ident |$value:ident| $bits:expr; $($number:literal, $symbol:ident $(, $text:literal)?);*) => {
        impl $crate::event::Value for $name {
            const KIND: $crate::event::Kind = $crate::event::Kind::number(
                <$repr as $crate::event::Value>::KIND.c_type,
                size_of::<$repr>(),
                // Symbols of negative numbers are not what the kernel's decoders understand.
                { assert!($repr::MIN == 0); false },
                $crate::event::Shown::$shown(&[$(($number, $crate::__symbol!($symbol $($text)?))),*]),
            );

            #[inline(always)]
            fn put(&self, words: &mut [u64], at: usize) {
                let $value = *self;
                let bits: $repr = $bits;
                $crate::event::Value::put(&bits, words, at);
            }
        }

        impl $crate::event::Scalar for $name {
            #[inline(always)]
            fn bits(self) -> u64 {
                let $value = self;
                let bits: $repr = $bits;
                $crate::event::Scalar::bits(bits)
            }
        }
    };
}

/// The text of a symbol.
#[doc(hidden)]
#[macro_export]
macro_rules! __symbol {
    ($symbol:ident) => {
        stringify!($symbol)
    };
    ($symbol:ident $text:literal) => {
        $text
    };
}

//! The shape that nearly all traced functions have.

/// Declares events and the functions that write them. For each event: the fields that are made of the arguments, and the
/// functions, by type of their result. `ret`, `errno` and `took_ns` follow behind the fields.
///
/// The fields' values are computed behind the call, and may use the names given first: the result, and the error that it
/// says, 0 where there is none.
macro_rules! traced {
    (
        $result:ident, $errno:ident;
        $(
            $(#[$doc:meta])*
            $event:ident $(<$life:lifetime>)? as $system:ident : $name:ident $fields:tt -> $how:ident $ret:ty {
                $( $function:ident($($arg:ident : $type:ty),* $(,)?) $([$version:literal])? ; )+
            }
        )*
    ) => {
        $(
            crate::call::traced!(@event $how [$(#[$doc])*] $event [$(<$life>)?] $system $name $fields $ret);
            $(
                crate::next::next! { fn $function($($arg: $type),*) -> $ret $([$version])?; }
                crate::call::traced!(
                    @function $how $event $fields $result $errno; $function($($arg: $type),*) -> $ret
                );
            )+
        )*

        pub(crate) static EVENTS: &[fn() -> &'static ringtap::event::Declared] = &[$($event::declared),*];
        pub(crate) static FUNCTIONS: &[&crate::next::Next] = &[$($(&$function::NEXT),+),*];
    };

    // The result says that it failed, and `errno` why.
    (
        @event errno [$($doc:tt)*] $event:ident [$($life:tt)*] $system:ident $name:ident
        { $($field:ident : $type:ty = $value:expr),* $(,)? } $ret:ty
    ) => {
        ringtap::event! {
            $($doc)*
            struct $event $($life)* as $system:$name {
                $($field: $type,)* ret: $ret, errno: crate::value::Errno, took_ns: u64
            }
        }
    };
    // The result is the error.
    (
        @event status [$($doc:tt)*] $event:ident [$($life:tt)*] $system:ident $name:ident
        { $($field:ident : $type:ty = $value:expr),* $(,)? } $ret:ty
    ) => {
        ringtap::event! {
            $($doc)*
            struct $event $($life)* as $system:$name {
                $($field: $type,)* ret: crate::value::Errno, took_ns: u64
            }
        }
    };

    (
        @function $how:ident $event:ident { $($field:ident : $field_type:ty = $value:expr),* $(,)? }
        $result:ident $errno:ident; $function:ident($($arg:ident : $type:ty),*) -> $ret:ty
    ) => {
        #[cfg_attr(not(test), unsafe(no_mangle))]
        unsafe extern "C-unwind" fn $function($($arg: $type),*) -> $ret {
            #[cold]
            #[inline(never)]
            unsafe fn traced($($arg: $type),*) -> $ret {
                let Some(session) = crate::session::Session::get() else {
                    // SAFETY: as the caller says.
                    return unsafe { $function::call($($arg),*) };
                };
                let began = session.now();
                // SAFETY: as the caller says. Nothing here has anything to drop: the call may be cancelled.
                let $result = unsafe { $function::call($($arg),*) };
                let took_ns = session.ns_since(began);
                let errno = crate::value::errno();
                crate::call::traced!(@outcome $how $event session took_ns errno $result $errno { $($field = $value),* });
                crate::value::set_errno(errno);
                $result
            }
            if $event::is_on() {
                // SAFETY: as the caller says.
                unsafe { traced($($arg),*) }
            } else {
                // SAFETY: as above.
                unsafe { $function::call($($arg),*) }
            }
        }
    };

    (
        @outcome errno $event:ident $session:ident $took_ns:ident $saved:ident $result:ident $errno:ident
        { $($field:ident = $value:expr),* }
    ) => {
        let $errno = if crate::value::Ret::is_refused($result) { $saved } else { 0 };
        $event { $($field: $value,)* ret: $result, errno: crate::value::Errno($errno), took_ns: $took_ns }
            .write($session.writer());
    };
    (
        @outcome status $event:ident $session:ident $took_ns:ident $saved:ident $result:ident $errno:ident
        { $($field:ident = $value:expr),* }
    ) => {
        let $errno = $result;
        $event { $($field: $value,)* ret: crate::value::Errno($errno), took_ns: $took_ns }.write($session.writer());
    };
}
pub(crate) use traced;

/// Declares events that stand before their calls, and so do not know how these ended, and the functions.
macro_rules! announced {
    ($(
        $(#[$doc:meta])*
        $event:ident as $system:ident : $name:ident { $field:ident : $field_type:ty = $value:expr } {
            $function:ident($($arg:ident : $type:ty),*) -> $ret:ty $([$version:literal])?;
        }
    )*) => {
        $(
            ringtap::event! {
                $(#[$doc])*
                struct $event as $system:$name { $field: $field_type }
            }
            crate::next::next! { fn $function($($arg: $type),*) -> $ret $([$version])?; }

            #[cfg_attr(not(test), unsafe(no_mangle))]
            unsafe extern "C-unwind" fn $function($($arg: $type),*) -> $ret {
                #[cold]
                #[inline(never)]
                unsafe fn traced($($arg: $type),*) -> $ret {
                    if let Some(session) = crate::session::Session::get() {
                        let errno = crate::value::errno();
                        $event { $field: $value }.write(session.writer());
                        crate::value::set_errno(errno);
                    }
                    // SAFETY: as the caller says.
                    unsafe { $function::call($($arg),*) }
                }
                if $event::is_on() {
                    // SAFETY: as the caller says.
                    unsafe { traced($($arg),*) }
                } else {
                    // SAFETY: as above.
                    unsafe { $function::call($($arg),*) }
                }
            }
        )*

        pub(crate) static ANNOUNCED: &[fn() -> &'static ringtap::event::Declared] = &[$($event::declared),*];
        pub(crate) static ANNOUNCING: &[&crate::next::Next] = &[$(&$function::NEXT),*];
    };
}
pub(crate) use announced;

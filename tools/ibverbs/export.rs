//! How a Rust function becomes one that C calls.
//!
//! `export!` makes it a symbol of the library, in its version node; `function!` makes one for a table. Both turn each argument from C's
//! into ours ([`Arg`](crate::object::Arg)), catch a panic before it reaches C, and return failure in the way that libibverbs' caller
//! expects. There are four ways, and each is a function below.

use crate::errno::Errno;
use core::ffi::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a body said, or that it panicked: which is a fault of this library, and an I/O error to the program.
#[inline(always)]
fn run<T>(body: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(Err(Errno(libc::EIO)))
}

/// NULL, and `errno`: the calls that make something.
pub(crate) fn pointer<T>(body: impl FnOnce() -> Result<*mut T, Errno>) -> *mut T {
    run(body).unwrap_or_else(|errno| {
        errno.set();
        core::ptr::null_mut()
    })
}

/// Zero, or a positive `errno` value.
#[inline(always)]
pub(crate) fn errno(body: impl FnOnce() -> Result<(), Errno>) -> c_int {
    match run(body) {
        Ok(()) => 0,
        Err(errno) => errno.0,
    }
}

/// -1, and `errno`.
pub(crate) fn minus_one(body: impl FnOnce() -> Result<c_int, Errno>) -> c_int {
    run(body).unwrap_or_else(|errno| {
        errno.set();
        -1
    })
}

/// A value as it is; where an argument makes no sense, the value that stands for nothing.
#[inline(always)]
pub(crate) fn plain<T: Nothing>(body: impl FnOnce() -> Result<T, Errno>) -> T {
    run(body).unwrap_or_else(|_| T::nothing())
}

/// What is returned when there is nothing to return.
pub(crate) trait Nothing {
    fn nothing() -> Self;
}

impl<T> Nothing for *mut T {
    fn nothing() -> Self {
        core::ptr::null_mut()
    }
}

impl<T> Nothing for *const T {
    fn nothing() -> Self {
        core::ptr::null()
    }
}

macro_rules! nothing {
    ($($name:ty),+) => { $( impl Nothing for $name { fn nothing() -> Self { Self::default() } } )+ };
}

nothing!((), c_int, isize, u8, u16, u32, u64);

/// A function with C's calling convention, for a table: `function! { errno fn name(argument: &Type) -> c_int { body } }`.
macro_rules! function {
    ($( $(#[$meta:meta])* $how:ident fn $name:ident($($arg:ident : $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block )+) => { $(
        $(#[$meta])*
        pub(crate) unsafe extern "C" fn $name($($arg: <$ty as $crate::object::Arg>::C),*) $(-> $ret)? {
            $crate::export::$how(|| {
                let body = || {
                    $(
                        // SAFETY: the manual page of the call demands of its caller what `from_c` demands of us.
                        let $arg = unsafe { <$ty as $crate::object::Arg>::from_c($arg) }?;
                    )*
                    $body
                };
                if !$crate::watch::is_on() {
                    return body();
                }
                $crate::watch::around(
                    stringify!($name),
                    &[$((
                        stringify!($arg),
                        (!<$ty as $crate::object::Arg>::IS_ROOM).then_some(&$arg as &dyn $crate::watch::Show),
                    )),*],
                    body,
                )
            })
        }
    )+ };
}

/// A function of the library, in its version node.
macro_rules! export {
    ($( $(#[$meta:meta])* $version:literal $how:ident fn $name:ident($($arg:ident : $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block )+) => { $(
        #[cfg(versioned)]
        core::arch::global_asm!(concat!(".symver ", stringify!($name), ", ", stringify!($name), "@@", $version));

        $crate::export::function! { $(#[$meta])* #[unsafe(no_mangle)] $how fn $name($($arg: $ty),*) $(-> $ret)? $body }
    )+ };
}

pub(crate) use {export, function};

//! What C hands us: pointers to objects that we made, and to structures that the program filled or wants filled.
//!
//! Our objects begin with the C structure that programs know, so a program's pointer is a pointer to ours. Here, and only here, such a
//! pointer becomes a reference. The rest of the library says which kind it wants, in the type of an argument:
//!
//! | argument | in C | NULL |
//! |---|---|---|
//! | `&T` | an object, or a structure to read | `EINVAL` |
//! | `Option<&T>` | likewise | `None` |
//! | `Out<T>` | room for a value, not initialised | `EINVAL` |
//! | `*mut T`, numbers | as they are | |

use crate::errno::Errno;
use core::ffi::{c_char, c_int};
use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

/// Something that a program names by a pointer.
pub(crate) trait Object {
    /// What the program takes it for.
    type C;

    /// Where the object is whose C structure is there. Objects that do not begin with it say so.
    fn of(c: *mut Self::C) -> *mut Self
    where
        Self: Sized,
    {
        c.cast()
    }
}

/// Structures that are C's through and through.
macro_rules! plain {
    ($($name:ident),+ $(,)?) => { $( impl Object for crate::abi::$name { type C = Self; } )+ };
}

plain!(
    ibv_ah_attr,
    ibv_alloc_dm_attr,
    ibv_async_event,
    ibv_cq_init_attr_ex,
    ibv_mw_bind,
    ibv_mw_bind_info,
    ibv_parent_domain_init_attr,
    ibv_qp_attr,
    ibv_qp_init_attr_ex,
    ibv_srq_attr,
    ibv_srq_init_attr_ex,
    ibv_td_init_attr,
    ibv_wc,
);

/// An argument of a call.
pub(crate) trait Arg: Sized {
    /// What C passes.
    type C;

    /// What is there means nothing before the call.
    const IS_ROOM: bool = false;

    /// # Safety
    /// A pointer to an object is one that this library returned and that has not been destroyed; one to a structure is good for reading, and
    /// one to room for writing, until the call returns.
    unsafe fn from_c(c: Self::C) -> Result<Self, Errno>;
}

impl<T: Object> Arg for &T {
    type C = *mut T::C;

    #[inline(always)]
    unsafe fn from_c(c: Self::C) -> Result<Self, Errno> {
        if c.is_null() {
            return Err(Errno::EINVAL);
        }
        // SAFETY: not NULL, so by our caller's promise there is a `T` whose C structure is here.
        Ok(unsafe { &*T::of(c) })
    }
}

impl<T: Object> Arg for Option<&T> {
    type C = *mut T::C;

    #[inline(always)]
    unsafe fn from_c(c: Self::C) -> Result<Self, Errno> {
        // SAFETY: the same promise.
        Ok(unsafe { <&T>::from_c(c) }.ok())
    }
}

/// Room for a value of the program's.
pub(crate) struct Out<'a, T> {
    room: NonNull<T>,
    lent: PhantomData<&'a mut T>,
}

impl<T> Out<'_, T> {
    /// Fills it.
    pub(crate) fn put(self, value: T) {
        // SAFETY: `from_c` was promised room for a value until the call returns, and the lifetime ends no later.
        unsafe { self.room.write(value) };
    }
}

impl<T> Arg for Out<'_, T> {
    type C = *mut T;

    const IS_ROOM: bool = true;

    #[inline(always)]
    unsafe fn from_c(c: Self::C) -> Result<Self, Errno> {
        let room = NonNull::new(c).ok_or(Errno::EINVAL)?;
        Ok(Self { room, lent: PhantomData })
    }
}

impl<T> Arg for Option<Out<'_, T>> {
    type C = *mut T;

    const IS_ROOM: bool = true;

    #[inline(always)]
    unsafe fn from_c(c: Self::C) -> Result<Self, Errno> {
        Ok(NonNull::new(c).map(|room| Out { room, lent: PhantomData }))
    }
}

macro_rules! as_it_is {
    ($($ty:ty),+) => { $(
        impl Arg for $ty {
            type C = Self;

            #[inline(always)]
            unsafe fn from_c(c: Self) -> Result<Self, Errno> {
                Ok(c)
            }
        }
    )+ };
}

as_it_is!(u8, u16, u32, u64, usize, c_int, *const c_char);

impl<T> Arg for *mut T {
    type C = Self;

    #[inline(always)]
    unsafe fn from_c(c: Self) -> Result<Self, Errno> {
        Ok(c)
    }
}

/// How many others depend on an object: it is not destroyed under them.
#[derive(Default)]
pub(crate) struct Users(AtomicU32);

impl Users {
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn remove(&self) {
        self.0.fetch_sub(1, Ordering::Release);
    }

    /// `EBUSY` while there are any, as the kernel says.
    pub(crate) fn none(&self) -> Result<(), Errno> {
        if self.0.load(Ordering::Acquire) == 0 { Ok(()) } else { Err(Errno::EBUSY) }
    }
}

/// The objects of one context that the program holds.
///
/// A program may close a device without destroying what it made: then all of that ends, but the C structures stay where they are, because programs
/// look into them later.
#[derive(Default)]
pub(crate) struct Given {
    /// By address: when it was given, and how it ends.
    objects: Mutex<HashMap<usize, (u64, End)>>,
    count: AtomicU64,
}

/// Ends an object where it is.
type End = unsafe fn(usize);

/// # Safety
/// At this address is a `T` that [`Given::give`] gave and that nobody uses any more.
unsafe fn end<T>(address: usize) {
    // SAFETY: our caller's promise.
    unsafe { core::ptr::with_exposed_provenance_mut::<T>(address).drop_in_place() };
}

impl Given {
    fn objects(&self) -> MutexGuard<'_, HashMap<usize, (u64, End)>> {
        crate::context::lock(&self.objects)
    }

    /// Hands an object to the program, which holds it until it calls the function that destroys it.
    pub(crate) fn give<T: Object>(&self, object: Box<T>) -> *mut T {
        let given = Box::into_raw(object);
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        self.objects().insert(given.expose_provenance(), (number, end::<T>));
        given
    }

    /// Takes an object back from the program, to drop it.
    ///
    /// # Safety
    /// It was [given](Self::give), and nobody uses it any more.
    pub(crate) unsafe fn take_back<T: Object>(&self, object: &T) -> Box<T> {
        let given = core::ptr::from_ref(object).cast_mut();
        self.objects().remove(&given.addr());
        // SAFETY: it came out of a box in `give`; by our caller's promise this is the only use left of it.
        unsafe { Box::from_raw(given) }
    }

    /// Ends all that the program still holds, the youngest first. The memory of the structures stays.
    ///
    /// # Safety
    /// The program makes no more calls on any of them, and no table names them.
    pub(crate) unsafe fn end_all(&self) {
        let mut left: Vec<_> = self.objects().drain().collect();
        left.sort_unstable_by_key(|(_, (number, _))| core::cmp::Reverse(*number));
        for (address, (_, end)) in left {
            // SAFETY: given and not taken back, and by our caller's promise nobody uses it.
            unsafe { end(address) };
        }
    }
}

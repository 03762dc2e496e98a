//! Questions: what devices and ports can do, and what is in a port's tables.

use crate::abi::*;
use crate::context::Context;
use crate::dm::MAX_DM_SIZE;
use crate::errno::Errno;
use crate::export::{export, function};
use crate::happen;
use crate::object::Out;
use core::ffi::{c_int, c_uint};
use core::mem::offset_of;
use core::ptr;
use std::sync::atomic::Ordering;
use tbrdma_proto::LinkLayer;

/// How fast the device's clock goes, in kHz: it counts nanoseconds.
const CLOCK_KHZ: u64 = 1_000_000;

/// What the device says of itself, under the name that the program knows it by.
fn device_attr(context: &Context) -> ibv_device_attr {
    let guid = context.opened.device.guid().to_be();
    let attr = ibv_device_attr::from(&context.inner().query_device());
    ibv_device_attr { node_guid: guid, sys_image_guid: guid, ..attr }
}

fn port_attr(context: &Context, port: u8) -> Result<ibv_port_attr, Errno> {
    let attr = context.inner().query_port(port)?;
    let is_down = context.opened.is_port_down.load(Ordering::Relaxed);
    Ok((&if is_down { attr.down() } else { attr }).into())
}

/// Writes as much of a value as the program has room for: its structure may be an older, shorter one, or a newer, longer one.
fn put_front<T: Copy>(value: &T, to: *mut T, room: usize) -> Result<(), Errno> {
    if to.is_null() {
        return Err(Errno::EINVAL);
    }
    let both = room.min(size_of::<T>());
    // SAFETY: the program has so much room, and the value is not there.
    unsafe { ptr::copy_nonoverlapping(ptr::from_ref(value).cast::<u8>(), to.cast::<u8>(), both) };
    let rest = to.cast::<u8>().wrapping_add(both);
    // SAFETY: the rest of the program's room.
    unsafe { rest.write_bytes(0, room - both) };
    Ok(())
}

/// The kind of a port's GIDs, as `enum ibv_gid_type` has it.
fn gid_type(context: &Context, port: u8) -> Result<u32, Errno> {
    /// `IBV_GID_TYPE_ROCE_V2`.
    const ROCE_V2: u32 = 2;
    let link = context.inner().query_port(port)?.link_layer;
    Ok(if link == LinkLayer::Ethernet { ROCE_V2 } else { 0 })
}

fn port_number(port: u32) -> Result<u8, Errno> {
    u8::try_from(port).map_err(|_| Errno::EINVAL)
}

/// An entry of the table, if it is used.
fn gid_entry(context: &Context, port: u8, index: u32) -> Result<ibv_gid_entry, Errno> {
    let gid = context.inner().query_gid(port, index)?;
    if gid.is_zero() {
        return Err(Errno(libc::ENODATA));
    }
    Ok(ibv_gid_entry {
        gid: ibv_gid { raw: gid.0 },
        gid_index: index,
        port_num: port.into(),
        gid_type: gid_type(context, port)?,
        ndev_ifindex: 0,
    })
}

export! {
    "IBVERBS_1.1" errno fn ibv_query_device(context: &Context, attr: Out<'_, ibv_device_attr>) -> c_int {
        attr.put(device_attr(context));
        Ok(())
    }

    /// For programs that were compiled when the structure ended with `flags`.
    "IBVERBS_1.1" errno fn ibv_query_port(context: &Context, port: u8, attr: *mut ibv_port_attr) -> c_int {
        let value = port_attr(context, port)?;
        put_front(&value, attr, offset_of!(ibv_port_attr, port_cap_flags2))
    }

    "IBVERBS_1.1" minus_one fn ibv_query_gid(context: &Context, port: u8, index: c_int, gid: Out<'_, ibv_gid>) -> c_int {
        let index = u32::try_from(index).map_err(|_| Errno::EINVAL)?;
        gid.put(ibv_gid { raw: context.inner().query_gid(port, index)?.0 });
        Ok(0)
    }

    "IBVERBS_1.11" errno fn _ibv_query_gid_ex(
        context: &Context,
        port: u32,
        index: u32,
        entry: *mut ibv_gid_entry,
        flags: u32,
        size: usize,
    ) -> c_int {
        if flags != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        put_front(&gid_entry(context, port_number(port)?, index)?, entry, size)
    }

    /// The entries that are used, and how many there are, or a negative `errno` value.
    "IBVERBS_1.11" plain fn _ibv_query_gid_table(
        context: &Context,
        entries: *mut ibv_gid_entry,
        room: usize,
        flags: u32,
        size: usize,
    ) -> isize {
        let all = || {
            if flags != 0 {
                return Err(Errno::EOPNOTSUPP);
            }
            happen::nothing::<()>()?;
            let mut count = 0;
            for port in 1..=context.inner().query_device().phys_port_cnt {
                for index in 0..context.inner().query_port(port)?.gid_tbl_len {
                    let Ok(entry) = gid_entry(context, port, index) else { continue };
                    if count == room {
                        return Err(Errno::EINVAL);
                    }
                    put_front(&entry, entries.wrapping_byte_add(count * size), size)?;
                    count += 1;
                }
            }
            Ok(count as isize)
        };
        Ok(all().unwrap_or_else(|errno| -(errno.0 as isize)))
    }

    /// As files of the kernel name the kinds: InfiniBand's and RoCE's first are one.
    "IBVERBS_PRIVATE_34" minus_one fn ibv_query_gid_type(
        context: &Context,
        port: u8,
        index: c_uint,
        kind: Out<'_, c_int>,
    ) -> c_int {
        kind.put((gid_entry(context, port, index)?.gid_type == 2).into());
        Ok(0)
    }

    "IBVERBS_1.1" minus_one fn ibv_query_pkey(context: &Context, port: u8, index: c_int, pkey: Out<'_, u16>) -> c_int {
        let index = u16::try_from(index).map_err(|_| Errno::EINVAL)?;
        pkey.put(context.inner().query_pkey(port, index)?.to_be());
        Ok(0)
    }

    "IBVERBS_1.5" minus_one fn ibv_get_pkey_index(context: &Context, port: u8, pkey: u16) -> c_int {
        let length = context.inner().query_port(port)?.pkey_tbl_len;
        let found = (0..length).find(|&index| context.inner().query_pkey(port, index).is_ok_and(|own| own == u16::from_be(pkey)));
        Ok(found.ok_or(Errno::EINVAL)?.into())
    }
}

function! {
    /// `ibv_query_port(3)`, for programs that say how long their structure is.
    errno fn query_port(context: &Context, port: u8, attr: *mut ibv_port_attr, room: usize) -> c_int {
        put_front(&port_attr(context, port)?, attr, room)
    }

    /// `ibv_query_device_ex(3)`.
    errno fn query_device_ex(
        context: &Context,
        input: *mut ibv_query_device_ex_input,
        attr: *mut ibv_device_attr_ex,
        room: usize,
    ) -> c_int {
        // SAFETY: the program passes the structure, or NULL.
        if unsafe { input.as_ref() }.is_some_and(|input| input.comp_mask != 0) {
            return Err(Errno::EINVAL);
        }
        let attr_now = device_attr(context);
        // SAFETY: numbers, for which zero is a value, and means that something is not offered.
        let mut all: ibv_device_attr_ex = unsafe { core::mem::zeroed() };
        all.orig_attr = attr_now;
        let odp = context.inner().query_device().odp_caps;
        all.odp_caps = ibv_odp_caps {
            general_caps: odp.general,
            rc_odp_caps: odp.rc,
            uc_odp_caps: odp.uc,
            ud_odp_caps: odp.ud,
        };
        all.max_dm_size = MAX_DM_SIZE;
        all.device_cap_flags_ex = attr_now.device_cap_flags.into();
        all.phys_port_cnt_ex = attr_now.phys_port_cnt.into();
        all.hca_core_clock = CLOCK_KHZ;
        put_front(&all, attr, room)
    }

    /// `ibv_query_rt_values_ex(3)`: the device's clock, all of it in `tv_nsec`, as adapters give theirs. What else is asked for is not given, and that is told.
    errno fn query_rt_values(context: &Context, values: *mut ibv_values_ex) -> c_int {
        // SAFETY: the program passes the structure.
        let values = unsafe { values.as_mut() }.ok_or(Errno::EINVAL)?;
        values.comp_mask &= IBV_VALUES_MASK_RAW_CLOCK;
        if values.comp_mask != 0 {
            let now = context.inner().raw_clock().as_nanos();
            values.raw_clock = libc::timespec { tv_sec: 0, tv_nsec: now as libc::c_long };
        }
        Ok(())
    }
}

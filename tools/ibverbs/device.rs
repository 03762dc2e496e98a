//! The devices of this process: a list that is made once, from the settings.
//!
//! The list and its devices stay for the life of the process: programs keep pointers to them in places that we do not see.

use crate::abi::{IBV_NODE_CA, IBV_TRANSPORT_IB, IBV_TRANSPORT_THUNDERBOLT, ibv_device, text_to_c};
use crate::export::export;
use crate::object::{Object, Out};
use crate::settings::settings;
use core::ffi::{c_char, c_int, c_void};
use core::ptr;
use std::sync::OnceLock;
use tbrdma_proto::{LinkLayer, NamedDevice, Profile};

/// A device.
#[repr(C)]
pub(crate) struct Device {
    c: ibv_device,
    /// Here rdma-core has the table of the driver. Other drivers' libraries look whether it is theirs: it is nobody's.
    _driver: *const c_void,
    /// What it is called, and what stands behind it.
    pub(crate) named: &'static NamedDevice,
    index: c_int,
    guid: u64,
}

impl Object for Device {
    type C = ibv_device;
}

// SAFETY: nothing in it changes, and its pointers are NULL.
unsafe impl Sync for Device {}
// SAFETY: as above.
unsafe impl Send for Device {}

impl Device {
    fn new(named: &'static NamedDevice, profile: &Profile, index: usize) -> Self {
        let name = named.name.as_str();
        let uverbs = format!("uverbs{index}");
        let c = ibv_device {
            ops: [ptr::null(); 2],
            node_type: IBV_NODE_CA,
            transport_type: match profile.port.link_layer {
                LinkLayer::Thunderbolt => IBV_TRANSPORT_THUNDERBOLT,
                _ => IBV_TRANSPORT_IB,
            },
            name: text_to_c(name),
            dev_name: text_to_c(&uverbs),
            dev_path: text_to_c(&format!("/sys/class/infiniband_verbs/{uverbs}")),
            ibdev_path: text_to_c(&format!("/sys/class/infiniband/{name}")),
        };
        Self { c, _driver: ptr::null(), named, index: index as c_int, guid: guid(name) }
    }

    pub(crate) fn c(&self) -> *mut ibv_device {
        ptr::from_ref(&self.c).cast_mut()
    }

    /// The node's GUID, in host order.
    pub(crate) fn guid(&self) -> u64 {
        self.guid
    }

    /// The name by which the program knows it.
    pub(crate) fn name(&self) -> &'static str {
        &self.named.name
    }
}

/// A GUID that is the same in each process of this host: FNV-1a of the host's and the device's name, marked as locally given.
fn guid(name: &str) -> u64 {
    let host = nix::sys::utsname::uname().map(|names| names.nodename().to_owned()).unwrap_or_default();
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in host.as_encoded_bytes().iter().chain(b"/").chain(name.as_bytes()) {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash & !(3 << 56) | 2 << 56
}

/// All devices.
pub(crate) fn all() -> &'static [Device] {
    static ALL: OnceLock<Vec<Device>> = OnceLock::new();
    ALL.get_or_init(|| {
        let Some(settings) = settings() else { return Vec::new() };
        let devices = settings.devices.iter().enumerate();
        devices.map(|(index, device)| Device::new(device, &settings.profile, index)).collect()
    })
}

export! {
    "IBVERBS_1.1" pointer fn ibv_get_device_list(count: Option<Out<'_, c_int>>) -> *mut *mut ibv_device {
        let devices = all();
        if let Some(count) = count {
            count.put(devices.len() as c_int);
        }
        let list = devices.iter().map(Device::c).chain([ptr::null_mut()]).collect::<Box<[_]>>();
        Ok(Box::into_raw(list).cast())
    }

    "IBVERBS_1.1" plain fn ibv_free_device_list(list: *mut *mut ibv_device) {
        if !list.is_null() {
            let list = ptr::slice_from_raw_parts_mut(list, all().len() + 1);
            // SAFETY: the program passes what `ibv_get_device_list` gave it, which is a box of this many.
            drop(unsafe { Box::from_raw(list) });
        }
        Ok(())
    }

    "IBVERBS_1.1" plain fn ibv_get_device_name(device: &Device) -> *const c_char {
        Ok(device.c.name.as_ptr())
    }

    "IBVERBS_1.1" plain fn ibv_get_device_guid(device: &Device) -> u64 {
        Ok(device.guid.to_be())
    }

    "IBVERBS_1.9" minus_one fn ibv_get_device_index(device: &Device) -> c_int {
        Ok(device.index)
    }
}

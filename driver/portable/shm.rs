//! In place of the `shm` device where there is none.

use crate::device::Device;
use crate::error::{Error, Result};
use crate::verbs::context::DeviceInfo;
use std::path::Path;
use tbrdma_proto::fault::LinkModel;
use tbrdma_proto::{CableEnd, Profile};

/// What it is, in a sentence.
pub(crate) const DESCRIPTION: &str = "shared memory, which this system has not in the form it needs";

/// No device.
pub(crate) fn devices() -> Vec<DeviceInfo> {
    Vec::new()
}

/// Says why there is none.
pub(crate) fn open(
    _profile: Profile,
    _cable: Option<&CableEnd>,
    _link: Option<LinkModel>,
    _capture: Option<&Path>,
) -> Result<Box<dyn Device>> {
    Err(Error::NotSupported {
        call: "open_device",
        device: "shm".to_owned(),
        what: "this operating system: it is made of Linux's memory files, abstract sockets and pidfds; use sim, within one process, \
               or an adapter of this machine",
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn devices_of_linux_say_why_they_are_not_here_and_what_is() {
        for name in ["shm", "udp:lo", "rdma_en2=shm"] {
            let error = crate::OpenOptions::new().open(name).unwrap_err();
            assert!(matches!(error, crate::Error::NotSupported { .. }), "{error}");
            let text = error.to_string();
            assert!(text.contains("this operating system") && text.contains("use sim"), "{text}");
        }
        assert!(
            crate::devices().iter().all(|device| device.name != "shm" && !device.name.starts_with("udp:"))
        );
    }
}

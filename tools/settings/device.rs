//! Devices: a name that the program sees, and what stands behind it.

use crate::ProfileName;
use std::fmt;

/// A device as the program sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceSetting {
    /// The name that `ibv_get_device_name` gives, such as `mlx5_0`.
    pub name: String,
    /// What `tbrdma::open` is asked for: `shm`, `udp:lo`.
    pub spec: String,
}

impl DeviceSetting {
    /// Whether it sends packets, which can be lost, delayed and captured.
    pub fn has_packets(&self) -> bool {
        self.spec != SHM
    }
}

impl fmt::Display for DeviceSetting {
    /// `NAME=SPEC`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.spec)
    }
}

const SHM: &str = "shm";
const UDP: &str = "udp:";
/// `IBV_SYSFS_NAME_MAX` without its final zero.
const LONGEST_NAME: usize = 63;
/// `IFNAMSIZ` without its final zero.
const LONGEST_INTERFACE: usize = 15;
/// As many as a program could make sense of.
const MOST: usize = 64;

/// The device of those who did not ask for one.
pub(crate) fn default(profile: ProfileName) -> DeviceSetting {
    DeviceSetting { name: default_name(SHM, profile, 0), spec: SHM.to_owned() }
}

pub(crate) fn parse_list(text: &str, profile: ProfileName) -> Result<Vec<DeviceSetting>, String> {
    let mut devices: Vec<DeviceSetting> = Vec::new();
    for part in text.split(',').map(str::trim) {
        let device = parse(part, profile, devices.len())?;
        if devices.iter().any(|earlier| earlier.name == device.name) {
            return Err(format!(
                "two devices are called {}; give one another name, as in rdma_en3={}",
                device.name, device.spec
            ));
        }
        devices.push(device);
    }
    if devices.len() > MOST {
        return Err(format!("these are {} devices; there may be {MOST}", devices.len()));
    }
    Ok(devices)
}

fn parse(text: &str, profile: ProfileName, position: usize) -> Result<DeviceSetting, String> {
    let (name, spec) = match text.split_once('=') {
        Some((name, spec)) => (Some(name), spec),
        None => (None, text),
    };
    let interface_fits = |interface: &str| {
        (1..=LONGEST_INTERFACE).contains(&interface.len())
            && interface.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/')
    };
    if spec != SHM && !spec.strip_prefix(UDP).is_some_and(interface_fits) {
        return Err(format!(
            "there is no device {spec:?}; write shm, or udp: and an interface, as in udp:lo"
        ));
    }
    let name = name.map_or_else(|| default_name(spec, profile, position), ToOwned::to_owned);
    // Programs make paths of names, and say NAME:PORT.
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    if name.is_empty() || name.len() > LONGEST_NAME || name.starts_with('.') || !name.bytes().all(fits) {
        return Err(format!(
            "{name:?} cannot be a device's name: it takes 1 to {LONGEST_NAME} letters, digits, _, - and ., as in mlx5_0={spec}"
        ));
    }
    Ok(DeviceSetting { name, spec: spec.to_owned() })
}

/// What a device is called that was given no name: as the devices of its profile are.
fn default_name(spec: &str, profile: ProfileName, position: usize) -> String {
    match profile {
        ProfileName::Plain => {
            let fits = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
            spec.chars().map(|c| if fits(c) { c } else { '_' }).collect()
        }
        ProfileName::Rxe => format!("rxe{position}"),
        ProfileName::ConnectX => format!("mlx5_{position}"),
        // A Mac's first Thunderbolt port is en2.
        ProfileName::AppleTb5 => format!("rdma_en{}", position + 2),
    }
}

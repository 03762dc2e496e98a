//! Reading lists of devices.

use core::str::FromStr;

use super::{Backend, CableEnd, NamedDevice};
use crate::stream::StreamAddressError;

/// `IBV_SYSFS_NAME_MAX` without its final zero; cables are held to the same.
const LONGEST_NAME: usize = 63;
/// `IFNAMSIZ` without its final zero.
const LONGEST_INTERFACE: usize = 15;
/// `PATH_MAX` without its final zero.
const LONGEST_PLACE: usize = 4095;
/// Devices of one program: as many as it could make sense of.
const MOST_DEVICES: usize = 64;
/// Ranks of a mesh or ring.
const MOST_RANKS: usize = MOST_DEVICES + 1;

/// A text that is not a list of devices.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("devices: {what} in {part:?}: write {expected}")]
pub struct ParseDevicesError {
    /// The part between commas that was refused.
    pub part: String,
    /// What is wrong with it.
    pub what: &'static str,
    /// What would be right.
    pub expected: &'static str,
}

const BACKENDS: &str = "[NAME=]shm, [NAME=]udp:IFACE, [NAME=]sim[:NETWORK], [NAME=]stream:ADDRESS, [NAME=]bar:PLACE, [NAME=]shm@CABLE:0 or :1, mesh:RANK/SIZE[:LABEL]=shm, or ring:RANK/SIZE[:LABEL]=shm";
const STREAMS: &str = "stream:unix:/PATH, stream:unix:@NAME, stream:tcp:HOST:PORT or stream:vsock:CID:PORT, each with ,listen or ,connect behind it if need be, stream:standin:NAME, or stream:/dev/tbstream0";
const WINDOWS: &str = "bar:file:/path, bar:paired:/path, or the address of a PCI device as in bar:0000:00:04.0; no = and no blanks";
const NAMES: &str =
    "1 to 63 letters, digits, _, - and ., the first not a dot, no name twice, as in mlx5_0=udp:lo";
const RANKS: &str = "a rank from 0, a slash, and how many ranks there are, from 2 to 65, as in mesh:0/4=shm";

/// Reads a list of devices. `profile` is the name of the profile that they go by, after which those without a name are called.
///
/// # Errors
/// The first part that makes no sense.
pub fn parse_devices(text: &str, profile: &str) -> Result<Vec<NamedDevice>, ParseDevicesError> {
    let mut devices: Vec<NamedDevice> = Vec::new();
    for part in parts(text) {
        let refuse = |what, expected| ParseDevicesError { part: part.to_owned(), what, expected };
        let position = devices.len();
        let found = match shape(part) {
            Some(shape) => cabled(shape, part, position)?,
            None => vec![device(part, profile, position)?],
        };
        for device in found {
            if devices.iter().any(|earlier| earlier.name == device.name) {
                return Err(refuse("a name that is taken", NAMES));
            }
            devices.push(device);
        }
        if devices.len() > MOST_DEVICES {
            return Err(refuse("too many devices", "at most 64"));
        }
    }
    Ok(devices)
}

/// The parts between commas. What is said of a stream behind a comma belongs to it.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let whole = rest?;
        let mut end = whole.find(',').unwrap_or(whole.len());
        let is_stream =
            whole[..end].trim_start().split('=').next_back().is_some_and(|it| it.starts_with("stream:"));
        if is_stream && let Some(behind) = whole[end..].strip_prefix(',') {
            let word = behind.split(',').next().unwrap_or_default();
            if matches!(word.trim_end(), "listen" | "connect") {
                end += 1 + word.len();
            }
        }
        rest = whole.get(end + 1..);
        Some(whole[..end].trim())
    })
}

impl FromStr for Backend {
    type Err = ParseDevicesError;

    fn from_str(text: &str) -> Result<Self, ParseDevicesError> {
        let refuse = |what, expected| ParseDevicesError { part: text.to_owned(), what, expected };
        if text == "shm" {
            return Ok(Self::Shm(None));
        }
        if text == "sim" {
            return Ok(Self::Sim(String::new()));
        }
        if let Some(network) = text.strip_prefix("sim:") {
            if !is_name(network) {
                return Err(refuse(
                    "a network name that is none",
                    "sim, or sim:NETWORK with 1 to 63 letters, digits, _, - and .",
                ));
            }
            return Ok(Self::Sim(network.to_owned()));
        }
        if let Some(end) = text.strip_prefix("shm@") {
            let wrong =
                || refuse("no end of a cable", "shm@CABLE:0 for the one end and shm@CABLE:1 for the other");
            let (cable, end) = end.rsplit_once(':').ok_or_else(wrong)?;
            let end = match end {
                "0" => 0,
                "1" => 1,
                _ => return Err(wrong()),
            };
            if !is_name(cable) {
                return Err(wrong());
            }
            return Ok(Self::Shm(Some(CableEnd { cable: cable.to_owned(), end })));
        }
        if let Some(address) = text.strip_prefix("stream:") {
            let wrong = |error: StreamAddressError| refuse(error.what, STREAMS);
            return address.parse().map(Self::Stream).map_err(wrong);
        }
        if let Some(place) = text.strip_prefix("bar:") {
            let fits = (1..=LONGEST_PLACE).contains(&place.len())
                && place.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'=');
            return if fits {
                Ok(Self::Bar(place.to_owned()))
            } else {
                Err(refuse("no memory window", WINDOWS))
            };
        }
        if let Some(device) = text.strip_prefix("native:").filter(|device| is_name(device)) {
            return Ok(Self::Native(device.to_owned()));
        }
        let fits = |interface: &&str| {
            (1..=LONGEST_INTERFACE).contains(&interface.len())
                && interface.bytes().all(|byte| byte.is_ascii_graphic() && !b"/,=".contains(&byte))
        };
        match text.strip_prefix("udp:").filter(fits) {
            Some(interface) => Ok(Self::Udp(interface.to_owned())),
            None => Err(refuse("no such kind of device", BACKENDS)),
        }
    }
}

/// How devices of several ranks are cabled.
#[derive(Clone, Copy)]
enum Shape<'a> {
    Mesh(&'a str),
    Ring(&'a str),
}

fn shape(part: &str) -> Option<Shape<'_>> {
    part.strip_prefix("mesh:").map(Shape::Mesh).or_else(|| part.strip_prefix("ring:").map(Shape::Ring))
}

/// The devices of one rank.
fn cabled(shape: Shape<'_>, part: &str, position: usize) -> Result<Vec<NamedDevice>, ParseDevicesError> {
    let refuse = |what, expected| ParseDevicesError { part: part.to_owned(), what, expected };
    let (Shape::Mesh(rest) | Shape::Ring(rest)) = shape;
    let (ranks, backend) = rest.split_once('=').unwrap_or((rest, ""));
    if backend != "shm" {
        return Err(refuse(
            "something that takes no cables",
            "mesh:RANK/SIZE[:LABEL]=shm, and likewise ring",
        ));
    }
    let (ranks, label) = match ranks.split_once(':') {
        Some((ranks, label)) => (ranks, Some(label)),
        None => (ranks, None),
    };
    let wrong = || refuse("no rank", RANKS);
    let (rank, size) = ranks.split_once('/').ok_or_else(wrong)?;
    let number =
        |text: &str| text.parse::<usize>().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    let (rank, size) = (number(rank).ok_or_else(wrong)?, number(size).ok_or_else(wrong)?);
    if !(2..=MOST_RANKS).contains(&size) || rank >= size {
        return Err(wrong());
    }
    let ends: Vec<(String, u8)> = match shape {
        Shape::Mesh(_) => {
            let others = (0..size).filter(|other| *other != rank);
            let cable = |other: usize| format!("{}-{}", rank.min(other), rank.max(other));
            others.map(|other| (cable(other), u8::from(rank > other))).collect()
        }
        Shape::Ring(_) => vec![(rank.to_string(), 0), (((rank + size - 1) % size).to_string(), 1)],
    };
    let kind = if matches!(shape, Shape::Mesh(_)) { "mesh" } else { "ring" };
    let label = label.unwrap_or(kind);
    let named = ends.into_iter().enumerate().map(|(index, (cable, end))| {
        // Meshes of other sizes are others.
        let cable = format!("{label}.{kind}{size}.{cable}");
        let backend = Backend::Shm(Some(CableEnd { cable, end }));
        NamedDevice { name: port_name(position + index), backend }
    });
    let devices: Vec<_> = named.collect();
    let fits = |device: &NamedDevice| match &device.backend {
        Backend::Shm(Some(end)) => is_name(&end.cable) && is_name(label),
        _ => true,
    };
    if !devices.iter().all(fits) {
        return Err(refuse("a label that is none", "a label of at most 40 letters, digits, _, - and ."));
    }
    Ok(devices)
}

fn device(part: &str, profile: &str, position: usize) -> Result<NamedDevice, ParseDevicesError> {
    let (name, backend) = match part.split_once('=') {
        Some((name, backend)) => (Some(name), backend),
        None => (None, part),
    };
    let backend: Backend = backend
        .parse()
        .map_err(|error: ParseDevicesError| ParseDevicesError { part: part.to_owned(), ..error })?;
    let name = name.map_or_else(|| default_name(&backend, profile, position), ToOwned::to_owned);
    if !is_name(&name) {
        return Err(ParseDevicesError {
            part: part.to_owned(),
            what: "a name that is none",
            expected: NAMES,
        });
    }
    Ok(NamedDevice { name, backend })
}

/// Programs make paths of names, and say NAME:PORT.
fn is_name(text: &str) -> bool {
    (1..=LONGEST_NAME).contains(&text.len())
        && !text.starts_with('.')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
}

/// A Mac's first Thunderbolt port is en2.
fn port_name(position: usize) -> String {
    format!("rdma_en{}", position + 2)
}

fn default_name(backend: &Backend, profile: &str, position: usize) -> String {
    match profile {
        "rxe" => format!("rxe{position}"),
        "connectx" => format!("mlx5_{position}"),
        "apple-tb5" => port_name(position),
        _ => {
            let fits = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
            let kind = match backend {
                Backend::Shm(_) => "shm".to_owned(),
                Backend::Bar(_) => "bar".to_owned(),
                Backend::Udp(_) | Backend::Sim(_) | Backend::Native(_) | Backend::Stream(_) => {
                    backend.to_string()
                }
            };
            kind.chars().map(|c| if fits(c) { c } else { '_' }).collect()
        }
    }
}

//! Opening a device otherwise than plainly: under another name, with a profile, on a link of some speed, with faults on its wire, or with a
//! capture of it.

use super::context::{Context, devices};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::link::{self, Link, bar, stream, udp};
use crate::native::NativeDevice;
use crate::orderly;
use crate::shm;
use crate::sim::{Network, SimLink};
use crate::soft::core::Simulation;
use crate::soft::device::SoftDevice;
use crate::sys::random::random_u64;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;
use tbrdma_proto::fault::{FaultPlan, LinkModel, LinkModelError, Random};
use tbrdma_proto::{Backend, NamedDevice, ParseProfileError, Profile, parse_devices};

const CALL: &str = "open_device";

/// One way through a simulated network, if nothing else is said: a cable and a switch.
const SIMULATED_LATENCY: Duration = Duration::from_micros(1);

/// How to open a device.
///
/// ```no_run
/// # fn main() -> Result<(), tbrdma::Error> {
/// let ctx = tbrdma::OpenOptions::new().fault("loss=1%").seed(7).capture("lossy.pcapng").open("udp:lo")?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    fault: Option<String>,
    seed: Option<u64>,
    link: Option<String>,
    capture: Option<PathBuf>,
    profile: Option<String>,
    devices: Option<String>,
}

impl OpenOptions {
    /// Nothing out of the ordinary, whatever the environment says.
    pub fn new() -> Self {
        Self::default()
    }

    /// What the environment says: `TBRDMA_FAULT`, `TBRDMA_SEED`, `TBRDMA_LINK`, `TBRDMA_CAPTURE`, `TBRDMA_PROFILE`, `TBRDMA_DEVICES`, as for
    /// the methods below.
    ///
    /// # Errors
    /// `TBRDMA_SEED` is not a number.
    pub fn from_environment() -> Result<Self> {
        let text = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
        let seed = match text("TBRDMA_SEED") {
            None => None,
            Some(text) => Some(text.parse().map_err(|_| Error::InvalidArgument {
                call: "open_device",
                reason: format!("TBRDMA_SEED is {text:?}; it must be a number below 2^64"),
            })?),
        };
        let capture = std::env::var_os("TBRDMA_CAPTURE").filter(|path| !path.is_empty()).map(PathBuf::from);
        let (profile, devices) = (text("TBRDMA_PROFILE"), text("TBRDMA_DEVICES"));
        Ok(Self { fault: text("TBRDMA_FAULT"), seed, link: text("TBRDMA_LINK"), capture, profile, devices })
    }

    /// What is wrong with the wire, for what this context sends: a [fault plan](crate::fault::FaultPlan) such as `loss=1%,delay=50us~20us`, perhaps
    /// another one from some time on, counted from the first packet: `none; 2s: loss=100%; 3s: none`. It is looked at when the device is opened. Only `udp`, `stream` and `sim` devices have packets for it.
    pub fn fault(mut self, plan: impl Into<String>) -> Self {
        self.fault = Some(plan.into());
        self
    }

    /// The seed of the faults: the same seed and the same packets give the same faults. Without one it is random; on `sim`, where everything
    /// follows from it, numbers of queue pairs and keys too, it is 0.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// How fast the link is: a rate, a latency or both, as in `64Gbps,5us`. It is looked at when the device is opened.
    ///
    /// The rate is for all that this context sends, and for all that is sent in answer; the latency is one way. On `udp` and `stream` it is the `rate` and
    /// `delay` of a [fault plan](Self::fault), and each side says it for what it sends. On `shm` the side that posts a work request says it for the
    /// request and for its answer: the request takes effect at the peer when it has come there, and completes here when the answer has come back; a
    /// READ or an atomic takes effect when it completes; UC and UD complete when they arrive. Nothing is earlier than that; on a busy machine it is
    /// later.
    pub fn link(mut self, link: impl Into<String>) -> Self {
        self.link = Some(link.into());
        self
    }

    /// A file that gets every packet this context sends and receives, as pcapng. On `shm`, which has none, those that an adapter would have sent: what
    /// this context asks of others, and their answers. Contexts of a process that are given the same file share it.
    pub fn capture(mut self, file: impl Into<PathBuf>) -> Self {
        self.capture = Some(file.into());
        self
    }

    /// What the device is to pretend to be: a profile such as `connectx`, `apple-tb5` or `apple-tb5,overrun=silent`, see
    /// [`Profile`](crate::Profile). It is looked at when the device is opened.
    pub fn profile(mut self, profile: impl Into<String>) -> Self {
        self.profile = Some(profile.into());
        self
    }

    /// The devices that [`open`](Self::open) knows by name, as a list such as `mlx5_0=udp:lo,rdma_en2=shm@left:0`: see
    /// [`parse_devices`](crate::parse_devices). It is looked at when a device is opened.
    pub fn devices(mut self, list: impl Into<String>) -> Self {
        self.devices = Some(list.into());
        self
    }

    /// Opens a device by name: see [`open`](crate::open).
    ///
    /// # Errors
    /// As there; also if the profile, the list of devices or the fault plan makes no sense, the capture file cannot be written, or the device has
    /// no wire of packets.
    pub fn open(&self, name: &str) -> Result<Context> {
        let profile = self.read_profile()?;
        let (name, backend) = self.find(name, &profile)?;
        let device: Box<dyn Device> = match &backend {
            Backend::Shm(_) if self.fault.is_some() => {
                return Err(Error::NotSupported {
                    call: CALL,
                    device: name.unwrap_or_else(|| backend.to_string()),
                    what: "faults of packets: it has none; use a udp device, or a link for a rate and a latency",
                });
            }
            Backend::Shm(cable) => {
                shm::open(profile, cable.as_ref(), self.read_link()?, self.capture.as_deref())?
            }
            Backend::Native(device) => {
                self.refuse_wires(device)?;
                let profile = match &self.profile {
                    // Nobody has said otherwise: a Mac's ports have Apple's rules.
                    None if NativeDevice::IS_APPLES => Profile::apple_tb5(),
                    _ => profile,
                };
                let native = Box::new(NativeDevice::open(device, &profile)?);
                if profile.is_apples() { orderly::around(native)? } else { native }
            }
            Backend::Udp(interface) => Box::new(self.drive(|| udp::open(interface), profile)?),
            Backend::Stream(address) => Box::new(self.drive(|| stream::open(address), profile)?),
            Backend::Bar(place) => Box::new(self.drive(|| bar::open(place), profile)?),
            Backend::Sim(network) => Box::new(self.simulate(network, profile)?),
        };
        Ok(Context::of(crate::profiled::around(device, name.as_deref())?))
    }

    /// Opens a device over a byte stream that is there already: a connected stream socket, or any other descriptor that takes bytes and hands
    /// them out in order. Whoever has the other end does the same. The device has no other peer, and when the stream ends its port is down for good.
    ///
    /// # Errors
    /// Bytes do not stream through the descriptor; or as for [`open`](Self::open).
    pub fn open_stream(&self, stream: OwnedFd) -> Result<Context> {
        self.open_given(stream, None)
    }

    /// The same over two descriptors, such as the ends of two pipes: what comes in, and what goes out.
    ///
    /// # Errors
    /// As for [`open_stream`](Self::open_stream).
    pub fn open_streams(&self, input: OwnedFd, output: OwnedFd) -> Result<Context> {
        self.open_given(input, Some(output))
    }

    fn open_given(&self, input: OwnedFd, output: Option<OwnedFd>) -> Result<Context> {
        let device = self.drive(|| stream::over(input, output), self.read_profile()?)?;
        Ok(Context::of(crate::profiled::around(Box::new(device), None)?))
    }

    /// The software NIC on a link, with what is asked for around it.
    fn drive(&self, open: impl FnOnce() -> Result<Box<dyn Link>>, profile: Profile) -> Result<SoftDevice> {
        let fault = self.read_fault()?.map(|plan| self.seeded(plan)).transpose()?;
        SoftDevice::open(link::wrap(open()?, fault, self.capture.as_deref())?, profile)
    }

    /// The devices of this host, or those that were listed.
    ///
    /// # Errors
    /// The profile or the list makes no sense.
    pub(crate) fn list(&self) -> Result<Option<Vec<NamedDevice>>> {
        let Some(list) = &self.devices else { return Ok(None) };
        let profile = self.read_profile()?;
        let devices = parse_devices(list, profile.name);
        devices.map(Some).map_err(|error| Error::InvalidArgument { call: CALL, reason: error.to_string() })
    }

    fn read_profile(&self) -> Result<Profile> {
        let Some(text) = &self.profile else { return Ok(Profile::plain()) };
        text.parse().map_err(|error: ParseProfileError| Error::InvalidArgument {
            call: CALL,
            reason: error.to_string(),
        })
    }

    fn read_link(&self) -> Result<Option<LinkModel>> {
        let Some(text) = &self.link else { return Ok(None) };
        text.parse().map(Some).map_err(|error| self.wrong_link(&error))
    }

    fn wrong_link(&self, error: &LinkModelError) -> Error {
        let text = self.link.as_deref().unwrap_or_default();
        Error::InvalidArgument { call: CALL, reason: format!("link {text:?}: {error}") }
    }

    /// What a name stands for: one of the listed devices, or itself. The name it is to have, if it is another than its own.
    fn find(&self, name: &str, profile: &Profile) -> Result<(Option<String>, Backend)> {
        let listed = self.list()?.unwrap_or_default();
        if let Some(device) = listed.into_iter().find(|device| device.name == name) {
            return Ok((Some(device.name), device.backend));
        }
        let known = || {
            let known: Vec<_> = devices().into_iter().map(|device| device.name).collect();
            Error::NoSuchDevice { name: name.to_owned(), known: known.join(", ") }
        };
        match name.parse::<Backend>() {
            Ok(backend) => return Ok((None, backend)),
            // Names of these kinds are nobody else's: what is wrong with one says more than that nobody has it.
            Err(error) if name.starts_with("stream:") || name.starts_with("bar:") => {
                return Err(Error::InvalidArgument { call: CALL, reason: error.to_string() });
            }
            Err(_) => {}
        }
        if crate::native::has(name) {
            return Ok((Some(name.to_owned()), Backend::Native(name.to_owned())));
        }
        match parse_devices(name, profile.name) {
            Ok(devices) if name.contains('=') => match <[NamedDevice; 1]>::try_from(devices) {
                Ok([device]) => Ok((Some(device.name), device.backend)),
                Err(_) => Err(known()),
            },
            _ => Err(known()),
        }
    }

    /// Faults, a link model and a capture are done to packets, and those of an adapter are its own.
    fn refuse_wires(&self, device: &str) -> Result<()> {
        let asked = [
            (self.fault.is_some(), "faults of packets: it sends them itself"),
            (self.link.is_some(), "another rate and latency than its own"),
            (self.capture.is_some(), "a capture: its packets do not pass through us"),
        ];
        match asked.into_iter().find(|(asked, _)| *asked) {
            Some((_, what)) => Err(Error::NotSupported { call: CALL, device: device.to_owned(), what }),
            None => Ok(()),
        }
    }

    /// An adapter in a simulated network.
    fn simulate(&self, network: &str, profile: Profile) -> Result<SoftDevice> {
        let network = Network::of(network);
        let link = SimLink::open(&network)?;
        // Adapters that are given the same seed must not have the same luck.
        let random = Random::new(self.seed.unwrap_or_default()).stream(link.node().into());
        let mut plan = self.read_fault()?.unwrap_or_default();
        let later = plan.stages.iter_mut().map(|stage| (&mut stage.plan.delay, stage.plan.jitter));
        for (delay, jitter) in later.chain([(&mut plan.delay, plan.jitter)]) {
            if delay.is_zero() && jitter.is_zero() {
                *delay = SIMULATED_LATENCY;
            }
        }
        let seed = random.clone().next_u64();
        let link = link::wrap(Box::new(link), Some((plan, seed)), self.capture.as_deref())?;
        SoftDevice::simulate(link, profile, Simulation { network, random: random.stream(1) })
    }

    /// What is wrong with the wire, its speed included; `None` if nothing is said of it.
    fn read_fault(&self) -> Result<Option<FaultPlan>> {
        let fault = match &self.fault {
            None => None,
            Some(plan) => Some(plan.parse::<FaultPlan>().map_err(|error| Error::InvalidArgument {
                call: CALL,
                reason: format!("fault plan {plan:?}: {error}"),
            })?),
        };
        match (fault, self.read_link()?) {
            (fault, None) => Ok(fault),
            (fault, Some(link)) => {
                link.with_faults(fault.unwrap_or_default()).map(Some).map_err(|error| self.wrong_link(&error))
            }
        }
    }

    /// The plan, with the seed that was given or a random one.
    fn seeded(&self, plan: FaultPlan) -> Result<(FaultPlan, u64)> {
        let seed = match self.seed {
            Some(seed) => seed,
            None => random_u64().map_err(Error::os(CALL, "draw a seed for the faults"))?,
        };
        Ok((plan, seed))
    }
}

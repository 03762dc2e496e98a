//! Opening a device otherwise than plainly: with faults on its wire, or with a capture of it.

use super::context::{Context, devices};
use crate::error::{Error, Result};
use crate::link;
use crate::link::udp::{PREFIX as UDP, UdpLink};
use crate::shm::device::{NAME as SHM, ShmDevice};
use crate::soft::device::SoftDevice;
use crate::sys::random::random_u64;
use std::path::PathBuf;
use std::sync::Arc;
use tbrdma_proto::fault::FaultPlan;

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
    capture: Option<PathBuf>,
}

impl OpenOptions {
    /// Nothing out of the ordinary, whatever the environment says.
    pub fn new() -> Self {
        Self::default()
    }

    /// What the environment says: `TBRDMA_FAULT`, `TBRDMA_SEED`, `TBRDMA_CAPTURE`, as for the methods below.
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
        Ok(Self { fault: text("TBRDMA_FAULT"), seed, capture })
    }

    /// What is wrong with the wire, for what this context sends: a fault plan such as `loss=1%,delay=50us~20us`. It is looked at when the device
    /// is opened.
    pub fn fault(mut self, plan: impl Into<String>) -> Self {
        self.fault = Some(plan.into());
        self
    }

    /// The seed of the faults: the same seed and the same packets give the same faults. Without one it is random.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// A file that gets every packet this context sends and receives, as pcapng.
    pub fn capture(mut self, file: impl Into<PathBuf>) -> Self {
        self.capture = Some(file.into());
        self
    }

    /// Opens a device by name: see [`open`](crate::open).
    ///
    /// # Errors
    /// As there; also if the fault plan makes no sense, the capture file cannot be written, or the device has no wire of packets.
    pub fn open(&self, name: &str) -> Result<Context> {
        const CALL: &str = "open_device";
        if name == SHM {
            if self.fault.is_some() || self.capture.is_some() {
                return Err(Error::NotSupported {
                    call: CALL,
                    device: name.to_owned(),
                    what: "faults or captures: it has no packets; use a udp device",
                });
            }
            return Ok(Context::of(Arc::new(ShmDevice::open()?)));
        }
        let fault = match &self.fault {
            None => None,
            Some(plan) => Some(plan.parse::<FaultPlan>().map_err(|error| Error::InvalidArgument {
                call: CALL,
                reason: format!("fault plan {plan:?}: {error}"),
            })?),
        };
        let Some(interface) = name.strip_prefix(UDP) else {
            let known: Vec<_> = devices().into_iter().map(|device| device.name).collect();
            return Err(Error::NoSuchDevice { name: name.to_owned(), known: known.join(", ") });
        };
        let fault = match (fault, self.seed) {
            (None, _) => None,
            (Some(plan), Some(seed)) => Some((plan, seed)),
            (Some(plan), None) => {
                Some((plan, random_u64().map_err(Error::os(CALL, "draw a seed for the faults"))?))
            }
        };
        let link = link::wrap(Box::new(UdpLink::open(interface)?), fault, self.capture.as_deref())?;
        Ok(Context::of(Arc::new(SoftDevice::open(link)?)))
    }
}

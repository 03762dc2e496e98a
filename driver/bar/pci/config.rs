//! A function's configuration space (PCI Local Bus Specification 3.0, chapter 6): what it is, and where its MSI-X table is. The bytes come from a
//! device and are not believed.

/// Bytes of the header that every function has; users without rights are shown no more by the system.
pub(crate) const HEADER_BYTES: usize = 64;

/// Where the registers are.
mod at {
    pub(super) const VENDOR: usize = 0x00;
    pub(super) const DEVICE: usize = 0x02;
    pub(super) const COMMAND: usize = 0x04;
    pub(super) const STATUS: usize = 0x06;
    pub(super) const HEADER_TYPE: usize = 0x0e;
    pub(super) const CAPABILITIES: usize = 0x34;
}

/// Where the command register is.
pub(crate) const COMMAND: u64 = at::COMMAND as u64;
/// Command: the function answers accesses to its memory.
pub(crate) const COMMAND_MEMORY: u16 = 1 << 1;
/// Command: the function may write to memory, which is what an MSI is.
pub(crate) const COMMAND_MASTER: u16 = 1 << 2;

/// Status: there is a list of capabilities.
const STATUS_CAPABILITIES: u16 = 1 << 4;

/// The number of the MSI-X capability.
const MSI_X: u8 = 0x11;

/// The most capabilities that the space before 0x100 has room for: each is a word at least.
const MOST_CAPABILITIES: usize = (256 - HEADER_BYTES) / 4;

/// What there is to know of a function's space, as it was read at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConfigSpace {
    pub(crate) vendor: u16,
    pub(crate) device: u16,
    pub(crate) command: u16,
    pub(crate) msi_x: MsiX,
}

/// What is known of interrupts by MSI-X.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MsiX {
    /// So many vectors; which BAR has the table.
    Vectors {
        /// 1 to 2048.
        count: u16,
        /// 0 to 5.
        bar: u8,
    },
    /// The function has none.
    None,
    /// The list of capabilities was not shown to us, or leads nowhere.
    Unknown,
}

/// Why bytes are no configuration space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConfigError {
    /// No device answers any more.
    #[error("its configuration space reads as all ones: it was unplugged, or is held in reset")]
    Gone,
    /// Fewer than [`HEADER_BYTES`].
    #[error("its configuration space has {0} bytes, and {HEADER_BYTES} at least were expected")]
    Short(usize),
    /// A bridge, or something that is no PCI function.
    #[error("its header is of type {0}, as of a bridge; a device with memory has type 0")]
    Header(u8),
}

impl ConfigSpace {
    /// Looks at the bytes from the space's start on.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, ConfigError> {
        let short = ConfigError::Short(bytes.len());
        let half = |at| u16_at(bytes, at).ok_or(short);
        let vendor = half(at::VENDOR)?;
        if vendor == u16::MAX {
            return Err(ConfigError::Gone);
        }
        if bytes.len() < HEADER_BYTES {
            return Err(short);
        }
        // The top bit says that there are more functions.
        let header = bytes.get(at::HEADER_TYPE).ok_or(short)? & 0x7f;
        if header != 0 {
            return Err(ConfigError::Header(header));
        }
        let msi_x = if half(at::STATUS)? & STATUS_CAPABILITIES == 0 { MsiX::None } else { find_msi_x(bytes) };
        Ok(Self { vendor, device: half(at::DEVICE)?, command: half(at::COMMAND)?, msi_x })
    }
}

/// Follows the list of capabilities. It may lead into itself, out of the space, or to where nothing was read.
fn find_msi_x(bytes: &[u8]) -> MsiX {
    let mut next = bytes.get(at::CAPABILITIES).copied().unwrap_or(0);
    for _ in 0..MOST_CAPABILITIES {
        // The two low bits mean nothing.
        let at = usize::from(next & !3);
        if at == 0 {
            return MsiX::None;
        }
        let Some([id, following]) = bytes.get(at..).and_then(|rest| rest.first_chunk().copied()) else {
            break;
        };
        if at < HEADER_BYTES {
            break;
        }
        if id == MSI_X {
            return msi_x_at(bytes, at).unwrap_or(MsiX::Unknown);
        }
        next = following;
    }
    MsiX::Unknown
}

/// The capability (PCI 3.0, section 6.8.2): control with the size less one in 11 bits, and the table's place with its BAR in the low 3 bits.
fn msi_x_at(bytes: &[u8], at: usize) -> Option<MsiX> {
    let count = (u16_at(bytes, at + 2)? & 0x7ff) + 1;
    let bar = *bytes.get(at + 4)? & 7;
    (bar < 6).then_some(MsiX::Vectors { count, bar })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tbrdma_proto::fault::Random;

    /// The space of qemu's ivshmem-doorbell with four vectors: a list of one capability, at 0x40.
    fn doorbell() -> Vec<u8> {
        let mut bytes = vec![0; 256];
        bytes[..0x10].copy_from_slice(&[0xf4, 0x1a, 0x10, 0x11, 6, 4, 0x10, 0, 1, 0, 0, 5, 0, 0, 0, 0]);
        bytes[0x34] = 0x40;
        bytes[0x40..0x4c].copy_from_slice(&[0x11, 0, 3, 0x80, 1, 0, 0, 0, 1, 8, 0, 0]);
        bytes
    }

    #[test]
    fn a_doorbell_has_its_vectors() {
        let said = ConfigSpace::parse(&doorbell()).unwrap();
        assert_eq!((said.vendor, said.device), (0x1af4, 0x1110));
        assert_eq!(said.command, COMMAND_MEMORY | COMMAND_MASTER | 0x400);
        assert_eq!(said.msi_x, MsiX::Vectors { count: 4, bar: 1 });
    }

    #[test]
    fn who_may_read_the_header_only_knows_no_capabilities() {
        assert_eq!(ConfigSpace::parse(&doorbell()[..64]).unwrap().msi_x, MsiX::Unknown);
        let mut plain = doorbell();
        plain[6] = 0;
        assert_eq!(ConfigSpace::parse(&plain).unwrap().msi_x, MsiX::None);
        assert_eq!(ConfigSpace::parse(&plain[..64]).unwrap().msi_x, MsiX::None);
    }

    #[test]
    fn a_device_that_is_gone_is_not_one_that_is_odd() {
        assert_eq!(ConfigSpace::parse(&[0xff; 256]), Err(ConfigError::Gone));
        assert_eq!(ConfigSpace::parse(&[0xff, 0xff]), Err(ConfigError::Gone));
        assert_eq!(ConfigSpace::parse(&[]), Err(ConfigError::Short(0)));
        assert_eq!(ConfigSpace::parse(&doorbell()[..63]), Err(ConfigError::Short(63)));
        let mut bridge = doorbell();
        bridge[0x0e] = 0x81;
        assert_eq!(ConfigSpace::parse(&bridge), Err(ConfigError::Header(1)));
    }

    #[test]
    fn lists_that_lead_astray_end() {
        for (wrong, at) in [("itself", 0x40), ("the header", 0x10), ("beyond what was read", 0xfc)] {
            let mut bytes = doorbell();
            bytes[0x40..0x42].copy_from_slice(&[9, at]);
            bytes.truncate(0xfc);
            assert_eq!(ConfigSpace::parse(&bytes).unwrap().msi_x, MsiX::Unknown, "{wrong}");
        }
        let mut cut = doorbell();
        cut.truncate(0x43);
        assert_eq!(ConfigSpace::parse(&cut).unwrap().msi_x, MsiX::Unknown);
        let mut bar = doorbell();
        bar[0x44] = 7;
        assert_eq!(ConfigSpace::parse(&bar).unwrap().msi_x, MsiX::Unknown);
    }

    #[test]
    fn no_bytes_are_too_odd_to_be_looked_at() {
        let mut random = Random::new(0x5eed);
        for _ in 0..20_000 {
            let mut bytes = doorbell();
            for _ in 0..random.next_u64() % 6 {
                let at = random.next_u64() as usize % bytes.len();
                bytes[at] = random.next_u64() as u8;
            }
            bytes.truncate(random.next_u64() as usize % 257);
            if let Ok(ConfigSpace { msi_x: MsiX::Vectors { count, bar }, .. }) = ConfigSpace::parse(&bytes) {
                assert!((1..=2048).contains(&count) && bar < 6);
            }
        }
    }
}

//! What can be set, and by which names.

/// The variable that names the file.
pub const CONFIG_VARIABLE: &str = "TBRDMA_CONFIG";
/// The flag that names the file.
pub const CONFIG_FLAG: &str = "--config";

/// One thing that can be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// The devices.
    Devices,
    /// What they pretend to be.
    Profile,
    /// What goes wrong.
    Fault,
    /// What faults are drawn from.
    Seed,
    /// How fast links are.
    Link,
    /// The file for packets.
    Capture,
    /// The file for calls.
    Trace,
    /// How many calls are kept in memory.
    TraceLast,
    /// The signal on which these are told.
    TraceSignal,
    /// The report at the end.
    Explain,
    /// Device files that are pretended.
    DeviceFiles,
}

impl Key {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Devices,
        Self::Profile,
        Self::Fault,
        Self::Seed,
        Self::Link,
        Self::Capture,
        Self::Trace,
        Self::TraceLast,
        Self::TraceSignal,
        Self::Explain,
        Self::DeviceFiles,
    ];

    /// The environment variable.
    pub const fn variable(self) -> &'static str {
        self.names().0
    }

    /// The flag of `tbrdma-run`.
    pub const fn flag(self) -> &'static str {
        self.names().1
    }

    /// The name in the file.
    pub const fn in_file(self) -> &'static str {
        self.names().2
    }

    const fn names(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Devices => ("TBRDMA_DEVICES", "--device", "devices"),
            Self::Profile => ("TBRDMA_PROFILE", "--profile", "profile"),
            Self::Fault => ("TBRDMA_FAULT", "--fault", "fault"),
            Self::Seed => ("TBRDMA_SEED", "--seed", "seed"),
            Self::Link => ("TBRDMA_LINK", "--link", "link"),
            Self::Capture => ("TBRDMA_CAPTURE", "--capture", "capture"),
            Self::Trace => ("TBRDMA_TRACE", "--trace", "trace"),
            Self::TraceLast => ("TBRDMA_TRACE_LAST", "--trace-last", "trace_last"),
            Self::TraceSignal => ("TBRDMA_TRACE_SIGNAL", "--trace-signal", "trace_signal"),
            Self::Explain => ("TBRDMA_EXPLAIN", "--explain", "explain"),
            Self::DeviceFiles => ("TBRDMA_DEVICE_FILES", "--device-files", "device_files"),
        }
    }
}

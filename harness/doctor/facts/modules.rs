//! Kernel modules: which are there, and which could be.

use crate::doctor::host::Host;

/// Modules that RDMA and Thunderbolt need.
pub const WANTED: [&str; 10] = [
    "ib_core",
    "ib_uverbs",
    "rdma_cm",
    "mlx5_ib",
    "mlx4_ib",
    "rdma_rxe",
    "siw",
    "thunderbolt",
    "thunderbolt_net",
    "thunderbolt_stream",
];

/// How far away a module is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Loaded, or a part of the kernel that shows itself.
    Present,
    /// A part of the kernel.
    BuiltIn,
    /// On disk, not loaded.
    Available,
    /// Not on disk.
    Missing,
    /// The kernel's modules are not on this file system.
    Unknown,
}

/// The modules of [`WANTED`].
#[derive(Debug, Clone, Default)]
pub struct Modules {
    /// Where the kernel's modules should be.
    pub folder: String,
    states: Vec<(&'static str, State)>,
}

impl Modules {
    /// How far away one is.
    #[must_use]
    pub fn state(&self, name: &str) -> State {
        self.states.iter().find(|(known, _)| *known == name).map_or(State::Unknown, |(_, state)| *state)
    }

    /// Is it there to be used?
    #[must_use]
    pub fn runs(&self, name: &str) -> bool {
        matches!(self.state(name), State::Present | State::BuiltIn)
    }

    /// The file or folder that says so, and what it says.
    #[must_use]
    pub fn evidence(&self, name: &str) -> (String, String) {
        let folder = &self.folder;
        match self.state(name) {
            State::Present => (format!("/sys/module/{name}"), "is there".into()),
            State::BuiltIn => (format!("{folder}/modules.builtin"), format!("lists {name}")),
            State::Available => {
                (format!("{folder}/modules.dep"), format!("lists {name}; /sys/module/{name} is not there"))
            }
            State::Missing => (format!("{folder}/modules.dep"), format!("does not list {name}")),
            State::Unknown => (
                format!("/sys/module/{name}"),
                format!("is not there, and {folder} is not on this file system"),
            ),
        }
    }
}

/// Looks for the modules of a kernel release.
pub(super) fn gather(host: &dyn Host, release: &str) -> Modules {
    let folder = format!("/lib/modules/{release}");
    // Modules are files with dashes or underscores in their names.
    let words: Vec<String> = WANTED
        .iter()
        .flat_map(|name| [format!("/{name}.ko"), format!("/{}.ko", name.replace('_', "-"))])
        .collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let named = |path: String| -> Vec<String> {
        host.lines_with(&path, &words).iter().filter_map(|line| module_of(line)).collect()
    };
    let known = host.exists(&folder);
    let (listed, built_in) = match known {
        true => (named(format!("{folder}/modules.dep")), named(format!("{folder}/modules.builtin"))),
        false => (Vec::new(), Vec::new()),
    };
    let has = |list: &[String], name: &str| list.iter().any(|listed| listed == name);
    let state = |name: &str| match name {
        _ if host.exists(&format!("/sys/module/{name}")) => State::Present,
        _ if has(&built_in, name) => State::BuiltIn,
        _ if has(&listed, name) => State::Available,
        _ if known => State::Missing,
        _ => State::Unknown,
    };
    let states = WANTED.map(|name| (name, state(name))).to_vec();
    Modules { folder, states }
}

/// The module of a line of `modules.dep` or `modules.builtin`, with underscores.
fn module_of(line: &str) -> Option<String> {
    let path = line.split(':').next()?;
    let (name, _) = path.rsplit('/').next()?.split_once(".ko")?;
    Some(name.replace('-', "_"))
}

#[cfg(test)]
mod tests {
    use super::module_of;

    #[test]
    fn modules_have_dashes_and_are_compressed() {
        let line = "kernel/drivers/net/thunderbolt/thunderbolt-net.ko.xz: kernel/drivers/thunderbolt/thunderbolt.ko.xz";
        assert_eq!(module_of(line).as_deref(), Some("thunderbolt_net"));
        assert_eq!(module_of("kernel/drivers/infiniband/sw/rxe/rdma_rxe.ko").as_deref(), Some("rdma_rxe"));
        assert_eq!(module_of("nonsense"), None);
    }
}

//! The device under test: one a process, named before the first case runs.

use crate::case::{Case, Need};
use crate::common;
use crate::declared::{Declaration, declaration};
use anyhow::{Context as _, Result};
use std::sync::OnceLock;
use tbrdma::{AtomicCap, DeviceAttr, ODP_SUPPORT, QpType, limits};

/// The device under test, and what it says of itself.
#[derive(Debug)]
pub struct Target {
    name: &'static str,
    attr: DeviceAttr,
    lid: u16,
    services: [bool; 3],
    declared: &'static [&'static Declaration],
}

static TARGET: OnceLock<Target> = OnceLock::new();

impl Target {
    /// Has this process test that device.
    ///
    /// # Errors
    /// It cannot be opened, there is no declaration of the name given for it, or the process tests another.
    pub fn choose(name: &str, declared: Option<&str>) -> Result<&'static Self> {
        common::choose(name);
        let ctx = tbrdma::open(common::device()).with_context(|| format!("the device under test, {name}"))?;
        let switches = &ctx.profile().switches;
        let target = Self {
            name: common::chosen(),
            attr: ctx.query_device(),
            lid: ctx.query_port(1)?.lid,
            services: [QpType::Rc, QpType::Uc, QpType::Ud].map(|kind| switches.transports.has(kind)),
            declared: declaration(declared.unwrap_or(name)),
        };
        if let Some(declared) = declared {
            anyhow::ensure!(
                !target.declared.is_empty(),
                "nothing is declared of {declared}: see tests/conformance/declared.rs"
            );
        }
        common::learn_mtu(ctx.query_port(1)?.active_mtu);
        drop(ctx);
        common::place::leave();
        Ok(TARGET.get_or_init(|| target))
    }

    /// Its name, as for [`tbrdma::open`].
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Why the device cannot do what this case needs, if it says so.
    pub fn cannot(&self, case: &Case) -> Option<String> {
        case.needs.iter().find_map(|need| Some(format!("no {need}: {}", self.lacks(*need)?)))
    }

    /// Why the device is declared to do otherwise than this case says, and whether it always does.
    pub fn deviates(&self, case: &Case) -> Option<(&'static str, bool)> {
        let name = case.name();
        self.declared.iter().find_map(|declaration| {
            [(declaration.deviates, true), (declaration.sometimes, false)].into_iter().find_map(
                |(list, always)| list.iter().find(|(of, _)| *of == name).map(|(_, why)| (*why, always)),
            )
        })
    }

    /// Why it lacks something: by its attributes, or by declaration.
    fn lacks(&self, need: Need) -> Option<String> {
        let flag = |bits: u32, name: &str| {
            (self.attr.device_cap_flags & bits != bits).then(|| format!("device_cap_flags lack {name}"))
        };
        let service =
            |at: usize| (!self.services[at]).then(|| "its profile has no such queue pairs".to_owned());
        let said = match need {
            Need::Rc => service(0),
            Need::Uc => service(1),
            Need::Ud => service(2),
            Need::Srq => (self.attr.max_srq == 0).then(|| "max_srq is 0".to_owned()),
            Need::Atomics => {
                (self.attr.atomic_cap == AtomicCap::None).then(|| "atomic_cap is NONE".to_owned())
            }
            Need::Windows => flag(
                limits::DEVICE_MEM_WINDOW | limits::DEVICE_MEM_WINDOW_TYPE_2B,
                "MEM_WINDOW and MEM_WINDOW_TYPE_2B",
            ),
            Need::Invalidate => flag(limits::DEVICE_MEM_MGT_EXTENSIONS, "MEM_MGT_EXTENSIONS"),
            Need::OnDemandPaging => {
                (self.attr.odp_caps.general & ODP_SUPPORT == 0).then(|| "odp_caps say so".to_owned())
            }
            Need::Lid => (self.lid == 0).then(|| "the port's LID is 0".to_owned()),
            _ => None,
        };
        said.or_else(|| {
            let all = self.declared.iter().flat_map(|declaration| declaration.cannot);
            all.into_iter().find(|(lacks, _)| *lacks == need).map(|(_, why)| (*why).to_owned())
        })
    }
}

//! The list of devices, as `ibv_devinfo -v` has it.

use std::fmt::Write as _;

use tbrdma::{DeviceAttr, OpenOptions, PortAttr};

use crate::error::{Context, Error, Result};
use crate::session::leads_to_one_peer;

const PORT: u8 = 1;
/// GIDs that are listed for a port at most.
const MOST_GIDS: u32 = 256;

/// Devices that are there once somebody names them.
const BY_NAME: &str = "\
Also by name, each to the one peer that opens its other end:
\tstream:unix:PATH, stream:unix:@NAME, stream:tcp:HOST:PORT, stream:vsock:CID:PORT
\tstream:/dev/tbstreamX (tbrdma-bench doctor says how to come by it)
\tbar:file:PATH, bar:paired:PATH, bar:ivshmem:SOCKET
\tbar:0000:00:04.0 (a PCI function: docs/windows.md says how to come by it)
";

/// Describes all devices, or one.
///
/// # Errors
/// There is no device of that name, or one could not be asked.
pub fn list(only: Option<&str>, profile: Option<&str>) -> Result<String> {
    let found = tbrdma::devices().into_iter().map(|device| (device.name, device.description));
    let mut found: Vec<_> = found.filter(|(listed, _)| only.is_none_or(|name| name == listed)).collect();
    if let (Some(name), true) = (only, found.is_empty()) {
        if !leads_to_one_peer(name) {
            let names: Vec<_> = tbrdma::devices().into_iter().map(|device| device.name).collect();
            return Err(Error::Usage(format!(
                "--device {name} is not there: there are {}",
                names.join(", ")
            )));
        }
        found.push((name.to_owned(), "to the one peer that opens its other end".to_owned()));
    }
    let mut text = String::new();
    for (name, description) in found {
        let context = match open(&name, profile) {
            // One that is in use, or for others, is there all the same.
            Err(error) if only.is_none() && leads_to_one_peer(&name) => {
                let _ = writeln!(text, "hca_id:\t{name}");
                line(&mut text, 1, "description", &description);
                line(&mut text, 1, "not to be opened", &error.to_string());
                text.push('\n');
                continue;
            }
            opened => opened.context(|| format!("open device {name}"))?,
        };
        let port = context.query_port(PORT).context(|| format!("query port {PORT} of {name}"))?;
        let _ = writeln!(text, "hca_id:\t{name}");
        line(&mut text, 1, "description", &description);
        line(&mut text, 1, "profile", &context.profile().to_string());
        describe_device(&mut text, &context.query_device());
        let _ = writeln!(text, "\t\tport:\t{PORT}");
        describe_port(&mut text, &port);
        for index in 0..port.gid_tbl_len.min(MOST_GIDS) {
            // Empty entries of the table say nothing.
            if let Ok(gid) = context.query_gid(PORT, index)
                && !gid.is_zero()
            {
                line(&mut text, 3, &format!("GID[{index:>3}]"), &gid.to_string());
            }
        }
        text.push('\n');
    }
    if only.is_none() {
        text.push_str(BY_NAME);
    }
    Ok(text)
}

/// Opens a device as the environment says, with another profile if one is given.
fn open(name: &str, profile: Option<&str>) -> tbrdma::Result<tbrdma::Context> {
    let options = OpenOptions::from_environment()?;
    match profile {
        None => options.open(name),
        Some(profile) => options.profile(profile).open(name),
    }
}

fn line(text: &mut String, depth: usize, name: &str, value: &str) {
    let _ = writeln!(text, "{}{:<32}{value}", "\t".repeat(depth), format!("{name}:"));
}

fn describe_device(text: &mut String, device: &DeviceAttr) {
    let entries = [
        ("fw_ver", device.fw_ver.clone()),
        ("node_guid", device.node_guid.to_string()),
        ("sys_image_guid", device.sys_image_guid.to_string()),
        ("vendor_id", format!("{:#06x}", device.vendor_id)),
        ("vendor_part_id", device.vendor_part_id.to_string()),
        ("hw_ver", format!("{:#x}", device.hw_ver)),
        ("phys_port_cnt", device.phys_port_cnt.to_string()),
        ("max_mr_size", format!("{:#x}", device.max_mr_size)),
        ("page_size_cap", format!("{:#x}", device.page_size_cap)),
        ("max_qp", device.max_qp.to_string()),
        ("max_qp_wr", device.max_qp_wr.to_string()),
        ("device_cap_flags", format!("{:#010x}", device.device_cap_flags)),
        ("max_sge", device.max_sge.to_string()),
        ("max_sge_rd", device.max_sge_rd.to_string()),
        ("max_inline_data", device.max_inline_data.to_string()),
        ("max_cq", device.max_cq.to_string()),
        ("max_cqe", device.max_cqe.to_string()),
        ("max_mr", device.max_mr.to_string()),
        ("max_pd", device.max_pd.to_string()),
        ("max_qp_rd_atom", device.max_qp_rd_atom.to_string()),
        ("max_qp_init_rd_atom", device.max_qp_init_rd_atom.to_string()),
        ("atomic_cap", format!("{:?} ({})", device.atomic_cap, device.atomic_cap.raw())),
        ("max_ah", device.max_ah.to_string()),
        ("max_srq", device.max_srq.to_string()),
        ("max_srq_wr", device.max_srq_wr.to_string()),
        ("max_srq_sge", device.max_srq_sge.to_string()),
        ("max_pkeys", device.max_pkeys.to_string()),
        ("local_ca_ack_delay", device.local_ca_ack_delay.to_string()),
    ];
    for (name, value) in entries {
        line(text, 1, name, &value);
    }
}

fn describe_port(text: &mut String, port: &PortAttr) {
    let entries = [
        ("state", format!("{:?} ({})", port.state, port.state.raw())),
        ("max_mtu", format!("{} ({})", port.max_mtu.bytes(), port.max_mtu.raw())),
        ("active_mtu", format!("{} ({})", port.active_mtu.bytes(), port.active_mtu.raw())),
        ("sm_lid", port.sm_lid.to_string()),
        ("port_lid", port.lid.to_string()),
        ("port_lmc", format!("{:#04x}", port.lmc)),
        ("link_layer", format!("{:?}", port.link_layer)),
        ("max_msg_sz", format!("{:#x}", port.max_msg_sz)),
        ("port_cap_flags", format!("{:#010x}", port.port_cap_flags)),
        ("max_vl_num", port.max_vl_num.to_string()),
        ("bad_pkey_cntr", format!("{:#x}", port.bad_pkey_cntr)),
        ("qkey_viol_cntr", format!("{:#x}", port.qkey_viol_cntr)),
        ("sm_sl", port.sm_sl.to_string()),
        ("pkey_tbl_len", port.pkey_tbl_len.to_string()),
        ("gid_tbl_len", port.gid_tbl_len.to_string()),
        ("subnet_timeout", port.subnet_timeout.to_string()),
        ("init_type_reply", port.init_type_reply.to_string()),
        ("active_width", width(port.active_width)),
        ("active_speed", speed(port.active_speed)),
        ("phys_state", physical_state(port.phys_state)),
    ];
    for (name, value) in entries {
        line(text, 3, name, &value);
    }
}

fn width(code: u8) -> String {
    let lanes = match code {
        1 => "1X",
        2 => "4X",
        4 => "8X",
        8 => "12X",
        16 => "2X",
        _ => "unknown",
    };
    format!("{lanes} ({code})")
}

fn speed(code: u8) -> String {
    let gigabits = match code {
        1 => "2.5 Gb/s a lane",
        2 => "5 Gb/s a lane",
        4 | 8 => "10 Gb/s a lane",
        16 => "14 Gb/s a lane",
        32 => "25 Gb/s a lane",
        64 => "50 Gb/s a lane",
        128 => "100 Gb/s a lane",
        _ => "unknown",
    };
    format!("{gigabits} ({code})")
}

fn physical_state(code: u8) -> String {
    let state = match code {
        1 => "SLEEP",
        2 => "POLLING",
        3 => "DISABLED",
        4 => "PORT_CONFIGURATION_TRAINING",
        5 => "LINK_UP",
        6 => "LINK_ERROR_RECOVERY",
        7 => "PHY_TEST",
        _ => "unknown",
    };
    format!("{state} ({code})")
}

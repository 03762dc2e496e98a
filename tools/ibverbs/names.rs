//! Numbers as text, and rates as numbers.

use crate::export::export;
use core::ffi::{CStr, c_char, c_int};

/// The text of a number, or "unknown".
fn name(names: &[&'static CStr], number: c_int, first: c_int) -> *const c_char {
    let position = usize::try_from(number.wrapping_sub(first)).ok();
    position.and_then(|at| names.get(at)).unwrap_or(&c"unknown").as_ptr()
}

/// `enum ibv_wc_status`, in the specification's words.
const WC_STATUS: [&CStr; 24] = [
    c"success",
    c"local length error",
    c"local QP operation error",
    c"local EE context operation error",
    c"local protection error",
    c"work request flushed error",
    c"memory window bind error",
    c"bad response error",
    c"local access error",
    c"remote invalid request error",
    c"remote access error",
    c"remote operation error",
    c"transport retry counter exceeded",
    c"RNR retry counter exceeded",
    c"local RDD violation error",
    c"remote invalid RD request",
    c"remote aborted error",
    c"invalid EE context number",
    c"invalid EE context state",
    c"fatal error",
    c"response timeout error",
    c"general error",
    c"tag matching error",
    c"tag matching rendezvous incomplete",
];

/// `enum ibv_event_type`.
const EVENT: [&CStr; 20] = [
    c"CQ error",
    c"QP fatal error",
    c"QP request error",
    c"QP access error",
    c"communication established",
    c"send queue drained",
    c"path migrated",
    c"path migration error",
    c"device fatal error",
    c"port active",
    c"port error",
    c"LID change",
    c"P_Key change",
    c"SM change",
    c"SRQ error",
    c"SRQ limit reached",
    c"last WQE reached",
    c"client reregister",
    c"GID change",
    c"WQ fatal error",
];

/// `enum ibv_port_state`.
const PORT_STATE: [&CStr; 6] = [c"no state change", c"down", c"init", c"armed", c"active", c"active defer"];

/// `enum ibv_node_type`, from 1 on.
const NODE: [&CStr; 7] =
    [c"channel adapter", c"switch", c"router", c"iWARP NIC", c"usNIC", c"usNIC UDP", c"unspecified"];

/// `enum ibv_rate`: its number, multiples of 2.5 Gb/s where it is one, and Mb/s.
const RATES: [(c_int, c_int, c_int); 23] = [
    (2, 1, 2_500),
    (3, 4, 10_000),
    (4, 12, 30_000),
    (5, 2, 5_000),
    (6, 8, 20_000),
    (7, 16, 40_000),
    (8, 24, 60_000),
    (9, 32, 80_000),
    (10, 48, 120_000),
    (11, -1, 14_062),
    (12, -1, 56_250),
    (13, -1, 112_500),
    (14, -1, 168_750),
    (15, -1, 25_781),
    (16, -1, 103_125),
    (17, -1, 206_250),
    (18, -1, 309_375),
    (19, 11, 28_125),
    (20, 20, 53_125),
    (21, 160, 425_000),
    (22, 240, 637_500),
    (23, 320, 850_000),
    (24, 480, 1_275_000),
];

/// The rate that is not said: the port's own, in calls that take one.
const RATE_MAX: c_int = 0;

fn rate(is_it: impl Fn(&(c_int, c_int, c_int)) -> bool) -> Option<(c_int, c_int, c_int)> {
    RATES.into_iter().find(is_it)
}

export! {
    "IBVERBS_1.1" plain fn ibv_wc_status_str(status: c_int) -> *const c_char {
        Ok(name(&WC_STATUS, status, 0))
    }

    "IBVERBS_1.1" plain fn ibv_event_type_str(event: c_int) -> *const c_char {
        Ok(name(&EVENT, event, 0))
    }

    "IBVERBS_1.1" plain fn ibv_port_state_str(state: c_int) -> *const c_char {
        Ok(name(&PORT_STATE, state, 0))
    }

    "IBVERBS_1.1" plain fn ibv_node_type_str(node: c_int) -> *const c_char {
        Ok(name(&NODE, node, 1))
    }

    "IBVERBS_1.0" plain fn ibv_rate_to_mult(number: c_int) -> c_int {
        Ok(rate(|rate| rate.0 == number).map_or(-1, |rate| rate.1))
    }

    "IBVERBS_1.0" plain fn mult_to_ibv_rate(mult: c_int) -> c_int {
        Ok(rate(|rate| rate.1 == mult && mult > 0).map_or(RATE_MAX, |rate| rate.0))
    }

    "IBVERBS_1.1" plain fn ibv_rate_to_mbps(number: c_int) -> c_int {
        Ok(rate(|rate| rate.0 == number).map_or(-1, |rate| rate.2))
    }

    "IBVERBS_1.1" plain fn mbps_to_ibv_rate(mbps: c_int) -> c_int {
        Ok(rate(|rate| rate.2 == mbps).map_or(RATE_MAX, |rate| rate.0))
    }
}

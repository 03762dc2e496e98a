//! Sizes, times, cores and addresses, as people write them.

use std::time::Duration;

use crate::error::{Error, Result};

/// The address of `--server` without a value, and the port of an address without one.
pub const DEFAULT_HOST: &str = "127.0.0.1";
/// See [`DEFAULT_HOST`].
pub const DEFAULT_PORT: u16 = 18_515;
/// The cores of `--pin`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pins {
    /// The initiator's, or this side's.
    pub first: usize,
    /// The responder's.
    pub second: Option<usize>,
}

/// Bytes, as 64, 4k or 1M.
///
/// # Errors
/// No whole number, an unknown unit, or too many.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let number: u64 =
        digits.parse().map_err(|_| "give a whole number of bytes, as 64, 4k or 1M".to_owned())?;
    let shift = match text.get(digits.len()..).unwrap_or_default().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        unit => return Err(format!("{unit} is no unit of size: use k, M or G (powers of 1024)")),
    };
    number.checked_mul(1 << shift).ok_or_else(|| "is more bytes than 64 bits can count".to_owned())
}

/// A time, as 2s or 500ms.
///
/// # Errors
/// No number, an unknown unit, or outside 1 ms to 1 week.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let number: f64 = digits.parse().map_err(|_| "give a time, as 2s or 500ms".to_owned())?;
    let seconds = match text.get(digits.len()..).unwrap_or_default() {
        "" | "s" => number,
        "ms" => number / 1e3,
        "us" => number / 1e6,
        "m" | "min" => number * 60.0,
        "h" => number * 3600.0,
        "d" => number * 86_400.0,
        unit => return Err(format!("{unit} is no unit of time: use us, ms, s, min, h or d")),
    };
    if !(0.001..=604_800.0).contains(&seconds) {
        return Err("is outside 1 ms to 1 week".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// One core or two, as 2 or 2,3.
///
/// # Errors
/// No numbers, or one core twice.
pub fn parse_pins(text: &str) -> Result<Pins, String> {
    let core =
        |text: &str| text.trim().parse::<usize>().map_err(|_| "give one core or two, as 2 or 2,3".to_owned());
    let (first, second) = match text.split_once(',') {
        Some((first, second)) => (core(first)?, Some(core(second)?)),
        None => (core(text)?, None),
    };
    if Some(first) == second {
        return Err("names one core twice: two sides on one core only take turns".to_owned());
    }
    Ok(Pins { first, second })
}

/// An address with the default port added where there is none.
///
/// # Errors
/// The text is empty.
pub fn with_port(address: &str) -> Result<String> {
    let bare_v6 = address.parse::<std::net::Ipv6Addr>().is_ok();
    match address {
        "" => Err(Error::Usage("an empty address: give HOST or HOST:PORT".into())),
        _ if bare_v6 => Ok(format!("[{address}]:{DEFAULT_PORT}")),
        _ if address.ends_with(']') || !address.contains(':') => Ok(format!("{address}:{DEFAULT_PORT}")),
        _ => Ok(address.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Pins, parse_duration, parse_pins, parse_size, with_port};
    use std::time::Duration;

    #[test]
    fn sizes_times_and_cores_have_units_and_bounds() {
        assert_eq!(parse_size("4k"), Ok(4096));
        assert_eq!(parse_size("1MiB"), Ok(1 << 20));
        assert!(parse_size("").is_err() && parse_size("-1").is_err() && parse_size("99999999999G").is_err());
        assert!(parse_size("1é").is_err());
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("2h"), Ok(Duration::from_secs(7200)));
        assert_eq!(parse_duration("2"), Ok(Duration::from_secs(2)));
        assert!(["0s", "nan", "inf", "1e9", "-1s", "8d"].iter().all(|text| parse_duration(text).is_err()));
        assert_eq!(parse_pins("3"), Ok(Pins { first: 3, second: None }));
        assert_eq!(parse_pins("3, 1"), Ok(Pins { first: 3, second: Some(1) }));
        assert!(parse_pins("2,2").is_err() && parse_pins("a").is_err());
    }

    #[test]
    fn the_port_is_optional() {
        assert_eq!(with_port("host").unwrap(), "host:18515");
        assert_eq!(with_port("host:1").unwrap(), "host:1");
        assert_eq!(with_port("::1").unwrap(), "[::1]:18515");
        assert_eq!(with_port("[::1]:7").unwrap(), "[::1]:7");
        assert!(with_port("").is_err());
    }
}

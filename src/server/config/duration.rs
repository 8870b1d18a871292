//! Lengths of time as people write them: a number and a unit.

use std::time::Duration;

/// Reads `30s`, `15m`, `24h` or `7d`.
///
/// # Errors
/// What to write instead.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "write a number and a unit, as 30s, 15m, 24h or 7d".to_owned();
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let number: u32 = number.parse().map_err(|_| wrong())?;
    Ok(Duration::from_secs(u64::from(number) * seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(duration("24h").unwrap(), Duration::from_hours(24));
        assert_eq!(duration("0s").unwrap(), Duration::ZERO);
        for bad in ["", "24", "h", "-1h", "1.5h", "1w", "5é", "99999999999s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}

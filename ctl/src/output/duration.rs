//! Ages as people write them: `12s`, `4m10s`, `3h12m`, `3d4h`.

/// `seconds` in the two largest units; never negative, never blank.
#[must_use]
pub fn short(seconds: f64) -> String {
    // Saturating: a negative or absurd value is a clock problem, not a reason to print nonsense.
    let whole =
        std::time::Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default().as_secs();
    let (days, hours, minutes) = (whole / 86_400, whole / 3600 % 24, whole / 60 % 60);
    if days > 0 {
        two(days, "d", hours, "h")
    } else if hours > 0 {
        two(hours, "h", minutes, "m")
    } else if minutes > 0 {
        two(minutes, "m", whole % 60, "s")
    } else {
        format!("{whole}s")
    }
}

fn two(large: u64, large_unit: &str, small: u64, small_unit: &str) -> String {
    if small == 0 {
        format!("{large}{large_unit}")
    } else {
        format!("{large}{large_unit}{small}{small_unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::short;

    #[test]
    fn two_largest_units() {
        for (seconds, text) in [
            (0.0, "0s"),
            (59.9, "59s"),
            (60.0, "1m"),
            (250.0, "4m10s"),
            (3600.0, "1h"),
            (11_520.0, "3h12m"),
            (273_600.0, "3d4h"),
            (-5.0, "0s"),
            (f64::NAN, "0s"),
        ] {
            assert_eq!(short(seconds), text, "{seconds}");
        }
    }
}

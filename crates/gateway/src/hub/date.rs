//! Moments of Unix time as text: `2026-11-21T21:30:00.000Z`.

/// A second has this many milliseconds, a day this many.
const SECOND_MS: u64 = 1_000;
const DAY_MS: u64 = 86_400 * SECOND_MS;

/// The end of the year 9999: clients read four digits of a year and no more.
const LATEST_MS: u64 = 253_402_300_799_999;

/// A moment as RFC 3339 writes it, in UTC. What is later than the year 9999 is its last moment.
pub(super) fn text(unix_ms: u64) -> String {
    let unix_ms = unix_ms.min(LATEST_MS);
    let (year, month, day) = civil(unix_ms / DAY_MS);
    let ms = unix_ms % DAY_MS;
    let (hour, minute) = (ms / (3_600 * SECOND_MS), ms / (60 * SECOND_MS) % 60);
    let (second, ms) = (ms / SECOND_MS % 60, ms % SECOND_MS);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// Year, month and day of a day since 1970-01-01: Howard Hinnant, "chrono-Compatible Low-Level
/// Date Algorithms", `civil_from_days`. Years begin in March, so that a leap day ends one.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // Since 0000-03-01.
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153; // Months since March.
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_in_utc() {
        let cases = [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_799_999, "2000-02-29T23:59:59.999Z"),
            (1_700_000_000_999, "2023-11-14T22:13:20.999Z"),
            (4_107_542_399_000, "2100-02-28T23:59:59.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (u64::MAX, "9999-12-31T23:59:59.999Z"),
        ];
        for (unix_ms, expected) in cases {
            assert_eq!(text(unix_ms), expected);
        }
    }
}

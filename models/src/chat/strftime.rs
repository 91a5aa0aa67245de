//! `strftime` for the directives that templates use, in UTC.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

const DAY: u64 = 24 * 60 * 60;

/// Formats `time` as C's `strftime` does in the C locale; `%-d` and the like leave out leading zeros. Times before 1970
/// count as its beginning.
///
/// # Errors
/// The directive that is not known.
pub(super) fn strftime(time: SystemTime, format: &str) -> Result<String, String> {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, second) = (seconds / DAY, seconds % DAY);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let weekday = (days + 4) % 7; // 1970 began on a Thursday
    let year_day = days - days_before(year) + 1;
    let month_name = MONTHS.get(month as usize - 1).copied().unwrap_or_default();
    let day_name = DAYS.get(weekday as usize).copied().unwrap_or_default();

    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut directive = chars.next();
        let padded = directive != Some('-');
        if !padded {
            directive = chars.next();
        }
        let (number, width) = match directive {
            Some('Y') => (year, 4),
            Some('y') => (year % 100, 2),
            Some('m') => (month, 2),
            Some('d') => (day, 2),
            Some('H') => (hour, 2),
            Some('I') => ((hour + 11) % 12 + 1, 2),
            Some('M') => (minute, 2),
            Some('S') => (second, 2),
            Some('j') => (year_day, 3),
            Some('w') => (weekday, 1),
            other => {
                out.push_str(match other {
                    Some('B') if padded => month_name,
                    Some('b' | 'h') if padded => &month_name[..3],
                    Some('A') if padded => day_name,
                    Some('a') if padded => &day_name[..3],
                    Some('p') if padded => ["AM", "PM"][usize::from(hour >= 12)],
                    Some('Z') if padded => "UTC",
                    Some('z') if padded => "+0000",
                    Some('%') if padded => "%",
                    other => {
                        let minus = if padded { "" } else { "-" };
                        return Err(format!("%{minus}{}", other.map(String::from).unwrap_or_default()));
                    }
                });
                continue;
            }
        };
        let width = if padded { width } else { 0 };
        write!(out, "{number:0width$}").map_err(|e| e.to_string())?;
    }
    Ok(out)
}

/// Year, month and day, from 1, of a day counted from 1970 (Gregorian). Years are counted from March, so that leap days
/// come last: <https://howardhinnant.github.io/date_algorithms.html#civil_from_days>.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // from 0000-03-01
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// Days from 1970 to the first of January of `year`.
fn days_before(year: u64) -> u64 {
    let leaps = |year: u64| year / 4 - year / 100 + year / 400;
    (year - 1970) * 365 + leaps(year - 1) - leaps(1969)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use super::*;

    fn at(seconds: u64, format: &str) -> String {
        strftime(UNIX_EPOCH + Duration::from_secs(seconds), format).unwrap()
    }

    #[test]
    fn dates_agree_with_the_calendar() {
        assert_eq!(at(0, "%Y-%m-%d %H:%M:%S %a %j %p"), "1970-01-01 00:00:00 Thu 001 AM");
        assert_eq!(at(951_825_600, "%d %b %Y %A %j"), "29 Feb 2000 Tuesday 060");
        assert_eq!(at(4_107_542_399, "%Y-%m-%d %I:%M:%S %p"), "2100-02-28 11:59:59 PM");
        assert_eq!(at(4_107_542_400, "%B %-d, %y"), "March 1, 00");
        assert_eq!(at(1_735_689_599, "%j %-I %w %% %Z%z"), "366 11 2 % UTC+0000");
        // Every day of four centuries follows the one before.
        let mut last = String::new();
        for day in 0..146_097 {
            let (year, month, day_of_month) = civil(day);
            let now = format!("{year:04}{month:02}{day_of_month:02}");
            assert!(now > last, "{last} {now}");
            last = now;
        }
        assert_eq!(last, "23691231");
    }

    #[test]
    fn unknown_directives_are_errors() {
        for (format, unknown) in [("%Q", "%Q"), ("100%", "%"), ("%-", "%-"), ("%-B", "%-B"), ("%é", "%é")] {
            assert_eq!(strftime(UNIX_EPOCH, format), Err(unknown.to_owned()));
        }
    }
}

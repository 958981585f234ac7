//! Instants, durations, windows and calendar periods, all in milliseconds UTC. It never reads a clock.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The length of the base tumbling window.
pub const WINDOW: Millis = Millis(300_000);

/// An instant: milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

/// A span of time in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(pub i64);

impl Millis {
    /// No time at all.
    pub const ZERO: Self = Self(0);

    /// Returns a span of `n` milliseconds.
    pub const fn milliseconds(n: i64) -> Self {
        Self(n)
    }

    /// Returns a span of `n` seconds.
    pub const fn seconds(n: i64) -> Self {
        Self(n.saturating_mul(1_000))
    }

    /// Returns a span of `n` minutes.
    pub const fn minutes(n: i64) -> Self {
        Self::seconds(n.saturating_mul(60))
    }

    /// Returns a span of `n` hours.
    pub const fn hours(n: i64) -> Self {
        Self::minutes(n.saturating_mul(60))
    }

    /// Returns a span of `n` days of 24 hours.
    pub const fn days(n: i64) -> Self {
        Self::hours(n.saturating_mul(24))
    }

    /// Adds two spans.
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// Returns how many base windows hold the span: `1s` to `5m` are one, `0s` is none.
    pub const fn windows(self) -> i64 {
        let span = if self.0 < 0 { 0 } else { self.0 };
        span.saturating_add(WINDOW.0 - 1) / WINDOW.0
    }

    /// Parses `^[1-9][0-9]{0,5}(s|m|h|d)$`, or `0s`.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "0s" {
            return Some(Self::ZERO);
        }
        let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        if digits.is_empty()
            || digits.len() > 6
            || digits.starts_with('0')
            || !digits.bytes().all(|b| b.is_ascii_digit())
        {
            return None;
        }
        let n: i64 = digits.parse().ok()?;
        match unit {
            "s" => Some(Self::seconds(n)),
            "m" => Some(Self::minutes(n)),
            "h" => Some(Self::hours(n)),
            "d" => Some(Self::days(n)),
            _ => None,
        }
    }
}

/// Prints the shortest form that [`Millis::parse`] reads back: `90s`, `5m`, `4h`, `2d`.
impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, length) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
            if self.0 != 0 && self.0.rem_euclid(length) == 0 {
                return write!(f, "{}{unit}", self.0.div_euclid(length));
            }
        }
        if self.0 == 0 { f.write_str("0s") } else { write!(f, "{}ms", self.0) }
    }
}

impl fmt::Debug for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Timestamp {
    /// The earliest instant.
    pub const MIN: Self = Self(i64::MIN);
    /// The latest instant; as a deadline it means "never".
    pub const MAX: Self = Self(i64::MAX);
    /// The earliest instant that RFC 3339 can write, 0000-01-01T00:00:00Z.
    pub const FIRST_WRITABLE: Self = Self(-62_167_219_200_000);
    /// The latest instant that RFC 3339 can write, 9999-12-31T23:59:59.999Z.
    pub const LAST_WRITABLE: Self = Self(253_402_300_799_999);

    /// Returns the instant `span` later.
    pub const fn plus(self, span: Millis) -> Self {
        Self(self.0.saturating_add(span.0))
    }

    /// Returns the instant `span` earlier.
    pub const fn minus(self, span: Millis) -> Self {
        Self(self.0.saturating_sub(span.0))
    }

    /// Returns the span from `earlier` to this instant; negative when `earlier` is later.
    pub const fn since(self, earlier: Self) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }

    /// Returns the start of the window of length `width` that holds this instant.
    ///
    /// Windows are half-open, `[start, start + width)`, aligned to the epoch.
    pub const fn window_start(self, width: Millis) -> Self {
        let width = if width.0 > 0 { width.0 } else { 1 };
        Self(self.0.saturating_sub(self.0.rem_euclid(width)))
    }

    /// Returns the first multiple of `width` that is not before this instant.
    pub const fn round_up(self, width: Millis) -> Self {
        let start = self.window_start(width);
        if start.0 == self.0 { self } else { start.plus(width) }
    }

    /// Reads an RFC 3339 instant with any offset; digits behind the millisecond are cut off.
    pub fn parse(text: &str) -> Option<Self> {
        parse_fixed(text.as_bytes())
            .or_else(|| Some(Self(text.parse::<jiff::Timestamp>().ok()?.as_millisecond())))
            .filter(|t| (Self::FIRST_WRITABLE..=Self::LAST_WRITABLE).contains(t))
    }
}

/// Reads `YYYY-MM-DDTHH:MM:SS[.fff…]Z` without a general parser: nearly every event is written so.
fn parse_fixed(text: &[u8]) -> Option<Timestamp> {
    let (head, tail) = text.split_at_checked(19)?;
    let two = |at: usize| -> Option<i64> {
        let (a, b) = (head.get(at)?, head.get(at.checked_add(1)?)?);
        if !a.is_ascii_digit() || !b.is_ascii_digit() {
            return None;
        }
        Some(i64::from(a & 15).saturating_mul(10).saturating_add(i64::from(b & 15)))
    };
    let punctuation = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if punctuation.iter().any(|(at, want)| head.get(*at) != Some(want)) {
        return None;
    }
    let year = two(0)?.saturating_mul(100).saturating_add(two(2)?);
    let (month, day, hour, minute, second) = (two(5)?, two(8)?, two(11)?, two(14)?, two(17)?);
    if !(1..=12).contains(&month)
        || day < 1
        || day > days_in_month(year, month)
        || hour > 23
        || minute > 59
        || second > 59
    {
        return None;
    }
    let fraction = tail.strip_suffix(b"Z")?;
    let millis = match fraction.split_first() {
        None => 0,
        Some((b'.', digits)) if !digits.is_empty() && digits.len() <= 9 && digits.iter().all(u8::is_ascii_digit) => {
            let digit = |at: usize| i64::from(digits.get(at).copied().unwrap_or(b'0') & 15);
            digit(0).saturating_mul(100).saturating_add(digit(1).saturating_mul(10)).saturating_add(digit(2))
        }
        Some(_) => return None,
    };
    let seconds = days_from_civil(year, month, day)
        .saturating_mul(86_400)
        .saturating_add(hour.saturating_mul(3_600))
        .saturating_add(minute.saturating_mul(60))
        .saturating_add(second);
    Some(Timestamp(seconds.saturating_mul(1_000).saturating_add(millis)))
}

const fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year.rem_euclid(4) == 0 && (year.rem_euclid(100) != 0 || year.rem_euclid(400) == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days since 1970-01-01 of a proleptic Gregorian date (years counted from March so that leap days come last).
const fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year.saturating_sub(1) } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted = month.saturating_add(9).rem_euclid(12);
    let day_of_year = shifted.saturating_mul(153).saturating_add(2).div_euclid(5).saturating_add(day).saturating_sub(1);
    let day_of_era = year_of_era
        .saturating_mul(365)
        .saturating_add(year_of_era.div_euclid(4))
        .saturating_sub(year_of_era.div_euclid(100))
        .saturating_add(day_of_year);
    era.saturating_mul(146_097).saturating_add(day_of_era).saturating_sub(719_468)
}

/// The (year, month, day) of a number of days since 1970-01-01.
const fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let z = days.saturating_add(719_468);
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = doe
        .saturating_sub(doe.div_euclid(1_460))
        .saturating_add(doe.div_euclid(36_524))
        .saturating_sub(doe.div_euclid(146_096))
        .div_euclid(365);
    let doy = doe
        .saturating_sub(yoe.saturating_mul(365).saturating_add(yoe.div_euclid(4)).saturating_sub(yoe.div_euclid(100)));
    let mp = doy.saturating_mul(5).saturating_add(2).div_euclid(153);
    let day = doy.saturating_sub(mp.saturating_mul(153).saturating_add(2).div_euclid(5)).saturating_add(1);
    let month = if mp < 10 { mp.saturating_add(3) } else { mp.saturating_sub(9) };
    let year = yoe.saturating_add(era.saturating_mul(400)).saturating_add(if month <= 2 { 1 } else { 0 });
    (year, month, day)
}

/// Prints RFC 3339 UTC with milliseconds: `2026-11-24T08:00:00.000Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let day_ms = 86_400_000;
        let (year, month, day) = civil_from_days(self.0.div_euclid(day_ms));
        let rest = self.0.rem_euclid(day_ms);
        let (h, m) = (rest.div_euclid(3_600_000), rest.div_euclid(60_000).rem_euclid(60));
        let (s, ms) = (rest.div_euclid(1_000).rem_euclid(60), rest.rem_euclid(1_000));
        write!(f, "{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{ms:03}Z")
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A calendar period in UTC over which a quota counts. Weeks begin on Monday (ISO 8601).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Period {
    /// From minute 0 to the next minute 0.
    Hour,
    /// From midnight to midnight.
    Day,
    /// From Monday midnight to Monday midnight.
    Week,
    /// From the first of a month to the first of the next.
    Month,
}

impl Period {
    /// Every period, shortest first.
    pub const ALL: [Self; 4] = [Self::Hour, Self::Day, Self::Week, Self::Month];

    /// Returns the half-open bounds `[start, end)` of the period that holds `at`.
    pub const fn bounds(self, at: Timestamp) -> (Timestamp, Timestamp) {
        match self {
            Self::Hour => fixed(at, Millis::hours(1)),
            Self::Day => fixed(at, Millis::days(1)),
            Self::Week => {
                // 1970-01-01 was a Thursday, so weeks are aligned to the Monday three days before it.
                let (start, end) = fixed(at.plus(Millis::days(3)), Millis::days(7));
                (start.minus(Millis::days(3)), end.minus(Millis::days(3)))
            }
            Self::Month => {
                let (year, month, _) = civil_from_days(at.0.div_euclid(86_400_000));
                let (next_year, next_month) =
                    if month == 12 { (year.saturating_add(1), 1) } else { (year, month.saturating_add(1)) };
                (midnight(year, month), midnight(next_year, next_month))
            }
        }
    }

    /// The name as the API writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }
}

const fn fixed(at: Timestamp, width: Millis) -> (Timestamp, Timestamp) {
    let start = at.window_start(width);
    (start, start.plus(width))
}

const fn midnight(year: i64, month: i64) -> Timestamp {
    Timestamp(days_from_civil(year, month, 1).saturating_mul(86_400_000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn periods_have_calendar_bounds() {
        let at = Timestamp::parse("2026-11-24T08:52:10.5Z").unwrap();
        let check = |period: Period, from: &str, to: &str| {
            assert_eq!(period.bounds(at), (Timestamp::parse(from).unwrap(), Timestamp::parse(to).unwrap()));
        };
        check(Period::Hour, "2026-11-24T08:00:00Z", "2026-11-24T09:00:00Z");
        check(Period::Day, "2026-11-24T00:00:00Z", "2026-11-25T00:00:00Z");
        check(Period::Week, "2026-11-23T00:00:00Z", "2026-11-30T00:00:00Z");
        check(Period::Month, "2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z");
    }

    #[test]
    fn odd_timestamps_are_read_or_refused() {
        assert_eq!(Timestamp::parse("2026-11-24T09:00:00+01:00"), Timestamp::parse("2026-11-24T08:00:00Z"));
        // The offset leads into the year 0, which RFC 3339 has.
        assert_eq!(Timestamp::parse("0001-01-01T00:14:00+22:20"), Timestamp::parse("0000-12-31T01:54:00Z"));
        assert!(Timestamp::parse("0000-12-31T01:54:00Z").is_some());
        assert_eq!(Timestamp::parse("0000-01-01T00:00:00+00:01"), None);
        assert_eq!(Timestamp::parse("2024-02-29T00:00:00Z").map(|t| t.0), Some(1_709_164_800_000));
        for bad in
            ["2023-02-29T00:00:00Z", "2026-13-01T00:00:00Z", "2026-11-24", "yesterday", "", "2026-11-24T25:00:00Z"]
        {
            assert_eq!(Timestamp::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn durations_round_trip() {
        for text in ["0s", "90s", "5m", "4h", "2d", "999999s"] {
            assert_eq!(Millis::parse(text).unwrap().to_string().parse::<String>().unwrap(), text);
        }
        for bad in ["", "s", "05m", "1w", "-1s", "1234567s", "5 m"] {
            assert_eq!(Millis::parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn text_round_trips_and_agrees_with_the_library(ms in Timestamp::FIRST_WRITABLE.0..253_402_300_799_999) {
            let text = Timestamp(ms).to_string();
            prop_assert_eq!(Timestamp::parse(&text), Some(Timestamp(ms)));
            prop_assert_eq!(text.parse::<jiff::Timestamp>().unwrap().as_millisecond(), ms);
        }

        #[test]
        fn a_period_holds_its_instant(ms in 0_i64..4_000_000_000_000) {
            for period in Period::ALL {
                let (start, end) = period.bounds(Timestamp(ms));
                prop_assert!(start <= Timestamp(ms) && Timestamp(ms) < end);
                prop_assert_eq!(period.bounds(end).0, end);
            }
        }
    }
}

//! Exact amounts: fixed-point numbers with nine decimal places. Sums are exact and associative; floats never enter.

use serde::{Deserialize, Serialize};
use std::fmt;

/// How many digits stand behind the point.
pub const DECIMAL_PLACES: usize = 9;

const ONE: i128 = 1_000_000_000;
/// As many, in the width that divides and multiplies quickly.
const SHORT_ONE: i64 = 1_000_000_000;

/// An exact amount: an integer count of 10⁻⁹.
///
/// Accepted events hold at most 10¹⁵ in absolute value, so more than 10¹³ of them add up before `i128` is full; sums
/// saturate there rather than wrap.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Quantity(pub i128);

/// Why a text is not a quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Not a decimal number at all.
    #[error("not a decimal number")]
    Syntax,
    /// More precise than nine decimal places.
    #[error("more than 9 decimal places")]
    TooPrecise,
    /// Past ±10¹⁵.
    #[error("larger than 10^15")]
    TooLarge,
}

impl Quantity {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// One.
    pub const ONE: Self = Self(ONE);
    /// The largest absolute value that an event or a limit may hold, 10¹⁵.
    pub const MAX_INPUT: Self = Self(ONE.saturating_mul(1_000_000_000_000_000));

    /// Splits it into whole ones, rounded down, and the billionths above them.
    pub fn whole_and_rest(self) -> (i128, i128) {
        // Dividing 64 bits is many times as quick as dividing 128.
        match i64::try_from(self.0) {
            Ok(short) => (i128::from(short.div_euclid(SHORT_ONE)), i128::from(short.rem_euclid(SHORT_ONE))),
            Err(_) => (self.0.div_euclid(ONE), self.0.rem_euclid(ONE)),
        }
    }

    /// Multiplies by one; `None` where that is past 128 bits.
    pub fn of_whole(number: i128) -> Option<Self> {
        match i64::try_from(number) {
            Ok(short) => Some(Self::whole(short)),
            Err(_) => number.checked_mul(ONE).map(Self),
        }
    }

    /// Returns a whole number.
    pub const fn whole(n: i64) -> Self {
        // An i64 times 10⁹ always fits; `as` is the only widening that a const fn has.
        #[expect(clippy::as_conversions, reason = "lossless widening in a const fn")]
        Self((n as i128).wrapping_mul(ONE))
    }

    /// Adds.
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// Subtracts.
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// Tells whether the amount is below zero.
    pub const fn is_negative(self) -> bool {
        self.0 < 0
    }

    /// Returns `self * numerator / denominator`, rounded towards minus infinity at the ninth decimal; `None` where the
    /// denominator is zero.
    pub fn scaled(self, numerator: i64, denominator: Self) -> Option<Self> {
        let factor = i128::from(numerator).checked_mul(ONE)?;
        match self.0.checked_mul(factor) {
            Some(product) => floor_div(product, denominator.0).map(Self),
            // Past i128 the quotient is taken in two steps: whole multiples first, then the rest.
            None => {
                let scaled = self.0.checked_mul(i128::from(numerator))?;
                let whole = floor_div(scaled, denominator.0)?;
                let rest = scaled.wrapping_sub(whole.wrapping_mul(denominator.0));
                let fraction = floor_div(rest.saturating_mul(ONE), denominator.0)?;
                Some(Self(whole.saturating_mul(ONE).saturating_add(fraction)))
            }
        }
    }

    /// Returns `self * 100 / limit`, rounded towards minus infinity at the ninth decimal; `None` where the limit is zero.
    pub fn percent_of(self, limit: Self) -> Option<Self> {
        self.scaled(100, limit)
    }

    /// Returns the value divided by a whole number, rounded towards minus infinity at the ninth decimal.
    pub fn divided_by(self, n: u64) -> Option<Self> {
        floor_div(self.0, i128::from(n)).map(Self)
    }

    /// Reads a JSON number or a plain decimal text exactly: `12`, `-0.5`, `1.5e3`.
    ///
    /// # Errors
    /// Where the text is no number, has more than nine decimal places (after the exponent is applied), or is past
    /// [`Self::MAX_INPUT`].
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        if let Some(magnitude) = short_magnitude(digits.as_bytes()) {
            return Ok(Self(i128::from(if negative { magnitude.wrapping_neg() } else { magnitude })));
        }
        let (mantissa, exponent) = match digits.find(['e', 'E']) {
            Some(at) => {
                let (mantissa, rest) = digits.split_at_checked(at).ok_or(QuantityError::Syntax)?;
                (mantissa, exponent(rest.get(1..).unwrap_or(""))?)
            }
            None => (digits, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let bare_point = mantissa.ends_with('.');
        let leading_zero = whole.len() > 1 && whole.starts_with('0');
        if whole.is_empty() || bare_point || leading_zero {
            return Err(QuantityError::Syntax);
        }
        let magnitude = magnitude(whole, fraction, exponent)?;
        Ok(Self(if negative { magnitude.saturating_neg() } else { magnitude }))
    }
}

fn floor_div(a: i128, b: i128) -> Option<i128> {
    let quotient = a.checked_div(b)?;
    let exact = quotient.checked_mul(b)? == a;
    if !exact && (a < 0) != (b < 0) { quotient.checked_sub(1) } else { Some(quotient) }
}

fn exponent(text: &str) -> Result<i32, QuantityError> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(QuantityError::Syntax);
    }
    // An exponent past four digits cannot lead to a value in range unless the mantissa is zero.
    let size: i32 = if digits.len() > 4 { 9_999 } else { digits.parse().map_err(|_| QuantityError::Syntax)? };
    Ok(if text.starts_with('-') { size.saturating_neg() } else { size })
}

/// Reads `12` or `0.5` of up to nine digits on each side of the point, as nearly every amount is; `None` where the general
/// way has to look.
fn short_magnitude(digits: &[u8]) -> Option<i64> {
    let mut whole = 0_i64;
    let mut at = 0_usize;
    while let Some(digit @ b'0'..=b'9') = digits.get(at) {
        whole = whole.wrapping_mul(10).wrapping_add(i64::from(digit & 15));
        at = at.wrapping_add(1);
    }
    let has_leading_zero = at > 1 && digits.first() == Some(&b'0');
    (1..=DECIMAL_PLACES).contains(&at).then_some(())?;
    let (mut fraction, mut places) = (0_i64, 0_usize);
    if digits.get(at) == Some(&b'.') {
        at = at.wrapping_add(1);
        let behind = digits.get(at..)?;
        (1..=DECIMAL_PLACES).contains(&behind.len()).then_some(())?;
        for byte in behind {
            byte.is_ascii_digit().then_some(())?;
            fraction = fraction.wrapping_mul(10).wrapping_add(i64::from(byte & 15));
        }
        places = behind.len();
        at = digits.len();
    }
    while places < DECIMAL_PLACES {
        fraction = fraction.wrapping_mul(10);
        places = places.wrapping_add(1);
    }
    (at == digits.len() && !has_leading_zero).then(|| whole.wrapping_mul(SHORT_ONE).wrapping_add(fraction))
}

fn magnitude(whole: &str, fraction: &str, exponent: i32) -> Result<i128, QuantityError> {
    let places = i32::try_from(DECIMAL_PLACES).unwrap_or(9);
    // How many digits behind the last written one the unit 10⁻⁹ stands.
    let mut shift = places.saturating_add(exponent).saturating_sub(i32::try_from(fraction.len()).unwrap_or(i32::MAX));
    let mut value: i128 = 0;
    let mut pending_zeros = 0_u32;
    for byte in whole.bytes().chain(fraction.bytes()) {
        if !byte.is_ascii_digit() {
            return Err(QuantityError::Syntax);
        }
        if byte == b'0' {
            pending_zeros = pending_zeros.saturating_add(1);
            continue;
        }
        value = shifted(value, pending_zeros.saturating_add(1))?.saturating_add(i128::from(byte & 15));
        pending_zeros = 0;
    }
    if value == 0 {
        return Ok(0);
    }
    shift = shift.saturating_add(i32::try_from(pending_zeros).unwrap_or(i32::MAX));
    let zeros = u32::try_from(shift).map_err(|_| QuantityError::TooPrecise)?;
    let magnitude = shifted(value, zeros)?;
    if magnitude > Quantity::MAX_INPUT.0 { Err(QuantityError::TooLarge) } else { Ok(magnitude) }
}

fn shifted(value: i128, zeros: u32) -> Result<i128, QuantityError> {
    if value == 0 {
        return Ok(0);
    }
    10_i128.checked_pow(zeros).and_then(|p| value.checked_mul(p)).ok_or(QuantityError::TooLarge)
}

/// Prints the shortest exact decimal: `12`, `-0.5`.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let magnitude = self.0.unsigned_abs();
        let one = ONE.unsigned_abs();
        if self.0 < 0 {
            f.write_str("-")?;
        }
        let (whole, fraction) = (magnitude.div_euclid(one), magnitude.rem_euclid(one));
        if fraction == 0 {
            return write!(f, "{whole}");
        }
        let digits = format!("{fraction:09}");
        write!(f, "{whole}.{}", digits.trim_end_matches('0'))
    }
}

impl fmt::Debug for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A decimal text where the format is for people, the raw integer where it is not.
impl Serialize for Quantity {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { self.0.serialize(serializer) }
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return Ok(Self(i128::deserialize(deserializer)?));
        }
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        unbounded(&text).ok_or_else(|| serde::de::Error::custom(QuantityError::Syntax))
    }
}

/// Reads what [`fmt::Display`] wrote; sums may be larger than an input may be.
fn unbounded(text: &str) -> Option<Quantity> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let padded = format!("{fraction:0<9}");
    if padded.len() != DECIMAL_PLACES {
        return None;
    }
    let magnitude = whole.parse::<u128>().ok()?.checked_mul(ONE.unsigned_abs())?.checked_add(padded.parse().ok()?)?;
    let signed = i128::try_from(magnitude).ok()?;
    Some(Quantity(if negative { signed.saturating_neg() } else { signed }))
}

/// JSON numbers that keep every digit, for `#[serde(with = "quantity::exact")]`.
pub mod exact {
    use super::Quantity;
    use serde::{Deserialize, Serialize, de::Error as _, ser::Error as _};
    use serde_json::value::RawValue;

    /// Writes an exact JSON number.
    ///
    /// # Errors
    /// Where the format is not JSON.
    pub fn serialize<S: serde::Serializer>(value: &Quantity, serializer: S) -> Result<S::Ok, S::Error> {
        RawValue::from_string(value.to_string()).map_err(S::Error::custom)?.serialize(serializer)
    }

    /// Reads a JSON number, or a decimal text, without passing through a float.
    ///
    /// # Errors
    /// Where it is neither, or out of range.
    pub fn deserialize<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Quantity, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let text = raw.get();
        let number = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(text);
        Quantity::parse(number).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_read_exactly_or_refused() {
        let check = |text: &str, want: Result<i128, QuantityError>| {
            assert_eq!(Quantity::parse(text).map(|q| q.0), want, "{text}");
        };
        check("1", Ok(ONE));
        check("-0.5", Ok(-ONE / 2));
        check("1.5e3", Ok(1_500 * ONE));
        check("100e-2", Ok(ONE));
        check("0e999999", Ok(0));
        check("0.1000000000000", Ok(ONE / 10));
        check("1000000000000000", Ok(Quantity::MAX_INPUT.0));
        check("1000000000000000.000000001", Err(QuantityError::TooLarge));
        check("1e999", Err(QuantityError::TooLarge));
        check("1e-10", Err(QuantityError::TooPrecise));
        for bad in ["", "-", ".5", "1.", "01", "NaN", "1e", "1e+", "0x1", "1_0", "+1", " 1", "１"] {
            check(bad, Err(QuantityError::Syntax));
        }
    }

    #[test]
    fn percentages_do_not_round_up() {
        let percent = |used: i64, limit: i64| Quantity::whole(used).percent_of(Quantity::whole(limit)).unwrap();
        assert_eq!(percent(57, 100), Quantity::whole(57));
        assert_eq!(percent(1, 3).to_string(), "33.333333333");
        assert_eq!(percent(-1, 3).to_string(), "-33.333333334");
        assert_eq!(Quantity::ONE.percent_of(Quantity::ZERO), None);
        let huge = Quantity(Quantity::MAX_INPUT.0 * 10_000_000_000);
        assert_eq!(huge.percent_of(Quantity::MAX_INPUT), Some(Quantity::whole(1_000_000_000_000)));
    }

    #[test]
    fn ordinary_amounts_are_read_the_short_way_and_no_others() {
        for text in ["0", "7", "999999999", "0.5", "12.000000001", "999999999.999999999"] {
            assert!(short_magnitude(text.as_bytes()).is_some(), "{text}");
        }
        for text in ["", ".", "1.", ".5", "01", "1e3", "1234567890", "0.1234567890", "1 ", "-1", "1.5.5"] {
            assert_eq!(short_magnitude(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_short_way_reads_as_the_general_one(text in "(0|[1-9][0-9]{0,9})(\\.[0-9]{1,10})?") {
            let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
            let is_short = whole.len() <= 9 && fraction.len() <= 9;
            let expected = is_short.then(|| magnitude(whole, fraction, 0).unwrap());
            prop_assert_eq!(short_magnitude(text.as_bytes()).map(i128::from), expected);
        }

        #[test]
        fn text_round_trips(raw in -Quantity::MAX_INPUT.0..=Quantity::MAX_INPUT.0) {
            let quantity = Quantity(raw);
            prop_assert_eq!(Quantity::parse(&quantity.to_string()), Ok(quantity));
            let json = serde_json::to_string(&quantity).unwrap();
            prop_assert_eq!(serde_json::from_str::<Quantity>(&json).unwrap(), quantity);
        }
    }
}

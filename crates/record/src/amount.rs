//! Integers with a meaning: credits, millionths, milliseconds and epochs.
//!
//! Signed data holds no floats (Rule R3). A sampling number is a [`Micro`], read from decimal
//! text exactly or refused.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An amount of credit, in micro-credits: a count, so never negative and never a float.
///
/// There is no way to transfer credits: the type has addition of what is owed and nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Credits(u64);

impl Credits {
    /// No credit at all.
    pub const ZERO: Self = Self(0);

    /// An amount of micro-credits.
    pub const fn from_micro(micro: u64) -> Self {
        Self(micro)
    }

    /// The amount in micro-credits.
    pub const fn as_micro(self) -> u64 {
        self.0
    }

    /// Adds two amounts; `None` means the sum cannot be represented.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// The price of `count` things at this amount each; `None` on overflow.
    #[must_use]
    pub fn checked_mul(self, count: u64) -> Option<Self> {
        self.0.checked_mul(count).map(Self)
    }
}

impl fmt::Display for Credits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

/// A signed number in millionths: how sampling numbers and logit biases are written (Rule R3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub struct Micro(i64);

/// Why a number is not a count of millionths.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a decimal number between -1000000 and 1000000 with at most 6 places")]
pub struct ParseMicroError {
    /// The text, cut to a printable length.
    pub text: String,
}

impl Micro {
    /// Zero.
    pub const ZERO: Self = Self(0);
    /// One.
    pub const ONE: Self = Self(1_000_000);
    /// The largest magnitude that is accepted: no sampling number has a use beyond it.
    pub const MAX: Self = Self(1_000_000 * 1_000_000);

    /// A count of millionths; `None` beyond [`Micro::MAX`] in either direction.
    pub const fn from_millionths(millionths: i64) -> Option<Self> {
        if millionths > Self::MAX.0 || millionths < -Self::MAX.0 {
            return None;
        }
        Some(Self(millionths))
    }

    /// The count of millionths.
    pub const fn as_millionths(self) -> i64 {
        self.0
    }

    /// The nearest `f64`; exact division of an exact integer, the same on every machine.
    #[expect(clippy::cast_precision_loss, reason = "at most 1e12, exact in an f64")]
    pub fn to_f64(self) -> f64 {
        self.0 as f64 / 1e6
    }
}

impl TryFrom<i64> for Micro {
    type Error = ParseMicroError;

    fn try_from(millionths: i64) -> Result<Self, Self::Error> {
        let wrong = || ParseMicroError { text: format!("{millionths} millionths") };
        Self::from_millionths(millionths).ok_or_else(wrong)
    }
}

impl From<Micro> for i64 {
    fn from(micro: Micro) -> Self {
        micro.0
    }
}

impl fmt::Display for Micro {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let size = self.0.unsigned_abs();
        let digits = format!("{:06}", size % 1_000_000);
        let places = digits.trim_end_matches('0');
        let point = if places.is_empty() { "" } else { "." };
        write!(f, "{sign}{}{point}{places}", size / 1_000_000)
    }
}

impl FromStr for Micro {
    type Err = ParseMicroError;

    /// Reads `-1.5`, `0.000001` or `1e-6` exactly; anything finer than a millionth is refused.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_millionths(text)
            .and_then(Self::from_millionths)
            .ok_or_else(|| ParseMicroError { text: text.chars().take(40).collect() })
    }
}

fn parse_millionths(text: &str) -> Option<i64> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (is_negative, unsigned) = match mantissa.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, mantissa),
    };
    let (whole, places) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let digits = [whole, places].concat();
    // 40 digits cannot be a sampling number, and the bound keeps the arithmetic below in range.
    if digits.is_empty() || digits.len() > 40 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let shift = 6_i32.checked_add(exponent)?.checked_sub(i32::try_from(places.len()).ok()?)?;
    let trimmed = digits.trim_start_matches('0');
    let significant = trimmed.trim_end_matches('0');
    let zeros = i32::try_from(trimmed.len() - significant.len()).ok()?;
    if significant.is_empty() {
        return Some(0);
    }
    let power = u32::try_from(shift.checked_add(zeros)?).ok()?;
    let value = significant.parse::<i64>().ok()?.checked_mul(10_i64.checked_pow(power)?)?;
    Some(if is_negative { -value } else { value })
}

/// A time or a duration in milliseconds. A time counts from the clock's own zero.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Millis(pub u64);

impl Millis {
    /// Adds a duration, stopping at the end of time.
    #[must_use]
    pub const fn saturating_add(self, duration: Self) -> Self {
        Self(self.0.saturating_add(duration.0))
    }

    /// The duration since `earlier`, zero if that lies in the future.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self(self.0.saturating_sub(earlier.0))
    }

    /// A whole number of seconds.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1_000))
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.0)
    }
}

/// A step of a mesh's calendar: whole epoch lengths since its genesis.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Epoch {
    /// Clocks differ: an epoch one step away from ours is accepted (Rule R7).
    pub const SKEW_MAX: u64 = 1;

    /// Whether a record of this epoch may arrive in the epoch `now`.
    pub const fn is_current(self, now: Self) -> bool {
        self.0.abs_diff(now.0) <= Self::SKEW_MAX
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

//! Tokens to money: integer pico-dollars, rounding stated.
//!
//! There is no rounding. A price has at most twelve decimals, so that it is a whole number of pico-dollars (10⁻¹² USD), and
//! a token count is whole; their products and sums are exact. Where a number would leave the range it stops at its end.
//!
//! Money comes as a JSON number or a decimal string and is read from its text: a float would make 0.1 something else.

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Error as _, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::units::PicoUsd;

/// Decimals of a dollar that can be told apart.
const DECIMALS: u32 = 12;
/// Pico-dollars in a dollar.
const PER_USD: u128 = 10_u128.pow(DECIMALS);
/// The largest amount that is read, in dollars. A price of this size times 10⁹ tokens is still in range.
const USD_MAX: u128 = 1_000_000_000;
/// The longest text that is read as an amount, in bytes: room for every amount, with zeros to spare.
const TEXT_MAX: usize = 64;

const _: () = assert!(USD_MAX * PER_USD < u128::MAX / 1_000_000_000, "prices times tokens do not overflow");

/// Why a text is not an amount. `Display` is fit to be shown to the person who sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    /// Not a decimal number.
    #[error("must be a number or a decimal string")]
    NotANumber,
    /// Below zero.
    #[error("must not be negative")]
    Negative,
    /// Not a whole number of pico-dollars.
    #[error("must have at most 12 decimals")]
    TooFine,
    /// Above the range.
    #[error("must be at most 1000000000")]
    TooLarge,
}

/// What a model costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Prices {
    /// Per input token.
    pub input: PicoUsd,
    /// Per output token.
    pub output: PicoUsd,
    /// Per input token served from the upstream's prefix cache; `None` is the input price.
    pub cached_input: Option<PicoUsd>,
    /// Per request answered 2xx.
    pub request: PicoUsd,
}

/// What a request used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Used {
    /// All input tokens.
    pub input: u64,
    /// Those of them that came from the upstream's prefix cache; more than all counts as all.
    pub cached_input: u64,
    /// Output tokens.
    pub output: u64,
    /// Requests answered 2xx.
    pub requests: u64,
}

/// What it comes to, by part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cost {
    /// For the input tokens that were not cached.
    pub fresh_input: PicoUsd,
    /// For those that were.
    pub cached_input: PicoUsd,
    /// For the output tokens.
    pub output: PicoUsd,
    /// For the request itself.
    pub request: PicoUsd,
}

impl Cost {
    /// For all input tokens.
    #[must_use]
    pub const fn input(&self) -> PicoUsd {
        PicoUsd(self.fresh_input.0.saturating_add(self.cached_input.0))
    }

    /// The sum of the parts.
    #[must_use]
    pub const fn total(&self) -> PicoUsd {
        PicoUsd(self.input().0.saturating_add(self.output.0).saturating_add(self.request.0))
    }
}

/// Prices what was used.
#[must_use]
pub fn cost(prices: &Prices, used: &Used) -> Cost {
    let cached = used.cached_input.min(used.input);
    Cost {
        fresh_input: times(prices.input, used.input - cached),
        cached_input: times(prices.cached_input.unwrap_or(prices.input), cached),
        output: times(prices.output, used.output),
        request: times(prices.request, used.requests),
    }
}

fn times(price: PicoUsd, count: u64) -> PicoUsd {
    PicoUsd(price.0.saturating_mul(u128::from(count)))
}

/// Reads an amount of dollars from its text: digits, at most one point, perhaps an exponent, as JSON writes numbers
/// (RFC 8259, 6). Zeros at the end of the decimals are free.
///
/// # Errors
/// [`AmountError`].
pub fn parse(text: &str) -> Result<PicoUsd, AmountError> {
    let (negative, unsigned) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    if unsigned.len() > TEXT_MAX {
        return Err(AmountError::NotANumber);
    }
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, self::exponent(exponent)?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((_, "")) => return Err(AmountError::NotANumber),
        Some(parts) => parts,
        None => (mantissa, ""),
    };
    if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
        return Err(AmountError::NotANumber);
    }
    let digits = [whole, fraction].concat();
    let significant = digits.trim_matches('0');
    if significant.is_empty() {
        return Ok(PicoUsd(0));
    }
    if negative {
        return Err(AmountError::Negative);
    }
    // The amount is `significant` × 10^shift pico-dollars. Lengths are at most TEXT_MAX.
    let trailing = digits.len() - digits.trim_end_matches('0').len();
    let shift = i64::from(DECIMALS) + exponent + signed(trailing) - signed(fraction.len());
    let shift = u32::try_from(shift).map_err(|_| AmountError::TooFine)?;
    let scale = 10_u128.checked_pow(shift).ok_or(AmountError::TooLarge)?;
    let value: u128 = significant.parse().map_err(|_| AmountError::TooLarge)?;
    match value.checked_mul(scale) {
        Some(amount) if amount <= USD_MAX * PER_USD => Ok(PicoUsd(amount)),
        Some(_) | None => Err(AmountError::TooLarge),
    }
}

/// Reads an exponent; one of more than six digits is no amount's.
fn exponent(text: &str) -> Result<i64, AmountError> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || digits.len() > 6 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(AmountError::NotANumber);
    }
    text.parse().map_err(|_| AmountError::NotANumber)
}

fn signed(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

/// Writes an amount of dollars as a JSON number, exact and without an exponent.
#[must_use]
pub fn format(amount: PicoUsd) -> String {
    let (whole, fraction) = (amount.0 / PER_USD, amount.0 % PER_USD);
    if fraction == 0 {
        return whole.to_string();
    }
    let decimals = format!("{fraction:012}");
    format!("{whole}.{}", decimals.trim_end_matches('0'))
}

/// An amount of dollars in JSON: read from a number or a string, written as a number, both by the text. Only for
/// `serde_json`; a YAML scalar goes through [`parse`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Usd(pub PicoUsd);

impl<'de> Deserialize<'de> for Usd {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(source)?;
        let text = match raw.get().strip_prefix('"') {
            Some(quoted) => quoted.strip_suffix('"').unwrap_or_default(),
            None => raw.get(),
        };
        parse(text).map(Self).map_err(D::Error::custom)
    }
}

impl Serialize for Usd {
    fn serialize<S: Serializer>(&self, target: S) -> Result<S::Ok, S::Error> {
        RawValue::from_string(format(self.0)).map_err(S::Error::custom)?.serialize(target)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn amounts_are_read_exactly() {
        for (text, pico) in [
            ("0", 0),
            ("-0.0", 0),
            ("0e999999", 0),
            ("1", PER_USD),
            ("0.1", PER_USD / 10),
            ("0.0000025", 2_500_000),
            ("0.000000000001", 1),
            ("0.0000000000010000", 1),
            ("1e-12", 1),
            ("1.0E-12", 1),
            ("25e-7", 2_500_000),
            ("2.5e+1", 25 * PER_USD),
            ("007.50", 7_500_000_000_000),
            ("123456789.123456789012", 123_456_789_123_456_789_012),
            ("1000000000", USD_MAX * PER_USD),
            ("1e9", USD_MAX * PER_USD),
        ] {
            assert_eq!(parse(text), Ok(PicoUsd(pico)), "{text}");
        }
    }

    #[test]
    fn what_is_no_exact_amount_is_refused_with_its_reason() {
        use AmountError::{Negative, NotANumber, TooFine, TooLarge};
        for (text, error) in [
            ("", NotANumber),
            ("-", NotANumber),
            (".5", NotANumber),
            ("5.", NotANumber),
            ("1.2.3", NotANumber),
            ("1,5", NotANumber),
            (" 1", NotANumber),
            ("+1", NotANumber),
            ("1e", NotANumber),
            ("1e+-2", NotANumber),
            ("1e1234567", NotANumber),
            ("NaN", NotANumber),
            ("0x1", NotANumber),
            ("١", NotANumber),
            ("$1", NotANumber),
            ("-0.01", Negative),
            ("0.0000000000001", TooFine),
            ("1e-13", TooFine),
            ("1.0000000000001", TooFine),
            ("1e-999999", TooFine),
            ("1000000000.000000000001", TooLarge),
            ("1e10", TooLarge),
            ("1e999999", TooLarge),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
        assert_eq!(parse(&"9".repeat(60)), Err(TooLarge));
        assert_eq!(parse(&"0".repeat(65)), Err(NotANumber));
    }

    #[test]
    fn json_takes_numbers_and_strings_and_gives_numbers() {
        let read: Vec<Usd> = serde_json::from_str(r#"[0.1, "0.1", 1e-7, "0"]"#).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), "[0.1,0.1,0.0000001,0]");
        for bad in ["true", "null", "[]", "{}", r#""""#, r#""1""2""#, r#""a\"b""#, "0.0000000000001"] {
            assert!(serde_json::from_str::<Usd>(bad).is_err(), "{bad}");
        }
        assert_eq!(serde_json::from_str::<Option<Usd>>("null").unwrap(), None);
    }

    #[test]
    fn cached_input_has_its_own_price_or_the_input_price() {
        let prices = Prices {
            input: PicoUsd(10),
            output: PicoUsd(30),
            cached_input: Some(PicoUsd(1)),
            request: PicoUsd(7),
        };
        let used = Used {
            input: 100,
            cached_input: 40,
            output: 5,
            requests: 1,
        };
        let cost = cost(&prices, &used);
        let expected = Cost {
            fresh_input: PicoUsd(600),
            cached_input: PicoUsd(40),
            output: PicoUsd(150),
            request: PicoUsd(7),
        };
        assert_eq!((cost, cost.input(), cost.total()), (expected, PicoUsd(640), PicoUsd(797)));
        let same = super::cost(
            &Prices {
                cached_input: None,
                ..prices
            },
            &used,
        );
        assert_eq!(same.input(), PicoUsd(1000));
        let more = super::cost(
            &prices,
            &Used {
                cached_input: 1000,
                ..used
            },
        );
        assert_eq!(more.input(), PicoUsd(100), "more cached than read");
    }

    fn amount() -> impl Strategy<Value = PicoUsd> {
        prop_oneof![0..=USD_MAX * PER_USD, 0..=PER_USD].prop_map(PicoUsd)
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_the_same(amount in amount()) {
            let text = format(amount);
            prop_assert_eq!(parse(&text), Ok(amount));
            prop_assert!(serde_json::from_str::<serde_json::Number>(&text).is_ok(), "{}", text);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "-?[0-9]{0,40}\\.?[0-9]{0,20}([eE][+-]?[0-9]{0,8})?|.{0,20}") {
            if let Ok(amount) = parse(&text) {
                prop_assert!(amount.0 <= USD_MAX * PER_USD);
            }
        }

        /// Summed over requests, the parts come to the total of the sums: nothing is lost to rounding.
        #[test]
        fn parts_add_up_over_any_requests(
            prices in (0..1_000_000_000_u128, 0..1_000_000_000_u128, proptest::option::of(0..1_000_000_000_u128), 0..PER_USD),
            requests in prop::collection::vec((0..1_000_000_u64, 0..1_000_000_u64, 0..1_000_000_u64), 1..20),
        ) {
            let prices = Prices {
                input: PicoUsd(prices.0),
                output: PicoUsd(prices.1),
                cached_input: prices.2.map(PicoUsd),
                request: PicoUsd(prices.3),
            };
            let mut all = Used::default();
            let mut total = 0;
            for (fresh, cached, output) in requests {
                let used = Used { input: fresh + cached, cached_input: cached, output, requests: 1 };
                total += cost(&prices, &used).total().0;
                all.input += used.input;
                all.cached_input += used.cached_input;
                all.output += used.output;
                all.requests += 1;
            }
            prop_assert_eq!(cost(&prices, &all).total().0, total);
        }

        #[test]
        fn no_count_overflows(input in any::<u64>(), cached_input in any::<u64>(), output in any::<u64>(), price in amount()) {
            let prices = Prices { input: price, output: price, cached_input: None, request: price };
            let whole = cost(&prices, &Used { input, cached_input, output, requests: 1 });
            prop_assert!(whole.total() >= whole.output);
        }
    }
}

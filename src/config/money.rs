//! Dollars as they are written: exact to the twelfth decimal, in plain or scientific notation.

use crate::units::PicoUsd;

/// Decimals that money has.
const PLACES: i32 = 12;
/// Exponents beyond this are refused unread: `1e999999999` is no price.
const EXPONENT_MAX: i32 = 64;
/// The most that is accepted: 10¹⁷ dollars, as in the management API.
const MAX: u128 = 100_000_000_000_000_000 * 1_000_000_000_000;

/// Reads an amount; `None` if it is none, is negative, too large, or has more than twelve decimals.
pub(super) fn parse(text: &str) -> Option<PicoUsd> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    if !(-EXPONENT_MAX..=EXPONENT_MAX).contains(&exponent) {
        return None;
    }
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    let mut amount: u128 = 0;
    for digit in whole.bytes().chain(fraction.bytes()) {
        amount = amount.checked_mul(10)?.checked_add(u128::from(digit - b'0'))?;
    }
    if amount == 0 {
        return Some(PicoUsd(0));
    }
    let shift = exponent + PLACES - i32::try_from(fraction.len()).ok()?;
    let power = 10_u128.checked_pow(shift.unsigned_abs())?;
    let amount = if shift >= 0 {
        amount.checked_mul(power)?
    } else if amount.is_multiple_of(power) {
        amount / power
    } else {
        return None;
    };
    (amount <= MAX).then_some(PicoUsd(amount))
}

/// Writes an amount in plain notation, without zeros at its end.
pub(super) fn show(PicoUsd(amount): PicoUsd) -> String {
    const PER_DOLLAR: u128 = 1_000_000_000_000;
    let (dollars, fraction) = (amount / PER_DOLLAR, amount % PER_DOLLAR);
    if fraction == 0 {
        return dollars.to_string();
    }
    let digits = format!("{fraction:012}");
    format!("{dollars}.{}", digits.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_exact_to_the_twelfth_decimal() {
        let cases = [
            ("0.0000025", Some((2_500_000, "0.0000025"))),
            ("2.5e-06", Some((2_500_000, "0.0000025"))),
            ("1e-12", Some((1, "0.000000000001"))),
            ("123456.123456789012", Some((123_456_123_456_789_012, "123456.123456789012"))),
            ("12", Some((12_000_000_000_000, "12"))),
            ("0", Some((0, "0"))),
            ("1e-13", None),
            ("0.0000000000001", None),
            ("1e18", None),
            ("1e999999999", None),
            ("-1", None),
            ("1.", None),
            (".5", None),
            ("", None),
            ("NaN", None),
            (".inf", None),
        ];
        for (text, expected) in cases {
            let got = parse(text).map(|amount| (amount.0, show(amount)));
            assert_eq!(got, expected.map(|(pico, shown)| (pico, shown.to_owned())), "{text}");
        }
    }
}

//! Numbers as they are written: exact, whatever their notation.

/// Exponents beyond this are refused unread: `1e999999999` is no price and would be a gigabyte of zeros.
const EXPONENT_MAX: i32 = 64;

/// The integer that a JSON number stands for, if it is one and is not negative.
pub(super) fn integer(text: &str) -> Option<u64> {
    scaled(text, 0).and_then(|number| u64::try_from(number).ok())
}

/// A decimal number times 10^`places`, if that is an integer that is not negative. Reads JSON's notation.
pub(super) fn scaled(text: &str, places: i32) -> Option<u128> {
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], text[at + 1..].parse::<i32>().ok()?),
        None => (text, 0),
    };
    if exponent.abs() > EXPONENT_MAX {
        return None;
    }
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, mantissa),
    };
    let (whole, fraction) = mantissa
        .split_once('.')
        .map_or((mantissa, None), |(whole, fraction)| (whole, Some(fraction)));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || fraction.is_some_and(|fraction| !digits(fraction)) {
        return None;
    }
    let fraction = fraction.unwrap_or_default().trim_end_matches('0');
    let mut number: u128 = 0;
    for digit in whole.bytes().chain(fraction.bytes()) {
        number = number.checked_mul(10)?.checked_add(u128::from(digit - b'0'))?;
    }
    if number == 0 {
        return Some(0);
    }
    let shift = exponent + places - i32::try_from(fraction.len()).ok()?;
    let power = 10_u128.checked_pow(shift.unsigned_abs());
    let number = match (shift >= 0, power) {
        (true, Some(power)) => number.checked_mul(power)?,
        (false, Some(power)) if number % power == 0 => number / power,
        (true | false, Some(_) | None) => return None,
    };
    (sign > 0).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::{integer, scaled};

    #[test]
    fn integers_are_read_in_every_notation_and_nothing_else_is() {
        let cases = [
            ("0", Some(0)),
            ("-0", Some(0)),
            ("100", Some(100)),
            ("100.0", Some(100)),
            ("1e2", Some(100)),
            ("1E+2", Some(100)),
            ("1200e-2", Some(12)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("-1", None),
            ("1.5", None),
            ("1e-1", None),
            ("1e999999999", None),
            ("\"1\"", None),
            ("true", None),
            ("null", None),
        ];
        for (text, expected) in cases {
            assert_eq!(integer(text), expected, "{text}");
        }
    }

    #[test]
    fn money_is_exact_to_the_twelfth_decimal() {
        let cases = [
            ("0.0000025", Some(2_500_000)),
            ("2.5e-06", Some(2_500_000)),
            ("0.000000000001", Some(1)),
            ("1e-12", Some(1)),
            ("0.0000000000001", None),
            ("1e-13", None),
            ("123456.123456789012", Some(123_456_123_456_789_012)),
            ("1.", None),
            (".5", None),
            ("", None),
            ("-0.1", None),
            ("1 ", None),
            ("NaN", None),
        ];
        for (text, expected) in cases {
            assert_eq!(scaled(text, 12), expected, "{text}");
        }
    }
}

//! Integers as they are written in JSON.

/// The integer that a JSON number stands for, if it is one and is not negative. `100.0` and `1e2` are integers too, as JSON
/// Schema has it.
pub(super) fn integer(text: &str) -> Option<u64> {
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], text[at + 1..].parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (negative, mantissa) = mantissa.strip_prefix('-').map_or((false, mantissa), |rest| (true, rest));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    let written = [whole, fraction].concat();
    let significant = written.trim_matches('0');
    if significant.is_empty() {
        return Some(0);
    }
    // The number is `significant` × 10^zeros. An exponent that is no i32 is no number that anyone means.
    let trailing = i32::try_from(written.len() - written.trim_end_matches('0').len()).ok()?;
    let zeros = exponent.checked_add(trailing)?.checked_sub(i32::try_from(fraction.len()).ok()?)?;
    let power = 10_u64.checked_pow(u32::try_from(zeros).ok()?)?;
    let number = significant.parse::<u64>().ok()?.checked_mul(power)?;
    (!negative).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::integer;

    #[test]
    fn integers_are_read_in_every_notation_and_nothing_else_is() {
        let cases = [
            ("0", Some(0)),
            ("-0", Some(0)),
            ("0e999999", Some(0)),
            ("100", Some(100)),
            ("100.0", Some(100)),
            ("1e2", Some(100)),
            ("1.5E+1", Some(15)),
            ("1200e-2", Some(12)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("-1", None),
            ("1.5", None),
            ("1e-1", None),
            ("1e999999999", None),
            ("1e99999999999", None),
            ("1.", None),
            (".5", None),
            ("\"1\"", None),
            ("true", None),
            ("null", None),
        ];
        for (text, expected) in cases {
            assert_eq!(integer(text), expected, "{text}");
        }
    }
}

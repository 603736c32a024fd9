//! Numbers and lengths of time in sentences: one rule everywhere, the dashboard's included.

/// A number with four digits: `95`, `54.5`, `3271`, `12,480`, `1.2e−5`, `2.5e9`.
///
/// Digits are grouped from five on; from 1000 on all digits before the point are given and none behind it; from 1e9 on, and
/// below 1e-3, three digits and an exponent. Halves are rounded away from zero. The sign is a true minus.
pub fn number(x: f64) -> String {
    rounded(x, 4)
}

/// Half the width of a band, three digits: `8.84`.
pub fn spread(x: f64) -> String {
    rounded(x, 3)
}

/// A z-score, or a multiple: one decimal up to 999, then three digits and an exponent: `13.7`, `−0.3`, `1.2e4`.
pub fn zed(z: f64) -> String {
    let size = z.abs();
    let text = if size >= 1000.0 {
        scientific(size, 3)
    } else {
        // Halves away from zero, as the dashboard rounds; only quarters can be halves of a tenth.
        let tie = (size * 4.0).fract() == 0.0 && (size * 2.0).fract() != 0.0;
        format!("{:.1}", if tie { size + 0.01 } else { size })
    };
    if z < 0.0 && text != "0.0" { format!("−{text}") } else { text }
}

/// A count, grouped from five digits on: `20`, `1440`, `12,480`.
pub fn count(n: u64) -> String {
    grouped(&n.to_string())
}

/// A count of samples: `1 sample`, `20 samples`.
pub fn samples(n: u64) -> String {
    if n == 1 { "1 sample".to_owned() } else { format!("{} samples", count(n)) }
}

/// A length of time in the largest unit that divides it: `90 s`, `5 min`, `24 h`, `7 d`; days from two on.
pub fn span(seconds: f64) -> String {
    for (unit, name, at_least) in [(86_400.0, "d", 2.0), (3600.0, "h", 1.0), (60.0, "min", 1.0)] {
        let units = seconds / unit;
        if units >= at_least && units.fract() == 0.0 {
            return format!("{} {name}", number(units));
        }
    }
    format!("{} s", number(seconds))
}

fn rounded(x: f64, digits: usize) -> String {
    let size = x.abs();
    let text = if size == 0.0 {
        "0".to_owned()
    } else if !(1e-3..1e9).contains(&size) {
        scientific(size, 3)
    } else {
        let (shortest, exponent) = shortest(size);
        // From 1000 on every digit before the point counts; a spread is cut to its digits even there.
        let whole = usize::try_from(exponent + 1).unwrap_or(0);
        let kept = if digits == 4 { digits.max(whole) } else { digits };
        let (kept, exponent) = round(&shortest, exponent, kept);
        plain(&kept, exponent)
    };
    if x < 0.0 { format!("−{text}") } else { text }
}

/// The shortest decimal digits that mean `x` (positive), and the power of ten of the first.
fn shortest(x: f64) -> (Vec<u8>, i32) {
    let text = format!("{x:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    (mantissa.bytes().filter(u8::is_ascii_digit).map(|b| b - b'0').collect(), exponent.parse().unwrap_or(0))
}

/// At most `n` of the digits, halves up, without zeros at the end.
fn round(digits: &[u8], exponent: i32, n: usize) -> (Vec<u8>, i32) {
    let mut kept: Vec<u8> = digits.iter().copied().take(n).collect();
    let mut carry = digits.get(n).is_some_and(|&next| next >= 5);
    for digit in kept.iter_mut().rev() {
        if !carry {
            break;
        }
        carry = *digit == 9;
        *digit = if carry { 0 } else { *digit + 1 };
    }
    if carry {
        kept.insert(0, 1);
    }
    while kept.len() > 1 && kept.last() == Some(&0) {
        kept.pop();
    }
    (kept, exponent + i32::from(carry))
}

fn plain(digits: &[u8], exponent: i32) -> String {
    let digit = |power: i32| usize::try_from(exponent - power).ok().and_then(|i| digits.get(i)).map_or('0', |&d| char::from(b'0' + d));
    let whole: String = (0..=exponent.max(0)).rev().map(digit).collect();
    let lowest = exponent + 1 - digits.len() as i32;
    let fraction: String = (lowest..0).rev().map(digit).collect();
    if fraction.is_empty() { grouped(&whole) } else { format!("{}.{fraction}", grouped(&whole)) }
}

fn scientific(x: f64, n: usize) -> String {
    let (digits, exponent) = shortest(x);
    let (digits, exponent) = round(&digits, exponent, n);
    let sign = if exponent < 0 { "−" } else { "" };
    format!("{}e{sign}{}", plain(&digits, 0), exponent.abs())
}

fn grouped(digits: &str) -> String {
    if digits.len() < 5 {
        return digits.to_owned();
    }
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(write: impl Fn(f64) -> String, cases: &[(f64, &str)]) {
        for &(x, expected) in cases {
            assert_eq!(write(x), expected, "{x:?}");
        }
    }

    #[test]
    fn numbers() {
        check(
            number,
            &[
                (95.0, "95"),
                (54.5, "54.5"),
                (3271.4, "3271"),
                (3271.5, "3272"),
                (12_480.3, "12,480"),
                (999_999_999.0, "999,999,999"),
                (1e9, "1e9"),
                (2.5e9, "2.5e9"),
                (1.2e-5, "1.2e−5"),
                (-1.2345e-5, "−1.23e−5"),
                (0.0, "0"),
                (-0.0, "0"),
                (-3.0, "−3"),
                (0.001, "0.001"),
                (0.012_345, "0.01235"),
                (100.25, "100.3"),
                (2.946_898, "2.947"),
                (999.96, "1000"),
                (9999.6, "10,000"),
                (0.1 + 0.2, "0.3"),
                (f64::MAX, "1.8e308"),
                (5e-324, "5e−324"),
            ],
        );
        check(spread, &[(8.8407, "8.84"), (0.15, "0.15"), (1234.0, "1230"), (12_345.0, "12,300")]);
    }

    #[test]
    fn z_scores() {
        check(
            zed,
            &[
                (13.74, "13.7"),
                (0.0, "0.0"),
                (-0.04, "0.0"),
                (-2.35, "−2.4"),
                (0.25, "0.3"),
                (999.9, "999.9"),
                (3000.0, "3e3"),
                (12_345.0, "1.23e4"),
                (-5e8, "−5e8"),
                (1e300, "1e300"),
            ],
        );
    }

    #[test]
    fn lengths_of_time() {
        check(
            span,
            &[
                (300.0, "5 min"),
                (86_400.0, "24 h"),
                (90.0, "90 s"),
                (3600.0, "1 h"),
                (60.0, "1 min"),
                (0.5, "0.5 s"),
                (604_800.0, "7 d"),
                (5400.0, "90 min"),
                (100_000.0, "100,000 s"),
            ],
        );
        assert_eq!([0, 1, 20, 12_480].map(samples), ["0 samples", "1 sample", "20 samples", "12,480 samples"]);
    }
}

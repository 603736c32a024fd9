//! Numbers as they are written: decimal digits and an exponent, without a detour through f64.

/// A number as written: `mantissa × 10^exponent`, its first 19 significant digits kept.
///
/// Nineteen digits are enough for any time that an i64 of nanoseconds can hold, so times are exact to the nanosecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decimal {
    pub(super) negative: bool,
    mantissa: u64,
    exponent: i32,
    /// Whether a digit other than 0 did not fit.
    cut: bool,
}

const MAX_DIGITS: u32 = 19;
/// Where exponents saturate: far beyond what an f64 or an i64 of nanoseconds can hold.
const MAX_EXPONENT: i32 = 100_000;
const POWERS: [u64; 20] = {
    let mut powers = [1; 20];
    let mut i = 1;
    while i < 20 {
        powers[i] = powers[i - 1] * 10;
        i += 1;
    }
    powers
};
/// The powers of ten that an f64 holds exactly.
const EXACT: [f64; 23] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22];

impl Decimal {
    /// A number of few enough digits, `fraction` of them behind the point.
    #[inline(always)]
    pub(super) fn of_digits(negative: bool, mantissa: u64, fraction: i32) -> Self {
        Self { negative, mantissa, exponent: -fraction, cut: false }
    }

    /// Reads the JSON number at the start of `bytes` and returns how long it is; `None` where there is none.
    ///
    /// What stands behind it is the caller's to judge: of `01` it reads the `0`.
    #[inline]
    pub(super) fn scan_json(bytes: &[u8]) -> Option<(Self, usize)> {
        let mut scan = Scan::new(bytes);
        let negative = scan.take(b'-');
        if scan.take(b'0') {
            // A leading zero stands alone.
        } else if scan.whole_digits() == 0 {
            return None;
        }
        if scan.take(b'.') && scan.fraction_digits() == 0 {
            return None;
        }
        scan.exponent()?;
        Some((scan.decimal(negative), scan.at))
    }

    /// Reads a cell of a file that is a number as a whole: as in JSON, and also `+1`, `.5`, `5.` and `007`; with
    /// `decimal_comma` the point may be a comma.
    #[inline]
    pub(super) fn scan_cell(cell: &[u8], decimal_comma: bool) -> Option<Self> {
        let mut scan = Scan::new(cell);
        let negative = scan.take(b'-');
        if !negative {
            scan.take(b'+');
        }
        let whole = scan.whole_digits();
        let point = scan.take(b'.') || (decimal_comma && scan.take(b','));
        let fraction = if point { scan.fraction_digits() } else { 0 };
        if whole + fraction == 0 {
            return None;
        }
        scan.exponent()?;
        (scan.at == cell.len()).then(|| scan.decimal(negative))
    }

    /// The nearest f64, infinite beyond its range; `written` is the text from which this was read.
    #[inline]
    pub(super) fn to_f64(self, written: &[u8]) -> f64 {
        // One rounding of two exact numbers is the nearest f64 (Clinger, "How to read floating point numbers accurately").
        if !self.cut && self.mantissa < 1 << 53 && self.exponent.unsigned_abs() <= 22 {
            let (magnitude, power) = (self.mantissa as f64, EXACT[self.exponent.unsigned_abs() as usize]);
            let value = if self.exponent < 0 { magnitude / power } else { magnitude * power };
            return if self.negative { -value } else { value };
        }
        self.to_f64_slowly(written)
    }

    #[cold]
    fn to_f64_slowly(self, written: &[u8]) -> f64 {
        if written.contains(&b',') {
            let point: Vec<u8> = written.iter().map(|&b| if b == b',' { b'.' } else { b }).collect();
            return fast_float2::parse(point).unwrap_or(f64::NAN);
        }
        fast_float2::parse(written.strip_prefix(b"+").unwrap_or(written)).unwrap_or(f64::NAN)
    }

    /// The magnitude times `10^scale`, cut towards zero; saturates far beyond i64.
    #[inline]
    pub(super) fn scaled(self, scale: i32) -> u128 {
        let exponent = self.exponent + scale;
        let power = |n: i32| POWERS.get(n as usize).copied();
        if exponent < 0 {
            return power(-exponent).map_or(0, |p| u128::from(self.mantissa / p));
        }
        match power(exponent) {
            Some(p) => u128::from(self.mantissa) * u128::from(p),
            None if self.mantissa == 0 => 0,
            None => u128::MAX,
        }
    }

    /// Whether this is below zero (`-0` is not).
    pub(super) fn is_below_zero(self) -> bool {
        self.negative && self.mantissa != 0
    }
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
    mantissa: u64,
    /// Significant digits in the mantissa.
    digits: u32,
    exponent: i32,
    cut: bool,
}

impl<'a> Scan<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, mantissa: 0, digits: 0, exponent: 0, cut: false }
    }

    #[inline]
    fn take(&mut self, byte: u8) -> bool {
        let found = self.bytes.get(self.at) == Some(&byte);
        self.at += usize::from(found);
        found
    }

    #[inline]
    fn digit(&self) -> Option<u8> {
        self.bytes.get(self.at).map(|b| b.wrapping_sub(b'0')).filter(|&d| d < 10)
    }

    /// Takes a digit into the mantissa; false where it is full.
    #[inline]
    fn push(&mut self, digit: u8) -> bool {
        self.at += 1;
        if self.digits == MAX_DIGITS {
            self.cut |= digit != 0;
            return false;
        }
        self.mantissa = self.mantissa * 10 + u64::from(digit);
        self.digits += u32::from(self.mantissa != 0);
        true
    }

    #[inline]
    fn whole_digits(&mut self) -> usize {
        let start = self.at;
        while let Some(digit) = self.digit() {
            self.exponent += i32::from(!self.push(digit) && self.exponent < MAX_EXPONENT);
        }
        self.at - start
    }

    #[inline]
    fn fraction_digits(&mut self) -> usize {
        let start = self.at;
        while let Some(digit) = self.digit() {
            self.exponent -= i32::from(self.push(digit) && self.exponent > -MAX_EXPONENT);
        }
        self.at - start
    }

    /// Takes an exponent where there is one; `None` where it has no digits.
    #[inline]
    fn exponent(&mut self) -> Option<()> {
        if !(self.take(b'e') || self.take(b'E')) {
            return Some(());
        }
        let negative = self.take(b'-');
        if !negative {
            self.take(b'+');
        }
        let (start, mut written) = (self.at, 0i32);
        while let Some(digit) = self.digit() {
            written = (written * 10 + i32::from(digit)).min(MAX_EXPONENT);
            self.at += 1;
        }
        self.exponent += if negative { -written } else { written };
        (self.at > start).then_some(())
    }

    fn decimal(&self, negative: bool) -> Decimal {
        Decimal { negative, mantissa: self.mantissa, exponent: self.exponent, cut: self.cut }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn json_numbers_end_where_the_grammar_ends_them() {
        for (text, length) in
            [("0", 1), ("-0", 2), ("01", 1), ("12.5e3,", 6), ("1e+5}", 4), ("1E-5", 4), ("0.0]", 3), ("5 ", 1), ("1.5.2", 3)]
        {
            assert_eq!(Decimal::scan_json(text.as_bytes()).map(|(_, n)| n), Some(length), "{text}");
        }
        for text in ["", "-", "+1", ".5", "5.", "1e", "1e+", "-.5", "NaN", "--1", "1.e5", "x"] {
            assert_eq!(Decimal::scan_json(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn cells_are_numbers_as_people_write_them() {
        let read = |text: &str, comma| Decimal::scan_cell(text.as_bytes(), comma).map(|d| d.to_f64(text.as_bytes()));
        for (text, value) in
            [("+1", 1.0), (".5", 0.5), ("5.", 5.0), ("007", 7.0), ("-1e3", -1000.0), ("1e999", f64::INFINITY), ("5e-324", 5e-324)]
        {
            assert_eq!(read(text, false), Some(value), "{text}");
        }
        for (text, value) in [
            ("0,48", 0.48),
            ("-12,5", -12.5),
            ("1,5e3", 1500.0),
            ("0.48", 0.48),
            ("1,234", 1.234),
            ("1,23456789012345678901", 1.234_567_890_123_456_8),
        ] {
            assert_eq!(read(text, true), Some(value), "{text}");
        }
        for text in ["1,2,3", ",", "1.234,56", "1,234.5", "", "x", "nan", "inf", "Infinity", "0x10", "1_000", "1 000", "-", "e5", "+-1"] {
            assert_eq!(read(text, true), None, "{text}");
        }
        assert_eq!(read("0,48", false), None);
    }

    #[test]
    fn scaling_is_exact_and_cuts_towards_zero() {
        for (text, nanos) in [
            ("1737453600.000000001", 1_737_453_600_000_000_001u128),
            ("1737453600.0000000019999", 1_737_453_600_000_000_001),
            ("1.7374536e9", 1_737_453_600_000_000_000),
            ("17374536000e-1", 1_737_453_600_000_000_000),
            ("0.0000000001", 0),
            ("0e999", 0),
            ("1e999", u128::MAX),
            ("1e-999", 0),
        ] {
            assert_eq!(Decimal::scan_json(text.as_bytes()).unwrap().0.scaled(9), nanos, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_f64_is_read_as_std_reads_it(bits in any::<u64>(), places in 0usize..25) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            let small = (bits as i64 >> 20) as f64 / 1024.0;
            for text in [format!("{value:e}"), format!("{value}"), format!("{small:.places$}"), format!("{small:.places$e}")] {
                let (decimal, n) = Decimal::scan_json(text.as_bytes()).unwrap();
                prop_assert_eq!(n, text.len());
                prop_assert_eq!(decimal.to_f64(text.as_bytes()).to_bits(), text.parse::<f64>().unwrap().to_bits(), "{}", text);
            }
        }
    }
}

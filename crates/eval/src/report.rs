//! The rows of the table in `docs/benchmarks.md`.

use std::fmt;

/// What a goal asks of a ratio.
#[derive(Clone, Copy, Debug)]
pub enum Need {
    /// At least so much.
    AtLeast(f64),
    /// At most so much.
    AtMost(f64),
    /// Nothing: it is shown to compare with.
    Nothing,
}

/// One row: what was measured, beside what, and whether the goal is met.
#[derive(Clone, Debug)]
pub struct Row {
    /// Number of the goal.
    pub goal: u32,
    /// What was measured.
    pub what: String,
    /// The number, with its unit.
    pub measured: String,
    /// What it is compared with, with its number.
    pub beside: String,
    /// Measured to compared, in the sense in which the goal is stated; with its unit where it is none.
    pub ratio: f64,
    /// What the goal asks of the ratio.
    pub need: Need,
}

impl Row {
    /// Prints the row as one of a table in Markdown.
    #[expect(clippy::print_stdout, reason = "it is what a benchmark is for")]
    pub fn print(&self) {
        println!("{self}");
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { goal, what, measured, beside, ratio, need } = self;
        let ratio_text = if ratio.is_finite() { short(*ratio) } else { String::new() };
        write!(f, "| {goal} | {what} | {measured} | {beside} | {ratio_text} | {need} | {} |", need.verdict(*ratio))
    }
}

impl Need {
    fn verdict(self, ratio: f64) -> &'static str {
        let met = match self {
            Self::AtLeast(least) => ratio >= least,
            Self::AtMost(most) => ratio <= most,
            Self::Nothing => return "",
        };
        if met { "met" } else { "**not met**" }
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::AtLeast(least) => write!(f, "≥ {}", short(least)),
            Self::AtMost(most) => write!(f, "≤ {}", short(most)),
            Self::Nothing => Ok(()),
        }
    }
}

/// Three significant digits, as far as they stand behind the point.
fn short(number: f64) -> String {
    let digits = match number.abs() {
        ..10.0 => 2,
        ..100.0 => 1,
        _ => 0,
    };
    format!("{number:.digits$}")
}

/// An integer with commas between its thousands.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.char_indices() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_whether_its_goal_is_met() {
        let row = |ratio, need| Row { goal: 2, what: "a".into(), measured: "b".into(), beside: "c".into(), ratio, need }.to_string();
        assert_eq!(row(0.5, Need::AtLeast(0.5)), "| 2 | a | b | c | 0.50 | ≥ 0.50 | met |");
        assert_eq!(row(12.34, Need::AtMost(3.0)), "| 2 | a | b | c | 12.3 | ≤ 3.00 | **not met** |");
        assert_eq!(row(1234.5, Need::Nothing), "| 2 | a | b | c | 1234 |  |  |");
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}

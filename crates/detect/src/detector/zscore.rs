//! The distance from the mean in standard deviations.
//!
//! `z = (value − mean) ÷ stddev`, an anomaly from `|z| ≥ threshold` on. The value is not among the samples, or |z| could not
//! exceed (n − 1) ÷ √n (Shiffler, "Maximum Z scores and outliers", 1988).

use super::{ANY_CHANGE, ratio, reported_stddev};
use crate::explanation::{Check, Explanation, Words};
use crate::judgement::{Judgement, Verdict};
use crate::params::{DetectorParams, Params};
use crate::stat::Moments;
use crate::text::{number, spread, zed};

#[inline]
pub(super) fn judge(params: &Params, moments: Moments, value: f64) -> Judgement {
    let (count, mean, stddev) = (moments.count(), moments.mean(), reported_stddev(moments));
    if count < u64::from(params.enough()) {
        return Judgement::too_few(count, mean, stddev);
    }
    let threshold = params.threshold();
    let divisor = divisor(params, mean, stddev);
    let z = if divisor > 0.0 {
        ratio(value, mean, divisor)
    } else if value == mean {
        0.0
    } else {
        ANY_CHANGE.copysign(value - mean)
    };
    let reach = threshold * divisor;
    Judgement {
        verdict: params.verdict(z.abs() >= threshold, value, mean),
        count,
        mean,
        stddev,
        expected: mean,
        lower: (mean - reach).max(f64::MIN),
        upper: (mean + reach).min(f64::MAX),
        z_score: Some(z),
        strength: (z.abs() / threshold).min(f64::MAX),
    }
}

/// What the deviation is divided by: the standard deviation, in a constant window a part of the mean, and no less than
/// `min_stddev`. 0 only where the window is constant and both floors are 0: then any change counts.
#[inline]
fn divisor(params: &Params, mean: f64, stddev: f64) -> f64 {
    let DetectorParams::Zscore { rel_floor, min_stddev, .. } = params.detector else { return stddev };
    let spread = if stddev > 0.0 { stddev } else { (rel_floor * mean.abs()).min(f64::MAX) };
    spread.max(min_stddev)
}

pub(super) fn explain(params: &Params, value: f64, judgement: &Judgement, window_seconds: f64) -> Explanation {
    let words = Words::new(params, value, judgement, window_seconds);
    if judgement.verdict == Verdict::TooFew {
        return words.too_few();
    }
    let &Judgement { mean, stddev, lower, upper, .. } = judgement;
    let (z, threshold) = (judgement.z_score.unwrap_or(0.0), params.threshold());
    let (divisor, fires) = (divisor(params, mean, stddev), z.abs() >= threshold);
    let half = upper / 2.0 - lower / 2.0;
    let (summary, mut explanation) = if stddev == 0.0 {
        words.constant(mean, fires, half)
    } else {
        let side = if value < mean { "below" } else { "above" };
        let distance = match zed(z.abs()) {
            zero if zero == "0.0" => "at".to_owned(),
            distance => format!("{distance} standard deviations {side}"),
        };
        let within = if fires { String::new() } else { format!(", within the {} that are allowed", number(threshold)) };
        (
            format!("{distance} {}the last {}", if distance == "at" { "the mean of " } else { "" }, words.window),
            format!("{} is {distance} the mean {} of the last {}{within}", number(value), number(mean), words.samples),
        )
    };
    explanation.push_str(&words.why_not(fires));
    let formula = if divisor > 0.0 {
        format!("({} − {}) ÷ {} = {}", number(value), number(mean), number(divisor), zed(z))
    } else {
        format!("{} from the constant {} counts", if fires { "any change" } else { "only a change" }, number(mean))
    };
    let mut checks = vec![
        words.enough(),
        Check::new("Outside the expected band", fires, format!("{} against {} ± {}", number(value), number(mean), spread(half))),
        Check::new(format!("z at least {}", number(threshold)), fires, formula),
    ];
    checks.extend(words.filters());
    checks.extend(words.critical(format!("Critical from z {}", number(params.critical_from())), "the threshold"));
    Explanation { summary, explanation, checks }
}

//! Detectors against their formulas, and their words.

mod common;

use anomaly_detect::{
    Bounds, Detector, DetectorKind, DetectorParams, Direction, Judgement, Params, Severity, Side, Verdict, Window, WindowKind,
};
use common::{Model, SECOND, after_decode, arrivals, oracle, relative, shape};
use proptest::prelude::*;

struct Series {
    params: Params,
    window: Window,
    detector: Detector,
    model: Model,
}

impl Series {
    fn new(params: Params, kind: WindowKind, span: i64, lateness: i64, max_samples: u32) -> Self {
        assert_eq!(params.validate(), Ok(()));
        let shape = shape(kind, span, lateness, max_samples);
        let window = Window::new(shape);
        Self { params, detector: Detector::new(&params, &window), window, model: Model::new(shape) }
    }

    fn judge(&mut self, time: i64, value: f64) -> Judgement {
        self.detector.judge(&self.params, &mut self.window, self.model.bounds(time), value)
    }

    fn take(&mut self, time: i64, value: f64) -> Judgement {
        let judgement = self.judge(time, value);
        self.detector.observe(&self.params, &mut self.window, time, value);
        self.model.insert(time, value);
        judgement
    }

    /// Takes one value a second; returns the judgement on the last.
    fn take_all(&mut self, values: &[f64]) -> Judgement {
        let start = if self.model.samples.is_empty() { 0 } else { self.model.newest() + SECOND };
        values.iter().enumerate().map(|(i, &value)| self.take(start + i as i64 * SECOND, value)).last().expect("at least one value")
    }
}

fn zscore() -> Series {
    Series::new(Params::default(), WindowKind::Exact, 300, 60, 100_000)
}

fn last_of(params: Params, values: &[f64]) -> Judgement {
    Series::new(params, WindowKind::Exact, 300, 60, 100_000).take_all(values)
}

fn filled(n: usize, value: f64, last: f64) -> Vec<f64> {
    [vec![value; n], vec![last]].concat()
}

#[test]
fn a_constant_window_uses_the_floor() {
    let judgement = zscore().take_all(&filled(10, 50.0, 200.0));
    assert_eq!((judgement.verdict, judgement.stddev, judgement.z_score), (Verdict::Anomaly, 0.0, Some(3000.0)));
    assert!(relative(judgement.lower, 49.85) < 1e-12 && relative(judgement.upper, 50.15) < 1e-12);
    assert_eq!(zscore().take_all(&filled(10, 50.0, 50.0001)).verdict, Verdict::Normal);
    let mut values = filled(10, 50.0, 50.0001);
    values.push(50.1);
    let judgement = zscore().take_all(&values);
    assert_eq!(judgement.verdict, Verdict::Anomaly, "50.0001 is in the window now, which is no longer constant");
    assert!(relative(judgement.stddev, 1e-4 / 11f64.sqrt()) < 1e-9);
    let judgement = zscore().take_all(&filled(10, 0.0, 1e-300));
    assert_eq!(
        (judgement.verdict, judgement.score(), judgement.stddev),
        (Verdict::Anomaly, 1.0, 0.0),
        "any change where both floors are 0"
    );
    assert!(judgement.z_score.unwrap().is_finite());
    assert_eq!(zscore().take_all(&filled(10, 0.0, 0.0)).z_score, Some(0.0));
    assert_eq!(zscore().take_all(&filled(30, 0.1, 0.10025)).verdict, Verdict::Normal, "sums of 0.1 do not round here");
    let rounding: Vec<f64> = (0..20).map(|i| 50.0 + f64::from(i % 2) * 1e-11).chain([50.1]).collect();
    assert_eq!((zscore().take_all(&rounding).verdict, zscore().take_all(&rounding).stddev), (Verdict::Normal, 0.0));
    let tiny: Vec<f64> = (0..20).map(|i| 50.0 + f64::from(i % 2) * 1e-8).chain([50.0001]).collect();
    assert_eq!(zscore().take_all(&tiny).verdict, Verdict::Anomaly, "1e-10 of the magnitude is no rounding");
    let low = zscore().take_all(&filled(10, -50.0, -60.0));
    assert_eq!((low.verdict, low.direction(-60.0)), (Verdict::Anomaly, Side::Low));
}

#[test]
fn a_floor_on_the_standard_deviation_is_only_the_users() {
    let values: Vec<f64> = (0..20).map(|i| 50.0 + f64::from(i % 2) * 0.01).chain([51.0]).collect();
    assert_eq!(last_of(Params::default(), &values).verdict, Verdict::Anomaly);
    let params = Params { detector: DetectorParams::Zscore { threshold: 3.0, rel_floor: 1e-3, min_stddev: 1.0 }, ..Params::default() };
    let judgement = last_of(params, &values);
    assert_eq!(judgement.verdict, Verdict::Normal);
    assert!(judgement.stddev < 0.01 && relative(judgement.upper - judgement.lower, 6.0) < 1e-12, "reported as it is");
}

#[test]
fn too_few_samples_are_not_judged() {
    let judgement = zscore().take_all(&[49.0, 51.0, 49.0, 51.0, 1e9]);
    assert_eq!((judgement.verdict, judgement.count, judgement.score(), judgement.z_score), (Verdict::TooFew, 4, 0.0, None));
    let judgement = zscore().take_all(&[49.0, 51.0, 49.0, 51.0, 50.0, 54.0]);
    assert_eq!((judgement.verdict, judgement.count), (Verdict::Anomaly, 5), "the value is not in its own window");
}

#[test]
fn a_deviation_that_does_not_count_is_normal() {
    let values: Vec<f64> = (0..20).map(|i| 50.0 + f64::from(i % 2)).chain([60.0]).collect();
    let with = |direction, min_deviation| Params { direction, min_deviation, ..Params::default() };
    for (params, verdict) in [
        (with(Direction::High, 0.0), Verdict::Anomaly),
        (with(Direction::Low, 0.0), Verdict::Normal),
        (with(Direction::Both, 9.5), Verdict::Anomaly),
        (with(Direction::Both, 9.6), Verdict::Normal),
    ] {
        let judgement = last_of(params, &values);
        assert_eq!(judgement.verdict, verdict, "{params:?}");
        assert_eq!(judgement.severity(&params), (verdict == Verdict::Anomaly).then_some(Severity::Critical));
        let names: Vec<_> = params.explain(60.0, &judgement, 300.0).checks.into_iter().map(|check| (check.name, check.passed)).collect();
        let filter = names
            .iter()
            .any(|(name, passed)| (name.starts_with("Below") || name.starts_with("Deviation")) && *passed == (verdict == Verdict::Anomaly));
        assert!(filter || params.direction == Direction::High, "{names:?}");
    }
    let low = last_of(with(Direction::Low, 0.0), &values);
    assert!(with(Direction::Low, 0.0).explain(60.0, &low, 300.0).explanation.ends_with(", but only deviations downwards count"));
}

#[test]
fn percentiles_judge_by_the_window_itself() {
    let params = Params::default_of(DetectorKind::Percentile);
    let values: Vec<f64> = (0..200).map(|i| f64::from(i * 37 % 101)).collect();
    let mut series = Series::new(params, WindowKind::Exact, 300, 60, 100_000);
    assert_eq!(series.take_all(&values[..100]).verdict, Verdict::TooFew);
    let judgement = series.take_all(&values[100..]);
    assert_eq!((judgement.verdict, judgement.expected, judgement.z_score), (Verdict::Normal, 50.0, None));
    let upper = series.judge(series.model.newest(), 50.0).upper;
    assert_eq!(series.judge(series.model.newest(), upper).verdict, Verdict::Normal, "the end of the band is inside");
    let far = series.judge(series.model.newest(), 300.0);
    assert_eq!((far.verdict, far.severity(&params)), (Verdict::Anomaly, Some(Severity::Critical)));
    assert!(far.strength > 4.9 && far.strength < 5.2 && far.score() > 0.95);

    let last = |value: f64, last: f64| Series::new(params, WindowKind::Exact, 300, 60, 100_000).take_all(&filled(150, value, last));
    assert_eq!(
        [50.0001, 50.04, 50.06, 49.9].map(|x| last(50.0, x).verdict),
        [Verdict::Normal, Verdict::Normal, Verdict::Anomaly, Verdict::Anomaly]
    );
    assert_eq!((last(0.0, 0.0).verdict, last(0.0, 1e-9).verdict, last(0.0, 1e-9).score()), (Verdict::Normal, Verdict::Anomaly, 1.0));
    assert_eq!(Series::new(params, WindowKind::Panes, 300, 60, 1).take_all(&values).verdict, Verdict::TooFew, "unsupported, but no panic");
}

#[test]
fn words_for_an_anomaly() {
    let judgement = Judgement {
        verdict: Verdict::Anomaly,
        count: 20,
        mean: 54.5,
        stddev: 2.946_898,
        expected: 54.5,
        lower: 45.659_306,
        upper: 63.340_694,
        z_score: Some(13.743_264),
        strength: 13.743_264 / 3.0,
    };
    let params = Params::default();
    let told = params.explain(95.0, &judgement, 300.0);
    assert_eq!(told.summary, "13.7 standard deviations above the last 5 min");
    assert_eq!(told.explanation, "95 is 13.7 standard deviations above the mean 54.5 of the last 20 samples (5 min)");
    let checks: Vec<_> = told.checks.iter().map(|check| (check.name.as_str(), check.passed, check.detail.as_str())).collect();
    let expected = [
        ("Enough samples", true, "20 samples in the 5 min before, needs 5"),
        ("Outside the expected band", true, "95 against 54.5 ± 8.84"),
        ("z at least 3", true, "(95 − 54.5) ÷ 2.947 = 13.7"),
        ("Critical from z 6", true, "4.6 × the threshold"),
    ];
    assert_eq!(checks, expected);
    let warning = params.explain(68.0, &Judgement { z_score: Some(4.58), strength: 1.527, ..judgement }, 300.0);
    assert_eq!((warning.checks[3].passed, warning.checks[3].detail.as_str()), (false, "so it is a warning"));
    let normal = params.explain(55.4, &Judgement { verdict: Verdict::Normal, z_score: Some(0.3), strength: 0.1, ..judgement }, 86_400.0);
    assert_eq!(
        normal.explanation,
        "55.4 is 0.3 standard deviations above the mean 54.5 of the last 20 samples (24 h), within the 3 that are allowed"
    );
    assert_eq!(normal.checks.len(), 3);
    let at = params.explain(54.5, &Judgement { verdict: Verdict::Normal, z_score: Some(0.0), strength: 0.0, ..judgement }, 300.0);
    assert_eq!(
        (at.summary.as_str(), at.explanation.as_str()),
        ("at the mean of the last 5 min", "54.5 is at the mean 54.5 of the last 20 samples (5 min), within the 3 that are allowed")
    );
}

#[test]
fn words_for_constant_windows_and_too_few_samples() {
    let told = |values: &[f64]| {
        let judgement = last_of(Params::default(), values);
        Params::default().explain(*values.last().unwrap(), &judgement, 300.0)
    };
    let constant = told(&filled(10, 50.0, 200.0));
    assert_eq!(constant.explanation, "200 differs from the constant 50 of the last 10 samples (5 min)");
    assert_eq!(constant.summary, "200 after a constant 50 in the last 5 min");
    assert_eq!(
        (constant.checks[1].detail.as_str(), constant.checks[2].detail.as_str()),
        ("200 against 50 ± 0.15", "(200 − 50) ÷ 0.05 = 3e3")
    );
    // 0 has no part that could be allowed; a huge value beside samples that vary is so many times the threshold.
    let zero = told(&filled(10, 0.0, 5.0));
    assert_eq!(
        (zero.checks[2].detail.as_str(), zero.checks[3].detail.as_str()),
        ("any change from the constant 0 counts", "any change of a constant is")
    );
    let huge = told(&[1.0, 2.0, 3.0, 1.0, 2.0, 3.0, 1e250]);
    assert!(huge.checks[3].detail.ends_with("e249 × the threshold"), "{}", huge.checks[3].detail);
    assert_eq!(
        told(&filled(10, 50.0, 50.01)).explanation,
        "50.01 differs from the constant 50 of the last 10 samples (5 min) by 0.01, within the 0.15 that are allowed"
    );
    assert_eq!(told(&filled(10, 50.0, 50.0)).explanation, "50 is the constant 50 of the last 10 samples (5 min)");
    assert_eq!(told(&filled(10, 0.0, 1.0)).checks[2].detail, "any change from the constant 0 counts");
    let few = told(&[1.0, 2.0, 3.0, 9.0]);
    assert_eq!((few.explanation.as_str(), few.checks.len(), few.checks[0].passed), ("3 samples in the 5 min before, needs 5", 1, false));
    assert_eq!(told(&[1.0, 2.0]).summary, "1 sample in the last 5 min, needs 5");

    let params = Params::default_of(DetectorKind::Percentile);
    let values: Vec<f64> = (0..200).map(|i| f64::from(i * 37 % 101)).chain([300.0]).collect();
    let told = params.explain(300.0, &last_of(params, &values), 300.0);
    assert_eq!(told.summary, "above the 99th percentile of the last 5 min");
    assert_eq!(told.explanation, "300 is above 99.01, the 99th percentile of the last 200 samples (5 min); the median is 50");
    assert_eq!(told.checks[1].detail, "300 against 0.99 to 99.01");
    assert_eq!(
        (told.checks[2].name.as_str(), told.checks[2].detail.as_str()),
        ("Critical from 2 × the percentile's distance from the median", "5.1 × the distance")
    );
}

fn percentile_of(sorted: &[f64], percent: f64) -> f64 {
    let position = (sorted.len() - 1) as f64 * (percent / 100.0);
    let (a, b) = (sorted[position.floor() as usize], sorted[position.ceil() as usize]);
    if a == b { a } else { a + position.fract() * (b - a) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn zscore_is_its_formula((span, arrivals) in (20i64..400).prop_flat_map(|span| (Just(span), arrivals(shape(WindowKind::Exact, span, 60, 100_000), -10.0f64..10.0, 1..400)))) {
        let mut series = Series::new(Params::default(), WindowKind::Exact, span, 60, 100_000);
        let mut newest = 0;
        for arrival in arrivals {
            let (time, value) = (newest + arrival.step, arrival.value * if arrival.step % 11 == 0 { 5.0 } else { 1.0 });
            newest = newest.max(time);
            let (count, mean, variance) = oracle(&series.model.within(series.model.bounds(time)));
            let judgement = series.take(time, value);
            prop_assert_eq!(judgement.count, count);
            if count < 5 {
                prop_assert_eq!(judgement.verdict, Verdict::TooFew);
            } else if variance.sqrt() > 1e-9 {
                let z = (value - mean) / variance.sqrt();
                prop_assert!((judgement.z_score.unwrap() - z).abs() < 1e-9 * z.abs().max(1.0));
                prop_assert_eq!(judgement.verdict == Verdict::Anomaly, z.abs() >= 3.0);
                prop_assert!((judgement.score() - (1.0 - libm::exp2(-z.abs() / 3.0))).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn percentiles_are_those_of_the_sorted_window((max, arrivals) in (prop_oneof![Just(100_000u32), 130u32..200], arrivals(shape(WindowKind::Exact, 300, 60, 1), -10.0f64..10.0, 150..700)), every in 20usize..200) {
        let params = Params { detector: DetectorParams::Percentile { low: 5.0, high: 90.0 }, ..Params::default() };
        let mut series = Series::new(params, WindowKind::Exact, 300, 60, max);
        let mut newest = 0;
        for (i, arrival) in arrivals.iter().enumerate() {
            let time = newest + arrival.step.min(30 * SECOND);
            newest = newest.max(time);
            let mut values = series.model.within(series.model.bounds(time));
            values.sort_by(f64::total_cmp);
            let judgement = series.take(time, arrival.value);
            prop_assert_eq!(judgement.count, values.len() as u64);
            if values.len() >= 20 {
                let expected = [5.0, 50.0, 90.0].map(|percent| percentile_of(&values, percent));
                prop_assert_eq!([judgement.lower, judgement.expected, judgement.upper], expected);
                prop_assert_eq!(judgement.verdict == Verdict::Anomaly, arrival.value < expected[0] || arrival.value > expected[2]);
            }
            if i % every == 0 {
                let mut bytes = Vec::new();
                series.detector.encode(&mut bytes);
                series.window = after_decode(&series.window, series.model.shape);
                series.detector = Detector::decode(&params, &series.window, &mut &bytes[..]).unwrap();
            }
        }
    }

    #[test]
    fn every_number_of_a_judgement_is_finite(percentile in any::<bool>(), panes in any::<bool>(), values in prop::collection::vec(prop_oneof![Just(f64::MAX), Just(f64::MIN), Just(0.0), Just(5e-324), any::<f64>().prop_filter("finite", |x| x.is_finite())], 1..200)) {
        let detector = if percentile { DetectorParams::Percentile { low: 10.0, high: 90.0 } } else { DetectorParams::Zscore { threshold: 1e-3, rel_floor: 1e300, min_stddev: 0.0 } };
        let params = Params { detector, ..Params::default() };
        let kind = if panes && !percentile { WindowKind::Panes } else { WindowKind::Exact };
        let mut series = Series::new(params, kind, 100, 0, 100_000);
        for (i, &value) in values.iter().enumerate() {
            let j = series.take(i as i64 * SECOND, value);
            let numbers = [j.mean, j.stddev, j.expected, j.lower, j.upper, j.z_score.unwrap_or(0.0), j.strength, j.score()];
            prop_assert!(numbers.iter().all(|x| x.is_finite()), "{j:?}");
            prop_assert!((0.0..=1.0).contains(&j.score()) && j.lower <= j.expected && j.expected <= j.upper, "{j:?}");
            let told = params.explain(value, &j, 300.0);
            prop_assert!(!told.explanation.contains("inf") && !told.explanation.contains("NaN"), "{told:?}");
        }
    }
}

#[test]
fn many_spikes_do_not_hide_what_comes_between() {
    let mut state = 7u64;
    let mut calm = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        50.0 + ((state >> 33) as f64 / f64::from(1u32 << 31) - 0.5) * 3.4
    };
    for kind in [WindowKind::Exact, WindowKind::Panes] {
        let mut series = Series::new(Params::default(), kind, 300, 60, 100_000);
        for power in 3..16 {
            let values: Vec<f64> = (0..310).map(|_| calm()).collect();
            series.take_all(&values);
            let (_, mean, variance) = oracle(
                &series
                    .model
                    .within(Bounds { upto: series.model.newest() + SECOND, ..series.model.bounds(series.model.newest() + SECOND) }),
            );
            let judgement = series.take_all(&[57.0 + f64::from(power) / 10.0]);
            let z = (57.0 + f64::from(power) / 10.0 - mean) / variance.sqrt();
            assert!(
                judgement.verdict == Verdict::Anomaly
                    && relative(judgement.z_score.unwrap(), z) < if kind == WindowKind::Exact { 1e-9 } else { 1e-6 }
            );
            series.take_all(&[10f64.powi(power)]);
            let after: Vec<f64> = (0..310).map(|_| calm()).collect();
            series.take_all(&after);
        }
    }
}

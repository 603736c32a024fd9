//! Windows against a sorted list.

mod common;

use anomaly_detect::{Bounds, Window, WindowKind, WindowShape};
use common::{Arrival, Model, SECOND, after_decode, arrivals, oracle, relative, shape};
use proptest::prelude::*;

const ALL: Bounds = Bounds { after: i64::MIN, upto: i64::MAX };

/// The variance's error that panes add.
const PANES_ERROR: f64 = 5e-6;

fn shapes() -> impl Strategy<Value = WindowShape> {
    let kind = prop_oneof![3 => Just(WindowKind::Exact), 2 => Just(WindowKind::Panes)];
    let max = prop_oneof![3 => Just(100_000u32), 1 => 1u32..120];
    (kind, 1i64..400, 0i64..200, max).prop_map(|(kind, span, lateness, max)| shape(kind, span, lateness, max))
}

fn shape_and_arrivals() -> impl Strategy<Value = (WindowShape, Vec<Arrival>)> {
    shapes().prop_flat_map(|shape| arrivals(shape, -10.0f64..10.0, 1..700).prop_map(move |arrivals| (shape, arrivals)))
}

fn agrees(model: &Model, bounds: Bounds, window: &mut Window, what: &str) -> Result<(), TestCaseError> {
    let (count, mean, variance) = oracle(&model.within(bounds));
    let tolerance = if model.shape.kind == WindowKind::Panes { PANES_ERROR } else { 1e-12 };
    for moments in [window.peek(bounds), window.moments(bounds)] {
        prop_assert_eq!(moments.count(), count, "{}", what);
        prop_assert!((moments.mean() - mean).abs() <= 1e-12, "{}: mean {} not {}", what, moments.mean(), mean);
        prop_assert!(relative(moments.variance(), variance) <= tolerance, "{}: variance {} not {}", what, moments.variance(), variance);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn windows_equal_the_sorted_list_in_order_and_late((shape, arrivals) in shape_and_arrivals(), peeks in prop::collection::vec(0.0f64..1.0, 8)) {
        let (mut window, mut model) = (Window::new(shape), Model::new(shape));
        let mut newest = 1000 * SECOND;
        for (i, arrival) in arrivals.iter().enumerate() {
            let time = newest + arrival.step;
            newest = newest.max(time);
            // An event in order may be judged ahead of its insertion; a late one within the lateness.
            agrees(&model, model.bounds(time), &mut window, "before")?;
            window.insert(time, arrival.value);
            model.insert(time, arrival.value);
            prop_assert_eq!(window.newest(), Some(model.newest()));
            if i % 50 == 49 {
                for peek in &peeks {
                    let upto = newest - (peek * shape.lateness as f64) as i64;
                    agrees(&model, model.bounds(upto), &mut window, "peek")?;
                }
                let bounds = model.bounds(newest);
                if shape.kind == WindowKind::Exact {
                    let mut seen = Vec::new();
                    prop_assert!(window.for_each(bounds, |_, value| seen.push(value)));
                    prop_assert_eq!(seen, model.within(bounds));
                    prop_assert_eq!(window.is_truncated(bounds), model.cut.iter().any(|&time| bounds.holds(time)));
                    prop_assert!(window.len() <= shape.max_samples as usize);
                } else {
                    prop_assert!(!window.for_each(bounds, |_, _| unreachable!()) && !window.is_truncated(bounds));
                }
            }
        }
    }

    #[test]
    fn a_checkpoint_at_any_moment_leaves_every_later_bit((shape, arrivals) in shape_and_arrivals(), every in 1usize..60) {
        let (mut window, mut restored) = (Window::new(shape), Window::new(shape));
        let mut newest = 1000 * SECOND;
        for (i, arrival) in arrivals.iter().enumerate() {
            if i % every == 0 {
                restored = after_decode(&restored, shape);
            }
            let time = newest + arrival.step;
            newest = newest.max(time);
            let bounds = Bounds { after: time - shape.span, upto: time };
            let (a, b) = (window.moments(bounds), restored.moments(bounds));
            prop_assert_eq!((a.count(), a.mean().to_bits(), a.stddev().to_bits()), (b.count(), b.mean().to_bits(), b.stddev().to_bits()));
            let late = Bounds { after: bounds.after - shape.lateness, upto: newest - shape.lateness };
            prop_assert_eq!(window.peek(late), restored.peek(late));
            prop_assert_eq!(window.insert(time, arrival.value), restored.insert(time, arrival.value));
        }
        let (mut a, mut b) = (Vec::new(), Vec::new());
        window.encode(&mut a);
        restored.encode(&mut b);
        prop_assert_eq!(a, b);
    }

    #[test]
    fn damaged_states_are_refused_or_harmless((shape, arrivals) in shape_and_arrivals(), at in any::<prop::sample::Index>(), flip in 1u8..) {
        let mut window = Window::new(shape);
        let mut newest = 0;
        for arrival in &arrivals {
            newest = (newest + arrival.step).max(newest);
            window.insert(newest, arrival.value);
        }
        let mut bytes = Vec::new();
        window.encode(&mut bytes);
        let at = at.index(bytes.len());
        prop_assert!(Window::decode(shape, &mut &bytes[..at]).is_err(), "cut");
        bytes[at] ^= flip;
        let _ = Window::decode(shape, &mut &bytes[..]);
    }

    #[test]
    fn arrival_out_of_order_leaves_the_window_of_arrival_in_order(kind in prop_oneof![Just(WindowKind::Exact), Just(WindowKind::Panes)], values in prop::collection::vec(-10.0f64..10.0, 2..800), jitter in prop::collection::vec(0i64..30, 800)) {
        let shape = shape(kind, 300, 60, 100_000);
        let (mut sorted, mut shuffled) = (Window::new(shape), Window::new(shape));
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.iter().for_each(|&i| { sorted.insert(i as i64 * SECOND, values[i]); });
        order.sort_by_key(|&i| i as i64 + jitter[i]);
        order.iter().for_each(|&i| { prop_assert_insert(shuffled.insert(i as i64 * SECOND, values[i])); });
        let upto = (values.len() as i64 - 1) * SECOND;
        let bounds = Bounds { after: upto - shape.span, upto };
        let (a, b) = (sorted.moments(bounds), shuffled.moments(bounds));
        prop_assert_eq!(a.count(), b.count());
        prop_assert!((a.mean() - b.mean()).abs() < 1e-12 && relative(a.variance(), b.variance()) < PANES_ERROR);
        let (mut x, mut y) = (Vec::new(), Vec::new());
        sorted.for_each(bounds, |time, value| x.push((time, value)));
        shuffled.for_each(bounds, |time, value| y.push((time, value)));
        prop_assert_eq!(x, y);
    }

    #[test]
    fn a_spike_that_has_passed_leaves_no_trace(kind in prop_oneof![Just(WindowKind::Exact), Just(WindowKind::Panes)], power in 0i32..=15, sign in any::<bool>(), at in 0usize..700, values in prop::collection::vec(-2.0f64..2.0, 1500)) {
        let shape = shape(kind, 300, 60, 100_000);
        let (mut window, mut model) = (Window::new(shape), Model::new(shape));
        let tolerance = if kind == WindowKind::Panes { 2e-6 } else { 1e-9 };
        let spike = 10f64.powi(power) * if sign { 1.0 } else { -1.0 };
        for (i, &value) in values.iter().enumerate() {
            let time = i as i64 * SECOND;
            let bounds = model.bounds(time);
            let moments = window.moments(bounds);
            if i > at && i.is_multiple_of(7) || i == at + 301 {
                let (_, mean, variance) = oracle(&model.within(bounds));
                prop_assert!(relative(moments.variance(), variance) <= tolerance, "{} not {variance}, {} after {spike}", moments.variance(), i - at);
                prop_assert!(i <= at + 301 || (moments.mean() - mean).abs() < 1e-12);
            }
            window.insert(time, if i == at { spike } else { value });
            model.insert(time, if i == at { spike } else { value });
            model.samples.drain(..model.samples.len().saturating_sub(400));
        }
    }

    #[test]
    fn no_finite_value_makes_a_result_that_is_not((shape, arrivals) in shapes().prop_flat_map(|shape| (Just(shape), arrivals(shape, extremes(), 1..300)))) {
        let mut window = Window::new(shape);
        let mut newest = 0;
        for arrival in &arrivals {
            let time = newest + arrival.step;
            newest = newest.max(time);
            let moments = window.moments(Bounds { after: time - shape.span, upto: time });
            prop_assert!(moments.mean().is_finite() && moments.stddev().is_finite() && moments.variance().is_finite(), "{moments:?}");
            prop_assert!(moments.stddev() >= 0.0);
            window.insert(time, arrival.value);
        }
    }

    #[test]
    fn the_spread_scales_over_the_whole_range_and_ignores_shifts(kind in prop_oneof![Just(WindowKind::Exact), Just(WindowKind::Panes)], power in -300i32..300, values in prop::collection::vec(1.0f64..9.0, 40..400)) {
        let shape = shape(kind, 300, 60, 100_000);
        let factor = 10f64.powi(power);
        let [mut plain, mut scaled, mut shifted] = [0; 3].map(|_| Window::new(shape));
        for (i, &value) in values.iter().enumerate() {
            let bounds = Bounds { after: i as i64 * SECOND - shape.span, upto: i as i64 * SECOND };
            let [a, b, c] = [&mut plain, &mut scaled, &mut shifted].map(|window| window.moments(bounds));
            prop_assert!(relative(a.stddev() * factor, b.stddev()) < 1e-6 && relative(a.mean() * factor, b.mean()) < 1e-12, "{} {}", b.stddev(), b.mean());
            prop_assert!(relative(a.variance(), c.variance()) < PANES_ERROR || i < 2);
            plain.insert(bounds.upto, value);
            scaled.insert(bounds.upto, value * factor);
            shifted.insert(bounds.upto, value + 1000.0);
        }
    }

    #[test]
    fn exact_takes_at_most_34_bytes_a_sample_from_300_on(jitter in prop::collection::vec(0i64..60, 1500), late in any::<bool>()) {
        let shape = shape(WindowKind::Exact, 300, 60, 100_000);
        let mut window = Window::new(shape);
        let mut order: Vec<usize> = (0..jitter.len()).collect();
        order.sort_by_key(|&i| i as i64 + if late { jitter[i] } else { 0 });
        let mut newest = 0;
        for i in order {
            newest = newest.max(i as i64 * SECOND);
            window.moments(Bounds { after: newest - shape.span, upto: newest });
            window.insert(i as i64 * SECOND, 1.0);
            let mut retained = 0;
            window.for_each(Bounds { after: newest - shape.span - shape.lateness, upto: newest }, |_, _| retained += 1);
            if retained >= 300 {
                let bytes = window.heap_bytes() + size_of::<Window>();
                prop_assert!(bytes <= 34 * retained, "{bytes} for {retained}");
            }
        }
    }
}

fn prop_assert_insert(taken: bool) {
    assert!(taken, "within the lateness");
}

fn extremes() -> impl Strategy<Value = f64> {
    prop_oneof![
        Just(f64::MAX),
        Just(f64::MIN),
        Just(0.0),
        Just(-0.0),
        Just(5e-324),
        Just(1.0),
        -1.0f64..1.0,
        (any::<f64>()).prop_filter("finite", |x| x.is_finite()),
    ]
}

/// N(0, 1), nearly: the sum of twelve uniform numbers.
fn noise(state: &mut u64) -> f64 {
    (0..12).fold(-6.0, |sum, _| {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        sum + (*state >> 11) as f64 / (1u64 << 53) as f64
    })
}

#[test]
fn noise_on_1e9_stays_exact_over_ten_million_updates() {
    for (kind, tolerance) in [(WindowKind::Exact, 1e-6), (WindowKind::Panes, 2e-6)] {
        let shape = shape(kind, 300, 60, 100_000);
        let (mut window, mut state, mut worst) = (Window::new(shape), 1u64, 0.0f64);
        let table: Vec<f64> = (0..100_003).map(|_| 1e9 + noise(&mut state)).collect();
        for i in 0..10_000_000usize {
            let bounds = Bounds { after: (i as i64 - 300) * SECOND, upto: i as i64 * SECOND };
            let moments = window.moments(bounds);
            if i % 9973 == 9972 {
                // Panes of 5 s: the window holds those from the next multiple of 5 on.
                let first = if kind == WindowKind::Panes { (i - 300) / 5 * 5 + 5 } else { i - 299 };
                let values: Vec<f64> = (first..i).map(|j| table[j % table.len()]).collect();
                let (count, _, variance) = oracle(&values);
                assert_eq!(moments.count(), count);
                worst = worst.max(relative(moments.variance(), variance));
            }
            window.insert(bounds.upto, table[i % table.len()]);
        }
        assert!(worst <= tolerance, "{kind:?}: {worst}");
    }
}

#[test]
fn memory_is_bounded_where_it_is_promised() {
    for kind in [WindowKind::Exact, WindowKind::Panes] {
        let mut window = Window::new(shape(kind, 300, 60, 100_000));
        assert_eq!(window.heap_bytes(), 0);
        window.insert(SECOND, 1.0);
        assert!(window.heap_bytes() <= 136, "{kind:?}: {} B for one sample", window.heap_bytes());
    }
    assert!(size_of::<Window>() <= 176, "{}", size_of::<Window>());
    for lateness in [0, 1, 30, 60] {
        let shape = shape(WindowKind::Panes, 300, lateness, 1);
        let mut window = Window::new(shape);
        for i in 0..20_000i64 {
            let time = i * SECOND / 3 - if i % 7 == 0 { lateness * SECOND } else { 0 };
            window.moments(Bounds { after: time - shape.span, upto: time });
            window.insert(time, i as f64);
            assert!(window.heap_bytes() <= 1280, "{} B", window.heap_bytes());
        }
    }
}

#[test]
fn what_max_samples_cut_is_told() {
    let mut window = Window::new(shape(WindowKind::Exact, 100, 10, 50));
    for i in 0..80 {
        window.insert(i * SECOND, i as f64);
    }
    let bounds = |after: i64, upto: i64| Bounds { after: after * SECOND, upto: upto * SECOND };
    assert_eq!((window.len(), window.moments(ALL).count()), (50, 50));
    assert!(window.is_truncated(bounds(-20, 79)) && window.is_truncated(bounds(28, 79)), "sample 29 is cut");
    assert!(!window.is_truncated(bounds(29, 79)), "samples from 30 on are all there");
    assert!(!window.insert(29 * SECOND + 1, 0.0), "older than everything that is kept");
    assert!(window.is_truncated(bounds(29, 79)));
    assert!(window.insert(30 * SECOND, 0.5), "behind the oldest, which goes");
    assert_eq!(window.len(), 50);
    let mut first = None;
    window.for_each(ALL, |time, value| first = first.or(Some((time, value))));
    assert_eq!(first, Some((30 * SECOND, 0.5)));
}

#[test]
fn another_shape_keeps_the_samples() {
    let old = shape(WindowKind::Exact, 300, 60, 100_000);
    let mut window = Window::new(old);
    for i in 0..300 {
        let bounds = Bounds { after: i * SECOND - old.span, upto: i * SECOND };
        window.moments(bounds);
        window.insert(i * SECOND, (i % 7) as f64);
    }
    let narrow = shape(WindowKind::Exact, 100, 10, 40);
    let wide = shape(WindowKind::Exact, 600, 60, 100_000);
    let panes = shape(WindowKind::Panes, 300, 60, 100_000);
    let last = |n: i64| Bounds { after: (299 - n) * SECOND, upto: 299 * SECOND };
    for (shape, n) in [(wide, 300), (panes, 300), (narrow, 40)] {
        let mut other = window.clone();
        other.reshape(shape);
        assert_eq!(other.moments(last(shape.span / SECOND)).count(), n, "{shape:?}");
        assert_eq!(after_decode(&other, shape).moments(last(shape.span / SECOND)), other.moments(last(shape.span / SECOND)));
    }
    window.reshape(panes);
    window.reshape(shape(WindowKind::Panes, 300, 120, 1));
    let kept = window.moments(last(300)).count();
    assert!((60..=300).contains(&kept), "{kept}");
    window.reshape(old);
    assert!(window.is_empty());
}

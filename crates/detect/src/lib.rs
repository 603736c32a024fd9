//! Numbers in, scores out: windows, statistics, detectors.
//!
//! For each series there is a [`Window`] and a [`Detector`]. For each event, in the order of arrival, the detector
//! [judges][Detector::judge] the value by the samples of the window that lie in the event's [`Bounds`], then
//! [takes it in][Detector::observe]. [`Params::explain`] puts the [`Judgement`] into words.
//!
//! ```
//! use anomaly_detect::{Bounds, Detector, Params, Verdict, Window, WindowKind, WindowShape};
//!
//! const SECOND: i64 = 1_000_000_000;
//! let shape = WindowShape { kind: WindowKind::Exact, span: 300 * SECOND, lateness: 60 * SECOND, max_samples: 100_000 };
//! let params = Params::default();
//! let mut window = Window::new(shape);
//! let mut detector = Detector::new(&params, &window);
//! let mut last = Verdict::TooFew;
//! for (i, value) in [52.0, 56.0, 53.0, 57.0, 54.0, 95.0].into_iter().enumerate() {
//!     let time = i as i64 * SECOND;
//!     let judgement = detector.judge(&params, &mut window, Bounds { after: time - shape.span, upto: time }, value);
//!     detector.observe(&params, &mut window, time, value);
//!     last = judgement.verdict;
//! }
//! assert_eq!(last, Verdict::Anomaly);
//! ```
//!
//! - Nothing is ever subtracted from a sum, so no value poisons what comes after it ([`Moments`]).
//! - Any finite number is legal; no result is NaN or infinite.
//! - The same calls give the same bits on every machine, wherever states are encoded and decoded between them.
//! - Data never make it fail; only parameters are refused ([`ParamError`]) and damaged states ([`DecodeError`]).
//!
//! It must not know: metric names, clocks, I/O, async. Time is an i64 in nanoseconds, and an argument.

mod codec;
mod detector;
mod explanation;
mod judgement;
mod params;
mod stat;
pub mod text;
mod window;

pub use codec::DecodeError;
pub use detector::Detector;
pub use explanation::{Check, Explanation};
pub use judgement::{Judgement, Severity, Side, Verdict};
pub use params::{DetectorKind, DetectorParams, Direction, ParamError, Params};
pub use stat::Moments;
pub use window::{Bounds, Window, WindowKind, WindowShape};

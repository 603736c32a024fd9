//! Randomness as a function: a hash of the seed and of what it is for, so that no order of calls matters.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A number in [0, 1) that depends on the seed and the two others alone.
pub(super) fn unit(seed: u64, what: u64, nth: i64) -> f64 {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&what.to_le_bytes());
    bytes[8..].copy_from_slice(&nth.to_le_bytes());
    // 53 bits are what an f64 holds.
    (xxh3_64_with_seed(&bytes, seed) >> 11) as f64 / (1_u64 << 53) as f64
}

/// Noise of mean 0 and standard deviation 1: the sum of six uniform numbers, nearly normal, and never beyond 4.25, so that
/// noise alone fires no demo.
pub(super) fn noise(seed: u64, series: usize, at: i64) -> f64 {
    const TERMS: u64 = 6;
    let sum: f64 = (0..TERMS).map(|term| unit(seed, (series as u64) << 8 | term, at)).sum();
    (sum - TERMS as f64 / 2.0) * (12.0 / TERMS as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_has_mean_0_deviation_1_and_an_end() {
        let values: Vec<f64> = (0..20_000).map(|at| noise(1, 4, at)).collect();
        let mean = values.iter().sum::<f64>() / 20_000.0;
        let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 20_000.0;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
        assert!(values.iter().all(|x| x.abs() < 4.25));
    }

    #[test]
    fn what_differs_in_seed_purpose_or_number_differs() {
        let numbers = [unit(1, 1, 1), unit(2, 1, 1), unit(1, 2, 1), unit(1, 1, 2)];
        assert!(numbers.iter().enumerate().all(|(i, x)| (0.0..1.0).contains(x) && !numbers[..i].contains(x)));
    }
}

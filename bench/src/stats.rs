//! Exact percentiles: a run has at most a few million samples, so they are simply kept and sorted.

use std::time::Duration;

/// Durations of one kind within one run.
#[derive(Default)]
pub(crate) struct Samples {
    nanos: Vec<u64>,
    sorted: bool,
}

impl Samples {
    pub(crate) fn push(&mut self, sample: Duration) {
        self.push_nanos(u64::try_from(sample.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(crate) fn push_nanos(&mut self, nanos: u64) {
        self.nanos.push(nanos);
        self.sorted = false;
    }

    pub(crate) fn append(&mut self, mut other: Self) {
        self.nanos.append(&mut other.nanos);
        self.sorted = false;
    }

    /// The smallest sample that at least `percent` of all samples do not exceed (nearest rank), in
    /// milliseconds. Not a number when there are no samples.
    pub(crate) fn percentile_ms(&mut self, percent: f64) -> f64 {
        if !self.sorted {
            self.nanos.sort_unstable();
            self.sorted = true;
        }
        let count = self.nanos.len();
        // Half a millionth of a sample forgives that 99.9 is not exact in binary.
        let rank = (percent / 100.0 * count as f64 - 5e-7).ceil().max(1.0) as usize;
        self.nanos
            .get(rank.min(count).wrapping_sub(1))
            .map_or(f64::NAN, |&nanos| nanos as f64 / 1e6)
    }

    pub(crate) fn max_ms(&mut self) -> f64 {
        self.percentile_ms(100.0)
    }
}

/// Median, smallest and largest of a figure over the runs.
pub(crate) fn median_of(values: &[f64]) -> (f64, f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let median = match sorted.len() {
        0 => return (f64::NAN, f64::NAN, f64::NAN),
        even if even % 2 == 0 => f64::midpoint(sorted[middle - 1], sorted[middle]),
        _ => sorted[middle],
    };
    (median, sorted[0], sorted[sorted.len() - 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples_by_nearest_rank() {
        let mut samples = Samples::default();
        for millis in (1..=1000).rev() {
            samples.push(Duration::from_millis(millis));
        }
        let percentiles = [50.0, 90.0, 99.0, 99.9].map(|percent| samples.percentile_ms(percent));
        assert_eq!(percentiles, [500.0, 900.0, 990.0, 999.0]);
        assert_eq!(samples.max_ms(), 1000.0);
    }

    #[test]
    fn samples_pushed_after_a_look_count_too() {
        let mut samples = Samples::default();
        samples.push(Duration::from_millis(2));
        assert_eq!(samples.max_ms(), 2.0);
        let mut more = Samples::default();
        more.push(Duration::from_millis(1));
        samples.append(more);
        assert_eq!((samples.percentile_ms(50.0), samples.max_ms()), (1.0, 2.0));
    }

    #[test]
    fn no_samples_have_no_percentile() {
        assert!(Samples::default().percentile_ms(50.0).is_nan());
    }

    #[test]
    fn the_median_of_runs_comes_with_its_range() {
        assert_eq!(median_of(&[3.0, 1.0, 2.0]), (2.0, 1.0, 3.0));
        assert_eq!(median_of(&[4.0, 1.0]), (2.5, 1.0, 4.0));
    }
}

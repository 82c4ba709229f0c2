//! Prints every run and, at the end, the median of all runs with its range.

use crate::stats::{Samples, median_of};

/// The figures of one run, in the order in which they are printed.
#[derive(Default)]
pub(crate) struct Figures(Vec<Figure>);

struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
}

impl Figures {
    pub(crate) fn add(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        self.0.push(Figure { name: name.into(), value, unit });
    }

    /// The given percentiles and the largest sample.
    pub(crate) fn add_latency(&mut self, name: &str, samples: &mut Samples, percents: &[f64]) {
        for &percent in percents {
            self.add(format!("{name} p{percent}"), samples.percentile_ms(percent), "ms");
        }
        self.add(format!("{name} max"), samples.max_ms(), "ms");
    }

    pub(crate) fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }
}

/// All runs of one command.
#[derive(Default)]
pub(crate) struct Report(Vec<Figures>);

impl Report {
    pub(crate) fn add(&mut self, figures: Figures) {
        self.0.push(figures);
        println!("run {}", self.0.len());
        for Figure { name, value, unit } in &self.0[self.0.len() - 1].0 {
            println!("  {name:<44} {:>12} {unit}", number(*value));
        }
    }

    pub(crate) fn print_median(&self) {
        println!("median of {} runs (min–max)", self.0.len());
        let first = self.0.first().map_or(&[][..], |figures| &figures.0);
        for (place, Figure { name, unit, .. }) in first.iter().enumerate() {
            let values: Vec<f64> =
                self.0.iter().filter_map(|run| Some(run.0.get(place)?.value)).collect();
            let (median, min, max) = median_of(&values);
            let range = format!("({}–{})", number(min), number(max));
            println!("  {name:<44} {:>12} {unit:<12} {range}", number(median));
        }
    }
}

/// Three significant digits at least, and no more decimals than that needs.
fn number(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 || large == 0.0 => format!("{value:.0}"),
        medium if medium >= 10.0 => format!("{value:.1}"),
        small if small >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_three_digits() {
        assert_eq!(
            [0.0, 41234.4, 12.34, 1.234, 0.0123].map(number),
            ["0", "41234", "12.3", "1.23", "0.012"]
        );
    }
}

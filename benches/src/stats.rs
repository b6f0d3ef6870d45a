//! What a row of numbers says: its median and its spread.

use serde::Serialize;

/// A row of measurements in five numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Half of the measurements are at most this.
    pub median: f64,
    /// A quarter of them are at most this.
    pub first_quartile: f64,
    /// Three quarters of them are at most this.
    pub third_quartile: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Summary {
    /// Sums up `values`; `None` when there are none.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        Some(Self {
            median: quantile(&sorted, 1, 2)?,
            first_quartile: quantile(&sorted, 1, 4)?,
            third_quartile: quantile(&sorted, 3, 4)?,
            min: *sorted.first()?,
            max: *sorted.last()?,
        })
    }
}

/// Divides round by round, so that a slow moment of the machine, which hits neighbours alike, cancels out.
///
/// # Panics
/// When the rows differ in length: they are then not of the same rounds.
#[must_use]
pub fn ratios(values: &[f64], base: &[f64]) -> Vec<f64> {
    assert_eq!(values.len(), base.len(), "ratios need both sides of each round");
    values.iter().zip(base).map(|(value, base)| value / base).collect()
}

/// The value `part / of` of the way through `sorted`, between two neighbours in proportion.
fn quantile(sorted: &[f64], part: usize, of: usize) -> Option<f64> {
    let steps = sorted.len().checked_sub(1)? * part;
    let (low, rest) = (steps / of, steps % of);
    let below = sorted[low];
    let above = *sorted.get(low + 1).unwrap_or(&below);
    let weight = f64::from(u32::try_from(rest).ok()?) / f64::from(u32::try_from(of).ok()?);
    Some(below + (above - below) * weight)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_has_no_summary() {
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn one_value_is_its_own_summary() {
        let summary = Summary::of(&[7.0]).unwrap();
        assert_eq!(
            summary,
            Summary { median: 7.0, first_quartile: 7.0, third_quartile: 7.0, min: 7.0, max: 7.0 }
        );
    }

    #[test]
    fn quartiles_lie_between_neighbours_in_proportion() {
        let summary = Summary::of(&[4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!((summary.first_quartile, summary.median, summary.third_quartile), (1.75, 2.5, 3.25));
        assert_eq!((summary.min, summary.max), (1.0, 4.0));
        let odd = Summary::of(&[50.0, 10.0, 40.0, 20.0, 30.0]).unwrap();
        assert_eq!((odd.first_quartile, odd.median, odd.third_quartile), (20.0, 30.0, 40.0));
    }

    #[test]
    fn one_slow_round_moves_neither_median_nor_ratio() {
        // The machine is ten times slower in the third round, for both.
        let fast = [10.0, 10.0, 100.0, 10.0, 10.0];
        let slow = [20.0, 20.0, 200.0, 20.0, 20.0];
        assert_eq!(ratios(&slow, &fast), [2.0; 5]);
        assert_eq!(Summary::of(&slow).unwrap().median, 20.0);
    }

    #[test]
    #[should_panic(expected = "both sides of each round")]
    fn ratios_of_unequal_rows_are_refused() {
        let _ = ratios(&[1.0, 2.0], &[1.0]);
    }
}

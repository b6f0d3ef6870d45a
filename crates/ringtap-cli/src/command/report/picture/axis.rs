//! From times to places in a picture.

/// Times from left to right.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) left: f64,
    pub(super) width: f64,
}

impl Axis {
    /// Where a time lies.
    pub(super) fn x(&self, time: u64) -> f64 {
        let span = self.last.saturating_sub(self.first).max(1);
        let at = time.clamp(self.first, self.last) - self.first;
        #[expect(clippy::cast_precision_loss, reason = "a picture has fewer places")]
        let share = at as f64 / span as f64;
        self.left + share * self.width
    }

    /// Round times with their labels, about `count` of them.
    pub(super) fn ticks(&self, count: u64) -> Vec<(u64, String)> {
        let span = self.last.saturating_sub(self.first).max(1);
        let steps = (0..19).flat_map(|power| [1, 2, 5].map(|digit| digit * 10u64.pow(power)));
        let step = steps.into_iter().find(|step| span / step <= count).unwrap_or(span);
        let (unit, name) = match step {
            1_000_000_000.. => (1_000_000_000, "s"),
            1_000_000.. => (1_000_000, "ms"),
            1_000.. => (1_000, "µs"),
            _ => (1, "ns"),
        };
        (0..=span / step)
            .map(|tick| (self.first + tick * step, format!("{} {name}", tick * step / unit)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        for span in [1, 7, 999, 12_345, 5_000_000, 3_600_000_000_000, u64::MAX / 2] {
            let axis = Axis { first: 1000, last: 1000 + span, left: 10.0, width: 100.0 };
            let ticks = axis.ticks(10);
            assert!((1..=11).contains(&ticks.len()), "{span}: {ticks:?}");
            assert!((axis.x(1000) - 10.0).abs() < 1e-9 && (axis.x(1000 + span) - 110.0).abs() < 1e-9);
        }
    }
}

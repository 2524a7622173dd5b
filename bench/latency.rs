//! Latencies: recorded in nanoseconds, reported as percentiles, saved as the `.hgrm` text that
//! HdrHistogram's tools plot.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::time::Duration;

/// The greatest latency that is told apart, nanoseconds: an hour.
const GREATEST_NANOS: u64 = 3_600_000_000_000;

/// Significant decimal digits.
const DIGITS: u8 = 3;

/// Percentile lines per halving of the distance to 100 %.
const TICKS_PER_HALF: u32 = 5;

/// Counted latencies.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

/// What a table shows of latencies, microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// Half are at most this.
    pub p50: f64,
    /// Nine in ten.
    #[serde(default)]
    pub p90: f64,
    /// 99 in 100.
    pub p99: f64,
    /// 999 in 1 000.
    pub p999: f64,
    /// All.
    pub max: f64,
}

/// Latencies on their way between processes: nanoseconds, and how often each was counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts(Vec<(u64, u64)>);

impl Latencies {
    /// None yet.
    pub fn new() -> Self {
        Latencies(Histogram::new_with_bounds(1, GREATEST_NANOS, DIGITS).expect("these bounds are valid"))
    }

    /// Counts one.
    pub fn record(&mut self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.0.saturating_record(nanos.max(1));
    }

    /// Counts all of another run.
    pub fn merge(&mut self, counts: &Counts) {
        for (nanos, count) in &counts.0 {
            self.0.saturating_record_n(*nanos, *count);
        }
    }

    /// How often each latency was counted.
    pub fn counts(&self) -> Counts {
        let counted = self.0.iter_recorded();
        Counts(
            counted
                .map(|step| (step.value_iterated_to(), step.count_at_value()))
                .collect(),
        )
    }

    /// What a table shows of them.
    pub fn percentiles(&self) -> Percentiles {
        let micros = |nanos: u64| nanos as f64 / 1e3;
        let at = |quantile| micros(self.0.value_at_quantile(quantile));
        Percentiles {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: micros(self.0.max()),
        }
    }

    /// The percentile distribution in milliseconds, in HdrHistogram's text format.
    pub fn hgrm(&self) -> String {
        let millis = |nanos: f64| nanos / 1e6;
        let mut text = String::from("       Value     Percentile TotalCount 1/(1-Percentile)\n\n");
        let mut below = 0;
        for step in self.0.iter_quantiles(TICKS_PER_HALF) {
            let quantile = step.quantile_iterated_to();
            let value = millis(step.value_iterated_to() as f64);
            below += step.count_since_last_iteration();
            // Writing to a String cannot fail.
            let _ = write!(text, "{value:12.3} {quantile:2.12} {below:10}");
            let _ = if quantile < 1.0 {
                writeln!(text, " {:14.2}", 1.0 / (1.0 - quantile))
            } else {
                writeln!(text)
            };
        }
        let (mean, deviation, max) = (
            millis(self.0.mean()),
            millis(self.0.stdev()),
            millis(self.0.max() as f64),
        );
        let _ = writeln!(
            text,
            "#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]"
        );
        let _ = writeln!(
            text,
            "#[Max     = {max:12.3}, Total count    = {:12}]",
            self.0.len()
        );
        let _ = writeln!(
            text,
            "#[Buckets = {:12}, SubBuckets     = {:12}]",
            self.0.buckets(),
            2_048
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_all_that_was_recorded() {
        let mut latencies = Latencies::new();
        (1..=1_000).for_each(|micros| latencies.record(Duration::from_micros(micros)));
        let percentiles = latencies.percentiles();
        for (value, expected) in [
            (percentiles.p50, 500.0),
            (percentiles.p99, 990.0),
            (percentiles.max, 1_000.0),
        ] {
            assert!(
                (value - expected).abs() <= expected / 500.0,
                "{value} is not {expected}"
            );
        }
    }

    #[test]
    fn counts_carry_everything_to_another_process() {
        let mut latencies = Latencies::new();
        (1..=1_000).for_each(|micros| latencies.record(Duration::from_micros(micros)));
        let mut merged = Latencies::new();
        merged.merge(&latencies.counts());
        assert_eq!(merged.percentiles(), latencies.percentiles());
    }

    #[test]
    fn hgrm_ends_at_the_maximum_with_all_counted() {
        let mut latencies = Latencies::new();
        (1..=100).for_each(|millis| latencies.record(Duration::from_millis(millis)));
        let text = latencies.hgrm();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].contains("Percentile") && lines[1].is_empty());
        let last = lines
            .iter()
            .rfind(|line| !line.starts_with('#'))
            .expect("a line of percentiles");
        let words: Vec<&str> = last.split_whitespace().collect();
        assert_eq!(words.len(), 3, "the last line has no 1/(1-percentile): {last}");
        assert!(
            words[0].starts_with("100.") && words[1] == "1.000000000000" && words[2] == "100",
            "{last}"
        );
        assert!(text.contains("Total count    =          100]"), "{text}");
    }
}

//! The table: what each version of a model did in each month, and what readers said of it.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::record::{Outcome, Record, Review, Reviewed, Run, Verdict};
use super::store::Kept;
use crate::findings::Call;

/// All versions and months.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Usage {
    /// By model, version and month.
    pub rows: Vec<UsageRow>,
    /// Lines that could not be read.
    pub left_out: usize,
}

/// A version of a model in a month.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct UsageRow {
    /// Model id.
    pub model: String,
    /// Model version.
    pub version: String,
    /// `2026-11`, UTC, in which the runs ended. A review counts in its run's month.
    pub month: String,
    /// Runs, however they ended.
    pub runs: usize,
    /// With a result.
    pub done: usize,
    /// Stopped as asked.
    pub cancelled: usize,
    /// Failed.
    pub failed: usize,
    /// Refused.
    pub refused: usize,
    /// Median seconds of runs with a result.
    pub median_seconds: Option<f64>,
    /// Results (findings, or all segments of a run) that readers agree with, by their last word.
    pub accepted: usize,
    /// That they changed.
    pub edited: usize,
    /// That they disagree with.
    pub rejected: usize,
    /// By name: where a model's numbers drift to.
    pub findings: Vec<FindingUsage>,
    /// By name.
    pub segments: Vec<SegmentUsage>,
}

/// A finding over the runs of a row.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct FindingUsage {
    /// As the model names it.
    pub name: String,
    /// How often it was given a number.
    pub n: usize,
    /// Mean of the numbers.
    pub mean_probability: f64,
    /// Called present.
    pub present: usize,
    /// Called absent.
    pub absent: usize,
    /// Called not sure.
    pub not_sure: usize,
    /// Agreed with.
    pub accepted: usize,
    /// Changed.
    pub edited: usize,
    /// Disagreed with.
    pub rejected: usize,
}

/// A segment over the runs of a row.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct SegmentUsage {
    /// As the model names it.
    pub name: String,
    /// Runs that found it with a volume.
    pub n: usize,
    /// Mean of the volumes; none where there are none (plane images).
    pub mean_volume_ml: Option<f64>,
}

fn month(time: DateTime<Utc>) -> String {
    time.format("%Y-%m").to_string()
}

/// Reads the table off the records.
pub fn usage(kept: &Kept) -> Usage {
    // Where reviews count: with their run; without it by themselves.
    let runs: BTreeMap<&str, &Run> = (kept.records.iter())
        .filter_map(|record| match record {
            Record::Run(run) => Some((run.run.as_str(), &**run)),
            Record::Review(_) => None,
        })
        .collect();
    let mut last: BTreeMap<(&str, &Reviewed), &Review> = BTreeMap::new();
    for record in &kept.records {
        if let Record::Review(review) = record {
            let known = last
                .entry((review.run.as_str(), &review.of))
                .or_insert(review);
            if review.time >= known.time {
                *known = review;
            }
        }
    }
    let mut groups: BTreeMap<[String; 3], (Vec<&Run>, Vec<&Review>)> = BTreeMap::new();
    for run in runs.values() {
        let key = [run.model.clone(), run.version.clone(), month(run.time)];
        groups.entry(key).or_default().0.push(run);
    }
    for review in last.into_values() {
        let of = runs.get(review.run.as_str());
        let key = match of {
            Some(run) => [run.model.clone(), run.version.clone(), month(run.time)],
            None => [
                review.model.clone(),
                review.version.clone(),
                month(review.time),
            ],
        };
        groups.entry(key).or_default().1.push(review);
    }
    Usage {
        rows: groups
            .into_iter()
            .map(|(key, (runs, reviews))| row(key, &runs, &reviews))
            .collect(),
        left_out: kept.left_out,
    }
}

fn row([model, version, month]: [String; 3], runs: &[&Run], reviews: &[&Review]) -> UsageRow {
    let ended = |outcome| runs.iter().filter(|r| r.outcome == outcome).count();
    let said = |verdict| reviews.iter().filter(|r| r.to == verdict).count();
    let done = runs.iter().filter(|r| r.outcome == Outcome::Done);
    let mut segments: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for segment in done.clone().flat_map(|r| &r.segments) {
        let volumes = segments.entry(&segment.name).or_default();
        volumes.extend(segment.volume_ml);
    }
    UsageRow {
        runs: runs.len(),
        done: ended(Outcome::Done),
        cancelled: ended(Outcome::Cancelled),
        failed: ended(Outcome::Failed),
        refused: ended(Outcome::Refused),
        median_seconds: median(done.map(|r| r.seconds).collect()),
        accepted: said(Verdict::Accepted),
        edited: said(Verdict::Edited),
        rejected: said(Verdict::Rejected),
        findings: findings(runs, reviews),
        segments: segments
            .into_iter()
            .map(|(name, volumes)| SegmentUsage {
                name: name.to_owned(),
                n: volumes.len(),
                mean_volume_ml: (!volumes.is_empty())
                    .then(|| volumes.iter().sum::<f64>() / volumes.len() as f64),
            })
            .collect(),
        model,
        version,
        month,
    }
}

fn findings(runs: &[&Run], reviews: &[&Review]) -> Vec<FindingUsage> {
    let mut found: BTreeMap<&str, FindingUsage> = BTreeMap::new();
    for said in runs.iter().flat_map(|r| &r.findings) {
        let one = found.entry(&said.name).or_default();
        one.n += 1;
        // A sum until all are there.
        one.mean_probability += said.probability;
        match said.call {
            Some(Call::Present) => one.present += 1,
            Some(Call::Absent) => one.absent += 1,
            Some(Call::NotSure) => one.not_sure += 1,
            None => {}
        }
    }
    for review in reviews {
        if let Reviewed::Finding { name, .. } = &review.of {
            let one = found.entry(name).or_default();
            match review.to {
                Verdict::Accepted => one.accepted += 1,
                Verdict::Edited => one.edited += 1,
                Verdict::Rejected => one.rejected += 1,
                Verdict::NotReviewed => {}
            }
        }
    }
    found
        .into_iter()
        .map(|(name, one)| FindingUsage {
            name: name.to_owned(),
            mean_probability: one.mean_probability / one.n.max(1) as f64,
            ..one
        })
        .collect()
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    (n > 0).then(|| f64::midpoint(values[(n - 1) / 2], values[n / 2]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitoring::{Reason, Said, SaidSegment, Through, Work};

    fn run(name: &str, version: &str, day: &str, seconds: f64, outcome: Outcome) -> Run {
        Run {
            time: format!("{day}T10:00:00Z").parse().unwrap(),
            run: name.to_owned(),
            model: "m".to_owned(),
            version: version.to_owned(),
            sha256: String::new(),
            software: String::new(),
            device: String::new(),
            modality: "DX".to_owned(),
            work: Work::Classification,
            through: Through::Window,
            outcome,
            reason: (outcome == Outcome::Failed).then_some(Reason::Model),
            images: None,
            images_refused: None,
            stages: BTreeMap::new(),
            seconds,
            planned_seconds: None,
            planned_bytes: None,
            doubts: Vec::new(),
            findings: Vec::new(),
            segments: Vec::new(),
        }
    }

    fn said(name: &str, probability: f64, call: Option<Call>) -> Said {
        Said {
            name: name.to_owned(),
            probability,
            call,
            image: 0,
        }
    }

    fn review(run: &str, finding: &str, day: &str, to: Verdict) -> Record {
        Record::Review(Review {
            time: format!("{day}T11:00:00Z").parse().unwrap(),
            run: run.to_owned(),
            model: "m".to_owned(),
            version: "1".to_owned(),
            of: Reviewed::Finding {
                name: finding.to_owned(),
                image: 0,
            },
            from: Verdict::NotReviewed,
            to,
            model_call: None,
            reader_call: None,
        })
    }

    #[test]
    fn the_table_is_what_a_person_counts() {
        let mut a = run("a", "1", "2026-10-30", 1.0, Outcome::Done);
        a.findings = vec![
            said("Pneumonia", 0.9, Some(Call::Present)),
            said("Nodule", 0.2, Some(Call::Absent)),
        ];
        let mut b = run("b", "1", "2026-10-31", 4.0, Outcome::Done);
        b.findings = vec![said("Pneumonia", 0.4, Some(Call::NotSure))];
        let c = run("c", "1", "2026-10-31", 9.0, Outcome::Failed);
        let mut d = run("d", "2", "2026-10-31", 2.0, Outcome::Done);
        d.segments = vec![SaidSegment {
            name: "Lung".to_owned(),
            volume_ml: Some(3.0),
        }];
        let e = run("e", "1", "2026-11-01", 0.5, Outcome::Cancelled);
        let runs = [a, b, c, d, e].map(|r| Record::Run(Box::new(r)));
        let reviews = [
            review("a", "Pneumonia", "2026-11-01", Verdict::Rejected),
            // The last word counts, in the month of its run.
            review("a", "Pneumonia", "2026-11-02", Verdict::Accepted),
            review("a", "Nodule", "2026-11-02", Verdict::Edited),
            review("b", "Pneumonia", "2026-11-02", Verdict::Accepted),
            review("b", "Pneumonia", "2026-11-03", Verdict::NotReviewed),
            // A run whose file is gone.
            review("z", "Pneumonia", "2026-12-03", Verdict::Rejected),
        ];
        let kept = Kept {
            records: runs.into_iter().chain(reviews).collect(),
            left_out: 2,
        };
        let found = usage(&kept);
        assert_eq!(found.left_out, 2);
        let keys: Vec<[&str; 2]> = (found.rows.iter())
            .map(|r| [r.version.as_str(), r.month.as_str()])
            .collect();
        assert_eq!(
            keys,
            [
                ["1", "2026-10"],
                ["1", "2026-11"],
                ["1", "2026-12"],
                ["2", "2026-10"]
            ]
        );
        let row = &found.rows[0];
        assert_eq!((row.runs, row.done, row.failed), (3, 2, 1));
        assert_eq!(row.median_seconds, Some(2.5));
        assert_eq!((row.accepted, row.edited, row.rejected), (1, 1, 0));
        let [nodule, pneumonia] = &row.findings[..] else {
            panic!("{:?}", row.findings)
        };
        assert_eq!((nodule.n, nodule.absent, nodule.edited), (1, 1, 1));
        assert_eq!(
            (pneumonia.n, pneumonia.present, pneumonia.not_sure),
            (2, 1, 1)
        );
        assert!((pneumonia.mean_probability - 0.65).abs() < 1e-12);
        assert_eq!(pneumonia.accepted, 1);
        assert_eq!((found.rows[1].runs, found.rows[1].cancelled), (1, 1));
        assert_eq!(found.rows[1].median_seconds, None);
        assert_eq!((found.rows[2].runs, found.rows[2].rejected), (0, 1));
        assert_eq!(found.rows[3].segments[0].mean_volume_ml, Some(3.0));
    }
}

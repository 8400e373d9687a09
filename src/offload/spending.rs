//! What has been sent and spent, by day and by job, and the limits that a person has set.
//!
//! `places/spent.json` in the program's home. A request is counted, and the disk has it, before the
//! request goes: a kill can make the count too high, never too low. Days are those of UTC.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::history::locked;
use crate::whole_file;

/// Days and jobs that are kept.
const MOST_DAYS: usize = 100;
const MOST_JOBS: usize = 500;
/// Largest file that is read.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Why something may not be sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpendingError {
    /// More than the limit.
    #[error(
        "{what} would come to {would:.2} {unit}, the limit is {limit:.2}; raise `{setting}` in {}{}",
        super::policy::FILE,
        if *.tomorrow { ", or go on after midnight (UTC)" } else { "" }
    )]
    Over {
        /// `the price of this job`, …
        what: &'static str,
        /// With what is to be sent.
        would: f64,
        /// The limit.
        limit: f64,
        /// Currency, or `MB`.
        unit: String,
        /// The setting that holds the limit.
        setting: &'static str,
        /// Whether another day helps.
        tomorrow: bool,
    },
    /// Prices that the limits cannot be held against.
    #[error("its prices are in {found:?}, the limits in {limits:?}: nothing can be said of them")]
    Currency {
        /// Of the endpoint.
        found: String,
        /// Of the policy.
        limits: String,
    },
    /// The count cannot be read or written: nothing is sent that is not counted.
    #[error("what was spent cannot be counted: {}", path.display())]
    Count {
        /// What the system said.
        #[source]
        source: io::Error,
        /// The file.
        path: PathBuf,
    },
}

/// Limits that a person has set; `None` where there is none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Currency of the prices.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub currency: String,
    /// For one job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub price_per_job: Option<f64>,
    /// For all jobs of a day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub price_per_day: Option<f64>,
    /// Bytes in both directions, for all jobs of a day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_day: Option<u64>,
}

/// What was, or would be, exchanged and paid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spent {
    /// Requests.
    pub requests: u64,
    /// In both directions.
    pub bytes: u64,
    /// In the endpoint's currency.
    pub cost: f64,
}

impl Spent {
    fn and(self, more: Self) -> Self {
        Self {
            requests: self.requests.saturating_add(more.requests),
            bytes: self.bytes.saturating_add(more.bytes),
            cost: self.cost + more.cost,
        }
    }
}

/// Under which names something is counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// `2026-11-21`.
    pub day: String,
    /// The job's random name.
    pub job: String,
    /// Of the prices.
    pub currency: String,
}

/// A line of the count; of a day for each currency, or of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Line {
    name: String,
    #[serde(default)]
    currency: String,
    #[serde(flatten)]
    spent: Spent,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Count {
    days: Vec<Line>,
    jobs: Vec<Line>,
}

impl Count {
    fn of(lines: &[Line], name: &str, currency: Option<&str>) -> Spent {
        let same = |line: &&Line| line.name == name && currency.is_none_or(|c| line.currency == c);
        let found = lines.iter().filter(same);
        found.fold(Spent::default(), |sum, line| sum.and(line.spent))
    }

    fn add(lines: &mut Vec<Line>, name: &str, currency: &str, most: usize, more: Spent) {
        let at = lines
            .iter()
            .position(|line| line.name == name && line.currency == currency);
        let mut line = match at {
            Some(at) => lines.remove(at),
            None => Line {
                name: name.to_owned(),
                currency: currency.to_owned(),
                spent: Spent::default(),
            },
        };
        line.spent = line.spent.and(more);
        // The newest last; the oldest go.
        lines.push(line);
        lines.drain(..lines.len().saturating_sub(most));
    }

    fn check(&self, account: &Account, more: Spent, limits: &Limits) -> Result<(), SpendingError> {
        let has_price_limit = limits.price_per_job.or(limits.price_per_day).is_some();
        if has_price_limit && more.cost > 0.0 && account.currency != limits.currency {
            return Err(SpendingError::Currency {
                found: account.currency.clone(),
                limits: limits.currency.clone(),
            });
        }
        let currency = Some(account.currency.as_str());
        let job = Self::of(&self.jobs, &account.job, currency).and(more);
        let day = Self::of(&self.days, &account.day, currency).and(more);
        let bytes = Self::of(&self.days, &account.day, None).and(more).bytes;
        let over = |what, would: f64, limit: Option<f64>, unit: &str, setting, tomorrow| {
            limit
                .filter(|limit| would > *limit)
                .map_or(Ok(()), |limit| {
                    Err(SpendingError::Over {
                        what,
                        would,
                        limit,
                        unit: unit.to_owned(),
                        setting,
                        tomorrow,
                    })
                })
        };
        let unit = &account.currency;
        if more.cost > 0.0 {
            let limit = limits.price_per_job;
            let what = "the price of this job";
            over(what, job.cost, limit, unit, "limits.price_per_job", false)?;
            let limit = limits.price_per_day;
            let what = "the price of this day";
            over(what, day.cost, limit, unit, "limits.price_per_day", true)?;
        }
        let limit = limits.bytes_per_day.map(|n| n as f64 / 1e6);
        let what = "what is exchanged on this day";
        let would = bytes as f64 / 1e6;
        over(what, would, limit, "MB", "limits.bytes_per_day", true)
    }
}

/// The count of one home. Any number of processes may add to it.
#[derive(Clone, Debug)]
pub struct Spending {
    path: PathBuf,
}

impl Spending {
    /// That of a home; it need not exist yet.
    pub fn new(home: &Path) -> Self {
        Self {
            path: home.join("places").join("spent.json"),
        }
    }

    fn failed(&self, source: io::Error) -> SpendingError {
        SpendingError::Count {
            source,
            path: self.path.clone(),
        }
    }

    fn read(&self) -> Result<Count, SpendingError> {
        match fs::metadata(&self.path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Count::default()),
            Ok(about) if about.len() > MAX_FILE_BYTES => {
                return Err(self.failed(io::ErrorKind::FileTooLarge.into()));
            }
            _ => {}
        }
        let text = fs::read(&self.path).map_err(|e| self.failed(e))?;
        serde_json::from_slice(&text).map_err(|e| self.failed(e.into()))
    }

    /// What a day has come to in a currency, or in all of them (bytes alone mean something then).
    ///
    /// # Errors
    /// [`SpendingError::Count`].
    pub fn of_day(&self, day: &str, currency: Option<&str>) -> Result<Spent, SpendingError> {
        Ok(Count::of(&self.read()?.days, day, currency))
    }

    /// What a job has come to.
    ///
    /// # Errors
    /// [`SpendingError::Count`].
    pub fn of_job(&self, job: &str) -> Result<Spent, SpendingError> {
        Ok(Count::of(&self.read()?.jobs, job, None))
    }

    /// Whether so much may be sent by the limits; nothing is counted.
    ///
    /// # Errors
    /// [`SpendingError`].
    pub fn allows(
        &self,
        account: &Account,
        more: Spent,
        limits: &Limits,
    ) -> Result<(), SpendingError> {
        self.read()?.check(account, more, limits)
    }

    /// Counts what is about to be sent, if the limits allow it; on disk when this returns.
    ///
    /// # Errors
    /// [`SpendingError`]; then nothing was counted and nothing may be sent.
    pub fn reserve(
        &self,
        account: &Account,
        more: Spent,
        limits: &Limits,
    ) -> Result<(), SpendingError> {
        self.change(account, more, Some(limits))
    }

    /// Counts what was found out afterwards.
    ///
    /// # Errors
    /// [`SpendingError::Count`].
    pub fn add(&self, account: &Account, more: Spent) -> Result<(), SpendingError> {
        self.change(account, more, None)
    }

    fn change(
        &self,
        account: &Account,
        more: Spent,
        limits: Option<&Limits>,
    ) -> Result<(), SpendingError> {
        let _lock = locked(&self.path).map_err(|e| self.failed(e))?;
        let mut count = self.read()?;
        if let Some(limits) = limits {
            count.check(account, more, limits)?;
        }
        let Account { day, job, currency } = account;
        Count::add(&mut count.days, day, currency, MOST_DAYS, more);
        Count::add(&mut count.jobs, job, currency, MOST_JOBS, more);
        let text = serde_json::to_vec(&count).map_err(|e| self.failed(e.into()))?;
        whole_file::write(&self.path, |to| to.write_all(&text)).map_err(|e| self.failed(e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(day: &str, job: &str) -> Account {
        Account {
            day: day.to_owned(),
            job: job.to_owned(),
            currency: "EUR".to_owned(),
        }
    }

    fn spent(bytes: u64, cost: f64) -> Spent {
        Spent {
            requests: 1,
            bytes,
            cost,
        }
    }

    fn limits() -> Limits {
        Limits {
            currency: "EUR".to_owned(),
            price_per_job: Some(1.0),
            price_per_day: Some(1.5),
            bytes_per_day: Some(1000),
        }
    }

    #[test]
    fn limits_hold_for_the_job_the_day_and_the_bytes_and_count_nothing_that_they_refuse() {
        let home = tempfile::tempdir().unwrap();
        let spending = Spending::new(home.path());
        let reserve = |day, job, what| spending.reserve(&account(day, job), what, &limits());
        let over = |result: Result<(), SpendingError>| match result.unwrap_err() {
            SpendingError::Over { setting, .. } => setting,
            other => panic!("{other}"),
        };
        reserve("d1", "a", spent(100, 0.75)).unwrap();
        assert_eq!(
            over(reserve("d1", "a", spent(1, 0.5))),
            "limits.price_per_job"
        );
        reserve("d1", "b", spent(100, 0.5)).unwrap();
        assert_eq!(
            over(reserve("d1", "c", spent(1, 0.5))),
            "limits.price_per_day"
        );
        assert_eq!(
            over(reserve("d1", "c", spent(801, 0.0))),
            "limits.bytes_per_day"
        );
        let day = spending.of_day("d1", Some("EUR")).unwrap();
        assert_eq!((day.requests, day.bytes, day.cost), (2, 200, 1.25));
        // Another day is another count; the job's goes on.
        assert_eq!(
            over(reserve("d2", "a", spent(1, 0.5))),
            "limits.price_per_job"
        );
        reserve("d2", "c", spent(1000, 1.0)).unwrap();
        // Up to the limit, and read by another process.
        let again = Spending::new(home.path());
        assert!(
            again
                .allows(&account("d2", "d"), spent(0, 0.5), &limits())
                .is_ok()
        );
        assert!(
            again
                .allows(&account("d2", "d"), spent(1, 0.0), &limits())
                .is_err()
        );
    }

    #[test]
    fn a_limit_in_another_currency_is_no_limit_that_could_be_kept() {
        let home = tempfile::tempdir().unwrap();
        let spending = Spending::new(home.path());
        let dollars = Account {
            currency: "USD".to_owned(),
            ..account("d", "a")
        };
        let refused = spending.reserve(&dollars, spent(1, 0.1), &limits());
        assert!(matches!(refused, Err(SpendingError::Currency { .. })));
        // What costs nothing has no currency.
        spending
            .reserve(&dollars, spent(1, 0.0), &limits())
            .unwrap();
        assert_eq!(spending.of_day("d", None).unwrap().bytes, 1);
    }

    #[test]
    fn a_count_that_is_damaged_stops_what_would_be_sent() {
        let home = tempfile::tempdir().unwrap();
        let spending = Spending::new(home.path());
        spending.add(&account("d", "a"), spent(1, 1.0)).unwrap();
        for text in ["", "{", "[]", "{\"days\":[{\"name\":1}],\"jobs\":[]}"] {
            fs::write(&spending.path, text).unwrap();
            let refused = spending.reserve(&account("d", "a"), spent(1, 0.0), &Limits::default());
            assert!(
                matches!(refused, Err(SpendingError::Count { .. })),
                "{text}"
            );
        }
    }

    #[test]
    fn processes_at_the_same_time_never_pass_a_limit_together() {
        let home = tempfile::tempdir().unwrap();
        let passed = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for n in 0..8 {
                let (home, passed) = (home.path(), &passed);
                scope.spawn(move || {
                    let spending = Spending::new(home);
                    for _ in 0..4 {
                        let job = format!("j{n}");
                        let account = account("d", &job);
                        if spending
                            .reserve(&account, spent(1, 0.125), &limits())
                            .is_ok()
                        {
                            passed.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert_eq!(passed.into_inner(), 12);
    }

    #[test]
    fn old_days_and_jobs_go() {
        let mut lines = Vec::new();
        for n in 0..MOST_JOBS + 5 {
            Count::add(&mut lines, &n.to_string(), "", MOST_JOBS, Spent::default());
        }
        assert_eq!((lines.len(), lines[0].name.as_str()), (MOST_JOBS, "5"));
    }
}

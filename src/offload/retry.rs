//! When to try again, how long to wait, and when to leave a server alone. No clock and no network:
//! time is handed in, as the time since any fixed moment.

use std::time::Duration;

use super::error::Again;

/// First wait, where nobody says otherwise.
pub(super) const FIRST_WAIT: Duration = Duration::from_millis(500);
/// Longest wait.
const CAP: Duration = Duration::from_secs(30);
/// Attempts after the first.
const MOST: u32 = 4;

/// The attempts of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempts {
    first_wait: Duration,
    failed: u32,
    failed_once_only: bool,
}

impl Default for Attempts {
    fn default() -> Self {
        Self::new(FIRST_WAIT)
    }
}

impl Attempts {
    /// None yet; `first_wait` is the ceiling of the first wait.
    pub fn new(first_wait: Duration) -> Self {
        Self {
            first_wait,
            failed: 0,
            failed_once_only: false,
        }
    }

    /// What to do after an attempt has failed: wait so long and try again, or stop.
    ///
    /// `left`: time until the deadline. `chance`: random, from 0 up to 1. `asked`: what the server's
    /// `Retry-After` says.
    pub(super) fn after(
        &mut self,
        again: Again,
        asked: Option<Duration>,
        left: Duration,
        chance: f64,
        budget: &mut Budget,
    ) -> Option<Duration> {
        let allowed = match again {
            Again::Never => false,
            Again::Once => !std::mem::replace(&mut self.failed_once_only, true),
            Again::Often => true,
        };
        if !allowed || self.failed == MOST {
            return None;
        }
        // Full jitter: anything between nothing and the ceiling, so that many clients do not come
        // back at the same moment.
        let ceiling = self.first_wait.saturating_mul(1 << self.failed).min(CAP);
        let wait = asked
            .unwrap_or_default()
            .min(CAP)
            .max(ceiling.mul_f64(chance.clamp(0.0, 1.0)));
        // A server that wants a longer rest than we wait is not asked before it is over.
        if asked.is_some_and(|asked| asked > CAP) || wait >= left || !budget.take() {
            return None;
        }
        self.failed += 1;
        Some(wait)
    }
}

/// How many repeats an endpoint is worth: a fifth of its requests, and ten to begin with.
#[derive(Clone, Debug, PartialEq)]
pub struct Budget {
    left: f64,
}

impl Default for Budget {
    fn default() -> Self {
        Self { left: Self::MOST }
    }
}

impl Budget {
    const MOST: f64 = 10.0;
    const PER_REQUEST: f64 = 0.2;

    /// A request begins.
    pub fn request(&mut self) {
        self.left = (self.left + Self::PER_REQUEST).min(Self::MOST);
    }

    fn take(&mut self) -> bool {
        let enough = self.left >= 1.0;
        if enough {
            self.left -= 1.0;
        }
        enough
    }
}

/// Leaves an endpoint alone for a while after it has failed repeatedly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Breaker {
    /// Failures in a row.
    failed: u32,
    /// When it opened, or the trial after it began.
    since: Option<Duration>,
}

impl Breaker {
    const FAILURES: u32 = 5;
    const REST: Duration = Duration::from_secs(30);

    /// Whether a request may go now.
    ///
    /// # Errors
    /// How long the endpoint is still left alone.
    pub fn allow(&mut self, now: Duration) -> Result<(), Duration> {
        let Some(since) = self.since else {
            return Ok(());
        };
        let rested = now.saturating_sub(since);
        if rested < Self::REST {
            return Err(Self::REST.saturating_sub(rested));
        }
        // One request tries; the others wait for what becomes of it, or for as long again.
        self.since = Some(now);
        Ok(())
    }

    /// A request succeeded, or was refused by a server that works.
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// A request failed in a way that speaks against the endpoint.
    pub fn failed(&mut self, now: Duration) {
        self.failed = self.failed.saturating_add(1);
        if self.failed >= Self::FAILURES {
            self.since = Some(now);
        }
    }
}

/// Time that `Retry-After` asks for: seconds, or a date, which is held against the answer's own
/// `Date`, so that a wrong clock on either side does no harm.
pub(super) fn retry_after(value: &str, date: Option<&str>) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let read = |text: &str| chrono::DateTime::parse_from_rfc2822(text.trim()).ok();
    let wait = read(value)? - read(date?)?;
    Some(wait.to_std().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn next(
        attempts: &mut Attempts,
        again: Again,
        asked: Option<Duration>,
        chance: f64,
    ) -> Option<Duration> {
        attempts.after(again, asked, S(1000), chance, &mut Budget::default())
    }

    #[test]
    fn waits_double_up_to_four_repeats() {
        let mut attempts = Attempts::default();
        let waits: Vec<_> = (0..5)
            .map(|_| next(&mut attempts, Again::Often, None, 1.0).map(|d| d.as_millis()))
            .collect();
        assert_eq!(waits, [Some(500), Some(1000), Some(2000), Some(4000), None]);
    }

    #[test]
    fn a_wait_lies_anywhere_below_its_ceiling() {
        for chance in [0.0, 0.25, 0.999] {
            let mut attempts = Attempts {
                failed: 2,
                ..Attempts::default()
            };
            let wait = next(&mut attempts, Again::Often, None, chance).unwrap();
            assert_eq!(wait, S(2).mul_f64(chance));
        }
    }

    #[test]
    fn what_never_helps_is_not_tried_and_a_fault_of_the_server_once() {
        assert_eq!(
            next(&mut Attempts::default(), Again::Never, None, 0.5),
            None
        );
        let mut attempts = Attempts::default();
        assert!(next(&mut attempts, Again::Once, None, 0.5).is_some());
        assert_eq!(next(&mut attempts, Again::Once, None, 0.5), None);
        assert!(next(&mut attempts, Again::Often, None, 0.5).is_some());
    }

    #[test]
    fn the_server_says_how_long_up_to_a_limit() {
        let asked = |asked| next(&mut Attempts::default(), Again::Often, Some(asked), 0.0);
        assert_eq!(asked(S(7)), Some(S(7)));
        assert_eq!(asked(S(30)), Some(S(30)));
        assert_eq!(asked(S(31)), None);
        assert_eq!(asked(Duration::MAX), None);
    }

    #[test]
    fn no_wait_goes_beyond_the_deadline() {
        let mut budget = Budget::default();
        let mut attempts = Attempts::default();
        let wait = attempts.after(Again::Often, Some(S(5)), S(5), 0.5, &mut budget);
        assert_eq!(wait, None);
        assert_eq!(
            budget,
            Budget::default(),
            "a repeat that is not made costs nothing"
        );
    }

    #[test]
    fn repeats_are_a_fifth_of_the_requests() {
        let mut budget = Budget::default();
        let taken = (0..100).filter(|_| budget.take()).count();
        assert_eq!(taken, 10);
        let taken = (0..100)
            .filter(|_| {
                budget.request();
                budget.take()
            })
            .count();
        assert!((19..=20).contains(&taken), "{taken}");
    }

    #[test]
    fn five_failures_in_a_row_give_a_rest_and_then_one_trial() {
        let mut breaker = Breaker::default();
        for n in 0..5 {
            assert_eq!(breaker.allow(S(n)), Ok(()));
            breaker.failed(S(n));
        }
        assert_eq!(breaker.allow(S(4)), Err(S(30)));
        assert_eq!(breaker.allow(S(33)), Err(S(1)));
        assert_eq!(breaker.allow(S(34)), Ok(()), "the trial");
        assert!(breaker.allow(S(34)).is_err(), "one trial at a time");
        breaker.failed(S(40));
        assert_eq!(breaker.allow(S(41)), Err(S(29)));
        assert_eq!(breaker.allow(S(70)), Ok(()));
        breaker.succeeded();
        assert_eq!(breaker.allow(S(70)), Ok(()));
        assert_eq!(breaker, Breaker::default());
    }

    #[test]
    fn a_success_in_between_begins_the_count_anew() {
        let mut breaker = Breaker::default();
        for n in 0..20 {
            assert_eq!(breaker.allow(S(n)), Ok(()));
            breaker.failed(S(n));
            if n % 4 == 3 {
                breaker.succeeded();
            }
        }
        assert_eq!(breaker.allow(S(20)), Ok(()));
    }

    /// RFC 9110, 10.2.3 and 5.6.7.
    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let date = Some("Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(retry_after("120", None), Some(S(120)));
        assert_eq!(
            retry_after("Sun, 06 Nov 1994 08:49:47 GMT", date),
            Some(S(10))
        );
        assert_eq!(
            retry_after("Sun, 06 Nov 1994 08:49:07 GMT", date),
            Some(S(0))
        );
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:47 GMT", None), None);
        assert_eq!(
            retry_after("99999999999999999999999", None),
            Some(S(u64::MAX))
        );
        for wrong in ["", "-1", "soon", "1.5"] {
            assert_eq!(retry_after(wrong, date), None, "{wrong}");
        }
    }
}

//! Time, new UIDs and chance: the only place that asks the system for them.

use chrono::{DateTime, Utc};
use ring::rand::{SecureRandom, SystemRandom};

use crate::study::Uid;

/// The time now.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn now_utc() -> DateTime<Utc> {
    Utc::now()
}

/// A random name of 32 hex digits, for what must be told apart and say nothing.
///
/// # Panics
/// When the system has no random numbers.
pub fn random_name() -> String {
    let mut bytes = [0_u8; 16];
    SystemRandom::new()
        .fill(&mut bytes)
        .expect("the system gives random numbers");
    format!("{:032x}", u128::from_be_bytes(bytes))
}

/// New UIDs from the system's random numbers (PS3.5 B.2).
#[derive(Debug, Default)]
pub struct RandomUids;

impl RandomUids {
    /// A UID that nobody has.
    ///
    /// # Panics
    /// When the system has no random numbers.
    pub fn fresh() -> Uid {
        let mut bytes = [0_u8; 16];
        SystemRandom::new()
            .fill(&mut bytes)
            .expect("the system gives random numbers");
        Uid::from_u128(u128::from_be_bytes(bytes))
    }
}

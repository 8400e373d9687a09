//! Changes of what this program trusts and runs: on record before they are made, with how they ended.

use super::clock::now_utc;
use super::home::Home;
use crate::audit::{self, AuditEvent, EventId, EventType, Log, Outcome, ParticipantObject};

/// Makes a change between its beginning and its end on record.
///
/// A change of configuration is a Security Alert of a type of its own (PS3.15 A.5.3.11).
///
/// # Errors
/// The log's, and those of the change.
pub fn change_on_record<T, E: From<audit::Error>>(
    home: &Home,
    kind: EventType,
    object: ParticipantObject,
    make: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    let log = Log::open(home.root())?;
    let event = AuditEvent::new(EventId::SecurityAlert, now_utc())
        .of_type(kind)
        .about(object);
    let act = log.begin(&event)?;
    match make() {
        Ok(made) => {
            act.done(now_utc())?;
            Ok(made)
        }
        Err(error) => {
            act.failed(now_utc(), Outcome::SeriousFailure, "nothing was changed")?;
            Err(error)
        }
    }
}

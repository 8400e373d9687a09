//! Models taken into this home: on record before, and how it ended after, by whichever door.

use std::path::Path;

use super::clock::now_utc;
use super::home::Home;
use crate::audit::{self, AuditEvent, EventId, Log, Outcome, ParticipantObject};
use crate::import;
use crate::model::{self, Registry, VerifiedPackage};

/// Why a model was not taken in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// It cannot be read, or is refused.
    #[error(transparent)]
    Import(#[from] import::Error),
    /// It cannot be installed.
    #[error(transparent)]
    Model(#[from] model::Error),
    /// The log cannot be written.
    #[error(transparent)]
    Audit(#[from] audit::Error),
}

/// Reads packages and installs them, all on record; one that is refused is on record as refused.
///
/// # Errors
/// [`ImportError`]; packages before the one that failed stay.
pub fn import_models(
    home: &Home,
    from: &Path,
    allow_older: bool,
    read: impl FnOnce() -> Result<Vec<VerifiedPackage>, import::Error>,
) -> Result<Vec<VerifiedPackage>, ImportError> {
    let source = ParticipantObject::file(from).with("role", "source");
    let event = AuditEvent::new(EventId::Import, now_utc()).about(source);
    let act = Log::open(home.root())?.begin(&event)?;
    let mut told = event;
    let registry = Registry::new(home.models());
    let installed = (|| {
        let packages = read()?;
        for package in &packages {
            let manifest = package.manifest();
            registry.install(package, allow_older)?;
            told.objects.push(ParticipantObject::model(
                &manifest.key(),
                &manifest.weights_sha256,
            ));
        }
        Ok(packages)
    })();
    let end = told.at(now_utc());
    act.close(&match &installed {
        Ok(_) => end,
        Err(error) => end.failed(Outcome::SeriousFailure, format!("refused: {error}")),
    })?;
    installed
}

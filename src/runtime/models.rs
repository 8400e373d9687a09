//! stub
#![allow(missing_docs)]
use super::home::Home;
use super::jobs::Stop;
use crate::app::*;
use crate::findings::Segmentation;
use crate::task::{Cancelled, Task};
use crate::volume::{LabelStatistics, Volume};
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    #[error("no engine yet")]
    None,
}
pub struct LoadedModel;
impl LoadedModel {
    pub fn open(_h: &Home, _k: &str) -> Result<Self, RunError> {
        Err(RunError::None)
    }
    pub fn modality(&self) -> &str {
        ""
    }
    pub fn key(&self) -> String {
        String::new()
    }
    pub fn needed_bytes(&self, _v: &Volume) -> u64 {
        0
    }
    pub fn sha256(&self) -> &str {
        ""
    }
    pub fn run(
        &self,
        _v: &Volume,
        _t: &Task,
    ) -> Result<(Segmentation, Vec<LabelStatistics>), RunError> {
        Err(RunError::None)
    }
}
pub(super) fn list(_h: &Home) -> Event {
    Event::Models(vec![])
}
pub(super) fn import(_h: &Home, _p: &std::path::Path) -> Result<Notice, Stop> {
    Err(Stop::Cancelled)
}
pub(super) fn estimate(_h: &Home, _m: &str, _d: &Volume) -> Result<RunEstimate, String> {
    Err("no".into())
}
pub(super) fn run(
    _h: &Home,
    _m: &str,
    _d: &Volume,
    _t: &Task,
) -> Result<(Segmentation, Vec<LabelStatistics>), Stop> {
    Err(Stop::Cancelled)
}
pub(super) fn available_bytes() -> u64 {
    u64::MAX
}

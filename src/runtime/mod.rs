//! Carries out actions: jobs on threads, files, models, the clock, settings, the audit log.
use crate::app::*;
/// x
pub struct Runtime;
impl Runtime {
    /// x
    pub fn poll(&mut self) -> Vec<Event> {
        vec![]
    }
    /// x
    pub fn carry_out(&mut self, _a: Action) {}
    /// x
    pub fn set_wake(&mut self, _w: std::sync::Arc<dyn Fn() + Send + Sync>) {}
    /// x
    pub fn settings(&self) -> Settings {
        Settings::default()
    }
}

//! (room being furnished)
/// x
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventId {
    /// x
    DicomInstancesAccessed,
    /// x
    ModelRun,
    /// x
    Export,
}

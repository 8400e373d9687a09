//! Working memory of a run, made once per thread and handed from piece to piece.

use std::sync::Mutex;

/// Buffers of one size; as many come to be as pieces run at the same time.
pub(super) struct Pool {
    floats: usize,
    free: Mutex<Vec<Vec<f32>>>,
}

impl Pool {
    pub(super) const fn new(floats: usize) -> Self {
        Self {
            floats,
            free: Mutex::new(Vec::new()),
        }
    }

    /// A buffer with values of any kind.
    pub(super) fn take(&self) -> Vec<f32> {
        let free = self.free.lock().ok().and_then(|mut free| free.pop());
        free.unwrap_or_else(|| vec![0.0; self.floats])
    }

    pub(super) fn give(&self, buffer: Vec<f32>) {
        if let Ok(mut free) = self.free.lock() {
            free.push(buffer);
        }
    }
}

//! What happens around the sums: the input's norm before, residual, activation and moments after.
#![expect(
    clippy::inline_always,
    reason = "what is not inlined is not compiled for the caller's instruction set"
)]
#![expect(
    unsafe_code,
    reason = "pieces of one output are written by several threads, each its own"
)]

use std::marker::PhantomData;

use super::blocked::{BLOCK, View, ViewMut};
use super::conv::{Epilogue, Prologue};
use super::pointwise::Activation;

/// Memory of which several threads write disjoint parts.
pub(super) struct Shared<'a, T> {
    data: *mut T,
    len: usize,
    _borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: it only hands out pointers; those who write through them keep to their own part.
unsafe impl<T: Send> Sync for Shared<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Shared<'_, T> {}

impl<'a> Shared<'a, f32> {
    pub(super) fn new(mut view: ViewMut<'a>) -> Self {
        let slice = view.as_mut_slice();
        Self {
            data: slice.as_mut_ptr(),
            len: slice.len(),
            _borrow: PhantomData,
        }
    }
}

impl<'a, T> Shared<'a, T> {
    pub(super) fn of(slice: &'a mut [T]) -> Self {
        Self {
            data: slice.as_mut_ptr(),
            len: slice.len(),
            _borrow: PhantomData,
        }
    }

    /// # Safety
    /// Nobody else has any of these elements.
    #[expect(clippy::mut_from_ref, reason = "disjoint parts of borrowed memory")]
    pub(super) unsafe fn slice(&self, from: usize, len: usize) -> &mut [T] {
        assert!(
            from.checked_add(len).is_some_and(|end| end <= self.len),
            "a part of it"
        );
        // SAFETY: in bounds, and the caller's alone.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(from), len) }
    }
}

/// The epilogue, prepared.
pub(super) struct Finish<'a> {
    residual: Option<&'a [f32]>,
    pub(super) accumulate: bool,
    activation: Activation,
    pub(super) moments: bool,
    /// Floats of an output block.
    block: usize,
    channels: usize,
    /// Channels that fill up the last block would not stay zero by themselves.
    zero: bool,
}

impl<'a> Finish<'a> {
    pub(super) fn new(epilogue: &Epilogue<'a>, channels: usize, voxels: usize) -> Self {
        Self {
            residual: epilogue.residual.map(|r: View<'a>| r.as_slice()),
            accumulate: epilogue.accumulate,
            activation: epilogue.activation,
            moments: epilogue.moments,
            block: voxels * BLOCK,
            channels,
            zero: epilogue.activation.of(0.0) != 0.0 && !channels.is_multiple_of(BLOCK),
        }
    }

    /// Floats of an output block.
    pub(super) const fn block_floats(&self) -> usize {
        self.block
    }

    pub(super) const fn has_residual(&self) -> bool {
        self.residual.is_some()
    }

    /// Whether there is anything to do after the sums.
    pub(super) fn is_nothing(&self) -> bool {
        self.residual.is_none()
            && !self.accumulate
            && self.activation == Activation::Linear
            && !self.moments
    }

    /// Finishes `count` points that stand at `row`, which is `at` within a block of the whole output.
    ///
    /// # Safety
    /// They are in bounds and the caller's alone.
    #[inline(always)]
    pub(super) unsafe fn row(
        &self,
        block: usize,
        at: usize,
        count: usize,
        row: *mut f32,
        moments: &mut [[f64; 2]; BLOCK],
    ) {
        if self.is_nothing() {
            return;
        }
        let from = block * self.block + at;
        // SAFETY: the caller's.
        let row = unsafe { std::slice::from_raw_parts_mut(row, count * BLOCK) };
        self.values(block, from, row, moments);
    }

    /// Finishes points that will stand at float `from` of the output and the following.
    #[inline(always)]
    pub(super) fn values(
        &self,
        block: usize,
        from: usize,
        row: &mut [f32],
        moments: &mut [[f64; 2]; BLOCK],
    ) {
        if let Some(residual) = self.residual {
            let residual = &residual[from..from + row.len()];
            for (x, r) in row.iter_mut().zip(residual) {
                *x += *r;
            }
        }
        self.activation.apply(row);
        if self.zero && (block + 1) * BLOCK > self.channels {
            for point in row.as_chunks_mut::<BLOCK>().0 {
                point[self.channels - block * BLOCK..].fill(0.0);
            }
        }
        if self.moments {
            add_moments(row, moments);
        }
    }
}

/// Adds the sums of x and x² per lane.
#[inline(always)]
pub(super) fn add_moments(row: &[f32], moments: &mut [[f64; 2]; BLOCK]) {
    let (mut sums, mut squares) = ([0.0_f64; BLOCK], [0.0_f64; BLOCK]);
    for point in row.as_chunks::<BLOCK>().0 {
        for n in 0..BLOCK {
            let x = f64::from(point[n]);
            sums[n] += x;
            squares[n] += x * x;
        }
    }
    for n in 0..BLOCK {
        moments[n][0] += sums[n];
        moments[n][1] += squares[n];
    }
}

/// Applies the norm and activation of the input to points of `lanes` channels from `first` on.
#[inline(always)]
pub(super) fn activate_input(prologue: &Prologue<'_>, first: usize, lanes: usize, row: &mut [f32]) {
    if lanes == 1 {
        let (scale, offset) = (prologue.scale[first], prologue.offset[first]);
        for x in &mut *row {
            *x = *x * scale + offset;
        }
    } else {
        let (mut scale, mut offset) = ([0.0; BLOCK], [0.0; BLOCK]);
        let channels = (prologue.scale.len() - first).min(BLOCK);
        scale[..channels].copy_from_slice(&prologue.scale[first..first + channels]);
        offset[..channels].copy_from_slice(&prologue.offset[first..first + channels]);
        for point in row.as_chunks_mut::<BLOCK>().0 {
            for n in 0..BLOCK {
                point[n] = point[n] * scale[n] + offset[n];
            }
        }
    }
    prologue.activation.apply(row);
}

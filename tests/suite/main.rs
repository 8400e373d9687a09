//! One test binary, a module per capability.
#![allow(missing_docs)]

mod app;
mod nifti;
mod seg_export;

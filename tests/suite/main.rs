//! One test binary, a module per capability.
#![allow(missing_docs)]
mod nifti;

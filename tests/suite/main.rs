//! One test binary, a module per capability.
#![allow(missing_docs)]

mod app;
mod audit;
mod batch;
mod cascade;
mod channels;
mod cli;
mod dicom_dcm2niix;
mod dicom_decode;
mod dicom_missing;
mod dicom_read;
mod dicom_series;
mod engine;
mod envelope;
mod export;
mod graph;
mod models;
mod monai_bundle;
mod monai_networks;
mod nifti;
mod nnunet;
mod nnunet_agreement;
mod nnunet_program;
mod onnx;
mod onnx_package;
mod procedure;
mod procedure_monai;
mod program;
mod pytorch;
mod render;
mod seg_export;
mod signatures;
mod snapshots;
mod train_golden;
mod training;
mod window;

//! One test binary, a module per capability.
#![allow(missing_docs)]

mod app;
mod audit;
mod audit_forms;
mod audit_forward;
mod audit_processes;
mod audit_retention;
mod audit_table;
mod batch;
mod cascade;
mod channels;
mod cli;
mod comparison_window;
mod compress;
mod copy_window;
mod deidentify;
mod deidentify_faces;
mod deidentify_leaks;
mod deidentify_objects;
mod deidentify_people;
mod deidentify_pixels;
mod diagnosis;
mod dicom_dcm2niix;
mod dicom_decode;
mod dicom_missing;
mod dicom_read;
mod dicom_series;
mod elsewhere;
mod engine;
mod envelope;
mod evaluate_orientation;
mod explain;
mod export;
mod graph;
#[cfg(unix)]
mod key_file;
mod label_words;
mod lettering;
mod models;
mod monai_bundle;
mod monai_networks;
mod monai_zip;
mod nifti;
mod nnunet;
mod nnunet_agreement;
mod nnunet_program;
mod offload;
mod offload_gzip;
mod offload_managed;
#[cfg(unix)]
mod offload_oidc;
#[cfg(unix)]
mod offload_real;
mod offload_server;
#[cfg(unix)]
mod offload_servers;
#[cfg(unix)]
mod offload_started;
mod offload_tls;
mod offload_token;
mod onnx;
mod onnx_package;
mod procedure;
mod procedure_monai;
mod program;
mod pytorch;
mod registry;
mod remote;
mod remote_faults;
mod remote_findings;
mod remote_places;
mod remote_spread;
mod remote_window;
mod render;
mod report;
mod review;
mod seg_export;
mod signatures;
mod snapshots;
mod subgroups;
mod train_golden;
mod training;
mod training_dicom;
mod training_window;
mod vit;
mod window;

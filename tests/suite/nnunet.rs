//! nnU-Net's result folders: read in full, computed as PyTorch does, or refused by name.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::Device;
use serde_json::{Value, json};

use negatoscope::import::nnunet::{self, Encoder, Nonlinearity, Norm, Reader, Trained};
use negatoscope::import::pytorch::Checkpoint;
use negatoscope::inference::{Array, Program, reference};
use negatoscope::model::procedure::{Channel, Intensities, LabelRule, Resampling, Scheme};
use negatoscope::task::Task;

fn golden(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/nnunet")
        .join(case)
}

fn program(trained: &Trained, fold: usize) -> Program {
    let fold = &trained.folds[fold];
    let weights: HashMap<String, Array> = fold
        .tensors()
        .iter()
        .enumerate()
        .map(|(n, (name, tensor))| {
            let values = fold.read(n).unwrap();
            (name.clone(), Array::new(tensor.shape(), values))
        })
        .collect();
    let graph = Arc::new(trained.graph.clone());
    Program::new(graph, weights, &trained.configuration.patch_size).unwrap()
}

fn array_of(checkpoint: &Checkpoint, name: &str) -> Array {
    let tensor = checkpoint.root().get(name).unwrap().as_tensor().unwrap();
    Array::new(tensor.shape(), checkpoint.tensor_f32(tensor).unwrap())
}

/// The graph of each fold gives PyTorch's logits for a patch.
fn check_forward(case: &str) -> Trained {
    let trained = nnunet::open(&golden(case)).unwrap();
    let truth = Checkpoint::open(&golden(case).join("forward.pth")).unwrap();
    let x = array_of(&truth, "x");
    for (n, fold) in trained.folds.iter().enumerate() {
        let expected = array_of(&truth, &fold.name);
        let found = reference::run(&program(&trained, n), &x, &Device::Cpu, &Task::new()).unwrap();
        assert_eq!(found[0].shape, expected.shape);
        let largest = expected.values.iter().fold(0_f32, |a, v| a.max(v.abs()));
        let error = found[0]
            .values
            .iter()
            .zip(&expected.values)
            .fold(0_f32, |a, (f, e)| a.max((f - e).abs()));
        // f32 sums in another order.
        assert!(error <= 1e-5 * largest, "{case}: {error} of {largest}");
    }
    trained
}

#[test]
fn a_plain_network_of_two_folds_is_read_and_computes_as_pytorch() {
    let trained = check_forward("plain_3d");
    assert_eq!(trained.trainer, "nnUNetTrainer");
    assert_eq!(trained.mirroring_axes, [0, 1, 2]);
    let folds: Vec<_> = trained.folds.iter().map(|f| f.name.as_str()).collect();
    assert_eq!(folds, ["fold_0", "fold_1"]);
    assert_ne!(
        trained.folds[0].read(0).unwrap(),
        trained.folds[1].read(0).unwrap()
    );
    let plans = &trained.plans;
    assert_eq!(plans.transpose_forward, [1, 2, 0]);
    assert_eq!(plans.transpose_backward, [2, 0, 1]);
    assert_eq!(plans.reader, Reader::SimpleItk);
    assert_eq!(
        plans.configurations(),
        ["3d_lowres", "3d_fullres", "3d_cascade_fullres"]
    );
    let configuration = &trained.configuration;
    assert_eq!(configuration.name, "3d_fullres");
    assert_eq!(configuration.patch_size, [6, 8, 12]);
    assert_eq!(configuration.spacing, [3.0, 0.8, 0.8]);
    assert_eq!(
        configuration.channels,
        [Channel {
            scheme: Scheme::Ct(Intensities {
                mean: 100.5,
                std: 50.25,
                percentile_00_5: -5.0,
                percentile_99_5: 800.0
            }),
            use_mask: false
        }]
    );
    assert_eq!(configuration.resampling_data, Resampling::IMAGE);
    assert_eq!(configuration.resampling_segmentation, Resampling::LABELS);
    assert_eq!(configuration.resampling_probabilities, Resampling::LOGITS);
    let procedure = trained.procedure(Path::new("")).unwrap();
    assert_eq!(procedure.windows.mirror_axes, [0, 1, 2]);
    assert_eq!(procedure.labels, LabelRule::Argmax { classes: 3 });
    let network = &configuration.architecture;
    assert_eq!(network.encoder, Encoder::Plain);
    assert_eq!(network.features, [4, 6, 8]);
    assert_eq!(network.kernels[0], [1, 3, 3]);
    assert_eq!(
        network.nonlinearity,
        Some(Nonlinearity::LeakyRelu { slope: 0.01 })
    );
    let names: Vec<_> = trained.dataset.labels.iter().flatten().collect();
    assert_eq!(names, ["background", "anterior", "posterior"]);
    assert_eq!(trained.dataset.heads(), 3);
}

#[test]
fn a_cascade_takes_the_labels_of_the_stage_before() {
    let trained = check_forward("cascade_3d");
    let configuration = &trained.configuration;
    assert_eq!(configuration.previous_stage.as_deref(), Some("3d_lowres"));
    // Inherited.
    assert_eq!(configuration.patch_size, [6, 8, 12]);
    // One channel of the scan, two labels.
    assert_eq!(trained.graph.input(), Some((3, 3)));
    assert!(trained.mirroring_axes.is_empty());
    let before = trained.plans.configuration("3d_lowres", 1).unwrap();
    assert_eq!(before.next_stages, ["3d_cascade_fullres"]);
}

#[test]
fn the_older_form_of_plans_is_read() {
    let trained = check_forward("older_2d");
    assert_eq!(trained.configuration.architecture.features, [3, 6, 8]);
    assert_eq!(trained.configuration.patch_size, [8, 12]);
    assert_eq!(trained.mirroring_axes, [0, 1]);
}

#[test]
fn a_residual_network_with_regions_is_read() {
    let trained = check_forward("residual_3d");
    let architecture = &trained.configuration.architecture;
    assert_eq!(architecture.encoder, Encoder::Residual { stem: 4 });
    let dataset = &trained.dataset;
    assert_eq!(dataset.channels, ["CT", "MRI"]);
    assert_eq!(dataset.heads(), 2);
    let regions: Vec<_> = dataset
        .regions
        .iter()
        .map(|r| (r.name.as_str(), r.labels.as_slice(), r.written))
        .collect();
    assert_eq!(
        regions,
        [("whole", [1, 2].as_slice(), 1), ("core", [2].as_slice(), 2)]
    );
    assert_eq!(
        trained.configuration.channels[1],
        Channel {
            scheme: Scheme::ZScore,
            use_mask: true
        }
    );
    let procedure = trained.procedure(Path::new("")).unwrap();
    assert_eq!(procedure.labels, LabelRule::Regions { order: vec![1, 2] });
    assert_eq!(procedure.input_channels, 2);
}

#[test]
fn a_variant_with_batch_norm_is_read() {
    let trained = check_forward("variant_2d");
    let architecture = &trained.configuration.architecture;
    assert!(architecture.dropout && architecture.nonlinearity_first && !architecture.bias);
    assert!(matches!(
        architecture.norm,
        Some(Norm::Batch { affine: true, .. })
    ));
    assert_eq!(trained.mirroring_axes, [0]);
}

/// A copy of a golden folder with other plans or another data set is refused with these words.
fn check_refused(case: &str, file: &str, change: &dyn Fn(&mut Value), expected: &str) {
    let folder = tempfile::tempdir().unwrap();
    let from = golden(case);
    for name in ["plans.json", "dataset.json"] {
        let mut value: Value =
            serde_json::from_slice(&std::fs::read(from.join(name)).unwrap()).unwrap();
        if name == file {
            change(&mut value);
        }
        std::fs::write(folder.path().join(name), value.to_string()).unwrap();
    }
    std::fs::create_dir(folder.path().join("fold_0")).unwrap();
    let weights = "fold_0/checkpoint_final.pth";
    std::fs::copy(from.join(weights), folder.path().join(weights)).unwrap();
    let message = nnunet::open(folder.path()).expect_err(expected).to_string();
    assert!(message.contains(expected), "{message:?}, not {expected:?}");
}

#[test]
fn plans_that_are_not_understood_are_refused_by_the_name_of_the_field() {
    let at = |pointer: &'static str, value: Value, expected: &str| {
        let change = |plans: &mut Value| {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            let parent = plans.pointer_mut(parent).unwrap();
            if value == json!("REMOVE") {
                parent.as_object_mut().unwrap().remove(key).unwrap();
            } else {
                parent[key] = value.clone();
            }
        };
        check_refused("plain_3d", "plans.json", &change, expected);
    };
    let remove = || json!("REMOVE");
    at(
        "/transpose_forward",
        json!([0, 1, 1]),
        "transpose_forward is [0,1,1]",
    );
    at("/transpose_backward", json!([0, 1, 2]), "does not undo");
    at("/image_reader_writer", json!("Tiff3DIO"), "\"Tiff3DIO\"");
    at(
        "/label_manager",
        json!("MyLabels"),
        "label_manager is \"MyLabels\"",
    );
    at("/dataset_name", remove(), "dataset_name is missing");
    at(
        "/foreground_intensity_properties_per_channel/0/std",
        remove(),
        "per_channel.0.std is missing",
    );
    at(
        "/configurations/3d_fullres",
        remove(),
        "configurations.3d_fullres is missing",
    );
    at(
        "/configurations/3d_fullres/patch_size",
        remove(),
        "3d_fullres.patch_size is missing",
    );
    at(
        "/configurations/3d_fullres/patch_size",
        json!([6, 8]),
        "spacing is",
    );
    at(
        "/configurations/3d_fullres/patch_size",
        json!([6, 8, 13]),
        "does not fit patches",
    );
    at(
        "/configurations/3d_fullres/patch_size",
        json!([6, 8, 1e9]),
        "patch_size is",
    );
    at(
        "/configurations/3d_fullres/spacing",
        json!([1, 1, 0]),
        "spacing is [1,1,0]",
    );
    at(
        "/configurations/3d_fullres/preprocessor_name",
        json!("MyPre"),
        "\"MyPre\"",
    );
    at(
        "/configurations/3d_fullres/normalization_schemes",
        json!(["MyNorm"]),
        "[\"MyNorm\"]",
    );
    at(
        "/configurations/3d_fullres/normalization_schemes",
        json!([]),
        "for 1 channels",
    );
    at(
        "/configurations/3d_fullres/resampling_fn_data",
        json!("resample_torch_fornnunet"),
        "resampling_fn_data: the model asks for the resampling \"resample_torch_fornnunet\"",
    );
    at(
        "/configurations/3d_fullres/resampling_fn_data_kwargs/memefficient",
        json!(1),
        "resampling_fn_data_kwargs.memefficient is not understood",
    );
    at(
        "/configurations/3d_fullres/resampling_fn_seg_kwargs/is_seg",
        json!(false),
        "is_seg",
    );
    at(
        "/configurations/3d_fullres/inherits_from",
        json!("3d_fullres"),
        "leads in a circle",
    );
    at(
        "/configurations/3d_fullres/inherits_from",
        json!("other"),
        "configurations.other is missing",
    );
    at(
        "/configurations/3d_fullres/previous_stage",
        json!("other"),
        "previous_stage is \"other\"",
    );
    at(
        "/configurations/3d_fullres/architecture",
        remove(),
        "architecture is missing, and UNet_class_name",
    );
}

#[test]
fn networks_that_are_not_understood_are_refused_by_name() {
    let network = |field: &'static str, value: Value, expected: &str| {
        let change = |plans: &mut Value| {
            plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"][field] =
                value.clone();
        };
        check_refused("plain_3d", "plans.json", &change, expected);
    };
    let class = |value: &'static str| {
        let change = |plans: &mut Value| {
            plans["configurations"]["3d_fullres"]["architecture"]["network_class_name"] =
                json!(value);
        };
        check_refused("plain_3d", "plans.json", &change, value);
    };
    class("dynamic_network_architectures.architectures.primus.Primus");
    class("elsewhere.PlainConvUNet");
    network(
        "attention",
        json!(true),
        "arch_kwargs.attention is not understood",
    );
    network(
        "conv_op",
        json!("torch.nn.modules.conv.Conv2d"),
        "conv_op is",
    );
    network("conv_op", json!("os.system"), "conv_op is \"os.system\"");
    network("norm_op", json!("torch.nn.GroupNorm"), "norm_op is");
    network("nonlin", json!("torch.nn.Mish"), "nonlin is");
    network(
        "nonlin_kwargs",
        json!({"beta": 1}),
        "nonlin_kwargs.beta is not understood",
    );
    network("norm_op_kwargs", json!({"eps": 0}), "eps is 0");
    network("n_stages", json!(1), "n_stages is 1");
    network("n_stages", json!(4), "features_per_stage is [4,6,8]");
    network(
        "features_per_stage",
        json!([4, 6, 1e9]),
        "features_per_stage is",
    );
    network("kernel_sizes", json!([2, 3, 3]), "kernel_sizes is [2,3,3]");
    network("strides", json!([1, 0, 2]), "strides is [1,0,2]");
    // Weights that do not belong to the plans.
    network(
        "features_per_stage",
        json!([4, 6, 9]),
        "has shape [8, 6, 3, 3, 3], the plans say [9, 6, 3, 3, 3]",
    );
    network(
        "n_conv_per_stage",
        json!([1, 3, 1]),
        "encoder.stages.1.0.convs.2.conv.weight is missing",
    );
    network(
        "n_conv_per_stage",
        json!([1, 1, 1]),
        "is not used by this network",
    );
    network(
        "conv_bias",
        json!(false),
        ".bias is not used by this network",
    );
    network(
        "strides",
        json!([[1, 1, 1], [1, 2, 2], [2, 2, 1]]),
        "decoder.transpconvs.0.weight has shape",
    );
}

#[test]
fn data_sets_that_are_not_understood_are_refused() {
    let at = |field: &'static str, value: Value, expected: &str| {
        let change = |dataset: &mut Value| dataset[field] = value.clone();
        check_refused("plain_3d", "dataset.json", &change, expected);
    };
    at("channel_names", Value::Null, "channel_names is missing");
    at(
        "channel_names",
        json!({"1": "CT"}),
        "channel_names.0 is missing",
    );
    at(
        "channel_names",
        json!({"0": "CT", "1": "PET"}),
        "for 2 channels",
    );
    at(
        "labels",
        json!({"a": 1, "b": 2}),
        "labels.background is not 0",
    );
    at(
        "labels",
        json!({"background": 0, "a": 1, "b": 3}),
        "[0, 1, 3]",
    );
    at(
        "labels",
        json!({"background": 0, "a": 1, "b": 2, "ignore": 9}),
        "labels.ignore is not 3",
    );
    at(
        "labels",
        json!({"background": 0, "a": [1, 2], "b": 2}),
        "regions_class_order is missing",
    );
    at(
        "labels",
        json!({"background": 0, "a": "one"}),
        "labels.a is \"one\"",
    );
    at(
        "labels",
        json!({"background": 0, "a": 1}),
        "decoder.seg_layers.1.weight has shape",
    );
    at("file_ending", Value::Null, "file_ending is missing");
}

#[test]
fn incomplete_folders_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    assert!(!nnunet::is_result_folder(folder.path()));
    let message = |folder: &Path| nnunet::open(folder).unwrap_err().to_string();
    assert!(message(folder.path()).contains("could not be read"));
    for name in ["plans.json", "dataset.json"] {
        std::fs::copy(golden("plain_3d").join(name), folder.path().join(name)).unwrap();
    }
    assert!(nnunet::is_result_folder(folder.path()));
    assert!(message(folder.path()).contains("no fold with a checkpoint_final.pth"));
    std::fs::create_dir(folder.path().join("fold_all")).unwrap();
    let weights = folder.path().join("fold_all/checkpoint_final.pth");
    std::fs::copy(
        golden("plain_3d").join("fold_1/checkpoint_final.pth"),
        &weights,
    )
    .unwrap();
    assert_eq!(
        nnunet::open(folder.path()).unwrap().folds[0].name,
        "fold_all"
    );
    std::fs::write(folder.path().join("plans.json"), "{").unwrap();
    assert!(message(folder.path()).contains("is no JSON"));
}

#[test]
fn networks_that_nnunet_trained_are_read() {
    // Result folders made by tests/golden/nnunet/make.py; too large to keep.
    let Some(folder) = std::env::var_os("NEGATOSCOPE_NNUNET_DATA") else {
        println!("skipped: NEGATOSCOPE_NNUNET_DATA is not set");
        return;
    };
    let mut seen = 0;
    for dataset in std::fs::read_dir(Path::new(&folder).join("results")).unwrap() {
        for model in std::fs::read_dir(dataset.unwrap().path()).unwrap() {
            let trained = nnunet::open(&model.unwrap().path()).unwrap();
            for fold in &trained.folds {
                for n in 0..fold.tensors().len() {
                    fold.read(n).unwrap();
                }
            }
            println!(
                "{} {:?}",
                trained.configuration.name, trained.mirroring_axes
            );
            seen += 1;
        }
    }
    assert!(seen > 0);
}

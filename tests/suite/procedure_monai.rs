//! MONAI's sliding window and transforms against results of its own classes
//! (`tests/golden/procedure/make.py`).

use negatoscope::inference::procedure::{
    Accumulator, Image, plan_monai, predict_monai, prepare_monai,
};
use negatoscope::model::monai::{
    Activation, MonaiDecision, MonaiOutput, MonaiProcedure, MonaiTransform, MonaiWindows, Padding,
};
use negatoscope::task::Task;
use serde_json::Value;

use super::procedure::{Golden, Toy, close, numbers, triple};

const UNIT: [[f64; 4]; 3] = [
    [1.0, 0.0, 0.0, 0.0],
    [0.0, 1.0, 0.0, 0.0],
    [0.0, 0.0, 1.0, 0.0],
];

fn toy(golden: &Golden, case: &Value, roi: [usize; 3], dims: [usize; 3]) -> Toy {
    let weights = golden.array(&case["weights"]);
    let heads = weights.f32();
    let heads = heads.chunks_exact(weights.shape[1]).map(<[f32]>::to_vec);
    let patch = (0..3).map(|axis| {
        if roi[axis] == 0 {
            dims[axis]
        } else {
            roi[axis]
        }
    });
    Toy {
        weights: vec![heads.collect()],
        patch: patch.collect(),
        channels: 1,
        in_parts: false,
    }
}

/// Sums in 32 bits differ from torch's in the last bit: labels may differ where values tie.
fn agree(found: &[u8], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let same = found
        .iter()
        .zip(expected)
        .filter(|(a, b)| f64::from(**a) == **b);
    let agreement = same.count() as f64 / expected.len() as f64;
    println!("{what}: {:.4} %", agreement * 100.0);
    assert!(agreement >= 0.9999, "{what}: {agreement}");
}

fn run(
    image: Image,
    affine: [[f64; 4]; 3],
    procedure: &MonaiProcedure,
    network: &mut Toy,
) -> Vec<u8> {
    let task = Task::new();
    let prepared = prepare_monai(image, affine, &procedure.transforms, &task).unwrap();
    let predict = |network: &mut Toy, limit| {
        let plan = plan_monai(&prepared, procedure, Accumulator::Single, limit).unwrap();
        predict_monai(&prepared, &plan, network, &task)
            .unwrap()
            .data
    };
    let labels = predict(network, u64::MAX);
    // Small parts change nothing.
    let free = plan_monai(&prepared, procedure, Accumulator::Single, u64::MAX).unwrap();
    if let Ok(plan) = plan_monai(
        &prepared,
        procedure,
        Accumulator::Single,
        free.bytes * 9 / 10,
    ) {
        assert!(plan.parts() > 1);
        assert_eq!(labels, predict(network, free.bytes * 9 / 10));
    }
    labels
}

#[test]
fn sliding_windows_are_those_of_monai() {
    let golden = Golden::load();
    for case in golden.list("monai_windows") {
        let image = golden.array(&case["image"]);
        let roi: [usize; 3] = numbers(&case["roi"]).try_into().unwrap();
        let procedure = MonaiProcedure {
            transforms: Vec::new(),
            input_channels: 1,
            example: vec![16; 3],
            slices: false,
            windows: MonaiWindows {
                roi_size: roi,
                overlap: triple(&case["overlap"]),
                gaussian: case["gaussian"].as_bool().unwrap().then_some(0.125),
                padding: match case["padding"].as_str().unwrap() {
                    "reflect" => Padding::Reflect,
                    "replicate" => Padding::Replicate,
                    "circular" => Padding::Circular,
                    _ => Padding::Constant(case["cval"].as_f64().unwrap() as f32),
                },
            },
            output: MonaiOutput {
                activation: Activation::None,
                decision: MonaiDecision::Argmax { classes: 4 },
                linear: true,
                keep_largest: None,
            },
        };
        let mut network = toy(&golden, case, roi, image.dims());
        let found = run(image.image(), UNIT, &procedure, &mut network);
        let expected = golden.array(&case["labels"]);
        agree(
            &found,
            &expected.data,
            &format!("{} {}", case["roi"], case["padding"]),
        );
    }
}

#[test]
fn intensities_are_scaled_as_monai_does() {
    let golden = Golden::load();
    let range = |from, to, clip| MonaiTransform::ScaleIntensityRange {
        from,
        to: Some(to),
        clip,
    };
    let percentiles =
        |percentiles, clip, relative| MonaiTransform::ScaleIntensityRangePercentiles {
            percentiles,
            to: Some([0.0, 1.0]),
            clip,
            relative,
            channel_wise: relative,
        };
    let scale = |to, channel_wise| MonaiTransform::ScaleIntensity {
        to: Some(to),
        channel_wise,
    };
    let normalize = |nonzero| MonaiTransform::NormalizeIntensity {
        nonzero,
        channel_wise: nonzero,
    };
    let transforms = [
        scale([0.0, 1.0], false),
        scale([-1.0, 2.0], true),
        range([-175.0, 250.0], [0.0, 1.0], true),
        range([-175.0, 250.0], [-1.0, 1.0], false),
        percentiles([1.0, 99.0], true, false),
        percentiles([5.0, 90.0], false, true),
        normalize(false),
        normalize(true),
    ];
    let cases = golden.list("monai_intensities");
    assert_eq!(cases.len(), transforms.len());
    for (case, transform) in cases.iter().zip(transforms) {
        let image = golden.array(&case["image"]).image();
        let found = prepare_monai(image, UNIT, &[transform], &Task::new()).unwrap();
        let expected = golden.array(&case["output"]);
        close(
            &found.image.data,
            &expected.data,
            case["name"].as_str().unwrap(),
        );
    }
}

fn transform(step: &Value) -> MonaiTransform {
    let argument = &step[1];
    match step[0].as_str().unwrap() {
        "o" => {
            let codes: Vec<char> = argument.as_str().unwrap().chars().collect();
            MonaiTransform::Orientation {
                axcodes: codes.try_into().unwrap(),
            }
        }
        "s" => MonaiTransform::Spacing {
            pixdim: triple(&argument["pixdim"]),
            linear: true,
        },
        "r" => MonaiTransform::ScaleIntensityRange {
            from: [-175.0, 250.0],
            to: Some([0.0, 1.0]),
            clip: true,
        },
        "c" => MonaiTransform::CropForeground {
            margin: [argument.as_u64().unwrap() as usize; 3],
            k_divisible: [3; 3],
            allow_smaller: false,
        },
        "p" => MonaiTransform::SpatialPad {
            spatial_size: [20, 5, 24],
            end: false,
            value: 0.0,
        },
        "d" => MonaiTransform::DivisiblePad { k: [4; 3] },
        other => panic!("transform {other}"),
    }
}

#[test]
fn predictions_come_back_through_monais_transforms() {
    let golden = Golden::load();
    for case in golden.list("monai_whole") {
        let name = case["name"].as_str().unwrap();
        let image = golden.array(&case["image"]);
        let transforms: Vec<_> = case["steps"]
            .as_array()
            .unwrap()
            .iter()
            .map(transform)
            .collect();
        let rows = [0, 1, 2]
            .map(|row| [0, 1, 2, 3].map(|c: usize| case["affine"][row][c].as_f64().unwrap()));
        let prepared = prepare_monai(image.image(), rows, &transforms, &Task::new()).unwrap();
        let expected = golden.array(&case["prepared"]);
        assert_eq!(prepared.image.dims, expected.dims(), "{name}");
        close(&prepared.image.data, &expected.data, name);
        let activation = match case["activation"].as_str().unwrap() {
            "softmax" => Activation::Softmax,
            "sigmoid" => Activation::Sigmoid,
            _ => Activation::None,
        };
        let procedure = MonaiProcedure {
            transforms,
            input_channels: 1,
            example: vec![16; 3],
            slices: false,
            windows: MonaiWindows {
                roi_size: [10, 12, 8],
                overlap: [0.25; 3],
                gaussian: Some(0.125),
                padding: Padding::Constant(0.0),
            },
            output: MonaiOutput {
                activation,
                decision: if activation == Activation::Sigmoid {
                    MonaiDecision::Threshold {
                        order: vec![2, 1, 3],
                        threshold: 0.5,
                    }
                } else {
                    MonaiDecision::Argmax { classes: 3 }
                },
                linear: case["linear"].as_bool().unwrap(),
                keep_largest: None,
            },
        };
        let mut network = toy(&golden, case, [10, 12, 8], expected.dims());
        let found = run(image.image(), rows, &procedure, &mut network);
        agree(&found, &golden.array(&case["labels"]).data, name);
    }
}

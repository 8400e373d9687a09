//! nnU-Net's procedure against results of its own functions (`tests/golden/procedure/make.py`).

use std::fs;
use std::path::PathBuf;

use negatoscope::inference::procedure::{
    Accumulator, Box3, Channel, Error, Grids, Image, Intensities, LabelRule, Labels, NetworkError,
    PatchNetwork, Prepared, Preprocessing, PreviousStage, Procedure, Resampling, Scheme,
    WindowRule, importance_map, new_shape, plan_stream, predict_streamed, prepare, resample_image,
    resample_labels, window_starts,
};
use negatoscope::task::Task;
use proptest::prelude::*;
use serde_json::Value;

pub(crate) struct Golden {
    cases: Value,
    arrays: Vec<u8>,
}

pub(crate) struct Array {
    pub(crate) shape: Vec<usize>,
    pub(crate) data: Vec<f64>,
}

impl Golden {
    pub(crate) fn load() -> Self {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/procedure");
        let text = fs::read_to_string(folder.join("cases.json")).unwrap();
        Self {
            cases: serde_json::from_str(&text).unwrap(),
            arrays: fs::read(folder.join("arrays.bin")).unwrap(),
        }
    }

    pub(crate) fn array(&self, place: &Value) -> Array {
        let shape: Vec<usize> = numbers(&place["shape"]);
        let at = place["at"].as_u64().unwrap() as usize;
        let bytes = &self.arrays[at..];
        let count = shape.iter().product();
        let read = |width: usize, value: &dyn Fn(&[u8]) -> f64| {
            bytes.chunks_exact(width).take(count).map(value).collect()
        };
        let data: Vec<f64> = match place["type"].as_str().unwrap() {
            "f32" => read(4, &|b| f32::from_le_bytes(b.try_into().unwrap()).into()),
            "i16" => read(2, &|b| i16::from_le_bytes(b.try_into().unwrap()).into()),
            "u8" => read(1, &|b| b[0].into()),
            other => panic!("array of {other}"),
        };
        assert_eq!(data.len(), count);
        Array { shape, data }
    }

    pub(crate) fn list(&self, name: &str) -> &Vec<Value> {
        self.cases[name].as_array().unwrap()
    }
}

impl Array {
    pub(crate) fn f32(&self) -> Vec<f32> {
        self.data.iter().map(|&v| v as f32).collect()
    }

    pub(crate) fn dims(&self) -> [usize; 3] {
        self.shape[self.shape.len() - 3..].try_into().unwrap()
    }

    pub(crate) fn image(&self) -> Image {
        Image::new(self.shape[0], self.dims(), self.f32()).unwrap()
    }
}

pub(crate) fn numbers(value: &Value) -> Vec<usize> {
    let list = value.as_array().unwrap();
    list.iter().map(|v| v.as_u64().unwrap() as usize).collect()
}

pub(crate) fn triple(value: &Value) -> [f64; 3] {
    [0, 1, 2].map(|axis| value[axis].as_f64().unwrap())
}

pub(crate) fn close(found: &[f32], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    // scipy computes in f64; here results are kept in f32 after each axis. Relative to the largest value,
    // since splines subtract.
    let most = expected.iter().fold(0.0_f64, |most, v| most.max(v.abs()));
    let worst = found
        .iter()
        .zip(expected)
        .map(|(&a, &b)| (f64::from(a) - b).abs())
        .fold(0.0, f64::max);
    assert!(
        worst <= 1e-6 * most.max(1e-30),
        "{what}: {worst} off, of {most}"
    );
}

#[test]
fn images_are_resampled_as_nnunet_does() {
    let golden = Golden::load();
    for case in golden.list("resample_images") {
        let (input, expected) = (golden.array(&case["input"]), golden.array(&case["output"]));
        let rule = Resampling::named(
            "resample_data_or_seg_to_shape",
            false,
            case["order"].as_u64().unwrap() as u8,
            case["order_z"].as_u64().unwrap() as u8,
            case["force"].as_bool(),
        )
        .unwrap();
        let (current, new) = (triple(&case["current"]), triple(&case["new"]));
        let to = expected.dims();
        let found = resample_image(input.image(), to, current, new, &rule, &Task::new()).unwrap();
        let what = format!("{:?} to {to:?}, {rule:?}", input.shape);
        close(&found.data, &expected.data, &what);
    }
}

#[test]
fn labels_are_resampled_as_nnunet_does() {
    let golden = Golden::load();
    for case in golden.list("resample_labels") {
        let (input, expected) = (golden.array(&case["input"]), golden.array(&case["output"]));
        let rule = Resampling {
            order: case["order"].as_u64().unwrap() as u8,
            order_z: case["order_z"].as_u64().unwrap() as u8,
            ..Resampling::LABELS
        };
        let labels: Vec<i16> = input.data.iter().map(|&v| v as i16).collect();
        let expected_labels: Vec<i16> = expected.data.iter().map(|&v| v as i16).collect();
        let found = resample_labels(
            &labels,
            input.dims(),
            expected.dims(),
            triple(&case["current"]),
            triple(&case["new"]),
            &rule,
        )
        .unwrap();
        let wrong = found.iter().zip(&expected_labels).filter(|(a, b)| a != b);
        assert_eq!(
            wrong.count(),
            0,
            "{:?} to {:?}",
            input.shape,
            expected.shape
        );
    }
}

#[test]
fn grids_steps_and_weights_are_those_of_nnunet() {
    let golden = Golden::load();
    for case in golden.list("new_shapes") {
        let old: [usize; 3] = numbers(&case[0]).try_into().unwrap();
        let found = new_shape(old, triple(&case[1]), triple(&case[2])).unwrap();
        assert_eq!(found.to_vec(), numbers(&case[3]), "{case}");
    }
    for case in golden.list("steps") {
        let [size, patch] = [0, 1].map(|at| case[at].as_u64().unwrap() as usize);
        let found = window_starts(size, patch, case[2].as_f64().unwrap());
        assert_eq!(found, numbers(&case[3]), "{case}");
    }
    for case in golden.list("gaussians") {
        let half = case["half"].as_bool().unwrap();
        let found = importance_map(&numbers(&case["patch"]), half);
        let expected = golden.array(&case["map"]).f32();
        assert_eq!(found.len(), expected.len());
        for (&a, &b) in found.iter().zip(&expected) {
            // The last bit of exp may differ between mathematical libraries.
            let off = (a - b).abs() / b;
            assert!(
                off <= if half { 0.0 } else { 2e-7 },
                "{}: {a} {b}",
                case["patch"]
            );
        }
    }
}

/// The toy network of `make.py`, in the same steps of f32.
pub(crate) struct Toy {
    /// `[fold][head][weight]`.
    pub(crate) weights: Vec<Vec<Vec<f32>>>,
    pub(crate) patch: Vec<usize>,
    pub(crate) channels: usize,
    /// Hands heads on one by one.
    pub(crate) in_parts: bool,
}

impl PatchNetwork for Toy {
    fn run(
        &mut self,
        fold: usize,
        patch: &[f32],
        take: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), NetworkError> {
        let voxels: usize = self.patch.iter().product();
        assert_eq!(patch.len(), voxels * self.channels);
        let columns = self.patch[self.patch.len() - 1];
        let rows = self.patch[self.patch.len() - 2];
        let first_axis = voxels / self.patch[0];
        let mut all = Vec::new();
        for w in &self.weights[fold] {
            for at in 0..voxels {
                let right = if at % columns + 1 < columns {
                    patch[at + 1]
                } else {
                    0.0
                };
                let down = if at / columns % rows + 1 < rows {
                    patch[at + columns]
                } else {
                    0.0
                };
                let before = if at >= first_axis {
                    patch[at - first_axis]
                } else {
                    0.0
                };
                let mut y = patch[at] * w[0];
                y += right * w[1];
                y += down * w[2];
                y += before * w[3];
                for c in 1..self.channels {
                    y += patch[c * voxels + at] * w[3 + c];
                }
                all.push(y + w[w.len() - 1]);
            }
        }
        if self.in_parts {
            for (head, logits) in all.chunks_exact(voxels).enumerate() {
                take(head, logits);
            }
        } else {
            take(0, &all);
        }
        Ok(())
    }
}

fn procedure(case: &Value, channels: usize) -> Procedure {
    let transpose: [usize; 3] = numbers(&case["transpose"]).try_into().unwrap();
    let mut backward = [0; 3];
    for (axis, &from) in transpose.iter().enumerate() {
        backward[from] = axis;
    }
    let intensities = Intensities {
        mean: 31.25,
        std: 117.5,
        percentile_00_5: -180.0,
        percentile_99_5: 260.5,
    };
    let schemes = case["schemes"].as_array().unwrap().iter();
    let channel_rules = schemes
        .zip(case["masks"].as_array().unwrap())
        .map(|(scheme, mask)| Channel {
            scheme: Scheme::named(scheme.as_str().unwrap(), Some(intensities)).unwrap(),
            use_mask: mask.as_bool().unwrap(),
        });
    let target = case["target"].as_array().unwrap();
    let heads = case["heads"].as_u64().unwrap() as usize;
    Procedure {
        preprocessing: Preprocessing {
            transpose_forward: transpose,
            transpose_backward: backward,
            channels: channel_rules.collect(),
            target_spacing: target.iter().map(|v| v.as_f64().unwrap()).collect(),
            whole_image: None,
            resample_image: Resampling::IMAGE,
            resample_labels: Resampling::LABELS,
            resample_logits: Resampling::LOGITS,
        },
        input_channels: channels,
        windows: WindowRule {
            patch_size: numbers(&case["patch"]),
            step: case["step"].as_f64().unwrap(),
            gaussian: case["gaussian"].as_bool().unwrap(),
            mirror_axes: match &case["mirror"] {
                Value::Null => Vec::new(),
                axes => numbers(axes),
            },
        },
        labels: match &case["regions"] {
            Value::Null => LabelRule::Argmax { classes: heads },
            order => LabelRule::Regions {
                order: numbers(order).iter().map(|&label| label as u8).collect(),
            },
        },
    }
}

fn toy(golden: &Golden, case: &Value, channels: usize) -> Toy {
    let weights = case["weights"].as_array().unwrap().iter().map(|fold| {
        let fold = golden.array(fold);
        let heads = fold.f32();
        heads
            .chunks_exact(fold.shape[1])
            .map(<[f32]>::to_vec)
            .collect()
    });
    Toy {
        weights: weights.collect(),
        patch: numbers(&case["patch"]),
        channels,
        in_parts: false,
    }
}

#[test]
fn whole_predictions_are_those_of_nnunet() {
    let golden = Golden::load();
    for case in golden.list("whole") {
        let name = case["name"].as_str().unwrap();
        let image = golden.array(&case["image"]);
        let expected_input = golden.array(&case["prepared"]);
        let procedure = procedure(case, expected_input.shape[0]);
        let previous = (!case["previous"].is_null()).then(|| {
            let array = golden.array(&case["previous"]);
            Labels {
                dims: array.dims(),
                data: array.data.iter().map(|&v| v as u8).collect(),
            }
        });
        let foreground: Vec<u8> = numbers(&case["foreground"])
            .iter()
            .map(|&v| v as u8)
            .collect();
        let previous = previous.as_ref().map(|labels| PreviousStage {
            labels,
            foreground: &foreground,
        });
        let task = Task::new();
        let prepared = prepare(
            image.image(),
            triple(&case["spacing"]),
            &procedure.preprocessing,
            previous,
            &task,
        )
        .unwrap();
        let crop = prepared.grids.crop;
        let bbox: Vec<usize> = (0..3).flat_map(|a| [crop.start[a], crop.end[a]]).collect();
        let expected_bbox: Vec<usize> = case["bbox"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(numbers)
            .collect();
        assert_eq!(bbox, expected_bbox, "{name}");
        assert_eq!(prepared.image.dims, expected_input.dims(), "{name}");
        let mut input = prepared.image.data.clone();
        for label in prepared.one_hot.iter().flat_map(|o| &o.foreground) {
            let labels = &prepared.one_hot.as_ref().unwrap().labels;
            input.extend(
                labels
                    .iter()
                    .map(|found| f32::from(u8::from(found == label))),
            );
        }
        close(&input, &expected_input.data, name);

        let expected = golden.array(&case["labels"]);
        let mut network = toy(&golden, case, expected_input.shape[0]);
        // nnU-Net sums in 16 bits; so does `Half`, to the bit. Without its rounding, voxels differ whose
        // logits are as near to each other as 16 bits can tell: many here, since the toy's outputs are
        // multiples of one smooth channel.
        for (accumulator, part) in [
            (Accumulator::Half, 1.0),
            (Accumulator::HalfSum, 0.997),
            (Accumulator::Single, 0.997),
        ] {
            let folds = network.weights.len();
            let plan =
                plan_stream(&prepared.grids, &procedure, folds, accumulator, u64::MAX).unwrap();
            let found =
                predict_streamed(&prepared, &procedure, &plan, &mut network, &task).unwrap();
            assert_eq!(found.dims, expected.dims(), "{name}");
            let same = found
                .data
                .iter()
                .zip(&expected.data)
                .filter(|(a, b)| f64::from(**a) == **b);
            let agreement = same.count() as f64 / expected.data.len() as f64;
            println!("{name}, {accumulator:?}: {:.4} %", agreement * 100.0);
            assert!(agreement >= part, "{name}, {accumulator:?}: {agreement}");
        }
    }
}

/// Numbers that look random and are the same every time.
fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed | 1;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

#[derive(Clone, Debug)]
struct Generated {
    dims: [usize; 3],
    network: [usize; 3],
    patch: [usize; 3],
    heads: usize,
    folds: usize,
    step: f64,
    flat: bool,
    mirror: bool,
    coarse_z: bool,
    seed: u64,
}

fn generated() -> impl Strategy<Value = Generated> {
    let size = || [1_usize..12, 1_usize..22, 1_usize..22];
    (
        size(),
        size(),
        [1_usize..9, 1_usize..12, 1_usize..12],
        (1_usize..5, 1_usize..3, any::<u64>()),
        prop_oneof![Just(0.5), Just(0.3), Just(1.0)],
        any::<[bool; 4]>(),
    )
        .prop_map(
            |(dims, network, patch, (heads, folds, seed), step, [flat, mirror, coarse_z, same])| {
                Generated {
                    dims,
                    network: if same { dims } else { network },
                    patch,
                    heads,
                    folds,
                    step,
                    flat,
                    mirror,
                    coarse_z,
                    seed,
                }
            },
        )
}

impl Generated {
    fn parts(&self) -> (Prepared, Procedure, Toy) {
        let mut patch = self.patch.to_vec();
        if self.flat {
            patch.remove(0);
        }
        let procedure = Procedure {
            preprocessing: Preprocessing {
                transpose_forward: [2, 0, 1],
                transpose_backward: [1, 2, 0],
                channels: Vec::new(),
                target_spacing: vec![1.0; 3],
                whole_image: None,
                resample_image: Resampling::IMAGE,
                resample_labels: Resampling::LABELS,
                resample_logits: Resampling {
                    force_separate_z: Some(self.coarse_z),
                    ..Resampling::LOGITS
                },
            },
            input_channels: 2,
            windows: WindowRule {
                mirror_axes: if self.mirror {
                    (0..patch.len()).collect()
                } else {
                    Vec::new()
                },
                patch_size: patch.clone(),
                step: self.step,
                gaussian: true,
            },
            labels: LabelRule::Argmax {
                classes: self.heads,
            },
        };
        let voxels: usize = self.network.iter().product();
        let before_crop = self.dims.map(|size| size + 3);
        let prepared = Prepared {
            image: Image::new(2, self.network, noise(2 * voxels, self.seed)).unwrap(),
            one_hot: None,
            grids: Grids {
                before_crop,
                crop: Box3 {
                    start: [1, 2, 0],
                    end: [self.dims[0] + 1, self.dims[1] + 2, self.dims[2]],
                },
                network: self.network,
                original_spacing: [1.0; 3],
                spacing: [2.0, 1.0, 1.0],
            },
        };
        let fold = |f| {
            noise(self.heads * 6, self.seed ^ f)
                .chunks_exact(6)
                .map(<[f32]>::to_vec)
                .collect()
        };
        let toy = Toy {
            weights: (1..=self.folds as u64).map(fold).collect(),
            patch,
            channels: 2,
            in_parts: false,
        };
        (prepared, procedure, toy)
    }
}

/// The definition: everything on whole grids. Gives the logits on the cropped original grid.
fn plain(prepared: &Prepared, procedure: &Procedure, toy: &mut Toy) -> Image {
    let patch = procedure.windows.patch().unwrap();
    let image = &prepared.image;
    let padded = [0, 1, 2].map(|axis| image.dims[axis].max(patch[axis]));
    let before = [0, 1, 2].map(|axis| (padded[axis] - image.dims[axis]) / 2);
    let starts = [0, 1, 2].map(|axis| {
        if axis == 0 && procedure.windows.is_2d() {
            (0..padded[0]).collect()
        } else {
            window_starts(padded[axis], patch[axis], procedure.windows.step)
        }
    });
    let weights = importance_map(&procedure.windows.patch_size, false);
    let at = |dims: [usize; 3], c: usize, p: [usize; 3]| {
        ((c * dims[0] + p[0]) * dims[1] + p[1]) * dims[2] + p[2]
    };
    let inside = |p: [usize; 3]| {
        let p = [0, 1, 2].map(|axis| p[axis].wrapping_sub(before[axis]));
        (0..3).all(|axis| p[axis] < image.dims[axis]).then_some(p)
    };
    let voxels = |start: [usize; 3]| {
        (0..patch[0]).flat_map(move |z| {
            (0..patch[1]).flat_map(move |y| {
                (0..patch[2]).map(move |x| ([z, y, x], [start[0] + z, start[1] + y, start[2] + x]))
            })
        })
    };
    let heads = procedure.labels.heads();
    let size: usize = padded.iter().product();
    let (mut sums, mut weight_sums) = (vec![0.0_f64; heads * size], vec![0.0_f64; size]);
    let shift = usize::from(procedure.windows.is_2d());
    let flips = 1 << procedure.windows.mirror_axes.len();
    for &z in &starts[0] {
        for &y in &starts[1] {
            for &x in &starts[2] {
                for (inner, outer) in voxels([z, y, x]) {
                    weight_sums[at(padded, 0, outer)] += f64::from(weights[at(patch, 0, inner)]);
                }
                for flip in 0..flips {
                    let turned = |p: [usize; 3]| {
                        [0, 1, 2].map(|axis: usize| {
                            if axis >= shift && flip >> (axis - shift) & 1 == 1 {
                                patch[axis] - 1 - p[axis]
                            } else {
                                p[axis]
                            }
                        })
                    };
                    let mut input = vec![0.0; 2 * patch.iter().product::<usize>()];
                    for (inner, outer) in voxels([z, y, x]) {
                        for c in 0..2 {
                            if let Some(from) = inside(outer) {
                                input[at(patch, c, turned(inner))] =
                                    image.data[at(image.dims, c, from)];
                            }
                        }
                    }
                    for fold in 0..toy.weights.len() {
                        let mut take = |_: usize, logits: &[f32]| {
                            for (inner, outer) in voxels([z, y, x]) {
                                for head in 0..heads {
                                    let logit = logits[at(patch, head, turned(inner))];
                                    sums[at(padded, head, outer)] +=
                                        f64::from(logit * weights[at(patch, 0, inner)]);
                                }
                            }
                        };
                        toy.run(fold, &input, &mut take).unwrap();
                    }
                }
            }
        }
    }
    let share = (flips * toy.weights.len()) as f64;
    let mut logits = Vec::new();
    for head in 0..heads {
        for z in 0..image.dims[0] {
            for y in 0..image.dims[1] {
                for x in 0..image.dims[2] {
                    let p = [z + before[0], y + before[1], x + before[2]];
                    let sum = sums[at(padded, head, p)] / weight_sums[at(padded, 0, p)] / share;
                    logits.push(sum as f32);
                }
            }
        }
    }
    let grids = &prepared.grids;
    resample_image(
        Image::new(heads, image.dims, logits).unwrap(),
        grids.crop.size(),
        grids.spacing,
        grids.original_spacing,
        &procedure.preprocessing.resample_logits,
        &Task::new(),
    )
    .unwrap()
}

/// A network whose result is watched, over an earlier pass of nothing but label 200.
struct Watched<'a> {
    toy: &'a mut Toy,
    dims: [usize; 3],
    shown: Vec<Vec<u8>>,
}

impl PatchNetwork for Watched<'_> {
    fn run(
        &mut self,
        fold: usize,
        patch: &[f32],
        take: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), NetworkError> {
        self.toy.run(fold, patch, take)
    }

    fn earlier(&mut self) -> Option<Labels> {
        let data = vec![200; self.dims.iter().product()];
        Some(Labels {
            dims: self.dims,
            data,
        })
    }

    fn seen(&mut self, labels: &Labels) {
        self.shown.push(labels.data.clone());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn streamed_labels_are_those_of_whole_grids_whatever_the_parts(case in generated()) {
        let (prepared, procedure, mut toy) = case.parts();
        let predict = |toy: &mut Toy, accumulator, limit| {
            let plan = plan_stream(&prepared.grids, &procedure, case.folds, accumulator, limit).unwrap();
            predict_streamed(&prepared, &procedure, &plan, toy, &Task::new()).unwrap()
        };
        let found = predict(&mut toy, Accumulator::Single, u64::MAX);

        let logits = plain(&prepared, &procedure, &mut toy);
        let grids = &prepared.grids;
        // Transposed backward: axis a of the result is axis [1, 2, 0][a] of the network's order.
        let reader = [1, 2, 0].map(|axis| grids.before_crop[axis]);
        prop_assert_eq!(found.dims, reader);
        let mut outside = found.data.clone();
        let [depth, rows, columns] = grids.crop.size();
        for at in 0..depth * rows * columns {
            let p = [
                at / (rows * columns) + grids.crop.start[0],
                at / columns % rows + grids.crop.start[1],
                at % columns + grids.crop.start[2],
            ];
            let to = (p[1] * reader[1] + p[2]) * reader[2] + p[0];
            let label = usize::from(std::mem::take(&mut outside[to]));
            let voxel: Vec<f32> = (0..case.heads).map(|head| logits.channel(head)[at]).collect();
            let most = voxel.iter().copied().fold(f32::MIN, f32::max);
            // Sums of a few f32 of about 1: both orders of adding agree to 1e-5.
            prop_assert!(voxel[label] >= most - 1e-5, "{voxel:?} became {label}");
        }
        prop_assert!(outside.iter().all(|&label| label == 0));

        for accumulator in [Accumulator::Single, Accumulator::Half, Accumulator::HalfSum] {
            let whole = predict(&mut toy, accumulator, u64::MAX);
            let least = match plan_stream(&prepared.grids, &procedure, case.folds, accumulator, 0) {
                Err(Error::Memory { needed_bytes, .. }) => needed_bytes,
                other => panic!("{other:?}"),
            };
            toy.in_parts = true;
            let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
            let parts = pool.install(|| predict(&mut toy, accumulator, least));
            toy.in_parts = false;
            prop_assert_eq!(&whole, &parts);

            // On top of an earlier pass the mask grows in place, and ends as the same.
            let plan = plan_stream(&prepared.grids, &procedure, case.folds, accumulator, least).unwrap();
            let mut watched = Watched { toy: &mut toy, dims: whole.dims, shown: Vec::new() };
            let over = predict_streamed(&prepared, &procedure, &plan, &mut watched, &Task::new()).unwrap();
            prop_assert_eq!(&whole, &over);
            prop_assert_eq!(watched.shown.last(), Some(&whole.data));
            let unlike = |shown: &Vec<u8>| shown.iter().zip(&whole.data).filter(|(a, b)| a != b).count();
            prop_assert!(watched.shown.iter().map(unlike).is_sorted_by(|a, b| a >= b));
        }
    }
}

/// 117 classes and the background on the grid of a whole-body scan.
fn large() -> (Procedure, [usize; 3]) {
    let procedure = Procedure {
        preprocessing: Preprocessing {
            transpose_forward: [0, 1, 2],
            transpose_backward: [0, 1, 2],
            channels: vec![Channel {
                scheme: Scheme::None,
                use_mask: false,
            }],
            target_spacing: vec![1.0; 3],
            whole_image: None,
            resample_image: Resampling::IMAGE,
            resample_labels: Resampling::LABELS,
            resample_logits: Resampling::LOGITS,
        },
        input_channels: 1,
        windows: WindowRule {
            patch_size: vec![128; 3],
            step: 0.5,
            gaussian: true,
            mirror_axes: Vec::new(),
        },
        labels: LabelRule::Argmax { classes: 118 },
    };
    (procedure, [824, 512, 512])
}

const FOUR_GB: u64 = 4_000_000_000;
/// The image in f32, and room for the program and a small network.
const BESIDES: u64 = 824 * 512 * 512 * 4 + 250_000_000;

#[test]
fn a_large_scan_with_many_classes_is_planned_below_four_gigabytes() {
    let (procedure, dims) = large();
    let grids = Grids::new(dims, [1.0; 3], &procedure.preprocessing, None).unwrap();
    let plan = |limit| plan_stream(&grids, &procedure, 1, Accumulator::Half, limit).unwrap();
    let (free, bounded) = (plan(u64::MAX), plan(FOUR_GB - BESIDES));
    // All logits at once would be 118 × 216 million.
    assert!(free.bytes < 118 * 824 * 512 * 512 * 2 / 9);
    assert!(bounded.bytes <= FOUR_GB - BESIDES);
    // Same spacing, nothing turned: the image is worked on where it lies.
    let image = 824 * 512 * 512 * 4;
    assert_eq!(grids.prepare_bytes(&procedure.preprocessing), image);
    assert_eq!(grids.image_bytes(1), image);
    // Windows across the border of two parts run twice: no more than a third of all.
    assert!(
        bounded.windows * 3 <= free.windows * 4,
        "{} {}",
        bounded.windows,
        free.windows
    );
    // Beyond its labels, a longer scan takes nothing more (both lengths have full steps).
    let long = |rows| {
        let grids = Grids::new([rows, 512, 512], [1.0; 3], &procedure.preprocessing, None).unwrap();
        let plan = plan_stream(&grids, &procedure, 1, Accumulator::Half, u64::MAX).unwrap();
        plan.bytes - rows as u64 * 512 * 512
    };
    assert_eq!(long(128 + 64 * 4), long(128 + 64 * 20));
}

type Change = dyn Fn(&mut Procedure);

#[test]
fn absurd_rules_are_refused_before_they_cost_anything() {
    let (procedure, dims) = large();
    let refused = |change: &Change| {
        let mut changed = procedure.clone();
        change(&mut changed);
        let grids = Grids::new(dims, [1.0; 3], &changed.preprocessing, None);
        let plan =
            grids.and_then(|grids| plan_stream(&grids, &changed, 1, Accumulator::Half, FOUR_GB));
        plan.unwrap_err().to_string()
    };
    let cases: [(&Change, &str); 9] = [
        (&|p| p.windows.step = 1e-12, "windows of [128, 128, 128]"),
        (&|p| p.windows.step = f64::NAN, "step NaN"),
        (
            &|p| p.windows.patch_size = vec![usize::MAX / 2; 3],
            "a window of",
        ),
        (
            &|p| p.windows.patch_size = vec![0, 8, 8],
            "a patch of [0, 8, 8]",
        ),
        (
            &|p| p.windows.mirror_axes = vec![0; 64],
            "more than three axes",
        ),
        (
            &|p| p.preprocessing.target_spacing = vec![1e-9; 3],
            "824 voxels of 1 mm",
        ),
        (
            &|p| p.preprocessing.target_spacing = vec![0.02; 3],
            "a grid of [41200, 25600, 25600]",
        ),
        (
            &|p| p.preprocessing.transpose_backward = [0, 2, 1],
            "do not undo each other",
        ),
        (
            &|p| p.labels = LabelRule::Argmax { classes: 1000 },
            "1000 outputs",
        ),
    ];
    for (change, words) in cases {
        let said = refused(change);
        assert!(said.contains(words), "{said:?} lacks {words:?}");
    }
}

#[test]
fn a_network_that_breaks_its_word_is_an_error() {
    struct Wrong(Vec<(usize, usize)>, f32);
    impl PatchNetwork for Wrong {
        fn run(
            &mut self,
            _: usize,
            _: &[f32],
            take: &mut dyn FnMut(usize, &[f32]),
        ) -> Result<(), NetworkError> {
            for &(first, count) in &self.0 {
                take(first, &vec![self.1; count]);
            }
            Ok(())
        }
    }
    let case = Generated {
        dims: [4, 5, 6],
        network: [4, 5, 6],
        patch: [2, 5, 6],
        heads: 3,
        folds: 1,
        step: 0.5,
        flat: false,
        mirror: false,
        coarse_z: false,
        seed: 1,
    };
    let (prepared, procedure, _) = case.parts();
    let plan = plan_stream(&prepared.grids, &procedure, 1, Accumulator::Half, u64::MAX).unwrap();
    let run = |runs: &[(usize, usize)], value| {
        let mut network = Wrong(runs.to_vec(), value);
        predict_streamed(&prepared, &procedure, &plan, &mut network, &Task::new())
    };
    assert!(run(&[(0, 180)], 1.0).is_ok());
    for wrong in [
        &[(0, 120)][..],
        &[(0, 181)],
        &[(0, 60), (0, 120)],
        &[(2, 120)],
        &[(9, 60)],
        &[],
    ] {
        assert!(
            matches!(run(wrong, 1.0), Err(Error::Mismatch(_))),
            "{wrong:?}"
        );
    }
    assert!(matches!(run(&[(0, 180)], f32::NAN), Err(Error::NotFinite)));
    // Beyond what 16 bits hold; 32 bits hold it.
    assert!(matches!(run(&[(0, 180)], 1e5), Err(Error::NotFinite)));
    let cancelled = Task::new();
    cancelled.cancel();
    let mut network = Wrong(vec![(0, 180)], 1.0);
    let stopped = predict_streamed(&prepared, &procedure, &plan, &mut network, &cancelled);
    assert!(matches!(stopped, Err(Error::Cancelled(_))));
}

/// Hands on one class after the other, so that it needs no memory of its own to speak of.
struct Thresholds;

impl PatchNetwork for Thresholds {
    fn run(
        &mut self,
        _: usize,
        patch: &[f32],
        take: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), NetworkError> {
        let mut logits = vec![0.0; patch.len()];
        for head in 0..118 {
            let center = head as f32 / 118.0;
            for (logit, value) in logits.iter_mut().zip(patch) {
                *logit = -(value - center).abs();
            }
            take(head, &logits);
        }
        Ok(())
    }
}

#[test]
#[ignore = "computes for many minutes: run it alone, it reads the peak memory of its process"]
fn a_large_scan_with_many_classes_stays_below_four_gigabytes() {
    let (procedure, dims) = large();
    // A ramp along every axis: its blurred classes are wide, and known.
    let [depth, rows, columns] = dims.map(|size| size as f32);
    let value = |at: usize| {
        let (z, y, x) = (at / (512 * 512), at / 512 % 512, at % 512);
        (z as f32 / depth + y as f32 / rows + x as f32 / columns) / 3.0
    };
    let image = Image::new(1, dims, (0..824 * 512 * 512).map(value).collect()).unwrap();
    let task = Task::new();
    let prepared = prepare(image, [1.0; 3], &procedure.preprocessing, None, &task).unwrap();
    let limit = FOUR_GB - BESIDES;
    // The first voxel is 0, so nothing but single corner voxels can be cropped.
    assert_eq!(prepared.image.dims, dims);
    let plan = plan_stream(&prepared.grids, &procedure, 1, Accumulator::Half, limit).unwrap();
    println!(
        "{} windows in {} parts, {} bytes planned",
        plan.windows,
        plan.parts(),
        plan.bytes
    );
    let found = predict_streamed(&prepared, &procedure, &plan, &mut Thresholds, &task).unwrap();
    let well_inside = |at: usize| {
        let p = [at / (512 * 512), at / 512 % 512, at % 512];
        (0..3).all(|axis| (16..dims[axis] - 16).contains(&p[axis]))
    };
    // Along the edges of a grid, weights of 16 bits are a few of the smallest steps there are: nnU-Net's own
    // labels are as coarse there.
    for at in (0..found.data.len())
        .step_by(10_007)
        .filter(|&at| well_inside(at))
    {
        let expected = value(at) * 118.0;
        let label = f32::from(found.data[at]);
        assert!(
            (label - expected).abs() <= 0.6 || label == 117.0,
            "{label} at {expected}"
        );
    }
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .unwrap();
    let peak: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    println!("peak {} bytes", peak * 1024);
    assert!(peak * 1024 < FOUR_GB, "peak of {} bytes", peak * 1024);
}

//! What a run was planned to take against what it took: memory and time, each case in a process of
//! its own.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use negatoscope::geometry::{DVec3, VolumeGeometry};
use negatoscope::import::monai::{Component, Config, nets};
use negatoscope::import::{self, weights};
use negatoscope::inference::native::{Native, Workspace};
use negatoscope::inference::{Array, Model, Program, Settings};
use negatoscope::kernels::Rates;
use negatoscope::model::procedure::{
    Channel, LabelRule, Preprocessing, Procedure, Resampling, Scheme, WindowRule,
};
use negatoscope::model::{
    Conform, Envelope, Input, Label, MANIFEST_SHAPE, Manifest, Network, Normalization, Output,
    OutputKind, PackageFiles, VerifiedPackage, sha256_hex,
};
use negatoscope::nifti;
use negatoscope::study::CodedConcept;
use negatoscope::task::Task;
use negatoscope::volume::{
    Calibration, Layout, ModalityLut, Quantity, SourceSeries, Volume, Voxels,
};
use serde_json::json;

const CASES: [&str; 8] = [
    "brainchop-1",
    "brainchop-4",
    "nnunet-2d",
    "nnunet-3d_fullres",
    "nnunet-3d_cascade_fullres",
    "nnunet-middle",
    "patch-SwinUNETR",
    "patch-UNETR",
];

/// Runs each case in a child and prints planned, measured and their ratio.
pub fn run(only: Option<&str>) {
    let program = std::env::current_exe().expect("this program");
    println!(
        "{:<26} {:>10} {:>10} {:>6} {:>9} {:>9} {:>6} {:>9}",
        "case", "planned", "measured", "ratio", "planned", "measured", "ratio", "CPU/thr."
    );
    for case in CASES
        .into_iter()
        .filter(|c| only.is_none_or(|o| c.contains(o)))
    {
        let ran = Command::new(&program)
            .args(["plan-case", case])
            .output()
            .expect("it starts");
        let text = String::from_utf8_lossy(&ran.stdout);
        let numbers: Vec<f64> = text
            .lines()
            .rev()
            .find_map(|line| line.strip_prefix("planned "))
            .into_iter()
            .flat_map(|line| line.split(' ').filter_map(|n| n.parse().ok()))
            .collect();
        let [bytes, peak, secs, took, cpu] = numbers.as_slice() else {
            let why = String::from_utf8_lossy(&ran.stderr);
            println!("{case:<26} {} {}", text.trim(), why.trim());
            continue;
        };
        println!(
            "{case:<26} {:>7.0} MB {:>7.0} MB {:>6.2} {secs:>7.1} s {took:>7.1} s {:>6.2} {cpu:>7.1} s",
            bytes / 1e6,
            peak / 1e6,
            bytes / peak,
            secs / took,
        );
        for line in text.lines().filter(|l| l.starts_with("  ")) {
            println!("{line}");
        }
    }
}

/// One case, in the child.
pub fn case(name: &str) {
    if let Some(network) = name.strip_prefix("patch-") {
        return patch(network);
    }
    let Some((package, volume)) = prepared(name) else {
        println!("skipped: the data of {name} are not there");
        return;
    };
    let task = Task::new();
    let model = Model::new(package, &|_| Err("none".to_owned())).expect("a network");
    let rates = Rates::of_this_machine();
    let before = memory("VmRSS");
    // From here on the largest counts.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    let start = Instant::now();
    let settings = Settings::default();
    let plan = model.plan(&volume, &settings, &task).expect("a plan");
    println!("  plan {:.3} s  {rates:?}", start.elapsed().as_secs_f64());
    let (start, cpu) = (Instant::now(), cpu_secs());
    let found = model.run(&volume, &settings, &task).expect("it fits");
    let took = start.elapsed().as_secs_f64();
    let cpu = (cpu_secs() - cpu) / rayon::current_num_threads() as f64;
    let peak = memory("VmHWM").saturating_sub(before);
    let laps: Vec<String> = found
        .segmentation
        .provenance
        .elapsed_secs
        .iter()
        .map(|(phase, secs)| format!("{phase} {secs:.2}"))
        .collect();
    println!("  {}", laps.join(", "));
    println!(
        "planned {} {peak} {:.3} {took:.3} {cpu:.3}",
        plan.needed_bytes, plan.seconds
    );
}

/// One patch of 96³ voxels through one of MONAI's networks with random weights.
fn patch(class: &str) {
    let size = [96; 3];
    let described = match class {
        "UNETR" => {
            json!({ "_target_": class, "in_channels": 1, "out_channels": 2, "img_size": size })
        }
        _ => json!({ "_target_": class, "in_channels": 1, "out_channels": 2, "feature_size": 24 }),
    };
    let config = Config::new(json!({ "network_def": described }));
    let node = config
        .get("network_def")
        .expect("it is there")
        .expect("it is there");
    let component = Component::of(node)
        .expect("a component")
        .expect("not disabled");
    let network = nets::network(&component, Some(&size), Some((1, 6))).expect("a network");
    let mut last = 1_u32;
    let mut random = |_| {
        last = last.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (last >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    let weights = network.built.needed.iter().map(|n| {
        let count = n.shape.iter().product::<usize>();
        let scale = (count / n.shape[0]).max(1) as f32;
        let values = (0..count).map(&mut random).map(|x| x / scale.sqrt());
        (n.name.clone(), Array::new(&n.shape, values.collect()))
    });
    let weights: HashMap<String, Array> = weights.collect();
    let rates = Rates::of_this_machine();
    let before = memory("VmRSS")
        - weights
            .values()
            .map(|w| 4 * w.values.len() as u64)
            .sum::<u64>();
    let program = Program::new(Arc::new(network.built.graph), weights, &size);
    let native = Native::new(program.expect("a network")).expect("a network");
    let input = Array::new(
        &[1, 1, 96, 96, 96],
        (0..96 * 96 * 96).map(&mut random).collect(),
    );
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    let planned = native.bytes(&size).expect("it fits");
    let secs = native.expected_secs(&size, &rates).expect("it fits");
    let mut workspace = Workspace::default();
    // The first run takes its memory from the system.
    let ran = native.run(&input, &mut workspace, &Task::new());
    drop(ran.expect("nothing stops it"));
    let (start, cpu) = (Instant::now(), cpu_secs());
    let ran = native.run(&input, &mut workspace, &Task::new());
    let took = start.elapsed().as_secs_f64();
    drop(ran.expect("nothing stops it"));
    let cpu = (cpu_secs() - cpu) / rayon::current_num_threads() as f64;
    let peak = memory("VmHWM").saturating_sub(before);
    println!("planned {planned} {peak} {secs:.3} {took:.3} {cpu:.3}");
}

fn prepared(name: &str) -> Option<(VerifiedPackage, Volume)> {
    let data = |variable: &str| std::env::var_os(variable).map(PathBuf::from);
    let read = |path: &Path| nifti::read(path, &Task::new()).ok();
    if let Some(number) = name.strip_prefix("brainchop-") {
        let root = data("NEGATOSCOPE_TEST_DATA")?.join("brainchop");
        let folder = match number {
            "1" => "models/model5_gw_ae",
            _ => "models/model30chan18cls",
        };
        let packages = import::read(&root.join(folder)).ok()?;
        let package = packages.into_iter().find(|p| p.manifest().id == name)?;
        return Some((package, read(&root.join("t1_crop.nii.gz"))?));
    }
    let configuration = name.strip_prefix("nnunet-")?;
    if configuration == "middle" {
        return Some((middle(), scan([256, 256, 200])));
    }
    let root = data("NEGATOSCOPE_NNUNET_DATA")?;
    let folder = root
        .join("results/Dataset404_Hippocampus")
        .join(format!("nnUNetTrainer__nnUNetPlans__{configuration}"));
    let package = import::read(&folder).ok()?.into_iter().next()?;
    let input = root.join("inputs/Dataset404_Hippocampus/hippocampus_107_plain_0000.nii.gz");
    Some((package, read(&input)?))
}

/// A full nnU-Net with random weights, at the scan's own spacing.
fn middle() -> VerifiedPackage {
    let (graph, arrays) = super::networks::nnunet(3, &[32, 64, 128, 256, 320, 320]).into_parts();
    let names: Vec<&str> = graph.tensors();
    let tensors: Vec<(&str, &[usize])> = names
        .iter()
        .map(|name| (*name, arrays[*name].shape.as_slice()))
        .collect();
    let read = |n: usize| Ok::<_, std::convert::Infallible>(arrays[names[n]].values.clone());
    let saved = weights::safetensors(&tensors, read).unwrap_or_default();
    let resampling = Resampling {
        force_separate_z: Some(false),
        ..Resampling::IMAGE
    };
    let manifest = Manifest {
        shape: MANIFEST_SHAPE.to_owned(),
        id: "middle".to_owned(),
        version: "1".to_owned(),
        name: "Middle".to_owned(),
        license: String::new(),
        intended_use: String::new(),
        limits: Vec::new(),
        training_data: String::new(),
        modality: "MR".to_owned(),
        envelope: Envelope::default(),
        input: Input {
            conform: Conform::Stored { orientation: None },
            normalization: Normalization::None,
            crop: None,
            channels: Vec::new(),
        },
        network: Network {
            graph: Some(graph.clone()),
            ..Network::default()
        },
        output: Output {
            kind: OutputKind::Segmentation,
            largest_component: false,
        },
        procedure: Some(Procedure {
            preprocessing: Preprocessing {
                transpose_forward: [0, 1, 2],
                transpose_backward: [0, 1, 2],
                channels: vec![Channel {
                    scheme: Scheme::ZScore,
                    use_mask: false,
                }],
                // Somewhat coarser than the scan, so that there is resampling.
                target_spacing: vec![1.1; 3],
                whole_image: None,
                resample_image: resampling,
                resample_labels: Resampling::LABELS,
                resample_logits: Resampling {
                    order: 1,
                    ..resampling
                },
            },
            input_channels: 1,
            windows: WindowRule {
                patch_size: vec![128; 3],
                step: 0.5,
                gaussian: true,
                mirror_axes: Vec::new(),
            },
            labels: LabelRule::Argmax { classes: 3 },
        }),
        earlier: Vec::new(),
        monai: None,
        classification: None,
        labels: vec![Label {
            label: 1,
            name: "One".to_owned(),
            color: [200; 3],
            category: CodedConcept::new("123037004", "SCT", "Anatomical Structure"),
            property: CodedConcept::new("12738006", "SCT", "Brain"),
        }],
        weights_sha256: sha256_hex(&saved),
        origin: BTreeMap::default(),
    };
    let files = PackageFiles {
        manifest: serde_json::to_vec(&manifest).expect("a manifest"),
        weights: saved,
        card: None,
        signature: None,
        path: PathBuf::new(),
    };
    VerifiedPackage::verify(files).expect("a package")
}

fn scan(dims: [usize; 3]) -> Volume {
    let axes = [DVec3::X, DVec3::Y, DVec3::Z];
    let count = dims.iter().product::<usize>();
    let stored = (0..count).map(|n| 100 + (n * 7919 % 900) as i16).collect();
    Volume {
        geometry: VolumeGeometry::from_axes(dims, DVec3::ZERO, axes, [1.0; 3]).expect("a grid"),
        voxels: Voxels::I16(stored),
        modality_lut: ModalityLut::IDENTITY,
        quantity: Quantity::Arbitrary,
        modality: "MR".to_owned(),
        layout: Layout::Volumetric,
        calibration: Calibration::Patient,
        inverted: false,
        windows: Vec::new(),
        padding: None,
        frame_rate: None,
        source: SourceSeries::default(),
        issues: Vec::new(),
    }
}

/// A line of the process' own account, in bytes; 0 where there is none.
fn memory(what: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(what));
    let kb = line.and_then(|l| l.split_whitespace().nth(1)?.parse::<u64>().ok());
    1024 * kb.unwrap_or(0)
}

/// Processor time of all threads; what other programs take does not count.
fn cpu_secs() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or("").split(' ').collect();
    let ticks = |n: usize| fields.get(n).and_then(|f| f.parse::<f64>().ok());
    (ticks(12).unwrap_or(0.0) + ticks(13).unwrap_or(0.0)) / 100.0
}

//! Smaller packages: the smallest weights taken for zeros, and weights stored as f16 or int8.
//!
//! Weights of convolutions and linear layers alone: biases, norms and embeddings are few and stay
//! as they are. A compressed model is a version of its own that names what it was made from. It is
//! computed with in f32 like any other; only the file is smaller.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;

use super::compare::ComparedFigure;
use super::{Error, result};
use crate::model::graph::Op;
use crate::model::stored::{self, Form, ToStore};
use crate::model::{Layer, Manifest, PackageFiles, VerifiedPackage, sha256_hex};

/// How weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// As they were.
    F32,
    /// In half precision.
    F16,
    /// As whole numbers with a scale per output channel.
    Int8,
}

/// Among which weights the smallest are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// Each layer loses the same part.
    Layer,
    /// All layers together: those with small weights lose more.
    Network,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wish {
    /// Storage of the weights that are left.
    pub storage: Storage,
    /// Part of the weights that becomes zero, 0 to below 1.
    pub prune: f64,
    /// Where the smallest are looked for.
    pub over: Over,
}

impl Wish {
    /// What stands behind the version: `pruned50-int8`.
    fn suffix(&self) -> String {
        let mut parts = Vec::new();
        if self.prune > 0.0 {
            parts.push(format!("pruned{}", (self.prune * 100.0).round()));
        }
        match self.storage {
            Storage::F32 => {}
            Storage::F16 => parts.push("f16".to_owned()),
            Storage::Int8 => parts.push("int8".to_owned()),
        }
        parts.join("-")
    }

    /// What was done, for the manifest: one line each.
    fn words(&self) -> Vec<(String, String)> {
        let mut words = Vec::new();
        if self.prune > 0.0 {
            let over = match self.over {
                Over::Layer => "of each layer",
                Over::Network => "of all layers together",
            };
            let text = format!("the smallest {} of the weights {over}", self.prune);
            words.push(("pruned".to_owned(), text));
        }
        let stored = match self.storage {
            Storage::F32 => None,
            Storage::F16 => Some("f16, expanded to f32 when loaded"),
            Storage::Int8 => {
                Some("int8 with a scale per output channel, expanded to f32 when loaded")
            }
        };
        words.extend(stored.map(|s| ("weights_stored_as".to_owned(), s.to_owned())));
        words
    }
}

/// A compressed model, not yet measured.
#[derive(Clone, Debug)]
pub struct Compressed {
    /// The package, without a card.
    pub package: VerifiedPackage,
    /// Weights of convolutions and linear layers.
    pub weights: usize,
    /// How many of them are zero.
    pub zeros: usize,
}

/// Makes the smaller package. `version` is that of the new one; without it the old one's with a
/// suffix.
///
/// # Errors
/// [`Error::Compression`]: nothing to do, no weights, values that f16 cannot hold, a package that
/// is compressed already. [`Error::Package`] when the result fails its own checks.
pub fn compress(
    package: &VerifiedPackage,
    wish: &Wish,
    version: Option<&str>,
) -> Result<Compressed, Error> {
    let refused = |reason: String| Error::Compression(reason);
    let manifest = package.manifest();
    if !(0.0..1.0).contains(&wish.prune) {
        let part = wish.prune;
        return Err(refused(format!("a part of {part}, expected 0 to below 1")));
    }
    if wish.suffix().is_empty() {
        return Err(refused("nothing is asked for".to_owned()));
    }
    let types = package.stored_types();
    if let Some((name, kind)) = types.iter().find(|(_, kind)| kind != "F32") {
        let from = manifest.origin.get("compressed_from");
        let from = from.map_or("the one that it was made from", String::as_str);
        return Err(refused(format!(
            "it is compressed already (tensor {name:?} is {kind}): begin with {from}"
        )));
    }
    let axes = output_axes(manifest);
    if axes.is_empty() {
        return Err(refused(
            "it has no weights of convolutions or linear layers".to_owned(),
        ));
    }
    let mut tensors: Vec<(String, Vec<usize>, Vec<f32>)> = Vec::new();
    for (name, _) in &types {
        let (shape, values) = (package.array(name))
            .ok_or_else(|| refused(format!("tensor {name:?} cannot be read")))?;
        tensors.push((name.clone(), shape, values));
    }
    let mut layers: Vec<&mut Vec<f32>> = (tensors.iter_mut())
        .filter(|(name, ..)| axes.contains_key(name))
        .map(|(_, _, values)| values)
        .collect();
    match wish.over {
        Over::Layer => layers.iter_mut().for_each(|l| prune(&mut [l], wish.prune)),
        Over::Network => prune(&mut layers, wish.prune),
    }
    let to_store: Vec<ToStore<'_>> = tensors
        .iter()
        .map(|(name, shape, values)| ToStore {
            name,
            shape,
            values,
            form: match (wish.storage, axes.get(name)) {
                (Storage::F16, Some(_)) => Form::F16,
                (Storage::Int8, Some(axis)) => Form::Int8 { axis: *axis },
                _ => Form::F32,
            },
        })
        .collect();
    let weights = stored::write(&to_store).map_err(refused)?;
    let mut made = manifest.clone();
    made.version = version.map_or_else(
        || format!("{}-{}", manifest.version, wish.suffix()),
        str::to_owned,
    );
    if made.version == manifest.version {
        return Err(refused(format!("version {} is the old one", made.version)));
    }
    made.origin.extend(wish.words());
    made.origin.extend([
        ("compressed_from".to_owned(), manifest.key()),
        (
            "compressed_from_sha256".to_owned(),
            manifest.weights_sha256.clone(),
        ),
    ]);
    made.weights_sha256 = sha256_hex(&weights);
    let files = PackageFiles {
        manifest: serde_json::to_vec_pretty(&made).expect("a manifest is plain data"),
        weights,
        card: None,
        signature: None,
        path: "the compressed model".into(),
    };
    let package = VerifiedPackage::verify(files)?;
    // As they come back: what int8 rounds to zero is zero too.
    let (mut weights, mut zeros) = (0, 0);
    for name in axes.keys() {
        let values = package.tensor(name).unwrap_or_default();
        weights += values.len();
        zeros += values.iter().filter(|v| **v == 0.0).count();
    }
    Ok(Compressed {
        package,
        weights,
        zeros,
    })
}

/// Names of all weights of convolutions and linear layers, with the axis of their output channels.
fn output_axes(manifest: &Manifest) -> BTreeMap<String, usize> {
    let mut axes = BTreeMap::new();
    for (network, ..) in manifest.examples() {
        let nodes = network.graph.iter().flat_map(|g| &g.nodes);
        for node in nodes {
            let (weight, axis) = match &node.op {
                Op::Conv { weight, .. } | Op::Linear { weight, .. } => (weight, 0),
                Op::ConvTranspose { weight, .. } => (weight, 1),
                _ => continue,
            };
            for member in network.members() {
                axes.insert(format!("{member}{weight}"), axis);
            }
        }
    }
    for layer in &manifest.network.layers {
        if let Layer::Conv3d { weight, .. } = layer {
            axes.insert(weight.clone(), 0);
        }
    }
    axes
}

/// Sets a part of all values to zero, the smallest magnitudes first, of equal ones the first.
fn prune(layers: &mut [&mut Vec<f32>], part: f64) {
    let mut all: Vec<(f32, usize, usize)> = Vec::new();
    for (layer, values) in layers.iter().enumerate() {
        all.extend(values.iter().enumerate().map(|(n, v)| (v.abs(), layer, n)));
    }
    let goes = (all.len() as f64 * part).round() as usize;
    all.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    for (_, layer, n) in all.into_iter().take(goes) {
        layers[layer][n] = 0.0;
    }
}

/// Bytes after DEFLATE, as in a `.negmodel` file: what zeros save.
pub fn deflated(bytes: &[u8]) -> usize {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    let written = encoder.write_all(bytes).and_then(|()| encoder.finish());
    written.map_or(bytes.len(), |packed| packed.len())
}

/// What was measured before and after.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Measured {
    /// Cases.
    pub cases: usize,
    /// Figure by figure.
    pub figures: Vec<ComparedFigure>,
    /// Bytes of the weights' file.
    pub bytes: [usize; 2],
    /// The same after DEFLATE.
    pub deflated_bytes: [usize; 2],
    /// Seconds from files to a model that runs.
    pub load_secs: [f64; 2],
    /// Seconds of all cases.
    pub run_secs: [f64; 2],
    /// Part of the weights of convolutions and linear layers that is zero.
    pub zeros: f64,
}

impl Measured {
    /// The table of the card and the terminal, as Markdown.
    pub fn table(&self) -> String {
        let mut text =
            "| figure | before | after | difference | 95 % |\n|---|---|---|---|---|\n".to_owned();
        for d in &self.figures {
            let interval = (d.difference_ci95)
                .map_or_else(String::new, |[a, b]| format!("{a:+.4} to {b:+.4}"));
            let number = |value: Option<f64>| value.map_or_else(String::new, |v| format!("{v:.4}"));
            let [before, after] = d.values.map(number);
            let difference = d
                .difference
                .map_or_else(String::new, |v| format!("{v:+.4}"));
            let name = &d.name;
            let _ = writeln!(
                text,
                "| {name} | {before} | {after} | {difference} | {interval} |"
            );
        }
        for (name, [before, after]) in [
            ("weights, bytes", self.bytes),
            ("after DEFLATE, bytes", self.deflated_bytes),
        ] {
            let part = after as f64 / before as f64;
            let _ = writeln!(text, "| {name} | {before} | {after} | × {part:.3} | |");
        }
        for (name, [before, after]) in [
            ("loading, s", self.load_secs),
            ("all cases, s", self.run_secs),
        ] {
            let part = after / before;
            let _ = writeln!(
                text,
                "| {name} | {before:.3} | {after:.3} | × {part:.2} | |"
            );
        }
        text
    }
}

/// The package with its card: the original's, and what compression has cost.
///
/// # Errors
/// [`Error::Package`].
pub fn with_card(
    made: &Compressed,
    original: &VerifiedPackage,
    measured: &Measured,
) -> Result<VerifiedPackage, Error> {
    let manifest = made.package.manifest();
    let before = original.manifest().key();
    let mut card = String::new();
    let _ = writeln!(
        card,
        "## Compression\n\nMade from {before} (SHA-256 of its weights {}). All figures below this \
         section are the original's. So are the thresholds: where sensitivity and specificity have \
         moved apart below, `negatoscope calibrate` fits them anew.\n",
        original.manifest().weights_sha256
    );
    for key in ["pruned", "weights_stored_as"] {
        if let Some(words) = manifest.origin.get(key) {
            let _ = writeln!(card, "- {}: {words}", key.replace('_', " "));
        }
    }
    let _ = writeln!(
        card,
        "- {:.1} % of the {} weights of convolutions and linear layers are zero\n- computed in f32 \
         like the original: memory and time of a run stay the same\n\nMeasured on the same {} cases \
         before and after. Intervals of differences: 95 %, bootstrap over cases, each drawn for \
         both, 2000 draws. Times are of one run each.\n\n{}",
        measured.zeros * 100.0,
        made.weights,
        measured.cases,
        measured.table()
    );
    result::with_card(&made.package, &result::card_with(original, manifest, &card))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pruning_takes_the_smallest(
            a in prop::collection::vec(-1.0_f32..1.0, 1..40),
            b in prop::collection::vec(-0.1_f32..0.1, 1..40),
            part in 0.0_f64..0.99,
        ) {
            let (mut x, mut y) = (a.clone(), b.clone());
            prune(&mut [&mut x, &mut y], part);
            let before: Vec<f32> = a.iter().chain(&b).copied().collect();
            let after: Vec<f32> = x.iter().chain(&y).copied().collect();
            let gone: Vec<usize> = (0..before.len()).filter(|n| after[*n] == 0.0 && before[*n] != 0.0).collect();
            let already = before.iter().filter(|v| **v == 0.0).count();
            let want = (before.len() as f64 * part).round() as usize;
            prop_assert_eq!(gone.len() + already.min(want), want);
            let largest = gone.iter().map(|n| before[*n].abs()).fold(0.0, f32::max);
            for (before, after) in before.iter().zip(&after) {
                if *after != 0.0 {
                    prop_assert_eq!(after, before);
                    prop_assert!(after.abs() >= largest);
                }
            }
        }
    }
}

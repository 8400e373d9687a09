//! The Vision Transformer: our graph against candle-transformers' model, its training and its
//! attention rollout.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use candle_transformers::models::vit;
use negatoscope::inference::native::{Native, Workspace};
use negatoscope::inference::{Array, Program, attention_rollout, reference};
use negatoscope::task::Task;
use negatoscope::training::build::Vit;
use negatoscope::training::data::Sample;
use negatoscope::training::network::{Mode, Network};
use negatoscope::training::{Architecture, Chance, Parameters, Recipe};
use negatoscope::training::{result, validate};

use super::training::{WORDS, bits, class_folder, run, split_of};

const EDGE: usize = 24;
const CLASSES: usize = 3;

const SETTINGS: Vit = Vit {
    patch: 8,
    width: 20,
    depth: 3,
    heads: 4,
    mlp: 3,
    dropout: 0.0,
};

fn config(of: &Vit) -> vit::Config {
    vit::Config {
        hidden_size: of.width,
        num_hidden_layers: of.depth,
        num_attention_heads: of.heads,
        intermediate_size: of.mlp * of.width,
        hidden_act: candle_nn::Activation::Gelu,
        layer_norm_eps: 1e-6,
        image_size: EDGE,
        patch_size: of.patch,
        num_channels: 1,
        qkv_bias: true,
    }
}

fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut chance = Chance::at(&[seed]);
    (0..count).map(|_| chance.normal() as f32).collect()
}

/// Our graph with random values everywhere, in biases and norms too.
fn random() -> (Program, Parameters) {
    let (graph, needed) = Architecture::Vit(SETTINGS)
        .build_for(1, &[EDGE, EDGE], CLASSES)
        .unwrap();
    let mut parameters = Parameters::new(&needed, 4);
    let moved = noise(parameters.values.len(), 8);
    for (value, moved) in parameters.values.iter_mut().zip(moved) {
        *value += 0.2 * moved;
    }
    let weights = parameters.slots.iter().map(|slot| {
        let values = parameters.values[slot.range.clone()].to_vec();
        (slot.name.clone(), Array::new(&slot.shape, values))
    });
    let weights = weights.collect::<HashMap<_, _>>();
    let program = Program::new(Arc::new(graph), weights, &[EDGE, EDGE]).unwrap();
    (program, parameters)
}

fn close(got: &[f32], want: &[f32], relative: f32) {
    let most = want.iter().fold(0.0_f32, |most, v| most.max(v.abs()));
    assert_eq!(got.len(), want.len());
    for (got, want) in got.iter().zip(want) {
        assert!((got - want).abs() <= relative * most, "{got} {want}");
    }
}

#[test]
fn our_graph_gives_what_candle_transformers_gives() {
    let (program, parameters) = random();
    let device = Device::Cpu;
    let tensors = parameters.slots.iter().map(|slot| {
        let values = &parameters.values[slot.range.clone()];
        let tensor = Tensor::from_slice(values, slot.shape.clone(), &device).unwrap();
        (slot.name.clone(), tensor)
    });
    let tensors = tensors.collect::<HashMap<_, _>>();
    let names = VarBuilder::from_tensors(tensors, DType::F32, &device);
    let theirs = vit::Model::new(&config(&SETTINGS), CLASSES, names).unwrap();
    let images = noise(3 * EDGE * EDGE, 1);
    let batch = Tensor::from_slice(&images, (3, 1, EDGE, EDGE), &device).unwrap();
    let want = theirs.forward(&batch).unwrap();
    let want: Vec<f32> = want.flatten_all().unwrap().to_vec1().unwrap();
    // Training's own passes, in both modes, and both executors of inference. f32 sums in another
    // order, three blocks deep.
    let graph = Arc::new(program.graph().clone());
    let network = Network::new(graph, &parameters, &[EDGE, EDGE], 0.0).unwrap();
    for mode in [Mode::Evaluation, Mode::Training { place: [0; 2] }] {
        let got = network.forward(&parameters.values, &images, mode);
        close(&got.results, &want, 1e-5);
    }
    let native = Native::new(program.clone()).unwrap();
    for (image, want) in images.chunks(EDGE * EDGE).zip(want.chunks(CLASSES)) {
        let input = Array::new(&[1, 1, EDGE, EDGE], image.to_vec());
        let task = Task::new();
        let got = reference::run(&program, &input, &device, &task).unwrap();
        close(&got[0].values, want, 1e-5);
        let got = native
            .run(&input, &mut Workspace::default(), &task)
            .unwrap();
        close(&got[0].values, want, 1e-5);
    }
}

/// Why the model itself is not what is trained. When this fails, candle has learned it.
#[test]
fn candle_transformers_model_has_no_gradient_before_its_last_layer() {
    let device = Device::Cpu;
    let variables = VarMap::new();
    let names = VarBuilder::from_varmap(&variables, DType::F32, &device);
    let theirs = vit::Model::new(&config(&SETTINGS), CLASSES, names).unwrap();
    let images = Tensor::from_vec(noise(EDGE * EDGE, 1), (1, 1, EDGE, EDGE), &device).unwrap();
    let value = theirs.forward(&images).unwrap().sqr().unwrap();
    let gradients = value.sum_all().unwrap().backward().unwrap();
    let all = variables.data().lock().unwrap();
    let has = |name: &str| gradients.get(all[name].as_tensor()).is_some();
    assert!(has("classifier.weight"));
    assert!(!has("vit.layernorm.weight"));
    assert!(!has("vit.encoder.layer.0.attention.attention.query.weight"));
}

/// Rows of f64.
#[derive(Clone)]
struct Rows {
    width: usize,
    values: Vec<f64>,
}

impl Rows {
    fn row(&self, n: usize) -> &[f64] {
        &self.values[n * self.width..(n + 1) * self.width]
    }

    fn count(&self) -> usize {
        self.values.len() / self.width
    }
}

/// The model's definition in f64, with the attention of each block.
struct Literal<'a>(&'a Parameters);

impl Literal<'_> {
    fn tensor(&self, name: &str) -> Vec<f64> {
        let values = self.0.tensor(name).unwrap();
        values.iter().map(|v| f64::from(*v)).collect()
    }

    fn linear(&self, name: &str, x: &Rows) -> Rows {
        let weight = self.tensor(&format!("{name}.weight"));
        let bias = self.tensor(&format!("{name}.bias"));
        let mut values = Vec::new();
        for n in 0..x.count() {
            for (weights, bias) in weight.chunks(x.width).zip(&bias) {
                let products = weights.iter().zip(x.row(n)).map(|(w, x)| w * x);
                values.push(products.sum::<f64>() + bias);
            }
        }
        let width = bias.len();
        Rows { width, values }
    }

    fn norm(&self, name: &str, x: &Rows) -> Rows {
        let scale = self.tensor(&format!("{name}.weight"));
        let shift = self.tensor(&format!("{name}.bias"));
        let mut values = Vec::new();
        for n in 0..x.count() {
            let mean = x.row(n).iter().sum::<f64>() / x.width as f64;
            let squares = x.row(n).iter().map(|v| (v - mean).powi(2));
            let deviation = (squares.sum::<f64>() / x.width as f64 + 1e-6).sqrt();
            for (c, v) in x.row(n).iter().enumerate() {
                values.push((v - mean) / deviation * scale[c] + shift[c]);
            }
        }
        Rows { values, ..*x }
    }

    fn attention(&self, image: &[f32]) -> Vec<Vec<Rows>> {
        let Vit {
            patch,
            width,
            depth,
            heads,
            ..
        } = SETTINGS;
        let across = EDGE / patch;
        let mut patches = Rows {
            width: patch * patch,
            values: Vec::new(),
        };
        for p in 0..across * across {
            for y in 0..patch {
                let line = (p / across * patch + y) * EDGE + p % across * patch;
                let line = &image[line..line + patch];
                patches.values.extend(line.iter().map(|v| f64::from(*v)));
            }
        }
        let name = "vit.embeddings";
        let mut x = Rows {
            width,
            values: self.tensor(&format!("{name}.cls_token")),
        };
        let embedded = self.linear(&format!("{name}.patch_embeddings.projection"), &patches);
        x.values.extend(embedded.values);
        let positions = self.tensor(&format!("{name}.position_embeddings"));
        for (x, p) in x.values.iter_mut().zip(positions) {
            *x += p;
        }
        let (tokens, each) = (x.count(), width / heads);
        let mut all = Vec::new();
        for block in 0..depth {
            let name = format!("vit.encoder.layer.{block}");
            let norm = self.norm(&format!("{name}.layernorm_before"), &x);
            let [q, k, v] = ["query", "key", "value"]
                .map(|part| self.linear(&format!("{name}.attention.attention.{part}"), &norm));
            let mut seen = Rows {
                width,
                values: vec![0.0; tokens * width],
            };
            let mut shares = Vec::new();
            for head in 0..heads {
                let of = head * each..(head + 1) * each;
                let mut matrix = Rows {
                    width: tokens,
                    values: Vec::new(),
                };
                for a in 0..tokens {
                    let powers: Vec<f64> = (0..tokens)
                        .map(|b| {
                            let pairs = q.row(a)[of.clone()].iter().zip(&k.row(b)[of.clone()]);
                            let product: f64 = pairs.map(|(q, k)| q * k).sum();
                            (product / (each as f64).sqrt()).exp()
                        })
                        .collect();
                    let sum: f64 = powers.iter().sum();
                    matrix.values.extend(powers.iter().map(|p| p / sum));
                    for c in of.clone() {
                        let parts = (0..tokens).map(|b| matrix.row(a)[b] * v.row(b)[c]);
                        seen.values[a * width + c] = parts.sum();
                    }
                }
                shares.push(matrix);
            }
            all.push(shares);
            let out = self.linear(&format!("{name}.attention.output.dense"), &seen);
            for (x, out) in x.values.iter_mut().zip(out.values) {
                *x += out;
            }
            let norm = self.norm(&format!("{name}.layernorm_after"), &x);
            let mut inner = self.linear(&format!("{name}.intermediate.dense"), &norm);
            for v in &mut inner.values {
                *v = 0.5 * *v * (1.0 + erf(*v / 2.0_f64.sqrt()));
            }
            let out = self.linear(&format!("{name}.output.dense"), &inner);
            for (x, out) in x.values.iter_mut().zip(out.values) {
                *x += out;
            }
        }
        all
    }
}

/// Its series; |x| stays below 4 here.
fn erf(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..120 {
        let n = f64::from(n);
        term *= -x * x / n;
        sum += term / (2.0 * n + 1.0);
    }
    if x.abs() > 4.0 {
        return x.signum();
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

#[test]
fn rollout_equals_its_definition() {
    let (program, parameters) = random();
    let image = noise(EDGE * EDGE, 6);
    let input = Array::new(&[1, 1, EDGE, EDGE], image.clone());
    let got = attention_rollout(&program, &input, &Task::new()).unwrap();
    assert_eq!((got.rows, got.columns), (3, 3));
    let layers = Literal(&parameters).attention(&image);
    let tokens = 10;
    let mut total = vec![vec![0.0; tokens]; tokens];
    for (n, row) in total.iter_mut().enumerate() {
        row[n] = 1.0;
    }
    for heads in layers {
        let mixed = |a: usize, b: usize| {
            let mean = heads.iter().map(|h| h.row(a)[b]).sum::<f64>() / heads.len() as f64;
            let own = if a == b { 1.0 } else { 0.0 };
            let sum: f64 = (0..tokens)
                .map(|c| heads.iter().map(|h| h.row(a)[c]).sum::<f64>() / heads.len() as f64)
                .sum();
            (mean + own) / (sum + 1.0)
        };
        let before = total.clone();
        for (a, row) in total.iter_mut().enumerate() {
            for (c, to) in row.iter_mut().enumerate() {
                *to = (0..tokens).map(|b| mixed(a, b) * before[b][c]).sum();
            }
        }
    }
    for (got, want) in got.values.iter().zip(&total[0][1..]) {
        assert!((f64::from(*got) - want).abs() < 1e-6, "{got} {want}");
    }
    let rest = 1.0 - f64::from(got.values.iter().sum::<f32>());
    assert!((rest - total[0][0]).abs() < 1e-5);
}

#[test]
fn a_network_without_attention_has_no_rollout() {
    let cnn = Architecture::ResidualCnn(negatoscope::training::build::Residual::default());
    let (graph, needed) = cnn.build(1, 2, 2).unwrap();
    let parameters = Parameters::new(&needed, 1);
    let weights = parameters.slots.iter().map(|slot| {
        let values = parameters.values[slot.range.clone()].to_vec();
        (slot.name.clone(), Array::new(&slot.shape, values))
    });
    let program = Program::new(Arc::new(graph), weights.collect(), &[16, 16]).unwrap();
    let input = Array::new(&[1, 1, 16, 16], vec![0.0; 256]);
    let refused = attention_rollout(&program, &input, &Task::new()).unwrap_err();
    assert!(refused.to_string().contains("no attention"), "{refused}");
}

fn recipe(classes: &str, more: &str) -> String {
    format!(
        r#"seed = 3
{WORDS}
[data]
layout = "labels"
classes = {classes}
size = [16, 16]
validation = 0.25
[network]
kind = "vit"
patch = 4
width = 24
depth = 2
heads = 2
mlp = 2
dropout = 0.1
[augmentation]
flip = [2]
noise = 0.1
[training]
epochs = 10
batch = 6
learning_rate = 5e-3
weight_decay = 0.01
warm_up = 1.0
clip = 1.0
checkpoint_steps = 3
{more}
"#
    )
}

#[test]
fn it_learns_stops_goes_on_and_is_begun_with() {
    let folder = tempfile::tempdir().unwrap();
    class_folder(folder.path());
    let recipe_of = |text: &str| Recipe::parse(text).unwrap();
    let first = recipe_of(&recipe(r#"["disk", "ring"]"#, ""));
    let split = split_of(&first, folder.path()).unwrap();
    let whole = tempfile::tempdir().unwrap();
    let want = run(&first, &split, whole.path(), false, None).unwrap();
    assert!(want.best.1 > 0.9, "AUC {}", want.best.1);
    let stopped = tempfile::tempdir().unwrap();
    for (resume, after) in [(false, 5), (true, 7)] {
        run(&first, &split, stopped.path(), resume, Some(after)).unwrap_err();
    }
    let got = run(&first, &split, stopped.path(), true, None).unwrap();
    assert_eq!(bits(&want), bits(&got));
    // Its package is where another training begins: the body stays, the head is another.
    let results = validate::results(&first, &want, &split.validation, &Task::new()).unwrap();
    let truth: Vec<u8> = (split.validation.iter().filter_map(Sample::class)).collect();
    let decision = result::decide(&results, &truth);
    let package = result::package(&first, &split, &want, Some(&decision)).unwrap();
    let place = folder.path().join("package");
    result::write(&package, "", &place).unwrap();
    let mut csv = "file,label\n".to_owned();
    for n in 0..48 {
        writeln!(csv, "images/{n}.png,{}", n % 3).unwrap();
    }
    fs::write(folder.path().join("labels.csv"), csv).unwrap();
    let more = format!(
        "[start]\npackage = {:?}\nfreeze = [\"vit.\"]",
        place.to_str().unwrap()
    );
    let second = recipe_of(&recipe(r#"["a", "b", "c"]"#, &more));
    let split = split_of(&second, folder.path()).unwrap();
    let out = tempfile::tempdir().unwrap();
    let next = run(&second, &split, out.path(), false, None).unwrap();
    let name = "vit.encoder.layer.1.output.dense.weight";
    assert_eq!(
        next.parameters.tensor(name),
        Some(&package.array(name).unwrap().1[..])
    );
    assert_eq!(
        next.parameters.tensor("classifier.weight").unwrap().len(),
        72
    );
}

#[test]
fn settings_that_make_no_transformer_are_refused() {
    let parse = |from: &str, to: &str| {
        let text = recipe(r#"["disk", "ring"]"#, "");
        assert!(text.contains(from));
        Recipe::parse(&text.replacen(from, to, 1))
    };
    let refused = parse("patch = 4", "patch = 5").unwrap_err();
    assert!(refused.contains("multiples of 5"), "{refused}");
    parse("patch = 4", "pach = 4").unwrap_err();
    let built = |settings: Vit| Architecture::Vit(settings).build_for(1, &[16, 16], 2);
    let heads = Vit {
        heads: 3,
        ..SETTINGS
    };
    assert!(built(heads).unwrap_err().contains("3 heads"));
    assert!(
        Architecture::Vit(SETTINGS)
            .build_for(1, &[16, 16, 16], 2)
            .is_err()
    );
}

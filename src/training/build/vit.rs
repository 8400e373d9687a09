//! A Vision Transformer (Dosovitskiy et al. 2021), tensors named as candle-transformers names them
//! (`models::vit`, after Hugging Face's), GELU in its exact form.

use crate::model::graph::{Affine, Graph, Op};
use crate::training::parameters::{Needed, Role, Start};

/// Settings of a Vision Transformer.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vit {
    /// Edge of a patch in points; sizes of images are multiples of it.
    #[serde(default = "patch")]
    pub patch: usize,
    /// Values of a token (`hidden_size`).
    #[serde(default = "width")]
    pub width: usize,
    /// Blocks (`num_hidden_layers`).
    #[serde(default = "depth")]
    pub depth: usize,
    /// Heads of each attention; they divide the width.
    #[serde(default = "heads")]
    pub heads: usize,
    /// Hidden values of a block's second part (`intermediate_size`), in widths.
    #[serde(default = "mlp")]
    pub mlp: usize,
    /// Dropout while training of what each block adds and before the last layer, 0 to below 1.
    #[serde(default)]
    pub dropout: f32,
}

const fn patch() -> usize {
    16
}

const fn width() -> usize {
    128
}

const fn depth() -> usize {
    6
}

const fn heads() -> usize {
    4
}

const fn mlp() -> usize {
    4
}

/// Added to variances, as timm's models have it.
const EPSILON: f32 = 1e-6;

impl Default for Vit {
    fn default() -> Self {
        Self {
            patch: patch(),
            width: width(),
            depth: depth(),
            heads: heads(),
            mlp: mlp(),
            dropout: 0.0,
        }
    }
}

impl Vit {
    pub(super) fn build(
        &self,
        channels: usize,
        size: &[usize],
        classes: usize,
    ) -> Result<(Graph, Vec<Needed>), String> {
        let Self {
            patch,
            width,
            depth,
            heads,
            mlp,
            ..
        } = *self;
        let [ny, nx] = *size else {
            return Err("a Vision Transformer takes plane images".to_owned());
        };
        let fits = (1..=4096).contains(&patch)
            && ny > 0
            && nx > 0
            && ny.is_multiple_of(patch)
            && nx.is_multiple_of(patch);
        if !fits {
            return Err(format!("patches of {patch} for images of {ny} x {nx}"));
        }
        let sensible = (1..=4096).contains(&width)
            && (1..=64).contains(&depth)
            && (1..=width).contains(&heads)
            && width.is_multiple_of(heads)
            && (1..=16).contains(&mlp);
        if !sensible {
            return Err(format!(
                "width {width}, depth {depth}, {heads} heads, mlp {mlp}"
            ));
        }
        let mut b = Builder {
            graph: Graph::new(channels, 2),
            needed: Vec::new(),
            width,
        };
        let patches = (ny / patch) * (nx / patch);
        let mut x = b.embed(channels, patch, patches);
        for block in 0..depth {
            x = b.block(&format!("vit.encoder.layer.{block}"), x, heads, mlp * width);
        }
        let first = Op::Slice {
            axis: 1,
            start: 0,
            end: 1,
        };
        let first = b.graph.push(first, &[x]);
        let row = Op::Reshape { shape: vec![0, -1] };
        let row = b.graph.push(row, &[first]);
        let norm = b.norm("vit.layernorm", row);
        let last = b.linear("classifier", norm, [width, classes]);
        b.graph.outputs = vec![last];
        Ok((b.graph, b.needed))
    }
}

struct Builder {
    graph: Graph,
    needed: Vec<Needed>,
    width: usize,
}

impl Builder {
    fn need(&mut self, name: String, shape: Vec<usize>, role: Role, start: Start) -> String {
        let needed = Needed {
            name: name.clone(),
            shape,
            role,
            start,
        };
        self.needed.push(needed);
        name
    }

    /// Patches as tokens behind a token for the class, and where each is.
    fn embed(&mut self, channels: usize, patch: usize, patches: usize) -> usize {
        let name = "vit.embeddings";
        let width = self.width;
        let fan_in = channels * patch * patch;
        let deviation = (1.0 / fan_in as f64).sqrt();
        let small = Start::Normal { deviation: 0.02 };
        let projection = format!("{name}.patch_embeddings.projection");
        let weight = self.need(
            format!("{projection}.weight"),
            vec![width, channels, patch, patch],
            Role::Weight,
            Start::Normal { deviation },
        );
        let zeros = Start::Fill(0.0);
        let bias = self.need(
            format!("{projection}.bias"),
            vec![width],
            Role::Offset,
            zeros,
        );
        let tensor = self.need(
            format!("{name}.cls_token"),
            vec![1, 1, width],
            Role::Offset,
            small,
        );
        let positions = self.need(
            format!("{name}.position_embeddings"),
            vec![1, patches + 1, width],
            Role::Offset,
            small,
        );
        let conv = Op::Conv {
            weight,
            bias: Some(bias),
            stride: vec![patch; 2],
            padding: vec![[0; 2]; 2],
            dilation: vec![1; 2],
            groups: 1,
        };
        let graph = &mut self.graph;
        let grid = graph.push(conv, &[0]);
        let flat = Op::Reshape {
            shape: vec![0, 0, -1],
        };
        let flat = graph.push(flat, &[grid]);
        let order = vec![0, 2, 1];
        let tokens = graph.push(Op::Transpose { order }, &[flat]);
        let class = graph.push(Op::Constant { tensor }, &[]);
        let all = graph.push(Op::Concat { axis: 1 }, &[class, tokens]);
        let tensor = positions;
        let positions = graph.push(Op::Constant { tensor }, &[]);
        graph.push(Op::Add, &[all, positions])
    }

    /// Attention and two linear layers, each behind a norm and beside its input.
    fn block(&mut self, name: &str, x: usize, heads: usize, hidden: usize) -> usize {
        let width = self.width;
        let norm = self.norm(&format!("{name}.layernorm_before"), x);
        let parts = ["query", "key", "value"].map(|part| {
            let part = format!("{name}.attention.attention.{part}");
            let all = self.linear(&part, norm, [width, width]);
            let each = Op::Reshape {
                shape: vec![0, 0, heads as i64, -1],
            };
            let each = self.graph.push(each, &[all]);
            let order = vec![0, 2, 1, 3];
            self.graph.push(Op::Transpose { order }, &[each])
        });
        let scale = 1.0 / ((width / heads) as f32).sqrt();
        let seen = self.graph.push(Op::Attention { scale }, &parts);
        let order = vec![0, 2, 1, 3];
        let seen = self.graph.push(Op::Transpose { order }, &[seen]);
        let joined = Op::Reshape {
            shape: vec![0, 0, -1],
        };
        let seen = self.graph.push(joined, &[seen]);
        let out = format!("{name}.attention.output.dense");
        let seen = self.linear(&out, seen, [width, width]);
        let x = self.graph.push(Op::Add, &[seen, x]);
        let norm = self.norm(&format!("{name}.layernorm_after"), x);
        let inner = format!("{name}.intermediate.dense");
        let inner = self.linear(&inner, norm, [width, hidden]);
        let inner = self.graph.push(Op::Gelu, &[inner]);
        let out = format!("{name}.output.dense");
        let out = self.linear(&out, inner, [hidden, width]);
        self.graph.push(Op::Add, &[out, x])
    }

    fn norm(&mut self, name: &str, from: usize) -> usize {
        let mut need = |part: &str, value| {
            let start = Start::Fill(value);
            self.need(
                format!("{name}.{part}"),
                vec![self.width],
                Role::Offset,
                start,
            )
        };
        let affine = Some(Affine {
            scale: need("weight", 1.0),
            shift: need("bias", 0.0),
        });
        let op = Op::LayerNorm {
            epsilon: EPSILON,
            affine,
        };
        self.graph.push(op, &[from])
    }

    /// Begins with variance 2 / (inputs + outputs) (Glorot and Bengio 2010).
    fn linear(&mut self, name: &str, from: usize, [inputs, outputs]: [usize; 2]) -> usize {
        let deviation = (2.0 / (inputs + outputs) as f64).sqrt();
        let weight = self.need(
            format!("{name}.weight"),
            vec![outputs, inputs],
            Role::Weight,
            Start::Normal { deviation },
        );
        let bias = self.need(
            format!("{name}.bias"),
            vec![outputs],
            Role::Offset,
            Start::Fill(0.0),
        );
        let op = Op::Linear {
            weight,
            bias: Some(bias),
        };
        self.graph.push(op, &[from])
    }
}

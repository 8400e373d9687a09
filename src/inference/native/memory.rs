//! What a run needs, found by walking through it without computing.

use std::collections::HashMap;

use super::Native;
use super::fuse::activation_of;
use super::joint::Joint;
use super::ops::room;
use super::tokens::{has_rows, in_place, scratch_bytes, to_the_end, to_the_front};
use super::value::dims_of;
use crate::inference::Error;
use crate::inference::tensor::Program;
use crate::kernels::{BLOCK, Rates, blocked_floats};
use crate::model::graph::{Op, ResizeTo};

/// Where a node's value lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// New memory.
    Own,
    /// The memory of an earlier node.
    Of(usize),
}

/// How a node is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// Together with an earlier node, or only noted.
    Nothing,
    /// Kernels on blocks of eight.
    Blocks,
    /// Kernels on rows.
    Rows,
    /// The reference.
    Reference,
}

/// What happens to each node.
struct Walk {
    shapes: Vec<Vec<usize>>,
    /// Last user of each node's own memory.
    last: Vec<usize>,
    place: Vec<Place>,
    /// In blocks of eight.
    blocks: Vec<bool>,
    /// Floats that memory in blocks has room for.
    room: Vec<usize>,
    by: Vec<By>,
}

impl Walk {
    fn new(native: &Native, spatial: &[usize]) -> Result<Self, Error> {
        let (program, fused) = (&native.program, &native.fused);
        let shapes = program.shapes(spatial)?;
        let nodes = &program.graph().nodes;
        let joints: HashMap<usize, &Joint> =
            native.joints.values().map(|j| (j.concat, j)).collect();
        let mut last = vec![0; nodes.len()];
        for (n, node) in nodes.iter().enumerate() {
            let joint = joints.get(&n);
            for from in &node.from {
                // A skip that is convolved first goes before the rest comes.
                let user = joint.filter(|j| *from == j.skip).map_or(n, |j| j.enlarged);
                last[*from] = last[*from].max(user);
            }
        }
        for output in &program.graph().outputs {
            last[*output] = nodes.len();
        }
        let mut walk = Self {
            place: vec![Place::Own; nodes.len()],
            blocks: vec![false; nodes.len()],
            room: vec![0; nodes.len()],
            by: vec![By::Nothing; nodes.len()],
            shapes,
            last,
        };
        // Nodes that are done with a convolution or a sum before them.
        let mut with = vec![None; nodes.len()];
        for n in 1..nodes.len() {
            if let Some(first) = with[n] {
                walk.join(n, first, By::Nothing);
                continue;
            }
            if joints.contains_key(&n) {
                // Not computed; its name stands for what is enlarged.
                walk.join(n, nodes[n].from[0], By::Nothing);
                continue;
            }
            walk.node(native, n);
            let mut at = n;
            while let Some(result) = fused[n].result.filter(|result| *result != at) {
                let next = (at + 1..=result).find(|user| nodes[*user].from.contains(&at));
                let Some(next) = next else { break };
                with[next] = Some(n);
                at = next;
            }
        }
        Ok(walk)
    }

    /// The node whose memory a node's value lies in.
    fn home(&self, n: usize) -> usize {
        match self.place[n] {
            Place::Own => n,
            Place::Of(home) => home,
        }
    }

    /// The memory of `first`, or of what it stands in, also for `n`.
    fn join(&mut self, n: usize, first: usize, by: By) {
        let home = self.home(first);
        self.place[n] = Place::Of(home);
        self.blocks[n] = self.blocks[first];
        self.by[n] = by;
        self.last[home] = self.last[home].max(self.last[n]);
    }

    /// Whether `n` is the last that needs the memory of `from`.
    fn ends(&self, from: usize, n: usize) -> bool {
        self.last[self.home(from)] == n
    }

    /// Whether a concatenation is written behind its first operand.
    fn grows(&self, first: usize, n: usize) -> bool {
        let home = self.home(first);
        let shape = &self.shapes[n];
        // A norm that waits on the operand is applied while it is copied.
        let noted = self.by[first] == By::Nothing;
        !noted && self.room[home] >= blocked_floats(dims_of(shape), shape[1]) && self.ends(first, n)
    }

    fn node(&mut self, native: &Native, n: usize) {
        let node = &native.program.graph().nodes[n];
        let Some(&first) = node.from.first() else {
            self.by[n] = By::Reference;
            return;
        };
        let (shape, from) = (&self.shapes[n], &self.shapes[first]);
        let on_grid = (3..=5).contains(&from.len()) && from[0] == 1;
        let in_blocks = self.blocks[first];
        let new = |walk: &mut Self, blocks: bool, by: By| {
            (walk.blocks[n], walk.by[n]) = (blocks, by);
        };
        let room = |walk: &Self| room(native.program.graph(), &walk.shapes, n);
        match &node.op {
            Op::Conv { .. } if native.convs.contains_key(&n) || native.joints.contains_key(&n) => {
                new(self, true, By::Blocks);
            }
            Op::ConvTranspose { .. } if native.transposed.contains_key(&n) => {
                if !native.skips_first.contains_key(&n) {
                    self.room[n] = room(self);
                }
                new(self, true, By::Blocks);
            }
            Op::Add
                if on_grid
                    && *from == self.shapes[node.from[1]]
                    && node.from.iter().any(|at| self.blocks[*at]) =>
            {
                if in_blocks && self.ends(first, n) {
                    self.join(n, first, By::Blocks);
                } else {
                    new(self, true, By::Blocks);
                }
            }
            op if activation_of(op).is_some() && on_grid && in_blocks => {
                self.join(n, first, By::Nothing);
            }
            Op::InstanceNorm { .. } | Op::GroupNorm { .. } | Op::BatchNorm { .. } if on_grid => {
                if in_blocks {
                    self.join(n, first, By::Nothing);
                } else {
                    new(self, true, By::Blocks);
                }
            }
            Op::Concat { axis: 1 }
                if on_grid
                    && node.from[..node.from.len() - 1]
                        .iter()
                        .all(|at| self.shapes[*at][1].is_multiple_of(BLOCK)) =>
            {
                if self.grows(first, n) {
                    self.join(n, first, By::Blocks);
                } else {
                    self.room[n] = room(self);
                    new(self, true, By::Blocks);
                }
            }
            Op::MaxPool(_) | Op::AveragePool { .. } if on_grid => new(self, true, By::Blocks),
            Op::GlobalAveragePool if on_grid && in_blocks => new(self, false, By::Blocks),
            Op::Resize { to, .. } if on_grid && in_blocks && whole(to, &from[2..]) => {
                self.room[n] = room(self);
                new(self, true, By::Blocks);
            }
            Op::Transpose { order } if in_blocks && to_the_end(order) => {
                new(self, false, By::Blocks);
            }
            Op::Transpose { order } if to_the_front(order) && shape[0] == 1 => {
                new(self, true, By::Rows);
            }
            op => {
                let shapes: Vec<&[usize]> = node
                    .from
                    .iter()
                    .map(|at| self.shapes[*at].as_slice())
                    .collect();
                if !has_rows(op, &shapes, shape) {
                    new(self, false, By::Reference);
                    return;
                }
                // What is changed in place.
                let mine = match op {
                    Op::Add => node.from[in_place(&shapes, shape).unwrap_or(0)],
                    _ => first,
                };
                let changes = activation_of(op).is_some()
                    || matches!(
                        op,
                        Op::LayerNorm { .. } | Op::Softmax { .. } | Op::Reshape { .. }
                    )
                    || matches!(op, Op::Add) && in_place(&shapes, shape).is_some();
                if changes && !self.blocks[mine] && self.ends(mine, n) {
                    self.join(n, mine, By::Rows);
                } else {
                    new(self, false, By::Rows);
                }
            }
        }
    }

    /// Bytes of a node's value.
    fn bytes(&self, n: usize) -> usize {
        let shape = &self.shapes[n];
        4 * if self.blocks[n] {
            blocked_floats(dims_of(shape), shape[1]).max(self.room[n])
        } else {
            shape.iter().product()
        }
    }

    /// Bytes that computing a node takes beside its operands and its result.
    fn scratch(&self, native: &Native, n: usize, threads: usize) -> usize {
        let node = &native.program.graph().nodes[n];
        let from = || dims_of(&self.shapes[node.from[0]]);
        if self.by[n] == By::Nothing {
            return 0;
        }
        let plain = |at: &usize| 4 * self.shapes[*at].iter().product::<usize>();
        let blocked = |at: &usize| {
            let shape = &self.shapes[*at];
            4 * blocked_floats(dims_of(shape), shape[1])
        };
        let joint = native.joints.get(&n).map(|joint| &joint.of_enlarged);
        match (joint.or(native.convs.get(&n)), native.transposed.get(&n)) {
            (Some(conv), _) => {
                // What is only noted is done first where the kernel wants plain values.
                let input = node.from[0];
                let settled = self.by[input] == By::Nothing && conv.wants_plain_input(from());
                let copy = if settled { self.bytes(input) } else { 0 };
                return copy + conv.scratch_bytes(from(), threads);
            }
            (_, Some(conv)) => return conv.scratch_bytes(from(), threads),
            _ => {}
        }
        // Operands that lie otherwise are brought into the form that is wanted.
        let others = |in_blocks: bool| {
            node.from
                .iter()
                .filter(move |at| self.blocks[**at] != in_blocks)
        };
        match self.by[n] {
            By::Blocks if matches!(node.op, Op::Transpose { .. } | Op::GlobalAveragePool) => 0,
            By::Blocks => others(true).map(blocked).sum(),
            By::Rows => {
                let shapes: Vec<&[usize]> = node
                    .from
                    .iter()
                    .map(|at| self.shapes[*at].as_slice())
                    .collect();
                let own = scratch_bytes(&node.op, &shapes, &self.shapes[n], threads);
                let matrix = native
                    .matrices
                    .get(&n)
                    .map_or(0, |m| m.scratch_bytes(threads));
                own + matrix + others(false).map(plain).sum::<usize>()
            }
            // Copies of the operands as its tensors, and of the result.
            By::Reference => {
                let all: usize = node.from.iter().map(plain).sum();
                others(false).map(plain).sum::<usize>() + all + 2 * plain(&n)
            }
            By::Nothing => 0,
        }
    }
}

/// Whether a size is a whole number of times the old one.
fn whole(to: &ResizeTo, old: &[usize]) -> bool {
    match to {
        ResizeTo::Factor(factors) => {
            let mut sizes = old.iter().zip(factors);
            sizes.all(|(n, f)| (*n as f64 * f).fract() == 0.0)
        }
        _ => true,
    }
}

/// Peak bytes: values that live together, with scratch, and packed weights.
pub fn bytes(native: &Native, spatial: &[usize]) -> Result<u64, Error> {
    let walk = Walk::new(native, spatial)?;
    let count = walk.shapes.len();
    let mut ends: Vec<Vec<usize>> = vec![Vec::new(); count + 1];
    for (n, last) in walk.last.iter().enumerate() {
        if walk.place[n] == Place::Own {
            ends[(*last).max(n)].push(n);
        }
    }
    let threads = rayon::current_num_threads();
    let (mut alive, mut peak) = (walk.bytes(0), 0);
    for (n, ended) in ends.iter().enumerate().take(count) {
        let mut gone = None;
        if let Some(conv) = native.skips_first.get(&n) {
            let joint = &native.joints[conv];
            let skip = walk.home(joint.skip);
            let scratch = joint
                .of_skip
                .scratch_bytes(dims_of(&walk.shapes[joint.skip]), threads);
            alive += walk.bytes(*conv);
            peak = peak.max(alive + scratch);
            gone = (walk.last[skip] == n).then_some(skip);
            alive -= gone.map_or(0, |skip| walk.bytes(skip));
        }
        let is_begun = native.joints.contains_key(&n);
        if n > 0 && walk.place[n] == Place::Own && !is_begun {
            alive += walk.bytes(n);
        }
        peak = peak.max(alive + walk.scratch(native, n, threads));
        let others = ended.iter().filter(|m| Some(**m) != gone);
        alive -= others.map(|m| walk.bytes(*m)).sum::<usize>();
    }
    Ok(peak as u64 + native.weight_bytes())
}

/// Seconds that a run is expected to take.
pub fn secs(native: &Native, spatial: &[usize], rates: &Rates) -> Result<f64, Error> {
    let program = &native.program;
    let walk = Walk::new(native, spatial)?;
    let nodes = &program.graph().nodes;
    let bytes = |n: usize| walk.bytes(n) as f64;
    let mut all = 0.0;
    for (n, node) in nodes.iter().enumerate().skip(1) {
        let from = || dims_of(&walk.shapes[node.from[0]]);
        let passes = || node.from.iter().map(|f| bytes(*f)).sum::<f64>() + bytes(n);
        if let Some(joint) = native.joints.get(&n) {
            for part in [&joint.of_skip, &joint.of_enlarged] {
                all += part.expected_secs(from(), rates);
            }
            continue;
        }
        all += match (native.convs.get(&n), native.transposed.get(&n)) {
            (Some(conv), _) => conv.expected_secs(from(), rates),
            // A norm that waits is applied before.
            (_, Some(conv)) => {
                conv.expected_secs(from(), rates) + 2.0 * bytes(node.from[0]) * rates.byte_secs
            }
            _ if walk.by[n] == By::Nothing => 0.0,
            _ => {
                let products = product_flops(program, &walk.shapes, n)
                    + SCORE * scores(&node.op, &walk.shapes, n, &node.from);
                let slow = if walk.by[n] == By::Reference {
                    4.0
                } else {
                    1.0
                };
                slow * (products * rates.direct_secs + AROUND * passes() * rates.byte_secs)
                    + rates.start_secs
            }
        };
    }
    Ok(all)
}

/// What a pass over operands and results takes against a copy in one go: fresh pages, and rows that do
/// not lie side by side. Found from `SwinUNETR`.
const AROUND: f64 = 3.0;

/// What adding to a score and its exponential are worth in multiplications and additions, found from
/// `SwinUNETR`.
const SCORE: f64 = 190.0;

/// Scores of an attention.
fn scores(op: &Op, shapes: &[Vec<usize>], n: usize, from: &[usize]) -> f64 {
    let count = |shape: &[usize]| shape.iter().map(|n| *n as f64).product::<f64>();
    match op {
        Op::Attention { .. } => {
            let q = &shapes[from[0]];
            count(&q[..3]) * shapes[n][2].max(1) as f64
        }
        Op::WindowAttention { heads, window, .. } => {
            let (_, tokens) = shapes[n].split_last().unwrap_or((&0, &[]));
            count(tokens) * *heads as f64 * window.iter().product::<usize>() as f64
        }
        _ => 0.0,
    }
}

/// Multiplications and additions of convolutions and products.
pub fn flops(program: &Program, spatial: &[usize]) -> Result<f64, Error> {
    let shapes = program.shapes(spatial)?;
    let nodes = &program.graph().nodes;
    Ok((0..nodes.len())
        .map(|n| product_flops(program, &shapes, n))
        .sum())
}

fn product_flops(program: &Program, shapes: &[Vec<usize>], n: usize) -> f64 {
    let count = |shape: &[usize]| shape.iter().map(|n| *n as f64).product::<f64>();
    let (node, shape) = (&program.graph().nodes[n], &shapes[n]);
    match &node.op {
        Op::Conv { weight, .. } => 2.0 * count(shape) * count(&program.weight(weight).shape[1..]),
        Op::ConvTranspose { weight, .. } => {
            2.0 * count(&shapes[node.from[0]]) * count(&program.weight(weight).shape[1..])
        }
        Op::Linear { weight, .. } => 2.0 * count(shape) * program.weight(weight).shape[1] as f64,
        Op::MatMul => {
            let a = &shapes[node.from[0]];
            2.0 * count(shape) * a[a.len() - 1] as f64
        }
        Op::Attention { .. } => {
            let [q, k] = [&shapes[node.from[0]], &shapes[node.from[1]]];
            2.0 * count(q) * k[2] as f64 + 2.0 * count(shape) * k[2] as f64
        }
        Op::WindowAttention { window, .. } => {
            4.0 * count(shape) * window.iter().product::<usize>() as f64
        }
        _ => 0.0,
    }
}

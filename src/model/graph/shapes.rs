//! What shape every value has, and whether a graph makes sense at all.

use super::{Affine, Graph, Op, Pool, ResizeTo};

/// Axes of a value.
pub type Shape = Vec<usize>;

/// Shape of a named tensor of the package.
pub type WeightShapes<'a> = dyn Fn(&str) -> Option<Shape> + 'a;

/// Most elements of one value: more is a mistake or an attack, not a network.
pub const MOST_ELEMENTS: usize = 1 << 36;

/// Most nodes of a graph.
const MOST_NODES: usize = 100_000;

impl Graph {
    /// Checks the graph for an input of the given spatial axes and gives each value's shape.
    ///
    /// # Errors
    /// In words, with the number and the name of the operation.
    pub fn shapes(
        &self,
        spatial: &[usize],
        weights: &WeightShapes<'_>,
    ) -> Result<Vec<Shape>, String> {
        let Some((channels, axes)) = self.input() else {
            return Err("the first operation is no input".to_owned());
        };
        if !(1..=3).contains(&axes) || axes != spatial.len() || channels == 0 {
            return Err(format!(
                "an input of {channels} channels on {axes} axes, given {spatial:?}"
            ));
        }
        if self.nodes.len() > MOST_NODES || self.outputs.is_empty() {
            return Err(format!(
                "{} operations with {} results",
                self.nodes.len(),
                self.outputs.len()
            ));
        }
        if let Some(output) = self.outputs.iter().find(|o| **o >= self.nodes.len()) {
            return Err(format!("result {output} is no operation"));
        }
        let mut shapes: Vec<Shape> = Vec::with_capacity(self.nodes.len());
        shapes.push([&[1, channels], spatial].concat());
        for (n, node) in self.nodes.iter().enumerate().skip(1) {
            let named = |reason: String| format!("operation {n} ({}): {reason}", node.op.name());
            let mut from = Vec::with_capacity(node.from.len());
            for value in &node.from {
                if *value >= n {
                    return Err(named(format!("it takes value {value}, which comes later")));
                }
                from.push(shapes[*value].as_slice());
            }
            let shape = node.op.shape(&from, weights).map_err(named)?;
            elements(&shape).map_err(named)?;
            shapes.push(shape);
        }
        Ok(shapes)
    }
}

/// Number of elements, bounded.
fn elements(shape: &[usize]) -> Result<usize, String> {
    let count = shape.iter().try_fold(1_usize, |a, b| a.checked_mul(*b));
    match count {
        Some(count) if (1..=MOST_ELEMENTS).contains(&count) => Ok(count),
        _ => Err(format!("a value of {shape:?}")),
    }
}

impl Op {
    /// The operation's name, as in a manifest.
    pub fn name(&self) -> String {
        let value = serde_json::to_value(self).unwrap_or_default();
        value["op"].as_str().unwrap_or("unknown").to_owned()
    }

    /// The shape of the operation's value for values and tensors of these shapes.
    ///
    /// # Errors
    /// In words, when they do not fit.
    pub fn shape(&self, from: &[&[usize]], weights: &WeightShapes<'_>) -> Result<Shape, String> {
        let takes = |count: usize| {
            if from.len() == count {
                Ok(())
            } else {
                Err(format!("{} values, expected {count}", from.len()))
            }
        };
        let tensor = |name: &String| weights(name).ok_or_else(|| format!("no tensor {name:?}"));
        match self {
            Self::Input { .. } => Err("only the first operation is an input".to_owned()),
            Self::Constant { tensor: name } => {
                takes(0)?;
                tensor(name)
            }
            Self::Conv {
                weight,
                bias,
                stride,
                padding,
                dilation,
                groups,
            } => {
                takes(1)?;
                let w = tensor(weight)?;
                let axes = spatial(from[0])?.len();
                same_axes(axes, &[stride.len(), padding.len(), dilation.len()])?;
                if w.len() != axes + 2 || *groups == 0 {
                    return Err(format!(
                        "weights of {w:?} in {groups} groups on {axes} axes"
                    ));
                }
                if Some(from[0][1]) != w[1].checked_mul(*groups) || w[0] % groups != 0 {
                    return Err(format!(
                        "{} channels arrive, weights are {w:?} in {groups} groups",
                        from[0][1]
                    ));
                }
                channels(weights, bias.iter(), w[0])?;
                let mut shape = vec![from[0][0], w[0]];
                for (axis, n) in spatial(from[0])?.iter().enumerate() {
                    let [before, after] = padding[axis];
                    let reach = checked_span(w[axis + 2], dilation[axis])?;
                    shape.push(steps(*n, before, after, reach, stride[axis], false)?);
                }
                Ok(shape)
            }
            Self::ConvTranspose {
                weight,
                bias,
                stride,
                padding,
                output_padding,
                groups,
            } => {
                takes(1)?;
                let w = tensor(weight)?;
                let axes = spatial(from[0])?.len();
                same_axes(axes, &[stride.len(), padding.len(), output_padding.len()])?;
                if w.len() != axes + 2 || *groups == 0 || w[0] != from[0][1] || w[0] % groups != 0 {
                    return Err(format!(
                        "{} channels arrive, weights are {w:?} in {groups} groups",
                        from[0][1]
                    ));
                }
                let out = w[1].checked_mul(*groups).ok_or("too many channels")?;
                channels(weights, bias.iter(), out)?;
                let mut shape = vec![from[0][0], out];
                for (axis, n) in spatial(from[0])?.iter().enumerate() {
                    if stride[axis] == 0
                        || stride[axis] > 64
                        || output_padding[axis] >= stride[axis]
                    {
                        return Err(format!("stride {stride:?}, added {output_padding:?}"));
                    }
                    let [before, after] = padding[axis];
                    let full = (n - 1)
                        .checked_mul(stride[axis])
                        .and_then(|x| x.checked_add(w[axis + 2] + output_padding[axis]))
                        .and_then(|x| x.checked_sub(before.checked_add(after)?));
                    shape.push(full.filter(|x| *x > 0).ok_or("padding takes everything")?);
                }
                Ok(shape)
            }
            Self::InstanceNorm { affine, .. } | Self::GroupNorm { affine, .. } => {
                takes(1)?;
                let count = spatial(from[0]).map(|_| from[0][1])?;
                if let Self::GroupNorm { groups, .. } = self
                    && (*groups == 0 || count % groups != 0)
                {
                    return Err(format!("{count} channels in {groups} groups"));
                }
                channels(weights, names(affine.as_ref()), count)?;
                Ok(from[0].to_vec())
            }
            Self::BatchNorm {
                mean,
                variance,
                affine,
                ..
            } => {
                takes(1)?;
                let count = *from[0].get(1).ok_or("no channels")?;
                channels(weights, [mean, variance].into_iter(), count)?;
                channels(weights, names(affine.as_ref()), count)?;
                Ok(from[0].to_vec())
            }
            Self::LayerNorm { affine, .. } => {
                takes(1)?;
                channels(
                    weights,
                    names(affine.as_ref()),
                    *from[0].last().ok_or("no axes")?,
                )?;
                Ok(from[0].to_vec())
            }
            Self::PRelu { slope } => {
                takes(1)?;
                let count = *from[0].get(1).ok_or("no channels")?;
                if tensor(slope)? != [1] {
                    channels(weights, [slope].into_iter(), count)?;
                }
                Ok(from[0].to_vec())
            }
            Self::Relu
            | Self::LeakyRelu { .. }
            | Self::Elu { .. }
            | Self::Gelu
            | Self::GeluTanh
            | Self::Silu
            | Self::Sigmoid
            | Self::Tanh
            | Self::Unary { .. } => {
                takes(1)?;
                Ok(from[0].to_vec())
            }
            Self::Softmax { axis } => {
                takes(1)?;
                from[0]
                    .get(*axis)
                    .ok_or(format!("axis {axis} of {:?}", from[0]))?;
                Ok(from[0].to_vec())
            }
            Self::MaxPool(pool) | Self::AveragePool { pool, .. } => {
                takes(1)?;
                pooled(from[0], pool)
            }
            Self::GlobalAveragePool => {
                takes(1)?;
                let axes = spatial(from[0])?.len();
                Ok([&from[0][..2], &vec![1; axes]].concat())
            }
            Self::AdaptiveAveragePool { size } => {
                takes(1)?;
                same_axes(spatial(from[0])?.len(), &[size.len()])?;
                Ok([&from[0][..2], size].concat())
            }
            Self::Resize { to, .. } => {
                takes(if *to == ResizeTo::Second { 2 } else { 1 })?;
                let old = spatial(from[0])?;
                let new = match to {
                    ResizeTo::Size(size) => size.clone(),
                    ResizeTo::Second => spatial(from[1])?.to_vec(),
                    ResizeTo::Factor(factors) => {
                        if factors
                            .iter()
                            .any(|f| !(f.is_finite() && *f > 0.0 && *f <= 1024.0))
                        {
                            return Err(format!("factors {factors:?}"));
                        }
                        let pairs = old.iter().zip(factors);
                        pairs
                            .map(|(n, f)| (*n as f64 * f).floor() as usize)
                            .collect()
                    }
                };
                same_axes(old.len(), &[new.len()])?;
                Ok([&from[0][..2], &new].concat())
            }
            Self::Add
            | Self::Sub
            | Self::Mul
            | Self::Div
            | Self::Pow
            | Self::Minimum
            | Self::Maximum
            | Self::Greater => {
                takes(2)?;
                broadcast(from[0], from[1])
            }
            Self::Select => {
                takes(3)?;
                broadcast(from[0], &broadcast(from[1], from[2])?)
            }
            Self::Concat { axis } => {
                let first = *from.first().ok_or("nothing to join")?;
                let mut shape = first.to_vec();
                *shape
                    .get_mut(*axis)
                    .ok_or(format!("axis {axis} of {first:?}"))? = 0;
                for other in from {
                    let fits = other.len() == first.len()
                        && (0..first.len()).all(|a| a == *axis || other[a] == first[a]);
                    if !fits {
                        return Err(format!("{first:?} and {other:?} along axis {axis}"));
                    }
                    shape[*axis] += other[*axis];
                }
                Ok(shape)
            }
            Self::Slice { axis, start, end } => {
                takes(1)?;
                let n = *from[0]
                    .get(*axis)
                    .ok_or(format!("axis {axis} of {:?}", from[0]))?;
                let (start, end) = slice_bounds(n, *start, *end);
                let mut shape = from[0].to_vec();
                shape[*axis] = end
                    .checked_sub(start)
                    .filter(|count| *count > 0)
                    .ok_or(format!("nothing between {start} and {end}"))?;
                Ok(shape)
            }
            Self::Pad { padding, .. } => {
                takes(1)?;
                same_axes(from[0].len(), &[padding.len()])?;
                let mut shape = Vec::new();
                for (n, [before, after]) in from[0].iter().zip(padding) {
                    let sum = n.checked_add(*before).and_then(|x| x.checked_add(*after));
                    shape.push(sum.ok_or("too much padding")?);
                }
                Ok(shape)
            }
            Self::Reshape { shape } => {
                takes(1)?;
                reshaped(from[0], shape)
            }
            Self::Transpose { order } => {
                takes(1)?;
                let mut sorted = order.clone();
                sorted.sort_unstable();
                if !sorted.into_iter().eq(0..from[0].len()) {
                    return Err(format!("order {order:?} of {:?}", from[0]));
                }
                Ok(order.iter().map(|axis| from[0][*axis]).collect())
            }
            Self::Mean { axes, keep } | Self::Reduce { axes, keep, .. } => {
                takes(1)?;
                if axes.is_empty() || axes.iter().any(|a| *a >= from[0].len()) {
                    return Err(format!("axes {axes:?} of {:?}", from[0]));
                }
                let kept = from[0].iter().enumerate().filter_map(|(a, n)| {
                    match (axes.contains(&a), keep) {
                        (false, _) => Some(*n),
                        (true, true) => Some(1),
                        (true, false) => None,
                    }
                });
                Ok(kept.collect())
            }
            Self::MatMul => {
                takes(2)?;
                multiplied(from[0], from[1])
            }
            Self::Linear { weight, bias } => {
                takes(1)?;
                let w = tensor(weight)?;
                if w.len() != 2 || from[0].last() != Some(&w[1]) {
                    return Err(format!("weights of {w:?} for {:?}", from[0]));
                }
                channels(weights, bias.iter(), w[0])?;
                let mut shape = from[0].to_vec();
                *shape.last_mut().ok_or("no axes")? = w[0];
                Ok(shape)
            }
            Self::Attention { .. } => {
                takes(3)?;
                let [q, k, v] = [from[0], from[1], from[2]];
                let fits = q.len() == 4
                    && k.len() == 4
                    && v.len() == 4
                    && q[..2] == k[..2]
                    && k[..3] == v[..3]
                    && q[3] == k[3];
                if !fits {
                    return Err(format!("queries {q:?}, keys {k:?}, values {v:?}"));
                }
                Ok(vec![q[0], q[1], q[2], v[3]])
            }
            Self::WindowAttention {
                heads,
                bias,
                table,
                window,
                shift,
                ..
            } => {
                takes(1)?;
                let axes = table.len();
                let x = from[0];
                same_axes(axes, &[window.len(), shift.len()])?;
                if !(1..=3).contains(&axes) || x.len() != axes + 2 || x[0] != 1 {
                    return Err(format!("windows of {window:?} in {x:?}"));
                }
                let width = x[axes + 1] / 3;
                if *heads == 0 || !x[axes + 1].is_multiple_of(3) || !width.is_multiple_of(*heads) {
                    return Err(format!("{} channels for {heads} heads", x[axes + 1]));
                }
                for a in 0..axes {
                    let (w, n) = (window[a], x[a + 1]);
                    if w == 0 || w > 64 || w > table[a] || !n.is_multiple_of(w) || shift[a] >= w {
                        return Err(format!(
                            "windows of {window:?} shifted by {shift:?} in {x:?}, biases for {table:?}"
                        ));
                    }
                }
                let biases = table.iter().map(|t| 2 * t.min(&1024) - 1).product();
                let found = tensor(bias)?;
                if found != [biases, *heads] {
                    return Err(format!("biases of {found:?}, expected [{biases}, {heads}]"));
                }
                Ok([&x[..=axes], &[width]].concat())
            }
        }
    }
}

/// A slice's first index and the one past its last, as Python counts.
pub fn slice_bounds(n: usize, start: i64, end: i64) -> (usize, usize) {
    let place = |at: i64| {
        let at = if at < 0 {
            at.saturating_add(n as i64)
        } else {
            at
        };
        at.clamp(0, n as i64) as usize
    };
    (place(start), place(end))
}

fn spatial(shape: &[usize]) -> Result<&[usize], String> {
    if (3..=5).contains(&shape.len()) {
        Ok(&shape[2..])
    } else {
        Err(format!(
            "a value of {shape:?}, expected [batch, channels, …]"
        ))
    }
}

fn same_axes(axes: usize, lengths: &[usize]) -> Result<(), String> {
    if lengths.iter().all(|n| *n == axes) {
        Ok(())
    } else {
        Err(format!(
            "settings for {lengths:?} axes, the value has {axes}"
        ))
    }
}

fn names(affine: Option<&Affine>) -> impl Iterator<Item = &String> {
    affine.into_iter().flat_map(|a| [&a.scale, &a.shift])
}

/// Tensors must be `[count]`.
fn channels<'a>(
    weights: &WeightShapes<'_>,
    mut tensors: impl Iterator<Item = &'a String>,
    count: usize,
) -> Result<(), String> {
    tensors.try_for_each(|name| match weights(name) {
        Some(shape) if shape == [count] => Ok(()),
        Some(shape) => Err(format!("tensor {name:?} is {shape:?}, expected [{count}]")),
        None => Err(format!("no tensor {name:?}")),
    })
}

/// Voxels that a kernel covers.
fn checked_span(kernel: usize, dilation: usize) -> Result<usize, String> {
    let span = kernel
        .checked_sub(1)
        .and_then(|k| k.checked_mul(dilation))
        .and_then(|k| k.checked_add(1));
    span.filter(|s| dilation > 0 && *s <= 4096)
        .ok_or_else(|| format!("kernel {kernel}, dilation {dilation}"))
}

/// Number of places of a window.
fn steps(
    n: usize,
    before: usize,
    after: usize,
    span: usize,
    stride: usize,
    ceil: bool,
) -> Result<usize, String> {
    let error = || format!("a window of {span}, stride {stride}, on {n} with {before} + {after}");
    if stride == 0 || stride > 4096 {
        return Err(error());
    }
    let room = n
        .checked_add(before)
        .and_then(|x| x.checked_add(after))
        .and_then(|x| x.checked_sub(span))
        .ok_or_else(error)?;
    if ceil {
        let count = room.div_ceil(stride) + 1;
        // The last window must start inside (PyTorch's rule).
        return Ok(if (count - 1) * stride >= n + before {
            count - 1
        } else {
            count
        });
    }
    Ok(room / stride + 1)
}

fn pooled(from: &[usize], pool: &Pool) -> Result<Shape, String> {
    let old = spatial(from)?;
    same_axes(
        old.len(),
        &[pool.kernel.len(), pool.stride.len(), pool.padding.len()],
    )?;
    let mut shape = from[..2].to_vec();
    for (axis, n) in old.iter().enumerate() {
        let [before, after] = pool.padding[axis];
        let kernel = checked_span(pool.kernel[axis], 1)?;
        if before.max(after) > kernel / 2 {
            return Err(format!(
                "padding {:?} of kernel {:?}",
                pool.padding, pool.kernel
            ));
        }
        shape.push(steps(
            *n,
            before,
            after,
            kernel,
            pool.stride[axis],
            pool.ceil,
        )?);
    }
    Ok(shape)
}

/// NumPy's rule.
fn broadcast(a: &[usize], b: &[usize]) -> Result<Shape, String> {
    let axes = a.len().max(b.len());
    let at = |shape: &[usize], axis: usize| {
        let missing = axes - shape.len();
        if axis < missing {
            1
        } else {
            shape[axis - missing]
        }
    };
    (0..axes)
        .map(|axis| match (at(a, axis), at(b, axis)) {
            (x, y) if x == y || y == 1 => Ok(x),
            (1, y) => Ok(y),
            _ => Err(format!("{a:?} and {b:?} do not fit")),
        })
        .collect()
}

fn reshaped(from: &[usize], to: &[i64]) -> Result<Shape, String> {
    let count = elements(from)?;
    let mut shape = Vec::with_capacity(to.len());
    let mut open = None;
    for (axis, n) in to.iter().enumerate() {
        shape.push(match n {
            0 => *from.get(axis).ok_or(format!("axis {axis} of {from:?}"))?,
            -1 if open.is_none() => {
                open = Some(axis);
                1
            }
            n => usize::try_from(*n).map_err(|_| format!("shape {to:?}"))?,
        });
    }
    let known = elements(&shape)?;
    if let Some(axis) = open {
        shape[axis] = count / known;
    }
    if elements(&shape)? == count {
        Ok(shape)
    } else {
        Err(format!("{from:?} as {to:?}"))
    }
}

fn multiplied(a: &[usize], b: &[usize]) -> Result<Shape, String> {
    let error = || format!("{a:?} times {b:?}");
    if a.len() < 2 || b.len() < 2 {
        return Err(error());
    }
    let ((rest_a, last_a), (rest_b, last_b)) = (a.split_at(a.len() - 2), b.split_at(b.len() - 2));
    if last_a[1] != last_b[0] {
        return Err(error());
    }
    let mut shape = broadcast(rest_a, rest_b)?;
    shape.extend([last_a[0], last_b[1]]);
    Ok(shape)
}

#[cfg(test)]
mod tests {
    use super::super::{Graph, Node, Op, Pool};
    use super::*;

    fn conv(weight: &str, axes: usize, stride: usize) -> Op {
        Op::Conv {
            weight: weight.to_owned(),
            bias: None,
            stride: vec![stride; axes],
            padding: vec![[1, 1]; axes],
            dilation: vec![1; axes],
            groups: 1,
        }
    }

    fn weights(name: &str) -> Option<Shape> {
        match name {
            "a" => Some(vec![8, 1, 3, 3, 3]),
            "b" => Some(vec![16, 8, 3, 3, 3]),
            "up" => Some(vec![16, 8, 2, 2, 2]),
            _ => None,
        }
    }

    /// Two steps down, one up, with a skip.
    fn small_unet() -> Graph {
        let mut g = Graph::new(1, 3);
        let a = g.push(conv("a", 3, 1), &[0]);
        let b = g.push(conv("b", 3, 2), &[a]);
        let up = Op::ConvTranspose {
            weight: "up".into(),
            bias: None,
            stride: vec![2; 3],
            padding: vec![[0, 0]; 3],
            output_padding: vec![0; 3],
            groups: 1,
        };
        let up = g.push(up, &[b]);
        let joined = g.push(Op::Concat { axis: 1 }, &[up, a]);
        g.outputs = vec![joined];
        g
    }

    #[test]
    fn a_unet_has_the_shapes_that_pytorch_gives() {
        let shapes = small_unet().shapes(&[8, 12, 10], &weights).unwrap();
        assert_eq!(shapes[1], [1, 8, 8, 12, 10]);
        assert_eq!(shapes[2], [1, 16, 4, 6, 5]);
        assert_eq!(shapes[4], [1, 16, 8, 12, 10]);
        // An odd size does not come back to itself: the skip does not fit.
        let refused = small_unet().shapes(&[8, 12, 9], &weights).unwrap_err();
        assert!(refused.contains("operation 4 (concat)"), "{refused}");
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let check = |change: &dyn Fn(&mut Graph), words: &str| {
            let mut g = small_unet();
            change(&mut g);
            let refused = g.shapes(&[8, 8, 8], &weights).unwrap_err();
            assert!(refused.contains(words), "{refused}");
        };
        check(&|g| g.nodes[1].from = vec![2], "comes later");
        check(&|g| g.nodes[1].from = vec![1], "comes later");
        check(&|g| g.nodes[1].op = conv("c", 3, 1), "no tensor \"c\"");
        check(&|g| g.nodes[1].op = conv("b", 3, 1), "1 channels arrive");
        check(&|g| g.nodes[1].op = conv("a", 2, 1), "axes");
        check(&|g| g.nodes[1].op = conv("a", 3, 0), "stride 0");
        check(&|g| g.outputs = vec![9], "result 9");
        check(&|g| g.outputs.clear(), "0 results");
        check(&|g| g.nodes[1].op = Op::Relu, "operation");
        let big = Op::Pad {
            padding: vec![[0, usize::MAX / 2]; 5],
            mode: super::super::PadMode::Reflect,
        };
        check(&|g| g.nodes[1].op = big.clone(), "value of");
        check(
            &|g| {
                g.nodes.insert(
                    1,
                    Node {
                        op: Op::Relu,
                        from: vec![],
                    },
                );
            },
            "0 values",
        );
    }

    #[test]
    fn pooling_with_ceil_follows_pytorch() {
        // torch.nn.MaxPool2d(3, 2, 1, ceil_mode=True) and MaxPool2d(2, 2, 0, ceil_mode=True).
        let pool = |kernel, padding, ceil| Pool {
            kernel: vec![kernel],
            stride: vec![2],
            padding: vec![[padding; 2]],
            ceil,
        };
        for (n, kernel, padding, ceil, want) in [
            (7, 3, 1, true, 4),
            (8, 3, 1, true, 5),
            (8, 3, 1, false, 4),
            (7, 2, 0, true, 4),
            (7, 2, 0, false, 3),
            (1, 2, 1, true, 1),
        ] {
            let got = pooled(&[1, 1, n], &pool(kernel, padding, ceil)).unwrap();
            assert_eq!(got[2], want, "{n} {kernel} {padding} {ceil}");
        }
    }

    #[test]
    fn slices_count_as_python_does() {
        assert_eq!(slice_bounds(10, -3, i64::MAX), (7, 10));
        assert_eq!(slice_bounds(10, 0, -1), (0, 9));
        assert_eq!(slice_bounds(10, -20, 4), (0, 4));
    }

    #[test]
    fn a_graph_survives_its_manifest() {
        let g = small_unet();
        let text = serde_json::to_string(&g).unwrap();
        assert_eq!(serde_json::from_str::<Graph>(&text).unwrap(), g);
        let mut g = Graph::new(1, 2);
        for op in [
            Op::LeakyRelu { slope: 0.01 },
            Op::MaxPool(Pool {
                kernel: vec![2; 2],
                stride: vec![2; 2],
                padding: vec![[0; 2]; 2],
                ceil: false,
            }),
            Op::Resize {
                to: ResizeTo::Factor(vec![2.0; 2]),
                mode: super::super::ResizeMode::Linear,
            },
            Op::Pad {
                padding: vec![[1; 2]; 4],
                mode: super::super::PadMode::Constant(0.5),
            },
        ] {
            let last = g.nodes.len() - 1;
            g.push(op, &[last]);
        }
        g.outputs = vec![4];
        let text = serde_json::to_string(&g).unwrap();
        assert_eq!(serde_json::from_str::<Graph>(&text).unwrap(), g);
    }
}

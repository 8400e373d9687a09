//! A file's nodes, one after another, as operations of the project's graph.
//!
//! What does not depend on the image (weights, shape arithmetic) is computed on the way; the shapes
//! are those of the stated input size.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::known::{Data, Files, Known, count};
use super::proto::{self, Attribute, Node};
use super::wire::Parsed;
use super::{fold, grid, values};
use crate::model::graph::{self, Graph, Op, Shape};

/// Operation sets that are understood.
pub(super) const OPSETS: std::ops::RangeInclusive<i64> = 11..=21;

/// What a name of the file stands for.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// It does not depend on the image.
    Known(Known),
    /// A node of the graph.
    Node(usize),
    /// The index of the largest value along the channels of a node; only at the end.
    Largest(usize),
}

/// A network in the project's form, its weights still in the file.
#[derive(Debug)]
pub(super) struct Translated {
    pub(super) graph: Graph,
    pub(super) weights: BTreeMap<String, Known>,
    /// The result's shape for the stated input.
    pub(super) result: Shape,
    /// The file ends with an arg max over the channels, which is left to the procedure.
    pub(super) largest: bool,
}

/// A node with what its inputs stand for.
pub(super) struct Call<'a> {
    pub(super) node: &'a Node,
    pub(super) inputs: Vec<Option<Value>>,
    pub(super) opset: i64,
}

/// The graph as it grows.
pub(super) struct Growing<'a> {
    pub(super) files: &'a Files,
    pub(super) graph: Graph,
    pub(super) shapes: Vec<Shape>,
    pub(super) weights: BTreeMap<String, Known>,
}

/// Translates the part of a file that leads from its input to a result.
///
/// `input`: its name and shape; `output`: the result's name.
pub(super) fn translate(
    model: &proto::Graph,
    opset: i64,
    files: &Files,
    (input, shape): (&str, &[usize]),
    output: &str,
) -> Parsed<Translated> {
    let mut growing = Growing {
        files,
        graph: Graph::new(shape[1], shape.len() - 2),
        shapes: vec![shape.to_vec()],
        weights: BTreeMap::new(),
    };
    let mut values: HashMap<&str, Value> = HashMap::new();
    for tensor in &model.initializers {
        values.insert(&tensor.name, Value::Known(Known::stored(tensor)?));
    }
    values.insert(input, Value::Node(0));
    let wanted = wanted(model, output)?;
    let done_with = last_uses(model, &wanted, output);
    for (n, node) in model.nodes.iter().enumerate() {
        if !wanted[n] {
            continue;
        }
        let call = Call {
            node,
            inputs: inputs(node, &values)?,
            opset,
        };
        let results = step(&mut growing, &call).map_err(|reason| named(node, opset, &reason))?;
        drop(call);
        for value in &results {
            if let Value::Known(known) = value {
                files.hold(known);
            }
        }
        for (name, value) in node.outputs.iter().zip(results) {
            if !name.is_empty() && values.insert(name, value).is_some() {
                return Err(named(node, opset, &format!("{name:?} is given twice")));
            }
        }
        // What nobody takes any more makes room.
        for name in done_with.get(&n).into_iter().flatten() {
            if let Some(Value::Known(known)) = values.remove(*name) {
                files.let_go(&known);
            }
        }
    }
    let (last, largest) = match values.remove(output) {
        Some(Value::Node(n)) => (n, false),
        Some(Value::Largest(n)) => (n, true),
        Some(Value::Known(_)) => {
            return Err(format!(
                "the result {output:?} does not depend on the input"
            ));
        }
        None => return Err(format!("no operation gives the result {output:?}")),
    };
    let result = growing.shapes[last].clone();
    let graph = pruned(&growing.graph, last);
    let used: HashSet<String> = graph.tensors().into_iter().map(str::to_owned).collect();
    let mut weights = growing.weights;
    weights.retain(|name, _| used.contains(name));
    Ok(Translated {
        graph,
        weights,
        result,
        largest,
    })
}

fn named(node: &Node, opset: i64, reason: &str) -> String {
    let domain = match node.domain.as_str() {
        "" | "ai.onnx" => String::new(),
        other => format!(" of {other:?}"),
    };
    format!(
        "operation {:?}{domain}, node {:?}, opset {opset}: {reason}",
        node.op, node.name
    )
}

/// Which nodes lead to the result.
fn wanted(model: &proto::Graph, output: &str) -> Parsed<Vec<bool>> {
    let mut giver: HashMap<&str, usize> = HashMap::new();
    for (n, node) in model.nodes.iter().enumerate() {
        for name in node.outputs.iter().filter(|name| !name.is_empty()) {
            if giver.insert(name, n).is_some() {
                return Err(format!("two operations give {name:?}"));
            }
        }
    }
    let mut wanted = vec![false; model.nodes.len()];
    let mut open: Vec<usize> = giver.get(output).copied().into_iter().collect();
    while let Some(n) = open.pop() {
        if !std::mem::replace(&mut wanted[n], true) {
            let inputs = model.nodes[n].inputs.iter();
            open.extend(inputs.filter_map(|name| giver.get(name.as_str())));
        }
    }
    Ok(wanted)
}

/// The names of which each node is the last user.
fn last_uses<'a>(
    model: &'a proto::Graph,
    wanted: &[bool],
    output: &str,
) -> HashMap<usize, Vec<&'a str>> {
    let mut last: HashMap<&str, usize> = HashMap::new();
    for (n, node) in model.nodes.iter().enumerate().filter(|(n, _)| wanted[*n]) {
        // Also what is given and never taken.
        for name in node.inputs.iter().chain(&node.outputs) {
            last.insert(name, n);
        }
    }
    let mut by_node: HashMap<usize, Vec<&str>> = HashMap::new();
    for (name, n) in last {
        if name != output {
            by_node.entry(n).or_default().push(name);
        }
    }
    by_node
}

fn inputs(node: &Node, values: &HashMap<&str, Value>) -> Parsed<Vec<Option<Value>>> {
    let value = |name: &String| match values.get(name.as_str()) {
        _ if name.is_empty() => Ok(None),
        Some(value) => Ok(Some(value.clone())),
        None => Err(format!(
            "operation {:?}, node {:?}: it takes {name:?}, which nothing before it gives",
            node.op, node.name
        )),
    };
    node.inputs.iter().map(value).collect()
}

/// One node.
fn step(growing: &mut Growing<'_>, call: &Call<'_>) -> Parsed<Vec<Value>> {
    let known = matches!(call.node.domain.as_str(), "" | "ai.onnx")
        .then(|| attributes(&call.node.op))
        .flatten();
    let Some(known) = known else {
        return Err("it is not supported".to_owned());
    };
    for (name, _) in &call.node.attributes {
        if !known.contains(&name.as_str()) {
            return Err(format!("its attribute {name:?} is not understood"));
        }
    }
    if let [Some(Value::Largest(n)), ..] = call.inputs.as_slice() {
        // Behind the arg max only what does not change which index it is.
        return match call.node.op.as_str() {
            "Cast" | "Identity" | "Squeeze" | "Unsqueeze" | "Reshape" => {
                Ok(vec![Value::Largest(*n)])
            }
            _ => Err("only the last operation may be an arg max".to_owned()),
        };
    }
    if let Some(results) = fold::fold(growing, call)? {
        return Ok(results);
    }
    if let Some(results) = grid::translate(growing, call)? {
        return Ok(results);
    }
    match values::translate(growing, call)? {
        Some(results) => Ok(results),
        None => Err("it is not supported with these inputs".to_owned()),
    }
}

/// All operations that are understood, with their attributes.
fn attributes(op: &str) -> Option<&'static [&'static str]> {
    Some(match op {
        "Conv" => &[
            "auto_pad",
            "dilations",
            "group",
            "kernel_shape",
            "pads",
            "strides",
        ],
        "ConvTranspose" => &[
            "auto_pad",
            "dilations",
            "group",
            "kernel_shape",
            "output_padding",
            "output_shape",
            "pads",
            "strides",
        ],
        "BatchNormalization" => &["epsilon", "momentum", "training_mode"],
        "InstanceNormalization" => &["epsilon"],
        "GroupNormalization" => &["epsilon", "num_groups", "stash_type"],
        "LayerNormalization" => &["axis", "epsilon", "stash_type"],
        "LeakyRelu" | "Elu" => &["alpha"],
        "HardSigmoid" => &["alpha", "beta"],
        "Gelu" => &["approximate"],
        "MaxPool" => &[
            "auto_pad",
            "ceil_mode",
            "dilations",
            "kernel_shape",
            "pads",
            "storage_order",
            "strides",
        ],
        "AveragePool" => &[
            "auto_pad",
            "ceil_mode",
            "count_include_pad",
            "dilations",
            "kernel_shape",
            "pads",
            "strides",
        ],
        "Resize" => &[
            "antialias",
            "axes",
            "coordinate_transformation_mode",
            "cubic_coeff_a",
            "exclude_outside",
            "extrapolation_value",
            "keep_aspect_ratio_policy",
            "mode",
            "nearest_mode",
        ],
        "Pad" => &["mode"],
        "DepthToSpace" => &["blocksize", "mode"],
        "SpaceToDepth" => &["blocksize"],
        "Concat" | "Gather" | "Softmax" | "LogSoftmax" | "Flatten" => &["axis"],
        "Split" => &["axis", "num_outputs", "split"],
        "Transpose" => &["perm"],
        "Reshape" => &["allowzero"],
        "Squeeze" | "Unsqueeze" => &["axes"],
        "ReduceMean" | "ReduceSum" | "ReduceMax" | "ReduceMin" | "ReduceProd" | "ReduceL2" => {
            &["axes", "keepdims", "noop_with_empty_axes"]
        }
        "ArgMax" => &["axis", "keepdims", "select_last_index"],
        "Gemm" => &["alpha", "beta", "transA", "transB"],
        "Einsum" => &["equation"],
        "Cast" => &["to", "saturate"],
        "Constant" => &[
            "value",
            "value_float",
            "value_floats",
            "value_int",
            "value_ints",
        ],
        "ConstantOfShape" => &["value"],
        "Shape" => &["end", "start"],
        "Dropout" => &["ratio", "seed"],
        "Mod" => &["fmod"],
        "Clip" | "PRelu" | "Relu" | "Sigmoid" | "Tanh" | "Softplus" | "HardSwish" | "Mish"
        | "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Min" | "Max" | "Sqrt" | "Exp" | "Log"
        | "Erf" | "Abs" | "Neg" | "Reciprocal" | "GlobalAveragePool" | "GlobalMaxPool"
        | "MatMul" | "Slice" | "Identity" | "Expand" | "Tile" | "Size" | "Range" | "Where"
        | "Equal" | "Less" | "Greater" | "LessOrEqual" | "GreaterOrEqual" | "And" | "Or"
        | "Not" | "ScatterND" | "Floor" | "Ceil" | "Sin" | "Cos" => &[],
        _ => return None,
    })
}

/// The nodes that lead to a result, numbered anew.
fn pruned(graph: &Graph, last: usize) -> Graph {
    let mut keep = vec![false; graph.nodes.len()];
    (keep[0], keep[last]) = (true, true);
    for n in (0..graph.nodes.len()).rev() {
        if keep[n] {
            graph.nodes[n]
                .from
                .iter()
                .for_each(|from| keep[*from] = true);
        }
    }
    let mut number = vec![0; graph.nodes.len()];
    let mut nodes = Vec::new();
    for (n, node) in graph.nodes.iter().enumerate() {
        if keep[n] {
            number[n] = nodes.len();
            nodes.push(graph::Node {
                op: node.op.clone(),
                from: node.from.iter().map(|from| number[*from]).collect(),
            });
        }
    }
    Graph {
        nodes,
        outputs: vec![number[last]],
    }
}

impl Call<'_> {
    pub(super) fn op(&self) -> &str {
        &self.node.op
    }

    fn attribute(&self, name: &str) -> Option<&Attribute> {
        let mut attributes = self.node.attributes.iter();
        attributes.find(|(n, _)| n == name).map(|(_, a)| a)
    }

    pub(super) fn int(&self, name: &str, otherwise: i64) -> Parsed<i64> {
        match self.attribute(name) {
            None => Ok(otherwise),
            Some(Attribute::Int(value)) => Ok(*value),
            Some(_) => Err(format!("its attribute {name:?} is no whole number")),
        }
    }

    pub(super) fn float(&self, name: &str, otherwise: f32) -> Parsed<f32> {
        match self.attribute(name) {
            None => Ok(otherwise),
            Some(Attribute::Float(value)) if value.is_finite() => Ok(*value),
            Some(_) => Err(format!("its attribute {name:?} is no number")),
        }
    }

    pub(super) fn ints(&self, name: &str) -> Parsed<Option<&[i64]>> {
        match self.attribute(name) {
            None => Ok(None),
            Some(Attribute::Ints(values)) => Ok(Some(values)),
            Some(_) => Err(format!(
                "its attribute {name:?} is no list of whole numbers"
            )),
        }
    }

    pub(super) fn floats(&self, name: &str) -> Option<&[f32]> {
        match self.attribute(name) {
            Some(Attribute::Floats(values)) => Some(values),
            _ => None,
        }
    }

    pub(super) fn text(&self, name: &str, otherwise: &'static str) -> Parsed<&str> {
        match self.attribute(name) {
            None => Ok(otherwise),
            Some(Attribute::Text(text)) => {
                std::str::from_utf8(text).map_err(|_| format!("its attribute {name:?} is no text"))
            }
            Some(_) => Err(format!("its attribute {name:?} is no text")),
        }
    }

    pub(super) fn tensor(&self, name: &str) -> Parsed<Option<Known>> {
        match self.attribute(name) {
            None => Ok(None),
            Some(Attribute::Tensor(tensor)) => Known::stored(tensor).map(Some),
            Some(_) => Err(format!("its attribute {name:?} is no tensor")),
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.attribute(name).is_some()
    }

    /// An input, if it is there.
    pub(super) fn optional(&self, n: usize) -> Option<&Value> {
        self.inputs.get(n).and_then(Option::as_ref)
    }

    pub(super) fn value(&self, n: usize) -> Parsed<&Value> {
        self.optional(n)
            .ok_or_else(|| format!("its input {n} is missing"))
    }

    /// An input that must not depend on the image.
    pub(super) fn known(&self, n: usize) -> Parsed<&Known> {
        match self.value(n)? {
            Value::Known(known) => Ok(known),
            _ => Err(format!("its input {n} depends on the image")),
        }
    }

    pub(super) fn known_optional(&self, n: usize) -> Parsed<Option<&Known>> {
        match self.optional(n) {
            None => Ok(None),
            Some(_) => self.known(n).map(Some),
        }
    }

    /// Outputs that somebody could take.
    pub(super) fn outputs(&self) -> usize {
        let names = &self.node.outputs;
        names
            .iter()
            .rposition(|name| !name.is_empty())
            .map_or(0, |n| n + 1)
    }
}

impl Growing<'_> {
    /// Appends an operation, if it fits.
    pub(super) fn emit(&mut self, op: Op, from: &[usize]) -> Parsed<usize> {
        let shapes: Vec<&[usize]> = from.iter().map(|n| self.shapes[*n].as_slice()).collect();
        let weights = &self.weights;
        let shape = op.shape(&shapes, &|name| weights.get(name).map(|w| w.shape.clone()))?;
        if count(&shape).is_none_or(|n| n == 0) {
            return Err(format!("a value of {shape:?}"));
        }
        self.shapes.push(shape);
        Ok(self.graph.push(op, from))
    }

    /// A value as a node; known ones become constants of the graph.
    pub(super) fn node(&mut self, value: &Value) -> Parsed<usize> {
        match value {
            Value::Node(n) => Ok(*n),
            Value::Largest(_) => Err("only the last operation may be an arg max".to_owned()),
            Value::Known(known) => {
                let tensor = self.weight(known, "constant");
                self.emit(Op::Constant { tensor }, &[])
            }
        }
    }

    /// Keeps a tensor and names it.
    pub(super) fn weight(&mut self, known: &Known, otherwise: &str) -> String {
        let name = match &known.data {
            Data::Stored { tensor, .. } if !tensor.name.is_empty() => plain(&tensor.name),
            _ => otherwise.to_owned(),
        };
        let same = |other: &Known| match (&known.data, &other.data) {
            _ if known.shape != other.shape => false,
            (
                Data::Stored { tensor, transposed },
                Data::Stored {
                    tensor: t,
                    transposed: x,
                },
            ) => std::rc::Rc::ptr_eq(tensor, t) && transposed == x,
            _ => false,
        };
        let mut candidate = name.clone();
        let mut more = 1;
        loop {
            match self.weights.get(&candidate) {
                None => break,
                Some(other) if same(other) => return candidate,
                Some(_) => {
                    more += 1;
                    candidate = format!("{name}~{more}");
                }
            }
        }
        self.weights.insert(candidate.clone(), known.clone());
        candidate
    }

    /// The shape of a value.
    pub(super) fn shape(&self, value: &Value) -> Vec<usize> {
        match value {
            Value::Node(n) | Value::Largest(n) => self.shapes[*n].clone(),
            Value::Known(known) => known.shape.clone(),
        }
    }

    pub(super) fn op(&self, node: usize) -> &Op {
        &self.graph.nodes[node].op
    }

    pub(super) fn from(&self, node: usize) -> &[usize] {
        &self.graph.nodes[node].from
    }
}

/// A tensor's name with plain characters.
fn plain(name: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-/:".contains(c);
    name.chars()
        .map(|c| if fits(c) { c } else { '_' })
        .take(160)
        .collect()
}

/// An axis counted from the end when negative.
pub(super) fn axis(at: i64, rank: usize) -> Parsed<usize> {
    let rank = rank as i64;
    let place = if at < 0 {
        at.checked_add(rank)
    } else {
        Some(at)
    };
    place
        .filter(|a| (0..rank).contains(a))
        .map(|a| a as usize)
        .ok_or_else(|| format!("axis {at} of {rank}"))
}

/// Lengths or counts.
pub(super) fn sizes(values: &[i64]) -> Parsed<Vec<usize>> {
    values
        .iter()
        .map(|n| usize::try_from(*n).map_err(|_| format!("a size of {n}")))
        .collect()
}

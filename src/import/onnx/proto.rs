//! An ONNX file's messages, as far as they are used. Weights stay in the file.

use std::fs::File;
use std::ops::Range;
use std::rc::Rc;

use super::wire::{Field, Parsed, Wire, range, whole};

/// Longest name and longest text of an attribute.
const LONGEST_NAME: u64 = 4096;
/// Longest entry of the metadata; longer ones are left out.
const LONGEST_ENTRY: u64 = 1 << 20;

/// `ModelProto`.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) producer: String,
    pub(super) ir_version: i64,
    /// Domains and their versions; the standard's domain is empty.
    pub(super) opsets: Vec<(String, i64)>,
    pub(super) metadata: Vec<(String, String)>,
    pub(super) graph: Graph,
}

/// `GraphProto`.
#[derive(Debug, Default)]
pub(super) struct Graph {
    pub(super) nodes: Vec<Node>,
    pub(super) initializers: Vec<Rc<Tensor>>,
    pub(super) inputs: Vec<ValueInfo>,
    pub(super) outputs: Vec<ValueInfo>,
}

/// `NodeProto`.
#[derive(Debug, Default)]
pub(super) struct Node {
    pub(super) op: String,
    pub(super) domain: String,
    pub(super) name: String,
    pub(super) inputs: Vec<String>,
    pub(super) outputs: Vec<String>,
    pub(super) attributes: Vec<(String, Attribute)>,
}

/// `AttributeProto`.
#[derive(Debug)]
pub(super) enum Attribute {
    Float(f32),
    Int(i64),
    Text(Vec<u8>),
    Tensor(Rc<Tensor>),
    Floats(Vec<f32>),
    Ints(Vec<i64>),
    /// Graphs, lists of texts, references.
    Other,
}

/// `TensorProto`: its values stay where they are.
#[derive(Debug, Default)]
pub(super) struct Tensor {
    pub(super) name: String,
    pub(super) dims: Vec<i64>,
    pub(super) kind: i64,
    pub(super) place: Place,
}

/// Where a tensor's values are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Place {
    /// Nowhere: a tensor without values.
    #[default]
    None,
    /// `raw_data`: little endian, tightly.
    Raw(Range<u64>),
    /// `float_data` or `double_data`: little endian, tightly.
    Wide(Range<u64>),
    /// `int32_data`, `int64_data`, `uint64_data`: variable lengths.
    Varints(Range<u64>),
    /// In another file.
    External {
        /// Relative to the model's folder.
        location: String,
        offset: u64,
        length: Option<u64>,
    },
}

/// `ValueInfoProto` of a tensor.
#[derive(Debug, Default)]
pub(super) struct ValueInfo {
    pub(super) name: String,
    pub(super) kind: i64,
    /// `None` when the file states no shape.
    pub(super) dims: Option<Vec<Dim>>,
}

/// A length: known, named, or neither (an empty name).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Dim {
    Known(i64),
    Named(String),
}

/// Reads all but the weights.
pub(super) fn read(file: File) -> Parsed<(Model, Wire)> {
    let mut wire = Wire::new(file)?;
    let mut model = Model::default();
    let mut graphs = 0;
    let size = wire.size();
    wire.message(&(0..size), &mut |wire, number, field| {
        match number {
            1 => model.ir_version = whole(&field)?,
            2 => model.producer = name(wire, &field)?,
            7 => {
                graphs += 1;
                model.graph = graph(wire, &range(&field)?)?;
            }
            8 => {
                wire.count()?;
                let mut opset = (String::new(), 0);
                wire.message(&range(&field)?, &mut |wire, number, field| {
                    match number {
                        1 => opset.0 = name(wire, &field)?,
                        2 => opset.1 = whole(&field)?,
                        _ => {}
                    }
                    Ok(())
                })?;
                model.opsets.push(opset);
            }
            14 => {
                wire.count()?;
                model.metadata.extend(entry(wire, &range(&field)?)?);
            }
            _ => {}
        }
        Ok(())
    })?;
    match graphs {
        1 => Ok((model, wire)),
        n => Err(format!("{n} graphs, expected one")),
    }
}

fn name(wire: &mut Wire, field: &Field) -> Parsed<String> {
    wire.text(field, LONGEST_NAME)
}

/// A key and its value; `None` for one that is too long to be of use.
fn entry(wire: &mut Wire, at: &Range<u64>) -> Parsed<Option<(String, String)>> {
    if at.end - at.start > LONGEST_ENTRY {
        return Ok(None);
    }
    let (mut key, mut value) = (String::new(), String::new());
    wire.message(at, &mut |wire, number, field| {
        match number {
            1 => key = wire.text(&field, LONGEST_ENTRY)?,
            2 => value = wire.text(&field, LONGEST_ENTRY)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(Some((key, value)))
}

fn graph(wire: &mut Wire, at: &Range<u64>) -> Parsed<Graph> {
    let mut graph = Graph::default();
    wire.message(at, &mut |wire, number, field| {
        match number {
            1 => {
                wire.count()?;
                graph.nodes.push(node(wire, &range(&field)?)?);
            }
            5 => {
                wire.count()?;
                let tensor = tensor(wire, &range(&field)?)?;
                graph.initializers.push(Rc::new(tensor));
            }
            11 => {
                wire.count()?;
                graph.inputs.push(value_info(wire, &range(&field)?)?);
            }
            12 => {
                wire.count()?;
                graph.outputs.push(value_info(wire, &range(&field)?)?);
            }
            15 => return Err("sparse weights, which are not understood".to_owned()),
            _ => {}
        }
        Ok(())
    })?;
    Ok(graph)
}

fn node(wire: &mut Wire, at: &Range<u64>) -> Parsed<Node> {
    let mut node = Node::default();
    wire.message(at, &mut |wire, number, field| {
        match number {
            1 => {
                wire.count()?;
                node.inputs.push(name(wire, &field)?);
            }
            2 => {
                wire.count()?;
                node.outputs.push(name(wire, &field)?);
            }
            3 => node.name = name(wire, &field)?,
            4 => node.op = name(wire, &field)?,
            5 => {
                wire.count()?;
                node.attributes.push(attribute(wire, &range(&field)?)?);
            }
            7 => node.domain = name(wire, &field)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(node)
}

fn attribute(wire: &mut Wire, at: &Range<u64>) -> Parsed<(String, Attribute)> {
    let mut named = String::new();
    let mut kind = 0;
    let (mut float, mut int, mut text, mut held) = (0.0, 0, Vec::new(), None);
    let (mut floats, mut ints) = (Vec::new(), Vec::new());
    wire.message(at, &mut |wire, number, field| {
        match (number, &field) {
            (1, _) => named = name(wire, &field)?,
            (2, Field::Fixed32(bytes)) => float = f32::from_le_bytes(*bytes),
            (2, other) => return Err(format!("{other:?} instead of a float")),
            (3, _) => int = whole(&field)?,
            (4, _) => text = wire.bytes(&field, LONGEST_NAME)?,
            (5, _) => held = Some(Rc::new(tensor(wire, &range(&field)?)?)),
            (7, _) => wire.floats(&field, &mut floats)?,
            (8, _) => wire.wholes(&field, &mut ints)?,
            (20, _) => kind = whole(&field)?,
            _ => {}
        }
        Ok(())
    })?;
    let value = match (kind, held) {
        (1, _) => Attribute::Float(float),
        (2, _) => Attribute::Int(int),
        (3, _) => Attribute::Text(text),
        (4, Some(tensor)) => Attribute::Tensor(tensor),
        (6, _) => Attribute::Floats(floats),
        (7, _) => Attribute::Ints(ints),
        _ => Attribute::Other,
    };
    Ok((named, value))
}

fn tensor(wire: &mut Wire, at: &Range<u64>) -> Parsed<Tensor> {
    let mut tensor = Tensor::default();
    let mut places = Vec::new();
    let mut external = Vec::new();
    let mut elsewhere = false;
    wire.message(at, &mut |wire, number, field| {
        match number {
            1 => wire.wholes(&field, &mut tensor.dims)?,
            2 => tensor.kind = whole(&field)?,
            3 => return Err("a tensor in segments, which is not understood".to_owned()),
            4 | 10 => {
                wire.count()?;
                places.push(Place::Wide(packed(&field)?));
            }
            5 | 7 | 11 => {
                wire.count()?;
                places.push(Place::Varints(packed(&field)?));
            }
            6 => return Err("a tensor of texts, which is not understood".to_owned()),
            8 => tensor.name = name(wire, &field)?,
            9 => {
                wire.count()?;
                places.push(Place::Raw(range(&field)?));
            }
            13 => {
                wire.count()?;
                external.extend(entry(wire, &range(&field)?)?);
            }
            14 => elsewhere = whole(&field)? == 1,
            _ => {}
        }
        Ok(())
    })?;
    if tensor.dims.len() > 16 {
        return Err(format!("a tensor of {} axes", tensor.dims.len()));
    }
    // Empty lists may be written too.
    places.retain(|place| match place {
        Place::Raw(at) | Place::Wide(at) | Place::Varints(at) => !at.is_empty(),
        Place::None | Place::External { .. } => false,
    });
    let called = &tensor.name;
    tensor.place = match (elsewhere, places.len()) {
        (false, 0) => Place::None,
        (false, 1) => places.remove(0),
        (true, 0) => outside(&external).ok_or_else(|| {
            format!("tensor {called:?} lies in another file that is not named plainly")
        })?,
        _ => {
            return Err(format!(
                "tensor {called:?} has its values in several places"
            ));
        }
    };
    Ok(tensor)
}

/// Single numbers that are not packed are what no writer of tensors makes.
fn packed(field: &Field) -> Parsed<Range<u64>> {
    range(field).map_err(|found| format!("{found} of a tensor"))
}

fn outside(entries: &[(String, String)]) -> Option<Place> {
    let entry = |key: &str| entries.iter().find(|(k, _)| k == key).map(|(_, v)| v);
    let number = |key: &str| entry(key).map(|text| text.parse::<u64>()).transpose();
    Some(Place::External {
        location: entry("location").filter(|l| !l.is_empty())?.clone(),
        offset: number("offset").ok()?.unwrap_or(0),
        length: number("length").ok()?,
    })
}

fn value_info(wire: &mut Wire, at: &Range<u64>) -> Parsed<ValueInfo> {
    let mut value = ValueInfo::default();
    wire.message(at, &mut |wire, number, field| {
        match number {
            1 => value.name = name(wire, &field)?,
            2 => wire.message(&range(&field)?, &mut |wire, number, field| {
                if number == 1 {
                    tensor_type(wire, &range(&field)?, &mut value)?;
                }
                Ok(())
            })?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(value)
}

fn tensor_type(wire: &mut Wire, at: &Range<u64>, value: &mut ValueInfo) -> Parsed<()> {
    wire.message(at, &mut |wire, number, field| {
        match number {
            1 => value.kind = whole(&field)?,
            2 => {
                let dims = value.dims.insert(Vec::new());
                wire.message(&range(&field)?, &mut |wire, number, field| {
                    if number == 1 {
                        wire.count()?;
                        let mut dim = Dim::Named(String::new());
                        wire.message(&range(&field)?, &mut |wire, number, field| {
                            match number {
                                1 => dim = Dim::Known(whole(&field)?),
                                2 => dim = Dim::Named(name(wire, &field)?),
                                _ => {}
                            }
                            Ok(())
                        })?;
                        dims.push(dim);
                    }
                    Ok(())
                })?;
            }
            _ => {}
        }
        Ok(())
    })
}

//! A request as bytes: its length is known before the first one goes.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use serde_json::{Map, Value, json};

use super::numbers::NumberText;
use super::{Datatype, InferRequest, TensorData};

/// Why a request cannot be put into words.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// A model name or version that could lead elsewhere in a URL.
    #[error("a model's name and version hold letters, digits, dots, dashes and underscores: {0:?}")]
    Name(String),
    /// No tensor, or two of one name.
    #[error("a request needs inputs and outputs, each with a name of its own")]
    Tensors,
    /// Data and shape do not belong together.
    #[error("tensor {name:?} has {bytes} bytes, its shape needs {expected}")]
    Size {
        /// The tensor.
        name: String,
        /// What it has.
        bytes: u64,
        /// What its shape and datatype need; `too many` when no number can say it.
        expected: String,
    },
    /// The server takes JSON alone, and JSON cannot say this.
    #[error(
        "tensor {name:?} is {word}, which needs the binary form, and the server takes JSON alone"
    )]
    NeedsBinary {
        /// The tensor.
        name: String,
        /// Its datatype.
        word: &'static str,
    },
    /// The tensor's file cannot be read, or holds what cannot be sent.
    #[error("tensor {name:?} cannot be read")]
    Read {
        /// The tensor.
        name: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// The product of a shape, where a number can say it.
pub(in crate::offload) fn elements_of(shape: &[u64]) -> Option<u64> {
    shape.iter().try_fold(1_u64, |all, &n| all.checked_mul(n))
}

/// A piece of a body.
enum Segment<'a> {
    Text(Vec<u8>),
    Raw(&'a TensorData<'a>),
    Numbers {
        data: &'a TensorData<'a>,
        datatype: Datatype,
        length: u64,
    },
}

impl Segment<'_> {
    fn length(&self) -> u64 {
        match self {
            Self::Text(text) => text.len() as u64,
            Self::Raw(data) => data.length(),
            Self::Numbers { length, .. } => *length,
        }
    }

    fn open(&self) -> io::Result<Box<dyn Read + '_>> {
        Ok(match self {
            Self::Text(text) => Box::new(text.as_slice()),
            Self::Raw(data) => open(data)?,
            Self::Numbers { data, datatype, .. } => {
                Box::new(NumberText::new(open(data)?, *datatype))
            }
        })
    }
}

fn open<'a>(data: &'a TensorData<'_>) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match data {
        TensorData::Bytes(bytes) => Box::new(*bytes),
        TensorData::File {
            path,
            offset,
            length,
        } => {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(*offset))?;
            Box::new(file.take(*length))
        }
    })
}

/// The body of an inference request, read as often as there are attempts. Holds no tensor itself.
pub(in crate::offload) struct Encoded<'a> {
    segments: Vec<Segment<'a>>,
    /// Bytes of JSON before the tensors; `None` when all of it is JSON.
    pub(in crate::offload) json_length: Option<usize>,
    /// Bytes of the whole.
    pub(in crate::offload) length: u64,
}

impl<'a> Encoded<'a> {
    /// Puts a request into words, with binary tensors or as JSON alone.
    pub(in crate::offload) fn new(
        request: &'a InferRequest<'_>,
        binary: bool,
    ) -> Result<Self, RequestError> {
        check(request, binary)?;
        let mut segments = Vec::new();
        let mut json_length = None;
        if binary {
            let text = binary_head(request);
            json_length = Some(text.len());
            segments.push(Segment::Text(text));
            segments.extend(request.inputs.iter().map(|i| Segment::Raw(&i.data)));
        } else {
            let mut text = format!("{{\"id\":{},\"inputs\":[", Value::from(request.id.as_str()));
            for (n, input) in request.inputs.iter().enumerate() {
                let comma = if n == 0 { "" } else { "," };
                let (name, shape) = (input.name.as_str(), input.shape.clone());
                let (name, shape) = (Value::from(name), Value::from(shape));
                let word = input.datatype.word();
                text = format!(
                    "{text}{comma}{{\"name\":{name},\"shape\":{shape},\"datatype\":\"{word}\",\"data\":["
                );
                segments.push(Segment::Text(std::mem::take(&mut text).into_bytes()));
                // Read once for the length alone: Content-Length must be known, and the text of a
                // large tensor is not held.
                let read = |source| RequestError::Read {
                    name: input.name.clone(),
                    source,
                };
                let length = open(&input.data)
                    .and_then(|from| {
                        io::copy(&mut NumberText::new(from, input.datatype), &mut io::sink())
                    })
                    .map_err(read)?;
                segments.push(Segment::Numbers {
                    data: &input.data,
                    datatype: input.datatype,
                    length,
                });
                text += "]}";
            }
            let outputs: Vec<Value> = request
                .outputs
                .iter()
                .map(|o| json!({ "name": o.name }))
                .collect();
            text = format!("{text}],\"outputs\":{}}}", Value::from(outputs));
            segments.push(Segment::Text(text.into_bytes()));
        }
        let length = segments
            .iter()
            .map(Segment::length)
            .try_fold(0_u64, u64::checked_add)
            .ok_or(RequestError::Tensors)?;
        Ok(Self {
            segments,
            json_length,
            length,
        })
    }

    /// The body from its beginning.
    pub(in crate::offload) fn open(&self) -> Box<dyn Read + '_> {
        Box::new(Chained {
            segments: self.segments.iter(),
            current: None,
        })
    }
}

/// Segments one after the other, each opened when its turn comes.
struct Chained<'a, I> {
    segments: I,
    current: Option<(u64, Box<dyn Read + 'a>)>,
}

impl<'a, I: Iterator<Item = &'a Segment<'a>>> Read for Chained<'a, I> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some((left, from)) = &mut self.current {
                let n = from.take(*left).read(to)?;
                if n > 0 {
                    *left -= n as u64;
                    return Ok(n);
                }
                if *left > 0 && !to.is_empty() {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the tensor's file has become shorter",
                    ));
                }
                if to.is_empty() {
                    return Ok(0);
                }
            }
            match self.segments.next() {
                None => return Ok(0),
                Some(next) => self.current = Some((next.length(), next.open()?)),
            }
        }
    }
}

fn check(request: &InferRequest<'_>, binary: bool) -> Result<(), RequestError> {
    for name in [Some(&request.model), request.version.as_ref()]
        .into_iter()
        .flatten()
    {
        if !super::is_plain_name(name) {
            return Err(RequestError::Name(name.clone()));
        }
    }
    let inputs: BTreeSet<&str> = request.inputs.iter().map(|t| t.name.as_str()).collect();
    let outputs: BTreeSet<&str> = request.outputs.iter().map(|t| t.name.as_str()).collect();
    if inputs.is_empty()
        || outputs.is_empty()
        || inputs.len() != request.inputs.len()
        || outputs.len() != request.outputs.len()
    {
        return Err(RequestError::Tensors);
    }
    for input in &request.inputs {
        let expected = elements_of(&input.shape)
            .and_then(|elements| elements.checked_mul(input.datatype.size() as u64));
        if expected != Some(input.data.length()) {
            return Err(RequestError::Size {
                name: input.name.clone(),
                bytes: input.data.length(),
                expected: expected.map_or("too many".to_owned(), |n| n.to_string()),
            });
        }
    }
    if !binary {
        let inputs = request.inputs.iter().map(|t| (&t.name, t.datatype));
        let outputs = request.outputs.iter().map(|t| (&t.name, t.datatype));
        for (name, datatype) in inputs.chain(outputs) {
            if !datatype.fits_json() {
                return Err(RequestError::NeedsBinary {
                    name: name.clone(),
                    word: datatype.word(),
                });
            }
        }
    }
    Ok(())
}

fn binary_head(request: &InferRequest<'_>) -> Vec<u8> {
    let inputs: Vec<Value> = request
        .inputs
        .iter()
        .map(|input| {
            json!({
                "name": input.name,
                "shape": input.shape,
                "datatype": input.datatype.word(),
                "parameters": { "binary_data_size": input.data.length() },
            })
        })
        .collect();
    let outputs: Vec<Value> = request
        .outputs
        .iter()
        .map(|output| json!({ "name": output.name, "parameters": { "binary_data": true } }))
        .collect();
    let mut head = Map::new();
    head.insert("id".to_owned(), request.id.as_str().into());
    head.insert("inputs".to_owned(), inputs.into());
    head.insert("outputs".to_owned(), outputs.into());
    Value::from(head).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::super::{InputTensor, WantedOutput};
    use super::*;

    fn request(inputs: Vec<InputTensor<'_>>) -> InferRequest<'_> {
        InferRequest {
            model: "seg".to_owned(),
            version: None,
            id: "ab\"c".to_owned(),
            inputs,
            outputs: vec![WantedOutput::new("mask", Datatype::Uint8, &[2, 2])],
        }
    }

    fn bytes(encoded: &Encoded<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        encoded.open().read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, encoded.length);
        bytes
    }

    #[test]
    fn a_binary_request_is_json_and_then_the_tensors_in_order() {
        let (a, b) = ([1_i16, -2, 3, -4], [0.5_f32]);
        let request = request(vec![
            InputTensor::new("a", Datatype::Int16, &[2, 2], &a),
            InputTensor::new("b", Datatype::Fp32, &[1], &b),
        ]);
        let encoded = Encoded::new(&request, true).unwrap();
        let body = bytes(&encoded);
        let (head, rest) = body.split_at(encoded.json_length.unwrap());
        let head: Value = serde_json::from_slice(head).unwrap();
        assert_eq!(
            head,
            json!({
                "id": "ab\"c",
                "inputs": [
                    { "name": "a", "shape": [2, 2], "datatype": "INT16", "parameters": { "binary_data_size": 8 } },
                    { "name": "b", "shape": [1], "datatype": "FP32", "parameters": { "binary_data_size": 4 } },
                ],
                "outputs": [{ "name": "mask", "parameters": { "binary_data": true } }],
            })
        );
        assert_eq!(rest, [1, 0, 0xfe, 0xff, 3, 0, 0xfc, 0xff, 0, 0, 0, 0x3f]);
    }

    #[test]
    fn a_json_request_holds_flat_lists_and_knows_its_length() {
        let (a, b) = ([1_i16, -2, 3, -4], [0.5_f64]);
        let request = request(vec![
            InputTensor::new("a", Datatype::Int16, &[2, 2], &a),
            InputTensor::new("b", Datatype::Fp64, &[1], &b),
        ]);
        let encoded = Encoded::new(&request, false).unwrap();
        assert_eq!(encoded.json_length, None);
        let body: Value = serde_json::from_slice(&bytes(&encoded)).unwrap();
        assert_eq!(
            body,
            json!({
                "id": "ab\"c",
                "inputs": [
                    { "name": "a", "shape": [2, 2], "datatype": "INT16", "data": [1, -2, 3, -4] },
                    { "name": "b", "shape": [1], "datatype": "FP64", "data": [0.5] },
                ],
                "outputs": [{ "name": "mask" }],
            })
        );
    }

    #[test]
    fn a_tensor_in_a_file_is_read_from_its_place_and_must_be_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.raw");
        std::fs::write(&path, [9, 1, 2, 3, 4, 9]).unwrap();
        let tensor = |length| InputTensor {
            name: "a".to_owned(),
            datatype: Datatype::Uint8,
            shape: vec![length],
            data: TensorData::File {
                path: path.clone(),
                offset: 1,
                length,
            },
        };
        let whole = request(vec![tensor(4)]);
        let encoded = Encoded::new(&whole, true).unwrap();
        assert!(bytes(&encoded).ends_with(b"}]}\x01\x02\x03\x04"));
        let short = request(vec![tensor(6)]);
        let encoded = Encoded::new(&short, true).unwrap();
        let error = encoded.open().read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn requests_that_do_not_add_up_are_refused() {
        let a = [0_u8; 4];
        let tensor = |name: &str, shape: &[u64]| InputTensor::new(name, Datatype::Uint8, shape, &a);
        let refused = |request: InferRequest<'_>, binary| Encoded::new(&request, binary).is_err();
        assert!(!refused(request(vec![tensor("a", &[4])]), true));
        assert!(refused(request(vec![]), true));
        assert!(refused(request(vec![tensor("a", &[5])]), true));
        assert!(refused(
            request(vec![tensor("a", &[1 << 40, 1 << 40])]),
            true
        ));
        assert!(refused(
            request(vec![tensor("a", &[4]), tensor("a", &[4])]),
            true
        ));
        let mut other = request(vec![tensor("a", &[4])]);
        other.model = "../x".to_owned();
        assert!(refused(other, true));
        let half = || request(vec![InputTensor::new("h", Datatype::Fp16, &[2], &a)]);
        assert!(!refused(half(), true));
        assert!(refused(half(), false));
    }
}

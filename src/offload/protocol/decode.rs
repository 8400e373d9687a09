//! An answer, checked in full before any of it is used.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::numbers::read_numbers;
use super::{Datatype, InferRequest, MAX_JSON_DEPTH, WantedOutput, cleaned};

/// Most outputs of one answer.
const MAX_OUTPUTS: usize = 64;
/// Most dimensions of a tensor.
const MAX_DIMENSIONS: usize = 16;

/// Why an answer was not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerError {
    /// No JSON, or not of the shape that the protocol has.
    #[error("the answer is not the protocol's JSON: {0}")]
    NotJson(String),
    /// Nested deeper than anything in the protocol.
    #[error("the answer's JSON is nested deeper than {MAX_JSON_DEPTH}")]
    TooDeep,
    /// The JSON part ends beyond the body.
    #[error("the answer states {stated} bytes of JSON in a body of {body}")]
    JsonLength {
        /// What the header states, as far as it is a number.
        stated: String,
        /// Bytes that came.
        body: u64,
    },
    /// A success that reports an error.
    #[error("the server reports: {0}")]
    Reported(String),
    /// Not the answer to this question.
    #[error("the answer is for {what} {found:?}, asked was {asked:?}")]
    Mismatch {
        /// `request`, `model`, `version`.
        what: &'static str,
        /// What the answer says; empty when it says nothing.
        found: String,
        /// What was asked.
        asked: String,
    },
    /// A wanted tensor did not come.
    #[error("the answer has no output {0:?}")]
    Missing(String),
    /// Two tensors of one name, or too many.
    #[error("the answer has output {0:?} twice, or more outputs than can be")]
    TooMany(String),
    /// Not the kind of elements that the model has.
    #[error("output {name:?} is {found:?}, expected {expected}")]
    Datatype {
        /// The tensor.
        name: String,
        /// What came.
        found: String,
        /// What was expected.
        expected: &'static str,
    },
    /// Not the shape that was expected.
    #[error("output {name:?} has the shape {found:?}, expected {expected:?} (None: any)")]
    Shape {
        /// The tensor.
        name: String,
        /// What came.
        found: Vec<i64>,
        /// What was expected.
        expected: Vec<Option<u64>>,
    },
    /// Bytes and shape do not belong together.
    #[error("output {name:?} has {bytes} bytes, its shape needs {expected}")]
    Size {
        /// The tensor.
        name: String,
        /// What came.
        bytes: u64,
        /// What its shape needs.
        expected: u64,
    },
    /// Bytes that no tensor accounts for.
    #[error("{0} bytes of the answer belong to no output")]
    LeftOver(u64),
    /// Its numbers cannot be read as what they should be.
    #[error("the numbers of output {name:?}: {why}")]
    Numbers {
        /// The tensor.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// NaN or infinite.
    #[error("output {name:?} has {count} elements that are NaN or infinite")]
    NotFinite {
        /// The tensor.
        name: String,
        /// How many.
        count: u64,
    },
    /// More bytes than the answer can have.
    #[error("the answer is larger than {limit} bytes")]
    TooLarge {
        /// The limit, after decompression.
        limit: u64,
    },
    /// Compressed in a way that was not asked for, or damaged.
    #[error("the answer's compression: {0}")]
    Compression(String),
}

/// A tensor that came and was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputTensor {
    /// As the model names it.
    pub name: String,
    /// Kind of its elements.
    pub datatype: Datatype,
    /// Slowest dimension first.
    pub shape: Vec<usize>,
    /// Little-endian, row-major; as long as shape and datatype need.
    pub data: Bytes,
    /// Elements that are NaN or infinite (0 unless the request allows them).
    pub not_finite: u64,
}

impl OutputTensor {
    /// The elements as values of a type of their size; `None` when `T` has another size.
    pub fn values<T: bytemuck::AnyBitPattern + bytemuck::NoUninit>(&self) -> Option<Vec<T>> {
        (size_of::<T>() == self.datatype.size()).then(|| bytemuck::pod_collect_to_vec(&self.data))
    }
}

/// What was asked, as far as the answer must agree with it.
pub(in crate::offload) struct Asked<'a> {
    pub(in crate::offload) id: &'a str,
    pub(in crate::offload) model: &'a str,
    pub(in crate::offload) version: Option<&'a str>,
    pub(in crate::offload) outputs: &'a [WantedOutput],
}

impl<'a> Asked<'a> {
    pub(in crate::offload) fn of(request: &'a InferRequest<'_>) -> Self {
        Self {
            id: &request.id,
            model: &request.model,
            version: request.version.as_deref(),
            outputs: &request.outputs,
        }
    }
}

/// A checked answer.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::offload) struct Answer {
    /// Version of the model, where the server tells it.
    pub(in crate::offload) version: Option<String>,
    /// In the order in which they were asked for.
    pub(in crate::offload) outputs: Vec<OutputTensor>,
}

#[derive(serde::Deserialize)]
struct Head<'a> {
    model_name: Option<String>,
    model_version: Option<String>,
    id: Option<String>,
    error: Option<Value>,
    #[serde(borrow)]
    outputs: Option<Vec<Output<'a>>>,
}

#[derive(serde::Deserialize)]
struct Output<'a> {
    name: String,
    datatype: String,
    shape: Vec<i64>,
    parameters: Option<Map<String, Value>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// How deep the brackets of a JSON text nest.
pub(in crate::offload) fn depth_of(json: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_text, mut escaped) = (false, false);
    for &byte in json {
        if in_text {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_text = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_text = true,
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Reads an answer and holds it against what was asked.
///
/// `json_length`: the header's text, where there is one.
pub(in crate::offload) fn decode(
    body: &Bytes,
    json_length: Option<&str>,
    asked: &Asked<'_>,
) -> Result<Answer, AnswerError> {
    let split = match json_length {
        None => body.len(),
        Some(text) => text
            .trim()
            .parse::<usize>()
            .ok()
            .filter(|&n| n <= body.len())
            .ok_or_else(|| AnswerError::JsonLength {
                stated: cleaned(text, 40),
                body: body.len() as u64,
            })?,
    };
    let json = &body[..split];
    if depth_of(json) > MAX_JSON_DEPTH {
        return Err(AnswerError::TooDeep);
    }
    let head: Head<'_> = serde_json::from_slice(json)
        .map_err(|e| AnswerError::NotJson(cleaned(&e.to_string(), 200)))?;
    if let Some(error) = head.error {
        let text = error
            .as_str()
            .map_or_else(|| error.to_string(), str::to_owned);
        return Err(AnswerError::Reported(cleaned(&text, 300)));
    }
    same("request", head.id.as_deref(), asked.id)?;
    same("model", head.model_name.as_deref(), asked.model)?;
    // A server may leave the version out; one that it tells must be the one that was asked for.
    let version = head.model_version.filter(|v| !v.is_empty());
    if let (Some(found), Some(asked)) = (&version, asked.version) {
        same("version", Some(found), asked)?;
    }

    let outputs = head.outputs.unwrap_or_default();
    let mut names = BTreeSet::new();
    let is_only_one = outputs.len() == 1;
    let mut rest = body.slice(split..);
    let mut found = Vec::new();
    for output in &outputs {
        if !names.insert(output.name.as_str()) || names.len() > MAX_OUTPUTS {
            return Err(AnswerError::TooMany(cleaned(&output.name, 80)));
        }
        let size = output
            .parameters
            .as_ref()
            .and_then(|p| p.get("binary_data_size"))
            .filter(|size| !size.is_null());
        let data = match (size, output.data) {
            (Some(size), None) if json_length.is_some() => {
                let size = size.as_u64().unwrap_or(u64::MAX);
                if size > rest.len() as u64 {
                    return Err(AnswerError::Size {
                        name: cleaned(&output.name, 80),
                        bytes: rest.len() as u64,
                        expected: size,
                    });
                }
                Data::Raw(rest.split_to(size as usize))
            }
            // Some leave the size out where it is plain.
            (None, None) if json_length.is_some() && is_only_one => {
                Data::Raw(std::mem::take(&mut rest))
            }
            (None, Some(data)) => Data::Json(data.get()),
            _ => {
                return Err(AnswerError::Numbers {
                    name: cleaned(&output.name, 80),
                    why: "there are none, or they come in two forms".to_owned(),
                });
            }
        };
        // What was not asked for is passed over, once its bytes are accounted for.
        if let Some(wanted) = asked.outputs.iter().find(|w| w.name == output.name) {
            found.push(tensor(output, data, wanted)?);
        }
    }
    if !rest.is_empty() {
        return Err(AnswerError::LeftOver(rest.len() as u64));
    }
    let outputs = asked
        .outputs
        .iter()
        .map(|wanted| {
            let at = found.iter().position(|t| t.name == wanted.name);
            at.map(|at| found.swap_remove(at))
                .ok_or_else(|| AnswerError::Missing(wanted.name.clone()))
        })
        .collect::<Result<_, _>>()?;
    Ok(Answer { version, outputs })
}

fn same(what: &'static str, found: Option<&str>, asked: &str) -> Result<(), AnswerError> {
    if found == Some(asked) {
        return Ok(());
    }
    Err(AnswerError::Mismatch {
        what,
        found: cleaned(found.unwrap_or_default(), 80),
        asked: asked.to_owned(),
    })
}

enum Data<'a> {
    Raw(Bytes),
    Json(&'a str),
}

/// One tensor, held against what was wanted.
fn tensor(
    output: &Output<'_>,
    data: Data<'_>,
    wanted: &WantedOutput,
) -> Result<OutputTensor, AnswerError> {
    let name = wanted.name.clone();
    if output.datatype != wanted.datatype.word() {
        return Err(AnswerError::Datatype {
            name,
            found: cleaned(&output.datatype, 40),
            expected: wanted.datatype.word(),
        });
    }
    let wrong_shape = || AnswerError::Shape {
        name: wanted.name.clone(),
        found: output.shape.iter().take(MAX_DIMENSIONS).copied().collect(),
        expected: wanted.shape.clone(),
    };
    if output.shape.len() != wanted.shape.len() || output.shape.len() > MAX_DIMENSIONS {
        return Err(wrong_shape());
    }
    let mut shape = Vec::new();
    let mut elements = 1_usize;
    for (&found, wanted) in output.shape.iter().zip(&wanted.shape) {
        let n = usize::try_from(found).map_err(|_| wrong_shape())?;
        if wanted.is_some_and(|wanted| wanted != n as u64) {
            return Err(wrong_shape());
        }
        elements = elements.checked_mul(n).ok_or_else(wrong_shape)?;
        shape.push(n);
    }
    let expected = elements
        .checked_mul(wanted.datatype.size())
        .ok_or_else(wrong_shape)?;
    let data = match data {
        Data::Raw(bytes) => bytes,
        Data::Json(json) => read_numbers(json, wanted.datatype, &shape, elements)
            .map_err(|e| AnswerError::Numbers {
                name: name.clone(),
                why: cleaned(&e.to_string(), 200),
            })?
            .into(),
    };
    if data.len() != expected {
        return Err(AnswerError::Size {
            name,
            bytes: data.len() as u64,
            expected: expected as u64,
        });
    }
    let not_finite = wanted.datatype.not_finite(&data);
    if not_finite > 0 && !wanted.may_be_not_finite {
        return Err(AnswerError::NotFinite {
            name,
            count: not_finite,
        });
    }
    // A byte that is neither would be read as either, depending on who reads.
    if wanted.datatype == Datatype::Bool && data.iter().any(|&b| b > 1) {
        return Err(AnswerError::Numbers {
            name,
            why: "a BOOL that is neither 0 nor 1".to_owned(),
        });
    }
    Ok(OutputTensor {
        name,
        datatype: wanted.datatype,
        shape,
        data,
        not_finite,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wanted() -> Vec<WantedOutput> {
        vec![
            WantedOutput::new("mask", Datatype::Uint8, &[2, 2]),
            WantedOutput {
                shape: vec![None],
                ..WantedOutput::new("score", Datatype::Fp32, &[1])
            },
        ]
    }

    fn read(body: &[u8], json_length: Option<&str>) -> Result<Answer, AnswerError> {
        let outputs = wanted();
        let asked = Asked {
            id: "q1",
            model: "seg",
            version: Some("3"),
            outputs: &outputs,
        };
        decode(&Bytes::copy_from_slice(body), json_length, &asked)
    }

    fn head() -> Value {
        json!({
            "id": "q1", "model_name": "seg", "model_version": "3", "parameters": null,
            "outputs": [
                { "name": "score", "datatype": "FP32", "shape": [1], "data": [0.5], "parameters": {} },
                { "name": "mask", "datatype": "UINT8", "shape": [2, 2], "data": [[1, 2], [3, 4]] },
            ],
        })
    }

    fn json_of(change: impl FnOnce(&mut Value)) -> Result<Answer, AnswerError> {
        let mut value = head();
        change(&mut value);
        read(value.to_string().as_bytes(), None)
    }

    fn binary_of(tail: &[u8], change: impl FnOnce(&mut Value)) -> Result<Answer, AnswerError> {
        let mut value = head();
        for (n, size) in [(0, 4), (1, 4)] {
            let output = value["outputs"][n].as_object_mut().unwrap();
            output.remove("data");
            output["shape"].as_array().unwrap();
            output.insert("parameters".into(), json!({ "binary_data_size": size }));
        }
        change(&mut value);
        let text = value.to_string();
        let body = [text.as_bytes(), tail].concat();
        read(&body, Some(&text.len().to_string()))
    }

    const TAIL: [u8; 8] = [0, 0, 0, 0x3f, 1, 2, 3, 4];

    #[test]
    fn json_and_binary_say_the_same() {
        let expected = json_of(|_| ()).unwrap();
        assert_eq!(expected.version.as_deref(), Some("3"));
        assert_eq!(expected.outputs[0].name, "mask");
        assert_eq!(expected.outputs[0].values::<u8>().unwrap(), [1, 2, 3, 4]);
        assert_eq!(expected.outputs[1].values::<f32>().unwrap(), [0.5]);
        assert_eq!(expected.outputs[1].values::<u8>(), None);
        assert_eq!(binary_of(&TAIL, |_| ()).unwrap(), expected);
        // One in the JSON, one after it.
        let mixed = binary_of(&TAIL[4..], |v| {
            v["outputs"][0]["parameters"] = Value::Null;
            v["outputs"][0]["data"] = json!([0.5]);
        });
        assert_eq!(mixed.unwrap(), expected);
    }

    #[test]
    fn null_and_absent_are_the_same() {
        let without = json_of(|v| v["model_version"] = Value::Null).unwrap();
        assert_eq!(without.version, None);
        let without = json_of(|v| {
            v.as_object_mut().unwrap().remove("model_version");
        });
        assert_eq!(without.unwrap().version, None);
    }

    #[test]
    fn outputs_that_nobody_asked_for_are_passed_over() {
        let more = json_of(|v| {
            let extra = json!({ "name": "text", "datatype": "BYTES", "shape": [1], "data": ["x"] });
            v["outputs"].as_array_mut().unwrap().push(extra);
        });
        assert_eq!(more.unwrap(), json_of(|_| ()).unwrap());
    }

    #[test]
    fn an_answer_to_another_question_is_refused() {
        let what = |r: Result<Answer, AnswerError>| match r {
            Err(AnswerError::Mismatch { what, .. }) => what,
            other => panic!("{other:?}"),
        };
        assert_eq!(what(json_of(|v| v["id"] = json!("q2"))), "request");
        assert_eq!(what(json_of(|v| v["id"] = Value::Null)), "request");
        assert_eq!(what(json_of(|v| v["model_name"] = json!("seg2"))), "model");
        assert_eq!(
            what(json_of(|v| v["model_version"] = json!("4"))),
            "version"
        );
    }

    #[test]
    fn tensors_that_do_not_add_up_are_refused() {
        use AnswerError as E;
        let is = |r: Result<Answer, AnswerError>, test: fn(&E) -> bool| {
            let error = r.unwrap_err();
            assert!(test(&error), "{error:?}");
        };
        is(
            json_of(|v| v["outputs"][1]["datatype"] = json!("INT8")),
            |e| matches!(e, E::Datatype { .. }),
        );
        is(json_of(|v| v["outputs"][1]["shape"] = json!([4, 1])), |e| {
            matches!(e, E::Shape { .. })
        });
        is(
            json_of(|v| v["outputs"][1]["shape"] = json!([-2, -2])),
            |e| matches!(e, E::Shape { .. }),
        );
        is(json_of(|v| v["outputs"][0]["shape"] = json!([2])), |e| {
            matches!(e, E::Numbers { .. })
        });
        is(
            json_of(|v| v["outputs"][0]["shape"] = json!([i64::MAX])),
            |e| matches!(e, E::Shape { .. }),
        );
        is(json_of(|v| v["outputs"][0]["data"] = json!(["NaN"])), |e| {
            matches!(e, E::Numbers { .. })
        });
        is(json_of(|v| v["outputs"][0]["data"] = json!([1e39])), |e| {
            matches!(e, E::NotFinite { count: 1, .. })
        });
        is(json_of(|v| v["outputs"] = json!([])), |e| {
            *e == E::Missing("mask".into())
        });
        is(
            json_of(|v| v["outputs"][0] = v["outputs"][1].clone()),
            |e| matches!(e, E::TooMany(_)),
        );
        is(json_of(|v| v["error"] = json!("no")), |e| {
            *e == E::Reported("no".into())
        });
        is(binary_of(&TAIL[..7], |_| ()), |e| {
            matches!(
                e,
                E::Size {
                    bytes: 3,
                    expected: 4,
                    ..
                }
            )
        });
        is(binary_of(&[&TAIL[..], &[0]].concat(), |_| ()), |e| {
            *e == E::LeftOver(1)
        });
        is(
            binary_of(&TAIL, |v| {
                v["outputs"][0]["parameters"]["binary_data_size"] = json!(3);
                v["outputs"][1]["parameters"]["binary_data_size"] = json!(5);
            }),
            |e| matches!(e, E::Size { .. }),
        );
        is(
            binary_of(&TAIL, |v| {
                v["outputs"][0]["parameters"]["binary_data_size"] = json!(-4);
            }),
            |e| matches!(e, E::Size { .. }),
        );
        is(binary_of(&[0, 0, 0xc0, 0x7f, 1, 2, 3, 4], |_| ()), |e| {
            matches!(e, E::NotFinite { count: 1, .. })
        });
    }

    #[test]
    fn broken_json_is_refused() {
        for body in [
            &b""[..],
            b"{",
            b"[]",
            b"<html>",
            b"\xff\xfe",
            b"{\"id\":1}",
            br#"{"id":"q1","id":"q1"}"#,
            br#"{"id":"q1","model_name":"seg","outputs":[{"name":"score","datatype":"FP32","shape":[1],"data":[NaN]}]}"#,
        ] {
            let error = read(body, None).unwrap_err();
            assert!(matches!(error, AnswerError::NotJson(_)), "{error:?}");
        }
        for stated in ["3", "-1", "x", "99999999999999999999"] {
            let error = read(b"{}", Some(stated)).unwrap_err();
            assert!(matches!(error, AnswerError::JsonLength { .. }), "{error:?}");
        }
    }

    #[test]
    fn deep_nesting_is_refused_before_it_is_parsed() {
        for levels in [MAX_JSON_DEPTH, 10_000, 1_000_000] {
            let text = format!("{{\"outputs\":{}", "[".repeat(levels));
            assert_eq!(read(text.as_bytes(), None), Err(AnswerError::TooDeep));
        }
        assert_eq!(depth_of(br#"{"a":"[[[[","b":["\"["]}"#), 2);
    }

    proptest::proptest! {
        #[test]
        fn no_body_makes_it_panic(body in proptest::collection::vec(proptest::num::u8::ANY, 0..200), length in 0_usize..250) {
            let _ = read(&body, None);
            let _ = read(&body, Some(&length.to_string()));
        }

        #[test]
        fn no_change_of_a_good_answer_makes_it_panic(at in 0_usize..400, byte in proptest::num::u8::ANY) {
            let mut body = head().to_string().into_bytes();
            let at = at % body.len();
            body[at] = byte;
            let _ = read(&body, None);
        }
    }
}

//! Models whose networks run on a server: `inference` asks, `offload` carries, `queue` keeps.
//!
//! What leaves is prepared values alone: no name, no UID, no date, no position in the room. Every
//! answer is kept, sealed, before it is used, so a run that was cut short goes on where it was.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::audit::ParticipantObject;
use crate::inference::{Call, Elsewhere, Error};
use crate::offload::protocol::TensorMetadata;
use crate::offload::{
    self, Binary, Client, Datatype, InferRequest, InputTensor, Profile, WantedOutput, random_id,
};
use crate::queue::{self, Answers};
use crate::task::Task;

/// Room in a request for what is not tensors.
const HEAD_BYTES: u64 = 64 << 10;
/// Longest text of an `f32` with its comma.
const JSON_BYTES_PER_VALUE: u64 = 18;

/// A server as the place where a model's networks run.
pub struct Server {
    client: Client,
    /// Name of the model there; parts are appended with a dot.
    model: String,
    answers: Arc<Answers>,
    /// What its models take and give, as they were first asked.
    wires: Mutex<HashMap<String, Wire>>,
    version: Mutex<Option<String>>,
    sent: AtomicU64,
    received: AtomicU64,
    /// Why it cannot be asked for the time being.
    trouble: Mutex<Option<String>>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("client", &self.client)
            .field("model", &self.model)
            .finish_non_exhaustive()
    }
}

/// The one tensor that a model takes, and the one that it gives.
#[derive(Clone, Debug)]
struct Wire {
    input: Tensor,
    output: Tensor,
}

#[derive(Clone, Debug)]
struct Tensor {
    name: String,
    datatype: Datatype,
    shape: Vec<i64>,
}

impl Tensor {
    fn of(all: &[TensorMetadata], which: &str) -> Result<Self, Error> {
        let [one] = all else {
            return Err(refused(format!(
                "its model has {} {which}, one is needed",
                all.len()
            )));
        };
        let datatype = Datatype::of_word(&one.datatype)
            .ok_or_else(|| refused(format!("its model's {which} are {:?}", one.datatype)))?;
        Ok(Self {
            name: one.name.clone(),
            datatype,
            shape: one.shape.clone(),
        })
    }

    /// The last axes of `shape` in as many dimensions as the model says, ones before them left out.
    fn fitted(&self, shape: &[u64]) -> Result<Vec<u64>, Error> {
        let leading = shape.len().checked_sub(self.shape.len());
        let fits = leading.is_some_and(|n| {
            let same = |(size, told): (&u64, &i64)| *told < 0 || *size == *told as u64;
            shape[..n].iter().all(|size| *size == 1) && shape[n..].iter().zip(&self.shape).all(same)
        });
        match leading {
            Some(n) if fits => Ok(shape[n..].to_vec()),
            _ => Err(refused(format!(
                "its model's {} is of size {:?}, {shape:?} is needed",
                self.name, self.shape
            ))),
        }
    }
}

fn refused(what: String) -> Error {
    Error::Elsewhere(what.into())
}

impl Server {
    /// A server for one model, with the answers that a job has from it.
    ///
    /// # Errors
    /// The endpoint cannot be used.
    pub fn new(client: Client, model: &str, answers: Arc<Answers>) -> Self {
        Self {
            client,
            model: model.to_owned(),
            answers,
            wires: Mutex::default(),
            version: Mutex::default(),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            trouble: Mutex::default(),
        }
    }

    /// Why it cannot be asked for the time being; the work may go on later.
    pub fn trouble(&self) -> Option<String> {
        lock(&self.trouble).clone()
    }

    /// Bytes that went out and came back.
    pub fn moved(&self) -> [u64; 2] {
        [&self.sent, &self.received].map(|n| n.load(Ordering::Relaxed))
    }

    /// The model's version, once it has answered.
    pub fn model_version(&self) -> Option<String> {
        lock(&self.version).clone()
    }

    /// The server in an audit record.
    pub fn object(&self, model: &str, sha256: &str) -> ParticipantObject {
        let profile = self.client.profile();
        let key = self.client.server_key();
        let key = key.map_or_else(|| "none".to_owned(), |key| key.to_string());
        ParticipantObject::model(model, sha256)
            .with("endpoint", &profile.name)
            .with("url", &profile.url)
            .with("server_key_sha256", key)
            .with("remote_model", &self.model)
            .with("remote_version", self.model_version().unwrap_or_default())
            .with("encrypted", profile.url.starts_with("https:"))
            .with("anonymized", true)
    }

    /// The client.
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// Asks whether the server and the model are there and fit, before anything leaves.
    ///
    /// # Errors
    /// [`Error::Elsewhere`].
    pub fn check(&self, task: &Task) -> Result<(), Error> {
        self.wire(&self.model, task).map(|_| ())
    }

    fn failed(&self, error: offload::Error) -> Error {
        if let offload::Error::Cancelled { .. } = error {
            return Error::Cancelled(crate::task::Cancelled);
        }
        if may_pass(&error) {
            *lock(&self.trouble) = Some(error.to_string());
        }
        Error::Elsewhere(Box::new(error))
    }

    /// An answer that cannot be kept would be lost with the program: the work waits for the disk.
    fn not_kept(&self, error: queue::Error) -> Error {
        *lock(&self.trouble) = Some(format!("an answer could not be kept: {error}"));
        Error::Elsewhere(Box::new(error))
    }

    fn wire(&self, model: &str, task: &Task) -> Result<Wire, Error> {
        if let Some(wire) = lock(&self.wires).get(model) {
            return Ok(wire.clone());
        }
        let told = self.client.model_metadata(model, None, task);
        let told = told.map_err(|e| self.failed(e))?;
        let wire = Wire {
            input: Tensor::of(&told.inputs, "inputs")?,
            output: Tensor::of(&told.outputs, "outputs")?,
        };
        lock(&self.wires).insert(model.to_owned(), wire.clone());
        Ok(wire)
    }

    /// Asks, or finds the answer of an earlier run.
    fn ask(
        &self,
        call: &Call<'_>,
        shape: &[u64],
        allowed: &[Datatype],
        task: &Task,
    ) -> Result<Numbers, Error> {
        let model = match call.part {
            "" => self.model.clone(),
            part => format!("{}.{part}", self.model),
        };
        let Wire { input, output } = self.wire(&model, task)?;
        if !allowed.contains(&output.datatype) {
            let words: Vec<&str> = allowed.iter().map(|d| d.word()).collect();
            return Err(refused(format!(
                "its model gives {}, {} is needed",
                output.datatype.word(),
                words.join(" or ")
            )));
        }
        let values = encoded(call.values, input.datatype)?;
        let in_shape: Vec<u64> = call.shape.iter().map(|n| *n as u64).collect();
        let (in_shape, out_shape) = (input.fitted(&in_shape)?, output.fitted(shape)?);
        let question = self.answers.question(
            &[
                &self.client.profile().url,
                &model,
                input.datatype.word(),
                &format!("{in_shape:?}"),
                output.datatype.word(),
                &format!("{out_shape:?}"),
            ],
            &values,
        );
        let kept = self.answers.of(&question).map_err(|e| self.not_kept(e))?;
        let datatype = output.datatype;
        if let Some(bytes) = kept {
            return Ok(Numbers { datatype, bytes });
        }
        let request = InferRequest {
            model,
            version: None,
            id: random_id(),
            inputs: vec![InputTensor::new(
                &input.name,
                input.datatype,
                &in_shape,
                &values,
            )],
            outputs: vec![WantedOutput::new(&output.name, output.datatype, &out_shape)],
        };
        let answer = self
            .client
            .infer(&request, task)
            .map_err(|e| self.failed(e))?;
        self.sent.fetch_add(answer.sent_bytes, Ordering::Relaxed);
        self.received
            .fetch_add(answer.received_bytes, Ordering::Relaxed);
        if let Some(version) = answer.model_version {
            let mut known = lock(&self.version);
            match known.as_ref() {
                Some(known) if *known != version => {
                    return Err(refused(format!(
                        "its model changed from version {known} to {version} during the run"
                    )));
                }
                _ => *known = Some(version),
            }
        }
        let tensor = answer.outputs.into_iter().next();
        let tensor = tensor.ok_or_else(|| refused("it sent nothing".to_owned()))?;
        let bytes = Vec::from(tensor.data);
        self.answers
            .keep(&question, &bytes)
            .map_err(|e| self.not_kept(e))?;
        Ok(Numbers { datatype, bytes })
    }
}

impl Elsewhere for Server {
    fn device(&self) -> String {
        let profile = self.client.profile();
        let version = self.model_version();
        let version = version.map_or_else(String::new, |v| format!(" version {v}"));
        format!("model server {} ({}{version})", profile.name, self.model)
    }

    fn most_bytes(&self) -> u64 {
        let profile = self.client.profile();
        let room = profile.max_request_bytes.saturating_sub(HEAD_BYTES);
        match profile.binary {
            Binary::Yes | Binary::Probe => room,
            Binary::No => room / JSON_BYTES_PER_VALUE * 4,
        }
    }

    fn labels(&self, call: &Call<'_>, task: &Task) -> Result<Vec<u8>, Error> {
        let shape: Vec<u64> = call.shape.iter().map(|n| *n as u64).collect();
        let shape = [&[1, 1], &shape[2..]].concat();
        let found = self.ask(call, &shape, &LABELS, task)?;
        labels_of(found)
    }

    fn scores(&self, call: &Call<'_>, heads: usize, task: &Task) -> Result<Vec<f32>, Error> {
        let shape: Vec<u64> = call.shape.iter().map(|n| *n as u64).collect();
        let shape = [&[1, heads as u64], &shape[2..]].concat();
        let found = self.ask(call, &shape, &[Datatype::Fp32], task)?;
        Ok(bytemuck::pod_collect_to_vec(&found.bytes))
    }
}

/// A checked answer: as many elements as were asked for.
struct Numbers {
    datatype: Datatype,
    bytes: Vec<u8>,
}

/// Kinds of numbers that labels may come as.
const LABELS: [Datatype; 7] = [
    Datatype::Uint8,
    Datatype::Uint16,
    Datatype::Int8,
    Datatype::Int16,
    Datatype::Int32,
    Datatype::Int64,
    Datatype::Uint32,
];

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the same request may be answered another day: the network or the server is away.
fn may_pass(error: &offload::Error) -> bool {
    use offload::Error as E;
    match error {
        E::Connect(_)
        | E::Broken { .. }
        | E::Stalled { .. }
        | E::Deadline { .. }
        | E::Resting { .. } => true,
        E::Status { status, .. } => matches!(status, 408 | 429 | 500..=599),
        _ => false,
    }
}

/// Values as the server's model takes them; refused where that would change one.
fn encoded(values: &[f32], to: Datatype) -> Result<Vec<u8>, Error> {
    fn whole<T: TryFrom<i64> + bytemuck::NoUninit>(values: &[f32]) -> Option<Vec<u8>> {
        let one = |v: &f32| {
            // −0 would come back as 0.
            let is_whole = v.fract() == 0.0 && (*v != 0.0 || v.is_sign_positive());
            T::try_from(is_whole.then_some(*v as i64)?).ok()
        };
        let all: Option<Vec<T>> = values.iter().map(one).collect();
        Some(bytemuck::cast_slice(&all?).to_vec())
    }
    let bytes = match to {
        Datatype::Fp32 => Some(bytemuck::cast_slice(values).to_vec()),
        Datatype::Fp64 => {
            let all: Vec<f64> = values.iter().map(|v| f64::from(*v)).collect();
            Some(bytemuck::cast_slice(&all).to_vec())
        }
        Datatype::Fp16 => {
            let one = |v: &f32| {
                let half = half::f16::from_f32(*v);
                (half.to_f32().to_bits() == v.to_bits()).then_some(half.to_bits())
            };
            let all: Option<Vec<u16>> = values.iter().map(one).collect();
            all.map(|all| bytemuck::cast_slice(&all).to_vec())
        }
        Datatype::Int8 => whole::<i8>(values),
        Datatype::Uint8 => whole::<u8>(values),
        Datatype::Int16 => whole::<i16>(values),
        Datatype::Uint16 => whole::<u16>(values),
        Datatype::Int32 => whole::<i32>(values),
        Datatype::Int64 => whole::<i64>(values),
        _ => None,
    };
    bytes.ok_or_else(|| {
        refused(format!(
            "its model takes {}, which cannot hold the prepared values as they are",
            to.word()
        ))
    })
}

fn labels_of(found: Numbers) -> Result<Vec<u8>, Error> {
    fn narrow<T: bytemuck::AnyBitPattern + bytemuck::NoUninit>(bytes: &[u8]) -> Option<Vec<u8>>
    where
        u8: TryFrom<T>,
    {
        let all: Vec<T> = bytemuck::pod_collect_to_vec(bytes);
        all.into_iter().map(|v| u8::try_from(v).ok()).collect()
    }
    let labels = match found.datatype {
        Datatype::Uint8 => Some(found.bytes),
        Datatype::Uint16 => narrow::<u16>(&found.bytes),
        Datatype::Uint32 => narrow::<u32>(&found.bytes),
        Datatype::Int8 => narrow::<i8>(&found.bytes),
        Datatype::Int16 => narrow::<i16>(&found.bytes),
        Datatype::Int32 => narrow::<i32>(&found.bytes),
        Datatype::Int64 => narrow::<i64>(&found.bytes),
        _ => None,
    };
    labels.ok_or_else(|| refused("it sent numbers that are no labels".to_owned()))
}

/// What a run would send, for a person to see before it does.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Leaving {
    /// Name of the endpoint.
    pub endpoint: String,
    /// Where it is.
    pub url: String,
    /// Where it computes, as the profile says.
    pub region: String,
    /// What its operator keeps, as the profile says.
    pub retention: String,
    /// Model there.
    pub model: String,
    /// SHA-256 of the public key that the server has shown.
    pub server_key: Option<String>,
    /// Series that are sent.
    pub series: usize,
    /// Requests, at most.
    pub requests: u64,
    /// Values that leave, at most, before any compression.
    pub sent_bytes: u64,
    /// Values that come back, at most.
    pub received_bytes: u64,
    /// What it costs by the profile's prices, without the seconds of computing; `None` where no
    /// price is known.
    pub price: Option<f64>,
    /// Currency of the price.
    pub currency: String,
    /// Series that show a head: a face can be told from its slices.
    pub heads: usize,
}

impl Leaving {
    /// For a profile and a model, nothing counted yet.
    pub fn new(profile: &Profile, model: &str, server_key: Option<String>) -> Self {
        Self {
            endpoint: profile.name.clone(),
            url: profile.url.clone(),
            region: profile.region.clone(),
            retention: profile.retention.clone(),
            model: model.to_owned(),
            server_key,
            series: 0,
            requests: 0,
            sent_bytes: 0,
            received_bytes: 0,
            price: None,
            currency: profile.price.currency.clone(),
            heads: 0,
        }
    }

    /// Adds up the price, when everything is counted.
    pub fn priced(&mut self, profile: &Profile) {
        let price = &profile.price;
        let bytes = (self.sent_bytes + self.received_bytes) as f64;
        let sum = bytes / 1e9 * price.per_gigabyte + self.requests as f64 * price.per_request;
        self.price = (price.per_gigabyte > 0.0 || price.per_request > 0.0).then_some(sum);
    }

    /// Names and what they are, for a person.
    pub fn facts(&self) -> Vec<(String, String)> {
        let or = |text: &str| {
            if text.is_empty() {
                "not told".to_owned()
            } else {
                text.to_owned()
            }
        };
        let mb = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
        let key = self.server_key.as_deref();
        let mut facts = vec![
            ("To", format!("{} ({})", self.endpoint, self.url)),
            (
                "Server's key",
                key.map_or_else(|| "none: no TLS".to_owned(), |k| format!("SHA-256 {k}")),
            ),
            ("Region", or(&self.region)),
            ("It keeps", or(&self.retention)),
            ("Model", self.model.clone()),
            (
                "Leaves",
                format!(
                    "image values of {} series, resampled for the model: at most {} in {} request{}",
                    self.series,
                    mb(self.sent_bytes),
                    self.requests,
                    if self.requests == 1 { "" } else { "s" }
                ),
            ),
            ("Returns", format!("at most {}", mb(self.received_bytes))),
        ];
        if let Some(price) = self.price {
            let price = format!("about {price:.2} {} without computing time", self.currency);
            facts.push(("Price", price));
        }
        let named = |(name, what): (&str, String)| (name.to_owned(), what);
        facts.into_iter().map(named).collect()
    }

    /// What is doubtful about sending it.
    pub fn doubts(&self) -> Vec<String> {
        let may = "may show a face, which can be recognized from its slices";
        match (self.heads, self.series) {
            (0, _) => Vec::new(),
            (1, 1) => vec![format!("The series {may}")],
            (heads, _) => vec![format!("{heads} of the series {may}")],
        }
    }

    /// Lines for a person at a terminal.
    pub fn lines(&self) -> Vec<String> {
        let stays = "all attributes: names, identifiers, dates, UIDs, positions; nothing of the files is sent";
        let facts = self.facts().into_iter();
        let stays = std::iter::once(("Stays".to_owned(), stays.to_owned()));
        let doubts = self.doubts().into_iter().map(|d| ("DOUBT".to_owned(), d));
        let all = facts.chain(stays).chain(doubts);
        all.map(|(name, what)| format!("{name:<13} {what}"))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_go_out_exactly_or_not_at_all() {
        let back = |bytes: Vec<u8>| bytemuck::pod_collect_to_vec::<u8, i16>(&bytes);
        assert_eq!(
            back(encoded(&[-1024.0, 0.0, 3071.0], Datatype::Int16).unwrap()),
            [-1024, 0, 3071]
        );
        assert_eq!(encoded(&[0.0, 255.0], Datatype::Uint8).unwrap(), [0, 255]);
        assert_eq!(encoded(&[1.5, -0.25], Datatype::Fp16).unwrap().len(), 4);
        assert_eq!(
            encoded(&[0.1], Datatype::Fp64).unwrap(),
            f64::from(0.1_f32).to_le_bytes()
        );
        for (values, to) in [
            (vec![0.5], Datatype::Int16),
            (vec![-0.0], Datatype::Int16),
            (vec![32768.0], Datatype::Int16),
            (vec![f32::NAN], Datatype::Int32),
            (vec![f32::INFINITY], Datatype::Int64),
            (vec![-1.0], Datatype::Uint8),
            (vec![0.1], Datatype::Fp16),
            (vec![1.0], Datatype::Bf16),
            (vec![1.0], Datatype::Bool),
        ] {
            assert!(encoded(&values, to).is_err(), "{values:?} as {to:?}");
        }
    }

    #[test]
    fn labels_come_from_any_whole_numbers_that_are_labels() {
        let of = |datatype, bytes: &[u8]| {
            let bytes = bytes.to_vec();
            labels_of(Numbers { datatype, bytes }).ok()
        };
        assert_eq!(of(Datatype::Uint8, &[1, 255]), Some(vec![1, 255]));
        assert_eq!(of(Datatype::Int16, &[1, 0, 44, 0]), Some(vec![1, 44]));
        assert_eq!(of(Datatype::Int16, &[1, 1, 44, 0]), None);
        assert_eq!(of(Datatype::Int16, &[255, 255, 44, 0]), None);
        assert_eq!(of(Datatype::Fp32, &[0; 8]), None);
    }

    #[test]
    fn ones_before_the_last_axes_may_be_left_out_and_sizes_must_fit() {
        let of = |shape: &[i64]| Tensor {
            name: "input".to_owned(),
            datatype: Datatype::Fp32,
            shape: shape.to_vec(),
        };
        let fitted = |told: &[i64], shape: &[u64]| of(told).fitted(shape).ok();
        assert_eq!(fitted(&[-1, -1, -1], &[1, 1, 4, 5, 6]), Some(vec![4, 5, 6]));
        assert_eq!(
            fitted(&[1, 1, 4, 5, 6], &[1, 1, 4, 5, 6]),
            Some(vec![1, 1, 4, 5, 6])
        );
        assert_eq!(fitted(&[-1, -1, 6], &[1, 2, 4, 5, 6]), None);
        assert_eq!(fitted(&[-1, -1, -1, 7], &[1, 1, 4, 5, 6]), None);
        assert_eq!(fitted(&[-1; 6], &[1, 1, 4, 5, 6]), None);
    }
}

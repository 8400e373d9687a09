//! Models whose networks run on a server: `inference` asks, `offload` carries, `queue` keeps.
//!
//! What leaves is prepared values alone: no name, no UID, no date, no position in the room. Every
//! answer is kept, sealed, before it is used, so a run that was cut short goes on where it was.
//!
//! Scores come as FP32 alone. Halves would be smaller, and are other numbers: a label between two
//! that are close would be another one than here. Labels in place of scores would be smaller still, and
//! cannot be weighted and added up where windows overlap; only networks over the whole image give them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use super::clock::now_utc;
use crate::audit::ParticipantObject;
use crate::inference::{Call, Elsewhere, Error};
use crate::offload::protocol::TensorMetadata;
use crate::offload::{
    self, Account, Binary, Client, Datatype, InferAnswer, InferRequest, InputTensor, Limits,
    Measured, Profile, Service, Spending, Spent, WantedOutput, random_id,
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
    /// The version of each of its models that this job is of.
    versions: Mutex<HashMap<String, String>>,
    /// What was exchanged so far.
    all: Mutex<Measured>,
    /// What was exchanged since somebody last took it.
    newest: Mutex<Measured>,
    /// What each request is held against.
    purse: Option<Purse>,
    /// Why it cannot be asked for the time being.
    trouble: Mutex<Option<Trouble>>,
    /// Why it may not be asked any more in this job.
    ended: Mutex<Option<String>>,
}

/// Why a server cannot be asked for the time being.
#[derive(Clone, Debug)]
struct Trouble {
    why: String,
    /// It cannot be reached, or does not work: another place may do the work.
    is_away: bool,
}

/// The count of what is sent and spent, and its limits.
#[derive(Clone, Debug)]
pub struct Purse {
    /// The count.
    pub spending: Spending,
    /// What a person allows.
    pub limits: Limits,
    /// The job's random name.
    pub job: String,
}

impl Purse {
    /// Under which names something that is sent now is counted.
    pub fn account(&self, profile: &Profile) -> Account {
        Account {
            day: now_utc().format("%F").to_string(),
            job: self.job.clone(),
            currency: profile.price.currency.clone(),
        }
    }
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
            versions: Mutex::default(),
            all: Mutex::default(),
            newest: Mutex::default(),
            purse: None,
            trouble: Mutex::default(),
            ended: Mutex::default(),
        }
    }

    /// The same with each request counted, and refused beyond the limits.
    #[must_use]
    pub fn counted(mut self, purse: Purse) -> Self {
        self.purse = Some(purse);
        self
    }

    /// Why it may not be asked any more in this job.
    pub fn ended(&self) -> Option<String> {
        lock(&self.ended).clone()
    }

    /// What was exchanged since this was last called.
    pub fn take_measured(&self) -> Measured {
        Measured {
            endpoint: Some(self.client.profile().name.clone()),
            ..mem::take(&mut *lock(&self.newest))
        }
    }

    /// Why it cannot be asked for the time being; the work may go on later.
    pub fn trouble(&self) -> Option<String> {
        lock(&self.trouble).as_ref().map(|t| t.why.clone())
    }

    /// Whether it cannot be reached, or does not work.
    pub fn is_away(&self) -> bool {
        lock(&self.trouble).as_ref().is_some_and(|t| t.is_away)
    }

    fn wait_for(&self, why: String, is_away: bool) {
        *lock(&self.trouble) = Some(Trouble { why, is_away });
    }

    /// Bytes that went out and came back.
    pub fn moved(&self) -> [u64; 2] {
        let all = lock(&self.all);
        [all.sent_bytes, all.received_bytes]
    }

    /// The model's version, once it has answered and where it tells it.
    pub fn model_version(&self) -> Option<String> {
        let versions = lock(&self.versions);
        let version = versions
            .get(&self.model)
            .or_else(|| versions.values().min());
        version.filter(|version| !version.is_empty()).cloned()
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

    /// Asks whether the server and all parts of the model are there and fit, before anything leaves.
    ///
    /// # Errors
    /// [`Error::Elsewhere`].
    pub fn check(&self, parts: &[String], task: &Task) -> Result<(), Error> {
        for part in parts {
            self.wire(&self.named(part)?, task)?;
        }
        Ok(())
    }

    /// The name of a part of the model there.
    fn named(&self, part: &str) -> Result<String, Error> {
        match (part, &self.client.profile().service) {
            ("", _) => Ok(self.model.clone()),
            // Whatever it is asked for, one model answers: it would be taken for another.
            (_, Service::Sagemaker { .. }) => Err(refused(format!(
                "a SageMaker endpoint has one model, {} has several networks (stages or folds): \
                 run it on this machine, or on a server with a model for each",
                self.model
            ))),
            (part, _) => Ok(format!("{}.{part}", self.model)),
        }
    }

    fn failed(&self, error: offload::Error) -> Error {
        if let offload::Error::Cancelled { .. } = error {
            return Error::Cancelled(crate::task::Cancelled);
        }
        if may_pass(&error) {
            self.wait_for(error.to_string(), true);
        }
        Error::Elsewhere(Box::new(error))
    }

    /// An answer that cannot be kept would be lost with the program: the work waits for the disk.
    fn not_kept(&self, error: queue::Error) -> Error {
        self.wait_for(format!("an answer could not be kept: {error}"), false);
        Error::Elsewhere(Box::new(error))
    }

    fn wire(&self, model: &str, task: &Task) -> Result<Wire, Error> {
        if let Some(wire) = lock(&self.wires).get(model) {
            return Ok(wire.clone());
        }
        let told = self.client.model_metadata(model, None, task);
        let told = told.map_err(|e| self.failed(e))?;
        if let Some(bound) = self.bound(model)?
            && !bound.is_empty()
            && !told.versions.is_empty()
            && !told.versions.contains(&bound)
        {
            return Err(self.changed(&bound, &told.versions.join(", ")));
        }
        let wire = Wire {
            input: Tensor::of(&told.inputs, "inputs")?,
            output: Tensor::of(&told.outputs, "outputs")?,
        };
        lock(&self.wires).insert(model.to_owned(), wire.clone());
        Ok(wire)
    }

    /// The version of a model that this job's answers are of; empty where the server tells none.
    fn bound(&self, model: &str) -> Result<Option<String>, Error> {
        let mut versions = lock(&self.versions);
        if let Some(version) = versions.get(model) {
            return Ok(Some(version.clone()));
        }
        let url = &self.client.profile().url;
        let version = self.answers.version(&[url, model]);
        let version = version.map_err(|e| self.not_kept(e))?;
        if let Some(version) = &version {
            versions.insert(model.to_owned(), version.clone());
        }
        Ok(version)
    }

    /// Another version is another model: its answers and those before do not go together.
    fn changed(&self, from: &str, to: &str) -> Error {
        // Words of the server: escaped, and no more of them than a version has.
        let words = |version: &str| version.escape_debug().take(40).collect::<String>();
        let why = format!(
            "its model changed from version \"{}\" to \"{}\" during the job: begin anew, with another folder for results",
            words(from),
            words(to)
        );
        *lock(&self.ended) = Some(why.clone());
        refused(why)
    }

    /// Counts a request before it goes; refuses it beyond the limits.
    fn reserve(&self, bytes: u64) -> Result<(), Error> {
        let Some(purse) = &self.purse else {
            return Ok(());
        };
        let profile = self.client.profile();
        let more = Spent {
            requests: 1,
            bytes,
            cost: profile.price.of(1, bytes, 0.0),
        };
        let reserved = purse
            .spending
            .reserve(&purse.account(profile), more, &purse.limits);
        reserved.map_err(|error| {
            self.wait_for(error.to_string(), false);
            Error::Elsewhere(Box::new(error))
        })
    }

    /// Counts what an answer has taken beyond what was reserved.
    fn count(&self, answer: &InferAnswer, reserved: u64, values: u64) {
        let profile = self.client.profile();
        let attempts = u64::from(answer.attempts.max(1));
        let bytes = (answer.sent_bytes * attempts + answer.received_bytes).saturating_sub(reserved);
        let server_secs = answer.waiting.as_secs_f64();
        let more = Spent {
            requests: attempts - 1,
            bytes,
            cost: profile.price.of(attempts - 1, bytes, server_secs),
        };
        if let Some(purse) = &self.purse
            && let Err(error) = purse.spending.add(&purse.account(profile), more)
        {
            // The next request is refused for the same reason, before it goes.
            tracing::error!(%error, "what an answer cost was not counted");
        }
        for tally in [&self.all, &self.newest] {
            let mut tally = lock(tally);
            tally.requests += attempts;
            tally.values += values;
            tally.sent_bytes += answer.sent_bytes * attempts;
            tally.received_bytes += answer.received_bytes;
            tally.sending_secs += answer.sending.as_secs_f64();
            tally.server_secs += server_secs;
            tally.receiving_secs += answer.receiving.as_secs_f64();
            tally.cost += profile.price.of(1, reserved, 0.0) + more.cost;
        }
    }

    /// Asks, or finds the answer of an earlier run.
    fn ask(
        &self,
        call: &Call<'_>,
        shape: &[u64],
        allowed: &[Datatype],
        task: &Task,
    ) -> Result<Numbers, Error> {
        if let Some(why) = self.ended() {
            return Err(refused(why));
        }
        let model = self.named(call.part)?;
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
        let url = &self.client.profile().url;
        let question = |version: &str| {
            self.answers.question(
                &[
                    url,
                    &model,
                    version,
                    input.datatype.word(),
                    &format!("{in_shape:?}"),
                    output.datatype.word(),
                    &format!("{out_shape:?}"),
                ],
                &values,
            )
        };
        let datatype = output.datatype;
        let bound = self.bound(&model)?;
        if let Some(version) = &bound {
            let kept = self.answers.of(&question(version));
            if let Some(bytes) = kept.map_err(|e| self.not_kept(e))? {
                return Ok(Numbers { datatype, bytes });
            }
        }
        let request = InferRequest {
            model: model.clone(),
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
        let reserved = values.len() as u64;
        self.reserve(reserved)?;
        let answer = self
            .client
            .infer(&request, task)
            .map_err(|e| self.failed(e))?;
        self.count(&answer, reserved, call.values.len() as u64);
        let told = answer.model_version.unwrap_or_default();
        match &bound {
            Some(bound) if *bound != told => return Err(self.changed(bound, &told)),
            Some(_) => {}
            None => {
                let kept = self.answers.bind(&[url, &model], &told);
                kept.map_err(|e| self.not_kept(e))?;
                lock(&self.versions).insert(model.clone(), told.clone());
            }
        }
        let tensor = answer.outputs.into_iter().next();
        let tensor = tensor.ok_or_else(|| refused("it sent nothing".to_owned()))?;
        let bytes = Vec::from(tensor.data);
        let kept = self.answers.keep(&question(&told), &bytes);
        kept.map_err(|e| self.not_kept(e))?;
        Ok(Numbers { datatype, bytes })
    }
}

/// Most bytes of values that a request to an endpoint may carry.
fn most_bytes(profile: &Profile) -> u64 {
    let room = profile.max_request_bytes.saturating_sub(HEAD_BYTES);
    match profile.binary {
        Binary::Yes | Binary::Probe => room,
        Binary::No => room / JSON_BYTES_PER_VALUE * 4,
    }
}

/// An endpoint that is only counted with: nothing is sent to it.
#[derive(Debug)]
pub(super) struct Thought(pub Profile);

impl Elsewhere for Thought {
    fn device(&self) -> String {
        format!("model server {}", self.0.name)
    }

    fn most_bytes(&self) -> u64 {
        most_bytes(&self.0)
    }

    fn labels(&self, _: &Call<'_>, _: &Task) -> Result<Vec<u8>, Error> {
        Err(refused("it is only counted with".to_owned()))
    }

    fn scores(&self, _: &Call<'_>, _: usize, _: &Task) -> Result<Vec<f32>, Error> {
        Err(refused("it is only counted with".to_owned()))
    }

    fn class_scores(&self, _: &Call<'_>, _: usize, _: &Task) -> Result<Vec<f32>, Error> {
        Err(refused("it is only counted with".to_owned()))
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
        most_bytes(self.client.profile())
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

    fn class_scores(
        &self,
        call: &Call<'_>,
        classes: usize,
        task: &Task,
    ) -> Result<Vec<f32>, Error> {
        let found = self.ask(call, &[1, classes as u64], &[Datatype::Fp32], task)?;
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
fn encoded(values: &[f32], to: Datatype) -> Result<Cow<'_, [u8]>, Error> {
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
        // Read where they are: a tile is the largest thing here.
        Datatype::Fp32 => return Ok(Cow::Borrowed(bytemuck::cast_slice(values))),
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
    let bytes = bytes.map(Cow::Owned);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_go_out_exactly_or_not_at_all() {
        let back = |bytes: Cow<'_, [u8]>| bytemuck::pod_collect_to_vec::<u8, i16>(&bytes);
        assert_eq!(
            back(encoded(&[-1024.0, 0.0, 3071.0], Datatype::Int16).unwrap()),
            [-1024, 0, 3071]
        );
        assert_eq!(*encoded(&[0.0, 255.0], Datatype::Uint8).unwrap(), [0, 255]);
        assert_eq!(encoded(&[1.5, -0.25], Datatype::Fp16).unwrap().len(), 4);
        assert_eq!(
            *encoded(&[0.1], Datatype::Fp64).unwrap(),
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

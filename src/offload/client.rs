//! The client of one endpoint.

mod who_asks;

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE};
use reqwest::{Method, Url};
use ring::rand::{SecureRandom, SystemRandom};
use serde::Deserialize;

use super::Error;
use super::endpoint::{Authorization, Binary, Pin, Profile};
use super::history::TELLING_BYTES;
use super::protocol::{
    Asked, Encoded, IndexEntry, InferRequest, JSON_LENGTH_HEADER, ModelMetadata, OutputTensor,
    RequestError, ServerMetadata, decode, elements_of, is_plain_name, message_of, parse,
};
use super::retry::{Attempts, Breaker, Budget, FIRST_WAIT, retry_after};
use super::secret::Secrets;
use super::service::{Addressed, json_length_of};
use super::sigv4;
use super::tls::{self, Seen};
use super::token::Token;
use super::transport::{self, Limits, Outgoing, Received};
use crate::task::Task;
use who_asks::Signable;

/// Longest time for a question that needs no computing.
const QUESTION_TIME: Duration = Duration::from_secs(30);
/// Largest answer to such a question.
const QUESTION_BYTES: u64 = 4 << 20;
/// What the JSON of an answer takes beside its numbers.
const ANSWER_HEAD_BYTES: u64 = 256 * 1024;
/// The longest text of a number with its comma and blanks.
const JSON_BYTES_PER_NUMBER: u64 = 32;

/// How long a client waits for what, beside the profile's deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For a connection, with its handshake.
    pub connect: Duration,
    /// While nothing moves in either direction, except while the server works.
    pub idle: Duration,
    /// Ceiling of the first wait before another attempt; it doubles with each.
    pub first_wait: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            idle: Duration::from_mins(2),
            first_wait: FIRST_WAIT,
        }
    }
}

/// What a model said, checked against what was asked; and what it took.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InferAnswer {
    /// In the order in which they were asked for.
    pub outputs: Vec<OutputTensor>,
    /// Version of the model, where the server tells it.
    pub model_version: Option<String>,
    /// Body of the last attempt, as it went over the line.
    pub sent_bytes: u64,
    /// Body of the answer, as it came over the line.
    pub received_bytes: u64,
    /// Time of the last attempt until its last byte was taken.
    pub sending: Duration,
    /// From then on until the answer began: the server's work.
    pub waiting: Duration,
    /// Until the answer's last byte.
    pub receiving: Duration,
    /// 1 when the first one succeeded.
    pub attempts: u32,
    /// SHA-256 of the server's public key; `None` over plain http.
    pub server_key: Option<Pin>,
}

/// 128 random bits in hex, for what must be told apart and say nothing.
///
/// # Panics
/// When the system has no random numbers.
pub fn random_id() -> String {
    format!("{:032x}", u128::from_le_bytes(random()))
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .expect("the system gives random numbers");
    bytes
}

/// What changes while a client lives.
#[derive(Debug, Default)]
struct State {
    breaker: Breaker,
    budget: Budget,
    announces_binary: Option<bool>,
    /// Bytes that the line takes in a second, as last measured.
    rate: Option<f64>,
    /// It has refused gzip.
    refuses_gzip: bool,
}

/// What a server may hold against a signature that is some minutes old.
#[expect(
    clippy::disallowed_methods,
    reason = "a signature holds for the moment in which it is sent"
)]
fn wall_clock() -> DateTime<Utc> {
    Utc::now()
}

/// Bytes in a second from which on compressing (some 40 MB/s) takes longer than it saves.
const FAST_LINE: f64 = 40e6;

/// Speaks with one endpoint. Any number of threads may ask at once.
pub struct Client {
    profile: Profile,
    secrets: Secrets,
    patience: Patience,
    base: Url,
    http: reqwest::Client,
    seen: Seen,
    /// `None` only while it is dropped.
    runtime: Option<tokio::runtime::Runtime>,
    begun: Instant,
    /// The day and the hour, for signatures alone.
    clock: fn() -> DateTime<Utc>,
    state: Mutex<State>,
    /// Held while a new one is fetched, so that one thread fetches it for all.
    token: Mutex<Option<Token>>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("profile", &self.profile)
            .finish_non_exhaustive()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A name that is still being looked up would hold us for as long as that takes.
            runtime.shutdown_background();
        }
    }
}

impl Client {
    /// Makes ready to speak with an endpoint; nothing is sent.
    ///
    /// # Errors
    /// The profile cannot be used, or its certificates cannot be read.
    pub fn new(profile: &Profile, secrets: Secrets) -> Result<Self, Error> {
        Self::with_patience(profile, secrets, Patience::default())
    }

    /// As [`Client::new`], with waits of one's own.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn with_patience(
        profile: &Profile,
        secrets: Secrets,
        patience: Patience,
    ) -> Result<Self, Error> {
        profile.check()?;
        let base = profile.parsed_url(&profile.url)?;
        let (config, seen) = tls_config(profile, &base, &profile.pins)?;
        let http = http_client(config, &base, patience.connect)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("offload")
            .enable_all()
            .build()
            .map_err(|e| Error::Setup(e.to_string()))?;
        Ok(Self {
            profile: profile.clone(),
            secrets,
            patience,
            base,
            http,
            seen,
            runtime: Some(runtime),
            begun: Instant::now(),
            clock: wall_clock,
            state: Mutex::default(),
            token: Mutex::default(),
        })
    }

    /// The same with another clock for signatures.
    #[must_use]
    pub fn with_clock(mut self, clock: fn() -> DateTime<Utc>) -> Self {
        self.clock = clock;
        self
    }

    /// The profile that it was made with.
    pub const fn profile(&self) -> &Profile {
        &self.profile
    }

    /// SHA-256 of the public key that the server showed last; `None` before that and over http.
    pub fn server_key(&self) -> Option<Pin> {
        self.seen.newest()
    }

    /// Says what the line took in a second on earlier days, in bytes; what is measured from now on
    /// counts more.
    pub fn expect_rate(&self, rate: f64) {
        self.state(|state| state.rate = state.rate.or(Some(rate)));
    }

    /// Whether a body is worth compressing: the server takes it, and the line is slow or not measured.
    fn compresses(&self) -> bool {
        let worth =
            |state: &State| !state.refuses_gzip && state.rate.is_none_or(|rate| rate < FAST_LINE);
        self.profile.gzip && self.state(|state| worth(state))
    }

    /// Whether the server says that it lives.
    ///
    /// # Errors
    /// It cannot be asked.
    pub fn live(&self, task: &Task) -> Result<bool, Error> {
        self.healthy(&["v2", "health", "live"], task)
    }

    /// Whether the server says that it takes work.
    ///
    /// # Errors
    /// It cannot be asked.
    pub fn ready(&self, task: &Task) -> Result<bool, Error> {
        self.healthy(&["v2", "health", "ready"], task)
    }

    /// Whether the server says that a model takes work. A model that it does not know does not.
    ///
    /// # Errors
    /// It cannot be asked.
    pub fn model_ready(
        &self,
        model: &str,
        version: Option<&str>,
        task: &Task,
    ) -> Result<bool, Error> {
        let mut path = model_path(model, version)?;
        path.push("ready");
        self.healthy(&path, task)
    }

    /// What the server tells of itself.
    ///
    /// # Errors
    /// It cannot be asked, or does not say it.
    pub fn metadata(&self, task: &Task) -> Result<ServerMetadata, Error> {
        let metadata: ServerMetadata = self.question(Method::GET, &["v2"], None, task)?;
        self.state(|state| state.announces_binary = Some(metadata.announces_binary()));
        Ok(metadata)
    }

    /// What the server tells of a model.
    ///
    /// # Errors
    /// It cannot be asked, or does not say it.
    pub fn model_metadata(
        &self,
        model: &str,
        version: Option<&str>,
        task: &Task,
    ) -> Result<ModelMetadata, Error> {
        if let Some(tensors) = &self.profile.tensors {
            // As the person has described it; the model's answers are held against that.
            return Ok(ModelMetadata {
                name: model.to_owned(),
                inputs: vec![tensors.input.clone()],
                outputs: vec![tensors.output.clone()],
                ..ModelMetadata::default()
            });
        }
        self.question(Method::GET, &model_path(model, version)?, None, task)
    }

    /// The server's models; `None` where it offers no list.
    ///
    /// # Errors
    /// It cannot be asked.
    pub fn index(&self, task: &Task) -> Result<Option<Vec<IndexEntry>>, Error> {
        let path = ["v2", "repository", "index"];
        match self.question(Method::POST, &path, Some(b"{}"), task) {
            Ok(list) => Ok(Some(list)),
            Err(Error::Status {
                status: 404 | 405 | 501,
                ..
            }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Runs a model on the server. Blocks; the task shows bytes sent, the wait and bytes received,
    /// and stops it.
    ///
    /// # Errors
    /// The request cannot be sent, the server refuses or fails after all attempts, or its answer is
    /// not what was asked for. See [`Error::may_have_been_sent`].
    pub fn infer(&self, request: &InferRequest<'_>, task: &Task) -> Result<InferAnswer, Error> {
        let compressed = self.compresses();
        match self.infer_as(request, compressed, task) {
            // What a server says that takes no gzip; 500 where a handler reads it as its JSON.
            Err(Error::Status {
                status: 400 | 415 | 500 | 501,
                ..
            }) if compressed => {
                let answer = self.infer_as(request, false, task)?;
                // The same was taken as it is: the compression it was.
                self.state(|state| state.refuses_gzip = true);
                Ok(answer)
            }
            other => other,
        }
    }

    fn infer_as(
        &self,
        request: &InferRequest<'_>,
        compressed: bool,
        task: &Task,
    ) -> Result<InferAnswer, Error> {
        if !self.profile.models.is_empty() && !self.profile.models.contains(&request.model) {
            return Err(Error::ModelNotAllowed(request.model.clone()));
        }
        let path = model_path(&request.model, request.version.as_deref())?;
        let path = [&path[..], &["infer"]].concat();
        let service = &self.profile.service;
        let to = service.addressed(&self.base, Method::POST, &path)?;
        let deadline = Duration::from_secs(self.profile.deadline_secs);
        let begun = Instant::now();
        let binary = self.speaks_binary(request, task)?;
        let encoded = Encoded::new(request, binary)?;
        let packed = compressed.then(|| gzip(&encoded)).transpose()?;
        let length = packed.as_ref().map_or(encoded.length, |p| p.len() as u64);
        if length.max(encoded.length) > self.profile.max_request_bytes {
            return Err(Error::RequestTooLarge {
                bytes: length.max(encoded.length),
                limit: self.profile.max_request_bytes,
            });
        }
        let limit = self.answer_limit(request, binary);
        let asked = Asked::of(request);
        let kind = match encoded.json_length {
            None => "application/json".to_owned(),
            Some(json) => service
                .binary_type(json)
                .unwrap_or_else(|| "application/octet-stream".to_owned()),
        };
        let body_hash = match &self.profile.authorization {
            Authorization::AwsSignature { .. } => sigv4::hash_of(encoded.open()),
            _ => Ok(String::new()),
        };
        let signable = Signable {
            url: &to.url,
            kind: &kind,
            body: body_hash.map_err(|source| Error::Body { source })?,
        };
        let mut attempts = 0;
        let (received, answer) = self.repeated(begun, deadline, task, |left| {
            attempts += 1;
            let mut builder = self
                .request(&to)
                .header("idempotency-key", format!("\"{}\"", request.id))
                .header("x-request-id", format!("{}.{attempts}", request.id))
                .header(CONTENT_TYPE, &kind);
            if let Some(json) = encoded.json_length {
                builder = builder.header(JSON_LENGTH_HEADER, json);
            }
            if packed.is_some() {
                builder = builder.header(CONTENT_ENCODING, "gzip");
            }
            let outgoing = Outgoing {
                from: match &packed {
                    Some(packed) => Box::new(packed.as_slice()),
                    None => encoded.open(),
                },
                length,
            };
            let limits = Limits {
                idle: self.patience.idle,
                time: left,
                answer_bytes: limit,
            };
            let received = self.once(builder, Some(outgoing), limits, Some(&signable), task)?;
            let stated = received
                .header(JSON_LENGTH_HEADER)
                .or_else(|| json_length_of(received.header("content-type")?));
            let answer = decode(&received.body, stated, &asked)?;
            Ok((received, answer))
        })?;
        let secs = received.sending.as_secs_f64();
        if length >= TELLING_BYTES && secs > 0.0 {
            self.state(|state| state.rate = Some(length as f64 / secs));
        }
        Ok(InferAnswer {
            outputs: answer.outputs,
            model_version: answer.version,
            sent_bytes: length,
            received_bytes: received.bytes,
            sending: received.sending,
            waiting: received.waiting,
            receiving: received.receiving,
            attempts,
            server_key: self.server_key(),
        })
    }

    /// Largest answer that can be right.
    fn answer_limit(&self, request: &InferRequest<'_>, binary: bool) -> u64 {
        let expected = request.outputs.iter().try_fold(0_u64, |all, output| {
            let shape: Vec<u64> = output.shape.iter().copied().collect::<Option<_>>()?;
            let each = if binary {
                // A server may answer in JSON all the same.
                JSON_BYTES_PER_NUMBER.max(output.datatype.size() as u64)
            } else {
                JSON_BYTES_PER_NUMBER
            };
            all.checked_add(elements_of(&shape)?.checked_mul(each)?)
        });
        expected
            .and_then(|n| n.checked_add(ANSWER_HEAD_BYTES))
            .map_or(self.profile.max_answer_bytes, |n| {
                n.min(self.profile.max_answer_bytes)
            })
    }

    /// Whether tensors go as bytes.
    fn speaks_binary(&self, request: &InferRequest<'_>, task: &Task) -> Result<bool, Error> {
        match self.profile.binary {
            // Nobody there to ask: Triton's container, unless the person says otherwise.
            Binary::Probe if !self.profile.service.tells() => Ok(true),
            Binary::Yes => Ok(true),
            Binary::No => Ok(false),
            Binary::Probe => {
                let known = self.state(|state| state.announces_binary);
                let announced = match known {
                    Some(known) => known,
                    None => self.metadata(task)?.announces_binary(),
                };
                // A server that announces nothing may take them all the same; where JSON cannot say
                // it, there is nothing to lose.
                let json_can = request.inputs.iter().all(|t| t.datatype.fits_json())
                    && request.outputs.iter().all(|t| t.datatype.fits_json());
                Ok(announced || !json_can)
            }
        }
    }

    /// A GET whose status alone is the answer.
    fn healthy(&self, path: &[&str], task: &Task) -> Result<bool, Error> {
        let to = self.addressed(Method::GET, path)?;
        let left = QUESTION_TIME;
        let limits = Limits {
            idle: left,
            time: left,
            answer_bytes: QUESTION_BYTES,
        };
        // Asked once: whoever wants to know asks again.
        match self.once(self.request(&to), None, limits, None, task) {
            Ok(_) => Ok(true),
            Err(Error::Status {
                status: 400 | 404 | 500..=599,
                ..
            }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn question<T: for<'de> Deserialize<'de>>(
        &self,
        method: Method,
        path: &[&str],
        body: Option<&'static [u8]>,
        task: &Task,
    ) -> Result<T, Error> {
        let to = self.addressed(method, path)?;
        self.repeated(Instant::now(), QUESTION_TIME, task, |left| {
            let mut builder = self.request(&to);
            if body.is_some() {
                builder = builder.header(CONTENT_TYPE, "application/json");
            }
            let outgoing = body.map(|body| Outgoing {
                from: Box::new(body),
                length: body.len() as u64,
            });
            let limits = Limits {
                idle: left,
                time: left,
                answer_bytes: QUESTION_BYTES,
            };
            let received = self.once(builder, outgoing, limits, None, task)?;
            Ok(parse(&received.body)?)
        })
    }

    /// Tries until it succeeds or the rules of [`super::retry`] say that it is enough.
    fn repeated<T>(
        &self,
        begun: Instant,
        deadline: Duration,
        task: &Task,
        mut once: impl FnMut(Duration) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut attempts = Attempts::new(self.patience.first_wait);
        // A token may have been withdrawn before its time: once, a new one is tried.
        let mut renewed = false;
        self.state(|state| state.budget.request());
        loop {
            let left = deadline.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Err(Error::Deadline { deadline });
            }
            self.state(|state| state.breaker.allow(self.begun.elapsed()))
                .map_err(|wait| Error::Resting { wait })?;
            let error = match once(left) {
                Ok(done) => {
                    self.state(|state| state.breaker.succeeded());
                    return Ok(done);
                }
                // Told with the time of the whole, not with what was left for the last attempt.
                Err(Error::Deadline { .. }) => Error::Deadline { deadline },
                Err(error) => error,
            };
            if matches!(error, Error::Status { status: 401, .. })
                && !std::mem::replace(&mut renewed, true)
                && self.forget_token()
            {
                continue;
            }
            let now = self.begun.elapsed();
            self.state(|state| match &error {
                error if error.counts_against_endpoint() => state.breaker.failed(now),
                Error::Status { .. } | Error::Answer(_) => state.breaker.succeeded(),
                _ => {}
            });
            let asked = match &error {
                Error::Status { retry_after, .. } => *retry_after,
                _ => None,
            };
            let left = deadline.saturating_sub(begun.elapsed());
            let chance = u32::from_le_bytes(random()) as f64 / (u32::MAX as f64 + 1.0);
            let wait = self.state(|state| {
                attempts.after(error.again(), asked, left, chance, &mut state.budget)
            });
            let Some(wait) = wait else {
                return Err(error);
            };
            tracing::info!("asking again in {} ms: {error}", wait.as_millis());
            rest(wait, "Waiting to try again", task)?;
        }
    }

    /// One exchange; a refusal is an error.
    fn once(
        &self,
        builder: reqwest::RequestBuilder,
        outgoing: Option<Outgoing<'_>>,
        limits: Limits,
        signable: Option<&Signable<'_>>,
        task: &Task,
    ) -> Result<Received, Error> {
        let encoding = if self.profile.gzip {
            "gzip"
        } else {
            "identity"
        };
        let mut builder = builder.header(ACCEPT_ENCODING, encoding);
        if let Some(token) = self.authorization(task)? {
            builder = builder.header(AUTHORIZATION, token);
        }
        if let Some(signable) = signable {
            builder = self.signed(builder, signable)?;
        }
        let received = transport::exchange(self.runtime(), builder, outgoing, limits, task)?;
        if (200..300).contains(&received.status) {
            return Ok(received);
        }
        Err(Error::Status {
            status: received.status,
            message: match received.status {
                300..=399 => "it points elsewhere, and redirects are not followed".to_owned(),
                _ => message_of(&received.body),
            },
            retry_after: received
                .header("retry-after")
                .and_then(|value| retry_after(value, received.header("date"))),
        })
    }

    fn runtime(&self) -> &tokio::runtime::Runtime {
        self.runtime.as_ref().expect("it is there until the drop")
    }

    /// Where a question goes at this service.
    fn addressed(&self, method: Method, path: &[&str]) -> Result<Addressed, Error> {
        self.profile.service.addressed(&self.base, method, path)
    }

    fn request(&self, to: &Addressed) -> reqwest::RequestBuilder {
        let builder = self.http.request(to.method.clone(), to.url.clone());
        match &to.header {
            Some((name, value)) => builder.header(*name, value),
            None => builder,
        }
    }

    fn state<T>(&self, with: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self
            .state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        with(&mut state)
    }
}

/// `v2/models/NAME[/versions/V]`.
fn model_path<'a>(model: &'a str, version: Option<&'a str>) -> Result<Vec<&'a str>, Error> {
    for name in [Some(model), version].into_iter().flatten() {
        if !is_plain_name(name) {
            return Err(RequestError::Name(name.to_owned()).into());
        }
    }
    let mut path = vec!["v2", "models", model];
    path.extend(version.iter().flat_map(|v| ["versions", v]));
    Ok(path)
}

/// The whole body compressed, which is smaller than the tensor; the fast level, since the line waits.
fn gzip(encoded: &Encoded<'_>) -> Result<Vec<u8>, Error> {
    let mut to = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::copy(&mut encoded.open(), &mut to)
        .and_then(|_| to.flush())
        .and_then(|()| to.finish())
        .map_err(|source| Error::Body { source })
}

/// Waits, unless the person stops it.
fn rest(wait: Duration, phase: &str, task: &Task) -> Result<(), Error> {
    let until = Instant::now() + wait;
    task.begin(phase, 0);
    loop {
        task.check()?;
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(Duration::from_millis(25)));
    }
}

/// How calls to a URL are secured; plain http, if it is allowed at all, needs nothing.
fn tls_config(
    profile: &Profile,
    url: &Url,
    pins: &[Pin],
) -> Result<(rustls::ClientConfig, Seen), Error> {
    match url.scheme() {
        "https" => tls::config(profile, pins),
        _ => tls::trusting_nobody(),
    }
}

/// The HTTP client for one URL's host.
pub(super) fn http_client(
    config: rustls::ClientConfig,
    base: &Url,
    connect: Duration,
) -> Result<reqwest::Client, Error> {
    let mut builder = reqwest::Client::builder()
        .tls_backend_preconfigured(config)
        .http1_only()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .user_agent(concat!("negatoscope/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(connect)
        .tcp_keepalive(Duration::from_secs(30))
        .pool_idle_timeout(Duration::from_secs(30));
    let here = loopback_addresses(base)?;
    if base.scheme() == "https" {
        builder = builder.https_only(true);
    } else {
        let host = base.host_str().unwrap_or_default();
        let Some(addresses) = &here else {
            return Err(Error::NotLoopback {
                host: host.to_owned(),
            });
        };
        // What was checked is what is called, whatever the name means a moment later.
        builder = builder.resolve_to_addrs(host, addresses);
    }
    if here.is_some() {
        // What stays on this machine needs no proxy, and plain http must not meet one.
        builder = builder.no_proxy();
    }
    builder.build().map_err(|e| Error::Setup(e.to_string()))
}

/// The addresses of a URL's host, if it can mean nothing but this machine: an address in 127.0.0.0/8,
/// ::1, or `localhost` when it resolves to nothing else.
fn loopback_addresses(url: &Url) -> Result<Option<Vec<SocketAddr>>, Error> {
    let host = url.host_str().unwrap_or_default();
    let port = url.port_or_known_default().unwrap_or(0);
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok(address
            .is_loopback()
            .then(|| vec![SocketAddr::new(address, port)]));
    }
    if host != "localhost" {
        return Ok(None);
    }
    let found: Vec<SocketAddr> = (host, port)
        .to_socket_addrs()
        .map_err(|e| Error::Connect(e.to_string()))?
        .collect();
    let all_here = !found.is_empty() && found.iter().all(|a| a.ip().is_loopback());
    Ok(all_here.then_some(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(url: &str) -> Result<Client, Error> {
        let profile = Profile {
            allow_insecure_loopback: true,
            ..Profile::new("x", url)
        };
        Client::new(&profile, Secrets::given([]))
    }

    #[test]
    fn plain_http_never_leaves_this_machine() {
        for here in [
            "http://127.0.0.1:1",
            "http://127.9.9.9:1",
            "http://[::1]:1",
            "http://localhost:1",
        ] {
            client(here).unwrap();
        }
        for elsewhere in [
            "http://models.example",
            "http://10.0.0.1",
            "http://0.0.0.0",
            "http://[::]",
            "http://[::ffff:127.0.0.1]",
            "http://localhost.example",
            "http://127.0.0.1.example",
            "http://169.254.169.254",
        ] {
            let error = client(elsewhere).unwrap_err();
            assert!(matches!(error, Error::NotLoopback { .. }), "{error}");
        }
    }

    #[test]
    fn paths_are_appended_to_the_endpoints_own() {
        for base in ["http://127.0.0.1:1/a/b", "http://127.0.0.1:1/a/b/"] {
            let client = client(base).unwrap();
            let path = model_path("seg", Some("3")).unwrap();
            assert_eq!(
                client.addressed(Method::GET, &path).unwrap().url.as_str(),
                "http://127.0.0.1:1/a/b/v2/models/seg/versions/3"
            );
        }
        let root = client("http://127.0.0.1:1").unwrap();
        let to = root.addressed(Method::GET, &["v2"]).unwrap();
        assert_eq!(to.url.as_str(), "http://127.0.0.1:1/v2");
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in [
            "", ".", "..", "a/b", "a%2fb", "a?b", "a#b", "a\r\nb", "a b", "a\\b", "é",
        ] {
            assert!(model_path(name, None).is_err(), "{name:?}");
            assert!(model_path("seg", Some(name)).is_err(), "{name:?}");
        }
    }

    #[test]
    fn ids_are_random() {
        assert_ne!(random_id(), random_id());
        assert_eq!(random_id().len(), 32);
    }
}

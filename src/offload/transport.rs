//! One exchange with a server: a request of known length goes, an answer within limits comes, and
//! the person can watch and stop it at any moment.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io::{self, Read};
use std::pin::{Pin as Pinned, pin};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::header::{CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap};
use tokio::sync::mpsc;

use super::Error;
use super::protocol::AnswerError;
use super::tls;
use crate::task::Task;

/// Bytes of a body that are handed over at a time.
const CHUNK: usize = 256 * 1024;
/// How often the person's wish to stop is looked at.
const TICK: Duration = Duration::from_millis(25);

/// What an exchange may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Longest time in which nothing moves while sending or receiving.
    pub(super) idle: Duration,
    /// Longest time for all.
    pub(super) time: Duration,
    /// Largest answer, after decompression.
    pub(super) answer_bytes: u64,
}

/// Largest refusal that is read.
const MAX_REFUSAL_BYTES: u64 = 64 * 1024;

/// What came back, whatever the status says.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    /// Decompressed.
    pub(super) body: Bytes,
    /// As they went over the line.
    pub(super) bytes: u64,
    pub(super) sending: Duration,
    pub(super) waiting: Duration,
    pub(super) receiving: Duration,
}

impl Received {
    /// A header's text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// A body on its way out.
pub(super) struct Outgoing<'a> {
    pub(super) from: Box<dyn Read + 'a>,
    pub(super) length: u64,
}

/// The receiving end of a body, as the connection sees it: its length is known.
struct Streamed {
    chunks: mpsc::Receiver<Bytes>,
    left: u64,
}

impl http_body::Body for Streamed {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pinned<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, io::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.chunks.poll_recv(context).map(|chunk| {
            // The other end went away early: cancelled, or the source failed. The connection must
            // break then, so that the server never takes the part for the whole.
            let end = || io::Error::from(io::ErrorKind::UnexpectedEof);
            let Some(chunk) = chunk else {
                return Some(Err(end()));
            };
            match self.left.checked_sub(chunk.len() as u64) {
                Some(left) => self.left = left,
                None => return Some(Err(end())),
            }
            Some(Ok(http_body::Frame::data(chunk)))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.left)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Sending,
    Waiting,
    Receiving,
}

impl Phase {
    fn words(self) -> &'static str {
        match self {
            Self::Sending => "sending",
            Self::Waiting => "waiting for the answer",
            Self::Receiving => "receiving",
        }
    }
}

/// What the parts of an exchange tell each other; all on one thread.
struct Course {
    phase: Cell<Phase>,
    /// When something last moved.
    moved: Cell<Instant>,
    sent: Cell<u64>,
    /// Why the body could not be read.
    source: RefCell<Option<io::Error>>,
}

/// Sends a request and receives the answer. The calling thread reads the body and waits.
pub(super) fn exchange(
    runtime: &tokio::runtime::Runtime,
    request: reqwest::RequestBuilder,
    outgoing: Option<Outgoing<'_>>,
    limits: Limits,
    task: &Task,
) -> Result<Received, Error> {
    task.check()?;
    let begun = Instant::now();
    let length = outgoing.as_ref().map_or(0, |o| o.length);
    let course = Course {
        phase: Cell::new(match outgoing {
            Some(_) => Phase::Sending,
            None => Phase::Waiting,
        }),
        moved: Cell::new(begun),
        sent: Cell::new(0),
        source: RefCell::new(None),
    };
    task.begin("Sending", length as usize);
    let (chunks, receiver) = mpsc::channel(2);
    let request = match &outgoing {
        Some(_) => request
            .header(CONTENT_LENGTH, length)
            .body(reqwest::Body::wrap(Streamed {
                chunks: receiver,
                left: length,
            })),
        None => request,
    };
    runtime.block_on(async {
        let mut pump = pin!(pump(outgoing, chunks, &course, task));
        let mut answer = pin!(receive(request, limits, &course, task, begun));
        let mut tick = tokio::time::interval(TICK);
        let mut pumping = true;
        poll_fn(|context| {
            if pumping && pump.as_mut().poll(context).is_ready() {
                pumping = false;
            }
            if let Poll::Ready(done) = answer.as_mut().poll(context) {
                return Poll::Ready(match course.source.take() {
                    // The connection broke because we had nothing more to send.
                    Some(source) if done.is_err() => Err(Error::Body { source }),
                    _ => done,
                });
            }
            while tick.poll_tick(context).is_ready() {
                if let Err(error) = watch(&course, limits, task, begun) {
                    return Poll::Ready(Err(error));
                }
            }
            Poll::Pending
        })
        .await
    })
}

/// Looks whether the exchange may go on.
fn watch(course: &Course, limits: Limits, task: &Task, begun: Instant) -> Result<(), Error> {
    let phase = course.phase.get();
    if task.is_cancelled() {
        return Err(Error::Cancelled {
            sent: course.sent.get() > 0 || phase != Phase::Sending,
        });
    }
    if begun.elapsed() >= limits.time {
        return Err(Error::Deadline {
            deadline: limits.time,
        });
    }
    // While the server works, nothing moves: the deadline alone holds then.
    if phase != Phase::Waiting && course.moved.get().elapsed() >= limits.idle {
        return Err(Error::Stalled {
            phase: phase.words(),
            idle: limits.idle,
            answer_begun: phase == Phase::Receiving,
        });
    }
    Ok(())
}

/// Reads the body chunk by chunk and hands it to the connection.
async fn pump(
    outgoing: Option<Outgoing<'_>>,
    chunks: mpsc::Sender<Bytes>,
    course: &Course,
    task: &Task,
) {
    let Some(mut outgoing) = outgoing else {
        return;
    };
    let mut left = outgoing.length;
    while left > 0 {
        let mut chunk = vec![0; CHUNK.min(left as usize)];
        if let Err(error) = outgoing.from.read_exact(&mut chunk) {
            *course.source.borrow_mut() = Some(error);
            return;
        }
        let length = chunk.len();
        if chunks.send(chunk.into()).await.is_err() {
            // The exchange is over; it says itself why.
            return;
        }
        left -= length as u64;
        course.sent.set(course.sent.get() + length as u64);
        course.moved.set(Instant::now());
        task.advance(length);
    }
    if course.phase.get() == Phase::Sending {
        course.phase.set(Phase::Waiting);
        task.begin("The server works", 0);
    }
}

async fn receive(
    request: reqwest::RequestBuilder,
    limits: Limits,
    course: &Course,
    task: &Task,
    begun: Instant,
) -> Result<Received, Error> {
    let broken = |error| error_of(error, course.phase.get());
    let mut response = request.send().await.map_err(broken)?;
    // The last chunk that was taken ends the sending; a refusal may come before that.
    let sent_at = course.moved.get();
    let headed_at = Instant::now();
    course.phase.set(Phase::Receiving);
    course.moved.set(headed_at);

    let status = response.status().as_u16();
    let limit = if response.status().is_success() {
        limits.answer_bytes
    } else {
        MAX_REFUSAL_BYTES
    };
    let stated = response
        .headers()
        .get(CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    let is_refusal = !response.status().is_success();
    let too_large = || Error::Answer(AnswerError::TooLarge { limit });
    if !is_refusal && stated.is_some_and(|n| n > limit) {
        return Err(too_large());
    }
    task.begin("Receiving", stated.unwrap_or(0) as usize);
    // Room for what was announced, but no more at once than it takes to see whether it comes.
    let room = stated.unwrap_or(0).min(limit).min(8 << 20);
    let mut body: Vec<u8> = Vec::with_capacity(room as usize);
    while let Some(chunk) = response.chunk().await.map_err(broken)? {
        if (body.len() + chunk.len()) as u64 > limit {
            if is_refusal {
                break;
            }
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
        course.moved.set(Instant::now());
        task.advance(chunk.len());
    }
    let headers = response.headers().clone();
    let bytes = body.len() as u64;
    let body = decompressed(body, &headers, limit)?;
    Ok(Received {
        status,
        headers,
        body: body.into(),
        bytes,
        sending: sent_at - begun,
        waiting: headed_at - sent_at,
        receiving: headed_at.elapsed(),
    })
}

/// Undoes gzip, within the limit.
fn decompressed(body: Vec<u8>, headers: &HeaderMap, limit: u64) -> Result<Vec<u8>, AnswerError> {
    let mut encodings = headers.get_all(CONTENT_ENCODING).iter();
    let encoding = match (encodings.next(), encodings.next()) {
        (None, _) => return Ok(body),
        (Some(one), None) => one.to_str().unwrap_or("?").trim().to_ascii_lowercase(),
        (Some(_), Some(_)) => "several".to_owned(),
    };
    match encoding.as_str() {
        "" | "identity" => Ok(body),
        "gzip" | "x-gzip" => {
            let mut plain = Vec::new();
            flate2::read::MultiGzDecoder::new(body.as_slice())
                .take(limit.saturating_add(1))
                .read_to_end(&mut plain)
                .map_err(|e| AnswerError::Compression(e.to_string()))?;
            if plain.len() as u64 > limit {
                return Err(AnswerError::TooLarge { limit });
            }
            Ok(plain)
        }
        other => Err(AnswerError::Compression(format!(
            "{} was not asked for",
            super::protocol::cleaned(other, 40)
        ))),
    }
}

/// What reqwest says, in the words of [`Error`].
fn error_of(error: reqwest::Error, phase: Phase) -> Error {
    let error = error.without_url();
    if let Some(tls) = find::<rustls::Error>(&error) {
        return tls::error_of(tls);
    }
    let mut innermost: &dyn std::error::Error = &error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let innermost = innermost.to_string();
    if error.is_connect() {
        return Error::Connect(if error.is_timeout() {
            "the server does not take the call in time".to_owned()
        } else {
            innermost
        });
    }
    if let Some(hyper) = find::<hyper::Error>(&error).filter(|e| e.is_parse()) {
        return Error::Answer(AnswerError::NotJson(format!("it is not HTTP: {hyper}")));
    }
    Error::Broken {
        phase: phase.words(),
        why: match find::<io::Error>(&error).map(io::Error::kind) {
            Some(io::ErrorKind::ConnectionReset) => "the server reset it".to_owned(),
            Some(io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof) => {
                "the server closed it".to_owned()
            }
            _ => innermost,
        },
        answer_begun: phase == Phase::Receiving,
    }
}

/// The first error of a kind in a chain, also inside of an `io::Error`, which does not name what it
/// wraps as its source.
fn find<'a, T: std::error::Error + 'static>(
    error: &'a (dyn std::error::Error + 'static),
) -> Option<&'a T> {
    if let Some(found) = error.downcast_ref() {
        return Some(found);
    }
    let wrapped = error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref);
    if let Some(found) = wrapped.and_then(|inner| find(inner)) {
        return Some(found);
    }
    find(error.source()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut to = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        to.write_all(bytes).unwrap();
        to.finish().unwrap()
    }

    fn encoded_as(encoding: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_ENCODING, encoding.parse().unwrap());
        headers
    }

    #[test]
    fn decompression_stops_at_the_limit() {
        let zeros = vec![0; 1 << 20];
        let small = gzip(&zeros);
        assert!(small.len() < zeros.len() / 50);
        let headers = encoded_as("GZIP");
        assert_eq!(
            decompressed(small.clone(), &headers, 1 << 20).unwrap(),
            zeros
        );
        assert_eq!(
            decompressed(small, &headers, (1 << 20) - 1),
            Err(AnswerError::TooLarge {
                limit: (1 << 20) - 1
            })
        );
    }

    #[test]
    fn compression_that_is_damaged_or_unknown_is_refused() {
        let good = gzip(b"abc");
        for end in 1..good.len() {
            let cut = good[..end].to_vec();
            assert!(
                decompressed(cut, &encoded_as("gzip"), 100).is_err(),
                "{end}"
            );
        }
        for other in ["zstd", "br", "deflate", "gzip, gzip"] {
            assert!(decompressed(good.clone(), &encoded_as(other), 100).is_err());
        }
        assert_eq!(
            decompressed(good.clone(), &HeaderMap::new(), 100).unwrap(),
            good
        );
    }
}

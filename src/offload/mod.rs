//! Models that run elsewhere: a client for servers that speak the Open Inference Protocol over HTTPS, also
//! where a cloud puts its own envelope around it.
//!
//! Tensors and names go in, checked tensors come out. The client takes bytes and numbers alone:
//! nothing of a file's header has a way in, and the ids that it sends are random.
//!
//! ```text
//! InferRequest ─encode─▶ exchange (TLS 1.3, pins, limits, Task) ─▶ decode and check ─▶ InferAnswer
//!                    ▲ retry, deadline, breaker ▲ token
//! ```
//!
//! Beside it lies what a person wants to know before and after: what runs took (`history`), what was
//! spent (`spending`), and what was decided once for all (`policy`).
//!
//! Absent on purpose: redirects, cookies, plain http to other machines, loading models on a server,
//! any trust in what a server says about geometry, and any promise that a cancelled run has ended.

mod advisory;
mod certificate;
mod client;
mod endpoint;
mod error;
mod history;
mod look;
mod policy;
pub mod protocol;
mod retry;
mod secret;
mod service;
mod sign_in;
mod sigv4;
mod spending;
mod tls;
mod token;
mod transport;

pub use advisory::known_holes;
pub use certificate::Certificate;
pub use client::{Client, InferAnswer, Patience, random_id};
pub use endpoint::{Authorization, Binary, Endpoints, Pin, Price, Profile, ProfileError};
pub use error::Error;
pub use history::{History, Measured, Pace, pace, sending_rate, slowness_here};
pub use look::{Looked, look};
pub use policy::{FILE as POLICY_FILE, Policy, PolicyError, Prefer};
pub use protocol::{Datatype, InferRequest, InputTensor, OutputTensor, TensorData, WantedOutput};
pub use retry::{Attempts, Breaker, Budget};
pub use secret::{SecretPlace, Secrets};
pub use service::{Service, Tensors};
pub use spending::{Account, Limits, Spending, SpendingError, Spent};
pub use token::SignIn;

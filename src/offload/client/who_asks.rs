//! How the server knows who asks: tokens, fetched and renewed, and signatures.

use reqwest::Url;
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HeaderValue};

use super::super::Error;
use super::super::endpoint::Authorization;
use super::super::sign_in;
use super::super::sigv4::{self, Credentials, Scope, Signed};
use super::super::token::{Polling, Refusal, SignIn, Token, encoded, form, sign_in_of, token_of};
use super::super::transport::{self, Limits, Outgoing, Received};
use super::{Client, QUESTION_TIME, http_client, rest, tls_config};
use crate::redact::Sensitive;
use crate::task::Task;

/// Largest answer of a token server.
const TOKEN_BYTES: u64 = 256 * 1024;

/// What can be done where nobody has.
const SIGN_IN_FIRST: &str = "a person has to sign in first: test the server in Analysis, Model servers…, or with\n    `negatoscope endpoints test`";

/// What a signature is made of.
pub(super) struct Signable<'a> {
    pub(super) url: &'a Url,
    pub(super) kind: &'a str,
    /// SHA-256 in hex.
    pub(super) body: String,
}

/// A header that nobody prints.
fn secret_header(text: &str) -> Result<HeaderValue, Error> {
    let mut value = HeaderValue::from_str(text)
        .map_err(|_| Error::Token("it holds what no header can".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

impl Client {
    /// The header that says who asks; marked so that nobody prints it.
    pub(super) fn authorization(&self, task: &Task) -> Result<Option<HeaderValue>, Error> {
        let token = match &self.profile.authorization {
            // A signature is of a whole request; see `signed`.
            Authorization::None | Authorization::AwsSignature { .. } => return Ok(None),
            Authorization::Bearer { secret } => self.secrets.read(secret)?,
            Authorization::ClientCredentials { .. } | Authorization::Device { .. } => {
                self.current_token(task)?
            }
        };
        secret_header(&format!("Bearer {}", token.expose())).map(Some)
    }

    /// The request with AWS's signature, where the endpoint asks for it.
    pub(super) fn signed(
        &self,
        builder: reqwest::RequestBuilder,
        signable: &Signable<'_>,
    ) -> Result<reqwest::RequestBuilder, Error> {
        let Authorization::AwsSignature {
            region,
            access_key,
            secret_key,
            session_token,
        } = &self.profile.authorization
        else {
            return Ok(builder);
        };
        let who = Credentials {
            access_key: self.secrets.read(access_key)?,
            secret_key: self.secrets.read(secret_key)?,
        };
        let session = self.secrets.read_optional(session_token)?;
        let time = (self.clock)().format("%Y%m%dT%H%M%SZ").to_string();
        let host = signable.url.host_str().unwrap_or_default();
        let host = match signable.url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        let mut headers = vec![
            ("content-type", signable.kind),
            ("host", host.as_str()),
            ("x-amz-date", time.as_str()),
        ];
        if let Some(token) = &session {
            headers.push(("x-amz-security-token", token.expose()));
        }
        let request = Signed {
            method: "POST",
            path: signable.url.path(),
            query: "",
            headers: &headers,
            body: &signable.body,
        };
        let scope = Scope {
            region,
            service: "sagemaker",
        };
        let value = sigv4::authorization(&who, scope, request, &time);
        let mut builder = builder
            .header(AUTHORIZATION, secret_header(&value)?)
            .header("x-amz-date", &time);
        if let Some(token) = &session {
            builder = builder.header("x-amz-security-token", secret_header(token.expose())?);
        }
        Ok(builder)
    }

    /// A token that still holds: the one in hand, or a new one.
    fn current_token(&self, task: &Task) -> Result<Sensitive<String>, Error> {
        let mut held = self.held_token();
        if let Some(token) = held.as_ref()
            && token.holds(self.begun.elapsed())
        {
            return Ok(token.access.clone());
        }
        // What is in hand stays there until there is a newer one: the way there may be blocked for a while.
        let token = match &self.profile.authorization {
            Authorization::ClientCredentials {
                token_url,
                client_id,
                secret,
                scope,
            } => {
                let secret = self.secrets.read(secret)?;
                let fields = [("grant_type", "client_credentials"), ("scope", scope)];
                let who = Some((client_id.as_str(), &secret));
                self.fetch_token(token_url, &form(&fields), who, task)?
            }
            Authorization::Device {
                token_url,
                client_id,
                ..
            } => {
                // Another process may have a newer one than this.
                let refresh = sign_in::kept(&self.profile, &self.secrets)
                    .or_else(|| held.as_ref().and_then(|token| token.refresh.clone()));
                let Some(refresh) = refresh else {
                    return Err(Error::Token(SIGN_IN_FIRST.to_owned()));
                };
                let fields = [
                    ("grant_type", "refresh_token"),
                    ("refresh_token", refresh.expose()),
                    ("client_id", client_id),
                ];
                let received = self.post_form(token_url, &form(&fields), None, task)?;
                let told = token_of(received.status, &received.body, self.begun.elapsed());
                let mut token = match told {
                    Ok(token) => token,
                    // It has been withdrawn, or is too old: good for nothing.
                    Err(Refusal::Code(code)) if code == "invalid_grant" => {
                        *held = None;
                        sign_in::forget(&self.profile, &self.secrets);
                        return Err(Error::Token(SIGN_IN_FIRST.to_owned()));
                    }
                    Err(refusal) => return Err(Error::Token(refusal.words())),
                };
                match &token.refresh {
                    Some(newer) => sign_in::keep(&self.profile, &self.secrets, newer),
                    // A server that gives no new one lets us keep the old one (RFC 6749 section 6).
                    None => token.refresh = Some(refresh),
                }
                token
            }
            _ => return Err(Error::Token("this endpoint has none".to_owned())),
        };
        let access = token.access.clone();
        *held = Some(token);
        Ok(access)
    }

    /// Whether a person has to sign in before anything else.
    pub fn needs_sign_in(&self) -> bool {
        matches!(self.profile.authorization, Authorization::Device { .. })
            && self.held_token().is_none()
            && sign_in::kept(&self.profile, &self.secrets).is_none()
    }

    /// Signs a person in with a browser: `show` gets the code and the place to type it, then this
    /// waits until that is done. Later programs go on with it, where the system has a keyring.
    ///
    /// # Errors
    /// The profile knows no such way, the person refuses, or the code expires.
    pub fn sign_in(&self, mut show: impl FnMut(&SignIn), task: &Task) -> Result<(), Error> {
        let Authorization::Device {
            device_url,
            token_url,
            client_id,
            scope,
        } = &self.profile.authorization
        else {
            return Err(Error::Token(
                "this endpoint has no way to sign in".to_owned(),
            ));
        };
        let fields = [("client_id", client_id.as_str()), ("scope", scope)];
        let received = self.post_form(device_url, &form(&fields), None, task)?;
        let offered = sign_in_of(received.status, &received.body)
            .map_err(|refusal| Error::Token(refusal.words()))?;
        show(&offered);
        let mut polling = Polling::new(&offered, self.begun.elapsed());
        let fields = form(&[
            ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
            ("device_code", offered.device_code.expose()),
            ("client_id", client_id),
        ]);
        loop {
            rest(polling.wait(), "Waiting for the sign-in", task)?;
            let received = self.post_form(token_url, &fields, None, task)?;
            let now = self.begun.elapsed();
            match token_of(received.status, &received.body, now) {
                Ok(token) => {
                    if let Some(refresh) = &token.refresh {
                        sign_in::keep(&self.profile, &self.secrets, refresh);
                    }
                    *self.held_token() = Some(token);
                    return Ok(());
                }
                Err(refusal) => polling.after(&refusal, now).map_err(Error::Token)?,
            }
        }
    }

    pub(super) fn held_token(&self) -> std::sync::MutexGuard<'_, Option<Token>> {
        self.token
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Makes the token in hand count as too old; `false` when there is none that could be renewed.
    pub(super) fn forget_token(&self) -> bool {
        match (&self.profile.authorization, &mut *self.held_token()) {
            (Authorization::ClientCredentials { .. }, held) => held.take().is_some(),
            (Authorization::Device { .. }, Some(token)) if token.refresh.is_some() => {
                token.expire();
                true
            }
            _ => false,
        }
    }

    fn fetch_token(
        &self,
        url: &str,
        fields: &[u8],
        who: Option<(&str, &Sensitive<String>)>,
        task: &Task,
    ) -> Result<Token, Error> {
        let received = self.post_form(url, fields, who, task)?;
        token_of(received.status, &received.body, self.begun.elapsed())
            .map_err(|refusal| Error::Token(refusal.words()))
    }

    /// Posts a form to a token server, whatever it answers. The pins of the endpoint are not its.
    fn post_form(
        &self,
        url: &str,
        fields: &[u8],
        who: Option<(&str, &Sensitive<String>)>,
        task: &Task,
    ) -> Result<Received, Error> {
        let url = self.profile.parsed_url(url)?;
        let (config, _) = tls_config(&self.profile, &url, &[])?;
        let http = http_client(config, &url, self.patience.connect)?;
        let mut builder = http
            .post(url)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(ACCEPT, "application/json")
            .header(ACCEPT_ENCODING, "identity");
        if let Some((id, secret)) = who {
            // RFC 6749 section 2.3.1: both are encoded as in a form first.
            builder = builder.basic_auth(encoded(id), Some(encoded(secret.expose())));
        }
        let outgoing = Outgoing {
            from: Box::new(fields),
            length: fields.len() as u64,
        };
        let limits = Limits {
            idle: QUESTION_TIME,
            time: QUESTION_TIME,
            answer_bytes: TOKEN_BYTES,
        };
        transport::exchange(self.runtime(), builder, Some(outgoing), limits, task)
    }
}

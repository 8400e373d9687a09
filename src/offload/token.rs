//! Tokens of OAuth 2.0: what is asked of a token server, what its answer means, and when a token is
//! too old. No network and no clock here. A token is in no log, no error and no `Debug`.

use std::time::Duration;

use serde::Deserialize;

use super::protocol::{MAX_JSON_DEPTH, cleaned, depth_of};
use crate::redact::Sensitive;

/// A token is renewed so long before it expires.
const MARGIN: Duration = Duration::from_mins(1);

/// Words of a form's body.
pub(super) fn form(fields: &[(&str, &str)]) -> Vec<u8> {
    let pairs: Vec<String> = fields
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("{name}={}", encoded(value)))
        .collect();
    pairs.join("&").into_bytes()
}

/// Percent-encoding of everything that is not unreserved (RFC 3986 section 2.3).
pub(super) fn encoded(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut all, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            all.push(byte.into());
        } else {
            let _ = write!(all, "%{byte:02X}");
        }
        all
    })
}

/// A token in hand.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) access: Sensitive<String>,
    pub(super) refresh: Option<Sensitive<String>>,
    /// From when on it is renewed; `None` when nobody said how long it holds.
    renew_at: Option<Duration>,
}

impl Token {
    /// Whether it still holds at `now`, with time to spare.
    pub(super) fn holds(&self, now: Duration) -> bool {
        self.renew_at.is_none_or(|at| now < at)
    }

    /// Makes it count as too old.
    pub(super) fn expire(&mut self) {
        self.renew_at = Some(Duration::ZERO);
    }
}

/// Why a token server gave no token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Its code (RFC 6749 section 5.2, RFC 8628 section 3.5).
    Code(String),
    /// Its answer cannot be read.
    Unreadable,
}

impl Refusal {
    /// For people.
    pub(super) fn words(&self) -> String {
        match self {
            Self::Code(code) => format!("the token server says {code}"),
            Self::Unreadable => "the token server's answer cannot be read".to_owned(),
        }
    }
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    token_type: String,
    expires_in: Option<f64>,
    refresh_token: Option<String>,
}

fn read<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Result<T, Refusal> {
    // What serde says of a bad answer might quote the token.
    (depth_of(body) <= MAX_JSON_DEPTH)
        .then(|| serde_json::from_slice(body).ok())
        .flatten()
        .ok_or(Refusal::Unreadable)
}

fn refusal(body: &[u8]) -> Refusal {
    #[derive(Deserialize)]
    struct Refused {
        error: String,
    }
    match read::<Refused>(body) {
        // The code alone: a description may repeat what was sent.
        Ok(refused) => Refusal::Code(cleaned(&refused.error, 40)),
        Err(unreadable) => unreadable,
    }
}

fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds.min(1e8)).unwrap_or_default()
}

/// The token in a token server's answer.
pub(super) fn token_of(status: u16, body: &[u8], now: Duration) -> Result<Token, Refusal> {
    if !(200..300).contains(&status) {
        return Err(refusal(body));
    }
    let granted: Granted = read(body)?;
    let is_plain = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
    if !granted.token_type.eq_ignore_ascii_case("bearer") || !is_plain(&granted.access_token) {
        return Err(Refusal::Unreadable);
    }
    let renew_at = granted.expires_in.map(|seconds| {
        let holds = duration(seconds);
        // One that holds for less than two minutes is used for half of its time.
        now + holds.saturating_sub(MARGIN).max(holds / 2)
    });
    Ok(Token {
        access: granted.access_token.into(),
        refresh: granted
            .refresh_token
            .filter(|t| is_plain(t))
            .map(Sensitive::new),
        renew_at,
    })
}

/// What a person needs to sign in with a browser (RFC 8628 section 3.2).
#[derive(Clone, Debug)]
pub struct SignIn {
    /// Shown to nobody.
    pub(super) device_code: Sensitive<String>,
    /// What the person types there.
    pub user_code: String,
    /// Where.
    pub verification_uri: String,
    /// For how long the code holds.
    pub expires_in: Duration,
    pub(super) interval: Duration,
}

/// The code in a device server's answer.
pub(super) fn sign_in_of(status: u16, body: &[u8]) -> Result<SignIn, Refusal> {
    #[derive(Deserialize)]
    struct Offered {
        device_code: String,
        user_code: String,
        verification_uri: String,
        expires_in: f64,
        interval: Option<f64>,
    }
    if !(200..300).contains(&status) {
        return Err(refusal(body));
    }
    let offered: Offered = read(body)?;
    let is_web = reqwest::Url::parse(&offered.verification_uri)
        .is_ok_and(|url| matches!(url.scheme(), "https" | "http"));
    if !is_web {
        return Err(Refusal::Unreadable);
    }
    Ok(SignIn {
        device_code: offered.device_code.into(),
        user_code: cleaned(&offered.user_code, 40),
        verification_uri: cleaned(&offered.verification_uri, 300),
        expires_in: duration(offered.expires_in),
        interval: duration(offered.interval.unwrap_or(5.0)).max(Duration::from_secs(1)),
    })
}

/// Asking again and again whether the person has signed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Polling {
    interval: Duration,
    until: Duration,
}

impl Polling {
    pub(super) fn new(offered: &SignIn, now: Duration) -> Self {
        Self {
            interval: offered.interval,
            until: now + offered.expires_in,
        }
    }

    /// How long to wait before asking (again).
    pub(super) const fn wait(&self) -> Duration {
        self.interval
    }

    /// What a refusal means: go on, or the reason to stop.
    pub(super) fn after(&mut self, refusal: &Refusal, now: Duration) -> Result<(), String> {
        match refusal {
            Refusal::Code(code) if code == "authorization_pending" => {}
            Refusal::Code(code) if code == "slow_down" => {
                self.interval += Duration::from_secs(5);
            }
            Refusal::Code(code) if code == "access_denied" => {
                return Err("signing in was refused".to_owned());
            }
            Refusal::Code(code) if code == "expired_token" => {
                return Err("the code has expired".to_owned());
            }
            other => return Err(other.words()),
        }
        if now + self.interval >= self.until {
            return Err("the code has expired".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn a_token_is_renewed_a_minute_before_it_expires() {
        let token = |expires: &str| {
            let body =
                format!(r#"{{"access_token":"abc","token_type":"Bearer","scope":"x"{expires}}}"#);
            token_of(200, body.as_bytes(), S(1000)).unwrap()
        };
        let hour = token(r#","expires_in":3600"#);
        assert!(hour.holds(S(1000)) && hour.holds(S(4539)));
        assert!(!hour.holds(S(4540)));
        let short = token(r#","expires_in":60"#);
        assert!(short.holds(S(1029)) && !short.holds(S(1030)));
        assert!(token("").holds(S(1_000_000)));
        assert!(!token(r#","expires_in":-5"#).holds(S(1000)));
        assert!(token(r#","expires_in":1e300"#).holds(S(1_000_000)));
    }

    #[test]
    fn answers_that_are_no_tokens_are_refused_without_quoting_them() {
        let check = |status, body: &str| {
            let refusal = token_of(status, body.as_bytes(), S(0)).unwrap_err();
            assert!(!refusal.words().contains("s3cr3t"), "{refusal:?}");
            refusal
        };
        let code = |code: &str| Refusal::Code(code.to_owned());
        assert_eq!(
            check(
                401,
                r#"{"error":"invalid_client","error_description":"s3cr3t"}"#
            ),
            code("invalid_client")
        );
        assert_eq!(check(500, "<html>s3cr3t"), Refusal::Unreadable);
        for body in [
            "",
            "{}",
            r#"{"access_token":"s3cr3t"}"#,
            r#"{"access_token":"s3cr3t","token_type":"mac"}"#,
            r#"{"access_token":"s3cr3t\r\nX: y","token_type":"bearer"}"#,
            r#"{"access_token":"","token_type":"bearer"}"#,
        ] {
            assert_eq!(check(200, body), Refusal::Unreadable, "{body}");
        }
    }

    #[test]
    fn a_token_never_prints() {
        let body = br#"{"access_token":"s3cr3t","refresh_token":"s3cr3t2","token_type":"bearer"}"#;
        let token = token_of(200, body, S(0)).unwrap();
        assert_eq!(token.access.expose(), "s3cr3t");
        assert!(!format!("{token:?}").contains("s3cr3t"));
    }

    fn offered() -> SignIn {
        sign_in_of(
            200,
            br#"{"device_code":"s3cr3t","user_code":"WDJB-MJHT","verification_uri":"https://login.example/device","expires_in":60,"interval":5}"#,
        )
        .unwrap()
    }

    /// RFC 8628, 3.5.
    #[test]
    fn signing_in_goes_on_slows_down_and_ends() {
        let code = |code: &str| Refusal::Code(code.to_owned());
        let mut polling = Polling::new(&offered(), S(100));
        assert_eq!(polling.wait(), S(5));
        polling
            .after(&code("authorization_pending"), S(105))
            .unwrap();
        assert_eq!(polling.wait(), S(5));
        polling.after(&code("slow_down"), S(110)).unwrap();
        polling.after(&code("slow_down"), S(120)).unwrap();
        assert_eq!(polling.wait(), S(15));
        for end in ["access_denied", "expired_token", "invalid_grant"] {
            assert!(polling.clone().after(&code(end), S(125)).is_err());
        }
        assert!(
            polling
                .after(&code("authorization_pending"), S(145))
                .is_err()
        );
        assert!(!format!("{:?}", offered()).contains("s3cr3t"));
    }

    #[test]
    fn a_place_to_sign_in_that_is_no_web_page_is_refused() {
        for uri in ["javascript:alert(1)", "file:///etc/passwd", "nowhere"] {
            let body = format!(
                r#"{{"device_code":"a","user_code":"b","verification_uri":"{uri}","expires_in":60}}"#
            );
            assert!(sign_in_of(200, body.as_bytes()).is_err());
        }
    }

    #[test]
    fn forms_are_encoded() {
        assert_eq!(
            form(&[
                ("grant_type", "client_credentials"),
                ("scope", ""),
                ("x", "a b&c=ü")
            ]),
            b"grant_type=client_credentials&x=a%20b%26c%3D%C3%BC"
        );
    }
}

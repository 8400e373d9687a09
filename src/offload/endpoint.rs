//! Profiles of model servers, kept in one file of the program's home. No secret is ever in it: a
//! profile says where its secret is.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use reqwest::Url;
use serde::{Deserialize, Serialize};

use super::protocol::is_plain_name;
use super::secret::{SecretPlace, Secrets};
use super::service::{Service, Tensors};
use super::sign_in;
use crate::whole_file;

/// Largest file of profiles that is read.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Why profiles were not read, written or accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProfileError {
    /// A name that a file or a command line could misread.
    #[error("an endpoint's name holds letters, digits, dots, dashes and underscores: {0:?}")]
    Name(String),
    /// A name that is taken.
    #[error("there is already an endpoint {0:?}")]
    Taken(String),
    /// A name that nobody has.
    #[error("there is no endpoint {0:?}")]
    Unknown(String),
    /// A URL that cannot be used.
    #[error("the URL of endpoint {name:?} {why}")]
    Url {
        /// The endpoint.
        name: String,
        /// What is wrong with it; never the URL itself, which might hold a password.
        why: &'static str,
    },
    /// Another setting that cannot be used.
    #[error("endpoint {name:?}: {why}")]
    Setting {
        /// The endpoint.
        name: String,
        /// What is wrong.
        why: &'static str,
    },
    /// A pin that is no SHA-256.
    #[error("a pin is a SHA-256 in 64 hex digits or 44 of base64, found {0} characters")]
    Pin(usize),
    /// The file is not TOML, or holds what no profile has.
    #[error("the file of endpoints cannot be understood: {}", path.display())]
    Content {
        /// Where and what.
        #[source]
        source: Box<toml::de::Error>,
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read or written.
    #[error("{action} the file of endpoints failed: {}", path.display())]
    File {
        /// `reading`, `writing`, `locking`.
        action: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
        /// The file.
        path: PathBuf,
    },
}

/// SHA-256 of a certificate's public key (its `SubjectPublicKeyInfo`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pin(pub [u8; 32]);

impl Pin {
    /// The pin of a public key's DER.
    pub fn of(public_key_info: &[u8]) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, public_key_info);
        Self(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl From<Pin> for String {
    fn from(pin: Pin) -> Self {
        pin.to_string()
    }
}

impl TryFrom<String> for Pin {
    type Error = ProfileError;
    fn try_from(text: String) -> Result<Self, ProfileError> {
        text.parse()
    }
}

impl FromStr for Pin {
    type Err = ProfileError;
    /// Hex, or base64 as other tools print it (`sha256//…`, `sha256/…`, `sha256:…`).
    fn from_str(text: &str) -> Result<Self, ProfileError> {
        let trimmed = text.trim();
        let bare = ["sha256//", "sha256/", "sha256:"]
            .iter()
            .find_map(|prefix| trimmed.strip_prefix(prefix))
            .unwrap_or(trimmed);
        from_hex(bare)
            .or_else(|| from_base64(bare))
            .map(Self)
            .ok_or(ProfileError::Pin(text.chars().count()))
    }
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|&c| c != ':')
        .map(|c| c.to_digit(16).map(|d| d as u8))
        .collect::<Option<_>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    let bytes: Vec<u8> = pairs.iter().map(|[a, b]| a << 4 | b).collect();
    rest.is_empty().then(|| bytes.try_into().ok()).flatten()
}

fn from_base64(text: &str) -> Option<[u8; 32]> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let text = text.strip_suffix('=').unwrap_or(text);
    let (mut bits, mut held) = (0_u32, 0);
    let mut bytes = Vec::new();
    for c in text.bytes() {
        let digit = DIGITS.iter().position(|&d| d == c)? as u32;
        bits = bits << 6 | digit;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    (bits == 0).then(|| bytes.try_into().ok()).flatten()
}

/// How the server knows who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Authorization {
    /// Not at all, or by the client certificate.
    #[default]
    None,
    /// A token that somebody gave.
    Bearer {
        /// Where it is.
        secret: SecretPlace,
    },
    /// OAuth 2.0 client credentials (RFC 6749 section 4.4): for stations without a person.
    ClientCredentials {
        /// Where tokens come from; https, as the endpoint itself.
        token_url: String,
        /// Who asks.
        client_id: String,
        /// Its secret.
        secret: SecretPlace,
        /// What for.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        scope: String,
    },
    /// AWS Signature Version 4.
    AwsSignature {
        /// `eu-central-1`.
        region: String,
        /// Where the id of the access key is.
        access_key: SecretPlace,
        /// Where the key itself is.
        secret_key: SecretPlace,
        /// Where the token of temporary keys is; none is sent where that place is empty.
        session_token: SecretPlace,
    },
    /// OAuth 2.0 device flow (RFC 8628): a person signs in with a browser.
    Device {
        /// Where the code comes from.
        device_url: String,
        /// Where tokens come from.
        token_url: String,
        /// Who asks.
        client_id: String,
        /// What for.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        scope: String,
    },
}

/// Whether tensors go as bytes or as JSON numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Binary {
    /// As bytes.
    Yes,
    /// As JSON.
    No,
    /// As bytes where the server announces them, else as JSON.
    #[default]
    Probe,
}

/// What a run costs there. Zero where it costs nothing, or nobody said.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Price {
    /// ISO 4217, or whatever the person wrote.
    pub currency: String,
    /// For a second of computing.
    pub per_gpu_second: f64,
    /// For 10⁹ bytes, sent or received.
    pub per_gigabyte: f64,
    /// For each request.
    pub per_request: f64,
}

impl Price {
    /// What an exchange costs.
    pub fn of(&self, requests: u64, bytes: u64, gpu_secs: f64) -> f64 {
        requests as f64 * self.per_request
            + bytes as f64 / 1e9 * self.per_gigabyte
            + gpu_secs * self.per_gpu_second
    }

    /// Whether anything costs something.
    pub fn is_free(&self) -> bool {
        self.per_request == 0.0 && self.per_gigabyte == 0.0 && self.per_gpu_second == 0.0
    }
}

/// A model server, and how to speak with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// What people call it.
    pub name: String,
    /// Where it is; paths of the protocol are appended, where the service has any.
    pub url: String,
    /// Which service runs it.
    #[serde(default)]
    pub service: Service,
    /// What its model takes and gives, where the service cannot be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tensors: Option<Tensors>,
    /// Certificates of its authority (PEM), in place of the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// Our certificate (PEM, leaf first); needs the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<PathBuf>,
    /// Its private key (PEM).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_key: Option<PathBuf>,
    /// Public keys of which one must be in the verified chain. Empty: no pinning.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pins: Vec<Pin>,
    /// Largest body that the server takes.
    #[serde(default = "Profile::usual_request_bytes")]
    pub max_request_bytes: u64,
    /// Largest answer that is read, after decompression.
    #[serde(default = "Profile::usual_answer_bytes")]
    pub max_answer_bytes: u64,
    /// Longest time for one request with all its attempts.
    #[serde(default = "Profile::usual_deadline_secs")]
    pub deadline_secs: u64,
    /// Bytes or JSON.
    #[serde(default)]
    pub binary: Binary,
    /// Whether the server takes and gives gzip.
    #[serde(default)]
    pub gzip: bool,
    /// Where it computes, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub region: String,
    /// What the operator keeps and for how long, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub retention: String,
    /// Models that may be asked there; empty: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
    /// Whether plain http is allowed, to this machine alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_insecure_loopback: bool,
    /// Whether a person has agreed to all that is sent there, as long as nothing about it is doubtful.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub without_asking: bool,
    /// How the server knows who asks.
    #[serde(default)]
    pub authorization: Authorization,
    /// What a run costs.
    #[serde(default)]
    pub price: Price,
}

impl Profile {
    /// 64 MiB: what Triton takes unless told otherwise.
    const fn usual_request_bytes() -> u64 {
        64 << 20
    }

    const fn usual_answer_bytes() -> u64 {
        1 << 30
    }

    const fn usual_deadline_secs() -> u64 {
        600
    }

    /// A profile with nothing but a name and a URL.
    pub fn new(name: &str, url: &str) -> Self {
        Self {
            name: name.to_owned(),
            url: url.to_owned(),
            service: Service::default(),
            tensors: None,
            ca: None,
            client_certificate: None,
            client_key: None,
            pins: Vec::new(),
            max_request_bytes: Self::usual_request_bytes(),
            max_answer_bytes: Self::usual_answer_bytes(),
            deadline_secs: Self::usual_deadline_secs(),
            binary: Binary::default(),
            gzip: false,
            region: String::new(),
            retention: String::new(),
            models: Vec::new(),
            allow_insecure_loopback: false,
            without_asking: false,
            authorization: Authorization::None,
            price: Price::default(),
        }
    }

    /// Whether everything in it can be used; files and names are not looked up.
    ///
    /// # Errors
    /// The first thing that cannot.
    pub fn check(&self) -> Result<(), ProfileError> {
        if !is_plain_name(&self.name) {
            return Err(ProfileError::Name(self.name.clone()));
        }
        let setting = |why| {
            Err(ProfileError::Setting {
                name: self.name.clone(),
                why,
            })
        };
        self.parsed_url(&self.url)?;
        if self.client_certificate.is_some() != self.client_key.is_some() {
            return setting("a client certificate needs its key, and a key its certificate");
        }
        let limit = i64::MAX as u64;
        if !(1..=limit).contains(&self.max_request_bytes)
            || !(1..=limit).contains(&self.max_answer_bytes)
            || !(1..=86_400).contains(&self.deadline_secs)
        {
            return setting("limits are above zero, and a deadline is at most a day");
        }
        let prices = [
            self.price.per_gpu_second,
            self.price.per_gigabyte,
            self.price.per_request,
        ];
        if !prices
            .iter()
            .all(|price| price.is_finite() && *price >= 0.0)
        {
            return setting("a price is zero or more");
        }
        if !self.models.iter().all(|model| is_plain_name(model)) {
            return setting("a model's name holds letters, digits, dots, dashes and underscores");
        }
        if !self.service.tells() && (self.tensors.is_none() || self.models.len() != 1) {
            return setting(
                "this service tells nothing: give its one model, its input and its output",
            );
        }
        if self.gzip && !self.service.may_compress() {
            return setting("this service takes no gzip");
        }
        let signs = matches!(self.authorization, Authorization::AwsSignature { .. });
        if signs != matches!(self.service, Service::Sagemaker { .. }) {
            return setting("SageMaker is asked with an AWS signature, and nobody else is");
        }
        let plain = |text: &str| text.is_empty() || is_plain_name(text);
        let named = match &self.service {
            Service::Sagemaker { target_model } => plain(target_model),
            Service::AzureMl { deployment } => plain(deployment),
            Service::OpenInference | Service::VertexAi => true,
        };
        if !named {
            return setting(
                "a deployment's name holds letters, digits, dots, dashes and underscores",
            );
        }
        let (urls, id, secrets) = match &self.authorization {
            Authorization::None => return Ok(()),
            Authorization::Bearer { secret } => (vec![], None, vec![secret]),
            Authorization::AwsSignature {
                region,
                access_key,
                secret_key,
                session_token,
            } => (
                vec![],
                Some(region),
                vec![access_key, secret_key, session_token],
            ),
            Authorization::ClientCredentials {
                token_url,
                client_id,
                secret,
                ..
            } => (vec![token_url], Some(client_id), vec![secret]),
            Authorization::Device {
                device_url,
                token_url,
                client_id,
                ..
            } => (vec![device_url, token_url], Some(client_id), vec![]),
        };
        for url in urls {
            self.parsed_url(url)?;
        }
        if id.is_some_and(String::is_empty) {
            return setting("the client id, or the region, is empty");
        }
        if secrets.iter().any(|place| !place.is_plain()) {
            return setting(
                "the name of the variable with the secret holds capital letters, digits and underscores",
            );
        }
        Ok(())
    }

    /// One of the profile's URLs, if it can be used: https, or http to this machine where that is
    /// allowed; nothing that hides a password or a query.
    pub(super) fn parsed_url(&self, text: &str) -> Result<Url, ProfileError> {
        let refuse = |why| {
            Err(ProfileError::Url {
                name: self.name.clone(),
                why,
            })
        };
        let Ok(url) = Url::parse(text) else {
            return refuse("cannot be read");
        };
        if url.host_str().is_none_or(str::is_empty) || url.cannot_be_a_base() {
            return refuse("names no host");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return refuse("holds a user or a password; secrets have a place of their own");
        }
        if url.query().is_some() || url.fragment().is_some() {
            return refuse("holds a query or a fragment");
        }
        match url.scheme() {
            "https" => Ok(url),
            "http" if self.allow_insecure_loopback => Ok(url),
            "http" => {
                refuse("is not https; plain http is for this machine alone and must be allowed")
            }
            _ => refuse("is neither https nor http"),
        }
    }
}

/// All profiles of a home folder.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoints {
    #[serde(default, rename = "endpoint", skip_serializing_if = "Vec::is_empty")]
    all: Vec<Profile>,
}

impl Endpoints {
    /// Reads and checks the profiles; an absent file holds none.
    ///
    /// # Errors
    /// The file cannot be read or understood, or a profile in it cannot be used. Then none is: a
    /// profile that is half understood could lead data to the wrong place.
    pub fn load(home: &Path) -> Result<Self, ProfileError> {
        let path = file_of(home);
        let failed = |source| ProfileError::File {
            action: "reading",
            source,
            path: path.clone(),
        };
        let Some(text) = small_text(&path, MAX_FILE_BYTES).map_err(failed)? else {
            return Ok(Self::default());
        };
        let endpoints: Self = toml::from_str(&text).map_err(|source| ProfileError::Content {
            source: Box::new(source),
            path: path.clone(),
        })?;
        for (n, profile) in endpoints.all.iter().enumerate() {
            profile.check()?;
            if endpoints.all[..n].iter().any(|p| p.name == profile.name) {
                return Err(ProfileError::Taken(profile.name.clone()));
            }
        }
        Ok(endpoints)
    }

    /// All of them, as they were added.
    pub fn all(&self) -> &[Profile] {
        &self.all
    }

    /// The profile of that name.
    ///
    /// # Errors
    /// There is none.
    pub fn find(&self, name: &str) -> Result<&Profile, ProfileError> {
        self.all
            .iter()
            .find(|profile| profile.name == name)
            .ok_or_else(|| ProfileError::Unknown(name.to_owned()))
    }

    /// Adds a profile to the file.
    ///
    /// # Errors
    /// It cannot be used, its name is taken, or the file cannot be changed.
    pub fn add(home: &Path, profile: Profile) -> Result<(), ProfileError> {
        profile.check()?;
        Self::change(home, |endpoints| {
            if endpoints.find(&profile.name).is_ok() {
                return Err(ProfileError::Taken(profile.name.clone()));
            }
            endpoints.all.push(profile);
            Ok(())
        })
    }

    /// Takes a profile out of the file and gives it back; a person's sign-in there is forgotten.
    ///
    /// # Errors
    /// There is none of that name, or the file cannot be changed.
    pub fn remove(home: &Path, name: &str) -> Result<Profile, ProfileError> {
        let mut removed = None;
        Self::change(home, |endpoints| {
            let at = endpoints.all.iter().position(|p| p.name == name);
            let at = at.ok_or_else(|| ProfileError::Unknown(name.to_owned()))?;
            removed = Some(endpoints.all.remove(at));
            Ok(())
        })?;
        let removed = removed.expect("a change that succeeded removed one");
        sign_in::forget(&removed, &Secrets::of_environment());
        Ok(removed)
    }

    /// Sets whether things are sent there without asking.
    ///
    /// # Errors
    /// There is none of that name, or the file cannot be changed.
    pub fn set_without_asking(home: &Path, name: &str, is_so: bool) -> Result<(), ProfileError> {
        Self::change(home, |endpoints| {
            let profile = endpoints.all.iter_mut().find(|p| p.name == name);
            profile
                .ok_or_else(|| ProfileError::Unknown(name.to_owned()))?
                .without_asking = is_so;
            Ok(())
        })
    }

    /// Reads, changes and writes, one process at a time.
    fn change(
        home: &Path,
        change: impl FnOnce(&mut Self) -> Result<(), ProfileError>,
    ) -> Result<(), ProfileError> {
        let path = file_of(home);
        let failed = |action| {
            let path = path.clone();
            move |source| ProfileError::File {
                action,
                source,
                path,
            }
        };
        fs::create_dir_all(home).map_err(failed("writing"))?;
        let lock = File::create(path.with_extension("lock")).map_err(failed("locking"))?;
        // Advisory and released with the handle.
        lock.lock().map_err(failed("locking"))?;
        let mut endpoints = Self::load(home)?;
        change(&mut endpoints)?;
        let text = toml::to_string_pretty(&endpoints)
            .map_err(|e| failed("writing")(io::Error::other(e)))?;
        whole_file::write(&path, |to| to.write_all(text.as_bytes())).map_err(failed("writing"))
    }
}

/// Text of a file of settings; `None` where there is none.
///
/// # Errors
/// It cannot be read, or is longer than anybody writes.
pub(super) fn small_text(path: &Path, most_bytes: u64) -> io::Result<Option<String>> {
    match fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Ok(about) if about.len() > most_bytes => Err(io::ErrorKind::FileTooLarge.into()),
        _ => fs::read_to_string(path).map(Some),
    }
}

fn file_of(home: &Path) -> PathBuf {
    home.join("endpoints.toml")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Profile {
        Profile {
            ca: Some("/etc/hospital-ca.pem".into()),
            client_certificate: Some("c.pem".into()),
            client_key: Some("k.pem".into()),
            pins: vec![Pin([0xab; 32]), Pin([1; 32])],
            authorization: Authorization::ClientCredentials {
                token_url: "https://login.example/token".to_owned(),
                client_id: "station-7".to_owned(),
                secret: SecretPlace::environment("OFFLOAD_SECRET"),
                scope: "infer".to_owned(),
            },
            binary: Binary::Yes,
            gzip: true,
            price: Price {
                currency: "EUR".to_owned(),
                per_gpu_second: 0.0005,
                ..Price::default()
            },
            models: vec!["liver-ct".to_owned()],
            ..Profile::new("gpu", "https://models.example:8443/v2root/")
        }
    }

    #[test]
    fn profiles_survive_a_round_trip_through_the_file() {
        let home = tempfile::tempdir().unwrap();
        assert_eq!(Endpoints::load(home.path()).unwrap().all(), []);
        let plain = Profile::new("plain", "https://a.example");
        Endpoints::add(home.path(), full()).unwrap();
        Endpoints::add(home.path(), plain.clone()).unwrap();
        let read = Endpoints::load(home.path()).unwrap();
        assert_eq!(read.all(), [full(), plain]);
        assert_eq!(read.find("gpu").unwrap(), &full());
        let taken = Endpoints::add(home.path(), full()).unwrap_err();
        assert!(matches!(taken, ProfileError::Taken(_)));
        assert_eq!(Endpoints::remove(home.path(), "gpu").unwrap(), full());
        assert!(Endpoints::remove(home.path(), "gpu").is_err());
        assert_eq!(Endpoints::load(home.path()).unwrap().all().len(), 1);
    }

    #[test]
    fn pins_are_hex_or_base64() {
        // SHA-256 of nothing.
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let base64 = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
        let pin: Pin = hex.parse().unwrap();
        assert_eq!(pin, Pin::of(b""));
        assert_eq!(pin.to_string(), hex);
        assert_eq!(base64.parse::<Pin>().unwrap(), pin);
        assert_eq!(format!("sha256//{base64}").parse::<Pin>().unwrap(), pin);
        for wrong in ["", "e3b0", &hex[1..], &base64[1..], "zz"] {
            assert!(wrong.parse::<Pin>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn urls_that_could_leak_or_mislead_are_refused() {
        let check = |url: &str| Profile::new("x", url).check();
        assert!(check("https://models.example/prefix/").is_ok());
        for wrong in [
            "http://models.example",
            "http://127.0.0.1:8000",
            "https://user:password@models.example",
            "https://token@models.example",
            "https://models.example/?key=1",
            "https://models.example/#x",
            "ftp://models.example",
            "file:///etc/passwd",
            "models.example",
            "https://",
            "",
        ] {
            let error = check(wrong).unwrap_err().to_string();
            assert!(!error.contains("password@"), "{error}");
        }
    }

    #[test]
    fn settings_that_cannot_be_used_are_refused() {
        let refused = |change: fn(&mut Profile)| {
            let mut profile = full();
            change(&mut profile);
            assert!(profile.check().is_err(), "{profile:?}");
        };
        assert!(full().check().is_ok());
        refused(|p| p.name = "../x".into());
        refused(|p| p.client_key = None);
        refused(|p| p.max_request_bytes = 0);
        refused(|p| p.deadline_secs = 100_000);
        refused(|p| p.price.per_request = f64::NAN);
        refused(|p| p.models.push("a/b".into()));
        refused(|p| p.service = Service::VertexAi);
        refused(|p| {
            p.gzip = false;
            p.service = Service::Sagemaker {
                target_model: String::new(),
            };
            p.tensors = Some(Tensors::default());
        });
        refused(|p| {
            p.service = Service::AzureMl {
                deployment: "a\r\nb".into(),
            };
        });
        refused(|p| {
            p.authorization = Authorization::Bearer {
                secret: SecretPlace::environment("my token"),
            };
        });
        refused(|p| {
            p.authorization = Authorization::Device {
                device_url: "http://login.example/device".into(),
                token_url: "https://login.example/token".into(),
                client_id: "x".into(),
                scope: String::new(),
            };
        });
    }

    #[test]
    fn a_file_with_words_that_nobody_knows_is_refused_whole() {
        let home = tempfile::tempdir().unwrap();
        let good = "[[endpoint]]\nname = 'a'\nurl = 'https://a.example'\n";
        let check = |text: &str| {
            fs::write(file_of(home.path()), text).unwrap();
            Endpoints::load(home.path()).map(|e| e.all().len())
        };
        assert_eq!(check(good).unwrap(), 1);
        for wrong in [
            format!("{good}verify = false\n"),
            format!("{good}{good}"),
            format!("{good}pins = ['12']\n"),
            format!("{good}token = 'secret'\n"),
            format!("{good}[endpoint.authorization]\nkind = 'bearer'\nsecret = 'abc'\n"),
            good.replace("https", "http"),
            "endpoint = 3".to_owned(),
            "\u{0}".to_owned(),
        ] {
            assert!(check(&wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn writers_at_the_same_time_lose_nothing() {
        let home = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for n in 0..8 {
                let home = home.path();
                scope.spawn(move || {
                    let profile = Profile::new(&format!("e{n}"), "https://a.example");
                    Endpoints::add(home, profile).unwrap();
                });
            }
        });
        assert_eq!(Endpoints::load(home.path()).unwrap().all().len(), 8);
    }
}

//! Who published a package: an Ed25519 signature (RFC 8032) over its manifest and card.
//!
//! The manifest holds the SHA-256 of the weights, so the signature covers them too.

use std::path::{Path, PathBuf};

use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use super::package::{PackageFiles, sha256_hex};
use crate::whole_file;

/// Name of the file beside the manifest.
pub const SIGNATURE_FILE: &str = "signature.json";
/// Keeps signatures of packages from being taken for signatures of anything else.
const CONTEXT: &str = "negatoscope-package-signature/1";

/// A signature as it stands beside a package.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// What the publisher calls itself; whether to believe it says the list of known publishers.
    pub publisher: String,
    /// Ed25519 public key, 64 hex digits.
    pub public_key: String,
    /// Ed25519 signature, 128 hex digits.
    pub signature: String,
}

/// A publisher that this machine knows.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publisher {
    /// As the person who trusts it calls it.
    pub name: String,
    /// Ed25519 public key, 64 hex digits.
    pub public_key: String,
}

/// What is known of where a package comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A part of this program.
    Bundled,
    /// Nobody vouches for it.
    Unsigned,
    /// Signed, by a key that this machine does not know; the publisher's own words.
    UnknownPublisher(Signature),
    /// Signed by a publisher that this machine knows, under the name that it has here.
    Known(Publisher),
}

impl Origin {
    /// For people: "unsigned", "signed by …".
    pub fn words(&self) -> String {
        match self {
            Self::Bundled => "bundled".to_owned(),
            Self::Unsigned => "unsigned".to_owned(),
            Self::UnknownPublisher(s) => {
                format!(
                    "signed by an unknown publisher that calls itself {:?}",
                    s.publisher
                )
            }
            Self::Known(p) => format!("signed by {}", p.name),
        }
    }

    /// The key that has signed it.
    pub fn public_key(&self) -> Option<&str> {
        match self {
            Self::Bundled | Self::Unsigned => None,
            Self::UnknownPublisher(s) => Some(&s.public_key),
            Self::Known(p) => Some(&p.public_key),
        }
    }
}

/// Why a signature cannot be made or believed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// A signature that is none, or of other files.
    #[error(
        "the signature does not fit the package: the files were changed after they were signed, or belong to another package"
    )]
    Wrong,
    /// Not the form of a signature.
    #[error("the signature cannot be read, {0}")]
    Form(String),
    /// Not the form of a key.
    #[error("not an Ed25519 key in PKCS#8: {0}")]
    Key(PathBuf),
    /// No random numbers.
    #[error("the system gave no random numbers")]
    Random,
    /// The system refused.
    #[error("could not be read or written: {path}")]
    Io {
        /// What the system said.
        #[source]
        source: std::io::Error,
        /// The file.
        path: PathBuf,
    },
}

/// Writes a new key (PKCS#8, readable by its owner alone) and gives its public half, 64 hex digits.
///
/// # Errors
/// [`SignatureError`]; an existing file is never replaced.
pub fn new_key(path: &Path) -> Result<String, SignatureError> {
    let io = |source| SignatureError::Io {
        source,
        path: path.to_owned(),
    };
    let document =
        Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| SignatureError::Random)?;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    let mut file = options.open(path).map_err(io)?;
    std::io::Write::write_all(&mut file, document.as_ref()).map_err(io)?;
    file.sync_all().map_err(io)?;
    let pair = Ed25519KeyPair::from_pkcs8(document.as_ref())
        .map_err(|_| SignatureError::Key(path.to_owned()))?;
    Ok(hex(pair.public_key().as_ref()))
}

/// Signs a package with the key in a file.
///
/// # Errors
/// [`SignatureError`].
pub fn sign(
    files: &PackageFiles,
    publisher: &str,
    key: &Path,
) -> Result<Signature, SignatureError> {
    let document = std::fs::read(key).map_err(|source| SignatureError::Io {
        source,
        path: key.to_owned(),
    })?;
    let pair =
        Ed25519KeyPair::from_pkcs8(&document).map_err(|_| SignatureError::Key(key.to_owned()))?;
    Ok(Signature {
        publisher: publisher.to_owned(),
        public_key: hex(pair.public_key().as_ref()),
        signature: hex(pair.sign(&message(files, publisher)).as_ref()),
    })
}

/// Reads and checks the signature of a package; `None` without one.
///
/// # Errors
/// [`SignatureError::Wrong`] and [`SignatureError::Form`].
pub fn verify(files: &PackageFiles) -> Result<Option<Signature>, SignatureError> {
    let Some(bytes) = &files.signature else {
        return Ok(None);
    };
    let signature: Signature =
        serde_json::from_slice(bytes).map_err(|e| SignatureError::Form(e.to_string()))?;
    let key = unhex::<32>(&signature.public_key)
        .ok_or_else(|| SignatureError::Form("public_key has no 64 hex digits".to_owned()))?;
    let proof = unhex::<64>(&signature.signature)
        .ok_or_else(|| SignatureError::Form("signature has no 128 hex digits".to_owned()))?;
    UnparsedPublicKey::new(&ED25519, key)
        .verify(&message(files, &signature.publisher), &proof)
        .map_err(|_| SignatureError::Wrong)?;
    Ok(Some(signature))
}

/// What is signed.
fn message(files: &PackageFiles, publisher: &str) -> Vec<u8> {
    let card = files.card.as_deref().unwrap_or_default();
    format!(
        "{CONTEXT}\nmanifest {}\ncard {}\npublisher {}\n",
        sha256_hex(&files.manifest),
        sha256_hex(card),
        sha256_hex(publisher.as_bytes()),
    )
    .into_bytes()
}

/// The publishers that a person trusts, in a file of the home folder.
#[derive(Clone, Debug)]
pub struct Publishers {
    file: PathBuf,
}

impl Publishers {
    /// In a file that need not exist yet.
    pub fn new(file: PathBuf) -> Self {
        Self { file }
    }

    /// All of them; none where the file cannot be read: then nobody is trusted.
    pub fn list(&self) -> Vec<Publisher> {
        let read = std::fs::read(&self.file).ok();
        read.and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default()
    }

    /// Trusts a key from now on, under a name.
    ///
    /// # Errors
    /// [`SignatureError`].
    pub fn trust(&self, name: &str, public_key: &str) -> Result<(), SignatureError> {
        if unhex::<32>(public_key).is_none() {
            return Err(SignatureError::Form(
                "the key has no 64 hex digits".to_owned(),
            ));
        }
        let mut all = self.list();
        all.retain(|p| !p.public_key.eq_ignore_ascii_case(public_key));
        all.push(Publisher {
            name: name.to_owned(),
            public_key: public_key.to_lowercase(),
        });
        self.write(&all)
    }

    /// Trusts a name or key no longer; whether there was one.
    ///
    /// # Errors
    /// [`SignatureError`].
    pub fn forget(&self, name_or_key: &str) -> Result<bool, SignatureError> {
        let mut all = self.list();
        let before = all.len();
        all.retain(|p| p.name != name_or_key && !p.public_key.eq_ignore_ascii_case(name_or_key));
        if all.len() == before {
            return Ok(false);
        }
        self.write(&all)?;
        Ok(true)
    }

    /// Where a package comes from.
    pub fn origin(&self, signature: Option<Signature>) -> Origin {
        let Some(signature) = signature else {
            return Origin::Unsigned;
        };
        let mut all = self.list().into_iter();
        match all.find(|p| p.public_key.eq_ignore_ascii_case(&signature.public_key)) {
            Some(known) => Origin::Known(known),
            None => Origin::UnknownPublisher(signature),
        }
    }

    fn write(&self, all: &[Publisher]) -> Result<(), SignatureError> {
        let io = |source| SignatureError::Io {
            source,
            path: self.file.clone(),
        };
        if let Some(parent) = self.file.parent() {
            std::fs::create_dir_all(parent).map_err(io)?;
        }
        let bytes = serde_json::to_vec_pretty(all).expect("strings");
        whole_file::write(&self.file, |w| -> std::io::Result<()> {
            w.write_all(&bytes)
        })
        .map_err(io)
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

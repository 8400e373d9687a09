//! The system's keyring: one master key a user, and secrets of endpoints by name.
//!
//! The only file that knows the crate `keyring`: secret service on Linux, Keychain on macOS, Credential
//! Manager on Windows. All is kept as text, for KDE's wallet takes nothing else.

use std::fmt::Write as _;
use std::sync::mpsc::sync_channel;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use keyring::Entry;
use ring::digest;

use super::{Error, random};

const SERVICE: &str = "negatoscope";
const MASTER: &str = "master-key";
/// An unlock dialog waits for a person; a session without one would wait for ever.
const LONGEST: Duration = Duration::from_mins(1);

pub(super) const ID_BYTES: usize = 8;

/// The key that wraps the others.
#[derive(Clone)]
pub(super) struct Master([u8; 32]);

/// It does not change while the program runs, and asking takes milliseconds.
static KNOWN: Mutex<Option<Master>> = Mutex::new(None);

impl Master {
    #[cfg(test)]
    pub(super) const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(super) const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Tells masters apart, and nothing about them.
    pub(super) fn id(&self) -> [u8; ID_BYTES] {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"negatoscope master key id\0");
        context.update(&self.0);
        let mut id = [0; ID_BYTES];
        id.copy_from_slice(&context.finish().as_ref()[..ID_BYTES]);
        id
    }

    /// The one that is there.
    pub(super) fn of_keyring() -> Result<Self, Error> {
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_none() {
            *known = Some(Self::read_anew()?);
        }
        known.clone().ok_or(Error::Vanished)
    }

    pub(super) fn read_anew() -> Result<Self, Error> {
        read(MASTER)?
            .and_then(|text| parse(&text))
            .map(Self)
            .ok_or(Error::Vanished)
    }

    /// The one that is there, or a new one that the keyring has and gives back.
    pub(super) fn of_keyring_or_new() -> Result<Self, Error> {
        match Self::read_anew() {
            Err(Error::Vanished) => {}
            other => return other,
        }
        let bytes: [u8; 32] = random()?;
        let text = bytes.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        write(MASTER, text)?;
        Self::read_anew()
    }
}

fn parse(text: &str) -> Option<[u8; 32]> {
    let digits = (text.len() == 64 && text.is_ascii()).then_some(text.as_bytes())?;
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// The secret of an endpoint, by the name that it was stored under.
///
/// # Errors
/// [`Error::NoEntry`], [`Error::Off`], [`Error::Unreachable`].
pub fn secret(name: &str) -> Result<String, Error> {
    read(&user_of(name))?.ok_or_else(|| Error::NoEntry(name.to_owned()))
}

/// Keeps the secret of an endpoint.
///
/// # Errors
/// As [`secret`].
pub fn store_secret(name: &str, value: String) -> Result<(), Error> {
    write(&user_of(name), value)
}

/// Removes the secret of an endpoint.
///
/// # Errors
/// As [`secret`].
pub fn forget_secret(name: &str) -> Result<(), Error> {
    match ask(user_of(name), |entry| entry.delete_credential())? {
        Err(keyring::Error::NoEntry) => Err(Error::NoEntry(name.to_owned())),
        other => other.map_err(|e| unreachable(&e)),
    }
}

fn user_of(name: &str) -> String {
    format!("endpoint {name}")
}

fn read(user: &str) -> Result<Option<String>, Error> {
    match ask(user.to_owned(), |entry| entry.get_password())? {
        Ok(text) => Ok(Some(text)),
        Err(keyring::Error::NoEntry) => Ok(None),
        Err(error) => Err(unreachable(&error)),
    }
}

fn write(user: &str, text: String) -> Result<(), Error> {
    ask(user.to_owned(), move |entry| entry.set_password(&text))?.map_err(|e| unreachable(&e))
}

/// The kind of trouble in words of ours: what a keyring says may quote what it holds.
fn unreachable(error: &keyring::Error) -> Error {
    Error::Unreachable(
        match error {
            keyring::Error::NoStorageAccess(_) => "it is locked, or refused",
            keyring::Error::NoDefaultStore => "this system has none",
            keyring::Error::Ambiguous(_) => "it holds several entries of this name",
            _ => "it does not work",
        }
        .to_owned(),
    )
}

/// Asks on a thread of its own, which is left alone when there is no answer.
fn ask<T: Send + 'static>(
    user: String,
    what: impl FnOnce(Entry) -> keyring::Result<T> + Send + 'static,
) -> Result<keyring::Result<T>, Error> {
    if std::env::var_os("NEGATOSCOPE_KEYRING").is_some_and(|value| value == "off") {
        return Err(Error::Off);
    }
    let (answer, answers) = sync_channel(1);
    let asking = std::thread::Builder::new().name("keyring".to_owned());
    asking
        .spawn(move || {
            let _ = answer.send(Entry::new(SERVICE, &user).and_then(what));
        })
        .map_err(|_| Error::Unreachable("no thread for it".to_owned()))?;
    answers
        .recv_timeout(LONGEST)
        .map_err(|_| Error::Unreachable("it gives no answer".to_owned()))
}

//! A person's sign-in outlives the program: its refresh token is kept in the system's keyring. Where
//! there is none, nothing is kept, and only the process in which the person signed in can go on.

use std::fmt::Write as _;

use super::endpoint::{Authorization, Profile};
use super::secret::Secrets;
use crate::redact::Sensitive;

/// The entry of the keyring. It is bound to who gave the token: another token server never gets it.
fn entry_of(profile: &Profile) -> Option<String> {
    let Authorization::Device {
        token_url,
        client_id,
        scope,
        ..
    } = &profile.authorization
    else {
        return None;
    };
    let giver = [token_url.as_str(), client_id, scope].join("\n");
    let digest = ring::digest::digest(&ring::digest::SHA256, giver.as_bytes());
    let mut entry = "sign-in-".to_owned();
    for byte in &digest.as_ref()[..8] {
        let _ = write!(entry, "{byte:02x}");
    }
    Some(entry)
}

/// What was kept.
pub(super) fn kept(profile: &Profile, secrets: &Secrets) -> Option<Sensitive<String>> {
    secrets.kept(&entry_of(profile)?)
}

/// Keeps it, in place of an older one.
pub(super) fn keep(profile: &Profile, secrets: &Secrets, refresh: &Sensitive<String>) {
    if let Some(entry) = entry_of(profile)
        && let Err(error) = secrets.keep(&entry, refresh)
    {
        tracing::warn!("the sign-in ends with this program: {error}");
    }
}

/// Takes it out of the keyring.
pub(super) fn forget(profile: &Profile, secrets: &Secrets) {
    if let Some(entry) = entry_of(profile)
        && let Err(error) = secrets.forget(&entry)
    {
        // Most often there was none.
        tracing::debug!("no sign-in was forgotten: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_in_is_bound_to_who_gave_it() {
        let profile = |token_url: &str, client_id: &str| Profile {
            authorization: Authorization::Device {
                device_url: "https://login.example/device".to_owned(),
                token_url: token_url.to_owned(),
                client_id: client_id.to_owned(),
                scope: String::new(),
            },
            ..Profile::new("ward", "https://models.example")
        };
        let entry = |token_url, client_id| entry_of(&profile(token_url, client_id)).unwrap();
        let one = entry("https://login.example/token", "viewer");
        assert_eq!(one, entry("https://login.example/token", "viewer"));
        assert_ne!(one, entry("https://login.example/token", "other"));
        assert_ne!(one, entry("https://evil.example/token", "viewer"));
        assert_eq!(entry_of(&Profile::new("ward", "https://a.example")), None);
    }
}

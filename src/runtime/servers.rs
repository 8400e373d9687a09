//! Setting model servers up and taking them away, on record; and looking at one step by step.

use std::cell::RefCell;
use std::path::PathBuf;

use chrono::{DateTime, SecondsFormat, Utc};

use super::carry_out::failed;
use super::home::Home;
use super::jobs::{Outbox, Stop};
use super::on_record::change_on_record;
use super::remote_jobs::RemoteError;
use crate::app::{Event, ServerDraft, ServerTest};
use crate::audit::{EventType, ObjectKind, ParticipantObject};
use crate::offload::{
    Authorization, Client, Endpoints, Looked, Pin, Profile, ProfileError, SecretPlace, Secrets,
    Service, SignIn, known_holes, look,
};
use crate::task::Task;

/// Puts a change of the endpoints on record, then makes it; one that fails is on record as well.
///
/// # Errors
/// The log's, and those of the change.
pub fn change_endpoint<T, E: From<crate::audit::Error>>(
    home: &Home,
    what: &str,
    profile: &Profile,
    make: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    let pins: Vec<String> = profile.pins.iter().map(Pin::to_string).collect();
    let object = ParticipantObject::new(ObjectKind::File, &profile.url)
        .with("endpoint", &profile.name)
        .with("change", what)
        .with("authorization", authorization_word(&profile.authorization))
        .with("pins", pins.join(" "))
        .with("plain_http_allowed", profile.allow_insecure_loopback);
    change_on_record(home, EventType::SecurityConfiguration, object, make)
}

/// How a server knows who asks, in words.
pub const fn authorization_word(authorization: &Authorization) -> &'static str {
    match authorization {
        Authorization::None => "none",
        Authorization::Bearer { .. } => "bearer token",
        Authorization::AwsSignature { .. } => "AWS signature",
        Authorization::ClientCredentials { .. } => "OAuth client credentials",
        Authorization::Device { .. } => "OAuth sign-in",
    }
}

/// Looks at a server; each step says what it found, the first that fails ends it. Whether it is
/// ready to work.
///
/// # Errors
/// What the failing step says.
pub fn look_at(
    profile: &Profile,
    sign_in: impl FnMut(&SignIn),
    mut step: impl FnMut(&str, String),
    task: &Task,
) -> Result<bool, RemoteError> {
    let Looked {
        address,
        tls_version,
        certificate,
        ..
    } = look(profile)?;
    step("address", address.to_string());
    let none = || "none (this machine alone)".to_owned();
    step("encryption", tls_version.unwrap_or_else(none));
    if let Some(certificate) = certificate {
        let day = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Secs, true);
        step("subject", certificate.subject);
        step("issuer", certificate.issuer);
        step("holds until", day(certificate.not_after));
        step("key SHA-256", certificate.key.to_string());
    }
    let client = Client::new(profile, Secrets::of_environment())?;
    if client.needs_sign_in() {
        client.sign_in(sign_in, task)?;
    }
    if let Service::Sagemaker { .. } = profile.service {
        let told = "SageMaker tells nothing of itself: the first run shows the rest";
        step("service", told.to_owned());
        return Ok(true);
    }
    let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
    step("live", yes(client.live(task)?));
    let is_ready = client.ready(task)?;
    step("ready", yes(is_ready));
    let about = client.metadata(task)?;
    // Words of the server: escapes and line breaks are shown, not obeyed.
    let plain = |text: &str| text.escape_debug().to_string();
    step(
        "server",
        plain(&format!("{} {}", about.name, about.version)),
    );
    step("extensions", plain(&about.extensions.join(", ")));
    for hole in known_holes(&about) {
        step("WARNING", hole);
    }
    match client.index(task)? {
        None => step("models", "the server offers no list".to_owned()),
        Some(models) => {
            for model in models {
                let line = format!("{} {} {}", model.name, model.version, model.state);
                step("model", plain(line.trim()));
            }
        }
    }
    Ok(is_ready)
}

/// Sets a server up that a person has typed.
pub(super) fn add(home: &Home, draft: &ServerDraft) -> Result<(), Stop> {
    let added = profile_of(draft)
        .map_err(RemoteError::from)
        .and_then(|profile| {
            change_endpoint(home, "added", &profile, || {
                Ok(Endpoints::add(home.root(), profile.clone())?)
            })
        });
    added.map_err(|error| {
        failed(
            "The server was not added",
            "Correct what stands under Details and add it again. Nothing was sent to it.",
            &error,
        )
    })
}

/// Sets whether a person is asked before each sending.
pub(super) fn set_asks(home: &Home, name: &str, asks: bool) -> Result<(), Stop> {
    let what = if asks {
        "asks before sending"
    } else {
        "sends without asking"
    };
    let set = || {
        let profile = Endpoints::load(home.root())?.find(name)?.clone();
        change_endpoint(home, what, &profile, || {
            Ok(Endpoints::set_without_asking(home.root(), name, !asks)?)
        })
    };
    set().map_err(|error: RemoteError| {
        failed(
            "The server was not changed",
            "It stays as it was. The reason stands under Details.",
            &error,
        )
    })
}

/// Takes a server away.
pub(super) fn remove(home: &Home, name: &str) -> Result<(), Stop> {
    let removed = || {
        let profile = Endpoints::load(home.root())?.find(name)?.clone();
        change_endpoint(home, "removed", &profile, || {
            Endpoints::remove(home.root(), name)?;
            Ok(())
        })
    };
    removed().map_err(|error: RemoteError| {
        failed(
            "The server was not removed",
            "It stays as it was. The reason stands under Details.",
            &error,
        )
    })
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split([' ', ',', ';', '\n'])
        .filter(|word| !word.is_empty())
}

fn profile_of(draft: &ServerDraft) -> Result<Profile, ProfileError> {
    let whole = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
    let profile = Profile {
        ca: draft.authority.as_ref().map(whole),
        pins: words(&draft.pins)
            .map(str::parse)
            .collect::<Result<_, _>>()?,
        models: words(&draft.models).map(str::to_owned).collect(),
        region: draft.region.trim().to_owned(),
        retention: draft.retention.trim().to_owned(),
        allow_insecure_loopback: draft.plain_http,
        authorization: match draft.token_variable.trim() {
            "" => Authorization::None,
            variable => Authorization::Bearer {
                secret: SecretPlace::environment(variable),
            },
        },
        ..Profile::new(draft.name.trim(), draft.url.trim())
    };
    profile.check()?;
    Ok(profile)
}

/// Looks at a server for the window, step by step; signs a person in where it asks for that. Once it is
/// cancelled it says nothing more: another test of the same server may run by then.
pub(super) fn test(home: &Home, name: &str, outbox: &Outbox, task: &Task) {
    let told = RefCell::new(ServerTest {
        name: name.to_owned(),
        is_running: true,
        ..ServerTest::default()
    });
    let tell = |change: &dyn Fn(&mut ServerTest)| {
        change(&mut told.borrow_mut());
        if !task.is_cancelled() {
            outbox.send(Event::ServerTested(told.borrow().clone()));
        }
    };
    let profile = Endpoints::load(home.root())
        .and_then(|all| all.find(name).cloned())
        .map_err(RemoteError::from);
    let ended = profile.and_then(|profile| {
        let sign_in = |asked: &SignIn| {
            let (place, code) = (&asked.verification_uri, &asked.user_code);
            tell(&|t| t.sign_in = Some((place.clone(), code.clone())));
        };
        let step = |name: &str, found: String| {
            tell(&|t| {
                t.sign_in = None;
                t.steps.push((name.to_owned(), found.clone()));
            });
        };
        look_at(&profile, sign_in, step, task)
    });
    let problem = match ended {
        Ok(true) => String::new(),
        Ok(false) => "It is not ready for work".to_owned(),
        Err(error) => error.to_string(),
    };
    tell(&|t| {
        (t.is_running, t.sign_in) = (false, None);
        t.problem.clone_from(&problem);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_person_types_becomes_a_profile_or_says_what_is_wrong() {
        let draft = ServerDraft {
            name: " ward ".to_owned(),
            url: "https://models.example/ ".to_owned(),
            models: "one, two".to_owned(),
            token_variable: "WARD_TOKEN".to_owned(),
            ..ServerDraft::default()
        };
        let profile = profile_of(&draft).unwrap();
        assert_eq!(
            (profile.name.as_str(), profile.url.as_str()),
            ("ward", "https://models.example/")
        );
        assert_eq!(profile.models, ["one", "two"]);
        assert_eq!(authorization_word(&profile.authorization), "bearer token");
        let wrong = |change: fn(&mut ServerDraft)| {
            let mut draft = draft.clone();
            change(&mut draft);
            profile_of(&draft).unwrap_err().to_string()
        };
        assert!(wrong(|d| d.url = "http://127.0.0.1".to_owned()).contains("not https"));
        assert!(wrong(|d| d.name = "a b".to_owned()).contains("letters"));
        assert!(wrong(|d| d.pins = "123".to_owned()).contains("SHA-256"));
        assert!(wrong(|d| d.token_variable = "my token".to_owned()).contains("capital"));
    }
}

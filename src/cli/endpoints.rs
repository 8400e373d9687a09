//! `negatoscope endpoints`: the model servers that may be asked.

mod add;

use chrono::SecondsFormat;
use serde_json::{Value, json};

use super::Ending;
use super::print::{say, say_json};
use crate::audit::{
    AuditEvent, EventAction, EventId, EventType, Log, ObjectKind, Outcome, ParticipantObject,
};
use crate::offload::{
    Authorization, Client, Endpoints, Looked, Pin, Profile, Secrets, Service, known_holes, look,
};
use crate::runtime::{Home, now_utc};
use crate::task::Task;
use add::Add;

#[derive(clap::Args, Debug)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand, Debug)]
enum What {
    /// Add a model server. Nothing is sent to it.
    Add(Box<Add>),
    /// List them.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Call one and show, step by step, what it is.
    Test {
        /// Its name here.
        name: String,
    },
    /// Remove one.
    Remove {
        /// Its name here.
        name: String,
    },
}

pub fn run(home: &Home, arguments: &Arguments) -> anyhow::Result<Ending> {
    match &arguments.what {
        What::Add(add) => {
            let profile = add.profile()?;
            profile.check()?;
            anyhow::ensure!(
                Endpoints::load(home.root())?.find(&profile.name).is_err(),
                "there is already an endpoint {:?}",
                profile.name
            );
            on_record(home, "added", &profile, || {
                Ok(Endpoints::add(home.root(), profile.clone())?)
            })
        }
        What::Remove { name } => {
            let profile = Endpoints::load(home.root())?.find(name)?.clone();
            on_record(home, "removed", &profile, || {
                Endpoints::remove(home.root(), name)?;
                Ok(())
            })
        }
        What::List { json } => list(home, *json),
        What::Test { name } => test(Endpoints::load(home.root())?.find(name)?),
    }
}

/// Puts a change on record, then makes it; a change that fails is on record as well.
fn on_record(
    home: &Home,
    what: &str,
    profile: &Profile,
    change: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<Ending> {
    let log = Log::open(home.root())?;
    // PS3.15 A.5.3.11: a change of configuration is a Security Alert of a type of its own.
    let kind = AuditEvent {
        action: EventAction::Update,
        ..AuditEvent::new(EventId::SecurityAlert, now_utc())
    };
    let kind = kind.of_type(EventType::SecurityConfiguration);
    let event = || {
        let pins: Vec<String> = profile.pins.iter().map(Pin::to_string).collect();
        kind.clone().at(now_utc()).about(
            ParticipantObject::new(ObjectKind::File, &profile.url)
                .with("endpoint", &profile.name)
                .with("change", what)
                .with("authorization", word_of(&profile.authorization))
                .with("pins", pins.join(" "))
                .with("plain_http_allowed", profile.allow_insecure_loopback),
        )
    };
    let act = log.begin(&event())?;
    if let Err(error) = change() {
        let why = "the endpoints were not changed";
        act.failed(now_utc(), Outcome::SeriousFailure, why)?;
        return Err(error);
    }
    act.done(now_utc())?;
    eprintln!("{what} {}", profile.name);
    Ok(Ending::Done)
}

fn word_of(authorization: &Authorization) -> &'static str {
    match authorization {
        Authorization::None => "none",
        Authorization::Bearer { .. } => "bearer token",
        Authorization::AwsSignature { .. } => "AWS signature",
        Authorization::ClientCredentials { .. } => "OAuth client credentials",
        Authorization::Device { .. } => "OAuth sign-in",
    }
}

fn list(home: &Home, json: bool) -> anyhow::Result<Ending> {
    let endpoints = Endpoints::load(home.root())?;
    if json {
        let all: Vec<Value> = endpoints
            .all()
            .iter()
            .map(serde_json::to_value)
            .collect::<Result<_, _>>()?;
        say_json(&json!({ "endpoints": all }))?;
        return Ok(Ending::Done);
    }
    for profile in endpoints.all() {
        let pinned = match profile.pins.len() {
            0 => String::new(),
            n => format!(", {n} pinned keys"),
        };
        let service = match &profile.service {
            Service::OpenInference => String::new(),
            managed => format!("{}, ", managed.word()),
        };
        say(&format!(
            "{}  {}  ({service}{}{pinned})",
            profile.name,
            profile.url,
            word_of(&profile.authorization)
        ))?;
    }
    Ok(Ending::Done)
}

/// Each step says what it found; the first that fails ends the test.
fn test(profile: &Profile) -> anyhow::Result<Ending> {
    let step = |name: &str, found: &str| say(&format!("{name:<12} {found}"));
    let Looked {
        address,
        tls_version,
        certificate,
        ..
    } = look(profile)?;
    step("address", &address.to_string())?;
    step(
        "encryption",
        tls_version
            .as_deref()
            .unwrap_or("none (this machine alone)"),
    )?;
    if let Some(certificate) = certificate {
        let day =
            |time: chrono::DateTime<chrono::Utc>| time.to_rfc3339_opts(SecondsFormat::Secs, true);
        step("subject", &certificate.subject)?;
        step("issuer", &certificate.issuer)?;
        step("holds until", &day(certificate.not_after))?;
        step("key SHA-256", &certificate.key.to_string())?;
    }
    let client = Client::new(profile, Secrets::of_environment())?;
    let task = Task::new();
    if matches!(profile.authorization, Authorization::Device { .. }) {
        client.sign_in(
            |offered| {
                eprintln!(
                    "Open {} and type {}",
                    offered.verification_uri, offered.user_code
                );
            },
            &task,
        )?;
    }
    if let Service::Sagemaker { .. } = profile.service {
        step(
            "service",
            "SageMaker tells nothing of itself: the first run shows the rest",
        )?;
        return Ok(Ending::Done);
    }
    let yes = |is: bool| if is { "yes" } else { "no" };
    step("live", yes(client.live(&task)?))?;
    let is_ready = client.ready(&task)?;
    step("ready", yes(is_ready))?;
    let about = client.metadata(&task)?;
    // Words of the server on a terminal: escapes and line breaks are shown, not obeyed.
    let plain = |text: &str| text.escape_debug().to_string();
    step(
        "server",
        &plain(&format!("{} {}", about.name, about.version)),
    )?;
    step("extensions", &plain(&about.extensions.join(", ")))?;
    for hole in known_holes(&about) {
        step("WARNING", &hole)?;
    }
    match client.index(&task)? {
        None => step("models", "the server offers no list")?,
        Some(models) => {
            for model in models {
                let line = format!("{} {} {}", model.name, model.version, model.state);
                step("model", &plain(line.trim()))?;
            }
        }
    }
    Ok(if is_ready {
        Ending::Done
    } else {
        Ending::Partly
    })
}

//! `negatoscope endpoints`: the model servers that may be asked.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::Ending;
use super::print::{say, say_json};
use crate::offload::{Authorization, Endpoints, Pin, Profile, SecretPlace, SignIn};
use crate::runtime::{Home, authorization_word, change_endpoint, look_at};
use crate::task::Task;

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

#[derive(clap::Args, Debug)]
struct Add {
    /// Its name here.
    name: String,
    /// Where it is; the protocol's paths (v2/…) are appended.
    #[arg(long)]
    url: String,
    /// Certificates of its authority (PEM), in place of the system's.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Our certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Its private key (PEM).
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// SHA-256 of a public key of which one must be in the server's chain; give a second as a backup.
    #[arg(long, value_name = "SHA256")]
    pin: Vec<Pin>,
    /// Variable of the environment that holds a bearer token.
    #[arg(long, value_name = "VAR", conflicts_with = "oauth_token_url")]
    token_env: Option<String>,
    /// Where OAuth 2.0 tokens come from.
    #[arg(long, value_name = "URL", requires = "client_id")]
    oauth_token_url: Option<String>,
    /// Where a person's sign-in begins (OAuth 2.0 device flow), in place of a client secret.
    #[arg(
        long,
        value_name = "URL",
        requires = "oauth_token_url",
        conflicts_with = "client_secret_env"
    )]
    oauth_device_url: Option<String>,
    /// Client id at the token server.
    #[arg(long, value_name = "ID", requires = "oauth_token_url")]
    client_id: Option<String>,
    /// Variable of the environment that holds the client secret.
    #[arg(long, value_name = "VAR", requires = "oauth_token_url")]
    client_secret_env: Option<String>,
    /// What the token is for.
    #[arg(
        long,
        value_name = "WORDS",
        requires = "oauth_token_url",
        default_value = ""
    )]
    scope: String,
    /// Largest body that the server takes.
    #[arg(long, value_name = "N")]
    max_request_bytes: Option<u64>,
    /// Longest time for one request with all its attempts.
    #[arg(long, value_name = "SECONDS")]
    deadline: Option<u64>,
    /// The server takes and gives gzip.
    #[arg(long)]
    gzip: bool,
    /// Model that may be asked there; any, where none is given.
    #[arg(long, value_name = "NAME")]
    model: Vec<String>,
    /// Where it computes, for people.
    #[arg(long, default_value = "")]
    region: String,
    /// What its operator keeps and for how long, for people.
    #[arg(long, default_value = "")]
    retention: String,
    /// Allow plain http, to this machine alone.
    #[arg(long)]
    allow_insecure_loopback: bool,
}

pub fn run(home: &Home, arguments: &Arguments) -> anyhow::Result<Ending> {
    match &arguments.what {
        What::Add(add) => {
            let profile = profile(add)?;
            profile.check()?;
            anyhow::ensure!(
                Endpoints::load(home.root())?.find(&profile.name).is_err(),
                "there is already an endpoint {:?}",
                profile.name
            );
            recorded(home, "added", &profile, || {
                Ok(Endpoints::add(home.root(), profile.clone())?)
            })
        }
        What::Remove { name } => {
            let profile = Endpoints::load(home.root())?.find(name)?.clone();
            recorded(home, "removed", &profile, || {
                Endpoints::remove(home.root(), name)?;
                Ok(())
            })
        }
        What::List { json } => list(home, *json),
        What::Test { name } => test(Endpoints::load(home.root())?.find(name)?),
    }
}

fn profile(add: &Add) -> anyhow::Result<Profile> {
    let usual = Profile::new(&add.name, &add.url);
    let authorization = match (&add.token_env, &add.oauth_token_url) {
        (Some(variable), _) => Authorization::Bearer {
            secret: SecretPlace::environment(variable),
        },
        (None, None) => Authorization::None,
        (None, Some(token_url)) => {
            let client_id = add.client_id.clone().unwrap_or_default();
            match (&add.oauth_device_url, &add.client_secret_env) {
                (Some(device_url), _) => Authorization::Device {
                    device_url: device_url.clone(),
                    token_url: token_url.clone(),
                    client_id,
                    scope: add.scope.clone(),
                },
                (None, Some(variable)) => Authorization::ClientCredentials {
                    token_url: token_url.clone(),
                    client_id,
                    secret: SecretPlace::environment(variable),
                    scope: add.scope.clone(),
                },
                (None, None) => anyhow::bail!(
                    "a token server needs --client-secret-env for a station, or --oauth-device-url for a person"
                ),
            }
        }
    };
    // A relative path would mean another file from another folder.
    let whole = |path: &Option<PathBuf>| path.as_ref().map(std::path::absolute).transpose();
    Ok(Profile {
        ca: whole(&add.ca)?,
        client_certificate: whole(&add.cert)?,
        client_key: whole(&add.key)?,
        pins: add.pin.clone(),
        authorization,
        max_request_bytes: add.max_request_bytes.unwrap_or(usual.max_request_bytes),
        deadline_secs: add.deadline.unwrap_or(usual.deadline_secs),
        gzip: add.gzip,
        models: add.model.clone(),
        region: add.region.clone(),
        retention: add.retention.clone(),
        allow_insecure_loopback: add.allow_insecure_loopback,
        ..usual
    })
}

fn recorded(
    home: &Home,
    what: &str,
    profile: &Profile,
    make: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<Ending> {
    change_endpoint(home, what, profile, make)?;
    eprintln!("{what} {}", profile.name);
    Ok(Ending::Done)
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
        say(&format!(
            "{}  {}  ({}{pinned})",
            profile.name,
            profile.url,
            authorization_word(&profile.authorization)
        ))?;
    }
    Ok(Ending::Done)
}

/// Each step says what it found; the first that fails ends the test.
fn test(profile: &Profile) -> anyhow::Result<Ending> {
    let sign_in = |offered: &SignIn| {
        eprintln!(
            "Open {} and type {}",
            offered.verification_uri, offered.user_code
        );
    };
    let mut printed = Ok(());
    let step = |name: &str, found: String| {
        if printed.is_ok() {
            printed = say(&format!("{name:<12} {found}"));
        }
    };
    let is_ready = look_at(profile, sign_in, step, &Task::new())?;
    printed?;
    Ok(if is_ready {
        Ending::Done
    } else {
        Ending::Partly
    })
}

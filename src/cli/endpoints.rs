//! `negatoscope endpoints`: the model servers that may be asked.

mod add;

use serde_json::{Value, json};

use super::Ending;
use super::print::{say, say_json};
use crate::key_file;
use crate::offload::{Endpoints, Profile, Service, SignIn};
use crate::runtime::{Home, authorization_word, change_endpoint, look_at};
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
    eprintln!("keys: {}", key_file::place(home.root()).words());
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

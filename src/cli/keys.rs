//! `negatoscope keys`: where the keys of this home are, and secrets of endpoints in the system's keyring.

use std::io::{BufRead, Read};

use clap::ValueEnum;

use super::Ending;
use super::print::say;
use crate::audit::{EventType, Log, ObjectKind, ParticipantObject};
use crate::key_file::{self, Place};
use crate::runtime::{Home, change_on_record, now_utc};

#[derive(clap::Args, Debug)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand, Debug)]
enum What {
    /// Say where they are.
    Show,
    /// Move them: into files for this account alone, or under a master key in the system's keyring.
    #[command(
        after_help = "A home that must work without a desktop session keeps its keys in files."
    )]
    Keep {
        /// Where.
        #[arg(long = "in", value_enum)]
        place: PlaceArgument,
    },
    /// Go on with new keys when the keyring has lost the master key; the old ones are set aside.
    GiveUp,
    /// Keep the secret of an endpoint in the system's keyring; it is read from standard input.
    Store {
        /// Its name, for `endpoints add --token-keyring NAME`.
        name: String,
    },
    /// Remove the secret of an endpoint from the system's keyring.
    Forget {
        /// Its name.
        name: String,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PlaceArgument {
    Files,
    Keyring,
}

pub fn run(home: &Home, arguments: &Arguments) -> anyhow::Result<Ending> {
    let root = home.root();
    let object = |what: &str| ParticipantObject::new(ObjectKind::File, "keys").with("change", what);
    let kind = EventType::SecurityConfiguration;
    match &arguments.what {
        What::Show => say(&format!("keys: {}", key_file::place(root).words()))?,
        What::Keep { place } => {
            let to = match place {
                PlaceArgument::Files => Place::Files,
                PlaceArgument::Keyring => Place::Keyring,
            };
            let what = format!("kept {}", to.words());
            let moved = change_on_record::<_, anyhow::Error>(home, kind, object(&what), || {
                Ok(key_file::move_to(root, to)?)
            })?;
            eprintln!(
                "{moved} keys moved; keys: {}",
                key_file::place(root).words()
            );
        }
        What::GiveUp => {
            let aside = key_file::give_up(root)?;
            let count = aside.len();
            if count > 0 {
                let object = object("given up").with("keys", count);
                let event =
                    crate::audit::AuditEvent::new(crate::audit::EventId::SecurityAlert, now_utc())
                        .of_type(kind)
                        .about(object);
                Log::open(root)?.append(&event)?;
            }
            for path in &aside {
                eprintln!("set aside: {}", path.display());
            }
            eprintln!(
                "{count} keys given up; keys: {}",
                key_file::place(root).words()
            );
        }
        What::Store { name } => {
            let mut line = String::new();
            std::io::stdin().lock().take(1 << 16).read_line(&mut line)?;
            let secret = line.trim().to_owned();
            anyhow::ensure!(!secret.is_empty(), "there is no secret on standard input");
            change_on_record::<_, anyhow::Error>(
                home,
                kind,
                object("secret stored").with("entry", name),
                || Ok(key_file::store_secret(name, secret)?),
            )?;
        }
        What::Forget { name } => {
            change_on_record::<_, anyhow::Error>(
                home,
                kind,
                object("secret removed").with("entry", name),
                || Ok(key_file::forget_secret(name)?),
            )?;
        }
    }
    Ok(Ending::Done)
}

//! `negatoscope audit`: the log of who did what.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, bail};
use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use clap::ValueEnum;
use serde_json::json;

use super::Ending;
use super::print::{say, say_json};
use crate::audit::{
    self, Against, AuditEvent, Destination, EventId, Filter, Log, ObjectKind, ParticipantObject,
    VerificationKey, visible,
};
use crate::key_file;
use crate::runtime::{Home, now_utc};
use crate::whole_file;

#[derive(clap::Args, Debug)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand, Debug)]
enum What {
    /// Print records.
    Show {
        #[command(flatten)]
        filter: FilterArguments,
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Check that no record was changed, removed or reordered, and that the right keys sealed all.
    #[command(
        after_help = "Exit codes: 0 intact, 10 torn-tail, 11 gap, 12 altered, 13 truncated, 14 rolled-back, \
        15 foreign-key, 16 clock-went-back, 17 state-lost, 18 state-behind (the worst of what was found); 1 it could not be read."
    )]
    Verify {
        /// A copy of a log's folder, in place of this home's.
        #[arg(long, value_name = "DIR")]
        folder: Option<PathBuf>,
        /// The verification key, where it was taken away.
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        /// The log's first public key, as it was noted elsewhere.
        #[arg(long, value_name = "HEX")]
        public_key: Option<String>,
        /// A file of checkpoints that was kept elsewhere.
        #[arg(long, value_name = "FILE")]
        checkpoint: Vec<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Write records in the form of others, one a line.
    Export {
        /// The form.
        #[arg(long, value_enum)]
        format: FormArgument,
        /// File to write; else standard output.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// With pseudonyms in place of identifiers and paths.
        #[arg(long)]
        pseudonyms: bool,
        #[command(flatten)]
        filter: FilterArguments,
    },
    /// Send new records to a collector (syslog over TLS), with pseudonyms in place of identifiers.
    Forward {
        /// The collector; the port is 6514 when none is given.
        #[arg(long, value_name = "HOST:PORT")]
        to: String,
        /// Certificates that may vouch for it (PEM).
        #[arg(long, value_name = "FILE")]
        ca: PathBuf,
        /// Our own certificate (PEM).
        #[arg(long, value_name = "FILE", requires = "key")]
        cert: Option<PathBuf>,
        /// Its key (PEM).
        #[arg(long, value_name = "FILE", requires = "cert")]
        key: Option<PathBuf>,
    },
    /// Sign the log as it stands. Kept elsewhere, this shows a log put back or deleted.
    Checkpoint {
        /// File to add it to; else standard output.
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
    /// Delete segments whose records are all older; their checkpoints stay, and so does the record of it.
    Retention {
        /// Years that records are kept.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(i64::from(audit::SHORTEST_YEARS)..))]
        years: u32,
    },
    /// Take the verification key away: it is written elsewhere and erased here.
    Key {
        /// File to write.
        #[arg(long, value_name = "FILE")]
        take: PathBuf,
    },
}

#[derive(clap::Args, Debug)]
struct FilterArguments {
    /// Not before: `2026-01-31` or `2026-01-31T12:00:00Z`.
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<DateTime<Utc>>,
    /// Before.
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<DateTime<Utc>>,
    /// Code or words of the event: `110106`, `export`.
    #[arg(long, value_name = "EVENT")]
    event: Option<String>,
    /// Part of a user's name.
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// UID of a study or series.
    #[arg(long, value_name = "UID")]
    study: Option<String>,
}

impl FilterArguments {
    fn filter(&self) -> Filter {
        Filter {
            since: self.since,
            until: self.until,
            event: self.event.clone(),
            user: self.user.clone(),
            study: self.study.clone(),
        }
    }
}

/// See `--format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FormArgument {
    /// Messages of DICOM PS3.15 A.5.
    AtnaXml,
    /// FHIR R4 AuditEvent (NDJSON).
    Fhir,
    /// A table.
    Csv,
}

impl From<FormArgument> for audit::Form {
    fn from(form: FormArgument) -> Self {
        match form {
            FormArgument::AtnaXml => Self::AtnaXml,
            FormArgument::Fhir => Self::Fhir,
            FormArgument::Csv => Self::Csv,
        }
    }
}

fn time(text: &str) -> Result<DateTime<Utc>, String> {
    let day = text.parse::<NaiveDate>();
    day.map(|day| day.and_time(NaiveTime::MIN).and_utc())
        .or_else(|_| DateTime::parse_from_rfc3339(text).map(|time| time.to_utc()))
        .map_err(|_| "a day (2026-01-31) or a time (2026-01-31T12:00:00Z) is needed".to_owned())
}

pub fn run(home: &Home, arguments: &Arguments) -> anyhow::Result<Ending> {
    match &arguments.what {
        What::Show { filter, json } => show(home, &filter.filter(), *json),
        What::Verify {
            folder,
            key,
            public_key,
            checkpoint,
            json,
        } => {
            let mut against = Against {
                public_key: public_key.as_ref().map(|key| key.trim().to_lowercase()),
                ..Against::default()
            };
            if let Some(path) = key {
                let read = VerificationKey::read(path)?;
                against.verification =
                    Some(read.with_context(|| format!("there is no key: {}", path.display()))?);
            }
            for path in checkpoint {
                let text = std::fs::read_to_string(path).with_context(|| {
                    format!("the checkpoints cannot be read: {}", path.display())
                })?;
                against.checkpoints.extend(text.lines().map(str::to_owned));
            }
            let verdict = match folder {
                Some(folder) => audit::verify_folder(folder, &against)?,
                None => audit::verify_against(home.root(), &against)?,
            };
            let keys = (folder.is_none()).then(|| key_file::place(home.root()).words());
            tell(&verdict, keys, *json)
        }
        What::Export {
            format,
            out,
            pseudonyms,
            filter,
        } => export(
            home,
            (*format).into(),
            out.as_ref(),
            *pseudonyms,
            &filter.filter(),
        ),
        What::Forward { to, ca, cert, key } => {
            let (host, port) = host_and_port(to)?;
            let destination = Destination {
                host,
                port,
                ca: ca.clone(),
                identity: cert.clone().zip(key.clone()),
            };
            forward(home, &destination)
        }
        What::Checkpoint { to } => checkpoint(home, to.as_ref()),
        What::Retention { years } => {
            let log = Log::open(home.root())?;
            let done = audit::delete_older_than(home.root(), &log, *years, now_utc())?;
            eprintln!(
                "{} segments with {} records deleted",
                done.segments, done.records
            );
            Ok(Ending::Done)
        }
        What::Key { take } => {
            let log = Log::open(home.root())?;
            let act = log.begin(&used("verification key taken away"))?;
            log.take_verification_key(take)?;
            act.done(now_utc())?;
            eprintln!(
                "{}: give it to whoever checks the log; with it the log could be rewritten",
                take.display()
            );
            Ok(Ending::Done)
        }
    }
}

/// The event of a look at the log.
fn used(what: &str) -> AuditEvent {
    let log = ParticipantObject::new(ObjectKind::AuditLog, "audit").with("use", what);
    AuditEvent::new(EventId::AuditLogUsed, now_utc()).about(log)
}

fn show(home: &Home, filter: &Filter, json: bool) -> anyhow::Result<Ending> {
    let mut damaged = 0;
    let mut lines = Vec::new();
    audit::records(home.root(), |place, record| match record {
        Some(record) if !filter.lets_through(&record) => {}
        Some(record) if json => {
            lines.push(serde_json::to_string(&record).expect("a record that was read is written"));
        }
        Some(record) => lines.push(line_of(&record)),
        None => {
            damaged += 1;
            eprintln!("negatoscope: {place} is damaged, or its key is not here");
        }
    })?;
    if !lines.is_empty() {
        say(&lines.join("\n"))?;
        // Reading must not fail where nothing can be written.
        if let Err(error) = Log::open(home.root()).and_then(|log| log.append(&used("shown"))) {
            eprintln!("negatoscope: this look at the log is not on record: {error}");
        }
    }
    Ok(how_much(lines.len(), damaged))
}

fn how_much(fine: usize, damaged: usize) -> Ending {
    match (damaged, fine) {
        (0, _) => Ending::Done,
        (_, 0) => Ending::Nothing,
        _ => Ending::Partly,
    }
}

fn tell(verdict: &audit::Verdict, keys: Option<&str>, json: bool) -> anyhow::Result<Ending> {
    let problems: Vec<String> = verdict.problems.iter().map(ToString::to_string).collect();
    let notes: Vec<String> = verdict.notes.iter().map(ToString::to_string).collect();
    let words: Vec<&str> = verdict.findings().iter().map(|f| f.word()).collect();
    if json {
        say_json(&json!({
            "ok": verdict.ok,
            "verdict": verdict.finding().word(),
            "findings": words,
            "records": verdict.records,
            "last": verdict.last,
            "checkpoints": verdict.checkpoints,
            "public_key": verdict.public_key,
            "keys": keys,
            "problems": problems,
            "notes": notes,
        }))?;
    } else {
        let mut lines: Vec<String> = notes.iter().map(|n| format!("note: {n}")).collect();
        lines.extend(problems);
        if !verdict.public_key.is_empty() {
            lines.push(format!("first public key: {}", verdict.public_key));
        }
        lines.extend(keys.map(|keys| format!("keys: {keys}")));
        let words = words.join(", ");
        lines.push(if verdict.ok {
            format!("{} records, the chain is whole: {words}", verdict.records)
        } else {
            format!("{} records, the chain is BROKEN: {words}", verdict.records)
        });
        say(&lines.join("\n"))?;
    }
    Ok(Ending::Verdict(verdict.finding().exit_code()))
}

fn export(
    home: &Home,
    form: audit::Form,
    out: Option<&PathBuf>,
    pseudonyms: bool,
    filter: &Filter,
) -> anyhow::Result<Ending> {
    let log = Log::open(home.root())?;
    let mut event = used("exported");
    if let Some(path) = out {
        event = event.about(ParticipantObject::file(path).with("role", "destination"));
    }
    let act = log.begin(&event)?;
    let reduce = pseudonyms.then(|| log.pseudonyms()).transpose()?;
    let done = audit::export(home.root(), form, filter, reduce.as_ref())?;
    for place in &done.unreadable {
        eprintln!("negatoscope: {place} is damaged, or its key is not here");
    }
    match out {
        Some(path) => {
            whole_file::write(path, |w| w.write_all(&done.text))
                .with_context(|| format!("could not write {}", path.display()))?;
            eprintln!("{}", path.display());
        }
        None => say(String::from_utf8_lossy(&done.text).trim_end())?,
    }
    act.done(now_utc())?;
    Ok(how_much(done.records, done.unreadable.len()))
}

fn host_and_port(to: &str) -> anyhow::Result<(String, u16)> {
    // `[::1]:6514`, `::1`, `name:6514`, `name`.
    let (host, port) = match to.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => (host, port.strip_prefix(':')),
        None if to.matches(':').count() > 1 => (to, None),
        None => match to.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (to, None),
        },
    };
    let port = port.map_or(Ok(6514), str::parse);
    match port {
        Ok(port) if !host.is_empty() => Ok((host.to_owned(), port)),
        _ => bail!("{to} is not of the form HOST:PORT"),
    }
}

fn forward(home: &Home, to: &Destination) -> anyhow::Result<Ending> {
    let log = Log::open(home.root())?;
    let node = ParticipantObject::new(ObjectKind::Node, format!("{}:{}", to.host, to.port))
        .with("role", "destination");
    let act = log.begin(&used("forwarded").about(node))?;
    let done = match audit::forward(home.root(), &log, to) {
        Ok(done) => done,
        Err(error) => {
            act.failed(now_utc(), audit::Outcome::MinorFailure, "forwarding failed")?;
            return Err(error.into());
        }
    };
    act.done(now_utc())?;
    eprintln!("{} records sent, up to record {}", done.sent, done.last);
    Ok(how_much(done.sent as usize, done.unreadable as usize))
}

fn checkpoint(home: &Home, to: Option<&PathBuf>) -> anyhow::Result<Ending> {
    let line = Log::open(home.root())?.checkpoint(now_utc())?;
    let Some(path) = to else {
        say(&line)?;
        return Ok(Ending::Done);
    };
    std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .and_then(|mut file| {
            file.write_all(format!("{line}\n").as_bytes())?;
            file.sync_all()
        })
        .with_context(|| format!("could not write {}", path.display()))?;
    eprintln!("{}", path.display());
    Ok(Ending::Done)
}

/// One record on one line.
fn line_of(record: &audit::Record) -> String {
    let event = &record.event;
    let who = event
        .participants
        .first()
        .map_or("", |p| p.user_id.as_str());
    let objects: Vec<String> = event
        .objects
        .iter()
        .map(|o| match o.instances {
            Some(n) => format!("{} ({n} instances)", o.id),
            None => o.id.clone(),
        })
        .collect();
    let act = match record.act.as_str() {
        "begin" => " begins".to_owned(),
        act => act
            .strip_prefix("end:")
            .map_or_else(String::new, |begin| format!(" ends ({begin})")),
    };
    let outcome = match (u8::from(event.outcome), event.outcome_description.as_str()) {
        (0, text) => text.to_owned(),
        (code, text) => format!("failed ({code}) {text}"),
    };
    visible(&format!(
        "{:>6}  {}  {who}  {}{act}  {}  {outcome}",
        record.seq,
        event
            .time
            .to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
        event.kind().meaning,
        objects.join(", ")
    ))
}

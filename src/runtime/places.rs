//! Where a model could run on given images, and what each place would take: from the plan, and from
//! what runs there took before. Nothing is sent to anybody.

use std::sync::Arc;

use serde::Serialize;

use super::batch_engine::{identity, load_item};
use super::clock::now_utc;
use super::home::Home;
use super::models::{LoadedModel, RunError, available_bytes};
use super::open::{Opened, index_paths};
use super::remote::Thought;
use super::remote_jobs::RemoteError;
use crate::batch::{Failure, Plan, items};
use crate::inference::{self, RunPlan};
use crate::offload::{
    Account, Endpoints, History, Measured, Policy, Prefer, Profile, Spending, Spent, pace,
    slowness_here,
};
use crate::task::{Cancelled, Task};
use crate::volume::Volume;

/// A place where a model could run, as plain data.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Choice {
    /// Name of the endpoint; `None` for this machine.
    pub endpoint: Option<String>,
    /// Expected seconds of all; `None` where nothing was measured yet and no plan says it.
    pub seconds: Option<f64>,
    /// Measured runs that this comes from; 0: not measured yet.
    pub runs: usize,
    /// Peak memory on this machine, beyond the images.
    pub needed_bytes: u64,
    /// Requests, at most.
    pub requests: u64,
    /// Bytes that would leave.
    pub sent_bytes: u64,
    /// Bytes that would come back.
    pub received_bytes: u64,
    /// Price; `None` where nothing costs anything.
    pub price: Option<f64>,
    /// Whether the price counts the seconds of computing.
    pub price_is_whole: bool,
    /// Currency of the price.
    pub currency: String,
    /// Where it computes, as the profile says.
    pub region: String,
    /// What its operator keeps, as the profile says.
    pub retention: String,
    /// Why it cannot run there; `None` where it can.
    pub refused: Option<String>,
    /// Whether the person's policy would take it.
    pub chosen: bool,
}

/// Adds up a choice over any number of series.
pub struct Choosing<'a> {
    model: &'a LoadedModel,
    mirroring: bool,
    policy: Policy,
    history: Vec<Measured>,
    spending: Spending,
    here: Choice,
    there: Vec<(Profile, Choice)>,
}

impl<'a> Choosing<'a> {
    /// For a model; no series yet.
    ///
    /// # Errors
    /// [`RemoteError::Profile`], [`RemoteError::Policy`].
    pub fn new(home: &Home, model: &'a LoadedModel, mirroring: bool) -> Result<Self, RemoteError> {
        let name = model.key();
        let name = name.split('@').next().unwrap_or_default().to_owned();
        let endpoints = Endpoints::load(home.root())?;
        let there = endpoints.all().iter().map(|profile| {
            let known = profile.models.is_empty() || profile.models.contains(&name);
            let refused = (!known).then(|| "the model is not among this endpoint's".to_owned());
            let choice = Choice {
                endpoint: Some(profile.name.clone()),
                seconds: Some(0.0),
                currency: profile.price.currency.clone(),
                region: profile.region.clone(),
                retention: profile.retention.clone(),
                refused,
                ..Choice::default()
            };
            (profile.clone(), choice)
        });
        Ok(Self {
            model,
            mirroring,
            policy: Policy::load(home.root())?,
            // An estimate without a history is one by the plan.
            history: History::new(home.root()).read().unwrap_or_default(),
            spending: Spending::new(home.root()),
            here: Choice {
                seconds: Some(0.0),
                price_is_whole: true,
                ..Choice::default()
            },
            there: there.collect(),
        })
    }

    /// Adds a series.
    ///
    /// # Errors
    /// [`RemoteError::Cancelled`] alone: a place where it cannot run says so.
    pub fn add(&mut self, volume: &Volume, task: &Task) -> Result<(), RemoteError> {
        let here = self.model.plan_at(None, volume, self.mirroring, task);
        let slowness = slowness_here(&self.history, &self.model.key());
        let (factor, runs) = slowness.unwrap_or((1.0, 0));
        self.here.runs = runs;
        match here {
            Err(RunError::Cancelled(cancelled)) => return Err(cancelled.into()),
            Err(error) => {
                if let RunError::Inference(inference::Error::Memory { needed_bytes, .. }) = &error {
                    self.here.needed_bytes = self.here.needed_bytes.max(*needed_bytes);
                }
                refuse(&mut self.here, error.to_string());
            }
            Ok(plan) => {
                self.here.needed_bytes = self.here.needed_bytes.max(plan.needed_bytes);
                add_secs(&mut self.here, Some(plan.seconds.max(0.0) * factor));
            }
        }
        let free = available_bytes();
        if self.here.needed_bytes > free {
            let mb = |bytes| bytes / 1_000_000;
            let needed = self.here.needed_bytes;
            refuse(
                &mut self.here,
                format!("it needs {} MB, {} MB are free", mb(needed), mb(free)),
            );
        }
        let (model, key) = (self.model, self.model.key());
        for (profile, choice) in &mut self.there {
            if let Some(why) = self.policy.keeps(&volume.modality) {
                refuse(choice, why);
            }
            if choice.refused.is_some() {
                continue;
            }
            let thought = Arc::new(Thought(profile.clone()));
            match model.plan_at(Some(thought), volume, self.mirroring, task) {
                Err(RunError::Cancelled(cancelled)) => return Err(cancelled.into()),
                Err(error) => refuse(choice, error.to_string()),
                Ok(plan) => add_there(choice, profile, &plan, &self.history, &key),
            }
        }
        Ok(())
    }

    /// The places, this machine first; the policy's choice is marked.
    pub fn rows(self) -> Vec<Choice> {
        let limits = &self.policy.limits;
        let there = self.there.into_iter().map(|(_, mut choice)| {
            let account = Account {
                day: now_utc().format("%F").to_string(),
                job: String::new(),
                currency: choice.currency.clone(),
            };
            let more = Spent {
                requests: choice.requests,
                bytes: choice.sent_bytes + choice.received_bytes,
                cost: choice.price.unwrap_or_default(),
            };
            if let Err(error) = self.spending.allows(&account, more, limits) {
                refuse(&mut choice, error.to_string());
            }
            choice
        });
        let mut rows: Vec<Choice> = std::iter::once(self.here).chain(there).collect();
        if let Some(n) = chosen(&rows, self.policy.prefer) {
            rows[n].chosen = true;
        }
        rows
    }
}

/// The places for one image.
///
/// # Errors
/// As [`Choosing::new`] and [`Choosing::add`].
pub fn choices(
    home: &Home,
    model: &LoadedModel,
    volume: &Volume,
    mirroring: bool,
    task: &Task,
) -> Result<Vec<Choice>, RemoteError> {
    let mut choosing = Choosing::new(home, model, mirroring)?;
    choosing.add(volume, task)?;
    Ok(choosing.rows())
}

/// The places for all images that a plan names, and how many series these are. Reads each.
///
/// # Errors
/// As [`choices`].
pub fn choices_of(
    home: &Home,
    model: &LoadedModel,
    plan: &Plan,
    task: &Task,
) -> Result<(usize, Vec<Choice>), RemoteError> {
    let Opened { worklist, files } = index_paths(&plan.inputs, task)?;
    let all = items(worklist, files, &identity(model, plan.mirroring), plan);
    let suited: Vec<_> = all.iter().filter(|item| item.unsuited.is_none()).collect();
    let mut choosing = Choosing::new(home, model, plan.mirroring)?;
    task.begin("Counting", suited.len());
    let mut series = 0;
    for (n, item) in suited.iter().enumerate() {
        task.check()?;
        match load_item(&item.source, task) {
            Ok(volume) => choosing.add(&volume, task)?,
            Err(Failure::Cancelled) => return Err(Cancelled.into()),
            // A run would say why.
            Err(Failure::Reason(_)) => continue,
        }
        series += 1;
        task.report(n + 1, suited.len());
    }
    Ok((series, choosing.rows()))
}

/// The first reason stays.
fn refuse(choice: &mut Choice, why: String) {
    choice.refused.get_or_insert(why);
}

/// Unknown and anything is unknown.
fn add_secs(choice: &mut Choice, more: Option<f64>) {
    choice.seconds = choice.seconds.zip(more).map(|(all, more)| all + more);
}

/// Adds a series to what an endpoint would take.
fn add_there(
    choice: &mut Choice,
    profile: &Profile,
    plan: &RunPlan,
    history: &[Measured],
    model: &str,
) {
    let traffic = plan.traffic;
    // Four bytes a value, as the plan counts.
    let values = traffic.sent_bytes as f64 / 4.0;
    let pace = pace(history, model, &profile.name);
    let measured = |per_value: f64| (per_value * values).ceil() as u64;
    let (sent, received) = match pace {
        Some(pace) => (
            measured(pace.sent_bytes).min(traffic.sent_bytes),
            measured(pace.received_bytes).min(traffic.received_bytes),
        ),
        None => (traffic.sent_bytes, traffic.received_bytes),
    };
    choice.runs = pace.map_or(0, |pace| pace.runs);
    choice.needed_bytes = choice.needed_bytes.max(plan.needed_bytes);
    choice.requests += traffic.calls;
    choice.sent_bytes += sent;
    choice.received_bytes += received;
    add_secs(
        choice,
        pace.map(|pace| plan.seconds.max(0.0) + pace.away_secs * values),
    );
    choice.price_is_whole = pace.is_some() || profile.price.per_gpu_second == 0.0;
    if !profile.price.is_free() {
        let gpu_secs = pace.map_or(0.0, |pace| pace.server_secs * values);
        let price = profile.price.of(traffic.calls, sent + received, gpu_secs);
        *choice.price.get_or_insert(0.0) += price;
    }
}

/// The place that a policy takes among those that can.
fn chosen(rows: &[Choice], prefer: Prefer) -> Option<usize> {
    let can = || (0..rows.len()).filter(|&n| rows[n].refused.is_none());
    // What was not measured comes after all that was; of equal ones the first, which is this machine.
    let secs = |n: &usize| match (rows[*n].runs, &rows[*n].endpoint, rows[*n].seconds) {
        (0, Some(_), _) | (_, _, None) => f64::INFINITY,
        (_, _, Some(secs)) => secs,
    };
    let price = |n: &usize| match rows[*n].price {
        None => 0.0,
        Some(_) if !rows[*n].price_is_whole => f64::INFINITY,
        Some(price) => price,
    };
    let fastest = |a: &usize, b: &usize| secs(a).total_cmp(&secs(b));
    let is_remote = |n: &usize| rows[*n].endpoint.is_some();
    match prefer {
        Prefer::Local => can().next(),
        Prefer::Remote => can().filter(is_remote).min_by(fastest).or(can().next()),
        Prefer::Fastest => can().min_by(fastest),
        Prefer::Cheapest => can().min_by(|a, b| price(a).total_cmp(&price(b)).then(fastest(a, b))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(endpoint: Option<&str>, runs: usize, seconds: f64, price: Option<f64>) -> Choice {
        Choice {
            endpoint: endpoint.map(str::to_owned),
            seconds: Some(seconds),
            runs,
            price,
            price_is_whole: true,
            ..Choice::default()
        }
    }

    #[test]
    fn a_policy_takes_the_place_that_it_says_among_those_that_can() {
        let mut rows = vec![
            row(None, 3, 60.0, None),
            row(Some("dear"), 2, 5.0, Some(2.0)),
            row(Some("free"), 4, 20.0, None),
            row(Some("new"), 0, 0.0, Some(0.5)),
        ];
        let of = |rows: &[Choice], prefer| chosen(rows, prefer);
        assert_eq!(of(&rows, Prefer::Local), Some(0));
        assert_eq!(of(&rows, Prefer::Remote), Some(1));
        assert_eq!(of(&rows, Prefer::Fastest), Some(1));
        // Two cost nothing: the faster one.
        assert_eq!(of(&rows, Prefer::Cheapest), Some(2));
        // What nobody has measured is never the fastest.
        rows[1].refused = Some("a limit".to_owned());
        rows[2].refused = Some("a limit".to_owned());
        assert_eq!(of(&rows, Prefer::Fastest), Some(0));
        assert_eq!(of(&rows, Prefer::Remote), Some(3));
        // Without this machine, the policy goes where it can.
        rows[0].refused = Some("memory".to_owned());
        assert_eq!(of(&rows, Prefer::Local), Some(3));
        rows[3].refused = Some("modality".to_owned());
        assert_eq!(of(&rows, Prefer::Local), None);
    }

    #[test]
    fn a_price_without_the_computing_is_no_low_price() {
        let mut rows = vec![
            row(Some("a"), 1, 5.0, Some(1.0)),
            row(Some("b"), 0, 5.0, Some(0.1)),
        ];
        rows[1].price_is_whole = false;
        assert_eq!(chosen(&rows, Prefer::Cheapest), Some(0));
    }
}

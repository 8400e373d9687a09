//! What a run on a server would send, for a person to see before it does.

use crate::offload::Profile;

/// What a run would send, for a person to see before it does.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Leaving {
    /// Name of the endpoint.
    pub endpoint: String,
    /// Where it is.
    pub url: String,
    /// Where it computes, as the profile says.
    pub region: String,
    /// What its operator keeps, as the profile says.
    pub retention: String,
    /// Model there.
    pub model: String,
    /// SHA-256 of the public key that the server has shown.
    pub server_key: Option<String>,
    /// Series that are sent.
    pub series: usize,
    /// Requests, at most.
    pub requests: u64,
    /// Values that leave, at most, before any compression.
    pub sent_bytes: u64,
    /// Values that come back, at most.
    pub received_bytes: u64,
    /// Seconds of the server's work, from measured runs of this model there.
    pub server_secs: Option<f64>,
    /// What it costs by the profile's prices; `None` where nothing costs anything. Without the
    /// seconds of computing where these are not known.
    pub price: Option<f64>,
    /// Currency of the price.
    pub currency: String,
    /// Series that show a head: a face can be told from its slices.
    pub heads: usize,
    /// Series of images as people see them: words in the pixels leave with them.
    pub pictures: usize,
    /// Why series stay here by the person's policy; each reason once.
    pub kept_back: Vec<String>,
    /// Why all of this may not be sent: a limit of the person's policy.
    pub over: Option<String>,
}

impl Leaving {
    /// For a profile and a model, nothing counted yet.
    pub fn new(profile: &Profile, model: &str, server_key: Option<String>) -> Self {
        Self {
            endpoint: profile.name.clone(),
            url: profile.url.clone(),
            region: profile.region.clone(),
            retention: profile.retention.clone(),
            model: model.to_owned(),
            server_key,
            series: 0,
            requests: 0,
            sent_bytes: 0,
            received_bytes: 0,
            server_secs: None,
            price: None,
            currency: profile.price.currency.clone(),
            heads: 0,
            pictures: 0,
            kept_back: Vec::new(),
            over: None,
        }
    }

    /// Adds up the price, when everything is counted.
    pub fn priced(&mut self, profile: &Profile) {
        let bytes = self.sent_bytes + self.received_bytes;
        let secs = self.server_secs.unwrap_or_default();
        let sum = profile.price.of(self.requests, bytes, secs);
        self.price = (!profile.price.is_free()).then_some(sum);
    }

    /// Names and what they are, for a person.
    pub fn facts(&self) -> Vec<(String, String)> {
        let or = |text: &str| {
            if text.is_empty() {
                "not told".to_owned()
            } else {
                text.to_owned()
            }
        };
        let mb = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
        let key = match (&self.server_key, self.url.starts_with("https:")) {
            (Some(key), _) => format!("SHA-256 {key}"),
            (None, true) => "not seen yet: this service is not asked before".to_owned(),
            (None, false) => "none: no TLS".to_owned(),
        };
        let mut facts = vec![
            ("To", format!("{} ({})", self.endpoint, self.url)),
            ("Server's key", key),
            ("Region", or(&self.region)),
            ("It keeps", or(&self.retention)),
            ("Model", self.model.clone()),
            (
                "Leaves",
                format!(
                    "image values of {} series, resampled for the model: at most {} in {} request{}",
                    self.series,
                    mb(self.sent_bytes),
                    self.requests,
                    if self.requests == 1 { "" } else { "s" }
                ),
            ),
            ("Returns", format!("at most {}", mb(self.received_bytes))),
        ];
        if let Some(price) = self.price {
            let without = match self.server_secs {
                Some(_) => "",
                None => " without computing time, which was not measured yet",
            };
            facts.push((
                "Price",
                format!("about {price:.2} {}{without}", self.currency),
            ));
        }
        let named = |(name, what): (&str, String)| (name.to_owned(), what);
        facts.into_iter().map(named).collect()
    }

    /// What is doubtful about sending it.
    pub fn doubts(&self) -> Vec<String> {
        let may = "may show a face, which can be recognized from its slices";
        let mut doubts = match (self.heads, self.series) {
            (0, _) => Vec::new(),
            (1, 1) => vec![format!("The series {may}")],
            (heads, _) => vec![format!("{heads} of the series {may}")],
        };
        if self.pictures > 0 {
            doubts.push(
                "Whole pictures leave: words that stand in their pixels leave with them, as far \
                 as they can be read at the model's size"
                    .to_owned(),
            );
        }
        doubts
    }

    /// Lines for a person at a terminal.
    pub fn lines(&self) -> Vec<String> {
        const STAYS: &str = "all attributes: names, identifiers, dates, UIDs, positions; nothing of the files is sent";
        let named = |name: &str, what: &String| (name.to_owned(), what.clone());
        let doubts = self.doubts();
        let all = (self.facts().into_iter())
            .chain([("Stays".to_owned(), STAYS.to_owned())])
            .chain(doubts.iter().map(|doubt| named("DOUBT", doubt)))
            .chain(self.kept_back.iter().map(|why| named("STAYS", why)))
            .chain(self.over.iter().map(|why| named("REFUSED", why)));
        all.map(|(name, what)| format!("{name:<13} {what}"))
            .collect()
    }
}

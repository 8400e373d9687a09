//! `dataset.json`: what the channels are and what the labels mean.

use serde_json::Value;

use super::fields::{Fields, Read, whole_of};

/// Labels above are no labels of nnU-Net's (it writes 16 bits).
const HIGHEST: usize = 0xffff;

/// Channels and labels of a data set.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// Names of the input channels, in order.
    pub channels: Vec<String>,
    /// Names of single labels, background first; a label has the number of its place. Where regions
    /// are predicted, labels may have no name of their own.
    pub labels: Vec<Option<String>>,
    /// What is predicted instead of labels, in the order of the network's channels; empty for none.
    pub regions: Vec<Region>,
    /// Voxels that training passed over; never predicted.
    pub ignore_label: Option<usize>,
    /// E.g. `.nii.gz`.
    pub file_ending: String,
}

/// Labels that are predicted together, by a sigmoid of their own.
#[derive(Debug, Clone, PartialEq)]
pub struct Region {
    /// Its name.
    pub name: String,
    /// The labels that make it up.
    pub labels: Vec<usize>,
    /// What is written where its probability is above 0.5, over what earlier regions wrote.
    pub written: usize,
}

impl Dataset {
    /// Numbers of all labels but background.
    pub fn foreground_labels(&self) -> Vec<usize> {
        (1..self.labels.len()).collect()
    }

    /// Output channels of the network.
    pub fn heads(&self) -> usize {
        if self.regions.is_empty() {
            self.labels.len()
        } else {
            self.regions.len()
        }
    }

    pub(super) fn parse(fields: &Fields) -> Read<Self> {
        let names = if fields.optional("channel_names").is_some() {
            "channel_names"
        } else if fields.optional("modality").is_some() {
            "modality"
        } else {
            return Err("channel_names is missing".to_owned());
        };
        let described = fields.object(names)?;
        let count = described.all().count();
        if count == 0 || count > 64 {
            return Err(format!("{names} has {count} channels"));
        }
        let channels = (0..count)
            .map(|n| described.text(&n.to_string()).map(str::to_owned))
            .collect::<Read<_>>()?;

        let labels = fields.object("labels")?;
        if labels.optional("background").and_then(whole_of) != Some(0) {
            return Err("labels.background is not 0".to_owned());
        }
        let ignore_label = match labels.optional("ignore") {
            None => None,
            Some(_) => Some(labels.whole("ignore", 1, HIGHEST)?),
        };
        let mut parts: Vec<(String, Vec<usize>, bool)> = Vec::new();
        for (name, value) in labels.all().filter(|(name, _)| *name != "ignore") {
            let numbers = match value {
                Value::Array(list) => list.iter().map(whole_of).collect(),
                single => whole_of(single).map(|number| vec![number]),
            };
            let numbers: Option<Vec<usize>> =
                numbers.filter(|n: &Vec<usize>| !n.is_empty() && n.iter().all(|n| *n <= HIGHEST));
            let Some(numbers) = numbers else {
                return labels.refuse(name);
            };
            parts.push((name.clone(), numbers, value.is_array()));
        }
        let mut all: Vec<usize> = parts.iter().flat_map(|(_, n, _)| n.clone()).collect();
        all.sort_unstable();
        all.dedup();
        if all.len() < 2 || all.iter().enumerate().any(|(place, label)| place != *label) {
            return Err(format!(
                "labels are numbered {all:?}, expected 0, 1, 2, … without gaps"
            ));
        }
        if ignore_label.is_some_and(|ignore| ignore != all.len()) {
            return Err(format!(
                "labels.ignore is not {}, the number after the last label",
                all.len()
            ));
        }
        let mut named = vec![None; all.len()];
        for (name, numbers, _) in &parts {
            if let [number] = numbers.as_slice() {
                named[*number] = Some(name.clone());
            }
        }
        let regions = if parts.iter().any(|(_, numbers, _)| numbers.len() > 1) {
            regions_of(fields, parts)?
        } else {
            if let Some(number) = named.iter().position(Option::is_none) {
                return Err(format!("labels has no name for {number}"));
            }
            Vec::new()
        };
        Ok(Self {
            channels,
            labels: named,
            regions,
            ignore_label,
            file_ending: fields.text("file_ending")?.to_owned(),
        })
    }
}

fn regions_of(fields: &Fields, parts: Vec<(String, Vec<usize>, bool)>) -> Read<Vec<Region>> {
    let parts: Vec<_> = parts
        .into_iter()
        .filter(|(_, numbers, _)| numbers.iter().any(|n| *n != 0))
        .collect();
    let order = fields.list("regions_class_order")?;
    if order.len() != parts.len() {
        return Err(format!(
            "regions_class_order has {} entries for {} regions",
            order.len(),
            parts.len()
        ));
    }
    parts
        .into_iter()
        .zip(order)
        .map(|((name, labels, _), written)| {
            match whole_of(written).filter(|w| (1..=HIGHEST).contains(w)) {
                Some(written) => Ok(Region {
                    name,
                    labels,
                    written,
                }),
                None => fields.refuse("regions_class_order"),
            }
        })
        .collect()
}

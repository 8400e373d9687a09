//! Which images of the open study a model of several channels would take.

use super::{App, SeriesKey};
use crate::model::channels::{Candidate, channel_of_file, match_channels};
use crate::study::{Issue, Patient, Series, Study};

/// One channel's image.
#[derive(Clone, Debug)]
pub struct ChannelSource {
    /// The channel's name.
    pub channel: String,
    /// The image's name on screen.
    pub title: String,
    /// Which.
    pub key: SeriesKey,
    /// Headers needed to load it (`None` for files).
    pub series: Option<Box<(Patient, Study, Series)>>,
}

/// Fewest slices that count as a volume.
const FEWEST_SLICES: usize = 5;

impl App {
    /// The images for the channels of the chosen model, the open one first; empty for a model that
    /// takes one image, or while nothing is open.
    ///
    /// # Errors
    /// In words, what is missing or not unique.
    pub fn channel_sources(&self) -> Result<Vec<ChannelSource>, String> {
        let chosen = self.selected_model.as_ref();
        let model = chosen.and_then(|key| self.models.iter().find(|m| m.key == *key));
        let (Some(model), Some(open)) = (model, &self.workspace.open) else {
            return Ok(Vec::new());
        };
        if model.channels.len() < 2 {
            return Ok(Vec::new());
        }
        let (candidates, sources) = self.beside(&open.key);
        let numbered: Vec<Option<usize>> = (0..model.channels.len())
            .map(|channel| numbered(&open.key, &sources, channel))
            .collect();
        let matched: Vec<usize> = match numbered.iter().copied().collect() {
            Some(by_number) => by_number,
            None => match_channels(&model.channels, &candidates, &[]).map_err(|e| {
                let there = e.candidates.join(", ");
                format!(
                    "The model takes {} images of one study: {} (there are: {there}). The command line can name them with --channel.",
                    model.channels.len(),
                    e.reason
                )
            })?,
        };
        let found: Vec<ChannelSource> = matched
            .iter()
            .zip(&model.channels)
            .map(|(&at, channel)| ChannelSource {
                channel: channel.clone(),
                ..sources[at].clone()
            })
            .collect();
        if found[0].key == open.key {
            Ok(found)
        } else {
            Err(format!(
                "Open {} first: results lie on the images of the model's first channel, {}",
                found[0].title, found[0].channel
            ))
        }
    }

    /// Images of the same study, or files of the same folder.
    fn beside(&self, key: &SeriesKey) -> (Vec<Candidate>, Vec<ChannelSource>) {
        let (mut candidates, mut sources) = (Vec::new(), Vec::new());
        match key {
            SeriesKey::Stack { series, .. } => {
                let Some((patient, study, _)) = self.browser.find(series) else {
                    return (candidates, sources);
                };
                for series in &study.series {
                    for (stack, images) in series.stacks.iter().enumerate() {
                        let localizer = series.issues.contains(&Issue::Localizer)
                            || images.issues.contains(&Issue::Localizer);
                        if !images.is_volume || images.images.len() < FEWEST_SLICES || localizer {
                            continue;
                        }
                        candidates.push(Candidate::of_stack(series, stack));
                        let (mut patient, mut study) = (patient.clone(), study.clone());
                        patient.studies.clear();
                        study.series.clear();
                        sources.push(ChannelSource {
                            channel: String::new(),
                            title: match series.description.as_str() {
                                "" => format!("{} series", series.modality),
                                words => words.to_owned(),
                            },
                            key: SeriesKey::Stack {
                                series: series.series_instance_uid.clone(),
                                stack,
                            },
                            series: Some(Box::new((patient, study, series.clone()))),
                        });
                    }
                }
            }
            SeriesKey::File(path) => {
                for file in &self.browser.files {
                    if file.path.parent() != path.parent() {
                        continue;
                    }
                    candidates.push(Candidate::of_file(&file.name));
                    sources.push(ChannelSource {
                        channel: String::new(),
                        title: file.name.clone(),
                        key: SeriesKey::File(file.path.clone()),
                        series: None,
                    });
                }
            }
        }
        (candidates, sources)
    }
}

/// The file of the open one's case that nnU-Net's naming gives to a channel.
fn numbered(key: &SeriesKey, sources: &[ChannelSource], channel: usize) -> Option<usize> {
    let SeriesKey::File(path) = key else {
        return None;
    };
    let name = path.file_name()?.to_str()?;
    let (case, _) = channel_of_file(name)?;
    sources
        .iter()
        .position(|s| channel_of_file(&s.title) == Some((case, channel)))
}

//! Items for a model that takes several images of a patient at once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::engine::ModelIdentity;
use super::plan::{Item, ItemSource, file_key, file_name, title, unique, unsuited};
use crate::model::channels::{Candidate, channel_of_file, match_channels};
use crate::study::Worklist;

/// One item for each study, for each case of files named as nnU-Net does (`case_0000.nii.gz`,
/// `case_0001.nii.gz`, …), and for each folder of files named otherwise.
pub(super) fn items(
    worklist: Worklist,
    files: Vec<PathBuf>,
    model: &ModelIdentity,
    chosen: &[(String, String)],
) -> Vec<Item> {
    let mut items = studies(worklist, model, chosen);
    let mut cases: BTreeMap<(PathBuf, String), Vec<(usize, PathBuf)>> = BTreeMap::new();
    let mut others: BTreeMap<PathBuf, Vec<PathBuf>> = BTreeMap::new();
    for path in files {
        let folder = path.parent().map(Path::to_owned).unwrap_or_default();
        let name = file_name(&path);
        match channel_of_file(&name) {
            Some((case, channel)) => {
                let of_case = cases.entry((folder, case.to_owned())).or_default();
                of_case.push((channel, path));
            }
            None => others.entry(folder).or_default().push(path),
        }
    }
    for ((_, case), found) in cases {
        let key = unique(file_key(&case), &items);
        items.push(case_item(&case, key, &found, model));
    }
    for (folder, files) in others {
        let name = file_name(&folder);
        let key = unique(file_key(&name), &items);
        items.push(folder_item(name, key, &files, model, chosen));
    }
    items
}

fn studies(worklist: Worklist, model: &ModelIdentity, chosen: &[(String, String)]) -> Vec<Item> {
    let mut items = Vec::new();
    for mut patient in worklist.patients {
        for mut study in std::mem::take(&mut patient.studies) {
            let series = std::mem::take(&mut study.series);
            let places: Vec<(usize, usize)> = (0..series.len())
                .flat_map(|s| (0..series[s].stacks.len()).map(move |stack| (s, stack)))
                // Which modality each channel is of the match decides.
                .filter(|&(s, stack)| {
                    unsuited(&series[s], &series[s].stacks[stack], "", false).is_none()
                })
                .collect();
            let candidates: Vec<Candidate> = places
                .iter()
                .map(|&(s, stack)| Candidate::of_stack(&series[s], stack))
                .collect();
            let study_key = study.study_instance_uid.to_string();
            match match_channels(&model.channels, &candidates, chosen) {
                Err(error) => {
                    let name = match study.description.as_str() {
                        "" => "Study".to_owned(),
                        text => text.to_owned(),
                    };
                    items.push(Item::nothing(name, study_key, error.to_string()));
                }
                Ok(matched) => {
                    let mut sources = matched.iter().map(|&at| {
                        let (s, stack) = places[at];
                        let headers = Box::new((patient.clone(), study.clone(), series[s].clone()));
                        ItemSource::Stack { headers, stack }
                    });
                    let source = sources
                        .next()
                        .expect("models of several channels have a first");
                    let further = sources.collect();
                    let first = &candidates[matched[0]].id;
                    items.push(Item {
                        title: matched
                            .iter()
                            .map(|&at| title(&series[places[at].0]))
                            .collect::<Vec<_>>()
                            .join(" + "),
                        key: format!("{study_key}/{first}"),
                        source,
                        further,
                        unsuited: None,
                    });
                }
            }
        }
    }
    items
}

fn case_item(case: &str, key: String, found: &[(usize, PathBuf)], model: &ModelIdentity) -> Item {
    let count = model.channels.len();
    let path_of = |n: usize| {
        let mut of = found.iter().filter(|(channel, _)| *channel == n);
        of.next().map(|(_, path)| path.clone())
    };
    let missing: Vec<String> = (0..count)
        .filter(|&n| path_of(n).is_none())
        .map(|n| format!("{case}_{n:04} ({})", model.channels[n]))
        .collect();
    if !missing.is_empty() {
        let reason = format!("without a file for {}", missing.join(", "));
        return Item::nothing(case.to_owned(), key, reason);
    }
    if let Some((channel, _)) = found.iter().find(|(channel, _)| *channel >= count) {
        let reason = format!("a file for channel {channel}, the model has {count} from 0");
        return Item::nothing(case.to_owned(), key, reason);
    }
    let mut sources = (0..count).filter_map(path_of).map(ItemSource::File);
    Item {
        title: case.to_owned(),
        key,
        source: sources.next().expect("no channel is missing"),
        further: sources.collect(),
        unsuited: None,
    }
}

fn folder_item(
    name: String,
    key: String,
    files: &[PathBuf],
    model: &ModelIdentity,
    chosen: &[(String, String)],
) -> Item {
    let candidates: Vec<Candidate> = files
        .iter()
        .map(|path| Candidate::of_file(&file_name(path)))
        .collect();
    let chosen: Vec<(String, String)> = chosen
        .iter()
        .map(|(channel, file)| (channel.clone(), file_name(Path::new(file))))
        .collect();
    match match_channels(&model.channels, &candidates, &chosen) {
        Err(error) => Item::nothing(name, key, error.to_string()),
        Ok(matched) => {
            let mut sources = matched
                .iter()
                .map(|&at| ItemSource::File(files[at].clone()));
            Item {
                title: name,
                key,
                source: sources
                    .next()
                    .expect("models of several channels have a first"),
                further: sources.collect(),
                unsuited: None,
            }
        }
    }
}

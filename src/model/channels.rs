//! Which image feeds which input channel of a model that takes several.
//!
//! By words: a channel's name against what a series is called. A choice that is not unique is no
//! choice: it is refused with the candidates, and a person names them.

use crate::study::Series;

/// One image that could be a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// What a person calls it by: a Series Instance UID, or a file's name.
    pub id: String,
    /// Series description or a file's name.
    pub words: String,
    /// Protocol and sequence: believed where the words above tell nothing.
    pub protocol: String,
    /// DICOM's modality; empty where the file names none.
    pub modality: String,
    /// The header names a contrast agent.
    pub contrast: bool,
}

impl Candidate {
    /// A stack of a series, known by its UID, and by its number where there are several.
    pub fn of_stack(series: &Series, stack: usize) -> Self {
        let number = if series.stacks.len() > 1 {
            format!("-stack{stack}")
        } else {
            String::new()
        };
        let label = series.stacks.get(stack).map_or("", |s| s.label.as_str());
        Self {
            id: format!("{}{number}", series.series_instance_uid),
            words: format!("{} {label}", series.description).trim().to_owned(),
            protocol: series.protocol.clone(),
            modality: series.modality.clone(),
            contrast: series.contrast,
        }
    }

    /// A volume file, known by its name.
    pub fn of_file(name: &str) -> Self {
        let words = name.trim_end_matches(".gz").trim_end_matches(".nii");
        Self {
            id: name.to_owned(),
            words: words.to_owned(),
            protocol: String::new(),
            modality: String::new(),
            contrast: false,
        }
    }
}

/// Why channels and images were not matched; for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}; {}; name them with --channel {first}={}, once for each channel", list(.candidates), "SERIES or FILE")]
pub struct ChannelError {
    /// What is missing or not unique.
    pub reason: String,
    /// The first channel that is in doubt.
    pub first: String,
    /// `id (words)` of what is there.
    pub candidates: Vec<String>,
}

fn list(candidates: &[String]) -> String {
    match candidates {
        [] => "there are no images that could be one".to_owned(),
        all => format!("there are: {}", all.join(", ")),
    }
}

/// For each channel the index of its image. `chosen` are pairs of channel and id, which come first.
///
/// A channel of a known kind (T1, T1 with contrast, T2, FLAIR, T2*, PD, ADC, DWI, CT, PET) takes the
/// only image of that kind; any other the only image whose words hold all of its own.
///
/// # Errors
/// [`ChannelError`], naming every channel without its one image.
pub fn match_channels(
    channels: &[String],
    candidates: &[Candidate],
    chosen: &[(String, String)],
) -> Result<Vec<usize>, ChannelError> {
    let refuse = |first: &str, reason: String| ChannelError {
        reason,
        first: first.to_owned(),
        candidates: candidates
            .iter()
            .map(|c| match c.words.trim() {
                "" => c.id.clone(),
                words if words == c.id => c.id.clone(),
                words => format!("{} ({words})", c.id),
            })
            .collect(),
    };
    let mut found: Vec<Option<usize>> = vec![None; channels.len()];
    for (name, id) in chosen {
        let Some(channel) = channels.iter().position(|c| c.eq_ignore_ascii_case(name)) else {
            let reason = format!(
                "the model has no channel {name:?}, its channels are {}",
                channels.join(", ")
            );
            return Err(refuse(channels.first().map_or("NAME", |c| c), reason));
        };
        // An id may belong to another study of the same run: then the rule decides here.
        if let Some(at) = candidates.iter().position(|c| c.id == *id) {
            found[channel] = Some(at);
        }
    }
    let taken = found.clone();
    let mut doubts: Vec<(&str, String)> = Vec::new();
    for (channel, name) in channels.iter().enumerate() {
        if found[channel].is_some() {
            continue;
        }
        let fits: Vec<usize> = (0..candidates.len())
            .filter(|at| !taken.contains(&Some(*at)) && suits(name, &candidates[*at]))
            .collect();
        match fits.as_slice() {
            [one] => found[channel] = Some(*one),
            [] => doubts.push((name, format!("no image for the channel {name}"))),
            several => doubts.push((
                name,
                format!("{} images for the channel {name}", several.len()),
            )),
        }
    }
    if let Some((first, _)) = doubts.first() {
        let reasons: Vec<&str> = doubts.iter().map(|(_, reason)| reason.as_str()).collect();
        return Err(refuse(first, reasons.join(", ")));
    }
    let matched: Vec<usize> = found.into_iter().flatten().collect();
    for (n, at) in matched.iter().enumerate() {
        if let Some(before) = matched[..n].iter().position(|other| other == at) {
            let reason = format!(
                "one image for the channels {} and {}",
                channels[before], channels[n]
            );
            return Err(refuse(&channels[before], reason));
        }
    }
    Ok(matched)
}

fn suits(channel: &str, candidate: &Candidate) -> bool {
    let of = |text: &str| Kind::of(text, &candidate.modality, candidate.contrast);
    if let Some(wanted) = Kind::of(channel, "", false) {
        return of(&candidate.words).or_else(|| of(&candidate.protocol)) == Some(wanted);
    }
    let (wanted, has) = (words(channel), words(&candidate.words));
    !wanted.is_empty() && wanted.iter().all(|word| has.contains(word))
}

/// What channels are usually made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    T1,
    T1Contrast,
    T2,
    T2Star,
    Flair,
    ProtonDensity,
    Adc,
    Diffusion,
    Ct,
    Pet,
}

impl Kind {
    fn of(text: &str, modality: &str, contrast: bool) -> Option<Self> {
        let lower = text.to_lowercase();
        let words = words(text);
        let any = |list: &[&str]| words.iter().any(|word| list.contains(&word.as_str()));
        let within = |list: &[&str]| list.iter().any(|part| lower.contains(part));
        match modality {
            "CT" => return Some(Self::Ct),
            "PT" => return Some(Self::Pet),
            _ => {}
        }
        // The most particular first: a FLAIR is called T2 too, an ADC map DWI too.
        if within(&["flair", "tirm", "dark-fluid", "darkfluid", "dark fluid"]) {
            return Some(Self::Flair);
        }
        if any(&["adc"]) || within(&["apparent diffusion"]) {
            return Some(Self::Adc);
        }
        if any(&["dwi", "trace", "b1000"]) || within(&["diff"]) {
            return Some(Self::Diffusion);
        }
        if any(&["swi", "t2star"]) || within(&["t2*", "t2_star", "suscept"]) {
            return Some(Self::T2Star);
        }
        let starts = |start: &str| words.iter().any(|word| word.starts_with(start));
        if starts("t1") || any(&["mprage", "spgr", "bravo", "mp2rage"]) {
            let agent = any(&[
                "gd", "gad", "gado", "ce", "c", "km", "post", "contrast", "enhanced", "t1c",
                "t1ce", "t1gd", "t1post", "t1km", "t1cw",
            ]) || within(&["gadolin", "postcon", "+c", "t1+"]);
            let without = any(&["pre", "native", "noncontrast", "without", "non"]);
            return Some(if (agent || contrast) && !without {
                Self::T1Contrast
            } else {
                Self::T1
            });
        }
        if starts("t2") {
            return Some(Self::T2);
        }
        if any(&["pd", "pdw"]) || within(&["proton"]) {
            return Some(Self::ProtonDensity);
        }
        if any(&["ct"]) {
            return Some(Self::Ct);
        }
        any(&["pet", "suv", "pt"]).then_some(Self::Pet)
    }
}

/// Letters and digits in lower case, cut at everything else.
fn words(text: &str) -> Vec<String> {
    text.to_lowercase()
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

/// nnU-Net's name of a file for a channel: `case_0001.nii.gz` is channel 1 of `case`.
pub fn channel_of_file(name: &str) -> Option<(&str, usize)> {
    let stem = name
        .strip_suffix(".nii.gz")
        .or_else(|| name.strip_suffix(".nii"))?;
    let (case, number) = stem.rsplit_once('_')?;
    let digits = number.len() == 4 && number.bytes().all(|b| b.is_ascii_digit());
    (digits && !case.is_empty()).then(|| (case, number.parse().expect("four digits")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(id: &str, words: &str) -> Candidate {
        Candidate {
            id: id.to_owned(),
            words: words.to_owned(),
            protocol: String::new(),
            modality: "MR".to_owned(),
            contrast: false,
        }
    }

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|n| (*n).to_owned()).collect()
    }

    fn check(channels: &[&str], candidates: &[Candidate], expected: Option<&[usize]>) {
        let found = match_channels(&names(channels), candidates, &[]);
        assert_eq!(found.ok().as_deref(), expected, "{channels:?}");
    }

    #[test]
    fn a_brain_tumor_study_is_matched_by_its_series_descriptions() {
        let study = [
            series("1", "AX FLAIR T2"),
            series("2", "t1_mprage_sag"),
            series("3", "t1_mprage_sag post Gd"),
            series("4", "AX T2 TSE"),
            series("5", "ep2d_diff_ADC"),
            series("6", "ep2d_diff_TRACEW"),
        ];
        check(&["T1", "T1ce", "T2", "FLAIR"], &study, Some(&[1, 2, 3, 0]));
        check(&["ADC", "DWI"], &study, Some(&[4, 5]));
        check(&["t1w", "t1gd"], &study, Some(&[1, 2]));
        check(&["T1", "PET"], &study, None);
    }

    #[test]
    fn a_contrast_agent_of_the_header_tells_two_series_of_one_name_apart() {
        let mut after = series("2", "AX T1");
        after.contrast = true;
        check(
            &["T1", "T1c"],
            &[series("1", "AX T1"), after],
            Some(&[0, 1]),
        );
    }

    #[test]
    fn two_series_for_one_channel_are_no_choice() {
        let study = [
            series("1.2", "T1 sag"),
            series("1.3", "T1 ax"),
            series("1.4", "FLAIR"),
        ];
        let channels = names(&["T1", "FLAIR"]);
        let refused = match_channels(&channels, &study, &[]).unwrap_err();
        let text = refused.to_string();
        assert!(text.contains("2 images for the channel T1"), "{text}");
        assert!(text.contains("1.3 (T1 ax)"), "{text}");
        assert!(text.contains("--channel T1="), "{text}");
        let chosen = [("t1".to_owned(), "1.3".to_owned())];
        assert_eq!(match_channels(&channels, &study, &chosen), Ok(vec![1, 2]));
        let unknown = [("T9".to_owned(), "1.3".to_owned())];
        assert!(match_channels(&channels, &study, &unknown).is_err());
    }

    #[test]
    fn a_chosen_image_is_not_taken_by_another_channel() {
        let study = [series("1.2", "T1 sag"), series("1.3", "T1 ax")];
        let chosen = [("mask".to_owned(), "1.2".to_owned())];
        let found = match_channels(&names(&["mask", "T1"]), &study, &chosen);
        assert_eq!(found, Ok(vec![0, 1]));
    }

    #[test]
    fn unknown_channels_are_found_by_all_of_their_words() {
        let study = [series("1", "perfusion map CBF"), series("2", "perfusion")];
        check(&["cbf"], &study, Some(&[0]));
        check(&["perfusion"], &study, None);
    }

    #[test]
    fn positron_emission_and_computed_tomography_go_by_modality() {
        let of = |id: &str, modality: &str| Candidate {
            modality: modality.to_owned(),
            ..series(id, "WB")
        };
        check(
            &["CT", "SUV"],
            &[of("a", "PT"), of("b", "CT")],
            Some(&[1, 0]),
        );
    }

    #[test]
    fn file_names_are_read_as_nnunet_writes_them() {
        for (name, expected) in [
            ("case_0000.nii.gz", Some(("case", 0))),
            ("a_b_0012.nii", Some(("a_b", 12))),
            ("case_000.nii.gz", None),
            ("case.nii.gz", None),
            ("_0000.nii.gz", None),
            ("case_00a0.nii.gz", None),
        ] {
            assert_eq!(channel_of_file(name), expected, "{name}");
        }
    }
}

//! A classifier's temperatures and thresholds anew, for the images of another place, or after its
//! weights were pruned. The weights stay.

use std::fmt::Write as _;

use super::Error;
use super::evaluate::{ClassFigures, Evaluation, Figures};
use super::metrics::{self, HalfSplits};
use super::result::{self, Decision};
use crate::model::{Class, ClassActivation, Manifest, PackageFiles, VerifiedPackage};

/// Images with the finding, and without it, below which nothing is fitted.
const LEAST: usize = 20;

/// The same network with nothing fitted: its probabilities tell its results, up to a constant.
///
/// # Errors
/// [`Error::Calibration`]: the package is no classifier of classes that exclude each other.
pub fn bare(package: &VerifiedPackage) -> Result<VerifiedPackage, Error> {
    let mut manifest = package.manifest().clone();
    let classification = manifest.classification.as_mut();
    let softmax = classification.filter(|c| c.activation == ClassActivation::Softmax);
    let classification = softmax.ok_or_else(|| {
        let words = "only classes that exclude each other (softmax) can be calibrated";
        Error::Calibration(words.to_owned())
    })?;
    (classification.temperature, classification.kind_temperature) = (None, None);
    with_manifest(package, &manifest)
}

/// What was fitted.
#[derive(Clone, Debug)]
pub struct Calibrated {
    /// The package, without a card of its own.
    pub package: VerifiedPackage,
    /// Temperatures and thresholds.
    pub decision: Decision,
    /// The same thresholds, chosen and measured on different patients.
    pub half_splits: Option<HalfSplits>,
    /// Cases.
    pub cases: usize,
}

/// Fits temperatures and thresholds. `bare` was measured with [`bare`]'s package; `version` is that of
/// the new one, without it the old one's with a suffix.
///
/// # Errors
/// [`Error::Calibration`]: too few images, labels that do not tell the kinds, the old version again.
/// [`Error::Package`] when the result fails its own checks.
pub fn calibrate(
    package: &VerifiedPackage,
    bare: &Evaluation,
    version: Option<&str>,
) -> Result<Calibrated, Error> {
    let refused = |reason: String| Error::Calibration(reason);
    let old = package.manifest();
    let (Figures::Classes(figures), Some(classification)) = (&bare.figures, &old.classification)
    else {
        return Err(refused(
            "it gives masks, which have no probabilities".to_owned(),
        ));
    };
    enough(figures, classification.classes.len()).map_err(refused)?;
    let results: Vec<Vec<f32>> = (figures.cases.iter())
        .map(|case| {
            case.probabilities
                .iter()
                .map(|p| p.max(1e-300).ln() as f32)
                .collect()
        })
        .collect();
    let classes: Vec<u8> = figures.cases.iter().map(|case| case.label).collect();
    let decision = result::decide(&results, &classes);
    let mut made = old.clone();
    made.version = version.map_or_else(|| format!("{}-calibrated", old.version), str::to_owned);
    if made.version == old.version {
        return Err(refused(format!("version {} is the old one", made.version)));
    }
    made.origin.extend([
        ("calibrated_from".to_owned(), old.key()),
        ("calibrated_on_images".to_owned(), bare.n.to_string()),
    ]);
    if let Some(own) = &mut made.classification {
        own.temperature = Some(decision.heads.finding);
        own.kind_temperature = decision.heads.kinds;
        let set = |class: &mut Class, calling: &result::Calling| {
            class.threshold = Some(calling.threshold);
            class.not_sure = Some(calling.not_sure);
            class.operating_point = Some(calling.point);
        };
        for (class, calling) in own.classes.iter_mut().zip(&decision.classes).skip(1) {
            set(class, calling);
        }
        if let Some(any) = &mut own.any {
            set(any, &decision.any);
        }
    }
    Ok(Calibrated {
        package: with_manifest(package, &made)?,
        decision,
        half_splits: figures.half_splits,
        cases: bare.n,
    })
}

/// Whether there are images enough of what is fitted.
fn enough(figures: &ClassFigures, classes: usize) -> Result<(), String> {
    if classes > 2 && figures.kinds.is_none() {
        return Err("the labels do not tell of which kind the findings are".to_owned());
    }
    let count = |with: bool| {
        figures
            .cases
            .iter()
            .filter(|c| (c.label > 0) == with)
            .count()
    };
    let [with, without] = [count(true), count(false)];
    if with < LEAST || without < LEAST {
        return Err(format!(
            "{with} images with the finding and {without} without it, {LEAST} of each are the least"
        ));
    }
    Ok(())
}

/// The same weights with another manifest, and without what was signed or said about the old one.
fn with_manifest(package: &VerifiedPackage, manifest: &Manifest) -> Result<VerifiedPackage, Error> {
    Ok(VerifiedPackage::verify(PackageFiles {
        manifest: serde_json::to_vec_pretty(manifest).expect("a manifest is plain data"),
        weights: package.files().weights.clone(),
        card: None,
        signature: None,
        path: "the calibrated model".into(),
    })?)
}

/// The package with its card: the original's, and what was fitted. `measured` are its figures before
/// and after on the images that it was fitted on.
///
/// # Errors
/// [`Error::Package`].
pub fn with_card(
    made: &Calibrated,
    original: &VerifiedPackage,
    measured: [&Evaluation; 2],
) -> Result<VerifiedPackage, Error> {
    let manifest = made.package.manifest();
    let mut text = format!(
        "## Calibration\n\nMade from {}: temperatures and thresholds were fitted anew on {} labeled \
         images, the weights are the same. All figures below this section are those of the old ones.\n\n",
        original.manifest().key(),
        made.cases
    );
    let _ = writeln!(text, "{}", table(made, measured));
    if let Some(halves) = &made.half_splits {
        let _ = writeln!(text, "{}", result::half_splits_words(halves));
    }
    text.push_str(
        "Before and after were measured on the images that it was fitted on; only the halves tell how a \
         threshold does on others.\n",
    );
    result::with_card(&made.package, &result::card_with(original, manifest, &text))
}

/// The table of the card and the terminal, as Markdown.
pub fn table(made: &Calibrated, measured: [&Evaluation; 2]) -> String {
    let mut text = "| figure | before | after |\n|---|---|---|\n".to_owned();
    let [before, after] = measured.map(|of| match &of.figures {
        Figures::Classes(figures) => Some(figures),
        Figures::Masks(_) => None,
    });
    let mut row = |name: &str, of: &dyn Fn(&ClassFigures) -> Option<f64>| {
        let number = |f: Option<&ClassFigures>| {
            f.and_then(of)
                .map_or_else(String::new, |v| format!("{v:.4}"))
        };
        let _ = writeln!(text, "| {name} | {} | {} |", number(before), number(after));
    };
    row("threshold", &|f| Some(f.threshold));
    row("accuracy", &|f| called(f).map(|r| r.accuracy));
    row("sensitivity", &|f| called(f).map(|r| r.sensitivity));
    row("specificity", &|f| called(f).map(|r| r.specificity));
    row("log loss", &|f| Some(log_loss(f)));
    row("calibration error", &|f| Some(finding_error(f)));
    row("log loss of the kind", &|f| {
        f.kinds.as_ref().map(|k| k.log_loss)
    });
    row("calibration error of the kind", &|f| {
        f.kinds.as_ref().map(|k| k.ece)
    });
    let heads = &made.decision.heads;
    let kinds = heads
        .kinds
        .map_or_else(String::new, |t| format!(", of the kinds {t:.3}"));
    let _ = write!(text, "\nTemperature {:.3}{kinds}.\n", heads.finding);
    text
}

/// The finding against none, at the package's threshold.
fn called(figures: &ClassFigures) -> Option<metrics::Rates> {
    let pairs = pairs(figures);
    (!pairs.is_empty()).then(|| metrics::rates(&pairs, figures.threshold))
}

fn pairs(figures: &ClassFigures) -> Vec<(f64, bool)> {
    (figures.cases.iter())
        .map(|case| (case.score, case.label > 0))
        .collect()
}

/// Mean of −ln of the truth's probability, finding or none: what its temperature makes least.
fn log_loss(figures: &ClassFigures) -> f64 {
    let pairs = pairs(figures);
    let one = |(p, truth): &(f64, bool)| -(if *truth { *p } else { 1.0 - p }).max(1e-30).ln();
    pairs.iter().map(one).sum::<f64>() / pairs.len().max(1) as f64
}

fn finding_error(figures: &ClassFigures) -> f64 {
    let confidences: Vec<(f64, bool)> = (pairs(figures).into_iter())
        .map(|(score, truth)| (score.max(1.0 - score), (score >= 0.5) == truth))
        .collect();
    metrics::calibration_error(&confidences)
}

//! Labels as others write them: names of classes in any case, the training data's own values, the
//! name of all findings together, numbers.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use negatoscope::model::{Registry, VerifiedPackage};
use negatoscope::runtime::settings_for_runs;
use negatoscope::task::Task;
use negatoscope::training::data::Sample;
use negatoscope::training::evaluate::{ClassFigures, Figures, evaluate, rules_for};
use negatoscope::training::{DataRules, Error, Picture, Recipe, result, validate};

use crate::training::{WORDS, run, shape, split_of};

/// Which of three classes an image shows.
const fn class_of(n: usize) -> usize {
    n % 3
}

/// 36 images of three classes with labels of a writer's choice.
fn folder_with(folder: &Path, label: &dyn Fn(usize) -> String) {
    let mut csv = "file,label\n".to_owned();
    for n in 0..36 {
        let (mut image, _) = shape(n, 24, class_of(n) == 1);
        if class_of(n) == 2 {
            for v in &mut image {
                *v = 255 - *v;
            }
        }
        crate::training::png(&folder.join(format!("{n}.png")), [24, 24], &image);
        writeln!(csv, "{n}.png,{}", label(n)).unwrap();
    }
    fs::write(folder.join("labels.csv"), csv).unwrap();
}

fn three_classes() -> VerifiedPackage {
    let text = format!(
        r#"seed = 3
{WORDS}
[data]
layout = "labels"
classes = ["Normal", "Bacterial pneumonia", "Viral pneumonia"]
class_values = ["none", "bacteria", "virus"]
any_class = "Any lung infection"
size = [16, 16]
validation = 0.34
[network]
kind = "residual-cnn"
widths = [8, 16]
[training]
epochs = 2
batch = 8
learning_rate = 1e-2
"#
    );
    let recipe = Recipe::parse(&text).unwrap();
    let folder = tempfile::tempdir().unwrap();
    folder_with(folder.path(), &|n| {
        ["none", "bacteria", "virus"][class_of(n)].to_owned()
    });
    let split = split_of(&recipe, folder.path()).unwrap();
    let out = tempfile::tempdir().unwrap();
    let trained = run(&recipe, &split, out.path(), false, None).unwrap();
    let results = validate::results(&recipe, &trained, &split.validation, &Task::new()).unwrap();
    let truth: Vec<u8> = (split.validation.iter().filter_map(Sample::class)).collect();
    let decision = result::decide(&results, &truth);
    result::package(&recipe, &split, &trained, Some(&decision)).unwrap()
}

fn measured(
    package: &VerifiedPackage,
    folder: &Path,
    finding: Option<&str>,
) -> Result<ClassFigures, Error> {
    let rules = rules_for(package, folder, "label")?;
    measured_by(package, &rules, folder, &[], finding)
}

/// The figures of a classifier.
pub fn measured_by(
    package: &VerifiedPackage,
    rules: &DataRules,
    folder: &Path,
    parts: &[&str],
    finding: Option<&str>,
) -> Result<ClassFigures, Error> {
    let none = |id: &str| Err(format!("no model {id}"));
    let found = evaluate(
        package,
        rules,
        folder,
        parts,
        finding,
        &Picture::read,
        &settings_for_runs(),
        &none,
        &mut |_| Ok(()),
        &Task::new(),
    )?;
    match found.figures {
        Figures::Classes(figures) => Ok(figures),
        Figures::Masks(_) => panic!("masks"),
    }
}

/// The figures by their definitions, from the cases alone.
fn check_finding(figures: &ClassFigures, threshold: f64) {
    assert_eq!(figures.threshold, threshold);
    let part = |of: &dyn Fn(usize) -> bool| {
        let some: Vec<(usize, f64)> = (figures.cases.iter())
            .map(|c| {
                let n: usize = c.file.trim_end_matches(".png").parse().unwrap();
                (class_of(n), c.score)
            })
            .filter(|(class, _)| of(*class))
            .collect();
        let right = some
            .iter()
            .filter(|(class, score)| (*score >= threshold) == (*class > 0));
        right.count() as f64 / some.len() as f64
    };
    assert_eq!(figures.accuracy, part(&|_| true));
    assert_eq!(figures.sensitivity, Some(part(&|class| class > 0)));
    assert_eq!(figures.specificity, Some(part(&|class| class == 0)));
    for case in &figures.cases {
        assert!((case.score - (1.0 - case.probabilities[0])).abs() < 1e-12);
    }
}

/// Which of two kinds it is, by the definitions: every pair of a bacterial and a viral case.
fn check_kinds(figures: &ClassFigures) {
    let kinds = figures.kinds.as_ref().unwrap();
    let part = |n: usize| -> Vec<f64> {
        let cases = figures.cases.iter().filter(|c| usize::from(c.label) == n);
        cases
            .map(|c| c.probabilities[1] / (c.probabilities[1] + c.probabilities[2]))
            .collect()
    };
    let (bacterial, viral) = (part(1), part(2));
    assert_eq!(kinds.n, bacterial.len() + viral.len());
    let wins = |b: &f64| -> f64 {
        let against = |v: &f64| {
            if b > v {
                1.0
            } else {
                f64::from(u8::from(b == v)) / 2.0
            }
        };
        viral.iter().map(against).sum()
    };
    let auc = bacterial.iter().map(wins).sum::<f64>() / (bacterial.len() * viral.len()) as f64;
    assert!((kinds.auc.unwrap() - auc).abs() < 1e-9, "{kinds:?} {auc}");
    let right = bacterial.iter().filter(|p| **p >= 0.5).count()
        + viral.iter().filter(|p| **p < 0.5).count();
    assert_eq!(kinds.accuracy, right as f64 / kinds.n as f64);
}

#[test]
fn a_model_of_three_classes_reads_labels_of_two_and_three() {
    let package = three_classes();
    let classification = package.manifest().classification.clone().unwrap();
    assert_eq!(classification.class_values, ["none", "bacteria", "virus"]);
    let any = classification.any.unwrap().threshold.unwrap();
    let with = |labels: [&str; 3], finding: Option<&str>| {
        let folder = tempfile::tempdir().unwrap();
        folder_with(folder.path(), &|n| labels[class_of(n)].to_owned());
        measured(&package, folder.path(), finding)
    };
    let by_number = with(["0", "1", "1"], None).unwrap();
    check_finding(&by_number, any);
    assert!(by_number.kinds.is_none(), "no label tells which kind");
    for labels in [
        ["NORMAL", "PNEUMONIA", "Pneumonia"],
        ["normal", "any lung infection", "Any Lung Infection"],
        ["Negative", "POSITIVE", "positive"],
        // Some say which pneumonia, some do not.
        ["none", "bacteria", "pneumonia"],
        ["0", "Viral pneumonia", " PNEUMONIA "],
    ] {
        let found = with(labels, None).unwrap();
        check_finding(&found, any);
        assert_eq!(
            (found.auc, found.auc_ci95),
            (by_number.auc, by_number.auc_ci95),
            "{labels:?}"
        );
        assert_eq!(found.calibration.len(), by_number.calibration.len());
    }
    // Where all labels tell the class, all classes are measured.
    let by_number = with(["0", "1", "2"], None).unwrap();
    assert_eq!((by_number.sensitivity, by_number.specificity), (None, None));
    check_kinds(&by_number);
    for labels in [
        ["NONE", "Bacteria", "virus"],
        ["normal", "bacterial pneumonia", "VIRAL PNEUMONIA"],
        ["negative", "1", "virus"],
    ] {
        let found = with(labels, None).unwrap();
        assert_eq!(
            (found.auc, found.accuracy),
            (by_number.auc, by_number.accuracy),
            "{labels:?}"
        );
    }
    // One of the classes alone.
    let by_number = with(["0", "0", "1"], Some("Viral pneumonia")).unwrap();
    let named = with(["Normal", "bacteria", "virus"], Some("viral pneumonia")).unwrap();
    assert_eq!(
        (named.auc, named.accuracy),
        (by_number.auc, by_number.accuracy)
    );
    assert_ne!(by_number.auc, None);
    // What no word stands for is named, with the words that do.
    let error = with(["NORMAL", "TB", "TB"], None).unwrap_err().to_string();
    for words in [
        "row 3",
        "\"TB\"",
        "Bacterial pneumonia",
        "virus",
        "any lung infection",
        "positive",
        "0 to 2",
    ] {
        assert!(error.contains(words), "{words} in {error}");
    }
    assert!(with(["0", "1", "3"], None).is_err());
}

#[test]
fn a_model_of_two_classes_reads_words_in_any_case() {
    let home = tempfile::tempdir().unwrap();
    let package = Registry::new(home.path().to_owned())
        .load("pneumonia-28")
        .unwrap();
    let with = |labels: [&str; 2]| {
        let folder = tempfile::tempdir().unwrap();
        folder_with(folder.path(), &|n| {
            labels[usize::from(class_of(n) > 0)].to_owned()
        });
        measured(&package, folder.path(), None)
    };
    let by_number = with(["0", "1"]).unwrap();
    let classes = &package.manifest().classification.as_ref().unwrap().classes;
    check_finding(&by_number, classes[1].threshold.unwrap());
    for labels in [
        ["NORMAL", "PNEUMONIA"],
        ["negative", "Positive"],
        ["Normal", "abnormal"],
        ["no", "YES"],
    ] {
        let found = with(labels).unwrap();
        check_finding(&found, by_number.threshold);
        assert_eq!(found.auc, by_number.auc, "{labels:?}");
    }
    let error = with(["NORMAL", "virus"]).unwrap_err().to_string();
    assert!(
        error.contains("\"virus\"") && error.contains("Pneumonia"),
        "{error}"
    );
    // Folders are named by the same words.
    let folder = tempfile::tempdir().unwrap();
    folder_with(folder.path(), &|_| String::new());
    fs::remove_file(folder.path().join("labels.csv")).unwrap();
    for n in 0..36 {
        let class = ["Negative", "POSITIVE"][usize::from(class_of(n) > 0)];
        fs::create_dir_all(folder.path().join(class)).unwrap();
        let name = format!("{n}.png");
        fs::rename(
            folder.path().join(&name),
            folder.path().join(class).join(&name),
        )
        .unwrap();
    }
    assert_eq!(
        measured(&package, folder.path(), None).unwrap().auc,
        by_number.auc
    );
}

//! Parts of the cases, measured apart: by a column of labels.csv, and one part of the data alone.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use negatoscope::model::Registry;
use negatoscope::training::Error;
use negatoscope::training::evaluate::{ClassFigures, parts_of, rules_for};

use crate::label_words::measured_by;
use crate::training::shape;

/// Images 0 to 47 with label, machine, kind and split; `kept` says which the table names.
fn folder_of(folder: &Path, kept: &dyn Fn(usize) -> bool) {
    let mut csv = "file,label,machine,kind,split\n".to_owned();
    for n in (0..48).filter(|n| kept(*n)) {
        let (image, _) = shape(n, 24, n % 3 == 1);
        crate::training::png(&folder.join(format!("{n}.png")), [24, 24], &image);
        let (label, machine, kind, split) = columns(n);
        writeln!(csv, "{n}.png,{label},{machine},{kind},{split}").unwrap();
    }
    fs::write(folder.join("labels.csv"), csv).unwrap();
}

/// Labels that no model can tell all of, so that no figure is 0 or 1 by itself.
fn columns(n: usize) -> (usize, &'static str, &'static str, &'static str) {
    let label = usize::from(n % 3 == 1 || n.is_multiple_of(7));
    let machine = ["old", "new"][n / 2 % 2];
    let kind = ["none", ["wide", "small"][n % 2]][label];
    (label, machine, kind, ["train", "val"][n / 3 % 2])
}

fn measured(folder: &Path, by: Option<&str>, part: Option<&str>) -> Result<ClassFigures, Error> {
    let home = tempfile::tempdir().unwrap();
    let package = Registry::new(home.path().to_owned())
        .load("pneumonia-28")
        .unwrap();
    let mut rules = rules_for(&package, folder, "label")?;
    rules.group_column = by.map(str::to_owned);
    rules.split_column = part.map(|_| "split".to_owned());
    let parts = parts_of(&rules, folder, part)?;
    measured_by(&package, &rules, folder, &parts, None)
}

/// The figures of the rows that `kept` names, as if there were no others.
fn alone(kept: &dyn Fn(usize) -> bool) -> ClassFigures {
    let folder = tempfile::tempdir().unwrap();
    folder_of(folder.path(), kept);
    measured(folder.path(), None, None).unwrap()
}

#[test]
fn a_group_has_the_figures_of_its_rows_alone() {
    let folder = tempfile::tempdir().unwrap();
    folder_of(folder.path(), &|_| true);
    let all = measured(folder.path(), Some("machine"), None).unwrap();
    let names: Vec<&str> = all.subgroups.iter().map(|g| g.name.as_str()).collect();
    assert_eq!(names, ["new", "old"]);
    for group in &all.subgroups {
        let own = alone(&|n| columns(n).1 == group.name);
        assert_eq!(group.n, own.cases.len());
        assert_eq!((group.auc, group.auc_ci95), (own.auc, own.auc_ci95));
        assert_eq!(
            (group.sensitivity, group.specificity),
            (own.sensitivity, own.specificity)
        );
        assert!(group.auc.is_some());
    }
    assert_eq!(all.subgroups.iter().map(|g| g.n).sum::<usize>(), 48);
    // Without the column nothing is told apart, and the whole has the same figures.
    let plain = measured(folder.path(), None, None).unwrap();
    assert!(plain.subgroups.is_empty());
    assert_eq!((plain.auc, plain.ece), (all.auc, all.ece));
    let error = measured(folder.path(), Some("sex"), None).unwrap_err();
    assert!(error.to_string().contains("no column \"sex\""), "{error}");
}

#[test]
fn a_group_of_one_class_is_held_against_all_of_the_other() {
    let folder = tempfile::tempdir().unwrap();
    folder_of(folder.path(), &|_| true);
    let all = measured(folder.path(), Some("kind"), None).unwrap();
    assert_eq!(all.subgroups.len(), 3);
    for group in &all.subgroups {
        let own = alone(&|n| {
            let (label, _, kind, _) = columns(n);
            kind == group.name || (label == 1) == (group.name == "none")
        });
        assert_eq!(group.auc, own.auc, "{}", group.name);
        if group.name == "none" {
            assert_eq!((group.positive, group.sensitivity), (0, None));
            assert_eq!(group.specificity, all.specificity);
            assert!(group.words().contains("against all positive"));
        } else {
            assert_eq!((group.positive, group.specificity), (group.n, None));
            assert_eq!(group.sensitivity, own.sensitivity);
            assert!(group.words().contains("against all negative"));
        }
    }
}

#[test]
fn one_part_of_a_table_is_measured() {
    let folder = tempfile::tempdir().unwrap();
    folder_of(folder.path(), &|_| true);
    let part = measured(folder.path(), None, Some("val")).unwrap();
    let own = alone(&|n| columns(n).3 == "val");
    assert_eq!(part.cases.len(), own.cases.len());
    assert_eq!((part.auc, part.accuracy), (own.auc, own.accuracy));
    let error = measured(folder.path(), None, Some("test")).unwrap_err();
    assert!(
        error.to_string().contains("no image of the part"),
        "{error}"
    );
}

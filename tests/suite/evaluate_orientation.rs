//! A model that asks for an orientation is measured on scans as they are stored.

use std::fs;
use std::path::Path;

use negatoscope::model::Registry;
use negatoscope::runtime::{AnyImages, settings_for_runs};
use negatoscope::task::Task;
use negatoscope::training::evaluate::{Figures, evaluate, rules_for};

#[test]
fn a_scan_is_turned_as_the_model_was_trained() {
    let Some(data) = std::env::var_os("NEGATOSCOPE_TEST_DATA") else {
        println!("skipped: NEGATOSCOPE_TEST_DATA is not set");
        return;
    };
    // Of the part that the model did not learn from.
    let data = Path::new(&data).join("hippocampus-msd");
    let folder = tempfile::tempdir().unwrap();
    for part in ["images", "labels"] {
        fs::create_dir(folder.path().join(part)).unwrap();
        for name in ["hippocampus_024.nii.gz", "hippocampus_105.nii.gz"] {
            let bytes = fs::read(data.join(part).join(name)).unwrap();
            fs::write(folder.path().join(part).join(name), bytes).unwrap();
        }
    }
    let home = tempfile::tempdir().unwrap();
    let package = Registry::new(home.path().to_owned())
        .load("hippocampus-mini")
        .unwrap();
    let rules = rules_for(&package, folder.path(), "label").unwrap();
    let none = |id: &str| Err(format!("no model {id}"));
    let found = evaluate(
        &package,
        &rules,
        folder.path(),
        &[],
        None,
        &AnyImages,
        &settings_for_runs(),
        &none,
        &mut |_| Ok(()),
        &Task::new(),
    )
    .unwrap();
    let Figures::Masks(figures) = found.figures else {
        panic!("classes");
    };
    assert_eq!(figures.dice.len(), 2);
    // 0.87 and 0.86 on twenty scans by its card; not turned rightly it finds next to nothing.
    for (label, dice) in figures.dice {
        assert!(dice.mean > 0.75, "{label}: {}", dice.mean);
    }
}

//! A comparison of two versions, opened in the window: the table, and a case with both masks.

use std::collections::BTreeSet;
use std::fs;

use egui_kittest::kittest::Queryable;
use negatoscope::app::{AskFor, Command, Dialog, Event};

use crate::registry::{changed_package, data, negatoscope};
use crate::window::{harness, has_gpu, wait};

#[test]
fn a_case_opens_with_what_both_versions_say() {
    let Some(from) = data("hippocampus-msd") else {
        return;
    };
    if !has_gpu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("home");
    let cases = folder.path().join("cases");
    let mut names: Vec<_> = fs::read_dir(format!("{from}/images"))
        .unwrap()
        .map(|f| f.unwrap().file_name())
        .collect();
    names.sort();
    for part in ["images", "labels"] {
        fs::create_dir_all(cases.join(part)).unwrap();
        for name in &names[..2] {
            let whole = std::path::Path::new(&from).join(part).join(name);
            fs::copy(whole, cases.join(part).join(name)).unwrap();
        }
    }
    // Another window of gray values moves the outlines.
    let other = changed_package(folder.path(), "hippocampus-mini", |manifest| {
        manifest["version"] = "1.1.0".into();
        manifest["input"]["normalization"]["high"] = 0.8.into();
    });
    let run = |arguments: &[&str]| {
        let output = negatoscope(&home, arguments);
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap_or_default()
    };
    let out = folder.path().join("compared");
    let path = |p: &std::path::Path| p.display().to_string();
    run(&["models", "import", &path(&other)]);
    let found = run(&[
        "models",
        "compare",
        "hippocampus-mini@1.0.0",
        "hippocampus-mini@1.1.0",
        "--data",
        &path(&cases),
        "--out",
        &path(&out),
        "--json",
    ]);
    let case = &found["cases"][0];
    assert!(case["difference"].as_f64().unwrap() != 0.0, "{found}");

    let mut h = harness(folder.path(), Vec::new());
    let ctx = h.ctx.clone();
    h.state_mut()
        .event(&ctx, Event::Chosen(AskFor::Comparison, vec![out.clone()]));
    wait(&mut h, "the table", |w| !w.app().batch.rows.is_empty());
    assert_eq!(h.state().app().dialog, Some(Dialog::Batch));
    h.run_steps(8);
    let rows = &h.state().app().batch.rows;
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0].title, case["file"].as_str().unwrap());
    let values = case["values"].as_array().unwrap();
    for value in values {
        let shown = format!("{:.4}", value.as_f64().unwrap());
        assert!(
            rows[0].summary.contains(&shown),
            "{} {shown}",
            rows[0].summary
        );
    }
    h.get_by_label_contains("hippocampus-mini@1.0.0 → hippocampus-mini@1.1.0");
    h.get_all_by_label("Open").next().unwrap().click();
    wait(&mut h, "the case", |w| w.app().results.is_some());
    let result = h.state().app().results.as_ref().unwrap();
    let names: Vec<&str> = result
        .segmentation
        .segments
        .iter()
        .map(|s| s.name.as_str())
        .collect();
    assert!(
        names.iter().any(|n| n.ends_with(": both"))
            && names
                .iter()
                .any(|n| n.ends_with("only hippocampus-mini@1.1.0")),
        "{names:?}"
    );

    // Models of one name can be told apart.
    wait(&mut h, "models", |w| w.app().models.len() > 2);
    let app = h.state().app();
    let words = app
        .models
        .iter()
        .map(|m| format!("{} {}", app.words_of(m), m.version));
    assert_eq!(words.collect::<BTreeSet<_>>().len(), app.models.len());
    let mini = app
        .models
        .iter()
        .find(|m| m.key.starts_with("hippocampus-mini@"));
    assert!(app.words_of(mini.unwrap()).ends_with("(hippocampus-mini)"));

    // A folder that holds none is named with the way out, and the table stays.
    h.state_mut().command(&ctx, Command::CloseDialog);
    h.state_mut()
        .event(&ctx, Event::Chosen(AskFor::Comparison, vec![cases]));
    wait(&mut h, "the refusal", |w| !w.app().notices.is_empty());
    h.run_steps(8);
    h.get_by_label_contains("The comparison could not be opened");
    assert_eq!(h.state().app().batch.rows.len(), 2);
}

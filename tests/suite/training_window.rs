//! The window of a training: chosen, run, stopped, gone on with, looked on at.

use std::fs;
use std::path::{Path, PathBuf};

use eframe::egui::Key;
use egui_kittest::Harness;
use egui_kittest::kittest::Queryable;
use negatoscope::app::{
    App, AskFor, Command, EpochPoint, Event, JobKind, Settings, StepPoint, TrainingAnswer,
    TrainingChoice, TrainingExample, TrainingNews, TrainingWords,
};
use negatoscope::training::{CHECKPOINT, history};
use negatoscope::ui::Window;

use crate::training::{class_folder, classes_recipe};
use crate::window::{harness, has_gpu, wait};

fn choose(h: &mut Harness<'static, Window>, what: TrainingChoice, path: PathBuf) {
    let ctx = h.ctx.clone();
    let chosen = Event::Chosen(AskFor::Training(what), vec![path]);
    h.state_mut().event(&ctx, chosen);
}

fn open_training(h: &mut Harness<'static, Window>) {
    h.run_steps(2);
    h.get_by_label("Analysis").click();
    h.run_steps(3);
    h.get_by_label_contains("Train a model…").click();
    h.run_steps(3);
    h.get_by_label("Choose recipe…");
}

/// A recipe and its data, chosen in an open window.
fn chosen(folder: &Path, epochs: usize) -> Harness<'static, Window> {
    class_folder(&folder.join("data"));
    let recipe = classes_recipe("").replace("epochs = 6", &format!("epochs = {epochs}"));
    fs::write(folder.join("recipe.toml"), recipe).unwrap();
    let mut h = harness(folder, vec![]);
    open_training(&mut h);
    choose(&mut h, TrainingChoice::Recipe, folder.join("recipe.toml"));
    choose(&mut h, TrainingChoice::Data, folder.join("data"));
    choose(&mut h, TrainingChoice::Folder, folder.join("out"));
    h.run_steps(2);
    h
}

#[test]
fn a_training_shows_its_curves_and_makes_a_package() {
    if !has_gpu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut h = chosen(folder.path(), 4);
    h.get_by_label("Start training").click();
    wait(&mut h, "the end", |w| w.app().training.package.is_some());
    let training = &h.state().app().training;
    assert_eq!(training.epochs.len(), 4);
    assert_eq!(training.words.classes, ["disk", "ring"]);
    assert_eq!(training.examples.len(), 4);
    // The curves are those of the run.
    let want = history(&folder.path().join("out").join(CHECKPOINT)).unwrap();
    for (point, figures) in training.epochs.iter().zip(&want) {
        assert_eq!(point.epoch, figures.epoch);
        assert_eq!(point.training_loss, figures.training_loss);
        assert_eq!(point.validation_loss, figures.validation_loss);
        assert_eq!(
            (point.score, point.rate),
            (figures.score, figures.learning_rate)
        );
    }
    let last = training.steps.last().unwrap();
    assert_eq!(last.epoch, 4.0);
    assert!(training.steps.windows(2).all(|w| w[0].epoch < w[1].epoch));
    let words = training.summary.clone().unwrap();
    assert!(words.contains("AUC"), "{words}");
    h.run_steps(3);
    for chart in ["Loss", "AUC", "Learning rate"] {
        h.get_by_label(chart);
    }
    h.get_by_label_contains("Example 1: ");
    // What it has made can be used at once.
    h.get_by_label("Install the model").click();
    wait(&mut h, "the import", |w| {
        w.app().models.iter().any(|m| m.key == "shapes@1.0.0")
    });
}

#[test]
fn a_stopped_training_goes_on_where_it_was() {
    if !has_gpu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut h = chosen(folder.path(), 5000);
    h.get_by_label("Start training").click();
    wait(&mut h, "two epochs", |w| w.app().training.epochs.len() >= 2);
    // Esc is for short work.
    h.key_press(Key::Escape);
    h.run_steps(2);
    let task = &h.state().app().running(JobKind::Training).unwrap().task;
    assert!(!task.is_cancelled());
    // Closing the window of the training does not stop it either.
    let ctx = h.ctx.clone();
    h.state_mut().command(&ctx, Command::HideTraining);
    h.run_steps(2);
    assert!(h.query_by_label("Stop training").is_none());
    assert!(h.state().app().training.job.is_some());
    h.state_mut().command(&ctx, Command::ShowTraining);
    h.run_steps(2);
    h.get_by_label("Stop training").click();
    wait(&mut h, "the stop", |w| w.app().training.job.is_none());
    let words = h.state().app().training.summary.clone().unwrap();
    assert!(words.contains("checkpoint is kept"), "{words}");
    let before = h.state().app().training.epochs.clone();
    let kept = history(&folder.path().join("out").join(CHECKPOINT)).unwrap();
    assert_eq!(kept.len(), before.len());
    h.get_by_label("Start training").click();
    wait(&mut h, "another epoch", |w| {
        w.app().training.epochs.len() > before.len()
    });
    let after = &h.state().app().training.epochs;
    assert_eq!(after[..before.len()], before);
    let first = h.state().app().training.steps[0].epoch;
    assert!(first > before.len() as f64, "{first}");
    // Another window looks on, and writes nothing.
    let other = tempfile::tempdir().unwrap();
    let mut second = harness(other.path(), vec![]);
    open_training(&mut second);
    choose(
        &mut second,
        TrainingChoice::Folder,
        folder.path().join("out"),
    );
    second.run_steps(2);
    second
        .get_by_label("Look on at a training that runs elsewhere")
        .click();
    let now = before.len();
    wait(&mut second, "a look", |w| {
        w.app().training.epochs.len() > now
    });
    assert_eq!(second.state().app().training.epochs[..now], before);
    second.get_by_label("Look away").click();
    wait(&mut second, "the end", |w| w.app().training.job.is_none());
    h.get_by_label("Stop training").click();
    wait(&mut h, "the stop", |w| w.app().training.job.is_none());
}

#[test]
fn what_is_missing_or_wrong_is_said() {
    let mut app = App::new(Settings::default());
    app.take_actions();
    let mut check = |command: Command, words: &str| {
        app.apply(command);
        assert!(app.take_actions().is_empty());
        assert!(app.notices.last().unwrap().text.contains(words));
    };
    check(Command::StartTraining, "recipe");
    app.on_event(Event::Chosen(
        AskFor::Training(TrainingChoice::Recipe),
        vec!["recipe.toml".into()],
    ));
    app.apply(Command::StartTraining);
    assert!(app.notices.last().unwrap().text.contains("folder"));
    // News of a training that is over changes nothing.
    let job = negatoscope::app::JobId(99);
    app.on_event(Event::Training(job, TrainingNews::Note("late".to_owned())));
    assert!(app.training.notes.is_empty());

    if !has_gpu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut h = chosen(folder.path(), 4);
    fs::write(folder.path().join("recipe.toml"), "seed = 'x'").unwrap();
    h.get_by_label("Start training").click();
    wait(&mut h, "the reason", |w| !w.app().notices.is_empty());
    let notice = h.state().app().notices[0].clone();
    assert!(notice.details[0].contains("recipe"), "{notice:?}");
    let summary = h.state().app().training.summary.clone().unwrap();
    assert!(summary.contains("error"), "{summary}");
    // A folder without a training.
    h.get_by_label("Look on at a training that runs elsewhere")
        .click();
    wait(&mut h, "the reason", |w| w.app().notices.len() > 1);
    assert_eq!(h.state().app().notices[1].title, "There is no checkpoint");
}

/// A picture to look at: `NEGATOSCOPE_PICTURES=DIR cargo test …`.
#[test]
fn made_up_curves_are_drawn() {
    if !has_gpu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut h = chosen(folder.path(), 100_000);
    h.get_by_label("Start training").click();
    wait(&mut h, "an epoch", |w| !w.app().training.epochs.is_empty());
    h.get_by_label("Stop training").click();
    wait(&mut h, "the stop", |w| w.app().training.job.is_none());
    // Whoever looks on at a training that stands still hears nothing more.
    h.get_by_label("Look on at a training that runs elsewhere")
        .click();
    // The epochs of the stopped training stand until the look begins.
    wait(&mut h, "a look", |w| {
        w.app().training.job.is_some() && !w.app().training.epochs.is_empty()
    });
    let job = h.state().app().training.job.unwrap();
    let falls = |e: f64| 0.08 + 0.6 * (-e / 6.0).exp();
    let epochs = (0..24).map(|epoch| EpochPoint {
        epoch,
        training_loss: falls(epoch as f64 + 1.0),
        validation_loss: falls(epoch as f64) + 0.002 * epoch as f64,
        score: 0.97 - 0.3 * (-(epoch as f64) / 4.0).exp(),
        rate: 1e-3,
    });
    let steps = (0..2400_u32).map(|n| StepPoint {
        epoch: f64::from(n) / 100.0,
        loss: falls(f64::from(n) / 100.0) + f64::from(n * 7919 % 97) / 500.0,
        rate: 1e-3 * (f64::from(n) / 200.0).min(1.0) * (1.0 - f64::from(n) / 2500.0),
    });
    let disk = |cx: f64| -> Vec<u8> {
        let inside = |n: usize| {
            let (y, x) = ((n / 96) as f64, (n % 96) as f64);
            u8::from((y - 48.0).hypot(x - cx) < 24.0)
        };
        (0..96 * 96).map(inside).collect()
    };
    let whole = disk(50.0);
    let noisy = |(n, m): (usize, &u8)| m * 120 + (n * 7919 % 60) as u8;
    let gray: Vec<u8> = whole.iter().enumerate().map(noisy).collect();
    let masks = |found: f64| TrainingExample {
        dims: [96, 96],
        gray: gray.clone(),
        answer: TrainingAnswer::Masks {
            truth: disk(50.0),
            found: disk(found),
        },
    };
    let class = |truth: usize| TrainingExample {
        dims: [96, 96],
        gray: gray.clone(),
        answer: TrainingAnswer::Class {
            truth,
            probabilities: vec![0.2, 0.8],
        },
    };
    let ctx = h.ctx.clone();
    for news in [
        TrainingNews::Words(TrainingWords {
            name: "Made up".to_owned(),
            score: "Dice".to_owned(),
            classes: vec!["disk".to_owned(), "ring".to_owned()],
            epochs: 40,
        }),
        TrainingNews::Begins(epochs.collect()),
        TrainingNews::Steps(steps.collect()),
        TrainingNews::Examples(vec![masks(50.0), masks(56.0), class(0), class(1)]),
    ] {
        h.state_mut().event(&ctx, Event::Training(job, news));
    }
    h.run_steps(4);
    for label in [
        "Loss",
        "Dice",
        "Learning rate",
        "Example 1: Dice in this plane 1.00",
    ] {
        h.get_by_label(label);
    }
    h.get_by_label("Example 3: disk: model says ring (0.80), wrong");
    h.get_by_label("Example 4: ring: model says ring (0.80), right");
    h.hover_at(h.get_by_label("Loss").rect().center());
    h.run_steps(4);
    let picture = h.render().expect("the window is drawn");
    if let Some(pictures) = std::env::var_os("NEGATOSCOPE_PICTURES") {
        picture
            .save(Path::new(&pictures).join("training.png"))
            .unwrap();
    }
    // The curves are there, in their colors.
    let chart = h.get_by_label("Loss").rect();
    let count = |color: [u8; 3]| {
        let pixels = (chart.min.y as u32..chart.max.y as u32)
            .flat_map(|y| (chart.min.x as u32..chart.max.x as u32).map(move |x| (x, y)));
        let near = |p: &image::Rgba<u8>| (0..3).all(|n| p[n].abs_diff(color[n]) < 12);
        pixels
            .filter(|(x, y)| near(picture.get_pixel(*x, *y)))
            .count()
    };
    assert!(count([112, 166, 240]) > 100 && count([240, 178, 84]) > 100);
}

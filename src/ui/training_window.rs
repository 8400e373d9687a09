//! The window of a training: what is chosen, curves, and pictures as the network sees them.
//!
//! It lies over the views and can be closed while the training goes on.

use std::fmt::Write as _;

use eframe::egui::{
    self, Color32, ColorImage, Grid, Label, ProgressBar, RichText, Role, ScrollArea, TextureHandle,
    TextureOptions, Ui, WidgetInfo, vec2,
};

use super::curves::{Chart, Curve, chart_ui};
use super::widgets::{cell_ui, icon_line_ui, primary_button_ui};
use super::{icons, theme};
use crate::app::{App, Command, TrainingAnswer, TrainingChoice, TrainingExample, TrainingState};

/// Textures of the examples; a cache, droppable at any time.
#[derive(Default)]
pub struct TrainingPictures {
    revision: u64,
    textures: Vec<TextureHandle>,
}

/// Draws the window when it is open.
pub fn training_ui(
    ctx: &egui::Context,
    app: &App,
    pictures: &mut TrainingPictures,
    commands: &mut Vec<Command>,
) {
    if !app.training.shown {
        return;
    }
    let mut open = true;
    egui::Window::new("Training")
        .open(&mut open)
        // Below the menu.
        .default_pos([16.0, 44.0])
        .default_size([860.0, 620.0])
        .min_width(560.0)
        .collapsible(false)
        .show(ctx, |ui| {
            choices_ui(ui, &app.training, commands);
            state_ui(ui, app, commands);
            ScrollArea::vertical()
                .auto_shrink([false, true])
                .show(ui, |ui| {
                    curves_ui(ui, &app.training);
                    examples_ui(ui, &app.training, pictures);
                    for note in &app.training.notes {
                        ui.label(RichText::new(note).small().color(theme::TEXT_WEAK));
                    }
                });
        });
    if !open {
        commands.push(Command::HideTraining);
    }
}

/// Words and what they choose.
type Buttons = &'static [(&'static str, TrainingChoice)];

fn choices_ui(ui: &mut Ui, training: &TrainingState, commands: &mut Vec<Command>) {
    use TrainingChoice::{Data, DataFile, Folder, Recipe};
    let rows: [(&str, _, &str, Buttons); 3] = [
        (
            "Recipe",
            &training.recipe,
            "Not chosen",
            &[("Choose recipe…", Recipe)],
        ),
        (
            "Data",
            &training.data,
            "As the recipe says",
            &[("Choose data folder…", Data), ("Data file…", DataFile)],
        ),
        (
            "Kept in",
            &training.folder,
            "Not chosen",
            &[("Choose folder…", Folder)],
        ),
    ];
    ui.add_enabled_ui(training.job.is_none(), |ui| {
        Grid::new("training")
            .num_columns(3)
            .spacing(vec2(12.0, 6.0))
            .show(ui, |ui| {
                for (label, path, none, buttons) in rows {
                    ui.label(RichText::new(label).color(theme::TEXT_WEAK));
                    let text = path
                        .as_ref()
                        .map_or(none.to_owned(), |p| p.display().to_string());
                    cell_ui(ui, 400.0, 24.0, &text);
                    ui.horizontal(|ui| {
                        for (name, what) in buttons {
                            if ui.button(*name).clicked() {
                                commands.push(Command::ChooseTraining(*what));
                            }
                        }
                        if label == "Data" && path.is_some() && ui.button("The recipe's").clicked()
                        {
                            commands.push(Command::TrainingDataOfRecipe);
                        }
                    });
                    ui.end_row();
                }
            });
    });
}

fn state_ui(ui: &mut Ui, app: &App, commands: &mut Vec<Command>) {
    let training = &app.training;
    ui.add_space(4.0);
    let running = training
        .job
        .and_then(|id| app.jobs.iter().find(|job| job.id == id));
    if let Some(job) = running {
        let progress = job.task.progress();
        ui.horizontal(|ui| {
            let stopping = job.task.is_cancelled();
            let words = if stopping {
                "Stopping…".to_owned()
            } else {
                progress.phase.clone()
            };
            ui.label(words);
            ui.label(RichText::new(epochs_words(training)).color(theme::TEXT_WEAK));
            ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
                let name = if training.follows {
                    "Look away"
                } else {
                    "Stop training"
                };
                if ui.add_enabled(!stopping, egui::Button::new(name)).clicked() {
                    commands.push(Command::CancelJob(job.id));
                }
            });
        });
        if let Some(part) = progress.fraction() {
            ui.add(
                ProgressBar::new(part)
                    .desired_height(6.0)
                    .fill(theme::ACCENT),
            );
        }
    } else {
        let ready = training.recipe.is_some() && training.folder.is_some();
        if primary_button_ui(ui, icons::PLAY, "Start training", ready).clicked() {
            commands.push(Command::StartTraining);
        }
        ui.horizontal_wrapped(|ui| {
            let look = egui::Button::new("Look on at a training that runs elsewhere");
            if ui.add_enabled(training.folder.is_some(), look).clicked() {
                commands.push(Command::FollowTraining);
            }
            let made = training.package.is_some() && !training.follows;
            if made && ui.button("Install the model").clicked() {
                commands.push(Command::InstallTrained);
            }
            let text = "A folder with a checkpoint of the same recipe and data is gone on with.";
            ui.label(RichText::new(text).small().color(theme::TEXT_WEAK));
        });
    }
    if let Some(summary) = &training.summary {
        let icon = if training.package.is_some() {
            icons::CHECK_CIRCLE
        } else {
            icons::INFO
        };
        icon_line_ui(ui, icon, theme::TEXT, summary);
    }
    ui.add_space(4.0);
}

/// "3 of 40 epochs done · AUC 0.953, best 0.961 after 2".
fn epochs_words(training: &TrainingState) -> String {
    let (done, words) = (training.epochs.len(), &training.words);
    let mut text = match words.epochs {
        0 => format!("{done} epochs done"),
        planned => format!("{done} of {planned} epochs done"),
    };
    if let (Some(last), Some(best)) = (training.epochs.last(), training.best()) {
        let (score, after) = (score_name(training), best.epoch + 1);
        let _ = write!(
            text,
            " · {score} {:.3}, best {:.3} after {after}",
            last.score, best.score
        );
    }
    text
}

fn score_name(training: &TrainingState) -> &str {
    match training.words.score.as_str() {
        "" => "Score",
        name => name,
    }
}

fn curves_ui(ui: &mut Ui, training: &TrainingState) {
    if training.steps.is_empty() && training.epochs.is_empty() {
        return;
    }
    let steps = |of: fn(&crate::app::StepPoint) -> f64| -> Vec<[f64; 2]> {
        training.steps.iter().map(|s| [s.epoch, of(s)]).collect()
    };
    let epochs = |of: fn(&crate::app::EpochPoint) -> f64| -> Vec<[f64; 2]> {
        let point = |e: &crate::app::EpochPoint| [e.epoch as f64 + 1.0, of(e)];
        training.epochs.iter().map(point).collect()
    };
    let (losses, rates) = (steps(|s| s.loss), steps(|s| s.rate));
    let (trained, validated) = (epochs(|e| e.training_loss), epochs(|e| e.validation_loss));
    let (scores, last_rates) = (epochs(|e| e.score), epochs(|e| e.rate));
    let curve = |name, color, points, dots| Curve {
        name,
        color,
        points,
        dots,
    };
    let mark = training.best().map(|e| (e.epoch as f64 + 1.0, "best"));
    let gap = ui.spacing().item_spacing.x;
    let half = vec2(((ui.available_width() - gap) / 2.0).floor(), 165.0);
    ui.horizontal(|ui| {
        chart_ui(
            ui,
            half,
            &Chart {
                title: "Loss",
                curves: &[
                    curve("step", theme::CURVE_STEPS, &losses, false),
                    curve("training", theme::CURVE_TRAINING, &trained, true),
                    curve("validation", theme::CURVE_VALIDATION, &validated, true),
                ],
                holds: None,
                logarithmic: false,
                mark,
            },
        );
        chart_ui(
            ui,
            half,
            &Chart {
                title: score_name(training),
                curves: &[curve("validation", theme::CURVE_VALIDATION, &scores, true)],
                holds: None,
                logarithmic: false,
                mark,
            },
        );
    });
    // Epochs of an earlier run have left their last rate alone.
    let mut rate_points = last_rates;
    let first = rates.first().map_or(f64::INFINITY, |p| p[0]);
    rate_points.retain(|p| p[0] < first);
    rate_points.extend(rates);
    let wide = vec2(ui.available_width(), 92.0);
    chart_ui(
        ui,
        wide,
        &Chart {
            title: "Learning rate",
            curves: &[curve("", theme::CURVE_TRAINING, &rate_points, false)],
            holds: None,
            logarithmic: true,
            mark: None,
        },
    );
}

fn examples_ui(ui: &mut Ui, training: &TrainingState, pictures: &mut TrainingPictures) {
    if training.examples.is_empty() {
        return;
    }
    if pictures.revision != training.revision || pictures.textures.is_empty() {
        pictures.revision = training.revision;
        let texture = |example: &TrainingExample| {
            ui.load_texture("training example", picture(example), TextureOptions::LINEAR)
        };
        pictures.textures = training.examples.iter().map(texture).collect();
    }
    ui.add_space(6.0);
    ui.horizontal(|ui| {
        let after = training.epochs.len();
        let title = format!("Images that were held out, after {after} epochs");
        ui.label(RichText::new(title).font(theme::medium(13.0)));
        let masks = |e: &TrainingExample| matches!(e.answer, TrainingAnswer::Masks { .. });
        if training.examples.iter().any(masks) {
            for (words, color) in [
                ("outline: truth", theme::OUTLINE_TRUTH),
                ("outline: model", theme::OUTLINE_MODEL),
                ("both", theme::OUTLINE_BOTH),
            ] {
                ui.label(RichText::new("■").color(color));
                ui.label(RichText::new(words).small());
            }
        }
    });
    let count = training.examples.len() as f32;
    let gap = ui.spacing().item_spacing.x;
    let edge = ((ui.available_width() - gap * (count - 1.0)) / count).min(150.0);
    ui.horizontal_top(|ui| {
        for (n, (example, texture)) in training.examples.iter().zip(&pictures.textures).enumerate()
        {
            ui.vertical(|ui| {
                ui.set_width(edge);
                let [rows, columns] = example.dims.map(|n| n as f32);
                let scale = edge / rows.max(columns);
                let image = egui::Image::new((texture.id(), vec2(columns, rows) * scale));
                let words = answer_words(training, example);
                let label = format!("Example {}: {words}", n + 1);
                ui.add(image)
                    .widget_info(|| WidgetInfo::labeled(Role::Image, true, &label));
                ui.add(Label::new(RichText::new(words).small()).wrap());
            });
        }
    });
}

/// Truth and finding in words.
fn answer_words(training: &TrainingState, example: &TrainingExample) -> String {
    let name = |class: usize| {
        let known = training.words.classes.get(class);
        known.cloned().unwrap_or_else(|| format!("class {class}"))
    };
    match &example.answer {
        TrainingAnswer::Class {
            truth,
            probabilities,
        } => {
            let most = (0..probabilities.len())
                .max_by(|a, b| probabilities[*a].total_cmp(&probabilities[*b]))
                .unwrap_or(0);
            let probability = probabilities.get(most).copied().unwrap_or(f64::NAN);
            let right = if most == *truth { "right" } else { "wrong" };
            format!(
                "{}: model says {} ({probability:.2}), {right}",
                name(*truth),
                name(most)
            )
        }
        TrainingAnswer::Masks { truth, found } => {
            // As Dice counts, over all labels.
            let same = truth
                .iter()
                .zip(found)
                .filter(|(t, f)| t == f && **t > 0)
                .count();
            let some = |mask: &[u8]| mask.iter().filter(|l| **l > 0).count();
            let all = some(truth) + some(found);
            if all == 0 {
                "nothing to find, nothing found".to_owned()
            } else {
                format!("Dice in this plane {:.2}", 2.0 * same as f64 / all as f64)
            }
        }
    }
}

/// The example in gray with its outlines.
fn picture(example: &TrainingExample) -> ColorImage {
    let [rows, columns] = example.dims;
    let edge = |mask: &[u8], n: usize| {
        let (y, x) = (n / columns, n % columns);
        let other = |m: usize| mask[m] != mask[n];
        mask[n] > 0
            && ((x > 0 && other(n - 1))
                || (x + 1 < columns && other(n + 1))
                || (y > 0 && other(n - columns))
                || (y + 1 < rows && other(n + columns)))
    };
    let color = |(n, gray): (usize, &u8)| match &example.answer {
        TrainingAnswer::Masks { truth, found } => match (edge(truth, n), edge(found, n)) {
            (true, true) => theme::OUTLINE_BOTH,
            (true, false) => theme::OUTLINE_TRUTH,
            (false, true) => theme::OUTLINE_MODEL,
            (false, false) => Color32::from_gray(*gray),
        },
        TrainingAnswer::Class { .. } => Color32::from_gray(*gray),
    };
    ColorImage::new(
        [columns, rows],
        example.gray.iter().enumerate().map(color).collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outlines_show_who_drew_them() {
        let mut truth = vec![0; 36];
        let mut found = vec![0; 36];
        for n in [7, 8, 9, 13, 14, 15, 19, 20, 21] {
            truth[n] = 1;
            found[n + 1] = 1;
        }
        let example = TrainingExample {
            dims: [6, 6],
            gray: vec![40; 36],
            answer: TrainingAnswer::Masks { truth, found },
        };
        let image = picture(&example);
        assert_eq!(image.pixels[7], theme::OUTLINE_TRUTH);
        assert_eq!(image.pixels[10], theme::OUTLINE_MODEL);
        assert_eq!(image.pixels[8], theme::OUTLINE_BOTH);
        assert_eq!(image.pixels[0], Color32::from_gray(40));
        let words = answer_words(&TrainingState::default(), &example);
        assert_eq!(words, "Dice in this plane 0.67");
    }
}

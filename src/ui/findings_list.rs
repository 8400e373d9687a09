//! What a classifier says about the images: probability, call, and the person's word.

use eframe::egui::{self, Color32, RichText, Sense, Ui, Vec2};

use super::widgets::{icon_button_ui, icon_line_ui, primary_button_ui, section_ui};
use super::{icons, theme};
use crate::app::{App, Command, Dialog, ShownFindings};
use crate::findings::{Assessment, Call, Explanation, Finding, ReviewState, percent_words};

/// Draws the list, model by model.
pub fn findings_ui(ui: &mut Ui, app: &App, shown: &ShownFindings, commands: &mut Vec<Command>) {
    section_ui(ui, "Findings");
    for (_, some) in shown.by_model() {
        let several = some.len() > 1;
        for (n, assessment) in &some {
            if several {
                let title = format!("Image {}", assessment.image + 1);
                ui.label(RichText::new(title).small().color(theme::TEXT_WEAK));
            }
            assessment_ui(ui, app, shown, *n, assessment, commands);
        }
        if let Some((_, first)) = some.first() {
            let made = &first.provenance;
            let words = format!("{} {}", made.model_name, made.model_version);
            ui.add(egui::Label::new(RichText::new(words).small().color(theme::TEXT_WEAK)).wrap());
            ui.add_space(6.0);
        }
    }
    methods_ui(ui, shown, commands);
    // Beside segments one button saves both.
    if app.results.is_none() && app.running(crate::app::JobKind::Export).is_none() {
        let label = if shown.exported {
            "Save again…"
        } else {
            "Save findings…"
        };
        let response = primary_button_ui(ui, icons::FLOPPY_DISK, label, true);
        if response
            .on_hover_text("DICOM SR, CSV and JSON (Ctrl+S)")
            .clicked()
        {
            commands.push(Command::Export);
        }
    }
}

/// How explanations are made, where the model leaves a choice.
fn methods_ui(ui: &mut Ui, shown: &ShownFindings, commands: &mut Vec<Command>) {
    let explains = shown.assessments.iter().any(|a| !a.findings.is_empty());
    let Some(method) = shown.method.filter(|_| explains && shown.methods.len() > 1) else {
        return;
    };
    ui.horizontal(|ui| {
        ui.label(RichText::new("Evidence by").small().color(theme::TEXT_WEAK));
        for &other in &shown.methods {
            let words = RichText::new(other.words()).small();
            if ui.selectable_label(other == method, words).clicked() && other != method {
                commands.push(Command::ExplainBy(other));
            }
        }
    });
}

/// Whether the map that is shown holds.
fn map_ui(ui: &mut Ui, map: &Explanation) {
    let test = &map.faithfulness;
    let (icon, color, words) = if test.explains() {
        (icons::CHECK_CIRCLE, theme::TEXT_WEAK, "the map holds")
    } else {
        (icons::WARNING, theme::DOUBT, "this map explains nothing")
    };
    let text = format!(
        "{words}: {:+.2}, by chance up to {:+.2}",
        test.score(),
        test.chance_best
    );
    let line = ui.scope(|ui| icon_line_ui(ui, icon, color, &text));
    line.response.on_hover_text(format!(
        "{}\nThe image is blurred from the brightest part of the map on (deletion), and made clear \
         again in the same order (insertion). A map that explains the number is better at both than \
         {} orders by chance.",
        test.words(),
        test.chance_orders
    ));
}

fn assessment_ui(
    ui: &mut Ui,
    app: &App,
    shown: &ShownFindings,
    n: usize,
    assessment: &Assessment,
    commands: &mut Vec<Command>,
) {
    for reason in &assessment.refused {
        let words = format!("No finding is given: {reason}");
        icon_line_ui(ui, icons::X_CIRCLE, theme::FAILURE, &words);
    }
    for (m, finding) in assessment.findings.iter().enumerate() {
        let map = shown.explained(n, m).filter(|e| shown.map == Some((n, *e)));
        let busy = app.running(crate::app::JobKind::Explain).is_some();
        let eye = match (map, busy) {
            (Some(_), _) => Some(true),
            (None, false) if shown.method_for(n).is_some() => Some(false),
            _ => None,
        };
        finding_ui(ui, finding, eye, &mut |said| {
            commands.push(match said {
                Said::Review(state) => Command::ReviewFinding(n, m, state),
                Said::Explain => Command::Explain(n, m),
                Said::Edit => Command::ShowDialog(Dialog::EditFinding {
                    image: n,
                    finding: m,
                }),
            });
        });
        if let Some(map) = map {
            map_ui(ui, &assessment.explanations[map]);
        }
        ui.add_space(4.0);
    }
}

const fn call_color(call: Option<Call>) -> Color32 {
    match call {
        Some(Call::Present) => theme::FAILURE,
        Some(Call::NotSure) => theme::DOUBT,
        Some(Call::Absent) | None => theme::TEXT_WEAK,
    }
}

/// What a person clicks on beside a finding.
enum Said {
    Review(ReviewState),
    Explain,
    Edit,
}

/// Draws a finding; `eye` tells whether its evidence is shown, if it can be.
fn finding_ui(ui: &mut Ui, finding: &Finding, eye: Option<bool>, say: &mut dyn FnMut(Said)) {
    let rejected = finding.review == ReviewState::Rejected;
    ui.horizontal(|ui| {
        let mut name = RichText::new(&finding.name).color(theme::TEXT);
        if rejected {
            name = name.strikethrough().color(theme::TEXT_WEAK);
        }
        ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
            if icon_button_ui(ui, icons::X, &format!("Reject {}", finding.name)).clicked() {
                say(Said::Review(ReviewState::Rejected));
            }
            if icon_button_ui(ui, icons::PENCIL, &format!("Edit {}", finding.name)).clicked() {
                say(Said::Edit);
            }
            if icon_button_ui(ui, icons::CHECK, &format!("Accept {}", finding.name)).clicked() {
                say(Said::Review(ReviewState::Accepted));
            }
            if let Some(open) = eye {
                let (icon, verb) = if open {
                    (icons::EYE_SLASH, "Hide")
                } else {
                    (icons::EYE, "Show")
                };
                let words = format!("{verb} the evidence for {}", finding.name);
                if icon_button_ui(ui, icon, &words).clicked() {
                    say(Said::Explain);
                }
            }
            let percent = percent_words(finding.probability);
            ui.label(RichText::new(percent).color(theme::TEXT));
            // The name takes what the number and the buttons leave.
            ui.with_layout(egui::Layout::left_to_right(egui::Align::Center), |ui| {
                ui.add(egui::Label::new(name).truncate());
            });
        });
    });
    bar_ui(ui, finding);
    let call = finding.call.map_or("no threshold", Call::words);
    let review = review_words(finding);
    ui.horizontal_wrapped(|ui| {
        ui.label(RichText::new(call).small().color(call_color(finding.call)));
        ui.label(
            RichText::new(format!("·  {review}"))
                .small()
                .color(theme::TEXT_WEAK),
        );
    })
    .response
    .on_hover_text(details(finding));
}

/// The person's word beside the model's, which stays.
fn review_words(finding: &Finding) -> String {
    match (finding.review, &finding.edit) {
        (ReviewState::NotReviewed, _) => "AI – not reviewed".to_owned(),
        (ReviewState::Accepted, _) => "accepted".to_owned(),
        (ReviewState::Rejected, _) => "rejected".to_owned(),
        (ReviewState::Edited, None) => "edited by reader".to_owned(),
        (ReviewState::Edited, Some(edit)) => {
            let comment = match edit.comment.expose().as_str() {
                "" => String::new(),
                text => format!(" – {text}"),
            };
            format!("edited by reader: {}{comment}", edit.call.words())
        }
    }
}

/// What the numbers mean.
fn details(finding: &Finding) -> String {
    let kind = if finding.calibrated {
        "Calibrated probability"
    } else {
        "Score, not calibrated"
    };
    let threshold = finding.threshold.map_or_else(
        || "the model gives no threshold".to_owned(),
        |t| format!("present from {:.1} %", 100.0 * t),
    );
    let point = finding.operating_point.as_ref().map_or_else(String::new, |p| {
        format!(
            "\nAt this threshold, on {} cases of its validation: sensitivity {:.0} %, specificity {:.0} %",
            p.cases[0] + p.cases[1],
            100.0 * p.sensitivity,
            100.0 * p.specificity
        )
    });
    let reviewed = finding
        .reviewed
        .as_ref()
        .map_or_else(String::new, |review| {
            let by = match review.by.expose().as_str() {
                "" => "a reader who is not named",
                name => name,
            };
            format!(
                "\nReviewed by {by}, {} UTC",
                review.at.format("%Y-%m-%d %H:%M")
            )
        });
    format!(
        "{kind}; {threshold}{point}{reviewed}\nCtrl+Enter accepts the next finding, Ctrl+E edits it, Ctrl+Backspace rejects it"
    )
}

/// The probability as a bar, with a mark at the threshold.
fn bar_ui(ui: &mut Ui, finding: &Finding) {
    let size = Vec2::new(ui.available_width(), 5.0);
    let (rect, _) = ui.allocate_exact_size(size, Sense::hover());
    let at = |p: f64| egui::lerp(rect.left()..=rect.right(), p.clamp(0.0, 1.0) as f32);
    let painter = ui.painter();
    painter.rect_filled(rect, 2.0, theme::RAISED);
    let mut filled = rect;
    filled.set_right(at(finding.probability));
    painter.rect_filled(filled, 2.0, call_color(finding.call));
    if let Some(threshold) = finding.threshold {
        let x = at(threshold);
        let mark = egui::Rect::from_x_y_ranges(x - 0.75..=x + 0.75, rect.y_range().expand(2.0));
        painter.rect_filled(mark, 0.0, theme::TEXT);
    }
}

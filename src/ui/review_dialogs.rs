//! Questions to the person who reviews: the name, and what to say in the model's place.

use eframe::egui::{self, Id, Key, Modifiers, RichText, TextEdit, Ui};

use super::dialogs::title_ui;
use super::widgets::primary_button_ui;
use super::{icons, theme};
use crate::app::{App, Command, Dialog};
use crate::findings::{Call, Edit, ReviewState, percent_words};
use crate::redact::Sensitive;

/// What is half typed: a name or a comment, and a call.
#[derive(Clone)]
struct Draft {
    /// The question that it answers: a comment must not become the next one's name.
    dialog: Option<Dialog>,
    text: String,
    call: Option<Call>,
}

fn place() -> Id {
    Id::unique("review draft")
}

/// Forgets what was half typed: it is about a person.
pub fn forget(ctx: &egui::Context) {
    ctx.data_mut(|data| data.remove::<Draft>(place()));
}

/// Reads what is half typed into the dialog that is open, or begins with `text` and `call`; also
/// whether it has just begun.
fn draft(
    ui: &Ui,
    app: &App,
    text: Option<&Sensitive<String>>,
    call: Option<Call>,
) -> (Draft, bool) {
    let known = ui.data(|data| data.get_temp::<Draft>(place()));
    if let Some(draft) = known.filter(|draft| draft.dialog == app.dialog) {
        return (draft, false);
    }
    let draft = Draft {
        dialog: app.dialog,
        text: text.map(|text| text.expose().clone()).unwrap_or_default(),
        call,
    };
    (draft, true)
}

/// Asks who reviews at this machine.
pub fn reviewer_ui(ui: &mut Ui, app: &App, commands: &mut Vec<Command>) {
    title_ui(ui, "Who reviews?", 420.0, commands);
    let (mut draft, first) = draft(ui, app, app.settings.reviewer.as_ref(), None);
    let name = ui.label("Your name");
    let field = TextEdit::singleline(&mut draft.text)
        .char_limit(64)
        .hint_text("Not named")
        .desired_width(f32::INFINITY);
    let field = ui.add(field).labelled_by(name.id);
    if first {
        field.request_focus();
    }
    let text = "It is kept with each decision and in saved results (DICOM, CSV, JSON). It stays on this machine and is asked once; it may stay empty.";
    ui.label(RichText::new(text).small().color(theme::TEXT_WEAK));
    ui.add_space(6.0);
    let entered = ui.input_mut(|i| i.consume_key(Modifiers::NONE, Key::Enter));
    if primary_button_ui(ui, icons::CHECK, "Keep this name", true).clicked() || entered {
        commands.push(Command::SetReviewer(Sensitive::new(draft.text.clone())));
    }
    ui.data_mut(|data| data.insert_temp(place(), draft));
}

/// Asks what a reader says of a finding in the model's place.
pub fn edit_ui(ui: &mut Ui, app: &App, at: (usize, usize), commands: &mut Vec<Command>) {
    let shown = app.findings.as_ref();
    let Some(finding) = shown.and_then(|s| s.finding(at.0, at.1)) else {
        commands.push(Command::CloseDialog);
        return;
    };
    title_ui(ui, &format!("Edit {}", finding.name), 420.0, commands);
    let model = format!(
        "The model: {}, {}",
        percent_words(finding.probability),
        finding.call.map_or("no call", Call::words)
    );
    ui.label(RichText::new(model).color(theme::TEXT_WEAK));
    // Nothing is chosen beforehand: a call must be the reader's own.
    let before = finding.edit.as_ref();
    let (mut draft, _) = draft(
        ui,
        app,
        before.map(|edit| &edit.comment),
        before.map(|edit| edit.call),
    );
    let typing = ui.ctx().egui_wants_keyboard_input();
    let calls = [
        (Call::Present, "Present (P)", Key::P),
        (Call::Absent, "Absent (A)", Key::A),
        (Call::NotSure, "Not sure (N)", Key::N),
    ];
    ui.horizontal(|ui| {
        for (call, label, key) in calls {
            ui.radio_value(&mut draft.call, Some(call), label);
            if !typing && ui.input_mut(|i| i.consume_key(Modifiers::NONE, key)) {
                draft.call = Some(call);
            }
        }
    });
    let name = ui.label("Comment");
    let field = TextEdit::singleline(&mut draft.text)
        .char_limit(200)
        .hint_text("May stay empty")
        .desired_width(f32::INFINITY);
    ui.add(field).labelled_by(name.id);
    ui.add_space(6.0);
    let entered = ui.input_mut(|i| {
        i.consume_key(Modifiers::COMMAND, Key::Enter) || i.consume_key(Modifiers::NONE, Key::Enter)
    });
    let ready = draft.call.is_some();
    let save = primary_button_ui(ui, icons::CHECK, "Keep the edit", ready);
    let save = save.on_disabled_hover_text("Choose a call first");
    if let (true, Some(call)) = (save.clicked() || entered, draft.call) {
        let comment = Sensitive::new(draft.text.trim().to_owned());
        commands.push(Command::EditFinding(at.0, at.1, Edit { call, comment }));
    }
    if finding.review == ReviewState::Edited && ui.button("Take the edit back").clicked() {
        commands.push(Command::ReviewFinding(at.0, at.1, ReviewState::Edited));
        commands.push(Command::CloseDialog);
    }
    ui.data_mut(|data| data.insert_temp(place(), draft));
}

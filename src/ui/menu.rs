//! The menu bar and the keys, from one table.

use eframe::egui::{Button, Key, KeyboardShortcut, MenuBar, Modifiers, Ui};

use crate::app::{App, Command, Dialog, Shortcut, command_table};

/// Draws the menu bar.
pub fn menu_ui(ui: &mut Ui, app: &App, commands: &mut Vec<Command>) {
    let table = command_table();
    MenuBar::new().ui(ui, |ui| {
        for menu in ["File", "View", "Analysis", "Help"] {
            ui.menu_button(menu, |ui| {
                if menu == "View" {
                    ui.menu_button("Window", |ui| windows_ui(ui, app, commands));
                }
                for (_, label, command, shortcut) in table.iter().filter(|(m, ..)| *m == menu) {
                    if menu == "File" && *label == "Skipped files…" {
                        recent_ui(ui, app, commands);
                        ui.separator();
                    }
                    let mut button = Button::new(checked_label(app, command, label));
                    if let Some(shortcut) = shortcut {
                        button = button.shortcut_text(shortcut.text());
                    }
                    if ui.add_enabled(is_possible(app, command), button).clicked() {
                        commands.push(command.clone());
                    }
                }
            });
        }
    });
}

fn recent_ui(ui: &mut Ui, app: &App, commands: &mut Vec<Command>) {
    ui.menu_button("Open recent", |ui| {
        if app.settings.recent.is_empty() {
            ui.weak("Nothing opened yet");
        }
        for path in &app.settings.recent {
            if ui.button(path.display().to_string()).clicked() {
                commands.push(Command::Open(vec![path.clone()]));
            }
        }
    });
}

fn windows_ui(ui: &mut Ui, app: &App, commands: &mut Vec<Command>) {
    let Some(open) = &app.workspace.open else {
        ui.weak("Open a series first");
        return;
    };
    for (key, named) in open.windows() {
        let w = named.window;
        let number = super::corner_text::number;
        let text = format!(
            "{}   {} / {}",
            named.name,
            number(w.width),
            number(w.center)
        );
        let mut button = Button::new(text);
        if key < 10 {
            button = button.shortcut_text(key.to_string());
        }
        if ui.add(button).clicked() {
            commands.push(Command::Preset(key));
        }
    }
}

fn is_possible(app: &App, command: &Command) -> bool {
    match command {
        Command::Export | Command::AcceptResult | Command::RejectResult => {
            app.results.is_some() || app.findings.is_some()
        }
        Command::EditNext => (app.findings.as_ref()).is_some_and(|f| f.next().is_some()),
        Command::ToggleOverlay => app.results.is_some(),
        Command::RunModel => app.can_run().is_ok(),
        Command::StepSeries(_) => !app.browser.is_empty(),
        _ => true,
    }
}

fn checked_label(app: &App, command: &Command, label: &str) -> String {
    let on = match command {
        Command::Invert => app.workspace.invert,
        Command::ToggleInterpolation => app.settings.interpolate,
        Command::ToggleCrosshair => app.workspace.show_crosshair,
        Command::ToggleDragDirection => app.settings.drag_down_brightens,
        Command::ToggleOverlay => app.results.as_ref().is_some_and(|r| r.overlay.visible),
        _ => return label.to_owned(),
    };
    if on {
        format!("{label}  {}", super::icons::CHECK)
    } else {
        label.to_owned()
    }
}

/// Commands of the keys pressed in this frame. Keys that a focused text field needs are left to it.
pub fn keys(ui: &Ui, app: &App, commands: &mut Vec<Command>) {
    // What is typed into a question about a finding must not decide on the next one.
    let asked = matches!(
        app.dialog,
        Some(Dialog::Reviewer | Dialog::EditFinding { .. })
    );
    if asked || ui.ctx().egui_wants_keyboard_input() {
        return;
    }
    let pressed = |shortcut: &KeyboardShortcut| ui.input_mut(|i| i.consume_shortcut(shortcut));
    // Longer shortcuts first, so that Ctrl+Shift+O is not taken for Ctrl+O.
    let mut table = command_table();
    table.sort_by_key(|(.., s)| s.map_or(0, |s| -(i32::from(s.ctrl) + i32::from(s.shift))));
    for (_, _, command, shortcut) in table {
        let Some(shortcut) = shortcut.and_then(|s| keyboard_shortcut(&s)) else {
            continue;
        };
        if pressed(&shortcut) && is_possible(app, &command) {
            commands.push(command);
        }
    }
    let view = app.workspace.active;
    let plain = |key| KeyboardShortcut::new(Modifiers::NONE, key);
    let shift = |key| KeyboardShortcut::new(Modifiers::SHIFT, key);
    let (_, count) = app.workspace.slice(view).unwrap_or((0, 1));
    let zoom = |factor| Command::Zoom {
        view,
        factor,
        at_mm: crate::geometry::DVec2::ZERO,
    };
    let more = [
        (shift(Key::ArrowUp), Command::Scroll { view, steps: -10 }),
        (shift(Key::ArrowDown), Command::Scroll { view, steps: 10 }),
        (plain(Key::ArrowUp), Command::Scroll { view, steps: -1 }),
        (plain(Key::ArrowDown), Command::Scroll { view, steps: 1 }),
        (plain(Key::PageUp), Command::Scroll { view, steps: -10 }),
        (plain(Key::PageDown), Command::Scroll { view, steps: 10 }),
        (plain(Key::Home), Command::ScrollTo { view, index: 0 }),
        (
            plain(Key::End),
            Command::ScrollTo {
                view,
                index: count.saturating_sub(1),
            },
        ),
        (shift(Key::Tab), Command::NextView(-1)),
        (plain(Key::Plus), zoom(1.25)),
        (plain(Key::Minus), zoom(0.8)),
        (plain(Key::F11), Command::Maximize(view)),
        (plain(Key::Escape), Command::Escape),
    ];
    for (shortcut, command) in more {
        if pressed(&shortcut) {
            commands.push(command);
        }
    }
    let digits = [
        Key::Num0,
        Key::Num1,
        Key::Num2,
        Key::Num3,
        Key::Num4,
        Key::Num5,
        Key::Num6,
        Key::Num7,
        Key::Num8,
        Key::Num9,
    ];
    for (number, key) in digits.into_iter().enumerate() {
        if pressed(&plain(key)) {
            commands.push(Command::Preset(number as u8));
        }
    }
}

fn keyboard_shortcut(shortcut: &Shortcut) -> Option<KeyboardShortcut> {
    let mut modifiers = Modifiers::NONE;
    if shortcut.ctrl {
        modifiers |= Modifiers::COMMAND;
    }
    if shortcut.shift {
        modifiers |= Modifiers::SHIFT;
    }
    Some(KeyboardShortcut::new(
        modifiers,
        Key::from_name(shortcut.key)?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shortcut_names_a_key() {
        for (_, label, _, shortcut) in command_table() {
            if let Some(shortcut) = shortcut {
                assert!(
                    keyboard_shortcut(&shortcut).is_some(),
                    "{label}: {}",
                    shortcut.key
                );
            }
        }
    }
}

//! The bar below: what is under the pointer, work in the background, research use.

use eframe::egui::{Align, Layout, RichText, Spinner, Ui};

use super::viewport::Hover;
use super::{icons, theme};
use crate::RESEARCH_USE;
use crate::app::{App, Command};
use crate::geometry::position_words;
use crate::study::Issue;
use crate::volume::Layout as SliceLayout;

/// Draws the bar.
pub fn status_bar_ui(ui: &mut Ui, app: &App, hover: Option<Hover>, commands: &mut Vec<Command>) {
    ui.horizontal_centered(|ui| {
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
            ui.label(RichText::new(RESEARCH_USE).small().color(theme::DOUBT));
            ui.separator();
            for job in app.jobs.iter().rev().take(2) {
                ui.scope(|ui| {
                    ui.set_max_width(240.0);
                    ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                        let stop = super::widgets::icon_button_ui(
                            ui,
                            icons::X,
                            &format!("Cancel: {}", job.title),
                        );
                        if stop.clicked() {
                            commands.push(Command::CancelJob(job.id));
                        }
                        let progress = job.task.progress();
                        let percent = progress.fraction().map(|f| format!("  {:.0} %", f * 100.0));
                        let text = format!("{}{}", job.title, percent.unwrap_or_default());
                        ui.add(eframe::egui::Label::new(RichText::new(text).small()).truncate());
                        ui.add(Spinner::new().size(13.0).color(theme::ACCENT));
                    });
                });
            }
            let waiting = app.waiting_jobs();
            if waiting > 0 {
                let text = match waiting {
                    1 => "1 job waits for a server".to_owned(),
                    n => format!("{n} jobs wait for a server"),
                };
                let text = RichText::new(text).small().color(theme::DOUBT);
                let button = eframe::egui::Button::new(text).frame(false);
                if ui.add(button).clicked() {
                    commands.push(Command::ShowQueue);
                }
                ui.separator();
            }
            ui.with_layout(Layout::left_to_right(Align::Center), |ui| {
                if let Some(text) = under_pointer(app, hover) {
                    ui.add(eframe::egui::Label::new(RichText::new(text).size(13.0)).truncate());
                }
            });
        });
    });
}

/// Value with its unit, voxel, patient position, and the segment under the pointer.
pub fn under_pointer(app: &App, hover: Option<Hover>) -> Option<String> {
    let (open, hover) = (app.workspace.open.as_ref()?, hover?);
    let volume = &open.data;
    let ijk = volume.geometry.ijk_at(hover.lps_mm);
    let voxel = [ijk.x, ijk.y, ijk.z].map(|x| x.round() as i64);
    let mut parts = Vec::new();
    if let Some(value) = volume.value_at(voxel) {
        let [i, j, k] = voxel;
        if let crate::volume::Voxels::Rgb8(colors) = &volume.voxels {
            let [r, g, b] = colors[volume.geometry.index(i as usize, j as usize, k as usize)];
            parts.push(format!("R {r}  G {g}  B {b}"));
        } else {
            let unit = volume.quantity.unit();
            let number = super::corner_text::number(value);
            parts.push(format!("{number} {unit}").trim_end().to_owned());
        }
        let k = open.loading.map_or(k, |(_, slice, _)| slice as i64);
        parts.push(format!("voxel {i}, {j}, {k}"));
    }
    let placed =
        volume.layout == SliceLayout::Volumetric && !volume.issues.contains(&Issue::NoGeometry);
    if placed {
        parts.push(position_words(hover.lps_mm));
    }
    if let Some(results) = app.results.as_ref().filter(|r| r.volume == open.id) {
        let map = &results.segmentation.map;
        let p = map.geometry.ijk_at(hover.lps_mm).round();
        let dims = map.geometry.dims();
        let inside = p.min_element() >= 0.0
            && (p.x as usize) < dims[0]
            && (p.y as usize) < dims[1]
            && (p.z as usize) < dims[2];
        if inside {
            let label = map.labels[map.geometry.index(p.x as usize, p.y as usize, p.z as usize)];
            let segment = results
                .segmentation
                .segments
                .iter()
                .find(|s| s.label == label);
            parts.extend(segment.map(|s| s.name.clone()));
        }
    }
    (!parts.is_empty()).then(|| parts.join("    "))
}

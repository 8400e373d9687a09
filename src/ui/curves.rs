//! A chart of curves over epochs, drawn with egui's painter: axes with round numbers, a legend,
//! and the values under the pointer.

use eframe::egui::{
    Align2, Color32, FontId, Painter, Pos2, Rect, Response, Role, Sense, Shape, Stroke, Ui, Vec2,
    WidgetInfo, pos2, vec2,
};

use super::theme;

/// A curve.
pub struct Curve<'a> {
    /// Name in the legend.
    pub name: &'a str,
    /// Color; curves differ in their marks too.
    pub color: Color32,
    /// Epochs that are done, and the value.
    pub points: &'a [[f64; 2]],
    /// Each point has a dot.
    pub dots: bool,
}

/// A chart.
pub struct Chart<'a> {
    /// What is drawn; its name for screen readers too.
    pub title: &'a str,
    /// Curves, the first one below.
    pub curves: &'a [Curve<'a>],
    /// Values that the axis holds in any case.
    pub holds: Option<[f64; 2]>,
    /// The axis has powers of ten.
    pub logarithmic: bool,
    /// A place along the epochs that is marked, and the word for it.
    pub mark: Option<(f64, &'a str)>,
}

/// Room for numbers left of the axis, below it, and for the title above.
const MARGIN: [f32; 3] = [54.0, 34.0, 24.0];

/// Draws a chart of a size.
pub fn chart_ui(ui: &mut Ui, size: Vec2, chart: &Chart<'_>) -> Response {
    let (rect, response) = ui.allocate_exact_size(size, Sense::hover());
    response.widget_info(|| WidgetInfo::labeled(Role::Image, true, chart.title));
    let painter = ui.painter().with_clip_rect(rect);
    let inner = Rect::from_min_max(
        rect.min + vec2(MARGIN[0], MARGIN[2]),
        rect.max - vec2(10.0, MARGIN[1]),
    );
    painter.rect_filled(rect, 6.0, theme::RAISED);
    let text = |at: Pos2, anchor: Align2, text: &str, color: Color32| {
        painter.text(at, anchor, text, FontId::proportional(11.5), color)
    };
    let title_at = rect.min + vec2(10.0, 5.0);
    let font = theme::medium(13.0);
    let drawn = painter.text(title_at, Align2::LEFT_TOP, chart.title, font, theme::TEXT);
    let mut legend = drawn.max.x + 14.0;
    for curve in chart.curves.iter().filter(|c| !c.points.is_empty()) {
        let y = drawn.center().y;
        let stroke = Stroke::new(2.0, curve.color);
        painter.line_segment([pos2(legend, y), pos2(legend + 16.0, y)], stroke);
        if curve.dots {
            painter.circle_filled(pos2(legend + 8.0, y), 3.0, curve.color);
        }
        let name_at = pos2(legend + 20.0, y);
        legend = text(name_at, Align2::LEFT_CENTER, curve.name, theme::TEXT_WEAK)
            .max
            .x
            + 12.0;
    }
    let value = |v: f64| if chart.logarithmic { v.log10() } else { v };
    let Some(range) = range_of(chart, &value) else {
        let words = "No numbers yet";
        text(
            inner.center(),
            Align2::CENTER_CENTER,
            words,
            theme::TEXT_WEAK,
        );
        return response;
    };
    let last = (chart.curves.iter().flat_map(|c| c.points))
        .map(|p| p[0])
        .fold(1.0, f64::max);
    let x = |epoch: f64| inner.left() + (epoch / last) as f32 * inner.width();
    let y = |v: f64| {
        let part = (value(v) - range[0]) / (range[1] - range[0]);
        inner.bottom() - part as f32 * inner.height()
    };
    let line = Stroke::new(1.0, theme::LINE);
    for tick in ticks([0.0, last], (inner.width() / 60.0) as usize) {
        // Epochs are whole.
        if tick.fract() == 0.0 {
            painter.line_segment(
                [pos2(x(tick), inner.top()), pos2(x(tick), inner.bottom())],
                line,
            );
            let at = pos2(x(tick), inner.bottom() + 3.0);
            text(at, Align2::CENTER_TOP, &format!("{tick}"), theme::TEXT_WEAK);
        }
    }
    let names_at = pos2(inner.center().x, rect.bottom() - 3.0);
    text(
        names_at,
        Align2::CENTER_BOTTOM,
        "epochs done",
        theme::TEXT_WEAK,
    );
    let values = if chart.logarithmic {
        decades(range, (inner.height() / 16.0) as usize)
    } else {
        ticks(range, (inner.height() / 34.0) as usize)
    };
    for tick in &values {
        let at = y(*tick);
        painter.line_segment([pos2(inner.left(), at), pos2(inner.right(), at)], line);
        let at = pos2(inner.left() - 6.0, at);
        text(
            at,
            Align2::RIGHT_CENTER,
            &number(*tick, &values),
            theme::TEXT_WEAK,
        );
    }
    let plot = painter.with_clip_rect(inner.expand(3.0));
    if let Some((epoch, word)) = chart.mark {
        let ends = [pos2(x(epoch), inner.top()), pos2(x(epoch), inner.bottom())];
        plot.extend(Shape::dashed_line(
            &ends,
            Stroke::new(1.0, theme::ACCENT),
            4.0,
            4.0,
        ));
        let right = x(epoch) > inner.center().x;
        let (anchor, by) = if right {
            (Align2::RIGHT_BOTTOM, -4.0)
        } else {
            (Align2::LEFT_BOTTOM, 4.0)
        };
        let at = ends[1] + vec2(by, -2.0);
        plot.text(at, anchor, word, FontId::proportional(11.5), theme::ACCENT);
    }
    for curve in chart.curves {
        draw(&plot, curve, &x, &y);
    }
    if let Some(pointer) = response.hover_pos().filter(|p| inner.contains(*p)) {
        let epoch = f64::from((pointer.x - inner.left()) / inner.width()) * last;
        let ends = [
            pos2(pointer.x, inner.top()),
            pos2(pointer.x, inner.bottom()),
        ];
        plot.line_segment(ends, Stroke::new(1.0, theme::TEXT_WEAK));
        let lines: Vec<String> = (chart.curves.iter())
            .filter_map(|c| {
                let [at, value] = nearest(c.points, epoch)?;
                // The points of epochs lie at whole numbers, those of steps between.
                let at = if c.dots {
                    format!("{at:.0}")
                } else {
                    format!("{at:.2}")
                };
                let name = if c.name.is_empty() {
                    chart.title
                } else {
                    c.name
                };
                Some(format!("{name} after {at} epochs: {}", exact(value)))
            })
            .collect();
        return response.on_hover_text_at_pointer(lines.join("\n"));
    }
    response
}

fn draw(painter: &Painter, curve: &Curve<'_>, x: &dyn Fn(f64) -> f32, y: &dyn Fn(f64) -> f32) {
    let width = if curve.dots { 2.0 } else { 1.0 };
    // A value that has no place leaves a gap: no number, or a rate of 0 on an axis of powers.
    for run in curve.points.split(|p| !y(p[1]).is_finite()) {
        let points: Vec<Pos2> = run.iter().map(|p| pos2(x(p[0]), y(p[1]))).collect();
        if curve.dots {
            for point in &points {
                painter.circle_filled(*point, 2.5, curve.color);
            }
        }
        painter.add(Shape::line(points, Stroke::new(width, curve.color)));
    }
}

/// Lowest and highest value of the axis.
fn range_of(chart: &Chart<'_>, value: &dyn Fn(f64) -> f64) -> Option<[f64; 2]> {
    let all = chart.curves.iter().flat_map(|c| c.points).map(|p| p[1]);
    let mut all: Vec<f64> = all.map(value).filter(|v| v.is_finite()).collect();
    if all.is_empty() {
        return None;
    }
    all.sort_by(f64::total_cmp);
    // A few wild steps do not flatten all others.
    let highest = all[((all.len() - 1) as f64 * 0.995).ceil() as usize];
    let mut range = [all[0], highest];
    if let Some([low, high]) = chart.holds {
        range = [range[0].min(value(low)), range[1].max(value(high))];
    }
    let span = (range[1] - range[0]).max(range[1].abs() * 1e-3).max(1e-9);
    Some([range[0] - span * 0.05, range[1] + span * 0.05])
}

/// Round numbers inside a range, about `count` of them.
fn ticks([low, high]: [f64; 2], count: usize) -> Vec<f64> {
    let rough = (high - low) / count.max(1) as f64;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|m| m * power)
        .find(|s| *s >= rough)
        .unwrap_or(power * 10.0);
    let (first, last) = ((low / step).ceil() as i64, (high / step).floor() as i64);
    (first..=last).map(|n| n as f64 * step).collect()
}

/// 1, 2 and 5 times the powers of ten whose logarithms lie in a range, or fewer of them: no more
/// than `most` would stand evenly.
fn decades([low, high]: [f64; 2], most: usize) -> Vec<f64> {
    let most = most.max(1) as f64;
    // 1, 2 and 5 lie at least 0.3 of a power apart.
    let marks: &[f64] = if (high - low) / 0.3 <= most {
        &[1.0, 2.0, 5.0]
    } else {
        &[1.0]
    };
    let step = ((high - low) / most).ceil().max(1.0) as usize;
    let powers = (high.floor() as i32 + 1 - low.floor() as i32).max(1);
    (0..powers)
        .step_by(step)
        .map(|down| high.floor() as i32 - down)
        .rev()
        .flat_map(|p| marks.iter().map(move |m| m * 10_f64.powi(p)))
        .filter(|v| (low..=high).contains(&v.log10()))
        .collect()
}

/// A value in four digits.
fn exact(value: f64) -> String {
    if value != 0.0 && !(1e-3..1e4).contains(&value.abs()) {
        return format!("{value:.3e}");
    }
    let whole = value.abs().max(1e-3).log10().floor() as i32;
    let digits = (3 - whole).clamp(0, 6) as usize;
    format!("{value:.digits$}")
}

/// As many digits as tell neighbors apart.
fn number(tick: f64, all: &[f64]) -> String {
    let largest = all.iter().fold(0.0_f64, |most, v| most.max(v.abs()));
    if !(1e-2..1e5).contains(&largest) {
        return format!("{tick:.0e}");
    }
    let gap = all
        .windows(2)
        .map(|w| w[1] - w[0])
        .fold(f64::INFINITY, f64::min);
    let digits = if gap.is_finite() {
        (-gap.log10()).ceil().clamp(0.0, 5.0) as usize
    } else {
        3
    };
    format!("{tick:.digits$}")
}

/// The point that lies nearest to an epoch.
fn nearest(points: &[[f64; 2]], epoch: f64) -> Option<[f64; 2]> {
    let far = |p: &&[f64; 2]| (p[0] - epoch).abs();
    let known = points.iter().filter(|p| p[1].is_finite());
    known.min_by(|a, b| far(a).total_cmp(&far(b))).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(ticks([0.0, 10.0], 5), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        let found = ticks([0.913, 0.987], 4);
        assert_eq!(found.len(), 4, "{found:?}");
        assert!(found.iter().all(|t| (0.913..=0.987).contains(t)));
        assert_eq!(number(found[0], &found), "0.92");
        assert!(ticks([0.0, 1.0], 0).len() <= 2);
    }

    #[test]
    fn powers_of_ten_have_few_marks() {
        assert_eq!(decades([-3.1, -2.0], 4), [1e-3, 2e-3, 5e-3, 1e-2]);
        assert_eq!(decades([-3.1, -2.0], 2), [1e-3, 1e-2]);
        assert_eq!(decades([-6.0, -2.0], 8).len(), 5);
        assert_eq!(decades([-6.0, -2.0], 2), [1e-6, 1e-4, 1e-2]);
        assert_eq!(decades([-5.3, -2.9], 0), [1e-3]);
    }

    #[test]
    fn values_have_four_digits() {
        assert_eq!(exact(0.350_61), "0.3506");
        assert_eq!(exact(12.345), "12.35");
        assert_eq!(exact(0.001_234_6), "0.001235");
        assert_eq!(exact(1e-5), "1.000e-5");
        assert_eq!(exact(0.0), "0.000000");
    }

    #[test]
    fn what_is_no_number_has_no_place() {
        let points = [[0.0, f64::NAN], [1.0, 0.5], [2.0, 0.7]];
        assert_eq!(nearest(&points, 0.1), Some([1.0, 0.5]));
        let curve = Curve {
            name: "a",
            color: Color32::WHITE,
            points: &points,
            dots: true,
        };
        let chart = Chart {
            title: "t",
            curves: &[curve],
            holds: None,
            logarithmic: false,
            mark: None,
        };
        let [low, high] = range_of(&chart, &|v| v).unwrap();
        assert!(low < 0.5 && high > 0.7 && high < 0.8);
    }
}

//! Whether an image looks like those that a model has learned from.
//!
//! A network gives a number for anything, also for a knee or a chest upside down. The mean of the
//! training images at a few points per axis, compared by correlation, tells those apart: it is no
//! proof that an image is a fit one, only that a stranger is one.

use super::resize_plane;
use crate::model::Template;

/// Values at the template's size, mean 0 and deviation 1; all 0 for an even image.
pub fn features(plane: &[f32], dims: [usize; 2], size: [usize; 2]) -> Vec<f32> {
    let mut small = resize_plane(plane, dims, size);
    let n = small.len().max(1) as f64;
    let mean = small.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
    let spread = |v: &f32| (f64::from(*v) - mean).powi(2);
    let deviation = (small.iter().map(spread).sum::<f64>() / n).sqrt();
    for v in &mut small {
        *v = if deviation > 1e-6 {
            ((f64::from(*v) - mean) / deviation) as f32
        } else {
            0.0
        };
    }
    small
}

/// Pearson's correlation of two images of mean 0 (0 where one is even).
pub fn correlation(a: &[f32], b: &[f32]) -> f64 {
    let sum = |x: &[f32], y: &[f32]| -> f64 {
        (x.iter().zip(y))
            .map(|(x, y)| f64::from(*x) * f64::from(*y))
            .sum()
    };
    let lengths = (sum(a, a) * sum(b, b)).sqrt();
    if lengths > 0.0 {
        sum(a, b) / lengths
    } else {
        0.0
    }
}

/// The largest correlation of the image with black and white exchanged or turned, and how.
pub fn otherwise(
    mean: &[f32],
    size: [usize; 2],
    plane: &[f32],
    dims: [usize; 2],
) -> (f64, &'static str) {
    let inverted: Vec<f32> = features(plane, dims, size).iter().map(|v| -v).collect();
    let turned = |quarters: usize| {
        let (plane, dims) = turn(plane, dims, quarters);
        correlation(&features(&plane, dims, size), mean)
    };
    [
        (
            correlation(&inverted, mean),
            "with black and white exchanged",
        ),
        (turned(1), "turned by a quarter"),
        (turned(2), "upside down"),
        (turned(3), "turned by a quarter"),
    ]
    .into_iter()
    .max_by(|a, b| a.0.total_cmp(&b.0))
    .expect("there are four")
}

/// Why an image is none that the model was made for; `None` when nothing speaks against it.
///
/// `plane` is `[y][x]`, black 0 to white.
pub fn stranger(template: &Template, plane: &[f32], dims: [usize; 2]) -> Option<String> {
    let own = features(plane, dims, template.size);
    if own.iter().all(|v| *v == 0.0) {
        return Some("the image is empty".to_owned());
    }
    let alike = correlation(&own, &template.mean);
    let (best, how) = otherwise(&template.mean, template.size, plane, dims);
    let other = best > alike + template.margin && best >= template.lowest;
    if !other && alike >= template.lowest {
        return None;
    }
    let hint = if other {
        format!("; it would look more like them {how}")
    } else {
        String::new()
    };
    Some(format!(
        "it does not look like the images that the model has learned from (similarity {alike:.2}, at least {:.2} expected){hint}",
        template.lowest
    ))
}

/// Turned counter-clockwise by quarters.
fn turn(plane: &[f32], [ny, nx]: [usize; 2], quarters: usize) -> (Vec<f32>, [usize; 2]) {
    let at = |y: usize, x: usize| plane[y * nx + x];
    match quarters % 4 {
        0 => (plane.to_vec(), [ny, nx]),
        1 => {
            let rows = (0..nx).flat_map(|y| (0..ny).map(move |x| (x, nx - 1 - y)));
            (rows.map(|(y, x)| at(y, x)).collect(), [nx, ny])
        }
        2 => (plane.iter().rev().copied().collect(), [ny, nx]),
        _ => {
            let rows = (0..nx).flat_map(|y| (0..ny).map(move |x| (ny - 1 - x, y)));
            (rows.map(|(y, x)| at(y, x)).collect(), [nx, ny])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bright below, dark spots left and right: something with a way up.
    fn chest(shift: f32) -> Vec<f32> {
        (0..40 * 30)
            .map(|n| {
                let (y, x) = ((n / 30) as f32 / 40.0, (n % 30) as f32 / 30.0 + shift);
                let lung =
                    |cx: f32| (-((x - cx) / 0.15).powi(2) - ((y - 0.4) / 0.25).powi(2)).exp();
                120.0 + 100.0 * y - 110.0 * (lung(0.27) + lung(0.73))
            })
            .collect()
    }

    fn template() -> Template {
        Template {
            size: [16, 16],
            mean: features(&chest(0.0), [40, 30], [16, 16]),
            lowest: 0.6,
            margin: 0.15,
        }
    }

    #[test]
    fn images_of_the_kind_pass() {
        assert_eq!(stranger(&template(), &chest(0.03), [40, 30]), None);
    }

    #[test]
    fn inverted_turned_and_strange_images_are_told() {
        let said = |plane: &[f32], dims| stranger(&template(), plane, dims).unwrap();
        let image = chest(0.0);
        let inverted: Vec<f32> = image.iter().map(|v| 255.0 - v).collect();
        assert!(said(&inverted, [40, 30]).contains("exchanged"));
        let (upside, dims) = turn(&image, [40, 30], 2);
        assert!(said(&upside, dims).contains("upside down"));
        for quarters in [1, 3] {
            let (turned, dims) = turn(&image, [40, 30], quarters);
            assert!(said(&turned, dims).contains("quarter"));
        }
        let stripes: Vec<f32> = (0..1200)
            .map(|n| ((n / 30 / 4) % 2) as f32 * 200.0)
            .collect();
        assert!(said(&stripes, [40, 30]).contains("does not look like"));
        assert!(said(&[7.0; 1200], [40, 30]).contains("empty"));
    }

    #[test]
    fn four_quarters_are_a_whole_turn() {
        let image = chest(0.1);
        let (mut plane, mut dims) = (image.clone(), [40, 30]);
        for _ in 0..4 {
            (plane, dims) = turn(&plane, dims, 1);
        }
        assert_eq!((plane, dims), (image, [40, 30]));
    }
}

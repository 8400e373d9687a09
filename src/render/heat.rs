//! Colors of an explanation's values: dark and clear for little evidence, bright for much; never
//! the other way round.

use super::slice_view::{RgbaPixels, SliceView};
use crate::findings::Explanation;
use crate::geometry::DVec3;
use crate::volume::Volume;

/// Colors at equal distances, from matplotlib's inferno (CC0): evenly brighter, also for eyes that
/// do not tell red from green.
const COLORS: [[u8; 3]; 9] = [
    [0, 0, 4],
    [31, 12, 72],
    [85, 15, 109],
    [136, 34, 106],
    [186, 54, 85],
    [227, 89, 51],
    [249, 140, 10],
    [249, 201, 50],
    [252, 255, 164],
];

/// Opacity of the highest values over the image.
const OPAQUE: f32 = 0.6;

/// Color of a part of the highest value, 0 to 1.
pub fn heat_color(part: f32) -> [u8; 3] {
    let at = part.clamp(0.0, 1.0) * (COLORS.len() - 1) as f32;
    let first = (at as usize).min(COLORS.len() - 2);
    let [a, b] = [COLORS[first], COLORS[first + 1]];
    let between = at - first as f32;
    [0, 1, 2].map(|c| {
        let [a, b] = [f32::from(a[c]), f32::from(b[c])];
        (a + (b - a) * between).round() as u8
    })
}

/// Opacity over the image of a part of the highest value.
pub fn heat_opacity(part: f32) -> f32 {
    // What is next to nothing stays clear, so that the image below is not veiled.
    OPAQUE * ((part - 0.08) / 0.42).clamp(0.0, 1.0)
}

/// Blends a map over the picture of a slice of its image.
pub fn blend(picture: &mut RgbaPixels, volume: &Volume, view: &SliceView, map: &Explanation) {
    let highest = map.highest();
    if highest <= 0.0 {
        return;
    }
    let grid = view.on_grid(&volume.geometry);
    for y in 0..view.size_px[1] {
        for x in 0..view.size_px[0] {
            let from_middle = view.from_middle(x, y);
            let ijk: DVec3 = grid.origin + grid.dx * from_middle.x + grid.dy * from_middle.y;
            // Voxel indices are of middles, the map counts from the first one's corner.
            let Some(value) = map.at(ijk.y + 0.5, ijk.x + 0.5) else {
                continue;
            };
            let part = value / highest;
            let (color, opacity) = (heat_color(part), heat_opacity(part));
            let at = (y as usize * picture.width + x as usize) * 4;
            for (to, c) in picture.rgba[at..at + 3].iter_mut().zip(color) {
                let old = f32::from(*to);
                *to = (old + (f32::from(c) - old) * opacity).round() as u8;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_is_brighter() {
        let light = |part: f32| {
            let [r, g, b] = heat_color(part).map(f32::from);
            0.2126 * r + 0.7152 * g + 0.0722 * b
        };
        let all: Vec<f32> = (0..=100).map(|n| light(n as f32 / 100.0)).collect();
        assert!(all.windows(2).all(|w| w[1] >= w[0] - 0.5), "{all:?}");
        assert_eq!(heat_color(0.0), COLORS[0]);
        assert_eq!(heat_color(1.0), COLORS[8]);
        assert_eq!((heat_opacity(0.0), heat_opacity(1.0)), (0.0, OPAQUE));
    }
}

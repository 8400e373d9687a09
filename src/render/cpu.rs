//! The same picture on the CPU: the definition that the shader is compared with, and the way
//! pictures are made where there is no GPU.

use rayon::prelude::*;

use super::slice_view::{GridMapping, RgbaPixels, SliceView};
use crate::geometry::{DVec2, DVec3};
use crate::volume::{LabelMap, VoiWindow, Volume, Voxels};

/// Draws a view, pixel by pixel, in f64 positions and f32 values.
pub fn draw_slice_cpu(volume: &Volume, labels: Option<&LabelMap>, view: &SliceView) -> RgbaPixels {
    let [width, height] = view.size_px.map(|n| n as usize);
    let grid = view.on_grid(&volume.geometry);
    let overlay = view.overlay.as_ref().zip(labels);
    let label_grid = overlay.map(|(_, map)| view.on_grid(&map.geometry));
    let mut rgba = vec![0_u8; width * height * 4];
    rgba.par_chunks_mut((width * 4).max(4))
        .enumerate()
        .for_each(|(y, row)| {
            for (x, out) in row.chunks_exact_mut(4).enumerate() {
                let pixel = view.from_middle(x as u32, y as u32);
                let mut rgb = image_color(volume, view, at(&grid, pixel));
                if let (Some((style, map)), Some(label_grid)) = (overlay, &label_grid) {
                    let label_at = |pixel: DVec2| -> u8 {
                        let label = label_at(map, at(label_grid, pixel));
                        if style.colors[usize::from(label)].is_some() {
                            label
                        } else {
                            0
                        }
                    };
                    let label = label_at(pixel);
                    if let (true, Some(color)) = (label != 0, style.colors[usize::from(label)]) {
                        let color = color.map(|c| f32::from(c) / 255.0);
                        mix(&mut rgb, color, style.fill);
                        let differs =
                            |dx: f64, dy: f64| label_at(pixel + DVec2::new(dx, dy)) != label;
                        let reach = style.outline_px();
                        if is_edge(reach, differs)
                            && (!style.dashed || is_dash([x as u32, y as u32], reach, differs))
                        {
                            mix(&mut rgb, color, style.outline);
                        }
                    }
                }
                for (byte, c) in out.iter_mut().zip(rgb) {
                    *byte = (c.clamp(0.0, 1.0) * 255.0).round() as u8;
                }
                out[3] = 255;
            }
        });
    RgbaPixels {
        width,
        height,
        rgba,
    }
}

/// One stored image, a pixel for each of its points, or for each `step`th along both axes, so that no
/// edge is longer than `most` pixels. Rows and columns are those of the file.
pub fn draw_stored_cpu(volume: &Volume, k: usize, window: VoiWindow, most: usize) -> RgbaPixels {
    let [columns, rows, count] = volume.geometry.dims();
    let step = columns.max(rows).div_ceil(most.max(1)).max(1);
    let [width, height] = [columns, rows].map(|n| n.div_ceil(step));
    let view = SliceView {
        interpolate: false,
        ..SliceView::fitted(volume, None, Some(k), [1, 1], window)
    };
    let k = k.min(count.saturating_sub(1)) as f64;
    let mut rgba = vec![255; width * height * 4];
    rgba.par_chunks_mut((width * 4).max(4))
        .enumerate()
        .for_each(|(y, row)| {
            for (x, out) in row.chunks_exact_mut(4).enumerate() {
                let point = DVec3::new((x * step) as f64, (y * step) as f64, k);
                let rgb = image_color(volume, &view, point);
                for (byte, c) in out.iter_mut().zip(rgb) {
                    *byte = (c.clamp(0.0, 1.0) * 255.0).round() as u8;
                }
            }
        });
    RgbaPixels {
        width,
        height,
        rgba,
    }
}

fn at(grid: &GridMapping, pixel: DVec2) -> DVec3 {
    grid.origin + grid.dx * pixel.x + grid.dy * pixel.y
}

/// Whether another label lies within `reach` steps, counted along rows and columns.
fn is_edge(reach: u32, differs: impl Fn(f64, f64) -> bool) -> bool {
    let reach = i64::from(reach);
    (-reach..=reach).any(|y| {
        let rest = reach - y.abs();
        (-rest..=rest).any(|x| differs(x as f64, y as f64))
    })
}

/// Dashes run along x where the edge is rather level, else along y: 5 on, 3 off.
fn is_dash([x, y]: [u32; 2], reach: u32, differs: impl Fn(f64, f64) -> bool) -> bool {
    let step = f64::from(reach);
    let level = differs(0.0, -step) || differs(0.0, step);
    let along = if level { x } else { y };
    along % (8 * reach) < 5 * reach
}

fn mix(rgb: &mut [f32; 3], color: [f32; 3], amount: f32) {
    for (a, b) in rgb.iter_mut().zip(color) {
        *a += (b - *a) * amount;
    }
}

fn label_at(map: &LabelMap, p: DVec3) -> u8 {
    let dims = map.geometry.dims();
    let c = (p + DVec3::splat(0.5)).floor();
    let inside = c
        .to_array()
        .iter()
        .zip(dims)
        .all(|(&x, n)| x >= 0.0 && x < n as f64);
    if inside {
        map.labels[map.geometry.index(c.x as usize, c.y as usize, c.z as usize)]
    } else {
        0
    }
}

fn image_color(volume: &Volume, view: &SliceView, p: DVec3) -> [f32; 3] {
    let dims = volume.geometry.dims();
    let outside = p
        .to_array()
        .iter()
        .zip(dims)
        .any(|(&x, n)| x < -0.5 || x > n as f64 - 0.5);
    if outside {
        return view.background.map(|c| f32::from(c) / 255.0);
    }
    let last = dims.map(|n| n - 1);
    let nearest = [p.x, p.y, p.z].map(|x| (x + 0.5).floor().max(0.0) as usize);
    let nearest: [usize; 3] = std::array::from_fn(|axis| nearest[axis].min(last[axis]));
    let index = |c: [usize; 3]| volume.geometry.index(c[0], c[1], c[2]);
    // Voxels that are no image (padding, not finite) take no part in interpolation: the nearest
    // voxel stands in. A pixel whose nearest voxel is no image is black.
    let is_image = |c: [usize; 3]| {
        let stored = volume.voxels.stored(index(c));
        let padding = volume
            .padding
            .is_some_and(|(low, high)| stored >= low && stored <= high);
        volume.voxels.is_color() || (!padding && stored.is_finite())
    };
    if !is_image(nearest) {
        return [0.0; 3];
    }
    let voxel = |c: [usize; 3]| -> [f32; 3] {
        let c = if is_image(c) { c } else { nearest };
        if let Voxels::Rgb8(colors) = &volume.voxels {
            colors[index(c)].map(|c| f32::from(c) / 255.0)
        } else {
            [volume
                .modality_lut
                .apply(volume.voxels.stored(index(c)), c[2]); 3]
        }
    };
    let found = if view.interpolate {
        trilinear(p, last, voxel)
    } else {
        voxel(nearest)
    };
    let rgb = if volume.voxels.is_color() {
        found
    } else {
        [view.window.gray(found[0]); 3]
    };
    if view.invert == volume.inverted {
        rgb
    } else {
        rgb.map(|c| 1.0 - c)
    }
}

fn trilinear(p: DVec3, last: [usize; 3], voxel: impl Fn([usize; 3]) -> [f32; 3]) -> [f32; 3] {
    let p = [p.x, p.y, p.z];
    let q: [f64; 3] = std::array::from_fn(|axis| p[axis].clamp(0.0, last[axis] as f64));
    let lo = q.map(|x| x.floor() as usize);
    let hi: [usize; 3] = std::array::from_fn(|axis| (lo[axis] + 1).min(last[axis]));
    let mut sum = [0.0_f64; 3];
    for corner in 0..8_usize {
        let mut weight = 1.0;
        let c: [usize; 3] = std::array::from_fn(|axis| {
            let f = q[axis] - lo[axis] as f64;
            let upper = corner >> axis & 1 == 1;
            weight *= if upper { f } else { 1.0 - f };
            if upper { hi[axis] } else { lo[axis] }
        });
        if weight > 0.0 {
            for (s, v) in sum.iter_mut().zip(voxel(c)) {
                *s += weight * f64::from(v);
            }
        }
    }
    sum.map(|s| s as f32)
}

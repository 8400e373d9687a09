// A slice of a volume with its overlay, one pixel a call.
//
// In: the volume as stored values in a 3-D texture (integer, float or color), labels in another,
// `View`. Out: gamma-encoded color, alpha 1.
// The modality transform comes before interpolation, and interpolation is done by hand, so that
// every format is exact. Voxels that are no image (padding, not finite) take no part in it: the
// nearest voxel stands in. A pixel whose nearest voxel is no image is black.

@group(0) @binding(0) var<uniform> view: View;
@group(0) @binding(2) var<storage, read> lut: array<vec2<f32>>;
@group(0) @binding(3) var labels: texture_3d<u32>;
@group(0) @binding(4) var<storage, read> colors: array<vec4<f32>, 256>;

// Fixed when a pipeline is made, so that what a view does not need costs nothing: software
// adapters carry out both sides of a branch.
override LINEAR: bool = true;   // trilinear; else nearest
override LUT: u32 = 0u;         // modality: 0 slope and intercept, 1 those of each slice, 2 a table
override HOLES: bool = true;    // some voxels may be no image
override OVERLAY: bool = true;
override FLAT_I: bool = false;  // the plane lies on texel centers along this axis
override FLAT_J: bool = false;
override FLAT_K: bool = false;

@vertex
fn vertex(@builtin(vertex_index) n: u32) -> @builtin(position) vec4<f32> {
    // One triangle that covers the view.
    let x = f32(n & 1u) * 4.0 - 1.0;
    let y = f32(n >> 1u) * 4.0 - 1.0;
    return vec4<f32>(x, y, 0.0, 1.0);
}

fn modality_value(stored: f32, k: i32) -> f32 {
    if LUT == 2u {
        let last = i32(arrayLength(&lut)) - 1;
        return lut[clamp(i32(stored) - i32(view.intercept), 0, last)].x;
    }
    if LUT == 1u {
        let s = lut[min(u32(k), arrayLength(&lut) - 1u)];
        return stored * s.x + s.y;
    }
    return stored * view.slope + view.intercept;
}

fn is_image(stored: f32) -> bool {
    let padding = (view.flags & FLAG_PADDING) != 0u
        && stored >= view.padding_low && stored <= view.padding_high;
    return !padding && abs(stored) < NOT_FINITE;
}

// Color, or the modality value in x; `instead` for voxels that are no image.
fn voxel(c: vec3<i32>, instead: vec3<f32>) -> vec3<f32> {
    let texel = texel_of(c);
    if COLOR {
        return texel.rgb;
    }
    if HOLES && !is_image(texel.x) {
        return instead;
    }
    return vec3<f32>(modality_value(texel.x, c.z), 0.0, 0.0);
}

fn along_i(c: vec3<i32>, hi: vec3<i32>, f: vec3<f32>, instead: vec3<f32>) -> vec3<f32> {
    let low = voxel(c, instead);
    if FLAT_I {
        return low;
    }
    return mix(low, voxel(vec3<i32>(hi.x, c.y, c.z), instead), f.x);
}

fn along_j(c: vec3<i32>, hi: vec3<i32>, f: vec3<f32>, instead: vec3<f32>) -> vec3<f32> {
    let low = along_i(c, hi, f, instead);
    if FLAT_J {
        return low;
    }
    return mix(low, along_i(vec3<i32>(c.x, hi.y, c.z), hi, f, instead), f.y);
}

fn trilinear(p: vec3<f32>, last: vec3<i32>, instead: vec3<f32>) -> vec3<f32> {
    let q = clamp(p, vec3<f32>(0.0), vec3<f32>(last));
    let c = vec3<i32>(floor(q));
    let hi = min(c + vec3<i32>(1), last);
    let f = q - vec3<f32>(c);
    let low = along_j(c, hi, f, instead);
    if FLAT_K {
        return low;
    }
    return mix(low, along_j(vec3<i32>(c.x, c.y, hi.z), hi, f, instead), f.z);
}

fn image_color(p: vec3<f32>) -> vec3<f32> {
    if any(p < view.low.xyz) || any(p > view.high.xyz) {
        return view.background.rgb;
    }
    let last = vec3<i32>(voxel_dims()) - vec3<i32>(1);
    var found = vec3<f32>(0.0);
    if HOLES || !LINEAR {
        let nearest = clamp(vec3<i32>(floor(p + vec3<f32>(0.5))), vec3<i32>(0), last);
        if HOLES && !COLOR && !is_image(texel_of(nearest).x) {
            return vec3<f32>(0.0);
        }
        found = voxel(nearest, vec3<f32>(0.0));
    }
    if LINEAR {
        found = trilinear(p, last, found);
    }
    var rgb = found;
    if !COLOR {
        rgb = vec3<f32>(gray_of(found.x, view.center, view.width, view.voi_function));
    }
    if (view.flags & FLAG_INVERT) != 0u {
        rgb = vec3<f32>(1.0) - rgb;
    }
    return rgb;
}

// The label at an offset from the middle of the view, in pixels; 0 where there is none.
fn label_at(pixel: vec2<f32>) -> u32 {
    let p = view.label_origin.xyz + pixel.x * view.label_dx.xyz + pixel.y * view.label_dy.xyz;
    if any(p < view.label_low.xyz) || any(p >= view.label_high.xyz) {
        return 0u;
    }
    let last = vec3<i32>(textureDimensions(labels)) - vec3<i32>(1);
    let c = clamp(vec3<i32>(floor(p + vec3<f32>(0.5))), vec3<i32>(0), last);
    return textureLoad(labels, c, 0).r;
}

// Opacity of the outline in a pixel of a visible segment. It is an edge when another label, shown
// or not, lies within `outline_px` steps, counted along rows and columns. Dashes run along x where
// the edge is rather level, else along y: 5 on, 3 off.
fn outline(pixel: vec2<f32>, at: vec2<i32>, label: u32) -> f32 {
    let reach = i32(view.outline_px);
    var edge = false;
    var level = false;
    for (var y = -reach; y <= reach; y++) {
        let rest = reach - abs(y);
        for (var x = -rest; x <= rest; x++) {
            if x == 0 && y == 0 {
                continue;
            }
            let differs = label_at(pixel + vec2<f32>(f32(x), f32(y))) != label;
            edge = edge || differs;
            level = level || (differs && abs(y) == reach);
        }
    }
    let along = select(at.y, at.x, level);
    let open = along % (8 * reach) >= 5 * reach && (view.flags & FLAG_DASHED) != 0u;
    return select(0.0, view.outline, edge && !open);
}

@fragment
fn fragment(@builtin(position) position: vec4<f32>) -> @location(0) vec4<f32> {
    let in_view = position.xy - view.viewport_origin;
    let pixel = in_view - 0.5 * view.size;
    let p = view.origin.xyz + pixel.x * view.dx.xyz + pixel.y * view.dy.xyz;
    var rgb = image_color(p);
    if OVERLAY {
        let label = label_at(pixel);
        let color = colors[label];
        // Background and hidden segments have alpha 0.
        if label != 0u && color.a > 0.0 {
            rgb = mix(rgb, color.rgb, view.fill);
            rgb = mix(rgb, color.rgb, outline(pixel, vec2<i32>(floor(in_view)), label));
        }
    }
    return vec4<f32>(rgb, 1.0);
}

// A slice of a volume with its overlay, one pixel a call.
//
// In: the volume as stored values in a 3-D texture (integer, float or color; voxel (i,j,k) at texel
// (i,j,k)), labels in another, `View`. Out: gamma-encoded color, alpha 1.
// Interpolation happens on modality values, by hand, so that every format is exact.

@group(0) @binding(0) var<uniform> view: View;
@group(0) @binding(2) var<storage, read> lut: array<vec2<f32>>;
@group(0) @binding(3) var labels: texture_3d<u32>;
@group(0) @binding(4) var<storage, read> colors: array<vec4<f32>, 256>;

@vertex
fn vertex(@builtin(vertex_index) n: u32) -> @builtin(position) vec4<f32> {
    // One triangle that covers the view.
    let x = f32(n & 1u) * 4.0 - 1.0;
    let y = f32(n >> 1u) * 4.0 - 1.0;
    return vec4<f32>(x, y, 0.0, 1.0);
}

fn modality_value(stored: f32, k: i32) -> f32 {
    if (view.flags & FLAG_TABLE) != 0u {
        let last = i32(arrayLength(&lut)) - 1;
        return lut[clamp(i32(stored) - i32(view.intercept), 0, last)].x;
    }
    if (view.flags & FLAG_PER_SLICE) != 0u {
        let s = lut[min(u32(k), arrayLength(&lut) - 1u)];
        return stored * s.x + s.y;
    }
    return stored * view.slope + view.intercept;
}

fn voxel(c: vec3<i32>) -> vec4<f32> {
    let texel = texel_of(c);
    if (view.flags & FLAG_COLOR) != 0u {
        return texel;
    }
    return vec4<f32>(modality_value(texel.x, c.z), 0.0, 0.0, 1.0);
}

fn trilinear(p: vec3<f32>, last: vec3<i32>) -> vec4<f32> {
    let q = clamp(p, vec3<f32>(0.0), vec3<f32>(last));
    let lo = vec3<i32>(floor(q));
    let hi = min(lo + vec3<i32>(1), last);
    let f = q - vec3<f32>(lo);
    let x00 = mix(voxel(lo), voxel(vec3<i32>(hi.x, lo.y, lo.z)), f.x);
    let x10 = mix(voxel(vec3<i32>(lo.x, hi.y, lo.z)), voxel(vec3<i32>(hi.x, hi.y, lo.z)), f.x);
    let near = mix(x00, x10, f.y);
    if f.z == 0.0 {
        return near;
    }
    let x01 = mix(voxel(vec3<i32>(lo.x, lo.y, hi.z)), voxel(vec3<i32>(hi.x, lo.y, hi.z)), f.x);
    let x11 = mix(voxel(vec3<i32>(lo.x, hi.y, hi.z)), voxel(hi), f.x);
    return mix(near, mix(x01, x11, f.y), f.z);
}

fn image_color(p: vec3<f32>) -> vec3<f32> {
    let last = vec3<i32>(voxel_dims()) - vec3<i32>(1);
    // Half a voxel around the outermost centers still belongs to the image.
    if any(p < vec3<f32>(-0.5)) || any(p > vec3<f32>(last) + vec3<f32>(0.5)) {
        return view.background.rgb;
    }
    let nearest = clamp(vec3<i32>(floor(p + vec3<f32>(0.5))), vec3<i32>(0), last);
    if (view.flags & FLAG_PADDING) != 0u {
        let stored = texel_of(nearest).x;
        if stored >= view.padding_low && stored <= view.padding_high {
            return vec3<f32>(0.0);
        }
    }
    var found: vec4<f32>;
    if (view.flags & FLAG_LINEAR) != 0u {
        found = trilinear(p, last);
    } else {
        found = voxel(nearest);
    }
    var rgb = found.rgb;
    if (view.flags & FLAG_COLOR) == 0u {
        rgb = vec3<f32>(gray_of(found.x, view.center, view.width, view.voi_function));
    }
    if (view.flags & FLAG_INVERT) != 0u {
        rgb = vec3<f32>(1.0) - rgb;
    }
    return rgb;
}

fn label_at(pixel: vec2<f32>) -> u32 {
    let p = view.label_origin.xyz + pixel.x * view.label_dx.xyz + pixel.y * view.label_dy.xyz;
    let c = vec3<i32>(floor(p + vec3<f32>(0.5)));
    let dims = vec3<i32>(textureDimensions(labels));
    if any(c < vec3<i32>(0)) || any(c >= dims) {
        return 0u;
    }
    let label = textureLoad(labels, c, 0).r;
    // Hidden segments have alpha 0 and count as background.
    return select(0u, label, colors[label].a > 0.0);
}

@fragment
fn fragment(@builtin(position) position: vec4<f32>) -> @location(0) vec4<f32> {
    let pixel = position.xy - view.viewport_origin - 0.5 * view.size;
    let p = view.origin.xyz + pixel.x * view.dx.xyz + pixel.y * view.dy.xyz;
    var rgb = image_color(p);
    if (view.flags & FLAG_LABELS) != 0u {
        let label = label_at(pixel);
        if label != 0u {
            let color = colors[label].rgb;
            rgb = mix(rgb, color, view.fill);
            let step = 1.0;
            let edge = label_at(pixel + vec2<f32>(step, 0.0)) != label
                || label_at(pixel - vec2<f32>(step, 0.0)) != label
                || label_at(pixel + vec2<f32>(0.0, step)) != label
                || label_at(pixel - vec2<f32>(0.0, step)) != label;
            let at = floor(position.xy);
            let dash = (i32(at.x) + i32(at.y)) % 8 < 5;
            if edge && (dash || (view.flags & FLAG_DASHED) == 0u) {
                rgb = mix(rgb, color, view.outline);
            }
        }
    }
    return vec4<f32>(rgb, 1.0);
}

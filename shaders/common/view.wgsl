// One view of a volume. Mirrored by `render::uniforms::ViewUniforms` (asserted size).
//
// Pixels are counted from the middle of the view, x right, y down. `origin + x·dx + y·dy` is the
// texel index (i, j, k), whole numbers at texel centers; computed in f64 on the CPU. A texel is a
// voxel, unless the texture holds every n-th voxel only.
struct View {
    origin: vec4<f32>,       // texel index of the middle of the view
    dx: vec4<f32>,           // texels per pixel to the right
    dy: vec4<f32>,           // texels per pixel down
    low: vec4<f32>,          // bounds of the image in texel indices, as far as it is loaded
    high: vec4<f32>,
    label_origin: vec4<f32>, // the same for the label map's grid
    label_dx: vec4<f32>,
    label_dy: vec4<f32>,
    label_low: vec4<f32>,
    label_high: vec4<f32>,
    background: vec4<f32>,   // outside of the volume, gamma-encoded
    size: vec2<f32>,         // of the view in pixels
    viewport_origin: vec2<f32>, // its left upper corner in the target, in pixels
    slope: f32,              // modality value = slope · stored + intercept
    intercept: f32,          // with a table: the stored value of its first entry
    center: f32,             // window, in modality values
    width: f32,
    voi_function: u32,       // 0 linear, 1 linear exact, 2 sigmoid
    flags: u32,              // see the constants
    padding_low: f32,        // stored values that are no image
    padding_high: f32,
    fill: f32,               // overlay opacity, 0 to 1
    outline: f32,
    outline_px: u32,         // width of the outline
    unused: u32,
};

const FLAG_INVERT: u32 = 1u;
const FLAG_DASHED: u32 = 2u;      // outline of results that nobody has reviewed
const FLAG_PADDING: u32 = 4u;     // the padding range counts

// Stored floats beyond this stand for values that are not finite.
const NOT_FINITE: f32 = 3.0e38;

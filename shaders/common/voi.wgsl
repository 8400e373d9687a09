// Modality value → gray from 0 to 1. PS3.3 C.11.2.1.2 and C.11.2.1.3; equals `VoiWindow::gray`.
fn gray_of(value: f32, center: f32, width: f32, voi_function: u32) -> f32 {
    if voi_function == 2u {
        return 1.0 / (1.0 + exp(-4.0 * (value - center) / width));
    }
    if voi_function == 1u {
        return clamp((value - center) / width + 0.5, 0.0, 1.0);
    }
    if width <= 1.0 {
        return select(1.0, 0.0, value <= center - 0.5);
    }
    return clamp((value - (center - 0.5)) / (width - 1.0) + 0.5, 0.0, 1.0);
}

//! Shader sources, joined from their parts.

/// Format of the voxels' texture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VoxelFormat {
    /// `R16Sint`.
    Signed,
    /// `R16Uint` and `R8Uint`.
    Unsigned,
    /// `R32Float`.
    Float,
    /// `Rgba8Unorm`.
    Color,
}

impl VoxelFormat {
    /// All of them.
    #[cfg(test)]
    pub const ALL: [Self; 4] = [Self::Signed, Self::Unsigned, Self::Float, Self::Color];

    const fn texel(self) -> &'static str {
        match self {
            Self::Signed => "i32",
            Self::Unsigned => "u32",
            Self::Float | Self::Color => "f32",
        }
    }
}

/// The slice shader for a format.
pub fn slice(format: VoxelFormat) -> String {
    let texel = format.texel();
    let color = format == VoxelFormat::Color;
    let access = format!(
        "@group(0) @binding(1) var voxels: texture_3d<{texel}>;\n\
         fn texel_of(c: vec3<i32>) -> vec4<f32> {{ return vec4<f32>(textureLoad(voxels, c, 0)); }}\n\
         fn voxel_dims() -> vec3<u32> {{ return textureDimensions(voxels); }}\n\
         const COLOR: bool = {color};\n"
    );
    [
        include_str!("../../shaders/common/view.wgsl"),
        include_str!("../../shaders/common/voi.wgsl"),
        &access,
        include_str!("../../shaders/slice.wgsl"),
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use eframe::egui_wgpu::wgpu::naga;

    #[test]
    fn every_shader_parses_and_is_valid() {
        for format in VoxelFormat::ALL {
            let module = naga::front::wgsl::parse_str(&slice(format))
                .unwrap_or_else(|e| panic!("{format:?}: {}", e.emit_to_string(&slice(format))));
            naga::valid::Validator::new(
                naga::valid::ValidationFlags::all(),
                naga::valid::Capabilities::empty(),
            )
            .validate(&module)
            .unwrap();
        }
    }
}

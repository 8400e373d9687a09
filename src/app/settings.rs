//! What stays between runs.

use std::path::PathBuf;

use crate::redact::Sensitive;

/// Corner text, in the order that Space cycles through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CornerText {
    /// Everything, with the patient.
    #[default]
    Full,
    /// Without the patient's identity.
    Minimal,
    /// Letters and ruler only.
    None,
}

impl CornerText {
    /// The state after this one.
    pub const fn next(self) -> Self {
        match self {
            Self::Full => Self::Minimal,
            Self::Minimal => Self::None,
            Self::None => Self::Full,
        }
    }
}

/// Settings, saved as `settings.json` in the home folder.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Recently opened, newest first, at most ten.
    pub recent: Vec<PathBuf>,
    /// Corner text.
    pub corner_text: CornerText,
    /// Overlay fill opacity, 0 to 1.
    pub overlay_fill: f32,
    /// Overlay outline opacity, 0 to 1.
    pub overlay_outline: f32,
    /// Dragging down brightens (IHE Basic Image Review); off: dragging up brightens.
    pub drag_down_brightens: bool,
    /// Smooth pixels between voxel centers.
    pub interpolate: bool,
    /// Models average mirrored passes where their plans ask for them; off: faster, a little worse.
    pub mirroring: bool,
    /// Who reviews findings at this machine, as the person wrote it; empty: not to be named; none:
    /// not asked yet.
    #[serde(with = "reviewer", skip_serializing_if = "Option::is_none")]
    pub reviewer: Option<Sensitive<String>>,
}

/// The name in the settings file is that of the program's own user, and stays on this machine.
mod reviewer {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::redact::Sensitive;

    #[expect(clippy::ref_option, reason = "serde's form")]
    pub fn serialize<S: Serializer>(
        name: &Option<Sensitive<String>>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match name {
            Some(name) => to.serialize_some(name.expose()),
            None => to.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Sensitive<String>>, D::Error> {
        Ok(Option::<String>::deserialize(from)?.map(Sensitive::new))
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            recent: Vec::new(),
            corner_text: CornerText::Full,
            overlay_fill: 0.25,
            overlay_outline: 0.9,
            drag_down_brightens: true,
            interpolate: true,
            mirroring: true,
            reviewer: None,
        }
    }
}

impl Settings {
    /// Puts a path first in the list of recent ones.
    pub fn remember(&mut self, path: PathBuf) {
        self.recent.retain(|p| *p != path);
        self.recent.insert(0, path);
        self.recent.truncate(10);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recent_paths_are_few_and_unique() {
        let mut settings = Settings::default();
        for n in 0..14 {
            settings.remember(format!("/study{}", n % 12).into());
        }
        assert_eq!(settings.recent.len(), 10);
        assert_eq!(settings.recent[0], PathBuf::from("/study1"));
        assert_eq!(
            settings
                .recent
                .iter()
                .filter(|p| p.ends_with("study1"))
                .count(),
            1
        );
    }
}

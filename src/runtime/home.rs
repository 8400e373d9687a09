//! Where the program keeps its state.

use std::path::{Path, PathBuf};

use crate::app::Settings;

/// The folder of models, audit log, settings and index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    root: PathBuf,
}

impl Home {
    /// `given`, else `NEGATOSCOPE_HOME`, else the system's place for application data.
    pub fn resolve(given: Option<PathBuf>) -> Self {
        let env = |name: &str| {
            std::env::var_os(name)
                .filter(|v| !v.is_empty())
                .map(PathBuf::from)
        };
        let system = || {
            if cfg!(windows) {
                env("LOCALAPPDATA").map(|p| p.join("Negatoscope"))
            } else if cfg!(target_os = "macos") {
                env("HOME").map(|p| p.join("Library/Application Support/Negatoscope"))
            } else {
                env("XDG_DATA_HOME")
                    .or_else(|| env("HOME").map(|p| p.join(".local/share")))
                    .map(|p| p.join("negatoscope"))
            }
        };
        let root = given
            .or_else(|| env("NEGATOSCOPE_HOME"))
            .or_else(system)
            .unwrap_or_else(|| PathBuf::from("negatoscope-home"));
        Self { root }
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Installed models.
    pub fn models(&self) -> PathBuf {
        self.root.join("models")
    }

    /// Settings as they were saved; defaults when absent or unreadable.
    pub fn load_settings(&self) -> Settings {
        std::fs::read(self.root.join("settings.json"))
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default()
    }

    /// Writes settings to a temporary name, then renames.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn save_settings(&self, settings: &Settings) -> std::io::Result<()> {
        std::fs::create_dir_all(&self.root)?;
        let text = serde_json::to_vec_pretty(settings)?;
        let temporary = self
            .root
            .join(format!("settings.json.{}", std::process::id()));
        std::fs::write(&temporary, text)?;
        std::fs::rename(&temporary, self.root.join("settings.json"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_survive_a_round_trip_and_damage() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::resolve(Some(folder.path().to_owned()));
        assert_eq!(home.load_settings(), Settings::default());
        let settings = Settings {
            overlay_fill: 0.5,
            ..Settings::default()
        };
        home.save_settings(&settings).unwrap();
        assert_eq!(home.load_settings(), settings);
        std::fs::write(folder.path().join("settings.json"), "{ torn").unwrap();
        assert_eq!(home.load_settings(), Settings::default());
    }
}

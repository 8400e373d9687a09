//! What is kept beyond the Basic Profile: the options of PS3.15 E.3.

/// What becomes of dates and times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dates {
    /// They go (the Basic Profile).
    #[default]
    Removed,
    /// Days are shifted by a number that is the same for all of a patient; times of day stay.
    Modified,
    /// They stay.
    Full,
}

/// The options of PS3.15 E.3; all off is the Basic Profile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Retain Longitudinal Temporal Information.
    pub dates: Dates,
    /// Retain UIDs.
    pub uids: bool,
    /// Retain Device Identity.
    pub device: bool,
    /// Retain Institution Identity.
    pub institution: bool,
    /// Retain Patient Characteristics; an age of 90 or more becomes 90.
    pub characteristics: bool,
    /// Clean Descriptors: words of a list of known words stay.
    pub descriptors: bool,
    /// Clean Structured Content: trees of SR stay, without their texts.
    pub structured: bool,
    /// Clean Graphics: shapes stay, texts go; overlays still go.
    pub graphics: bool,
    /// Retain Safe Private: numbers of a short list of private elements stay.
    pub private: bool,
}

impl Options {
    /// Names as on the command line.
    pub const NAMES: [&'static str; 10] = [
        "retain-dates",
        "modify-dates",
        "retain-uids",
        "retain-device",
        "retain-institution",
        "retain-patient-characteristics",
        "clean-descriptors",
        "clean-structured-content",
        "clean-graphics",
        "retain-safe-private",
    ];

    /// Sets the option of a name; `false` when there is none, or a second rule for dates.
    pub fn set(&mut self, name: &str) -> bool {
        match name {
            "retain-dates" | "modify-dates" if self.dates != Dates::Removed => return false,
            "retain-dates" => self.dates = Dates::Full,
            "modify-dates" => self.dates = Dates::Modified,
            "retain-uids" => self.uids = true,
            "retain-device" => self.device = true,
            "retain-institution" => self.institution = true,
            "retain-patient-characteristics" => self.characteristics = true,
            "clean-descriptors" => self.descriptors = true,
            "clean-structured-content" => self.structured = true,
            "clean-graphics" => self.graphics = true,
            "retain-safe-private" => self.private = true,
            _ => return false,
        }
        true
    }

    /// Codes and meanings of PS3.16 CID 7050 that say what was done.
    pub fn codes(&self) -> Vec<(&'static str, &'static str)> {
        let all = [
            (true, "113100", "Basic Application Confidentiality Profile"),
            (self.graphics, "113103", "Clean Graphics Option"),
            (self.structured, "113104", "Clean Structured Content Option"),
            (self.descriptors, "113105", "Clean Descriptors Option"),
            (
                self.dates == Dates::Full,
                "113106",
                "Retain Longitudinal Temporal Information Full Dates Option",
            ),
            (
                self.dates == Dates::Modified,
                "113107",
                "Retain Longitudinal Temporal Information Modified Dates Option",
            ),
            (
                self.characteristics,
                "113108",
                "Retain Patient Characteristics Option",
            ),
            (self.device, "113109", "Retain Device Identity Option"),
            (self.uids, "113110", "Retain UIDs Option"),
            (self.private, "113111", "Retain Safe Private Option"),
            (
                self.institution,
                "113112",
                "Retain Institution Identity Option",
            ),
        ];
        all.into_iter()
            .filter(|(on, _, _)| *on)
            .map(|(_, code, meaning)| (code, meaning))
            .collect()
    }

    /// Longitudinal Temporal Information Modified (0028,0303).
    pub fn temporal(&self) -> &'static str {
        match self.dates {
            Dates::Removed => "REMOVED",
            Dates::Modified => "MODIFIED",
            Dates::Full => "UNMODIFIED",
        }
    }
}

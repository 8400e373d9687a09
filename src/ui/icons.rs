//! Phosphor icons in use (MIT), by name.

pub const FOLDER_OPEN: &str = "\u{E256}";
pub const FILE: &str = "\u{E230}";
pub const FLOPPY_DISK: &str = "\u{E248}";
pub const X: &str = "\u{E4F6}";
pub const PLAY: &str = "\u{E3D0}";
pub const EYE: &str = "\u{E220}";
pub const EYE_SLASH: &str = "\u{E224}";
pub const WARNING: &str = "\u{E4E0}";
pub const WARNING_CIRCLE: &str = "\u{E4E2}";
pub const INFO: &str = "\u{E2CE}";
pub const CHECK: &str = "\u{E182}";
pub const BRAIN: &str = "\u{E74E}";
pub const STACK: &str = "\u{E466}";
pub const LIST_CHECKS: &str = "\u{EADC}";
pub const CHECK_CIRCLE: &str = "\u{E184}";
pub const X_CIRCLE: &str = "\u{E4F8}";
pub const PROHIBIT: &str = "\u{E3DE}";
pub const IMAGES: &str = "\u{E836}";
pub const PENCIL: &str = "\u{E3B4}";
pub const ARROW_UP_RIGHT: &str = "\u{E092}";
pub const USER: &str = "\u{E4C2}";
pub const ARROW_COUNTER_CLOCKWISE: &str = "\u{E038}";

//! Transfer syntaxes.

use super::parse::Encoding;

/// A transfer syntax, as far as reading needs to tell them apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Syntax {
    /// Uncompressed.
    Native(Encoding, &'static str),
    /// Deflated Explicit VR Little Endian.
    Deflated,
    /// Encapsulated frames.
    Encapsulated(Codec, &'static str),
    /// Anything else.
    Unknown(String),
}

/// How encapsulated frames are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    /// Each fragment is a frame of native pixels.
    Uncompressed,
    /// Deflated image frame.
    DeflatedFrame,
    /// RLE lossless.
    Rle,
    /// JPEG baseline, extended, lossless.
    Jpeg,
    /// JPEG-LS.
    JpegLs,
    /// JPEG 2000 and HTJ2K.
    Jpeg2000,
}

const TABLE: [(&str, Codec); 21] = [
    ("1.2.840.10008.1.2.1.98", Codec::Uncompressed),
    ("1.2.840.10008.1.2.8.1", Codec::DeflatedFrame),
    ("1.2.840.10008.1.2.5", Codec::Rle),
    ("1.2.840.10008.1.2.4.50", Codec::Jpeg),
    ("1.2.840.10008.1.2.4.51", Codec::Jpeg),
    ("1.2.840.10008.1.2.4.52", Codec::Jpeg),
    ("1.2.840.10008.1.2.4.53", Codec::Jpeg),
    ("1.2.840.10008.1.2.4.54", Codec::Jpeg),
    ("1.2.840.10008.1.2.4.55", Codec::Jpeg),
    ("1.2.840.10008.1.2.4.56", Codec::Jpeg),
    ("1.2.840.10008.1.2.4.57", Codec::Jpeg),
    ("1.2.840.10008.1.2.4.70", Codec::Jpeg),
    ("1.2.840.10008.1.2.4.80", Codec::JpegLs),
    ("1.2.840.10008.1.2.4.81", Codec::JpegLs),
    ("1.2.840.10008.1.2.4.90", Codec::Jpeg2000),
    ("1.2.840.10008.1.2.4.91", Codec::Jpeg2000),
    ("1.2.840.10008.1.2.4.92", Codec::Jpeg2000),
    ("1.2.840.10008.1.2.4.93", Codec::Jpeg2000),
    ("1.2.840.10008.1.2.4.201", Codec::Jpeg2000),
    ("1.2.840.10008.1.2.4.202", Codec::Jpeg2000),
    ("1.2.840.10008.1.2.4.203", Codec::Jpeg2000),
];

impl Syntax {
    pub fn from_uid(uid: &str) -> Self {
        match uid {
            "1.2.840.10008.1.2" | "1.2.840.10008.1.2.1" | "1.2.840.10008.1.2.2" => {
                Self::native(Encoding {
                    explicit: uid != "1.2.840.10008.1.2",
                    big_endian: uid == "1.2.840.10008.1.2.2",
                })
            }
            "1.2.840.10008.1.2.1.99" => Self::Deflated,
            _ => TABLE.iter().find(|(known, _)| *known == uid).map_or_else(
                || Self::Unknown(uid.to_owned()),
                |&(uid, codec)| Self::Encapsulated(codec, uid),
            ),
        }
    }

    /// The uncompressed syntax of an encoding.
    pub fn native(encoding: Encoding) -> Self {
        let uid = match (encoding.explicit, encoding.big_endian) {
            (false, _) => "1.2.840.10008.1.2",
            (true, false) => "1.2.840.10008.1.2.1",
            (true, true) => "1.2.840.10008.1.2.2",
        };
        Self::Native(encoding, uid)
    }

    /// Encoding of the data set.
    pub fn encoding(&self) -> Encoding {
        match self {
            Self::Native(encoding, _) => *encoding,
            _ => Encoding::EXPLICIT_LE,
        }
    }

    /// Whether pixels lose something on the way.
    pub fn is_lossy(&self) -> bool {
        matches!(
            self.uid(),
            "1.2.840.10008.1.2.4.50"
                | "1.2.840.10008.1.2.4.51"
                | "1.2.840.10008.1.2.4.52"
                | "1.2.840.10008.1.2.4.53"
                | "1.2.840.10008.1.2.4.54"
                | "1.2.840.10008.1.2.4.55"
                | "1.2.840.10008.1.2.4.56"
                | "1.2.840.10008.1.2.4.81"
        )
    }

    /// Name for people.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Native(..) | Self::Deflated => "uncompressed",
            Self::Encapsulated(codec, _) => codec.name(),
            Self::Unknown(_) => "unknown",
        }
    }

    pub fn uid(&self) -> &str {
        match self {
            Self::Native(_, uid) | Self::Encapsulated(_, uid) => uid,
            Self::Deflated => "1.2.840.10008.1.2.1.99",
            Self::Unknown(uid) => uid,
        }
    }
}

impl Codec {
    /// Name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Uncompressed => "encapsulated uncompressed",
            Self::DeflatedFrame => "deflated frame",
            Self::Rle => "RLE",
            Self::Jpeg => "JPEG",
            Self::JpegLs => "JPEG-LS",
            Self::Jpeg2000 => "JPEG 2000",
        }
    }
}

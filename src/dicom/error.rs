//! Why DICOM bytes cannot be used.

use crate::task::Cancelled;

/// Why a file, an image or a stack cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes are something else.
    #[error("not DICOM: {found}")]
    NotDicom {
        /// What they look like.
        found: &'static str,
    },
    /// The file system said no.
    #[error("cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// The archive cannot be opened.
    #[error("the ZIP archive cannot be read: {0}")]
    Zip(#[from] zip::result::ZipError),
    /// The bytes end inside an element.
    #[error(
        "truncated: element {tag} declares {declared} bytes, but the file holds {available} more"
    )]
    Truncated {
        /// `(gggg,eeee)`.
        tag: String,
        /// Length of its value.
        declared: u64,
        /// Bytes left in the file.
        available: u64,
    },
    /// Sequences inside sequences beyond any real use.
    #[error("sequences are nested more than {limit} deep")]
    TooDeep {
        /// The limit.
        limit: usize,
    },
    /// A deflated data set that does not inflate.
    #[error("the deflated data set is damaged: {0}")]
    Inflate(std::io::Error),
    /// Compressed data that grows beyond what the file can justify.
    #[error("compressed data grows beyond {limit} bytes: refused")]
    Bomb {
        /// The limit.
        limit: u64,
    },
    /// A transfer syntax without decoder here.
    #[error("transfer syntax {uid} is not supported")]
    UnknownSyntax {
        /// Its UID (digits and dots only).
        uid: String,
    },
    /// An attribute that every image needs is absent or unusable.
    #[error("{attribute} is missing or cannot be used ({found})")]
    Attribute {
        /// Keyword.
        attribute: &'static str,
        /// What was found.
        found: String,
    },
    /// No pixels at all.
    #[error("no pixel data")]
    NoPixelData,
    /// Fewer bytes than rows × columns × frames need.
    #[error(
        "pixel data holds {found} bytes, but {frames} frame{} of {columns}×{rows} need {needed}: {}",
        if *.frames == 1 { "" } else { "s" }, absent(*.found, *.needed, *.rows, *.frames)
    )]
    ShortPixelData {
        /// Bytes there.
        found: u64,
        /// Bytes needed.
        needed: u64,
        /// Columns.
        columns: usize,
        /// Rows.
        rows: usize,
        /// Frames.
        frames: usize,
    },
    /// The frame is not in the pixel data.
    #[error("frame {frame} is not in the pixel data ({found} found)")]
    NoSuchFrame {
        /// From 0.
        frame: usize,
        /// Frames found.
        found: usize,
    },
    /// The compressed stream is of another size than the header says.
    #[error("the header says {header}, the compressed image says {stream}")]
    StreamMismatch {
        /// From Rows, Columns, Samples per Pixel.
        header: String,
        /// From the stream.
        stream: String,
    },
    /// The codec refused the stream.
    #[error("the {codec} stream cannot be decoded: {reason}")]
    Codec {
        /// E.g. `JPEG 2000`.
        codec: &'static str,
        /// What the codec said.
        reason: String,
    },
    /// More memory than the files can justify.
    #[error("the images would take {needed} bytes, which {stored} bytes of files cannot justify")]
    Unjustified {
        /// Decoded size.
        needed: u64,
        /// Size of the files.
        stored: u64,
    },
    /// A file of many frames failed as a whole.
    #[error("{reason}")]
    WholeFile {
        /// Why.
        reason: String,
    },
    /// Every image of the stack failed.
    #[error("none of the {count} images could be read; the first: {first}")]
    AllFailed {
        /// Images.
        count: usize,
        /// Why the first failed.
        first: String,
    },
    /// A stack or image index outside of the series.
    #[error("the series has no stack {stack} with image {image}")]
    NoSuchImage {
        /// Stack index.
        stack: usize,
        /// Image index.
        image: usize,
    },
    /// The grid cannot be placed.
    #[error("the images cannot be placed: {0}")]
    Geometry(#[from] crate::geometry::Error),
    /// The user stopped the work.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// What of short pixel data is not there.
fn absent(found: u64, needed: u64, rows: usize, frames: usize) -> String {
    let whole = |parts: usize| {
        let parts = parts as u128;
        (u128::from(found) * parts / u128::from(needed.max(1))).min(parts)
    };
    if frames == 1 {
        format!("rows {} to {rows} are missing", whole(rows) + 1)
    } else {
        format!("frames {} to {frames} are missing", whole(frames) + 1)
    }
}

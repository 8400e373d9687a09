//! Pictures as PNG files.

use std::io::{self, Write};
use std::path::Path;

use super::slice_view::RgbaPixels;

/// Writes a picture; the file appears whole or not at all. It says in its text which program
/// made it and what it must not be used for.
///
/// # Errors
/// The folder or the disk refuses.
pub fn write_png(to: &Path, picture: &RgbaPixels) -> io::Result<()> {
    crate::whole_file::write(to, |out| encode(out, picture))
}

/// The same in memory.
pub fn png_bytes(picture: &RgbaPixels) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(&mut bytes, picture).expect("memory takes all");
    bytes
}

/// PNG, 8-bit RGB.
///
/// # Errors
/// `out` refuses.
fn encode(out: &mut dyn Write, picture: &RgbaPixels) -> io::Result<()> {
    let (width, height) = (picture.width as u32, picture.height as u32);
    let mut encoder = png::Encoder::new(out, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_source_srgb(png::SrgbRenderingIntent::Perceptual);
    let software = format!("Negatoscope {}", crate::VERSION);
    encoder.add_itxt_chunk("Software".to_owned(), software)?;
    encoder.add_itxt_chunk("Comment".to_owned(), crate::RESEARCH_USE.to_owned())?;
    let rgb: Vec<u8> = picture
        .rgba
        .chunks_exact(4)
        .flat_map(|p| [p[0], p[1], p[2]])
        .collect();
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&rgb)?;
    writer.finish()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_survives_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("a.png");
        let rgba: Vec<u8> = (0..7 * 5).flat_map(|n| [n, n * 3, n * 7, 255]).collect();
        let picture = RgbaPixels {
            width: 7,
            height: 5,
            rgba,
        };
        write_png(&to, &picture).unwrap();
        let decoder = png::Decoder::new(io::BufReader::new(std::fs::File::open(&to).unwrap()));
        let mut reader = decoder.read_info().unwrap();
        let comment = reader.info().utf8_text[1].get_text().unwrap();
        assert_eq!(comment, crate::RESEARCH_USE);
        let mut found = vec![0; 7 * 5 * 3];
        reader.next_frame(&mut found).unwrap();
        let expected: Vec<u8> = picture
            .rgba
            .chunks_exact(4)
            .flat_map(|p| &p[..3])
            .copied()
            .collect();
        assert_eq!(found, expected);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}

//! Data sets: what lies in folders and MedMNIST files, prepared for a network.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::Error;
use super::chance::Chance;
use super::npz;
use super::picture::{Picture, Values};
use super::recipe::{DataRules, Layout};
use crate::geometry::axis_codes;
use crate::inference::resize_plane;

/// Some class but the first; which one is not told.
pub const ANY_CLASS: u8 = u8::MAX;

/// One image with what is known about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Path below the data set's folder, or its number in a file.
    pub name: String,
    /// Whose image it is.
    pub patient: String,
    /// `train` or `val`, where the data say so.
    pub split: Option<String>,
    /// What it is measured apart by.
    pub group: Option<String>,
    /// The image; for classes at the network's size, as values 0 to 255.
    pub image: Picture,
    /// What is to be learned.
    pub target: Target,
}

/// What is to be learned.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// The image's class.
    Class(u8),
    /// A label per point.
    Mask(Vec<u8>),
}

impl Sample {
    /// The class, for images with one.
    pub const fn class(&self) -> Option<u8> {
        match self.target {
            Target::Class(class) => Some(class),
            Target::Mask(_) => None,
        }
    }
}

/// An image file that is yet to be read.
#[derive(Clone, Debug)]
struct Listed {
    name: String,
    path: PathBuf,
    patient: String,
    split: Option<String>,
    group: Option<String>,
    target: ListedTarget,
}

#[derive(Clone, Debug)]
enum ListedTarget {
    Class(u8),
    Mask(PathBuf),
}

fn refused(path: &Path, reason: impl Into<String>) -> Error {
    Error::Data {
        reason: reason.into(),
        path: path.to_owned(),
    }
}

/// Reads images and masks: [`Picture::read`], or a door that knows more formats.
pub trait Images: Sync {
    /// An image: a file, or the folder of a DICOM series.
    ///
    /// # Errors
    /// As [`Picture::read`].
    fn image(&self, path: &Path) -> Result<Picture, Error>;

    /// The mask of an image `[z, y, x]`, a label per point: 0, and 1 for the first class.
    ///
    /// # Errors
    /// As [`Picture::read_mask`].
    fn mask(
        &self,
        path: &Path,
        image: &Path,
        classes: &[String],
    ) -> Result<([usize; 3], Vec<u8>), Error> {
        let _ = image;
        Picture::read_mask(path, classes.len())
    }
}

impl<F: Fn(&Path) -> Result<Picture, Error> + Sync> Images for F {
    fn image(&self, path: &Path) -> Result<Picture, Error> {
        self(path)
    }
}

/// A reader that is given.
pub type Reader<'a> = dyn Images + 'a;

/// Reads all samples of a data set.
///
/// `part` is a MedMNIST file's `train` and `val`, or `test`; folders give all they have.
///
/// # Errors
/// [`Error::Data`]: nothing there, files that are missing or of sizes that do not fit.
pub fn load(
    rules: &DataRules,
    path: &Path,
    parts: &[&str],
    reader: &Reader<'_>,
) -> Result<Vec<Sample>, Error> {
    let listed = match rules.layout {
        Layout::Medmnist => return medmnist(rules, path, parts),
        Layout::Labels => labels(rules, path)?,
        Layout::ClassFolders => class_folders(rules, path)?,
        Layout::Masks => masks(rules, path)?,
    };
    if listed.is_empty() {
        return Err(refused(path, "no images that can be used"));
    }
    // All that is wrong is told at once.
    let missing: Vec<&Listed> = listed.iter().filter(|l| !l.path.exists()).collect();
    if let Some(first) = missing.first() {
        let reason = format!(
            "{} of {} files that the labels name are missing, the first",
            missing.len(),
            listed.len()
        );
        return Err(refused(&first.path, reason));
    }
    let samples: Result<Vec<Sample>, Error> = listed
        .par_iter()
        .map(|one| read(rules, one, reader))
        .collect();
    let samples = samples?;
    if rules.layout == Layout::Masks {
        check_grids(rules, path, &samples)?;
    }
    Ok(samples)
}

/// Brings an image to a classifier's size, as values 0 to 255.
pub fn at_size(image: &Picture, size: &[usize]) -> Picture {
    let [y, x] = [size[size.len() - 2], size[size.len() - 1]];
    let [_, ny, nx] = image.dims;
    let values = resize_plane(&image.floats()[..ny * nx], [ny, nx], [y, x]);
    Picture {
        dims: [1, y, x],
        values: Values::Floats(values),
        spacing_mm: None,
        geometry: None,
    }
}

/// The nearest label of a plane's mask at each point of another size.
fn mask_at_size(mask: &[u8], [_, ny, nx]: [usize; 3], size: &[usize]) -> Vec<u8> {
    let [my, mx] = [size[0], size[1]];
    let near = |i: usize, n: usize, m: usize| (2 * i + 1) * n / (2 * m);
    let rows = (0..my).map(|y| near(y, ny, my) * nx);
    rows.flat_map(|row| (0..mx).map(move |x| row + near(x, nx, mx)))
        .map(|at| mask[at])
        .collect()
}

/// Spacing along z, y, x in mm: the file's, else what the rules say, else 1.
pub fn spacing_of(rules: &DataRules, image: &Picture) -> [f64; 3] {
    image.spacing_mm.unwrap_or_else(|| {
        let told = |axis: usize| {
            rules
                .spacing_mm
                .get((axis + rules.spacing_mm.len()).wrapping_sub(3))
        };
        [0, 1, 2].map(|axis| told(axis).copied().unwrap_or(1.0))
    })
}

fn read(rules: &DataRules, one: &Listed, reader: &Reader<'_>) -> Result<Sample, Error> {
    let image = reader.image(&one.path)?;
    let (image, target) = match &one.target {
        ListedTarget::Class(class) => {
            if image.dims[0] != 1 || rules.size.len() != 2 {
                let reason = format!(
                    "classes are learned from plane images, this one is {:?}",
                    image.dims
                );
                return Err(refused(&one.path, reason));
            }
            (at_size(&image, &rules.size), Target::Class(*class))
        }
        ListedTarget::Mask(path) => {
            let (dims, mask) = reader.mask(path, &one.path, &rules.classes)?;
            if dims != image.dims {
                let reason = format!("a mask of {dims:?} for an image of {:?}", image.dims);
                return Err(refused(path, reason));
            }
            if (image.dims[0] > 1) != (rules.size.len() == 3) {
                let reason = format!(
                    "an image of {:?} for a network on {} axes",
                    image.dims,
                    rules.size.len()
                );
                return Err(refused(&one.path, reason));
            }
            let (image, mask) = if rules.whole_image {
                let mask = mask_at_size(&mask, image.dims, &rules.size);
                (at_size(&image, &rules.size), mask)
            } else {
                (image, mask)
            };
            normalized(image, mask, !rules.whole_image)
        }
    };
    Ok(Sample {
        name: one.name.clone(),
        patient: one.patient.clone(),
        split: one.split.clone(),
        group: one.group.clone(),
        image,
        target,
    })
}

/// Cut to what is not zero, then mean 0 and deviation 1: what the procedure of the package does.
fn normalized(image: Picture, mask: Vec<u8>, cuts: bool) -> (Picture, Target) {
    let values = image.floats();
    let [nz, ny, nx] = image.dims;
    let (mut low, mut high) = (image.dims, [0; 3]);
    for (n, value) in values.iter().enumerate() {
        if *value != 0.0 {
            let at = [n / (ny * nx), n / nx % ny, n % nx];
            for axis in 0..3 {
                low[axis] = low[axis].min(at[axis]);
                high[axis] = high[axis].max(at[axis] + 1);
            }
        }
    }
    if !cuts || high == [0; 3] {
        (low, high) = ([0; 3], [nz, ny, nx]);
    }
    let dims = [high[0] - low[0], high[1] - low[1], high[2] - low[2]];
    let (mut cut, mut labels) = (Vec::new(), Vec::new());
    for z in low[0]..high[0] {
        for y in low[1]..high[1] {
            let line = (z * ny + y) * nx;
            cut.extend_from_slice(&values[line + low[2]..line + high[2]]);
            labels.extend_from_slice(&mask[line + low[2]..line + high[2]]);
        }
    }
    let n = cut.len() as f64;
    let mean = cut.iter().copied().map(f64::from).sum::<f64>() / n;
    let spread = |v: &f32| (f64::from(*v) - mean).powi(2);
    let deviation = (cut.iter().map(spread).sum::<f64>() / n).sqrt().max(1e-8);
    for v in &mut cut {
        *v = ((f64::from(*v) - mean) / deviation) as f32;
    }
    let image = Picture {
        dims,
        values: Values::Floats(cut),
        spacing_mm: image.spacing_mm,
        geometry: image
            .geometry
            .and_then(|whole| whole.part([low[2], low[1], low[0]], [dims[2], dims[1], dims[0]])),
    };
    (image, Target::Mask(labels))
}

/// The orientation (see [`axis_codes`]) in which the volumes of some samples are stored; `None` where
/// they do not all tell the same.
pub fn common_orientation(samples: &[Sample]) -> Option<String> {
    let mut codes = samples
        .iter()
        .map(|sample| sample.image.geometry.as_ref().map(axis_codes));
    let first = codes.next()??;
    codes
        .all(|other| other.as_ref() == Some(&first))
        .then_some(first)
}

/// Volumes must have one spacing: nothing is resampled behind the user's back.
fn check_grids(rules: &DataRules, path: &Path, samples: &[Sample]) -> Result<(), Error> {
    let middle = typical_spacing(rules, samples);
    for sample in samples {
        let own = spacing_of(rules, &sample.image);
        let far = (0..3).any(|a| (own[a] / middle[a] - 1.0).abs() > 0.02);
        if far && rules.size.len() == 3 {
            let reason = format!(
                "a spacing of {own:?} mm where others have {middle:?}: resample the data to one spacing"
            );
            return Err(refused(&path.join(&sample.name), reason));
        }
    }
    Ok(())
}

/// Median spacing along z, y, x in mm.
pub fn typical_spacing(rules: &DataRules, samples: &[Sample]) -> [f64; 3] {
    std::array::from_fn(|axis| {
        let own = |s: &Sample| spacing_of(rules, &s.image)[axis];
        let mut all: Vec<f64> = samples.iter().map(own).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or(1.0)
    })
}

/// A class by name, another word for it, or number.
fn class_of(rules: &DataRules, text: &str) -> Option<u8> {
    let position =
        |names: &[String]| (names.iter()).position(|c| c.eq_ignore_ascii_case(text.trim()));
    let named = position(&rules.class_values).or_else(|| position(&rules.classes));
    let lower = text.trim().to_lowercase();
    let word = rules.also.iter().find(|(word, _)| *word == lower);
    let number = || {
        let number: f64 = text.trim().parse().ok()?;
        (number.fract() == 0.0 && number >= 0.0).then_some(number as usize)
    };
    if let (None, Some((_, class))) = (named, word) {
        return Some(*class);
    }
    named
        .or_else(number)
        .filter(|class| *class < rules.classes.len())
        .map(|class| class as u8)
}

/// The words and numbers that stand for classes.
fn known(rules: &DataRules) -> String {
    let names = rules.classes.iter().chain(&rules.class_values);
    let mut words: Vec<&str> = Vec::new();
    for word in names.chain(rules.also.iter().map(|(word, _)| word)) {
        if !words.iter().any(|w| w.eq_ignore_ascii_case(word)) {
            words.push(word);
        }
    }
    let last = rules.classes.len() - 1;
    format!("{} and the numbers 0 to {last}", words.join(", "))
}

/// A file's name up to a text.
fn patient_of(rules: &DataRules, name: &str) -> String {
    let base = name.rsplit(['/', '\\']).next().unwrap_or(name);
    match &rules.patient_until {
        Some(until) => base.split(until.as_str()).next().unwrap_or(base).to_owned(),
        None => name.to_owned(),
    }
}

fn labels(rules: &DataRules, folder: &Path) -> Result<Vec<Listed>, Error> {
    let path = folder.join("labels.csv");
    let mut reader = csv::Reader::from_path(&path)
        .map_err(|e| refused(&path, format!("cannot be read ({e})")))?;
    let headers = reader
        .headers()
        .map_err(|e| refused(&path, format!("cannot be read ({e})")))?
        .clone();
    let column = |name: &str| {
        headers
            .iter()
            .position(|h| h.trim() == name)
            .ok_or_else(|| refused(&path, format!("no column {name:?}")))
    };
    let (file, label) = (column("file")?, column(&rules.label_column)?);
    let optional = |name: &Option<String>| name.as_deref().map(column).transpose();
    let patient = optional(&rules.patient_column)?;
    let split = optional(&rules.split_column)?;
    let group = optional(&rules.group_column)?;
    let mut listed = Vec::new();
    for (n, row) in reader.records().enumerate() {
        let row = row.map_err(|e| refused(&path, format!("row {} ({e})", n + 2)))?;
        let name = row.get(file).unwrap_or("").trim().to_owned();
        let text = row.get(label).unwrap_or("");
        let class = class_of(rules, text).ok_or_else(|| {
            let known = known(rules);
            refused(
                &path,
                format!("row {} has the label {text:?}, known are {known}", n + 2),
            )
        })?;
        let inside = Path::new(&name)
            .components()
            .all(|c| matches!(c, std::path::Component::Normal(_)));
        if !inside || name.is_empty() {
            return Err(refused(
                &path,
                format!("row {} names a file outside of the folder", n + 2),
            ));
        }
        let at = |column: Option<usize>| column.and_then(|c| row.get(c)).map(str::to_owned);
        listed.push(Listed {
            path: folder.join(&name),
            patient: at(patient).unwrap_or_else(|| patient_of(rules, &name)),
            split: at(split),
            group: at(group),
            target: ListedTarget::Class(class),
            name,
        });
    }
    Ok(listed)
}

/// All image files below a folder, by name.
fn images_below(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = walkdir::WalkDir::new(folder)
        .into_iter()
        .filter_map(Result::ok)
        .filter(|e| e.file_type().is_file() && Picture::is_image_name(e.path()))
        .map(walkdir::DirEntry::into_path)
        .collect();
    found.sort();
    found
}

/// Files that end in `.dcm`, and folders that may hold a DICOM series, directly below a folder.
fn dicom_below(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| {
            let ending = path.extension().and_then(|e| e.to_str()).unwrap_or("");
            path.is_dir() && images_below(path).is_empty() || ending.eq_ignore_ascii_case("dcm")
        })
        .collect();
    found.sort();
    found
}

fn name_below(folder: &Path, path: &Path) -> String {
    let below = path.strip_prefix(folder).unwrap_or(path);
    below.to_string_lossy().replace('\\', "/")
}

fn class_folders(rules: &DataRules, folder: &Path) -> Result<Vec<Listed>, Error> {
    let mut listed = Vec::new();
    for path in images_below(folder) {
        let name = name_below(folder, &path);
        let parent = path.parent().and_then(|p| p.file_name());
        let parent = parent.map(|p| p.to_string_lossy().into_owned());
        let class = parent.as_deref().and_then(|p| class_of(rules, p));
        let class = class.ok_or_else(|| {
            let known = known(rules);
            refused(&path, format!("it lies in no folder of a class ({known})"))
        })?;
        let split = name.split('/').find(|part| ["train", "val"].contains(part));
        listed.push(Listed {
            patient: patient_of(rules, &name),
            // Only where both are there.
            split: split.map(str::to_owned),
            group: None,
            target: ListedTarget::Class(class),
            name,
            path,
        });
    }
    if listed.iter().all(|l| l.split.as_deref() != Some("val")) {
        for l in &mut listed {
            l.split = None;
        }
    }
    Ok(listed)
}

/// A file's name without its ending, also `.nii.gz`.
fn stem(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if path.is_dir() {
        return name.into_owned();
    }
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    name.rsplit_once('.')
        .map_or(name, |(stem, _)| stem)
        .to_owned()
}

fn masks(rules: &DataRules, folder: &Path) -> Result<Vec<Listed>, Error> {
    let images = folder.join("images");
    let masks = ["masks", "labels"].map(|name| folder.join(name));
    let masks = masks.iter().find(|m| m.is_dir());
    let (true, Some(masks)) = (images.is_dir(), masks) else {
        return Err(refused(folder, "no folders images and masks (or labels)"));
    };
    let by_stem: BTreeMap<String, PathBuf> = images_below(masks)
        .into_iter()
        .chain(dicom_below(masks))
        .map(|path| (stem(&path), path))
        .collect();
    let mut listed = Vec::new();
    for path in images_below(&images)
        .into_iter()
        .chain(dicom_below(&images))
    {
        let name = name_below(&images, &path);
        // A mask may be called like its image, with or without `_mask` or `_seg` behind.
        let of = stem(&path);
        let mask = ["", "_mask", "_seg"]
            .iter()
            .find_map(|ending| by_stem.get(&format!("{of}{ending}")));
        let mask = mask.ok_or_else(|| refused(&path, "it has no mask"))?;
        listed.push(Listed {
            patient: patient_of(rules, &name),
            split: None,
            group: None,
            target: ListedTarget::Mask(mask.clone()),
            name,
            path,
        });
    }
    Ok(listed)
}

/// Name, image and mask of each case.
///
/// # Errors
/// [`Error::Data`].
pub fn pairs(rules: &DataRules, folder: &Path) -> Result<Vec<(String, PathBuf, PathBuf)>, Error> {
    let listed = masks(rules, folder)?;
    if listed.is_empty() {
        return Err(refused(folder, "no images that can be used"));
    }
    let pairs = listed.into_iter().filter_map(|l| match l.target {
        ListedTarget::Mask(mask) => Some((l.name, l.path, mask)),
        ListedTarget::Class(_) => None,
    });
    Ok(pairs.collect())
}

fn medmnist(rules: &DataRules, path: &Path, parts: &[&str]) -> Result<Vec<Sample>, Error> {
    let arrays = npz::read(path)?;
    let mut samples = Vec::new();
    for part in parts {
        let array = |what: &str| {
            let name = format!("{part}_{what}");
            arrays
                .get(&name)
                .ok_or_else(|| refused(path, format!("no array {name:?}")))
        };
        let (images, labels) = (array("images")?, array("labels")?);
        let [count, y, x] = *images.shape.as_slice() else {
            let reason = format!("images of shape {:?}, expected [n, y, x]", images.shape);
            return Err(refused(path, reason));
        };
        if labels.values.len() != count || rules.size.len() != 2 || x * y == 0 {
            let reason = format!("{} labels for {count} images", labels.values.len());
            return Err(refused(path, reason));
        }
        for (n, image) in images.values.chunks_exact(x * y).enumerate() {
            let class = usize::try_from(labels.values[n])
                .ok()
                .filter(|c| *c < rules.classes.len())
                .ok_or_else(|| refused(path, format!("a label of {}", labels.values[n])))?;
            let bytes: Option<Vec<u8>> = image.iter().map(|v| u8::try_from(*v).ok()).collect();
            let bytes = bytes.ok_or_else(|| refused(path, "images of other values than bytes"))?;
            let name = format!("{part}/{n}");
            samples.push(Sample {
                patient: name.clone(),
                name,
                split: Some((*part).to_owned()),
                group: None,
                image: at_size(&Picture::bytes([1, y, x], bytes), &rules.size),
                target: Target::Class(class as u8),
            });
        }
    }
    Ok(samples)
}

/// Samples to learn from and to measure by.
#[derive(Clone, Debug)]
pub struct Split {
    /// To learn from.
    pub training: Vec<Sample>,
    /// To measure by.
    pub validation: Vec<Sample>,
    /// What was put right or is doubtful, in words.
    pub doubts: Vec<String>,
}

/// Splits samples by patient: as the data say, or drawn class by class.
///
/// # Errors
/// [`Error::Data`]: a patient on both sides, nothing on one, or only one class.
pub fn split(
    rules: &DataRules,
    path: &Path,
    samples: Vec<Sample>,
    seed: u64,
) -> Result<Split, Error> {
    let told = samples.iter().filter(|s| s.split.is_some()).count();
    let is_validation: BTreeMap<String, bool> = if told == samples.len() {
        let mut sides = BTreeMap::new();
        for sample in &samples {
            let validation = match sample.split.as_deref() {
                Some("train") => false,
                Some("val" | "valid" | "validation") => true,
                other => return Err(refused(path, format!("a split of {other:?}"))),
            };
            if sides.insert(sample.patient.clone(), validation) == Some(!validation) {
                return Err(refused(
                    path,
                    "patients are in training and validation, one of them has the file ".to_owned()
                        + &sample.name,
                ));
            }
        }
        sides
    } else {
        drawn(rules, &samples, seed)
    };
    let (validation, training): (Vec<Sample>, Vec<Sample>) =
        samples.into_iter().partition(|s| is_validation[&s.patient]);
    checked(path, training, validation, rules.layout != Layout::Masks)
}

/// The parts of a cross-validation: patients of each class are dealt to the folds in turn, and each
/// fold is held out once.
///
/// # Errors
/// As [`split`].
pub fn folds(
    path: &Path,
    samples: &[Sample],
    folds: usize,
    seed: u64,
) -> Result<Vec<Split>, Error> {
    let mut of = BTreeMap::new();
    for (class, patients) in by_class(samples) {
        let number = class.map_or(0, |c| u64::from(c) + 1);
        let order = Chance::at(&[seed, 0x464F_4C44, number]).order(patients.len());
        for (n, at) in order.into_iter().enumerate() {
            of.insert(patients[at].to_owned(), n % folds);
        }
    }
    (0..folds)
        .map(|fold| {
            let (validation, training) = samples
                .iter()
                .cloned()
                .partition(|s| of[&s.patient] == fold);
            checked(path, training, validation, true)
        })
        .collect()
}

/// Patients by the class of their first image, in the order of their names.
fn by_class(samples: &[Sample]) -> BTreeMap<Option<u8>, Vec<&str>> {
    let mut classes: BTreeMap<&str, Option<u8>> = BTreeMap::new();
    for sample in samples {
        classes.entry(&sample.patient).or_insert(sample.class());
    }
    let mut by_class: BTreeMap<Option<u8>, Vec<&str>> = BTreeMap::new();
    for (patient, class) in classes {
        by_class.entry(class).or_default().push(patient);
    }
    by_class
}

/// Both sides must have images, and of more than one class where images have classes.
fn checked(
    path: &Path,
    training: Vec<Sample>,
    validation: Vec<Sample>,
    classes: bool,
) -> Result<Split, Error> {
    for (name, side) in [("training", &training), ("validation", &validation)] {
        if side.is_empty() {
            return Err(refused(path, format!("no images for {name}")));
        }
        if classes && side.iter().all(|s| s.class() == side[0].class()) {
            return Err(refused(
                path,
                format!("only one class among the images for {name}"),
            ));
        }
    }
    Ok(Split {
        training,
        validation,
        doubts: Vec::new(),
    })
}

/// Patients, a part of each class held out.
fn drawn(rules: &DataRules, samples: &[Sample], seed: u64) -> BTreeMap<String, bool> {
    let mut sides = BTreeMap::new();
    for (class, patients) in by_class(samples) {
        let number = class.map_or(0, |c| u64::from(c) + 1);
        let order = Chance::at(&[seed, 0x0053_504C_4954, number]).order(patients.len());
        let held = (patients.len() as f64 * rules.validation).round() as usize;
        for (n, at) in order.into_iter().enumerate() {
            sides.insert(patients[at].to_owned(), n < held);
        }
    }
    sides
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> DataRules {
        toml::from_str("layout = 'labels'\nclasses = ['no', 'yes']\nsize = [8, 8]").unwrap()
    }

    fn sample(name: &str, patient: &str, class: u8) -> Sample {
        Sample {
            name: name.to_owned(),
            patient: patient.to_owned(),
            split: None,
            group: None,
            image: Picture::bytes([1, 8, 8], vec![class; 64]),
            target: Target::Class(class),
        }
    }

    #[test]
    fn patients_stay_whole_and_classes_on_both_sides() {
        let samples: Vec<Sample> = (0..200_u32)
            .map(|n| sample(&format!("{n}"), &format!("p{}", n / 4), u8::from(n >= 140)))
            .collect();
        let found = split(&rules(), Path::new("x"), samples, 3).unwrap();
        let patients = |side: &[Sample]| -> std::collections::BTreeSet<String> {
            side.iter().map(|s| s.patient.clone()).collect()
        };
        let (a, b) = (patients(&found.training), patients(&found.validation));
        assert!(a.is_disjoint(&b));
        assert_eq!((a.len(), b.len()), (40, 10));
        for class in [0, 1] {
            let count = |side: &[Sample]| side.iter().filter(|s| s.class() == Some(class)).count();
            assert!(count(&found.validation) * 4 == count(&found.training));
        }
    }

    #[test]
    fn patients_on_both_sides_and_lonely_classes_are_refused() {
        let mut samples = vec![
            sample("a", "p", 0),
            sample("b", "p", 1),
            sample("c", "q", 0),
            sample("d", "q", 1),
        ];
        let with = |samples: &[Sample], sides: [&str; 4]| {
            let mut samples = samples.to_vec();
            for (sample, side) in samples.iter_mut().zip(sides) {
                sample.split = Some(side.to_owned());
            }
            split(&rules(), Path::new("x"), samples, 0)
        };
        assert!(with(&samples, ["train", "train", "val", "val"]).is_ok());
        let both = with(&samples, ["train", "val", "train", "val"]).unwrap_err();
        assert!(
            both.to_string()
                .contains("patients are in training and validation")
        );
        samples[1].target = Target::Class(0);
        let lonely = with(&samples, ["train", "train", "val", "val"]).unwrap_err();
        assert!(lonely.to_string().contains("only one class"), "{lonely}");
    }
}

//! Values that are known without running the network: weights, and shapes computed from shapes.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use super::proto::{Place, Tensor};
use super::wire::{Parsed, Wire};

/// Elements of one tensor that computing with known values may make.
const MOST_COMPUTED: usize = 1 << 22;
/// Elements that may be computed in all, so that a small file does not take long.
const MOST_WORK: usize = 1 << 28;

/// A tensor that does not depend on the image.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) shape: Vec<usize>,
    pub(super) data: Data,
}

/// Its values, the last axis fastest.
#[derive(Clone, Debug)]
pub(super) enum Data {
    /// In a file; a matrix may be turned.
    Stored {
        tensor: Rc<Tensor>,
        transposed: bool,
    },
    Floats(Rc<Vec<f32>>),
    /// Also truth values, 0 and 1.
    Ints(Rc<Vec<i64>>),
}

impl Known {
    pub(super) fn floats(shape: &[usize], values: Vec<f32>) -> Self {
        Self {
            shape: shape.to_vec(),
            data: Data::Floats(Rc::new(values)),
        }
    }

    pub(super) fn ints(shape: &[usize], values: Vec<i64>) -> Self {
        Self {
            shape: shape.to_vec(),
            data: Data::Ints(Rc::new(values)),
        }
    }

    /// A tensor of the file.
    pub(super) fn stored(tensor: &Rc<Tensor>) -> Parsed<Self> {
        let shape: Option<Vec<usize>> = tensor
            .dims
            .iter()
            .map(|n| usize::try_from(*n).ok())
            .collect();
        let shape = shape.filter(|shape| count(shape).is_some());
        let Some(shape) = shape else {
            return Err(format!("tensor {:?} of {:?}", tensor.name, tensor.dims));
        };
        width(tensor)?;
        Ok(Self {
            shape,
            data: Data::Stored {
                tensor: Rc::clone(tensor),
                transposed: false,
            },
        })
    }

    pub(super) fn count(&self) -> usize {
        self.shape.iter().product()
    }

    pub(super) fn is_int(&self) -> bool {
        match &self.data {
            Data::Stored { tensor, .. } => !matches!(tensor.kind, 1 | 10 | 11 | 16),
            Data::Floats(_) => false,
            Data::Ints(_) => true,
        }
    }

    /// Elements in memory that nobody else has.
    fn alone(&self) -> usize {
        match &self.data {
            Data::Floats(values) if Rc::strong_count(values) == 1 => values.len(),
            Data::Ints(values) if Rc::strong_count(values) == 1 => values.len(),
            _ => 0,
        }
    }

    /// The same values on other axes.
    pub(super) fn reshaped(&self, shape: Vec<usize>) -> Self {
        Self {
            shape,
            data: self.data.clone(),
        }
    }

    /// A matrix with rows for columns, not yet read.
    pub(super) fn turned(&self) -> Option<Self> {
        let [rows, columns] = *self.shape.as_slice() else {
            return None;
        };
        let data = match &self.data {
            Data::Stored { tensor, transposed } => Data::Stored {
                tensor: Rc::clone(tensor),
                transposed: !transposed,
            },
            Data::Floats(values) => Data::Floats(Rc::new(turn(values, rows, columns))),
            Data::Ints(_) => return None,
        };
        let shape = vec![columns, rows];
        Some(Self { shape, data })
    }
}

/// `[rows, columns]` as `[columns, rows]`.
fn turn(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let columns = 0..columns;
    columns
        .clone()
        .flat_map(|c| (0..rows).map(move |r| (r, c)))
        .map(|(r, c)| values[r * columns.end + c])
        .collect()
}

/// Number of elements; `None` for what no memory holds.
pub(super) fn count(shape: &[usize]) -> Option<usize> {
    let count = shape.iter().try_fold(1_usize, |a, b| a.checked_mul(*b))?;
    (count < 1 << 40).then_some(count)
}

/// Bytes of an element in `raw_data`.
fn width(tensor: &Tensor) -> Parsed<usize> {
    match tensor.kind {
        2 | 3 | 9 => Ok(1),
        4 | 5 | 10 | 16 => Ok(2),
        1 | 6 | 12 => Ok(4),
        7 | 11 | 13 => Ok(8),
        other => Err(format!(
            "tensor {:?} of data type {other}, which is not understood",
            tensor.name
        )),
    }
}

/// The model's file, those beside it, and what was computed so far.
#[derive(Debug)]
pub(super) struct Files {
    main: RefCell<Wire>,
    folder: PathBuf,
    beside: RefCell<HashMap<String, (File, u64)>>,
    /// Elements that computed values may have at the same time, and have.
    most_held: usize,
    held: Cell<usize>,
    /// Elements that were computed so far.
    work: Cell<usize>,
}

impl Files {
    pub(super) fn new(main: Wire, path: &Path) -> Self {
        // As many as 64 MB hold, or the file.
        let most_held = (main.size() as usize / 8).max(8 << 20);
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        Self {
            main: RefCell::new(main),
            folder,
            beside: RefCell::default(),
            most_held,
            held: Cell::new(0),
            work: Cell::new(0),
        }
    }

    /// Asks for room to compute a value.
    pub(super) fn spend(&self, elements: usize) -> Parsed<()> {
        let work = self.work.get().saturating_add(elements);
        let held = self.held.get().saturating_add(elements);
        if elements > MOST_COMPUTED || held > self.most_held || work > MOST_WORK {
            return Err(format!(
                "computing {elements} known values, more than the file justifies"
            ));
        }
        self.work.set(work);
        Ok(())
    }

    /// Counts a value that was computed, and is in nobody else's hands.
    pub(super) fn hold(&self, known: &Known) {
        self.held.set(self.held.get() + known.alone());
    }

    /// The same value is not needed any more.
    pub(super) fn let_go(&self, known: &Known) {
        self.held.set(self.held.get().saturating_sub(known.alone()));
    }

    /// Values as f32.
    pub(super) fn floats(&self, known: &Known) -> Parsed<Vec<f32>> {
        match &known.data {
            Data::Floats(values) => Ok(values.to_vec()),
            Data::Ints(values) => Ok(values.iter().map(|v| *v as f32).collect()),
            Data::Stored { tensor, transposed } => {
                let values = self.stored(tensor, known.count(), float_of)?;
                match (transposed, known.shape.as_slice()) {
                    // The file holds the matrix the other way around.
                    (true, [rows, columns]) => Ok(turn(&values, *columns, *rows)),
                    _ => Ok(values),
                }
            }
        }
    }

    /// Values as whole numbers.
    pub(super) fn ints(&self, known: &Known) -> Parsed<Vec<i64>> {
        match &known.data {
            Data::Ints(values) => Ok(values.to_vec()),
            Data::Stored {
                tensor,
                transposed: false,
            } if known.is_int() => {
                self.spend(known.count())?;
                self.stored(tensor, known.count(), int_of)
            }
            _ => Err("numbers with fractions where whole ones are needed".to_owned()),
        }
    }

    fn stored<T>(
        &self,
        tensor: &Tensor,
        count: usize,
        one: impl Fn(i64, &[u8]) -> T,
    ) -> Parsed<Vec<T>> {
        let width = width(tensor)?;
        let wrong = |found: u64| {
            format!(
                "tensor {:?} of {:?} takes {} bytes, {found} are there",
                tensor.name,
                tensor.dims,
                count as u64 * width as u64
            )
        };
        let fits = |length: u64| {
            if length == count as u64 * width as u64 {
                Ok(())
            } else {
                Err(wrong(length))
            }
        };
        let bytes = match &tensor.place {
            Place::None if count == 0 => Vec::new(),
            Place::None => return Err(wrong(0)),
            Place::Raw(at) | Place::Wide(at) => {
                let wide = matches!(tensor.place, Place::Wide(_));
                if wide && !matches!(tensor.kind, 1 | 11) {
                    return Err(format!(
                        "tensor {:?} of data type {} in a list of floats",
                        tensor.name, tensor.kind
                    ));
                }
                fits(at.end - at.start)?;
                self.main.borrow_mut().at(at)?
            }
            Place::Varints(at) => {
                // Halves are written as their bits in a list of whole numbers.
                if at.end - at.start < count as u64 {
                    return Err(wrong(at.end - at.start));
                }
                let bytes = self.main.borrow_mut().at(at)?;
                return varints(&bytes, count)
                    .map(|values| {
                        let values = values.into_iter();
                        values
                            .map(|v| one(tensor.kind, &v.to_le_bytes()[..width]))
                            .collect()
                    })
                    .ok_or_else(|| {
                        format!("tensor {:?} has other than {count} values", tensor.name)
                    });
            }
            Place::External {
                location,
                offset,
                length,
            } => {
                let length = length.unwrap_or(count as u64 * width as u64);
                fits(length)?;
                self.beside(location, *offset, length)
                    .map_err(|reason| format!("tensor {:?}: {reason}", tensor.name))?
            }
        };
        let elements = bytes.chunks_exact(width);
        Ok(elements.map(|bytes| one(tensor.kind, bytes)).collect())
    }

    /// Part of a file beside the model. Nothing outside the model's folder is touched.
    fn beside(&self, location: &str, offset: u64, length: u64) -> Parsed<Vec<u8>> {
        let mut open = self.beside.borrow_mut();
        if !open.contains_key(location) {
            if open.len() >= 1024 {
                return Err("more than 1024 files of weights".to_owned());
            }
            let file = self.inside(location)?;
            let size = file.metadata().map_err(|e| e.to_string())?.len();
            open.insert(location.to_owned(), (file, size));
        }
        let (file, size) = open.get_mut(location).expect("it was opened");
        let end = offset.checked_add(length).filter(|end| end <= size);
        if end.is_none() {
            return Err(format!(
                "{length} bytes from byte {offset} of {location:?}, which has {size}"
            ));
        }
        let mut bytes = vec![0; length as usize];
        file.seek(SeekFrom::Start(offset))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(|e| format!("{location:?} could not be read ({e})"))?;
        Ok(bytes)
    }

    fn inside(&self, location: &str) -> Parsed<File> {
        let leaves =
            || format!("{location:?} is no plain name of a file inside the model's folder");
        let path = Path::new(location);
        let plain = path
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        if !plain || location.contains(['\\', ':', '\0']) {
            return Err(leaves());
        }
        let folder = if self.folder.as_os_str().is_empty() {
            Path::new(".")
        } else {
            &self.folder
        };
        let lost = |e: std::io::Error| format!("{location:?} could not be opened ({e})");
        let folder = folder.canonicalize().map_err(lost)?;
        // Links are followed first: what they lead to must be inside too.
        let real = folder.join(path).canonicalize().map_err(lost)?;
        if !real.starts_with(&folder) || !real.is_file() {
            return Err(leaves());
        }
        File::open(real).map_err(lost)
    }
}

/// `count` numbers of variable length that fill the bytes.
fn varints(bytes: &[u8], count: usize) -> Option<Vec<u64>> {
    let mut values = Vec::with_capacity(count);
    let mut bytes = bytes.iter();
    while bytes.len() > 0 {
        let (mut value, mut shift) = (0_u64, 0);
        loop {
            let byte = *bytes.next()?;
            value |= u64::from(byte & 0x7f).checked_shl(shift)?;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        values.push(value);
        if values.len() > count {
            return None;
        }
    }
    (values.len() == count).then_some(values)
}

fn bits(bytes: &[u8]) -> u64 {
    let mut all = [0; 8];
    all[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(all)
}

fn float_of(kind: i64, bytes: &[u8]) -> f32 {
    let bits = bits(bytes);
    match kind {
        1 => f32::from_bits(bits as u32),
        10 => half::f16::from_bits(bits as u16).to_f32(),
        11 => f64::from_bits(bits) as f32,
        16 => half::bf16::from_bits(bits as u16).to_f32(),
        _ => int_of(kind, bytes) as f32,
    }
}

fn int_of(kind: i64, bytes: &[u8]) -> i64 {
    let bits = bits(bytes);
    match kind {
        3 => i64::from(bits as u8 as i8),
        5 => i64::from(bits as u16 as i16),
        6 => i64::from(bits as u32 as i32),
        9 => i64::from(bits != 0),
        _ => bits.cast_signed(),
    }
}

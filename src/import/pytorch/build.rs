//! What a pickle may build: plain objects, tensors, and a few known calls. A list, nothing else.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::Fault;
use super::archive::Range;
use super::source::printable;
use super::tensor::{Dtype, TensorRef};
use super::value::{Array, Elements, Value};

/// Containers in containers, at most.
const DEEPEST: usize = 64;
/// Values in all, where a shared container counts as often as it is reached.
const MOST_VALUES: u64 = 1 << 24;
/// Memory for values that any file may ask for; larger files may ask for half their length.
const BUDGET: u64 = 64 << 20;
/// Tensor dimensions, at most.
const MOST_DIMENSIONS: usize = 16;
/// Arguments of a call and parts of a state, at most.
const MOST_ARGUMENTS: usize = 16;

/// A name that a pickle may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildTensorV2,
    RebuildParameter,
    Storage(Dtype),
    Dtype(&'static str),
    Size,
    Device,
    Encode,
    Set,
    FrozenSet,
    Bytes,
    Bytearray,
    ArrayScalar,
    ArrayReconstruct,
    ArrayType,
    ArrayDtype,
}

impl Global {
    /// # Errors
    /// Every name that is not on the list, by its name.
    pub(super) fn find(module: &str, name: &str) -> Result<Self, Fault> {
        const DTYPES: [&str; 10] = [
            "float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8",
            "uint8", "bool",
        ];
        Ok(match (module, name) {
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("torch._utils", "_rebuild_tensor") => Self::RebuildTensor,
            ("torch._utils", "_rebuild_tensor_v2") => Self::RebuildTensorV2,
            ("torch._utils", "_rebuild_parameter") => Self::RebuildParameter,
            ("torch", "Size") => Self::Size,
            ("torch", "device") => Self::Device,
            ("_codecs", "encode") => Self::Encode,
            ("__builtin__" | "builtins", "set") => Self::Set,
            ("__builtin__" | "builtins", "frozenset") => Self::FrozenSet,
            ("__builtin__" | "builtins", "bytes") => Self::Bytes,
            ("__builtin__" | "builtins", "bytearray") => Self::Bytearray,
            ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar") => Self::ArrayScalar,
            ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct") => {
                Self::ArrayReconstruct
            }
            ("numpy", "ndarray") => Self::ArrayType,
            ("numpy", "dtype") => Self::ArrayDtype,
            ("torch", _) => {
                if let Some(dtype) = Dtype::of_storage(name) {
                    Self::Storage(dtype)
                } else if let Some(dtype) = DTYPES.iter().find(|d| **d == name) {
                    Self::Dtype(dtype)
                } else {
                    return Err(foreign(module, name));
                }
            }
            _ => return Err(foreign(module, name)),
        })
    }
}

fn foreign(module: &str, name: &str) -> Fault {
    Fault::Foreign(printable(&format!("{module}.{name}")))
}

/// A value while the pickle runs. Containers are numbers into a [`Heap`]: they can change and be shared.
#[derive(Debug, Clone)]
pub(super) enum Item {
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(Arc<str>),
    Bytes(Arc<[u8]>),
    Object(usize),
    Global(Global),
    Storage(usize),
    Tensor(Arc<View>),
}

/// A tensor before it is checked against its storage.
#[derive(Debug)]
pub(super) struct View {
    storage: usize,
    offset: u64,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

#[derive(Debug)]
pub(super) enum Object {
    List(Vec<Item>),
    Tuple(Vec<Item>),
    Set(Vec<Item>),
    Dict(Vec<(Item, Item)>),
    Elements(Elements),
    Array(Option<Arc<Array>>),
}

/// Why a step is refused; the machine adds the place.
pub(super) type Step<T> = Result<T, String>;

/// All containers of one pickle, and how much memory they may take.
#[derive(Debug)]
pub(super) struct Heap {
    objects: Vec<Object>,
    budget: u64,
}

impl Heap {
    /// For a file of `length` bytes.
    pub(super) fn new(length: u64) -> Self {
        Self {
            objects: Vec::new(),
            budget: BUDGET.max(length / 2),
        }
    }

    /// Asks for memory before it is taken.
    pub(super) fn charge(&mut self, bytes: usize) -> Step<()> {
        match self.budget.checked_sub(bytes as u64) {
            Some(left) => {
                self.budget = left;
                Ok(())
            }
            None => Err("more values than any checkpoint has".to_owned()),
        }
    }

    pub(super) fn add(&mut self, object: Object) -> Step<Item> {
        self.charge(2 * size_of::<Object>())?;
        self.objects.push(object);
        Ok(Item::Object(self.objects.len() - 1))
    }

    /// The container behind an item.
    pub(super) fn object(&mut self, item: &Item) -> Option<&mut Object> {
        match item {
            Item::Object(number) => self.objects.get_mut(*number),
            _ => None,
        }
    }

    /// The items of a tuple.
    pub(super) fn tuple(&self, item: &Item) -> Option<&[Item]> {
        match item {
            Item::Object(number) => match self.objects.get(*number)? {
                Object::Tuple(items) => Some(items),
                _ => None,
            },
            _ => None,
        }
    }

    fn elements(&self, item: &Item) -> Step<Elements> {
        match item {
            Item::Object(number) => match self.objects.get(*number) {
                Some(Object::Elements(elements)) => Ok(*elements),
                _ => Err("no kind of elements where one belongs".to_owned()),
            },
            _ => Err("no kind of elements where one belongs".to_owned()),
        }
    }

    fn whole(item: &Item) -> Step<usize> {
        match item {
            Item::Int(value) => {
                usize::try_from(*value).map_err(|_| format!("{value} where a size belongs"))
            }
            _ => Err("no number where a size belongs".to_owned()),
        }
    }

    fn sizes(&self, item: &Item) -> Step<Vec<usize>> {
        let items = self.tuple(item).ok_or("no tuple where sizes belong")?;
        if items.len() > MOST_DIMENSIONS {
            return Err(format!("{} dimensions", items.len()));
        }
        items.iter().map(Self::whole).collect()
    }

    /// The items of a tuple that is no longer than any argument list.
    fn short_tuple(&self, item: &Item) -> Option<Vec<Item>> {
        self.tuple(item)
            .filter(|items| items.len() <= MOST_ARGUMENTS)
            .map(<[Item]>::to_vec)
    }

    /// Carries out a call of the list.
    pub(super) fn call(&mut self, function: &Item, arguments: &Item) -> Step<Item> {
        let Item::Global(global) = *function else {
            return Err("a call of something that is no function".to_owned());
        };
        let arguments = self
            .short_tuple(arguments)
            .ok_or("a call without arguments or with too many")?;
        let wrong = || format!("wrong arguments for {global:?}");
        match (global, arguments.as_slice()) {
            (Global::OrderedDict, []) => self.add(Object::Dict(Vec::new())),
            // Older files give the pairs at once.
            (Global::OrderedDict, [pairs]) => {
                let pairs = self.items(pairs).ok_or_else(wrong)?;
                let pairs: Option<Vec<(Item, Item)>> = pairs
                    .iter()
                    .map(|pair| match self.items(pair)?.as_slice() {
                        [key, value] => Some((key.clone(), value.clone())),
                        _ => None,
                    })
                    .collect();
                let pairs = pairs.ok_or_else(wrong)?;
                self.charge(pairs.len() * 4 * size_of::<Item>())?;
                self.add(Object::Dict(pairs))
            }
            (Global::Set | Global::FrozenSet, []) => self.add(Object::Set(Vec::new())),
            (Global::Set | Global::FrozenSet, [items]) => {
                let items = self.items(items).ok_or_else(wrong)?;
                self.charge(items.len() * 2 * size_of::<Item>())?;
                self.add(Object::Set(items))
            }
            (Global::Bytes | Global::Bytearray, []) => Ok(Item::Bytes(Arc::from([]))),
            (Global::Bytes | Global::Bytearray, [Item::Bytes(bytes)]) => {
                Ok(Item::Bytes(bytes.clone()))
            }
            (Global::Encode, [Item::Str(text), Item::Str(encoding)])
                if ["latin1", "latin-1"].contains(&&**encoding) =>
            {
                self.charge(2 * text.len())?;
                let bytes: Result<Vec<u8>, _> =
                    text.chars().map(|c| u8::try_from(u32::from(c))).collect();
                Ok(Item::Bytes(bytes.map_err(|_| wrong())?.into()))
            }
            (Global::Size, [sizes]) => {
                let items = self.items(sizes).ok_or_else(wrong)?;
                self.charge(items.len() * 2 * size_of::<Item>())?;
                self.add(Object::Tuple(items))
            }
            (Global::Device, [Item::Str(name)]) => Ok(Item::Str(name.clone())),
            (Global::Device, [Item::Str(name), Item::Int(number)]) => {
                Ok(Item::Str(format!("{name}:{number}").into()))
            }
            (
                Global::RebuildTensor | Global::RebuildTensorV2,
                [Item::Storage(storage), offset, shape, strides, ..],
            ) => {
                let view = View {
                    storage: *storage,
                    offset: Self::whole(offset)? as u64,
                    shape: self.sizes(shape)?,
                    strides: self.sizes(strides)?,
                };
                self.charge(2 * size_of::<View>() + 32 * view.shape.len())?;
                Ok(Item::Tensor(Arc::new(view)))
            }
            (Global::RebuildParameter, [Item::Tensor(view), ..]) => Ok(Item::Tensor(view.clone())),
            (Global::ArrayDtype, [Item::Str(code), ..]) => {
                let elements = Elements::parse(code)
                    .ok_or_else(|| format!("arrays of {} are not read", printable(code)))?;
                self.add(Object::Elements(elements))
            }
            (Global::ArrayScalar, [kind, Item::Bytes(bytes)]) => {
                match self.elements(kind)?.value(bytes).ok_or_else(wrong)? {
                    Value::Bool(value) => Ok(Item::Bool(value)),
                    Value::Int(value) => Ok(Item::Int(value)),
                    Value::Float(value) => Ok(Item::Float(value)),
                    Value::Str(value) => Ok(Item::Str(value)),
                    _ => Err(wrong()),
                }
            }
            (Global::ArrayReconstruct, [Item::Global(Global::ArrayType), ..]) => {
                self.add(Object::Array(None))
            }
            _ => Err(wrong()),
        }
    }

    fn items(&self, item: &Item) -> Option<Vec<Item>> {
        match item {
            Item::Object(number) => match self.objects.get(*number)? {
                Object::List(items) | Object::Tuple(items) | Object::Set(items) => {
                    Some(items.clone())
                }
                _ => None,
            },
            _ => None,
        }
    }

    /// Gives an object the state that its file keeps for it.
    pub(super) fn give_state(&mut self, target: &Item, state: &Item) -> Step<()> {
        let items = self.short_tuple(state);
        match (self.object(target), items.as_deref()) {
            // Attributes of a dictionary (`_metadata` of a state dict) are not its entries.
            (Some(Object::Dict(_)), _) => match self.object(state) {
                Some(Object::Dict(_)) => Ok(()),
                _ => Err("a dictionary's state is no dictionary".to_owned()),
            },
            (Some(Object::Elements(elements)), Some([_, Item::Str(order), ..])) => {
                elements.big_endian = match &**order {
                    "<" | "|" | "=" => false,
                    ">" => true,
                    _ => return Err(format!("the byte order {}", printable(order))),
                };
                Ok(())
            }
            (
                Some(Object::Array(None)),
                Some([_, shape, kind, Item::Bool(fortran), Item::Bytes(bytes)]),
            ) => {
                let shape = self.sizes(shape)?;
                let elements = self.elements(kind)?;
                let needed = shape
                    .iter()
                    .try_fold(elements.size, |product, &size| product.checked_mul(size));
                if needed != Some(bytes.len()) || elements.size == 0 {
                    return Err(format!(
                        "an array of shape {shape:?} in {} bytes",
                        bytes.len()
                    ));
                }
                let array = Array {
                    shape,
                    elements,
                    fortran: *fortran,
                    bytes: bytes.clone(),
                };
                if let Some(Object::Array(slot)) = self.object(target) {
                    *slot = Some(Arc::new(array));
                }
                Ok(())
            }
            _ => Err("a state for something that has none".to_owned()),
        }
    }
}

/// A stretch of elements that tensors view.
#[derive(Debug)]
pub(super) struct Storage {
    pub(super) key: String,
    pub(super) dtype: Dtype,
    pub(super) count: u64,
    /// Where it starts in the file, as soon as that is known.
    pub(super) start: Option<u64>,
}

/// The storages that a pickle names.
#[derive(Debug)]
pub(super) struct Storages<'a> {
    /// Where the archive keeps them; the older form keeps them behind the pickle.
    entries: Option<&'a BTreeMap<String, Range>>,
    by_key: BTreeMap<String, usize>,
    pub(super) all: Vec<Storage>,
}

impl<'a> Storages<'a> {
    pub(super) fn of_archive(entries: &'a BTreeMap<String, Range>) -> Self {
        Self {
            entries: Some(entries),
            by_key: BTreeMap::new(),
            all: Vec::new(),
        }
    }

    /// Of the older form, whose places come later.
    pub(super) fn behind() -> Self {
        Self {
            entries: None,
            by_key: BTreeMap::new(),
            all: Vec::new(),
        }
    }

    /// The storage that a persistent id names: `("storage", class, key, device, count)`, in the older
    /// form with a view, which must be `None`.
    pub(super) fn find(&mut self, heap: &mut Heap, id: &Item) -> Step<Item> {
        let (dtype, key, count) = match heap.tuple(id) {
            Some(
                [
                    Item::Str(word),
                    Item::Global(Global::Storage(dtype)),
                    Item::Str(key),
                    Item::Str(_),
                    Item::Int(count),
                    rest @ ..,
                ],
            ) if &**word == "storage" && matches!(rest, [] | [Item::None]) => {
                (*dtype, key.clone(), *count)
            }
            _ => return Err("a reference to something that is no storage".to_owned()),
        };
        let count = u64::try_from(count).map_err(|_| format!("a storage of {count} elements"))?;
        if let Some(&number) = self.by_key.get(&*key) {
            let known = &self.all[number];
            if (known.dtype, known.count) != (dtype, count) {
                return Err(format!("storage {} is described twice", printable(&key)));
            }
            return Ok(Item::Storage(number));
        }
        let mut start = None;
        if let Some(entries) = self.entries {
            let range = entries
                .get(&format!("data/{key}"))
                .ok_or_else(|| format!("storage {} is missing", printable(&key)))?;
            if count.checked_mul(dtype.size() as u64) != Some(range.length) {
                return Err(format!(
                    "storage {} declares {count} elements of {dtype:?} but has {} bytes",
                    printable(&key),
                    range.length
                ));
            }
            start = Some(range.start);
        }
        heap.charge(2 * size_of::<Storage>() + 4 * key.len())?;
        self.by_key.insert(key.to_string(), self.all.len());
        self.all.push(Storage {
            key: key.to_string(),
            dtype,
            count,
            start,
        });
        Ok(Item::Storage(self.all.len() - 1))
    }

    /// The number of the storage that goes by `key`.
    pub(super) fn number(&self, key: &str) -> Option<usize> {
        self.by_key.get(key).copied()
    }
}

/// What a pickle built.
#[derive(Debug)]
pub(super) struct Built {
    pub(super) heap: Heap,
    pub(super) top: Item,
}

impl Built {
    /// The finished value: no cycles, bounded depth, every tensor within its storage.
    pub(super) fn finish(self, storages: &Storages, file_length: u64) -> Result<Value, Fault> {
        let mut finisher = Finisher {
            known: (0..self.heap.objects.len()).map(|_| Known::Not).collect(),
            objects: self.heap.objects,
            storages,
            file_length,
        };
        finisher.value(&self.top, 0).map(|(value, _)| value)
    }
}

enum Known {
    Not,
    Underway,
    Done(Value, u64),
}

struct Finisher<'a> {
    objects: Vec<Object>,
    known: Vec<Known>,
    storages: &'a Storages<'a>,
    file_length: u64,
}

impl Finisher<'_> {
    /// The value and how many values it is made of.
    fn value(&mut self, item: &Item, depth: usize) -> Result<(Value, u64), Fault> {
        let value = match item {
            Item::Object(number) => return self.object(*number, depth),
            Item::None => Value::None,
            Item::Bool(value) => Value::Bool(*value),
            Item::Int(value) => Value::Int(*value),
            Item::Float(value) => Value::Float(*value),
            Item::Str(text) => Value::Str(text.clone()),
            Item::Bytes(bytes) => Value::Bytes(bytes.clone()),
            Item::Global(Global::Dtype(name)) => Value::Str(format!("torch.{name}").into()),
            Item::Global(global) => {
                return Err(Fault::Foreign(format!("{global:?} as a value")));
            }
            Item::Storage(_) => {
                return Err(Fault::Tensor("a storage without a tensor".to_owned()));
            }
            Item::Tensor(view) => Value::Tensor(Arc::new(self.tensor(view)?)),
        };
        Ok((value, 1))
    }

    fn tensor(&self, view: &View) -> Result<TensorRef, Fault> {
        let storage = &self.storages.all[view.storage];
        let start = storage
            .start
            .ok_or_else(|| Fault::Tensor(format!("storage {} is missing", storage.key)))?;
        let end = storage
            .count
            .checked_mul(storage.dtype.size() as u64)
            .and_then(|bytes| bytes.checked_add(start));
        if end.is_none_or(|end| end > self.file_length) {
            return Err(Fault::Tensor(format!(
                "storage {} lies outside the file",
                printable(&storage.key)
            )));
        }
        TensorRef::new(
            storage.dtype,
            start,
            storage.count,
            view.offset,
            view.shape.clone(),
            view.strides.clone(),
        )
    }

    fn all(&mut self, items: &[Item], depth: usize) -> Result<(Arc<[Value]>, u64), Fault> {
        let mut total = 1_u64;
        let mut values = Vec::with_capacity(items.len());
        for item in items {
            let (value, count) = self.value(item, depth)?;
            total += count;
            if total > MOST_VALUES {
                return Err(Fault::TooMuch(
                    "its containers share each other too often".to_owned(),
                ));
            }
            values.push(value);
        }
        Ok((values.into(), total))
    }

    fn object(&mut self, number: usize, depth: usize) -> Result<(Value, u64), Fault> {
        match &self.known[number] {
            Known::Done(value, count) => return Ok((value.clone(), *count)),
            Known::Underway => {
                return Err(Fault::TooMuch("a container holds itself".to_owned()));
            }
            Known::Not => self.known[number] = Known::Underway,
        }
        if depth == DEEPEST {
            return Err(Fault::TooMuch(format!(
                "containers in containers, deeper than {DEEPEST}"
            )));
        }
        // The place is not needed again: what refers to it meets `Underway` or `Done`.
        let object = std::mem::replace(&mut self.objects[number], Object::Array(None));
        let (value, count) = match object {
            Object::List(items) => {
                let (items, count) = self.all(&items, depth + 1)?;
                (Value::List(items), count)
            }
            Object::Tuple(items) => {
                let (items, count) = self.all(&items, depth + 1)?;
                (Value::Tuple(items), count)
            }
            Object::Set(items) => {
                let (items, count) = self.all(&items, depth + 1)?;
                (Value::Set(items), count)
            }
            Object::Dict(pairs) => {
                let (keys, items): (Vec<Item>, Vec<Item>) = pairs.into_iter().unzip();
                let (keys, key_count) = self.all(&keys, depth + 1)?;
                let (items, count) = self.all(&items, depth + 1)?;
                let mut seen = HashSet::new();
                for key in keys.iter().filter_map(Value::as_str) {
                    if !seen.insert(key) {
                        return Err(Fault::TooMuch(format!(
                            "a dictionary names {} twice",
                            printable(key)
                        )));
                    }
                }
                let pairs = keys.iter().cloned().zip(items.iter().cloned()).collect();
                (Value::Dict(pairs), key_count + count)
            }
            Object::Elements(_) => {
                return Err(Fault::Foreign("numpy.dtype as a value".to_owned()));
            }
            Object::Array(Some(array)) => (Value::Array(array), 1),
            Object::Array(None) => {
                return Err(Fault::Tensor("an array without elements".to_owned()));
            }
        };
        self.known[number] = Known::Done(value.clone(), count);
        Ok((value, count))
    }
}

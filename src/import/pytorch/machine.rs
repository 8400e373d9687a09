//! The pickle's instructions, protocols 2 to 5, on a stack machine that builds plain values only.
//!
//! # Source
//! Python's `Lib/pickletools.py`, which documents every instruction.

use std::collections::HashMap;
use std::io::Read;

use super::Fault;
use super::build::{Built, Global, Heap, Item, Object, Step, Storages};
use super::source::{Source, printable};

const LONGEST_NAME: usize = 256;

struct Machine<'a, 'b> {
    heap: Heap,
    stack: Vec<Item>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u32, Item>,
    storages: &'a mut Storages<'b>,
}

/// Runs one pickle to its end; `file_length` bounds the memory.
///
/// # Errors
/// [`Fault`]: a foreign name, or what is damaged and where.
pub(super) fn run<R: Read>(
    source: &mut Source<R>,
    storages: &mut Storages,
    file_length: u64,
) -> Result<Built, Fault> {
    let mut machine = Machine {
        heap: Heap::new(file_length),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        storages,
    };
    loop {
        let [code] = source.array()?;
        if code == b'.' {
            let top = machine.pop().map_err(|what| source.fault(what))?;
            return Ok(Built {
                heap: machine.heap,
                top,
            });
        }
        machine.step(code, source)?;
    }
}

impl Machine<'_, '_> {
    fn push(&mut self, item: Item) -> Step<()> {
        self.heap.charge(4 * size_of::<Item>())?;
        self.stack.push(item);
        Ok(())
    }

    /// The lowest place that the current instruction may touch.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Step<Item> {
        if self.stack.len() <= self.floor() {
            return Err("an empty stack".to_owned());
        }
        self.stack.pop().ok_or_else(|| "an empty stack".to_owned())
    }

    fn top(&self) -> Step<&Item> {
        if self.stack.len() <= self.floor() {
            return Err("an empty stack".to_owned());
        }
        self.stack.last().ok_or_else(|| "an empty stack".to_owned())
    }

    /// What lies above the last mark, which is taken away.
    fn above_mark(&mut self) -> Step<Vec<Item>> {
        let mark = self.marks.pop().ok_or("no mark")?;
        Ok(self.stack.split_off(mark))
    }

    fn add(&mut self, object: Object) -> Step<()> {
        let item = self.heap.add(object)?;
        self.push(item)
    }

    fn extend_list(&mut self, items: Vec<Item>) -> Step<()> {
        let target = self.top()?.clone();
        match self.heap.object(&target) {
            Some(Object::List(list)) => list.extend(items),
            _ => return Err("items for something that is no list".to_owned()),
        }
        Ok(())
    }

    fn extend_dict(&mut self, items: Vec<Item>) -> Step<()> {
        let pairs = pairs_of(items)?;
        let target = self.top()?.clone();
        match self.heap.object(&target) {
            Some(Object::Dict(entries)) => entries.extend(pairs),
            _ => return Err("entries for something that is no dictionary".to_owned()),
        }
        Ok(())
    }

    fn remember(&mut self, number: u32) -> Step<()> {
        let item = self.top()?.clone();
        self.heap.charge(4 * size_of::<Item>())?;
        self.memo.insert(number, item);
        Ok(())
    }

    fn recall(&mut self, number: u32) -> Step<()> {
        let item = self.memo.get(&number).cloned();
        self.push(item.ok_or_else(|| format!("nothing remembered as {number}"))?)
    }

    fn call(&mut self) -> Step<()> {
        let arguments = self.pop()?;
        let function = self.pop()?;
        let made = self.heap.call(&function, &arguments)?;
        self.push(made)
    }

    fn call_with(&mut self, function: &Item, arguments: Vec<Item>) -> Step<()> {
        let arguments = self.heap.add(Object::Tuple(arguments))?;
        let made = self.heap.call(function, &arguments)?;
        self.push(made)
    }

    fn tuple_of(&mut self, count: usize) -> Step<()> {
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(self.pop()?);
        }
        items.reverse();
        self.add(Object::Tuple(items))
    }

    fn text<R: Read>(&mut self, source: &mut Source<R>, length: u64) -> Result<(), Fault> {
        let bytes = self.raw(source, length)?;
        let text =
            std::str::from_utf8(&bytes).map_err(|_| source.fault("text that is not UTF-8"))?;
        self.push(Item::Str(text.into()))
            .map_err(|what| source.fault(what))
    }

    fn bytes<R: Read>(&mut self, source: &mut Source<R>, length: u64) -> Result<(), Fault> {
        let bytes = self.raw(source, length)?;
        self.push(Item::Bytes(bytes.into()))
            .map_err(|what| source.fault(what))
    }

    fn raw<R: Read>(&mut self, source: &mut Source<R>, length: u64) -> Result<Vec<u8>, Fault> {
        if length <= source.left() {
            self.heap
                .charge(2 * length as usize)
                .map_err(|what| source.fault(what))?;
        }
        source.bytes(length)
    }

    /// Text of Python 2: text where it is UTF-8, bytes where it is not.
    fn old_text<R: Read>(&mut self, source: &mut Source<R>, length: u64) -> Result<(), Fault> {
        let bytes = self.raw(source, length)?;
        let item = match std::str::from_utf8(&bytes) {
            Ok(text) => Item::Str(text.into()),
            Err(_) => Item::Bytes(bytes.into()),
        };
        self.push(item).map_err(|what| source.fault(what))
    }

    fn step<R: Read>(&mut self, code: u8, source: &mut Source<R>) -> Result<(), Fault> {
        // Instructions with something behind them in the file read it first.
        let done = match code {
            0x80 => {
                let [protocol] = source.array()?;
                if (2..=5).contains(&protocol) {
                    Ok(())
                } else {
                    Err(format!("protocol {protocol}, 2 to 5 are read"))
                }
            }
            0x95 => {
                let length = u64::from_le_bytes(source.array()?);
                if length > source.left() {
                    let left = source.left();
                    Err(format!("a frame of {length} bytes where {left} are left"))
                } else {
                    Ok(())
                }
            }
            b'J' => self.push(Item::Int(i32::from_le_bytes(source.array()?).into())),
            b'K' => self.push(Item::Int(source.array::<1>()?[0].into())),
            b'M' => self.push(Item::Int(u16::from_le_bytes(source.array()?).into())),
            b'G' => self.push(Item::Float(f64::from_be_bytes(source.array()?))),
            0x8a | 0x8b => {
                let length = if code == 0x8a {
                    u64::from(source.array::<1>()?[0])
                } else {
                    u64::from(u32::from_le_bytes(source.array()?))
                };
                if length > 16 {
                    return Err(source.fault(format!("a whole number of {length} bytes")));
                }
                let bytes = source.bytes(length)?;
                let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
                let mut wide = [if negative { 0xff } else { 0 }; 16];
                wide[..bytes.len()].copy_from_slice(&bytes);
                self.push(Item::Int(i128::from_le_bytes(wide)))
            }
            b'X' => {
                let length = u32::from_le_bytes(source.array()?);
                return self.text(source, length.into());
            }
            0x8c => {
                let [length] = source.array()?;
                return self.text(source, length.into());
            }
            0x8d => {
                let length = u64::from_le_bytes(source.array()?);
                return self.text(source, length);
            }
            b'B' => {
                let length = u32::from_le_bytes(source.array()?);
                return self.bytes(source, length.into());
            }
            b'C' => {
                let [length] = source.array()?;
                return self.bytes(source, length.into());
            }
            0x8e | 0x96 => {
                let length = u64::from_le_bytes(source.array()?);
                return self.bytes(source, length);
            }
            b'T' => {
                let length = u32::from_le_bytes(source.array()?);
                return self.old_text(source, length.into());
            }
            b'U' => {
                let [length] = source.array()?;
                return self.old_text(source, length.into());
            }
            b'h' => {
                let [number] = source.array()?;
                self.recall(number.into())
            }
            b'j' => {
                let number = u32::from_le_bytes(source.array()?);
                self.recall(number)
            }
            b'q' => {
                let [number] = source.array()?;
                self.remember(number.into())
            }
            b'r' => {
                let number = u32::from_le_bytes(source.array()?);
                self.remember(number)
            }
            b'c' => {
                let global = global(source)?;
                self.push(Item::Global(global))
            }
            b'i' => {
                let global = global(source)?;
                self.above_mark()
                    .and_then(|arguments| self.call_with(&Item::Global(global), arguments))
            }
            0x93 => return self.stack_global(source),
            0x82..=0x84 => {
                return Err(Fault::Foreign(
                    "an entry of the extension registry".to_owned(),
                ));
            }
            _ => self.plain_step(code),
        };
        done.map_err(|what| source.fault(what))
    }

    fn stack_global<R: Read>(&mut self, source: &Source<R>) -> Result<(), Fault> {
        let fault = |what: String| source.fault(what);
        let name = self.pop().map_err(fault)?;
        let module = self.pop().map_err(fault)?;
        let (Item::Str(module), Item::Str(name)) = (module, name) else {
            return Err(source.fault("a name that is no text"));
        };
        let global = Global::find(&module, &name)?;
        self.push(Item::Global(global)).map_err(fault)
    }

    /// Instructions that stand alone.
    fn plain_step(&mut self, code: u8) -> Step<()> {
        match code {
            b'(' => {
                self.heap.charge(16)?;
                self.marks.push(self.stack.len());
                Ok(())
            }
            b'0' => {
                // On a bare mark, Python drops the mark.
                if self.marks.last() == Some(&self.stack.len()) {
                    self.marks.pop();
                    Ok(())
                } else {
                    self.pop().map(drop)
                }
            }
            b'1' => self.above_mark().map(drop),
            b'2' => {
                let top = self.top()?.clone();
                self.push(top)
            }
            b'N' => self.push(Item::None),
            0x88 => self.push(Item::Bool(true)),
            0x89 => self.push(Item::Bool(false)),
            b']' => self.add(Object::List(Vec::new())),
            b'}' => self.add(Object::Dict(Vec::new())),
            0x8f => self.add(Object::Set(Vec::new())),
            b')' => self.add(Object::Tuple(Vec::new())),
            0x85 => self.tuple_of(1),
            0x86 => self.tuple_of(2),
            0x87 => self.tuple_of(3),
            b't' => {
                let items = self.above_mark()?;
                self.add(Object::Tuple(items))
            }
            b'l' => {
                let items = self.above_mark()?;
                self.add(Object::List(items))
            }
            0x91 => {
                let items = self.above_mark()?;
                self.add(Object::Set(items))
            }
            b'd' => {
                let pairs = pairs_of(self.above_mark()?)?;
                self.add(Object::Dict(pairs))
            }
            b'a' => {
                let item = self.pop()?;
                self.extend_list(vec![item])
            }
            b'e' => {
                let items = self.above_mark()?;
                self.extend_list(items)
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.extend_dict(vec![key, value])
            }
            b'u' => {
                let items = self.above_mark()?;
                self.extend_dict(items)
            }
            0x90 => {
                let items = self.above_mark()?;
                let target = self.top()?.clone();
                match self.heap.object(&target) {
                    Some(Object::Set(set)) => set.extend(items),
                    _ => return Err("members for something that is no set".to_owned()),
                }
                Ok(())
            }
            0x94 => {
                let number = u32::try_from(self.memo.len()).map_err(|_| "a full memo")?;
                self.remember(number)
            }
            // A new object of a class is a call of the class: the list knows which.
            b'R' | 0x81 => self.call(),
            b'o' => {
                let mut items = self.above_mark()?;
                if items.is_empty() {
                    return Err("an object without a class".to_owned());
                }
                let class = items.remove(0);
                self.call_with(&class, items)
            }
            b'b' => {
                let state = self.pop()?;
                let target = self.top()?.clone();
                self.heap.give_state(&target, &state)
            }
            b'Q' => {
                let id = self.pop()?;
                let storage = self.storages.find(&mut self.heap, &id)?;
                self.push(storage)
            }
            _ => Err(format!(
                "the instruction {}, which is not read",
                if code.is_ascii_graphic() {
                    printable(&char::from(code).to_string())
                } else {
                    format!("0x{code:02x}")
                }
            )),
        }
    }
}

fn global<R: Read>(source: &mut Source<R>) -> Result<Global, Fault> {
    let module = source.line(LONGEST_NAME)?;
    let name = source.line(LONGEST_NAME)?;
    Global::find(
        &String::from_utf8_lossy(&module),
        &String::from_utf8_lossy(&name),
    )
}

fn pairs_of(items: Vec<Item>) -> Step<Vec<(Item, Item)>> {
    if !items.len().is_multiple_of(2) {
        return Err("a key without a value".to_owned());
    }
    let mut items = items.into_iter();
    let mut pairs = Vec::with_capacity(items.len() / 2);
    while let (Some(key), Some(value)) = (items.next(), items.next()) {
        pairs.push((key, value));
    }
    Ok(pairs)
}

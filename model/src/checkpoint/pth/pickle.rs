//! A pickle machine that can do nothing but build the state dictionary of a model.
//!
//! It knows two callables, `collections.OrderedDict` and `torch._utils._rebuild_tensor_v2`, and the names of torch's
//! storage types; any other global is refused by its name, and so is any other operation. Nothing is ever imported
//! or run.

use crate::checkpoint::cursor::Cursor;
use std::collections::HashMap;
use std::rc::Rc;

/// More values on the stack, in the memo or in one container than a state dictionary has use for.
const MAX_VALUES: usize = 1 << 20;

/// Deeper nesting than a state dictionary has use for; what is nested without end could not even be freed.
const MAX_DEPTH: u8 = 8;

/// The content of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Items {
    values: Vec<Value>,
    depth: u8,
}

impl Items {
    fn new(values: Vec<Value>) -> Result<Self, Refusal> {
        let mut items = Self::default();
        items.extend(values)?;
        Ok(items)
    }

    fn extend(&mut self, values: Vec<Value>) -> Result<(), Refusal> {
        for value in values {
            self.depth = self.depth.max(value.depth() + 1);
            self.values.push(value);
        }
        match self.depth <= MAX_DEPTH && self.values.len() <= MAX_VALUES {
            true => Ok(()),
            false => Err("more or deeper nested values than a state dictionary needs".into()),
        }
    }

    pub fn values(&self) -> &[Value] {
        &self.values
    }
}

/// A place in a storage, as the arguments of `_rebuild_tensor_v2` tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    pub storage: Rc<Storage>,
    /// In elements.
    pub offset: i64,
    pub shape: Vec<i64>,
    pub strides: Vec<i64>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Storage {
    pub key: String,
    /// As torch calls it: `FloatStorage`.
    pub kind: String,
    /// Elements.
    pub len: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    None,
    Bool(bool),
    Int(i64),
    /// A number too large for anything but telling files apart.
    Long(Vec<u8>),
    Text(Rc<str>),
    Tuple(Rc<Items>),
    List(Items),
    /// Keys and values in turn, in the order of the file.
    Dict(Items),
    /// `collections.OrderedDict`.
    OrderedDict,
    /// `torch._utils._rebuild_tensor_v2`.
    RebuildTensor,
    /// A storage type of torch.
    StorageType(Rc<str>),
    Storage(Rc<Storage>),
    Tensor(Rc<View>),
}

impl Value {
    fn depth(&self) -> u8 {
        match self {
            Self::Tuple(items) => items.depth,
            Self::List(items) | Self::Dict(items) => items.depth,
            _ => 0,
        }
    }
}

/// What stopped the machine, in words.
pub type Refusal = String;

/// Runs one pickle to its end and gives what it built.
pub fn load(cursor: &mut Cursor<'_>) -> Result<Value, Refusal> {
    let mut machine = Machine::default();
    loop {
        let code = whole(cursor.u8())?;
        if code == b'.' {
            return machine.pop();
        }
        machine.step(code, cursor)?;
        if machine.stack.len() > MAX_VALUES || machine.memo.len() > MAX_VALUES {
            return Err("more values than a state dictionary needs".into());
        }
    }
}

#[derive(Default)]
struct Machine {
    stack: Vec<Value>,
    marks: Vec<usize>,
    memo: HashMap<u32, Value>,
}

impl Machine {
    fn step(&mut self, code: u8, cursor: &mut Cursor<'_>) -> Result<(), Refusal> {
        match code {
            0x80 => match whole(cursor.u8())? {
                2 => {}
                version => return Err(format!("pickle protocol {version}, expected 2")),
            },
            b'(' => self.marks.push(self.stack.len()),
            b'N' => self.push(Value::None),
            0x88 => self.push(Value::Bool(true)),
            0x89 => self.push(Value::Bool(false)),
            b'K' => self.push(Value::Int(i64::from(whole(cursor.u8())?))),
            b'M' => self.push(Value::Int(i64::from(whole(cursor.u16())?))),
            b'J' => {
                let bytes = whole(cursor.array())?;
                self.push(Value::Int(i64::from(i32::from_le_bytes(bytes))));
            }
            0x8a => {
                let len = whole(cursor.u8())?;
                let bytes = whole(cursor.take(usize::from(len)))?;
                self.push(long(bytes));
            }
            b'X' => {
                let len = whole(cursor.u32())?;
                let bytes = whole(cursor.take(len as usize))?;
                self.push(Value::Text(text(bytes)?));
            }
            b')' => self.push(Value::Tuple(Rc::default())),
            b't' => {
                let items = self.since_mark()?;
                self.push(Value::Tuple(Rc::new(Items::new(items)?)));
            }
            0x85..=0x87 => {
                let count = usize::from(code - 0x84);
                let from = self.stack.len().checked_sub(count).ok_or_else(empty)?;
                let items = self.stack.split_off(from);
                self.push(Value::Tuple(Rc::new(Items::new(items)?)));
            }
            b']' => self.push(Value::List(Items::default())),
            b'}' => self.push(Value::Dict(Items::default())),
            b'a' | b'e' => self.append(code == b'e')?,
            b's' | b'u' => self.set_items(code == b'u')?,
            b'q' => self.keep(u32::from(whole(cursor.u8())?))?,
            b'r' => self.keep(whole(cursor.u32())?)?,
            b'h' => self.recall(u32::from(whole(cursor.u8())?))?,
            b'j' => self.recall(whole(cursor.u32())?)?,
            b'c' => {
                let (module, name) = (whole(cursor.line())?, whole(cursor.line())?);
                self.push(global(&text(module)?, &text(name)?)?);
            }
            b'Q' => {
                let id = self.pop()?;
                self.push(storage(&id)?);
            }
            b'R' => {
                let (arguments, callable) = (self.pop()?, self.pop()?);
                self.push(call(&callable, &arguments)?);
            }
            // the state of a state dictionary is its versions, which nobody needs
            b'b' => match (self.pop()?, self.stack.last()) {
                (Value::Dict(_), Some(Value::Dict(_))) => {}
                _ => return Err("a state for something that is no dictionary".into()),
            },
            other => {
                return Err(format!(
                    "operation 0x{other:02x} is not for state dictionaries"
                ));
            }
        }
        Ok(())
    }

    fn push(&mut self, value: Value) {
        self.stack.push(value);
    }

    fn pop(&mut self) -> Result<Value, Refusal> {
        self.stack.pop().ok_or_else(empty)
    }

    fn since_mark(&mut self) -> Result<Vec<Value>, Refusal> {
        let mark = self.marks.pop().filter(|&mark| mark <= self.stack.len());
        Ok(self.stack.split_off(mark.ok_or_else(empty)?))
    }

    fn append(&mut self, many: bool) -> Result<(), Refusal> {
        let items = match many {
            true => self.since_mark()?,
            false => vec![self.pop()?],
        };
        match self.stack.last_mut() {
            Some(Value::List(list)) => list.extend(items),
            _ => Err("items for something that is no list".into()),
        }
    }

    fn set_items(&mut self, many: bool) -> Result<(), Refusal> {
        let items = match many {
            true => self.since_mark()?,
            false => {
                let (value, key) = (self.pop()?, self.pop()?);
                vec![key, value]
            }
        };
        match self.stack.last_mut() {
            Some(Value::Dict(dict)) if items.len().is_multiple_of(2) => dict.extend(items),
            Some(Value::Dict(_)) => Err("a key without a value".into()),
            _ => Err("items for something that is no dictionary".into()),
        }
    }

    /// Lists and dictionaries are not kept: torch's own files recall nothing but texts, tuples and globals, and their
    /// copies would be a way to fill the memory.
    fn keep(&mut self, at: u32) -> Result<(), Refusal> {
        match self.stack.last().ok_or_else(empty)? {
            Value::Dict(_) | Value::List(_) => {}
            value => {
                self.memo.insert(at, value.clone());
            }
        }
        Ok(())
    }

    fn recall(&mut self, at: u32) -> Result<(), Refusal> {
        let value = self.memo.get(&at).cloned();
        self.push(value.ok_or_else(|| format!("nothing was kept as {at}"))?);
        Ok(())
    }
}

fn empty() -> Refusal {
    "an operation on an empty stack".into()
}

fn whole<T>(value: Option<T>) -> Result<T, Refusal> {
    value.ok_or_else(|| "the file ends here: is it cut off?".into())
}

fn text(bytes: &[u8]) -> Result<Rc<str>, Refusal> {
    let text = std::str::from_utf8(bytes).map_err(|e| e.to_string())?;
    Ok(text.into())
}

/// Two's complement, little-endian, as short as can be.
fn long(bytes: &[u8]) -> Value {
    if bytes.len() > 8 {
        return Value::Long(bytes.to_vec());
    }
    let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut wide = [if negative { 0xff } else { 0 }; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    Value::Int(i64::from_le_bytes(wide))
}

fn global(module: &str, name: &str) -> Result<Value, Refusal> {
    match (module, name) {
        ("collections", "OrderedDict") => Ok(Value::OrderedDict),
        ("torch._utils", "_rebuild_tensor_v2") => Ok(Value::RebuildTensor),
        ("torch", kind) if kind.ends_with("Storage") => Ok(Value::StorageType(kind.into())),
        _ => Err(format!(
            "the global {module}.{name} is refused: only collections.OrderedDict and \
             torch._utils._rebuild_tensor_v2 are known"
        )),
    }
}

/// A persistent id: `("storage", type, key, device, elements, None)`.
fn storage(id: &Value) -> Result<Value, Refusal> {
    let Value::Tuple(items) = id else {
        return Err("a persistent id that is no tuple".into());
    };
    match items.values() {
        [
            Value::Text(tag),
            Value::StorageType(kind),
            Value::Text(key),
            Value::Text(_),
            Value::Int(len),
            Value::None,
        ] if tag.as_ref() == "storage" => Ok(Value::Storage(Rc::new(Storage {
            key: key.to_string(),
            kind: kind.to_string(),
            len: *len,
        }))),
        _ => Err("a persistent id that names no whole storage".into()),
    }
}

fn call(callable: &Value, arguments: &Value) -> Result<Value, Refusal> {
    let Value::Tuple(arguments) = arguments else {
        return Err("arguments that are no tuple".into());
    };
    match (callable, arguments.values()) {
        (Value::OrderedDict, []) => Ok(Value::Dict(Items::default())),
        (
            Value::RebuildTensor,
            [
                Value::Storage(storage),
                Value::Int(offset),
                Value::Tuple(shape),
                Value::Tuple(strides),
                _,
                _,
            ],
        ) => Ok(Value::Tensor(Rc::new(View {
            storage: storage.clone(),
            offset: *offset,
            shape: integers(shape)?,
            strides: integers(strides)?,
        }))),
        (Value::OrderedDict | Value::RebuildTensor, _) => {
            Err("arguments that are not those of a state dictionary".into())
        }
        _ => Err("something is called that is no callable".into()),
    }
}

fn integers(values: &Items) -> Result<Vec<i64>, Refusal> {
    let integer = |value: &Value| match value {
        Value::Int(value) => Ok(*value),
        other => Err(format!("a dimension that is no number: {other:?}")),
    };
    values.values.iter().map(integer).collect()
}

//! The part of Python's pickle format that PyTorch's state dicts are written in. A pickle is a program for a stack
//! machine which may import and call anything; this one knows the names that tensors are made of, and refuses all others.
//!
//! Values are small and refer to each other by number, so that neither copies nor cycles nor any depth of nesting costs
//! more than the bytes that asked for them.
//!
//! Source: CPython's `Lib/pickletools.py` for the operations, `torch/serialization.py` and `torch/_utils.py` for the names.

use std::collections::HashMap;

use safetensors::tensor::Dtype;

use super::raw::MAX_DIMS;

/// A value that a pickle made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    /// Values that tensors do not need: None, floats, devices.
    Other,
    Bool,
    Int(i64),
    Str(&'a str),
    /// Numbers of [`Pickle::items`].
    Tuple(usize),
    List(usize),
    /// Keys and values in turn.
    Dict(usize),
    Global(Global),
    /// Number of [`Pickle::storages`].
    Storage(usize),
    /// Number of [`Pickle::tensors`].
    Tensor(usize),
}

/// A name that a pickle may import.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Size,
    Device,
    Storage(Dtype),
}

impl Global {
    fn named(module: &str, name: &str) -> Option<Self> {
        let storage = |dtype| Some(Global::Storage(dtype));
        match (module, name) {
            ("collections", "OrderedDict") => Some(Global::OrderedDict),
            ("torch._utils", "_rebuild_tensor_v2") => Some(Global::RebuildTensor),
            ("torch._utils", "_rebuild_parameter") => Some(Global::RebuildParameter),
            ("torch", "Size") => Some(Global::Size),
            ("torch", "device") => Some(Global::Device),
            ("torch", "DoubleStorage") => storage(Dtype::F64),
            ("torch", "FloatStorage") => storage(Dtype::F32),
            ("torch", "HalfStorage") => storage(Dtype::F16),
            ("torch", "BFloat16Storage") => storage(Dtype::BF16),
            ("torch", "LongStorage") => storage(Dtype::I64),
            ("torch", "IntStorage") => storage(Dtype::I32),
            ("torch", "ShortStorage") => storage(Dtype::I16),
            ("torch", "CharStorage") => storage(Dtype::I8),
            ("torch", "ByteStorage") => storage(Dtype::U8),
            ("torch", "BoolStorage") => storage(Dtype::BOOL),
            _ => None,
        }
    }
}

/// Bytes kept beside the pickle.
#[derive(Clone, Copy, Debug)]
pub(super) struct Storage<'a> {
    pub dtype: Dtype,
    pub key: &'a str,
    /// Elements.
    pub len: usize,
}

/// A view of a storage, in elements.
#[derive(Debug)]
pub(super) struct Tensor {
    pub storage: usize,
    pub offset: usize,
    pub shape: Vec<usize>,
    pub stride: Vec<usize>,
}

/// A pickle that was read.
#[derive(Debug, Default)]
pub(super) struct Pickle<'a> {
    pub items: Vec<Vec<Value<'a>>>,
    pub storages: Vec<Storage<'a>>,
    pub tensors: Vec<Tensor>,
}

/// Runs a pickle; returns what it made, and the value that stands for all.
pub(super) fn read(bytes: &[u8]) -> Result<(Pickle<'_>, Value<'_>), String> {
    let mut machine =
        Machine { rest: bytes, stack: Vec::new(), marks: Vec::new(), memo: HashMap::new(), made: Pickle::default() };
    loop {
        match machine.byte()? {
            b'.' => return machine.pop().map(|root| (machine.made, root)),
            op => machine.run(op)?,
        }
    }
}

struct Machine<'a> {
    rest: &'a [u8],
    stack: Vec<Value<'a>>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u32, Value<'a>>,
    made: Pickle<'a>,
}

impl<'a> Machine<'a> {
    fn run(&mut self, op: u8) -> Result<(), String> {
        match op {
            // PROTO, FRAME: nothing to do here depends on them.
            0x80 => self.bytes(1).map(drop)?,
            0x95 => self.bytes(8).map(drop)?,
            b'(' => self.marks.push(self.stack.len()),
            b'N' => self.stack.push(Value::Other),
            0x88 | 0x89 => self.stack.push(Value::Bool),
            b'G' => self.bytes(8).map(|_| self.stack.push(Value::Other))?,
            b'K' => self.integer(1)?,
            b'M' => self.integer(2)?,
            b'J' => {
                let value = i32::from_le_bytes(self.array()?);
                self.stack.push(Value::Int(value.into()));
            }
            0x8a => self.long()?,
            b'X' => self.string(4)?,
            0x8c => self.string(1)?,
            b'q' => self.put(1)?,
            b'r' => self.put(4)?,
            0x94 => self.remember(self.memo.len() as u32)?,
            b'h' => self.get(1)?,
            b'j' => self.get(4)?,
            b')' => self.collect(0, Value::Tuple)?,
            0x85..=0x87 => self.collect(usize::from(op - 0x84), Value::Tuple)?,
            b't' => self.above_mark().and_then(|n| self.collect(n, Value::Tuple))?,
            b']' => self.collect(0, Value::List)?,
            b'}' => self.collect(0, Value::Dict)?,
            b'a' => self.extend(1)?,
            b's' => self.extend(2)?,
            b'e' | b'u' => self.above_mark().and_then(|n| self.extend(n))?,
            b'c' => self.import()?,
            0x93 => match (self.pop()?, self.pop()?) {
                (Value::Str(name), Value::Str(module)) => self.global(module, name)?,
                _ => return Err("a name that is no text".to_string()),
            },
            b'Q' => self.storage()?,
            b'R' => self.call()?,
            // BUILD: of an OrderedDict, its attributes, PyTorch's `_metadata`.
            b'b' => match (self.pop()?, self.stack.last()) {
                (_, Some(Value::Dict(_))) => {}
                _ => return Err("attributes of something that has none".to_string()),
            },
            other => return Err(format!("operation {other:#04x}, which no state dict needs")),
        }
        Ok(())
    }

    fn bytes(&mut self, n: usize) -> Result<&'a [u8], String> {
        let (bytes, rest) = self.rest.split_at_checked(n).ok_or("cut short")?;
        self.rest = rest;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or("cut short")?;
        self.rest = rest;
        Ok(*bytes)
    }

    fn byte(&mut self) -> Result<u8, String> {
        self.array().map(|[byte]| byte)
    }

    /// An unsigned number of 1 to 4 bytes.
    fn number(&mut self, bytes: usize) -> Result<u32, String> {
        Ok(self.bytes(bytes)?.iter().rev().fold(0, |number, &byte| number << 8 | u32::from(byte)))
    }

    fn integer(&mut self, bytes: usize) -> Result<(), String> {
        let value = self.number(bytes)?;
        self.stack.push(Value::Int(value.into()));
        Ok(())
    }

    /// An integer of any number of bytes, the highest bit of which is its sign.
    fn long(&mut self) -> Result<(), String> {
        let len = usize::from(self.byte()?);
        let bytes = self.bytes(len)?;
        if len > 8 {
            return Err(format!("an integer of {len} bytes"));
        }
        let sign = if bytes.last().is_some_and(|&b| b >= 0x80) { -1 } else { 0 };
        self.stack.push(Value::Int(bytes.iter().rev().fold(sign, |value, &b| value << 8 | i64::from(b))));
        Ok(())
    }

    fn string(&mut self, length_bytes: usize) -> Result<(), String> {
        let len = self.number(length_bytes)? as usize;
        let text = std::str::from_utf8(self.bytes(len)?).map_err(|_| "text that is not UTF-8")?;
        self.stack.push(Value::Str(text));
        Ok(())
    }

    /// The topmost value above the last mark.
    fn pop(&mut self) -> Result<Value<'a>, String> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err("a value is missing".to_string());
        }
        self.stack.pop().ok_or_else(|| "a value is missing".to_string())
    }

    /// Takes the last mark away; how many values are above it.
    fn above_mark(&mut self) -> Result<usize, String> {
        let mark = self.marks.pop().ok_or("a mark is missing")?;
        Ok(self.stack.len() - mark)
    }

    /// Makes the topmost `n` values one.
    fn collect(&mut self, n: usize, kind: fn(usize) -> Value<'a>) -> Result<(), String> {
        let items = self.top(n)?;
        self.made.items.push(items);
        self.stack.push(kind(self.made.items.len() - 1));
        Ok(())
    }

    /// Appends the topmost `n` values to the list or dict below them.
    fn extend(&mut self, n: usize) -> Result<(), String> {
        let items = self.top(n)?;
        match self.stack.last() {
            Some(&Value::List(list)) => self.made.items[list].extend(items),
            Some(&Value::Dict(dict)) if n.is_multiple_of(2) => self.made.items[dict].extend(items),
            _ => return Err("items of something that has none".to_string()),
        }
        Ok(())
    }

    fn top(&mut self, n: usize) -> Result<Vec<Value<'a>>, String> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let from = self.stack.len().checked_sub(n).filter(|&from| from >= floor).ok_or("a value is missing")?;
        Ok(self.stack.split_off(from))
    }

    fn put(&mut self, bytes: usize) -> Result<(), String> {
        let index = self.number(bytes)?;
        self.remember(index)
    }

    fn remember(&mut self, index: u32) -> Result<(), String> {
        let value = *self.stack.last().ok_or("a value is missing")?;
        self.memo.insert(index, value);
        Ok(())
    }

    fn get(&mut self, bytes: usize) -> Result<(), String> {
        let index = self.number(bytes)?;
        let value = *self.memo.get(&index).ok_or_else(|| format!("value {index} was never remembered"))?;
        self.stack.push(value);
        Ok(())
    }

    /// A module and a name, a line each.
    fn import(&mut self) -> Result<(), String> {
        let mut line = || -> Result<&'a str, String> {
            let end = self.rest.iter().position(|&b| b == b'\n').ok_or("cut short")?;
            let line = self.bytes(end + 1)?;
            std::str::from_utf8(&line[..end]).map_err(|_| "text that is not UTF-8".to_string())
        };
        let (module, name) = (line()?, line()?);
        self.global(module, name)
    }

    fn global(&mut self, module: &str, name: &str) -> Result<(), String> {
        let global = Global::named(module, name).ok_or_else(|| {
            let name: String = format!("{module}.{name}").chars().take(80).collect();
            format!("asks for '{name}', which must not be loaded")
        })?;
        self.stack.push(Value::Global(global));
        Ok(())
    }

    /// A persistent id: `('storage', type, key, device, elements)`.
    fn storage(&mut self) -> Result<(), String> {
        let Value::Tuple(fields) = self.pop()? else { return Err("an external value that is no tuple".to_string()) };
        let &[Value::Str("storage"), Value::Global(Global::Storage(dtype)), Value::Str(key), _, Value::Int(len)] =
            &self.made.items[fields][..]
        else {
            return Err("an external value that is no storage".to_string());
        };
        let len = usize::try_from(len).map_err(|_| format!("a storage of {len} elements"))?;
        self.made.storages.push(Storage { dtype, key, len });
        self.stack.push(Value::Storage(self.made.storages.len() - 1));
        Ok(())
    }

    /// Does what a call of the global below its arguments would.
    fn call(&mut self) -> Result<(), String> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let Value::Global(function) = function else {
            return Err("a call of something that is no function".to_string());
        };
        let Value::Tuple(arguments) = arguments else { return Err("arguments that are no tuple".to_string()) };
        let value = match (function, &self.made.items[arguments][..]) {
            (Global::OrderedDict, []) => return self.collect(0, Value::Dict),
            (Global::Size, [Value::Tuple(sizes)]) => Value::Tuple(*sizes),
            (Global::Device, _) => Value::Other,
            (Global::RebuildParameter, [tensor @ Value::Tensor(_), ..]) => *tensor,
            (
                Global::RebuildTensor,
                &[Value::Storage(storage), Value::Int(offset), Value::Tuple(shape), Value::Tuple(stride), ..],
            ) => {
                let offset = usize::try_from(offset).map_err(|_| format!("a tensor at {offset}"))?;
                let (shape, stride) = (self.dims(shape)?, self.dims(stride)?);
                self.made.tensors.push(Tensor { storage, offset, shape, stride });
                Value::Tensor(self.made.tensors.len() - 1)
            }
            (function, _) => return Err(format!("{function:?} with other arguments than PyTorch gives it")),
        };
        self.stack.push(value);
        Ok(())
    }

    /// Sizes or strides.
    fn dims(&self, tuple: usize) -> Result<Vec<usize>, String> {
        let dims = &self.made.items[tuple];
        // A pickle may use one tuple for many tensors, so that its length must be bounded.
        if dims.len() > MAX_DIMS {
            return Err(format!("a tensor of {} dimensions", dims.len()));
        }
        let dim = |value: &Value<'_>| match value {
            Value::Int(dim) => usize::try_from(*dim).map_err(|_| format!("a size or stride of {dim}")),
            _ => Err("a size or stride that is no integer".to_string()),
        };
        dims.iter().map(dim).collect()
    }
}

//! Layouts of types in memory: structs that the host passes to kernels are compared with the kernels' own, field by field.

/// A type in memory.
#[derive(Debug)]
pub enum Type {
    /// A number of this Rust name and so many bytes.
    Number(&'static str, usize),
    /// So many of a type, one after the other.
    Array(&'static Type, usize),
    /// A struct of so many bytes.
    Struct(usize, &'static [Field]),
}

/// A field of a struct.
#[derive(Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// Bytes before it.
    pub offset: usize,
    /// Its type.
    pub ty: &'static Type,
}

impl Type {
    /// Bytes of a value.
    pub const fn size(&self) -> usize {
        match self {
            Type::Number(_, size) | Type::Struct(size, _) => *size,
            Type::Array(of, len) => of.size() * *len,
        }
    }
}

/// Types whose layout is known.
pub trait Layout {
    /// The type.
    const TYPE: &'static Type;
}

macro_rules! numbers {
    ($($name:ident)+) => { $(
        impl Layout for $name {
            const TYPE: &'static Type = &Type::Number(stringify!($name), size_of::<$name>());
        }
    )+ };
}

numbers!(u8 u16 u32 u64 f32 f64);

impl<T: Layout, const N: usize> Layout for [T; N] {
    const TYPE: &'static Type = &Type::Array(T::TYPE, N);
}

/// The type of the field that a function returns.
pub const fn type_of_field<S, F: Layout>(_: fn(&S) -> &F) -> &'static Type {
    F::TYPE
}

/// Implements [`Layout`] for a struct of which all fields are named; the compiler refuses it if one is missing.
macro_rules! layout {
    ($name:ident { $($field:ident),+ $(,)? }) => {
        impl $crate::base::layout::Layout for $name {
            const TYPE: &'static $crate::base::layout::Type = {
                use $crate::base::layout::{Field, Type, type_of_field};
                const fn _all_fields($name { $($field: _),+ }: &$name) {}
                const FIELDS: &[Field] = &[$( Field {
                    name: stringify!($field),
                    offset: std::mem::offset_of!($name, $field),
                    ty: type_of_field(|of: &$name| &of.$field),
                } ),+];
                &Type::Struct(size_of::<$name>(), FIELDS)
            };
        }
    };
}
pub(crate) use layout;

//! Kernels as the host sees them: their prototypes, typed functions that launch them, and their arguments as bytes.

use std::ffi::c_void;

use crate::backend::cuda::runtime::allocator::Device;
use crate::backend::{AdamStep, FabStep, SgdStep};
use crate::base::dims::{ChannelDims, Conv2dDims, LeNetDims, LinearDims, LogitDims, Pool2dDims};
use crate::base::rng::Rng;

/// A kernel's prototype.
#[derive(Clone, Copy, Debug)]
pub struct KernelSpec {
    /// The file it is in, `kernels/<file>.cu`.
    pub file: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Its parameters.
    pub params: &'static [Param],
    /// Whether the launch after it begins only when it has ended: others read what it writes before they have waited
    /// (`wait_for_launch_before` in `kernels/primitives/common.cuh`).
    pub exclusive: bool,
}

/// A kernel's parameter.
#[derive(Clone, Copy, Debug)]
pub struct Param {
    /// Its name.
    pub name: &'static str,
    /// Its size in bytes.
    pub size: usize,
    /// Whether it is an address.
    pub pointer: bool,
}

/// Declares the kernels of a file: `const KERNELS` with their prototypes, and in the module `launch` an unsafe function
/// of the same name for each, which takes the [`Context`](super::context::Context), the [`Grid`] and the arguments. A kernel may be `#[exclusive]`.
macro_rules! kernels {
    (@exclusive) => { false };
    (@exclusive exclusive) => { true };
    ($file:literal: $( $(#[$mark:ident])? $name:ident ( $($arg:ident : $ty:ty),* $(,)? ); )+) => {
        /// Prototypes of the kernels in this family's file.
        pub(super) const KERNELS: &[$crate::backend::cuda::runtime::kernel::KernelSpec] = &[$(
            $crate::backend::cuda::runtime::kernel::KernelSpec {
                file: $file,
                name: stringify!($name),
                params: &[$( $crate::backend::cuda::runtime::kernel::Param {
                    name: stringify!($arg),
                    size: <$ty as $crate::backend::cuda::runtime::kernel::Arg>::SIZE,
                    pointer: <$ty as $crate::backend::cuda::runtime::kernel::Arg>::POINTER,
                } ),*],
                exclusive: $crate::backend::cuda::runtime::kernel::kernels!(@exclusive $($mark)?),
            }
        ),+];

        /// A function for each kernel. They are unsafe because a kernel believes what it is told about lengths.
        mod launch {
            #[allow(unused_imports)]
            use super::*;
            use $crate::backend::cuda::{Context, runtime::kernel::{Arg, Args, Grid}};
            $(
                #[allow(clippy::too_many_arguments)]
                pub unsafe fn $name(context: &Context, grid: Grid, $($arg: $ty),*) {
                    let mut args = Args::with_room(&[$( <$ty as Arg>::SIZE ),*]);
                    $( Arg::push($arg, &mut args); )*
                    // SAFETY: the arguments have the types of the prototype, which is checked against the kernel when the
                    // backend starts; the caller vouches for the lengths.
                    unsafe { context.launch(stringify!($name), grid, args) }
                }
            )+
        }
    };
}
pub(in crate::backend::cuda) use kernels;

/// How many blocks of how many threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Blocks in x, y and z.
    pub blocks: [u32; 3],
    /// Threads of a block, all in x.
    pub threads: u32,
    /// Bytes of shared memory of a block beside what the kernel declares: its `DYNAMIC_SHARED`.
    pub shared: u32,
}

impl Grid {
    /// `blocks` in x.
    pub fn line(blocks: u32, threads: u32) -> Self {
        Grid { blocks: [blocks, 1, 1], threads, shared: 0 }
    }
}

/// The arguments of a launch, each at a multiple of eight bytes.
#[derive(Clone, Debug, Default)]
pub struct Args {
    words: Vec<u64>,
    /// Where each begins.
    starts: Vec<u32>,
    flop: f64,
}

impl Args {
    /// None yet, but room for arguments of these sizes.
    pub fn with_room(sizes: &[usize]) -> Self {
        let words = sizes.iter().map(|size| size.div_ceil(8)).sum();
        Args { words: Vec::with_capacity(words), starts: Vec::with_capacity(sizes.len()), flop: 0.0 }
    }

    pub(in crate::backend::cuda) fn push_bytes(&mut self, bytes: &[u8]) {
        self.starts.push(self.words.len() as u32);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.words.push(u64::from_le_bytes(word));
        }
    }

    /// The bytes of all arguments, with zeros between them.
    pub(in crate::backend::cuda) fn words(&self) -> &[u64] {
        &self.words
    }

    /// Operations of the kernel, as far as its arguments tell.
    pub(in crate::backend::cuda) fn flop(&self) -> f64 {
        self.flop
    }

    /// Of a kernel that does `times` what the arguments so far say.
    pub(in crate::backend::cuda) fn repeat(&mut self, times: u32) {
        self.flop *= f64::from(times);
    }

    /// Where each argument begins, in words.
    pub(in crate::backend::cuda) fn starts(&self) -> &[u32] {
        &self.starts
    }
}

/// The address of each argument in `words`.
pub(in crate::backend::cuda) fn pointers(words: &[u64], starts: &[u32]) -> Vec<*mut c_void> {
    starts.iter().map(|&start| words[start as usize..].as_ptr().cast_mut().cast()).collect()
}

/// What can be an argument.
pub trait Arg {
    /// Bytes of the kernel's parameter.
    const SIZE: usize;
    /// Whether it is an address.
    const POINTER: bool = false;
    /// Appends the value.
    fn push(self, args: &mut Args);
}

/// Types that are passed as they are.
macro_rules! by_value {
    ($($ty:ty),+ $(,)?) => { $(
        impl Arg for $ty {
            const SIZE: usize = size_of::<$ty>();
            fn push(self, args: &mut Args) {
                args.push_bytes(bytemuck::bytes_of(&self));
            }
        }
    )+ };
}
pub(in crate::backend::cuda) use by_value;

by_value!(u32, u64, f32, f64, Pool2dDims, ChannelDims, LogitDims, SgdStep, AdamStep, FabStep, Rng);

/// Sizes that tell how many multiply-adds a kernel does.
macro_rules! by_value_with_products {
    ($($ty:ty: |$d:ident| $products:expr),+ $(,)?) => { $(
        impl Arg for $ty {
            const SIZE: usize = size_of::<$ty>();
            fn push(self, args: &mut Args) {
                args.push_bytes(bytemuck::bytes_of(&self));
                let $d = self;
                args.flop += 2.0 * $products;
            }
        }
    )+ };
}

by_value_with_products!(
    Conv2dDims: |d| product([d.n, d.c_out, d.h_out, d.w_out, d.c_in, d.k, d.k]),
    LinearDims: |d| product([d.n, d.f_in, d.f_out]),
    // A step of an attack: every layer forwards and back to its input.
    LeNetDims: |d| 2.0 * (product([d.n, 784, 25, d.c1]) + product([d.n, 196, 25, d.c1, d.c2])
        + product([d.n, 49, d.c2, d.f1]) + product([d.n, d.f1, d.classes])),
);

fn product<const N: usize>(sizes: [u32; N]) -> f64 {
    sizes.into_iter().map(f64::from).product()
}

impl<T> Arg for &Device<T> {
    const SIZE: usize = 8;
    const POINTER: bool = true;
    fn push(self, args: &mut Args) {
        self.address().push(args);
    }
}

impl<T> Arg for &mut Device<T> {
    const SIZE: usize = 8;
    const POINTER: bool = true;
    fn push(self, args: &mut Args) {
        self.address().push(args);
    }
}

/// A null pointer for `None`.
impl<D: Arg> Arg for Option<D> {
    const SIZE: usize = D::SIZE;
    const POINTER: bool = D::POINTER;
    fn push(self, args: &mut Args) {
        match self {
            Some(buffer) => buffer.push(args),
            None => 0_u64.push(args),
        }
    }
}

//! Kernels as the host sees them: their prototypes, typed functions that launch them, and their arguments as bytes.

use std::ffi::c_void;

use crate::backend::cuda::runtime::allocator::Device;
use crate::base::dims::{ChannelDims, Conv2dDims, LinearDims, LogitDims, Pool2dDims};
use crate::base::layout::{Layout, Type};
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
    /// Whether it is an address.
    pub pointer: bool,
    /// Its type, or the type of what is at the address.
    pub ty: &'static Type,
}

impl Param {
    /// Bytes of the parameter.
    pub const fn size(&self) -> usize {
        if self.pointer { 8 } else { self.ty.size() }
    }
}

/// A kernel as the macro `kernels!` declares it, or one for each tile of a list: `<name>_<tile>`.
#[derive(Debug)]
pub struct Declared {
    /// As in [`KernelSpec`], which it stands for, without the tile's name.
    pub spec: KernelSpec,
    /// The names of the tiles.
    pub tiles: Option<&'static [&'static str]>,
}

impl Declared {
    const fn count(&self) -> usize {
        match self.tiles {
            Some(tiles) => tiles.len(),
            None => 1,
        }
    }

    /// The prototypes it stands for. Names of tiles are put together for the rest of the process.
    pub(in crate::backend::cuda) fn specs(&self) -> Vec<KernelSpec> {
        let of_tile = |tile: &&str| KernelSpec { name: format!("{}_{tile}", self.spec.name).leak(), ..self.spec };
        self.tiles.map_or_else(|| vec![self.spec], |tiles| tiles.iter().map(of_tile).collect())
    }
}

/// The index of a kernel among all that are declared, or of that of its first tile.
pub(in crate::backend::cuda) const fn index_of(name: &str, declared: &[&[&[Declared]]]) -> usize {
    let (mut index, mut precision) = (0, 0);
    while precision < declared.len() {
        let mut family = 0;
        while family < declared[precision].len() {
            let kernels = declared[precision][family];
            let mut kernel = 0;
            while kernel < kernels.len() {
                if equal(kernels[kernel].spec.name.as_bytes(), name.as_bytes()) {
                    return index;
                }
                index += kernels[kernel].count();
                kernel += 1;
            }
            family += 1;
        }
        precision += 1;
    }
    panic!("a family of kernels that is not in the list of its precision")
}

const fn equal(a: &[u8], b: &[u8]) -> bool {
    let mut i = 0;
    while i < a.len() && i < b.len() && a[i] == b[i] {
        i += 1;
    }
    i == a.len() && i == b.len()
}

/// Declares the kernels of a file: `const KERNELS` with their prototypes, and in the module `launch` an unsafe function
/// of the same name for each, which takes the [`Context`](super::context::Context), the [`Grid`] and the arguments. A kernel
/// may be `#[exclusive]`. With `name[TILES](…)` there is a kernel for each tile, and the function takes the tile's index before
/// the grid.
macro_rules! kernels {
    (@exclusive) => { false };
    (@exclusive exclusive) => { true };
    (@tiles) => { None };
    (@tiles $tiles:expr) => { {
        const NAMES: [&str; $tiles.len()] = {
            let mut names = [""; $tiles.len()];
            let mut i = 0;
            while i < names.len() {
                names[i] = $tiles[i].name;
                i += 1;
            }
            names
        };
        Some(&NAMES)
    } };
    (@launch $name:ident [] ($($arg:ident : $ty:ty),*)) => {
        #[allow(clippy::too_many_arguments)]
        pub unsafe fn $name(context: &Context, grid: Grid, $($arg: $ty),*) {
            let args = kernels!(@args $($arg: $ty),*);
            // SAFETY: the arguments have the types of the prototype, which is checked against the kernel when the
            // backend starts; the caller vouches for the lengths.
            unsafe { context.launch(const { index_of(stringify!($name), KERNELS_OF_ALL) }, grid, args) }
        }
    };
    (@launch $name:ident [$tiles:expr] ($($arg:ident : $ty:ty),*)) => {
        #[allow(clippy::too_many_arguments)]
        pub unsafe fn $name(context: &Context, tile: usize, grid: Grid, $($arg: $ty),*) {
            assert!(tile < $tiles.len());
            let args = kernels!(@args $($arg: $ty),*);
            // SAFETY: as above; every tile has the same prototype.
            unsafe { context.launch(const { index_of(stringify!($name), KERNELS_OF_ALL) } + tile, grid, args) }
        }
    };
    (@args $($arg:ident : $ty:ty),*) => { {
        let mut args = Args::with_capacity(&[$( <$ty as Arg>::SIZE ),*]);
        $( Arg::push($arg, &mut args); )*
        args
    } };
    ($file:literal: $( $(#[$mark:ident])? $name:ident $([$tiles:expr])? ( $($arg:ident : $ty:ty),* $(,)? ); )+) => {
        /// The kernels in this family's file.
        pub(in crate::backend::cuda) const KERNELS: &[$crate::backend::cuda::runtime::kernel::Declared] = {
            use $crate::backend::cuda::runtime::kernel::{Arg, Declared, KernelSpec, Param, kernels};
            &[$( Declared {
                spec: KernelSpec {
                    file: $file,
                    name: stringify!($name),
                    params: &[$( Param {
                        name: stringify!($arg),
                        pointer: <$ty as Arg>::POINTER,
                        ty: <$ty as Arg>::TYPE,
                    } ),*],
                    exclusive: kernels!(@exclusive $($mark)?),
                },
                tiles: kernels!(@tiles $($tiles)?),
            } ),+]
        };

        /// A function for each kernel. They are unsafe because a kernel believes what it is told about lengths.
        mod launch {
            #[allow(unused_imports)]
            use super::*;
            use $crate::backend::cuda::runtime::kernel::{Arg, Args, Grid, index_of, kernels};
            use $crate::backend::cuda::{Context, KERNELS as KERNELS_OF_ALL};
            $( kernels! { @launch $name [$($tiles)?] ($($arg: $ty),*) } )+
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
    /// No arguments yet, with capacity for arguments of these sizes.
    pub fn with_capacity(sizes: &[usize]) -> Self {
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

    /// Of a kernel that does so many multiply-adds more.
    pub(in crate::backend::cuda) fn add_products(&mut self, products: f64) {
        self.flop += 2.0 * products;
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

/// Types that can be arguments.
pub trait Arg {
    /// Its type, or of an address the type of what is there.
    const TYPE: &'static Type;
    /// Whether it is an address.
    const POINTER: bool = false;
    /// Bytes of the kernel's parameter.
    const SIZE: usize = if Self::POINTER { 8 } else { Self::TYPE.size() };
    /// Appends the value.
    fn push(self, args: &mut Args);
}

/// Types that are passed as they are.
macro_rules! by_value {
    ($($ty:ty),+ $(,)?) => { $(
        impl $crate::backend::cuda::runtime::kernel::Arg for $ty {
            const TYPE: &'static $crate::base::layout::Type = <$ty as $crate::base::layout::Layout>::TYPE;
            fn push(self, args: &mut $crate::backend::cuda::runtime::kernel::Args) {
                args.push_bytes(bytemuck::bytes_of(&self));
            }
        }
    )+ };
}
pub(in crate::backend::cuda) use by_value;

by_value!(u32, u64, f32, f64, Pool2dDims, ChannelDims, LogitDims, Rng);

/// Sizes that tell how many multiply-adds a kernel does.
macro_rules! by_value_with_products {
    ($($ty:ty: |$d:ident| $products:expr),+ $(,)?) => { $(
        impl $crate::backend::cuda::runtime::kernel::Arg for $ty {
            const TYPE: &'static $crate::base::layout::Type = <$ty as $crate::base::layout::Layout>::TYPE;
            fn push(self, args: &mut Args) {
                args.push_bytes(bytemuck::bytes_of(&self));
                let $d = self;
                args.add_products($products);
            }
        }
    )+ };
}

by_value_with_products!(
    Conv2dDims: |d| f64::from(d.n) * d.multiply_adds() as f64,
    LinearDims: |d| product([d.n, d.f_in, d.f_out]),
);

/// The product of sizes, which may be more than an integer holds.
pub(in crate::backend::cuda) fn product<const N: usize>(sizes: [u32; N]) -> f64 {
    sizes.into_iter().map(f64::from).product()
}

impl<T: Layout> Arg for &Device<T> {
    const TYPE: &'static Type = T::TYPE;
    const POINTER: bool = true;
    fn push(self, args: &mut Args) {
        self.address().push(args);
    }
}

impl<T: Layout> Arg for &mut Device<T> {
    const TYPE: &'static Type = T::TYPE;
    const POINTER: bool = true;
    fn push(self, args: &mut Args) {
        self.address().push(args);
    }
}

/// A null pointer for `None`.
impl<D: Arg> Arg for Option<D> {
    const TYPE: &'static Type = D::TYPE;
    const POINTER: bool = D::POINTER;
    fn push(self, args: &mut Args) {
        match self {
            Some(buffer) => buffer.push(args),
            None => 0_u64.push(args),
        }
    }
}

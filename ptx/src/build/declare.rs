//! Parameters, shared memory, special registers.

use super::types::Elem;
use super::{F32, KernelBuilder, Ptr, Reg, SharedSpace, Ty, U32, U64};
use crate::ir::{Access, Base, Dim, Inst, Param, ParamId, ParamKind, Shared, SharedId, SharedSize, Special};

macro_rules! specials {
    ($($(#[$doc:meta])* $name:ident: $ty:ident = $special:expr;)*) => {$(
        $(#[$doc])*
        #[track_caller]
        pub fn $name(&self) -> Reg<$ty> {
            self.op(|dst| Inst::ReadSpecial { dst, special: $special })
        }
    )*};
}

impl KernelBuilder {
    /// A parameter that points to global memory. `align` is the alignment in bytes that the launcher guarantees.
    #[track_caller]
    pub fn param_ptr<T: Elem>(&self, name: &str, access: Access, align: u32) -> Ptr<T> {
        let address = self.param::<U64>(name, ParamKind::Pointer { access, align });
        Ptr::from_address(address)
    }

    /// A number of 32 bits.
    #[track_caller]
    pub fn param_u32(&self, name: &str) -> Reg<U32> {
        self.param_u32_multiple_of(name, 1)
    }

    /// A number of 32 bits that the launcher guarantees to be a multiple of a power of two.
    #[track_caller]
    pub fn param_u32_multiple_of(&self, name: &str, multiple_of: u32) -> Reg<U32> {
        self.param(name, ParamKind::U32 { multiple_of })
    }

    /// A number of 64 bits that the launcher guarantees to be a multiple of a power of two; 1 promises nothing.
    #[track_caller]
    pub fn param_u64(&self, name: &str, multiple_of: u32) -> Reg<U64> {
        self.param(name, ParamKind::U64 { multiple_of })
    }

    /// A float.
    #[track_caller]
    pub fn param_f32(&self, name: &str) -> Reg<F32> {
        self.param(name, ParamKind::F32)
    }

    #[track_caller]
    fn param<T: Ty>(&self, name: &str, kind: ParamKind) -> Reg<T> {
        let param = {
            let params = &mut self.state.borrow_mut().kernel.params;
            params.push(Param { name: name.to_owned(), kind });
            ParamId(params.len() as u32 - 1)
        };
        self.op(|dst| Inst::LoadParam { dst, param })
    }

    /// Shared memory for that many elements, aligned to 16 bytes.
    pub fn shared<T: Elem>(&self, name: &str, elements: u32) -> Ptr<T, SharedSpace> {
        self.allocate(name, 16, SharedSize::Static { bytes: elements.saturating_mul(T::BYTES) })
    }

    /// Shared memory whose size the launch gives, aligned to 128 bytes: at most `max_bytes`. One per kernel.
    pub fn dynamic_shared<T: Elem>(&self, name: &str, max_bytes: u32) -> Ptr<T, SharedSpace> {
        self.allocate(name, 128, SharedSize::Dynamic { max_bytes })
    }

    fn allocate<T: Elem>(&self, name: &str, align: u32, size: SharedSize) -> Ptr<T, SharedSpace> {
        let shared = &mut self.state.borrow_mut().kernel.shared;
        shared.push(Shared { name: name.to_owned(), align: align.max(T::BYTES), size });
        Ptr::new(Base::Shared(SharedId(shared.len() as u32 - 1)))
    }

    specials! {
        /// Index of the thread in its block.
        tid: U32 = Special::Tid(Dim::X);
        /// Threads of a block.
        ntid: U32 = Special::Ntid(Dim::X);
        /// Index of the block in its grid.
        ctaid: U32 = Special::Ctaid(Dim::X);
        /// Blocks of the grid.
        nctaid: U32 = Special::Nctaid(Dim::X);
        /// Index of the block along the second axis.
        ctaid_y: U32 = Special::Ctaid(Dim::Y);
        /// Index of the block along the third axis.
        ctaid_z: U32 = Special::Ctaid(Dim::Z);
        /// Index of the thread in its warp.
        laneid: U32 = Special::LaneId;
        /// Multiprocessor that runs the thread.
        smid: U32 = Special::SmId;
        /// Nanoseconds.
        globaltimer: U64 = Special::GlobalTimer;
        /// Cycles of the multiprocessor, 32 bits.
        clock: U32 = Special::Clock;
        /// Cycles of the multiprocessor, 64 bits.
        clock64: U64 = Special::Clock64;
    }

    /// Any special register of 32 bits.
    #[track_caller]
    pub fn special(&self, special: Special) -> Reg<U32> {
        self.op(|dst| Inst::ReadSpecial { dst, special })
    }

    /// Index of the warp in its block: `%tid.x / 32`. Known to be the same in a whole warp if the kernel declares
    /// one-dimensional blocks.
    #[track_caller]
    pub fn warp(&self) -> Reg<U32> {
        self.shr(self.tid(), 5)
    }

    /// Promises that `value` is always a multiple of a power of two. Costs no instruction; the check of alignments believes it.
    #[track_caller]
    pub fn assume_multiple<T: Ty>(&self, value: Reg<T>, of: u32) -> Reg<T> {
        self.inst(Inst::AssumeMultiple { reg: value.id(), of });
        value
    }
}

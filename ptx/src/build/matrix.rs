//! Tensor cores.
//!
//! Which element a lane holds is said by the tables of the PTX manual. With `g = lane / 4` and `t = lane % 4`:
//!
//! | fragment | register `i` holds |
//! | --- | --- |
//! | A, 16×16 f16/bf16 | row `g + 8·(i % 2)`, columns `2t + 8·(i / 2)` and the next |
//! | B, 16×8 f16/bf16 | rows `2t + 8·i` and the next, column `g` |
//! | A, 16×32 8-bit | row `g + 8·(i % 2)`, columns `4t + 16·(i / 2)` and the next three |
//! | B, 32×8 8-bit | rows `4t + 16·i` and the next three, column `g` |
//! | C, D, 16×8 | row `g + 8·(i / 2)`, column `2t + i % 2` |

use super::types::Elem;
use super::{B32, F32, KernelBuilder, Ptr, Reg, S32, SharedSpace, Ty, Var};
use crate::ir::{Inst, LoadMatrix, Mma, MmaKind, Signedness};

impl KernelBuilder {
    /// Loads `N` (1, 2 or 4) 8×8 matrices of 16-bit elements. Lane `8·i + r` gives the address of row `r` of matrix `i`.
    #[track_caller]
    pub fn ldmatrix<T: Elem, const N: usize>(&self, row: Ptr<T, SharedSpace>) -> [Reg<B32>; N] {
        self.load_matrix(row, false)
    }

    /// The same, each matrix transposed.
    #[track_caller]
    pub fn ldmatrix_trans<T: Elem, const N: usize>(&self, row: Ptr<T, SharedSpace>) -> [Reg<B32>; N] {
        self.load_matrix(row, true)
    }

    #[track_caller]
    fn load_matrix<T: Elem, const N: usize>(&self, row: Ptr<T, SharedSpace>, transposed: bool) -> [Reg<B32>; N] {
        let dst: [Reg<B32>; N] = std::array::from_fn(|_| self.fresh());
        let regs = dst.iter().map(|d| d.id()).collect();
        self.inst(Inst::LoadMatrix(LoadMatrix { dst: regs, from: row.address(), transposed }));
        dst
    }

    /// `A·B + C`, 16×16 by 16×8, f16 to f32.
    #[track_caller]
    pub fn mma_f16(&self, a: [Reg<B32>; 4], b: [Reg<B32>; 2], c: [Reg<F32>; 4]) -> [Reg<F32>; 4] {
        self.mma(MmaKind::F16, a, b, c)
    }

    /// `A·B + C`, 16×16 by 16×8, bf16 to f32.
    #[track_caller]
    pub fn mma_bf16(&self, a: [Reg<B32>; 4], b: [Reg<B32>; 2], c: [Reg<F32>; 4]) -> [Reg<F32>; 4] {
        self.mma(MmaKind::Bf16, a, b, c)
    }

    /// `A·B + C`, 16×32 by 32×8, 8-bit integers of the given signs to s32.
    #[track_caller]
    pub fn mma_int8(
        &self,
        signs: (Signedness, Signedness),
        a: [Reg<B32>; 4],
        b: [Reg<B32>; 2],
        c: [Reg<S32>; 4],
    ) -> [Reg<S32>; 4] {
        self.mma(MmaKind::Int8 { a: signs.0, b: signs.1 }, a, b, c)
    }

    /// `into += A·B`, 16×16 by 16×8, f16 to f32.
    #[track_caller]
    pub fn mma_f16_into(&self, into: [Var<F32>; 4], a: [Reg<B32>; 4], b: [Reg<B32>; 2]) {
        self.mma_into(MmaKind::F16, into, a, b);
    }

    /// `into += A·B`, 16×16 by 16×8, bf16 to f32.
    #[track_caller]
    pub fn mma_bf16_into(&self, into: [Var<F32>; 4], a: [Reg<B32>; 4], b: [Reg<B32>; 2]) {
        self.mma_into(MmaKind::Bf16, into, a, b);
    }

    #[track_caller]
    fn mma_into<T: Ty>(&self, kind: MmaKind, into: [Var<T>; 4], a: [Reg<B32>; 4], b: [Reg<B32>; 2]) {
        let c = into.map(Var::id);
        self.inst(Inst::Mma(Mma { kind, d: c, a: a.map(Reg::id), b: b.map(Reg::id), c }));
    }

    #[track_caller]
    fn mma<T: Ty>(&self, kind: MmaKind, a: [Reg<B32>; 4], b: [Reg<B32>; 2], c: [Reg<T>; 4]) -> [Reg<T>; 4] {
        let d = std::array::from_fn(|_| self.fresh::<T>());
        self.inst(Inst::Mma(Mma { kind, d: d.map(Reg::id), a: a.map(Reg::id), b: b.map(Reg::id), c: c.map(Reg::id) }));
        d
    }
}

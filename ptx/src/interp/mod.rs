//! An interpreter of PTX text: it runs on the CPU what we ship to GPUs, checks every access, and counts what happens.
//!
//! It reads the *text* of a kernel, not the builder's tables, so that what is executed is what a driver would get.
//!
//! ```
//! use brick_ptx::interp::{Access, Arg, Gpu, Launch, Limits, Module};
//!
//! let module = Module::parse(
//!     ".version 8.0
//!      .target sm_80
//!      .address_size 64
//!      .visible .entry double(.param .u64 x, .param .u64 y)
//!      {
//!          .reg .b32 %r<3>;
//!          .reg .b64 %rd<5>;
//!          ld.param.u64 %rd1, [x];
//!          ld.param.u64 %rd2, [y];
//!          mov.u32 %r1, %tid.x;
//!          mul.wide.u32 %rd3, %r1, 4;
//!          add.u64 %rd1, %rd1, %rd3;
//!          add.u64 %rd2, %rd2, %rd3;
//!          ld.global.nc.u32 %r2, [%rd1];
//!          shl.b32 %r2, %r2, 1;
//!          st.global.u32 [%rd2], %r2;
//!          ret;
//!      }",
//! )?;
//! let mut gpu = Gpu::new(Limits::default());
//! let x = gpu.buffer("x", &[7; 128], Access::Read)?;
//! let y = gpu.output("y", 128)?;
//! let counts = gpu.launch(&module, "double", Launch::linear(1, 32), &[Arg::Buffer(x), Arg::Buffer(y)])?;
//! assert_eq!(gpu.read(y)?, [14; 128]);
//! assert_eq!(counts.global_loads().units, 4); // 128 bytes in four sectors
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is executed
//!
//! The subset of PTX 8.0 that decoding and prefill kernels need: integer, bit, f32, f64, f16 and bf16 arithmetic,
//! conversions, loads and stores of parameters, global and shared memory, atomics, fences, `cp.async`, `ldmatrix`,
//! `mma.sync` (m16n8k8 and m16n8k16 of halves, m16n8k16 and m16n8k32 of bytes), shuffles, votes, matches, `redux`, named
//! barriers. Anything else is a [`ParseError`] with line and column. Types and modifiers are checked much as `ptxas`
//! checks them; what it accepts is not always in the subset.
//!
//! A warp is 32 lanes in lockstep. Where a branch splits it, one side runs after the other, and the sides meet at the
//! branch's immediate post-dominator. [`Limits::resident_blocks`] blocks are resident at once; [`Schedule`] says how their
//! warps are interleaved. The same text, arguments and schedule give the same results, counts and faults on any machine;
//! only the last bit of an `.approx` function may depend on the platform's mathematics library. [`Limits`] hold for any
//! text: nothing runs for ever.
//!
//! # What is checked
//!
//! Each broken rule is a [`Fault`] with kernel, line, block, warp and lane:
//!
//! - Every access lies in one buffer or array, is aligned to its size, and is one the host allowed. Buffers are 64 GiB
//!   apart, shared arrays 4 KiB; a shared array has exactly the alignment its declaration asks for.
//! - Every value that is read was written, registers included. Results start without values, and the host cannot
//!   [read](Gpu::read) bytes no kernel wrote.
//! - The target of `cp.async` is not touched before `wait_group` or `wait_all`.
//! - Warp operations are executed by exactly the lanes their mask names; `.aligned` ones and barriers by all of a warp's.
//!   This is stricter than hardware in one case: lanes that a partial last warp lacks may not be named either.
//! - Two accesses to the same bytes, one of them a write, are ordered, or both are atomic (`.relaxed`, `.volatile` and
//!   stronger count) at a scope that reaches both. Barriers order warps; `bar.warp.sync` orders lanes of a warp, and
//!   nothing else does: not lockstep, not shuffles. Releases and acquires order across blocks, as do fences around
//!   relaxed accesses. This is what [`Checks::MemoryOnly`] leaves out.
//! - Deadlock, and [more instructions](Limits::steps) than allowed.
//!
//! # What is exact, and what is not
//!
//! Integers, bits, conversions and `dp4a` are exact to the bit. So are f32 and f64 `add`, `sub`, `mul`, `fma`, `div`,
//! `sqrt.rn` and `rcp.rn`, and the half arithmetic, with `.ftz` and `.sat` as asked. The `.approx` functions are the exact
//! value rounded to nearest; hardware differs by a few units in the last place, so compare with a tolerance of 2^-20
//! relative (for `sin` and `cos` 2^-20 absolute, within ±π; for `tanh` 2^-10 relative). `mma` of halves adds exact
//! products in f64 and rounds once; hardware adds them in an order and with a precision of its own, so compare with a
//! tolerance that grows with K. Float atomics add in the order of the schedule.
//!
//! # What is not modelled
//!
//! - Time: the clocks count instructions of all launches, and `nanosleep` only lets others run.
//! - Weak memory: executions are interleavings, in which every write is seen at once. Missing synchronisation shows as a
//!   race, not as a stale value. Happens-before is tracked per warp, so a fence of one lane counts for its whole warp, and
//!   a fence before a barrier counts for relaxed writes after it by other warps.
//! - Independent progress of diverged lanes: a lane that spins until another lane of its warp moves spins until the step
//!   limit.
//! - Programmatic dependent launch: launches run one after the other, so `griddepcontrol` has nothing to do.
//! - Bulk copies, `mbarrier`, `wgmma`, clusters, textures, local and generic memory, device functions.

mod counts;
mod decode;
mod exec;
mod fault;
mod flow;
mod gpu;
mod memory;
mod module;
mod op;
mod race;
mod text;
mod ty;
mod unset;

pub use counts::{Class, Counts, LineCount, Traffic};
pub use exec::Schedule;
pub use fault::{Fault, FaultKind, Place, Thread, Verb};
pub use gpu::{Arg, Checks, Gpu, GpuError, Launch, Limits};
pub use memory::{Access, Buffer};
pub use module::Module;
pub use text::{ParseError, ParseErrorKind};

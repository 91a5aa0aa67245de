//! A small decoder, and random graphs.

#![allow(dead_code, unreachable_pub)] // each test binary uses a part

use brick_graphs::{Graph, GraphBuilder, Handle};
use bricks::{
    ActKind, AttentionSpec, BrickKind, DType, LinearPart, Op, RopeScaling, RopeSpec, RopeStyle, Rows, WeightShape,
};
use proptest::prelude::*;
use proptest::sample::Index;

/// Width of the residual stream.
pub const D: usize = 64;

pub fn matrix(dtype: DType, rows: usize, cols: usize) -> WeightShape {
    WeightShape { dtype, rows, cols }
}

pub fn gain(cols: usize) -> WeightShape {
    matrix(DType::F32, 1, cols)
}

pub fn rope(base: f32) -> RopeSpec {
    RopeSpec { style: RopeStyle::Interleaved, base, dims: 16, scaling: RopeScaling::None, freq_factors: None }
}

pub fn linear(label: &str, input: usize, output: usize) -> Op {
    Op::Linear { input, parts: vec![LinearPart { label: label.into(), rows: output, bias: false }], rows: Rows::All }
}

pub fn attention(n_heads: usize, n_kv_heads: usize) -> Op {
    Op::Attention(AttentionSpec { n_heads, n_kv_heads, head_dim: 16, scale: 0.25, window: None, softcap: None })
}

/// A decoder with 4 heads of 16, 2 KV heads, ffn 128, vocabulary 96, tied embeddings.
pub fn decoder(layers: u32) -> Graph {
    let mut b = GraphBuilder::new();
    let tokens = b.push("tokens", BrickKind::Custom, None, Op::Input, &[], &[]).out();
    let table = b.weight("token_embd.weight", matrix(DType::Q8_0, 96, D));
    let embed = Op::Embed { scale: 1.0 };
    let mut x = b.push("token_embd", BrickKind::Embed, None, embed, &[tokens], &[table]).out();
    for l in 0..layers {
        x = layer(&mut b, l, x);
    }
    let g = b.weight("output_norm.weight", gain(D));
    let norm = Op::RmsNorm { eps: 1e-5, rows: Rows::Wanted };
    let x = b.push("output_norm", BrickKind::FinalNorm, None, norm, &[x], &[g]).out();
    let head = Op::Linear {
        input: D,
        parts: vec![LinearPart { label: "logits".into(), rows: 96, bias: false }],
        rows: Rows::Wanted,
    };
    let logits = b.push("output", BrickKind::LmHead, None, head, &[x], &[table]).out();
    b.finish(logits).expect("a decoder is a valid graph")
}

fn layer(b: &mut GraphBuilder, l: u32, x: Handle) -> Handle {
    let at = Some(l);
    let name = |s: &str| format!("blk.{l}.{s}");
    let norm = |b: &mut GraphBuilder, part: &str, x| {
        let g = b.weight(format!("{}.weight", name(part)), gain(D));
        b.push(name(part), BrickKind::RmsNorm, at, Op::RmsNorm { eps: 1e-5, rows: Rows::All }, &[x], &[g]).out()
    };
    let proj = |b: &mut GraphBuilder, part: &str, kind, x, input, output| {
        let w = b.weight(format!("{}.weight", name(part)), matrix(DType::Q4_1, output, input));
        b.push(name(part), kind, at, linear(part, input, output), &[x], &[w]).out()
    };
    let h = norm(b, "attn_norm", x);
    let q = proj(b, "attn_q", BrickKind::Qkv, h, D, 64);
    let k = proj(b, "attn_k", BrickKind::Qkv, h, D, 32);
    let v = proj(b, "attn_v", BrickKind::Qkv, h, D, 32);
    let rot = |n_heads| Op::Rope { n_heads, head_dim: 16, spec: rope(1e4) };
    let q = b.push(name("rope_q"), BrickKind::Rope, at, rot(4), &[q], &[]).out();
    let k = b.push(name("rope_k"), BrickKind::Rope, at, rot(2), &[k], &[]).out();
    let write = Op::KvWrite { n_kv_heads: 2, head_dim: 16 };
    let kv = b.push(name("kv_write"), BrickKind::KvWrite, at, write, &[k, v], &[]).out();
    let h = b.push(name("attn"), BrickKind::Attention, at, attention(4, 2), &[q, kv], &[]).out();
    let h = proj(b, "attn_output", BrickKind::OProj, h, 64, D);
    let x = b.push(name("attn_residual"), BrickKind::Residual, at, Op::Add, &[x, h], &[]).out();
    let h = norm(b, "ffn_norm", x);
    let gate = proj(b, "ffn_gate", BrickKind::GateUp, h, D, 128);
    let up = proj(b, "ffn_up", BrickKind::GateUp, h, D, 128);
    let act = Op::GatedActivation { act: ActKind::Silu };
    let h = b.push(name("ffn_act"), BrickKind::Activation, at, act, &[gate, up], &[]).out();
    let h = proj(b, "ffn_down", BrickKind::Down, h, 128, D);
    b.push(name("ffn_residual"), BrickKind::Residual, at, Op::Add, &[x, h], &[]).out()
}

/// One step of growing a random graph. Every activation is `f32[T, 64]`, so that any composition is well typed.
#[derive(Debug, Clone)]
pub enum Act {
    Linear {
        kind: usize,
        layer: u32,
        bias: bool,
        x: Index,
    },
    /// Several linears on one value.
    Siblings {
        kind: usize,
        n: usize,
        x: Index,
    },
    Norm {
        x: Index,
    },
    Add {
        a: Index,
        b: Index,
    },
    Gate {
        a: Index,
        b: Index,
    },
    /// Gate, up and their activation; `share` lets others read the gate.
    Ffn {
        x: Index,
        bias: bool,
        share: bool,
    },
    Rope {
        layer: u32,
        base: bool,
        x: Index,
    },
    /// Writes a cache and attends to it.
    Attend {
        q: Index,
        k: Index,
        v: Index,
    },
    /// The same with both rotations right before; `share` lets others read the rotated keys.
    RopeAttend {
        q: Index,
        k: Index,
        v: Index,
        share: bool,
        same: bool,
    },
}

pub fn acts() -> impl Strategy<Value = Vec<Act>> {
    let i = any::<Index>;
    let act = prop_oneof![
        4 => (0..3usize, 0..2u32, any::<bool>(), i())
            .prop_map(|(kind, layer, bias, x)| Act::Linear { kind, layer, bias, x }),
        1 => (0..2usize, 2..4usize, i()).prop_map(|(kind, n, x)| Act::Siblings { kind, n, x }),
        2 => i().prop_map(|x| Act::Norm { x }),
        2 => (i(), i()).prop_map(|(a, b)| Act::Add { a, b }),
        1 => (i(), i()).prop_map(|(a, b)| Act::Gate { a, b }),
        1 => (i(), any::<bool>(), prop::bool::weighted(0.2)).prop_map(|(x, bias, share)| Act::Ffn { x, bias, share }),
        2 => (0..3u32, any::<bool>(), i()).prop_map(|(layer, base, x)| Act::Rope { layer, base, x }),
        1 => (i(), i(), i()).prop_map(|(q, k, v)| Act::Attend { q, k, v }),
        1 => (i(), i(), i(), prop::bool::weighted(0.2), prop::bool::weighted(0.8))
            .prop_map(|(q, k, v, share, same)| Act::RopeAttend { q, k, v, share, same }),
    ];
    prop::collection::vec(act, 1..24)
}

/// Grows a graph; whatever nobody reads in the end is added up into the output.
pub fn grow(acts: &[Act]) -> Graph {
    let mut g = Grower { b: GraphBuilder::new(), pool: Vec::new(), read: Vec::new(), caches: 0, n: 0 };
    let tokens = g.b.push("tokens", BrickKind::Custom, None, Op::Input, &[], &[]).out();
    let table = g.b.weight("table", matrix(DType::Q8_0, 10, D));
    let x = g.b.push("embed", BrickKind::Embed, None, Op::Embed { scale: 1.0 }, &[tokens], &[table]).out();
    g.give(x);
    for a in acts {
        g.step(a);
    }
    let mut unread = g.pool.iter().zip(&g.read).filter(|(_, r)| !**r).map(|(h, _)| *h).collect::<Vec<_>>();
    let mut out = unread.pop().expect("the last value is unread");
    for h in unread {
        out = g.push(BrickKind::Residual, None, Op::Add, &[out, h], &[]);
    }
    let gain = g.b.weight("output_norm", gain(D));
    let norm = Op::RmsNorm { eps: 1e-5, rows: Rows::Wanted };
    let out = g.b.push("output_norm", BrickKind::FinalNorm, None, norm, &[out], &[gain]).out();
    g.b.finish(out).expect("every grown graph is valid")
}

struct Grower {
    b: GraphBuilder,
    pool: Vec<Handle>,
    read: Vec<bool>,
    caches: u32,
    n: usize,
}

impl Grower {
    fn give(&mut self, h: Handle) {
        self.pool.push(h);
        self.read.push(false);
    }

    /// One of the last six values: near ones, so that siblings and chains are likely.
    fn take(&mut self, i: Index) -> Handle {
        let near = self.pool.len().min(6);
        let at = self.pool.len() - 1 - i.index(near);
        self.read[at] = true;
        self.pool[at]
    }

    fn push(
        &mut self,
        kind: BrickKind,
        layer: Option<u32>,
        op: Op,
        inputs: &[Handle],
        weights: &[brick_graphs::WeightId],
    ) -> Handle {
        self.n += 1;
        self.b.push(format!("n.{}_{}", self.n, op.name()), kind, layer, op, inputs, weights).out()
    }

    fn weight(&mut self, shape: WeightShape) -> brick_graphs::WeightId {
        self.n += 1;
        self.b.weight(format!("w{}", self.n), shape)
    }

    fn linear(&mut self, kind: usize, layer: u32, bias: bool, x: Handle) {
        let y = self.project(kind, layer, bias, x);
        self.give(y);
    }

    fn project(&mut self, kind: usize, layer: u32, bias: bool, x: Handle) -> Handle {
        let kind = [BrickKind::Qkv, BrickKind::GateUp, BrickKind::OProj][kind];
        let mut weights = vec![self.weight(matrix(DType::Q8_0, D, D))];
        if bias {
            weights.push(self.weight(gain(D)));
        }
        let parts = vec![LinearPart { label: "p".into(), rows: D, bias }];
        let op = Op::Linear { input: D, parts, rows: Rows::All };
        self.push(kind, Some(layer), op, &[x], &weights)
    }

    fn rotate(&mut self, layer: u32, base: f32, x: Handle) -> Handle {
        self.push(BrickKind::Rope, Some(layer), Op::Rope { n_heads: 4, head_dim: 16, spec: rope(base) }, &[x], &[])
    }

    fn attend(&mut self, q: Handle, k: Handle, v: Handle) {
        let layer = Some(self.caches);
        self.caches += 1;
        let write = Op::KvWrite { n_kv_heads: 4, head_dim: 16 };
        let kv = self.push(BrickKind::KvWrite, layer, write, &[k, v], &[]);
        let y = self.push(BrickKind::Attention, layer, attention(4, 4), &[q, kv], &[]);
        self.give(y);
    }

    fn step(&mut self, act: &Act) {
        match *act {
            Act::Linear { kind, layer, bias, x } => {
                let x = self.take(x);
                self.linear(kind, layer, bias, x);
            }
            Act::Siblings { kind, n, x } => {
                let x = self.take(x);
                for i in 0..n {
                    self.linear(kind, 0, i == 1, x);
                }
            }
            Act::Norm { x } => {
                let x = self.take(x);
                let g = self.weight(gain(D));
                let y = self.push(BrickKind::RmsNorm, None, Op::RmsNorm { eps: 1e-5, rows: Rows::All }, &[x], &[g]);
                self.give(y);
            }
            Act::Add { a, b } => {
                let inputs = [self.take(a), self.take(b)];
                let y = self.push(BrickKind::Residual, None, Op::Add, &inputs, &[]);
                self.give(y);
            }
            Act::Gate { a, b } => {
                let inputs = [self.take(a), self.take(b)];
                let op = Op::GatedActivation { act: ActKind::Silu };
                let y = self.push(BrickKind::Activation, None, op, &inputs, &[]);
                self.give(y);
            }
            Act::Ffn { x, bias, share } => {
                let x = self.take(x);
                // A layer of their own: other gates are not their siblings.
                let layer = 100 + self.n as u32;
                let (gate, up) = (self.project(1, layer, bias, x), self.project(1, layer, false, x));
                let op = Op::GatedActivation { act: ActKind::Silu };
                let y = self.push(BrickKind::Activation, None, op, &[gate, up], &[]);
                self.give(y);
                if share {
                    self.give(gate);
                }
            }
            Act::Rope { layer, base, x } => {
                let x = self.take(x);
                let y = self.rotate(layer, if base { 1e4 } else { 1e6 }, x);
                self.give(y);
            }
            Act::Attend { q, k, v } => {
                let (q, k, v) = (self.take(q), self.take(k), self.take(v));
                self.attend(q, k, v);
            }
            Act::RopeAttend { q, k, v, share, same } => {
                let (q, k, v) = (self.take(q), self.take(k), self.take(v));
                let q = self.rotate(self.caches, 1e4, q);
                let k = self.rotate(self.caches, if same { 1e4 } else { 1e6 }, k);
                self.attend(q, k, v);
                if share {
                    self.give(k);
                }
            }
        }
    }
}

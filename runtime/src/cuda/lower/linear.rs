//! Matrices: what is rounded before them, what is added behind them.

use brick_graphs::{Brick, BrickId, ValueId, WeightId};
use brick_ptx::kernels::Format;
use brick_ptx::kernels::gemv::Epilogue;
use brick_ptx::kernels::gemv::pair::GemvPair;
use brick_ptx::kernels::gemv::stream::{self, GemvStream};
use bricks::{ActKind, Op, Rows};

use super::{Heads, Lowering, refused};
use crate::cuda::plan::{FEW, Input, MatrixPlan, NodeKind, Part, ROUNDED_BY_MAKER, Source, VectorId, View};
use crate::plan::LowerError;

/// Whether two formats have a kernel that takes a matrix of each.
fn pairs(first: Format, second: Format) -> bool {
    GemvPair::new([first, second], 1).is_some()
}

impl Lowering<'_> {
    /// Whether matrix kernels can take rows of that width and round them themselves.
    pub(super) fn streams(&self, width: usize) -> bool {
        // The formats' tiles are alike.
        let widest = GemvStream::new(Format::Q8_0, FEW, Epilogue::Store, stream::Source::Plain);
        width <= self.options.streamed_columns && widest.is_some_and(|kernel| kernel.fits(width))
    }

    /// A value as the kernels of a format take it; rounds it if nobody has yet.
    fn rounded(&mut self, brick: &Brick, format: Format, rows: Rows) -> Result<Input, LowerError> {
        let v = brick.inputs[0];
        let known = match format {
            Format::F16 => return Ok(Input::F32(self.input(brick, 0)?)),
            Format::BF16 => self.bf16_of[v.index()].map(Input::Bf16),
            _ => self.q8_of[v.index()].map(Input::Q8),
        };
        if let Some(input) = known {
            self.keep_input(input);
            return Ok(input);
        }
        let src = self.input(brick, 0)?;
        if !src.is_whole() {
            return Err(refused(brick, "it multiplies parts of rows, which is not on the GPU yet"));
        }
        let until = if !format.is_float() && self.streams(src.width) { FEW } else { 0 };
        let (dst, kernel) = if format == Format::BF16 {
            let buf = self.buffer(format!("{}.bf16", brick.name), 2 * src.width * self.rows_of(rows));
            self.bf16_of[v.index()] = Some(buf);
            (Input::Bf16(buf), "round_bf16")
        } else {
            if !src.width.is_multiple_of(32) {
                let reason = format!("quantised weights need an input width divisible by 32, found {}", src.width);
                return Err(refused(brick, reason));
            }
            let buf = self.tiles(format!("{}.q8", brick.name), rows, src.width);
            self.q8_of[v.index()] = Some(buf);
            (Input::Q8(buf), "quantize_q8")
        };
        self.push(brick, ".round", kernel.into(), rows, NodeKind::Round { src, dst, until });
        self.keep_input(dst);
        Ok(dst)
    }

    /// What the kernels of a format read where rows are few; kept until the node about to be written.
    fn source(&mut self, brick: &Brick, format: Format) -> Option<Source> {
        let v = brick.inputs[0];
        let plain = self.f32_of[v.index()].filter(|x| x.is_whole() && self.streams(x.width));
        let source = self.norm_of[v.index()].or(plain.map(|x| Source { x, norm: None }));
        let source = source.filter(|_| !format.is_float());
        if let Some(source) = source {
            self.keep(source.x.buffer);
        }
        source
    }

    /// How the heads of a value are filled up, if attention reads it.
    fn padding(&self, v: ValueId) -> Option<(usize, usize)> {
        let Heads { dim, padded, .. } = self.heads;
        let read =
            self.graph.value(v).consumers.iter().any(|c| {
                matches!(self.graph.brick(*c).op, Op::RopeKvWrite { .. } | Op::Rope { .. } | Op::KvWrite { .. })
            });
        (read && dim != padded).then_some((dim, padded))
    }

    /// The operand that waits to be added to the only output of a brick, and the brick that would add it.
    fn addend(&self, brick: &Brick) -> Option<(BrickId, View)> {
        let [out] = brick.outputs[..] else { return None };
        let [consumer] = self.graph.value(out).consumers[..] else { return None };
        let c = self.graph.brick(consumer);
        let other = match (&c.op, &c.inputs[..]) {
            (Op::Add | Op::AddRmsNorm { .. }, &[a, b]) if a != b => {
                if a == out {
                    b
                } else {
                    a
                }
            }
            _ => return None,
        };
        let view = self.f32_of[other.index()]?;
        (view.is_whole() && self.graph.output() != out).then_some((consumer, view))
    }

    pub(super) fn linear(&mut self, brick: &Brick, rows: Rows) -> Result<(), LowerError> {
        let logits = self.graph.output() == brick.outputs[0];
        let parts = brick.op.parts().to_vec();
        let mut at = 0;
        let mut list = Vec::with_capacity(parts.len());
        for (port, part) in parts.iter().enumerate() {
            let weight = brick.weights[at];
            let bias = part.bias.then(|| brick.weights[at + 1]);
            at += 1 + usize::from(part.bias);
            let source = Part { weight, rows: part.rows, heads: self.padding(brick.outputs[port]) };
            list.push((self.format(brick, weight)?, source, bias));
        }
        let stride: usize = list.iter().map(|(_, s, _)| s.padded_rows()).sum();
        // First all that round, then all that multiply, which read side by side.
        let mut inputs: Vec<(Format, Input)> = Vec::new();
        for &(format, ..) in &list {
            let same = |f: Format| f.is_float() == format.is_float() && (!f.is_float() || f == format);
            let input = match inputs.iter().find(|(f, _)| same(*f)) {
                Some(&(_, input)) => input,
                None => self.rounded(brick, format, rows)?,
            };
            inputs.push((format, input));
        }
        let addend = if parts.len() == 1 && rows == Rows::All { self.addend(brick) } else { None };
        let whole = if logits {
            let bytes = 4 * self.final_rows * stride;
            View::whole(self.lasting("logits", bytes), stride)
        } else {
            self.f32_buffer(brick, "", rows, stride)
        };
        let mut column = 0;
        let mut first = 0;
        while first < list.len() {
            let format = list[first].0;
            let end = list[first..].iter().take_while(|p| p.0 == format).count() + first;
            // Two formats that there is a kernel for share a launch.
            let rest = &list[end..];
            let pair = rest.first().is_some_and(|p| rest.iter().all(|r| r.0 == p.0) && pairs(format, p.0));
            let last = if pair && addend.is_none() && !logits { list.len() } else { end };
            let labels = |part: std::ops::Range<usize>| {
                parts[part].iter().map(|p| p.label.as_str()).collect::<Vec<_>>().join("+")
            };
            let width: usize = list[first..last].iter().map(|p| p.1.padded_rows()).sum();
            let bias = self.bias(brick, &list[first..last])?;
            let of_format = |l: &mut Self, part: std::ops::Range<usize>| {
                l.matrix(MatrixPlan {
                    name: format!("{}.{}", brick.name, labels(part.clone())),
                    format: list[part.start].0,
                    columns: l.graph.weight(list[part.start].1.weight).shape.cols,
                    sources: list[part].iter().map(|p| p.1).collect(),
                    gated: false,
                })
            };
            let matrix = of_format(self, first..end);
            let second = (last > end).then(|| of_format(self, end..last));
            let y = View { buffer: whole.buffer, column, width, stride };
            if let Some((_, view)) = addend {
                self.keep(view.buffer);
            }
            for &(_, input) in &inputs[first..last] {
                self.keep_input(input);
            }
            self.keep(whole.buffer);
            let source = self.source(brick, format);
            let what = if first == 0 { String::new() } else { format!(".{}", labels(first..last)) };
            let kind = NodeKind::Linear {
                matrix,
                second,
                x: inputs[first].1,
                source,
                bias,
                residual: addend.map(|(_, view)| view),
                y,
                codes: None,
                gated: false,
                logits,
            };
            self.push(brick, &what, format!("gemv_{}", format.name()), rows, kind);
            let outputs = if logits { 0..0 } else { first..last };
            for (part, output) in list[outputs.clone()].iter().zip(&brick.outputs[outputs]) {
                let width = part.1.padded_rows();
                self.f32_of[output.index()] = Some(View { buffer: whole.buffer, column, width, stride });
                column += width;
            }
            first = last;
        }
        if logits {
            self.logits = Some(whole);
        }
        if let Some((consumer, _)) = addend {
            // What comes out is the sum already.
            self.added[consumer.index()] = true;
            self.f32_of[self.graph.brick(consumer).outputs[0].index()] = Some(whole);
        }
        Ok(())
    }

    fn bias(
        &mut self,
        brick: &Brick,
        group: &[(Format, Part, Option<WeightId>)],
    ) -> Result<Option<VectorId>, LowerError> {
        if group.iter().all(|p| p.2.is_none()) {
            return Ok(None);
        }
        let mut values = Vec::new();
        for (_, source, bias) in group {
            let own = match bias {
                Some(weight) => self.vector(brick, *weight)?,
                None => vec![0.0; source.rows],
            };
            match source.heads {
                None => values.extend(own),
                Some((from, to)) => {
                    for head in own.chunks(from) {
                        values.extend(head);
                        values.resize(values.len() + to - from, 0.0);
                    }
                }
            }
        }
        Ok(Some(self.add_vector(format!("{}.bias", brick.name), values)))
    }

    pub(super) fn gated(&mut self, brick: &Brick, act: ActKind) -> Result<(), LowerError> {
        let parts = brick.op.parts();
        let biased = parts.iter().any(|p| p.bias);
        let [gate, up] = [brick.weights[0], brick.weights[if biased { 2 } else { 1 }]];
        let formats = [self.format(brick, gate)?, self.format(brick, up)?];
        let rows = parts[0].rows;
        if act != ActKind::Silu || biased || formats[0] != formats[1] {
            return self.gated_apart(brick, act, [gate, up], formats, rows);
        }
        let x = self.rounded(brick, formats[0], Rows::All)?;
        let matrix = self.matrix(MatrixPlan {
            name: brick.name.clone(),
            format: formats[0],
            columns: self.graph.weight(gate).shape.cols,
            sources: [gate, up].map(|weight| Part { weight, rows, heads: None }).to_vec(),
            gated: true,
        });
        let y = self.output(brick, 0, Rows::All)?;
        let kernel = format!("gemv_swiglu_{}", formats[0].name());
        let source = self.source(brick, formats[0]);
        // What is too wide for its readers to round is rounded here.
        let v = brick.outputs[0];
        let rounds = source.is_some() && self.codes_only(v) && rows.is_multiple_of(32) && !self.streams(rows);
        let codes = rounds.then(|| self.tiles(format!("{}.q8", brick.name), Rows::All, rows));
        let kind = NodeKind::Linear {
            matrix,
            second: None,
            x,
            source,
            bias: None,
            residual: None,
            y,
            codes,
            gated: true,
            logits: false,
        };
        self.push(brick, "", kernel, Rows::All, kind);
        if let Some(tiles) = codes {
            self.keep(tiles);
            self.keep(y.buffer);
            let kind = NodeKind::Round { src: y, dst: Input::Q8(tiles), until: ROUNDED_BY_MAKER };
            self.push(brick, ".round", "quantize_q8".into(), Rows::All, kind);
            self.q8_of[v.index()] = Some(tiles);
        }
        Ok(())
    }

    /// Gate and up one after the other, then the activation: other functions than SwiGLU, and two formats.
    fn gated_apart(
        &mut self,
        brick: &Brick,
        act: ActKind,
        weights: [WeightId; 2],
        formats: [Format; 2],
        rows: usize,
    ) -> Result<(), LowerError> {
        if brick.op.parts().iter().any(|p| p.bias) {
            return Err(refused(brick, "a bias of gate or up is not on the GPU yet; use --device cpu"));
        }
        let inputs = [self.rounded(brick, formats[0], Rows::All)?, self.rounded(brick, formats[1], Rows::All)?];
        let both = self.f32_buffer(brick, ".both", Rows::All, 2 * rows);
        let half = |i: usize| View { buffer: both.buffer, column: i * rows, width: rows, stride: 2 * rows };
        for i in 0..2 {
            let name = ["gate", "up"][i];
            let matrix = self.matrix(MatrixPlan {
                name: format!("{}.{name}", brick.name),
                format: formats[i],
                columns: self.graph.weight(weights[i]).shape.cols,
                sources: vec![Part { weight: weights[i], rows, heads: None }],
                gated: false,
            });
            for input in inputs {
                self.keep_input(input);
            }
            let what = if i == 0 { "" } else { ".up" };
            let source = self.source(brick, formats[i]);
            let kind = NodeKind::Linear {
                matrix,
                second: None,
                x: inputs[i],
                source,
                bias: None,
                residual: None,
                y: half(i),
                codes: None,
                gated: false,
                logits: false,
            };
            self.push(brick, what, format!("gemv_{}", formats[i].name()), Rows::All, kind);
            self.keep(both.buffer);
        }
        let dst = self.output(brick, 0, Rows::All)?;
        self.gate(brick, ".gate", half(0), half(1), act, dst)
    }

    pub(super) fn gate(
        &mut self,
        brick: &Brick,
        what: &str,
        gate: View,
        up: View,
        act: ActKind,
        dst: View,
    ) -> Result<(), LowerError> {
        if gate.stride != up.stride {
            return Err(refused(brick, "gate and up lie in rows of different lengths"));
        }
        let kernel = if act == ActKind::Silu { "gate_silu" } else { "gate_gelu" };
        self.push(brick, what, kernel.into(), Rows::All, NodeKind::Gate { gate, up, act, dst });
        Ok(())
    }
}

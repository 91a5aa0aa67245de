//! The observer that fills a tracer between the steps of a forward call.

use brick_profiler::trace::{
    AttentionWeightTrace, LayerActivationTrace, ModelTracer, StatsAccumulator, TensorStats, residual_ratio,
};

use super::TraceError;
use super::attention::head_weights;
use super::quant::ArithmeticError;
use super::wiring::{Place, Probe, Wiring};
use crate::engine::{Observer, StepView};
use crate::plan::StepKind;

/// Looks at one forward call.
pub(super) struct Tap<'a> {
    pub(super) wiring: &'a Wiring,
    pub(super) tracer: &'a mut ModelTracer,
    /// Forward call, counted from 0.
    pub(super) step: usize,
    /// Layers whose residual stream is kept for the logit lens.
    pub(super) lens_layers: &'a [u32],
    /// Keys of the sequence, by layer of the cache: those of earlier calls do not change, and decoding them again for every token
    /// would take longer than anything else here.
    pub(super) keys: &'a mut Vec<Vec<f32>>,
    /// Rounding errors, in the call in which they are measured.
    pub(super) quant: Option<&'a mut ArithmeticError>,
    seen: Seen,
    /// Residual stream of the wanted rows after each of `lens_layers`: `[layers, hidden]` if one row is wanted.
    pub(super) residuals: Vec<f32>,
    pub(super) error: Option<TraceError>,
}

/// What was seen of the layer that is running.
#[derive(Default)]
struct Seen {
    /// Rows of its input, one after the other.
    input: Vec<f32>,
    stats: [TensorStats; 4],
}

impl<'a> Tap<'a> {
    pub(super) fn new(
        wiring: &'a Wiring,
        tracer: &'a mut ModelTracer,
        step: usize,
        lens_layers: &'a [u32],
        keys: &'a mut Vec<Vec<f32>>,
        quant: Option<&'a mut ArithmeticError>,
    ) -> Self {
        Self {
            wiring,
            tracer,
            step,
            lens_layers,
            keys,
            quant,
            seen: Seen::default(),
            residuals: Vec::new(),
            error: None,
        }
    }

    fn look(&mut self, probe: Probe, view: &StepView<'_>) {
        let Probe { layer, place, slot } = probe;
        if place == Place::Output && self.lens_layers.contains(&layer) {
            for &t in view.wanted() {
                self.residuals.extend_from_slice(view.row(slot, t));
            }
        }
        let config = self.tracer.config();
        if !(config.activation && config.has_layer(layer)) {
            return;
        }
        let rows = view.rows().len();
        let mut all = StatsAccumulator::default();
        for t in 0..rows {
            all.extend(view.row(slot, t));
        }
        let stats = all.finish();
        match place {
            Place::Input => {
                self.seen.input.clear();
                for t in 0..rows {
                    self.seen.input.extend_from_slice(view.row(slot, t));
                }
                self.seen.stats[0] = stats;
            }
            Place::Normed => self.seen.stats[1] = stats,
            Place::Attention => self.seen.stats[2] = stats,
            Place::Ffn => self.seen.stats[3] = stats,
            Place::Output => {
                let inputs = self.seen.input.chunks_exact(slot.width);
                let ratios = inputs.enumerate().filter_map(|(t, x)| residual_ratio(x, view.row(slot, t)));
                let (n, sum) = ratios.fold((0u32, 0.0), |(n, sum), r| (n + 1, sum + r));
                let [input_stats, post_norm_stats, post_attn_stats, post_ffn_stats] = self.seen.stats;
                self.tracer.record_layer_activation(LayerActivationTrace {
                    step: self.step,
                    layer_idx: layer,
                    rows: rows as u64,
                    input_stats,
                    post_norm_stats,
                    post_attn_stats,
                    post_ffn_stats,
                    output_stats: stats,
                    residual_ratio: (n > 0).then(|| (sum / f64::from(n)) as f32),
                });
            }
        }
    }

    /// Weights of the wanted rows.
    fn attention(&mut self, index: usize, view: &StepView<'_>) -> Result<(), TraceError> {
        let plan = view.plan();
        let StepKind::Attention { layer: cache_layer, q, spec, .. } = &plan.steps[index].kind else { return Ok(()) };
        let layer = *cache_layer as u32;
        let config = self.tracer.config();
        if !(config.attention && config.has_layer(layer)) {
            return Ok(());
        }
        let heads: Vec<usize> = (0..spec.n_heads).filter(|&h| config.has_head(h as u32)).collect();
        let top_k = config.top_k;
        for &t in view.wanted() {
            let row = view.rows()[t];
            let kv_dim = spec.n_kv_heads * spec.head_dim;
            if self.keys.len() <= *cache_layer {
                self.keys.resize(*cache_layer + 1, Vec::new());
            }
            let keys = &mut self.keys[*cache_layer];
            let new = keys.len() / kv_dim..row.position + 1;
            keys.extend(view.kv().gather_range(row.sequence, *cache_layer, new)?.0);
            for &head in &heads {
                let w = head_weights(spec, view.row(*q, t), keys, head, row.position);
                let place = (self.step, layer, head as u32);
                let trace = AttentionWeightTrace::new(place, (w.first, row.position), &w.weights, top_k);
                self.tracer.record_attention(trace);
            }
        }
        Ok(())
    }
}

impl Observer for Tap<'_> {
    const ENABLED: bool = true;

    fn after_step(&mut self, step: usize, view: &StepView<'_>) {
        if self.error.is_some() {
            return;
        }
        let wiring = self.wiring;
        for &probe in wiring.after(step) {
            self.look(probe, view);
        }
        let mut done = self.attention(step, view);
        if let (Ok(()), Some(quant)) = (&done, &mut self.quant) {
            done = quant.look(step, view);
        }
        self.error = done.err();
    }
}

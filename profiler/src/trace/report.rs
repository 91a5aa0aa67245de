//! Traces as tables.

use std::fmt::Write;

use super::{
    Anomaly, AttentionWeightTrace, KvCacheStateTrace, LayerActivationTrace, LogitEvolutionTrace,
    ModelQuantizationError, ModelTracer, QuantizationBasis, QuantizationErrorTrace, Severity, TensorStats, thresholds,
};
use crate::report::Style;
use crate::report::format::{bytes, clean, count, number, percent};
use crate::report::table::{Cell, Table, Tone, paint};

/// Layers that the table of the logit lens has room for.
const LENS_COLUMNS: usize = 8;
/// Longest text of a token in a table, in characters.
const TOKEN_CHARS: usize = 14;

/// One part of the report: title, tables, lines below.
struct Section {
    title: String,
    table: Table,
    lines: Vec<String>,
}

impl ModelTracer {
    /// Everything as aligned text; [`export_json`](Self::export_json) has all figures, this the ones to look at first.
    pub fn to_text(&self, style: Style) -> String {
        let plain = |s: &str| style.plain(s);
        let mut out = String::new();
        for (key, value) in self.heading() {
            let _ = writeln!(out, "{} {}", paint(&format!("{key:<8}"), Tone::Bold, style), plain(&value));
        }
        let sections = [
            self.activation_section(),
            self.attention_section(),
            self.heads_section(),
            self.logit_section(),
            self.kv_section(),
        ];
        let quant = self.traces().quant.iter().map(quant_section);
        for s in sections.into_iter().flatten().chain(quant) {
            let _ = writeln!(out, "\n{}", paint(&plain(&s.title), Tone::Bold, style));
            out.push_str(&s.table.to_text(style));
            for line in &s.lines {
                let _ = writeln!(out, "{}", paint(&plain(line), Tone::Dim, style));
            }
        }
        out.push('\n');
        out.push_str(&anomalies_text(&self.detect_anomalies(), style));
        out
    }

    fn heading(&self) -> Vec<(&'static str, String)> {
        let r = &self.run;
        let text = |tokens: &[super::TracedToken]| quoted(&tokens.iter().map(|t| &*t.text).collect::<String>(), 70);
        let (prompt, answer) = r.tokens.split_at(r.prompt_tokens.min(r.tokens.len()));
        let model: Vec<&str> =
            [Some(&*r.model), r.architecture.as_deref(), r.quantization.as_deref()].into_iter().flatten().collect();
        vec![
            ("model", clean(&model.join(" · "))),
            ("run", format!("{} · {} · KV cache {}", r.backend, count(r.threads as u64, "thread"), r.kv_type)),
            ("prompt", format!("{} {}", text(prompt), count(prompt.len() as u64, "token"))),
            ("answer", format!("{} {} ({})", text(answer), count(answer.len() as u64, "token"), clean(&r.finish))),
        ]
    }

    /// Text of the token at a position.
    fn token_at(&self, position: usize) -> Option<String> {
        self.run.tokens.get(position).map(|t| quoted(&t.text, TOKEN_CHARS))
    }

    /// One row per layer, over all calls.
    fn activation_section(&self) -> Option<Section> {
        let all = &self.traces().activation;
        let mut layers: Vec<u32> = all.iter().map(|t| t.layer_idx).collect();
        layers.sort_unstable();
        layers.dedup();
        let row = |layer: u32| -> Vec<Cell> {
            let of = || all.iter().filter(|t| t.layer_idx == layer);
            let merged = |f: fn(&LayerActivationTrace) -> &TensorStats| {
                of().map(f).fold(TensorStats::default(), |a, b| a.merge(b))
            };
            let tensors = [
                merged(|t| &t.input_stats),
                merged(|t| &t.post_norm_stats),
                merged(|t| &t.post_attn_stats),
                merged(|t| &t.post_ffn_stats),
                merged(|t| &t.output_stats),
            ];
            let kept: Vec<f32> = of().filter_map(|t| t.residual_ratio).collect();
            let mean = (!kept.is_empty()).then(|| kept.iter().sum::<f32>() / kept.len() as f32);
            let broken = |f: fn(&TensorStats) -> u64| {
                let n: u64 = tensors[1..].iter().map(f).sum();
                Cell::new(n.to_string(), if n > 0 { Tone::Bad } else { Tone::Plain })
            };
            let mut cells: Vec<Cell> = vec![layer.to_string().into()];
            cells.extend(tensors.iter().map(|s| optional(s.std)));
            let largest = tensors[4].abs_max();
            let bad = largest.is_some_and(|m| m > thresholds::EXPLOSION);
            cells.push(toned(optional(largest), bad));
            cells.push(toned(optional(mean), mean.is_some_and(|m| m > thresholds::BYPASS)));
            cells.extend([broken(|s| s.nan_count), broken(|s| s.inf_count)]);
            cells
        };
        let steps = all.last()?.step + 1;
        Some(Section {
            title: format!("activations (standard deviations over all positions of {})", count(steps as u64, "call")),
            table: Table {
                header: ["layer", "input", "normed", "attention", "FFN", "output", "|max|", "kept", "NaN", "inf"]
                    .map(str::to_owned)
                    .to_vec(),
                left: 0,
                rows: layers.into_iter().map(row).collect(),
                totals: vec![],
            },
            lines: vec![
                "attention, FFN: what they add; |max|: of the output; kept: |input| ÷ (|input| + |what the layer adds|)".into(),
            ],
        })
    }

    /// One row per layer, over all queries and heads.
    fn attention_section(&self) -> Option<Section> {
        let all = &self.traces().attention;
        let last = all.last()?.query_pos;
        let mut layers: Vec<u32> = all.iter().map(|t| t.layer_idx).collect();
        layers.sort_unstable();
        layers.dedup();
        let row = |layer: u32| -> Vec<Cell> {
            let of: Vec<&AttentionWeightTrace> = all.iter().filter(|t| t.layer_idx == layer).collect();
            let entropies: Vec<f32> = of.iter().filter_map(|t| t.entropy).collect();
            let mean = |v: &[f32]| (!v.is_empty()).then(|| v.iter().sum::<f32>() / v.len() as f32);
            let maxima: Vec<f32> = of.iter().filter_map(|t| t.max_weight).collect();
            let first: Vec<f32> = of.iter().filter_map(|t| t.sink_weight).collect();
            let now: Vec<&AttentionWeightTrace> = of.iter().copied().filter(|t| t.query_pos == last).collect();
            let smallest = entropies.iter().copied().reduce(f32::min);
            vec![
                layer.to_string().into(),
                now.len().to_string().into(),
                optional(mean(&entropies)),
                optional(smallest),
                share(mean(&maxima)),
                share(mean(&first)),
                self.most_watched(&now).into(),
            ]
        };
        Some(Section {
            title: format!(
                "attention (entropy in nats; even weights on {} have {:.2})",
                last + 1,
                ((last + 1) as f64).ln()
            ),
            table: Table {
                header: [
                    "layer",
                    "heads",
                    "entropy",
                    "least",
                    "max",
                    "pos 0",
                    format!("most watched from position {last}").as_str(),
                ]
                .map(str::to_owned)
                .to_vec(),
                left: 0,
                rows: layers.into_iter().map(row).collect(),
                totals: vec![],
            },
            lines: vec!["entropy, max, pos 0: mean over heads and queries; least: smallest entropy of any".into()],
        })
    }

    /// Positions with the most weight over several heads.
    fn most_watched(&self, heads: &[&AttentionWeightTrace]) -> String {
        let mut sums: Vec<(usize, f32)> = Vec::new();
        for (&p, &w) in heads.iter().flat_map(|t| t.top_k_positions.iter().zip(&t.top_k_weights)) {
            match sums.iter_mut().find(|(q, _)| *q == p) {
                Some((_, sum)) => *sum += w,
                None => sums.push((p, w)),
            }
        }
        sums.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let n = heads.len().max(1) as f32;
        self.positions(sums.iter().take(3).map(|&(p, w)| (p, w / n)))
    }

    fn positions(&self, weights: impl Iterator<Item = (usize, f32)>) -> String {
        let one =
            |(p, w): (usize, f32)| format!("{p} {} {}", self.token_at(p).unwrap_or_default(), percent(f64::from(w)));
        weights.map(one).collect::<Vec<_>>().join("  ")
    }

    /// Single heads at the last query, where layers or heads were chosen.
    fn heads_section(&self) -> Option<Section> {
        let config = self.config();
        let last = self.traces().attention.last()?.query_pos;
        if config.layers.is_none() && config.heads.is_none() {
            return None;
        }
        let row = |t: &AttentionWeightTrace| -> Vec<Cell> {
            let top = t.top_k_positions.iter().copied().zip(t.top_k_weights.iter().copied());
            vec![
                t.layer_idx.to_string().into(),
                t.head_idx.to_string().into(),
                optional(t.entropy),
                self.positions(top).into(),
            ]
        };
        Some(Section {
            title: format!("heads at position {last}"),
            table: Table {
                header: ["layer", "head", "entropy", "largest weights"].map(str::to_owned).to_vec(),
                left: 0,
                rows: self.traces().attention.iter().filter(|t| t.query_pos == last).map(row).collect(),
                totals: vec![],
            },
            lines: vec![],
        })
    }

    fn logit_section(&self) -> Option<Section> {
        let all = &self.traces().logit;
        let shown = spread(all.first()?.layers.len(), LENS_COLUMNS);
        let row = |t: &LogitEvolutionTrace| -> Option<Vec<Cell>> {
            let chosen = t.chosen()?;
            let next = t.tracked_tokens.get(1);
            let mut cells: Vec<Cell> = vec![
                t.position.to_string().into(),
                self.token_at(t.position + 1).unwrap_or_default().into(),
                share(chosen.final_prob),
                next.map_or_else(Cell::none, |n| share(n.final_prob)),
                t.decisive_layer.map_or_else(Cell::none, |l| l.to_string().into()),
            ];
            let rank = |i: &usize| chosen.per_layer_ranks.get(*i).copied().flatten();
            cells.extend(shown.iter().map(rank).map(|r| match r {
                None => Cell::none(),
                Some(r) => Cell::new(r.to_string(), if r == 1 { Tone::Good } else { Tone::Plain }),
            }));
            Some(cells)
        };
        let layers = &all.first()?.layers;
        let mut header: Vec<String> = ["after", "chosen", "p", "next p", "decisive"].map(str::to_owned).to_vec();
        header.extend(shown.iter().filter_map(|&i| layers.get(i)).map(|l| format!("L{l}")));
        Some(Section {
            title: "logit lens (rank of the chosen token if layer L were the last one)".into(),
            table: Table { header, left: 0, rows: all.iter().filter_map(row).collect(), totals: vec![] },
            lines: vec![
                "decisive: first layer from which on the chosen token stays first; next p: the second likeliest".into(),
            ],
        })
    }

    fn kv_section(&self) -> Option<Section> {
        let all = &self.traces().kv;
        let row = |t: &KvCacheStateTrace| -> Vec<Cell> {
            vec![
                t.step.to_string().into(),
                format!("{} of {}", t.cache_size_tokens, t.capacity_tokens).into(),
                format!("{} of {}", t.blocks_in_use, t.blocks).into(),
                bytes(t.bytes_in_use).into(),
                t.total_evictions.to_string().into(),
                share(t.hit_rate),
            ]
        };
        let (first, last) = (all.first()?, all.last()?);
        let ends = if first.step == last.step { vec![first] } else { vec![first, last] };
        let mut lines = Vec::new();
        if last.total_evictions == 0 {
            lines.push(KvCacheStateTrace::NO_EVICTIONS.to_owned());
        }
        if last.hit_rate.is_none() {
            lines.push("hit rate: nothing was looked up, the cache was empty before the prompt".to_owned());
        }
        Some(Section {
            title: "KV cache (first and last call)".into(),
            table: Table {
                header: ["call", "positions", "blocks", "bytes", "evictions", "hit rate"].map(str::to_owned).to_vec(),
                left: 0,
                rows: ends.into_iter().map(row).collect(),
                totals: vec![],
            },
            lines,
        })
    }
}

/// Bricks by what they are, over all layers: `blk.3.ffn_down.weight` is an `ffn_down.weight`.
fn quant_section(t: &ModelQuantizationError) -> Section {
    let group = |b: &QuantizationErrorTrace| match b.brick_name.strip_prefix("blk.") {
        Some(rest) => rest.split_once('.').map_or(rest, |(_, name)| name).to_owned(),
        None => b.brick_name.clone(),
    };
    let mut groups: Vec<(String, Vec<&QuantizationErrorTrace>)> = Vec::new();
    for b in &t.bricks {
        let name = group(b);
        match groups.iter_mut().find(|(n, _)| *n == name) {
            Some((_, of)) => of.push(b),
            None => groups.push((name, vec![b])),
        }
    }
    let row = |(name, of): &(String, Vec<&QuantizationErrorTrace>)| -> Vec<Cell> {
        let mut formats: Vec<&str> = of.iter().map(|b| &*b.format).collect();
        formats.sort_unstable();
        formats.dedup();
        let least = |f: fn(&QuantizationErrorTrace) -> Option<f32>| of.iter().filter_map(|b| f(b)).reduce(f32::min);
        let most = |f: fn(&QuantizationErrorTrace) -> Option<f32>| of.iter().filter_map(|b| f(b)).reduce(f32::max);
        let (cosine, snr) = (least(|b| b.cosine_similarity), least(|b| b.snr_db));
        let drifts = cosine.is_some_and(|c| c < thresholds::DRIFT);
        let worst = of.iter().min_by(|a, b| {
            let key = |t: &QuantizationErrorTrace| t.snr_db.unwrap_or(f32::INFINITY);
            key(a).total_cmp(&key(b))
        });
        let layer = worst.filter(|w| w.snr_db.is_some()).and_then(|w| w.layer_idx);
        let exact = of.iter().all(|b| b.is_exact());
        vec![
            clean(name).into(),
            formats.join(", ").into(),
            of.len().to_string().into(),
            if exact { "exact".into() } else { snr.map_or_else(Cell::none, |s| format!("{s:.1}").into()) },
            toned(cosine.map_or_else(Cell::none, |c| format!("{c:.6}").into()), drifts),
            optional(most(|b| b.mse)),
            optional(most(|b| b.max_abs_error)),
            layer.map_or_else(Cell::none, |l| l.to_string().into()),
        ]
    };
    let (what, rows) = match (t.basis, t.rows) {
        (QuantizationBasis::Arithmetic, Some(n)) => ("brick", format!(", {}", count(n, "row"))),
        (QuantizationBasis::Arithmetic, None) => ("brick", String::new()),
        (QuantizationBasis::Weights, _) => ("tensor", String::new()),
    };
    let header = [what, "format", "n", "least SNR dB", "least cosine", "most MSE", "most |error|", "worst layer"];
    Section {
        title: format!("quantisation against {}{rows}", clean(&t.against)),
        table: Table {
            header: header.map(str::to_owned).to_vec(),
            left: 2,
            rows: groups.iter().map(row).collect(),
            totals: vec![],
        },
        lines: t.basis.about().split("; ").map(str::to_owned).collect(),
    }
}

/// One line per rule and severity: how often, and the first place.
fn anomalies_text(anomalies: &[Anomaly], style: Style) -> String {
    let plain = |s: &str| style.plain(s);
    let mut out = String::new();
    let rows = anomalies.chunk_by(|a, b| (a.severity, a.rule) == (b.severity, b.rule)).filter_map(|of| {
        let first = of.first()?;
        let tone = match first.severity {
            Severity::Error | Severity::Warning => Tone::Bad,
            Severity::Note => Tone::Dim,
        };
        Some(vec![
            Cell::new(first.severity.name(), tone),
            first.rule.name().into(),
            of.len().to_string().into(),
            format!("{}: {}", first.location(), clean(&first.detail)).into(),
        ])
    });
    let rows: Vec<Vec<Cell>> = rows.collect();
    if rows.is_empty() {
        let _ = writeln!(out, "{}", paint("no anomaly", Tone::Good, style));
        return out;
    }
    let _ = writeln!(out, "{}", paint("anomalies", Tone::Bold, style));
    for row in rows {
        let [severity, rule, n, first] = &row[..] else { continue };
        let _ = writeln!(
            out,
            "{}  {:<18}  {:>4} ×  first: {}",
            paint(&format!("{:<7}", severity.text), severity.tone, style),
            rule.text,
            n.text,
            first.text
        );
    }
    plain(&out)
}

/// At most `n` of `len` indices, evenly spread, the first and the last among them.
fn spread(len: usize, n: usize) -> Vec<usize> {
    if len <= n {
        return (0..len).collect();
    }
    (0..n).map(|i| i * (len - 1) / (n - 1)).collect()
}

fn optional(x: Option<f32>) -> Cell {
    x.map_or_else(Cell::none, |x| figure(f64::from(x)).into())
}

fn share(x: Option<f32>) -> Cell {
    x.map_or_else(Cell::none, |x| percent(f64::from(x)).into())
}

fn toned(cell: Cell, bad: bool) -> Cell {
    if bad { Cell { tone: Tone::Bad, ..cell } } else { cell }
}

/// A number of any size in few characters.
fn figure(x: f64) -> String {
    if x == 0.0 || (1e-2..1e6).contains(&x.abs()) { number(x) } else { format!("{x:.2e}") }
}

/// A token's text on one line, in quotation marks, cut to `chars` characters.
fn quoted(text: &str, chars: usize) -> String {
    let visible = clean(&text.replace('\n', "⏎").replace('\t', "⇥"));
    let mut short: String = visible.chars().take(chars).collect();
    if short.chars().count() < visible.chars().count() {
        short.push('…');
    }
    format!("\"{short}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_spread_from_end_to_end() {
        assert_eq!(spread(3, 8), [0, 1, 2]);
        assert_eq!(spread(30, 8), [0, 4, 8, 12, 16, 20, 24, 29]);
        assert_eq!(spread(0, 8), [0usize; 0]);
    }

    #[test]
    fn figures_of_any_size_are_short() {
        assert_eq!([0.0, 0.5, 1234.5, 1e-7, -2e9].map(figure), ["0.000", "0.500", "1234.5", "1.00e-7", "-2.00e9"]);
        assert_eq!(quoted("a\nb\u{1b}c", 14), "\"a⏎b\u{fffd}c\"");
        assert_eq!(quoted("0123456789", 4), "\"0123…\"");
    }
}

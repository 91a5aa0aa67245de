"use strict";
// A forward call on a time axis, and the totals of all of them as an icicle.
{
  const KEYS = "Wheel (once the chart is chosen) or + − zoom, drag or ← → pan, double click or Enter fits a span, n and p go from span to span, 0 shows all.";
  const LAYER = [["#8f96a1", "#a9b0ba"], ["#5f6875", "#7d8693"]];
  const layerColor = (l) => LAYER[B.dark.matches ? 1 : 0][l === null ? 0 : l % 2];

  /** Where bricks were not timed, a call is divided by runs of steps of one layer. */
  const layerTracks = (p, steps_us, wall) => {
    let t = 0;
    const layers = [];
    p.layers.forEach((l, i) => {
      const us = steps_us[i];
      if (!B.is(us)) return;
      layers.push({ a: t, b: t + us, name: l.layer === null ? "no layer" : `layer ${l.layer}`, short: l.layer === null ? "–" : String(l.layer), color: layerColor(l.layer), pairs: [["time", B.dur(us)], ["share*", B.pct(us / wall)]] });
      t += us;
    });
    const end = Math.max(wall, t);
    return [[{ label: "forward", spans: [{ a: 0, b: end, name: "forward call", color: B.css("--accent") || "#b5432a", pairs: [["time", B.dur(end)]] }] }, { label: "layers", spans: layers }], [0, end]];
  };

  /** Spans of one forward call: steps follow one another, each begins where the one before it ended. */
  const forwardTracks = (p, steps_us, wall, derived) => {
    const bricks = [], kernels = [], layers = [];
    const star = derived ? "*" : "";
    let t = 0, run = null;
    p.steps.forEach((s, i) => {
      const us = steps_us[i];
      if (!B.is(us)) return;
      const span = { a: t, b: t + us, sel: s.name };
      const pairs = B.facts(s, [["kind", B.kind(s.kind)], ["kernel", s.kernel], ["here" + star, B.dur(us)]]);
      bricks.push({ ...span, name: B.clean(s.name), short: B.kind(s.kind), color: B.color(s.kind), pairs });
      kernels.push({ ...span, name: B.clean(s.kernel), color: B.color(s.kind), pairs });
      if (run && run.layer === s.layer) { run.b = t + us; run.n++; }
      else layers.push((run = { a: t, b: t + us, layer: s.layer, n: 1, name: s.layer === null ? "no layer" : `layer ${s.layer}`, short: s.layer === null ? "–" : String(s.layer), color: layerColor(s.layer) }));
      t += us;
    });
    for (const l of layers) l.pairs = [["time" + star, B.dur(l.b - l.a)], ["share*", B.pct((l.b - l.a) / wall)], ["bricks", String(l.n)]];
    const end = Math.max(wall, t);
    const all = { a: 0, b: end, name: derived ? "mean forward call*" : "forward call", color: B.css("--accent") || "#b5432a", pairs: [["time" + star, B.dur(end)], ["charged to bricks*", B.pct(t / end)]] };
    return [[{ label: "forward", spans: [all] }, { label: "layers", spans: layers }, { label: "bricks", spans: bricks }, { label: "kernels", spans: kernels }], [0, end]];
  };

  B.sections.flame = {
    title: "Flame chart",
    draw(p, body, at) {
      if (!p.steps.length && !p.layers.length) return body.append(B.empty("Nothing was timed in this phase, so there is nothing to put on a time axis."));
      const calls = (p.timeline || []).map((f, i) => ({ ...f, i }));
      const n = Math.max(1, p.measured.forwards);
      // A step that did not run in every call contributes what it took on average over all calls.
      const rows = p.steps.length ? p.steps : p.layers;
      const mean = { steps_us: rows.map((s) => s.measured.total_us / n), wall_us: p.measured.wall_us / n, tokens: p.derived.mean_extent.tokens, context: p.derived.mean_extent.context };
      const box = B.el("div", {});
      const about = B.el("p", { class: "note" });
      const chart = B.spanChart(box, { label: `Flame chart of ${p.phase}. ${KEYS}`, tick: (t) => (t === 0 ? "0" : B.dur(t)), select: at.select });
      let now = -1;
      const buttons = [];
      const show = (i) => {
        now = i;
        const f = i < 0 ? mean : calls[i];
        chart.set(...(p.steps.length ? forwardTracks(p, f.steps_us, f.wall_us, i < 0) : layerTracks(p, f.steps_us, f.wall_us)));
        about.textContent = i < 0 ? `The mean of ${B.count(p.measured.forwards, "forward call")}*: every brick as long as it took on average, in the order of the plan. ${KEYS}`
          : `Call ${i + 1} of the ${calls.length} kept: began ${B.dur(f.begin_us)} after the first call that was kept, ${B.count(f.tokens, "token")}, context ${f.context}, ${B.dur(f.wall_us)} (${B.num(f.wall_us / Math.max(1, f.tokens))} µs/token)${f.gap_us > 0 ? `, ${B.dur(f.gap_us)} to the next` : ""}. ${KEYS}`;
        pick.value = String(i);
        buttons.forEach((b, k) => b.setAttribute("aria-pressed", String(k === i)));
      };
      const pick = B.el("select", { "aria-label": "Forward call", onchange: (e) => show(Number(e.target.value)) },
        B.el("option", { value: "-1" }, "mean of all calls*"), calls.map((f) => B.el("option", { value: String(f.i) }, `call ${f.i + 1}: ${B.dur(f.wall_us)}, ${B.count(f.tokens, "token")}, context ${f.context}`)));
      const longest = calls.reduce((a, b) => (a && a.wall_us >= b.wall_us ? a : b), null);
      const sorted = [...calls].sort((a, b) => a.wall_us - b.wall_us);
      const median = sorted[Math.floor((sorted.length - 1) / 2)];
      body.append(B.el("div", { class: "tools noprint" }, B.el("label", {}, "forward call", pick),
        calls.length > 1 ? [B.el("button", { type: "button", onclick: () => show((now - 1 + calls.length) % calls.length) }, "‹ previous"), B.el("button", { type: "button", onclick: () => show((now + 1) % calls.length) }, "next ›"),
          B.el("button", { type: "button", onclick: () => show(median.i) }, "median"), B.el("button", { type: "button", onclick: () => show(longest.i) }, "slowest")] : null,
        B.el("span", { class: "gap" }), B.chartTools(chart)));
      if (calls.length > 1) {
        const strip = B.el("div", { class: "strip", role: "group", "aria-label": "Wall time of the last forward calls" });
        for (const f of calls) {
          const b = B.el("button", { type: "button", "aria-pressed": "false", "aria-label": `call ${f.i + 1}: ${B.dur(f.wall_us)}`, tabindex: f.i ? "-1" : "0", style: { height: Math.max(3, (100 * f.wall_us) / longest.wall_us) + "%" }, onclick: () => show(f.i) });
          b.addEventListener("keydown", (e) => { const d = { ArrowRight: 1, ArrowLeft: -1 }[e.key]; const to = d && buttons[f.i + d]; if (to) { b.tabIndex = -1; to.tabIndex = 0; to.focus(); show(f.i + d); } });
          buttons.push(B.tipped(b, () => `call ${f.i + 1}`, () => [["wall", B.dur(f.wall_us)], ["tokens", String(f.tokens)], ["context", String(f.context)]]));
          strip.append(b);
        }
        body.append(strip);
      }
      body.append(box, about, B.kindLegend(p));
      show(median ? median.i : -1);
      B.dark.addEventListener("change", () => show(now));
      at.onSelect((name) => chart.select(name));
    },
  };

  /** Groups of steps in the order of their first member; of neighbours only, where the order of the plan is kept. */
  const group = (steps, key, neighbours) => {
    if (neighbours) {
      const runs = [];
      for (const s of steps) { const k = key(s), last = runs[runs.length - 1]; if (last && last[0] === k) last[1].push(s); else runs.push([k, [s]]); }
      return runs;
    }
    const map = new Map();
    for (const s of steps) { const k = key(s); if (!map.has(k)) map.set(k, []); map.get(k).push(s); }
    return [...map];
  };
  const WAYS = {
    layer: [["layer", (s) => (s.layer === null ? "no layer" : `layer ${s.layer}`)], ["brick", (s) => s.name], ["kernel", (s) => s.kernel]],
    kind: [["kind", (s) => B.kind(s.kind)], ["brick", (s) => s.name]],
    kernel: [["kernel", (s) => s.kernel], ["kind", (s) => B.kind(s.kind)], ["brick", (s) => s.name]],
  };

  B.sections.icicle = {
    title: "Icicle of totals",
    lead: "All time of the phase, divided further from row to row. Width is total time.",
    draw(p, body, at) {
      if (!p.steps.length && !p.layers.length) return body.append(B.empty("Nothing was timed in this phase."));
      const box = B.el("div", {});
      const chart = B.spanChart(box, { label: `Icicle of ${p.phase}. ${KEYS}`, tick: (t) => (t === 0 ? "0" : B.dur(t)), select: at.select });
      // What is not charged to steps, and host work between the calls, have their place too.
      const rest = [["not charged to bricks", Math.max(0, p.measured.wall_us - p.measured.steps_us)], ["host work", p.measured.external_us]].filter(([, us]) => us > 0);
      const total = p.measured.steps_us + rest.reduce((n, [, us]) => n + us, 0);
      const show = (way) => {
        const levels = p.steps.length ? WAYS[way] : [];
        const tracks = [{ label: "phase", spans: [{ a: 0, b: total, name: p.phase, color: B.css("--accent") || "#b5432a", pairs: [["time", B.dur(total)], ["forward calls", String(p.measured.forwards)]] }] }, ...levels.map(([label]) => ({ label, spans: [] }))];
        const put = (steps, depth, from) => {
          if (depth === levels.length) return;
          const [what, key] = levels[depth];
          let t = from;
          let list = group(steps, key, way === "layer").map(([name, of]) => [name, of, of.reduce((n, s) => n + s.measured.total_us, 0)]);
          if (way !== "layer") list = list.sort((x, y) => y[2] - x[2]);
          for (const [name, of, us] of list) {
            const one = of.length === 1 ? of[0] : null, kinds = new Set(of.map((s) => s.kind));
            const pairs = one ? B.facts(one, [["total", B.dur(us)], ["kernel", one.kernel]]) : [["total", B.dur(us)], ["share*", B.pct(us / total)], ["bricks", String(of.length)]];
            tracks[depth + 1].spans.push({ a: t, b: t + us, name: B.clean(name), short: what === "brick" && one ? B.kind(one.kind) : what === "layer" && of[0].layer !== null ? String(of[0].layer) : undefined, color: kinds.size === 1 ? B.color(of[0].kind) : layerColor(of[0].layer), pairs, sel: one && what !== "layer" ? one.name : undefined });
            put(of, depth + 1, t);
            t += us;
          }
        };
        if (levels.length) put(p.steps, 0, 0);
        else {
          let t = 0;
          tracks.push({ label: "layer", spans: p.layers.map((l) => { const a = t; t += l.measured.total_us; return { a, b: t, name: l.layer === null ? "no layer" : `layer ${l.layer}`, short: l.layer === null ? "–" : String(l.layer), color: layerColor(l.layer), pairs: [["total", B.dur(l.measured.total_us)], ["share*", B.pct(l.derived.share)]] }; }) });
        }
        let t = p.measured.steps_us;
        for (const [name, us] of rest) { tracks[1].spans.push({ a: t, b: t + us, name, color: B.css("--faint") || "#888888", pairs: [["total", B.dur(us)], ["share*", B.pct(us / total)]] }); t += us; }
        chart.set(tracks, [0, total || 1]);
      };
      let way = "layer";
      body.append(B.el("div", { class: "tools noprint" }, p.steps.length ? B.seg("Divide by", [["layer", "by layer"], ["kind", "by kind"], ["kernel", "by kernel"]], way, (k) => { way = k; show(k); }) : null, B.el("span", { class: "gap" }), B.chartTools(chart)), box);
      show(way);
      B.dark.addEventListener("change", () => show(way));
      at.onSelect((name) => chart.select(name));
    },
  };
}

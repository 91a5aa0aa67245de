"use strict";
// Where time is spread: over layers and kinds, over threads, over calls, over sizes of a batch.
{
  B.sections.heatmap = {
    title: "Layers × kinds",
    lead: "Mean µs per token of each kind in each layer. Arrow keys walk over the cells.",
    draw(p, body, at) {
      const layers = [...new Set(p.steps.filter((s) => s.layer !== null).map((s) => s.layer))].sort((a, b) => a - b);
      if (!layers.length) return body.append(B.empty(p.steps.length ? "No brick of this phase belongs to a layer." : "Bricks were not timed in this recording."));
      const kinds = p.kinds.map((k) => k.kind).filter((k) => p.steps.some((s) => s.kind === k && s.layer !== null));
      const cells = new Map();
      for (const s of p.steps) {
        if (s.layer === null) continue;
        const key = s.kind + " " + s.layer, c = cells.get(key) || { us: 0, bound: 0, all: true, steps: [] };
        c.us += s.measured.mean_us_per_token;
        if (B.bound(s)) c.bound += B.bound(s).us_per_token; else c.all = false;
        c.steps.push(s);
        cells.set(key, c);
      }
      const get = (k, l) => cells.get(k + " " + l);
      const bounded = [...cells.values()].some((c) => c.all);
      let by = "kind", spot = [0, 0];
      const box = B.el("div", {}), live = B.el("p", { class: "note", role: "status" }), ramp = B.el("span", { class: "ramp" });
      const most = (k) => Math.max(...layers.map((l) => (get(k, l) || { us: 0 }).us), 1e-12);
      const least = (k) => Math.min(...layers.map((l) => get(k, l)).filter(Boolean).map((c) => c.us));
      const median = (k) => { const v = layers.map((l) => get(k, l)).filter(Boolean).map((c) => c.us).sort((a, b) => a - b); return v[Math.floor((v.length - 1) / 2)] || 0; };
      const overall = Math.max(...[...cells.values()].map((c) => c.us), 1e-12);
      const pairs = (k, l, c) => [["mean", B.num(c.us) + " µs/token"], ["median layer*", B.num(median(k)) + " µs/token"], ["against it*", B.times(c.us / (median(k) || 1))], ["of the bound*", c.all && c.us > 0 ? B.pct(c.bound / c.us) : "–"], ["bricks", c.steps.map((s) => s.name).join(", ")]];
      const draw = () => {
        const W = Math.max(320, Math.min(1280, box.clientWidth || 1000)), L = 92, cw = Math.min(46, (W - L - 8) / layers.length), ch = 24, H = kinds.length * ch + 30;
        const svg = B.svg("svg", { class: "plot", viewBox: `0 0 ${W} ${H}`, tabindex: "0", role: "img", "aria-label": `Heat map of ${p.phase}: ${kinds.length} kinds, ${B.count(layers.length, "layer")}`, style: { "max-width": W + "px" } });
        const every = Math.ceil(26 / cw);
        layers.forEach((l, i) => { if (i % every === 0) svg.append(B.svg("text", { x: L + i * cw + cw / 2, y: H - 12, "text-anchor": "middle", "font-size": "11" }, String(l))); });
        svg.append(B.svg("text", { x: L - 10, y: H - 12, "text-anchor": "end", "font-size": "11" }, "layer"));
        kinds.forEach((k, j) => {
          svg.append(B.svg("text", { x: L - 10, y: j * ch + ch / 2 + 4, "text-anchor": "end" }, B.kind(k)));
          const [lo, hi] = [least(k), most(k)];
          layers.forEach((l, i) => {
            const c = get(k, l);
            if (!c) return;
            // Within its kind a layer is coloured by how much slower than the fastest it is, on a logarithmic scale.
            const color = by === "kind" ? B.heat(Math.log2(Math.max(1, c.us / Math.max(lo, 1e-12))) / 2) : by === "all" ? B.heat(c.us / overall) : c.all ? B.farColor(c.bound / c.us) || B.heat(0) : "#888888";
            const rect = B.svg("rect", { x: L + i * cw, y: j * ch, width: Math.max(1, cw - 1), height: ch - 1, rx: cw > 8 ? 2 : 0, fill: color, "data-cell": `${k} ${l}` });
            rect.addEventListener("mousemove", (e) => B.tip(e.clientX, e.clientY, `${B.kind(k)}, layer ${l}`, pairs(k, l, c)));
            rect.addEventListener("mouseleave", B.untip);
            rect.addEventListener("click", () => at.select(c.steps[0].name));
            svg.append(rect);
            if (cw >= 34) svg.append(B.svg("text", { x: L + i * cw + (cw - 1) / 2, y: j * ch + ch / 2 + 3.5, "text-anchor": "middle", "font-size": "10.5", "pointer-events": "none", style: { fill: B.inkOn(color) } }, B.si(c.us)));
            if (hi <= 0) rect.setAttribute("opacity", "0.4");
          });
        });
        const cursor = B.svg("rect", { fill: "none", stroke: "var(--ink)", "stroke-width": 2, height: ch - 1, width: Math.max(2, cw - 1), visibility: "hidden" });
        svg.append(cursor);
        const move = (dx, dy) => {
          spot = [Math.min(layers.length - 1, Math.max(0, spot[0] + dx)), Math.min(kinds.length - 1, Math.max(0, spot[1] + dy))];
          cursor.setAttribute("x", L + spot[0] * cw);
          cursor.setAttribute("y", spot[1] * ch);
          cursor.setAttribute("visibility", "visible");
          const [k, l] = [kinds[spot[1]], layers[spot[0]]], c = get(k, l);
          live.textContent = `${B.kind(k)}, layer ${l}: ${c ? B.num(c.us) + " µs/token, " + B.times(c.us / (median(k) || 1)) + " the median layer*" : "does not run"}`;
        };
        svg.addEventListener("keydown", (e) => {
          const d = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[e.key];
          if (d) { e.preventDefault(); move(...d); }
          if (e.key === "Enter") { const c = get(kinds[spot[1]], layers[spot[0]]); if (c) at.select(c.steps[0].name); }
        });
        svg.addEventListener("focus", () => { if (svg.matches(":focus-visible")) move(0, 0); });
        svg.addEventListener("blur", () => cursor.setAttribute("visibility", "hidden"));
        box.replaceChildren(svg);
        const [from, to] = by === "kind" ? ["fastest layer of the kind", "four times as slow or more"] : by === "all" ? ["no time", B.num(overall) + " µs/token"] : ["at the roofline", "10× away or more"];
        ramp.replaceChildren(from, B.el("i", { style: { background: by === "roofline" ? B.farGradient() : B.heatGradient() } }), to);
      };
      body.append(B.el("div", { class: "tools noprint" }, B.seg("Colour", [["kind", "against the kind's fastest"], ["all", "by time"], ...(bounded ? [["roofline", "by distance from the roofline"]] : [])], by, (k) => { by = k; draw(); }), B.el("span", { class: "gap" }), ramp), box, live);
      draw();
      B.onResize(box, draw);
    },
  };

  /** A bar of busy and waiting time, as fractions of their sum. */
  const share = (busy, wait) => B.el("span", { class: "track" }, B.el("i", { style: { width: (100 * busy) / Math.max(busy + wait, 1e-12) + "%", background: "var(--memory)" } }), B.el("i", { style: { width: (100 * wait) / Math.max(busy + wait, 1e-12) + "%", background: "repeating-linear-gradient(45deg, var(--faint) 0 2px, transparent 2px 5px)" } }));

  B.sections.threads = {
    title: "Threads",
    lead: "How long each thread of the gang worked and how long it waited at barriers.",
    draw(p, body) {
      const all = p.threads || [];
      const kinds = p.kinds.filter((k) => k.measured.threads && k.measured.threads.busy_us.length);
      if (!all.length && !kinds.length) return body.append(B.empty("Times of single threads were not recorded."));
      const most = Math.max(...all.map((t) => t.busy_us + t.wait_us), 1e-12);
      if (all.length) {
        body.append(B.el("div", { class: "bars" }, all.map((t) => {
          const bar = share(t.busy_us, t.wait_us);
          bar.style.width = (100 * (t.busy_us + t.wait_us)) / most + "%";
          return [B.el("span", {}, `thread ${t.thread}`), B.tipped(B.el("span", { tabindex: "0" }, bar), () => `thread ${t.thread}`, () => [["busy", B.dur(t.busy_us)], ["waiting", B.dur(t.wait_us)]]), B.el("span", { class: "num" }, `${B.dur(t.busy_us)} busy, ${B.dur(t.wait_us)} waiting (${B.pct(t.wait_us / Math.max(t.busy_us + t.wait_us, 1e-12))}*)`)];
        })), B.el("ul", { class: "legend" }, B.el("li", {}, B.el("i", { style: { background: "var(--memory)" } }), "busy"), B.el("li", {}, B.el("i", { style: { background: "repeating-linear-gradient(45deg, var(--faint) 0 2px, transparent 2px 5px)" } }), "waiting")));
      }
      if (kinds.length) {
        const rows = kinds.map((k) => {
          const { busy_us: b, wait_us: w } = k.measured.threads, sum = (v) => v.reduce((n, x) => n + x, 0);
          const mean = sum(b) / b.length, top = Math.max(...b);
          return B.el("tr", {}, B.el("td", { class: "l" }, B.el("i", { class: "dot", style: { background: B.tint(k.kind) } }), B.kind(k.kind)), B.el("td", {}, B.pct(sum(w) / Math.max(sum(b) + sum(w), 1e-12))), B.el("td", {}, mean > 0 ? B.times(top / mean) : "–"), B.el("td", { class: "l" }, b.length <= 8 ? b.map((x, i) => `${B.dur(x)}`).join(" · ") : `${B.dur(Math.min(...b))} – ${B.dur(top)}`));
        });
        body.append(B.el("div", { class: "scroll", style: { "margin-top": "14px" } }, B.el("table", {}, B.el("thead", {}, B.el("tr", {}, [["brick", "l"], ["waiting*", ""], ["busiest ÷ mean*", ""], ["busy, by thread", "l"]].map(([t, c]) => B.el("th", { class: c || null, scope: "col" }, t)))), B.el("tbody", {}, rows))));
      }
    },
  };

  /** Buckets of the recorder are as fine as 1 % and those that are empty left out: gathered into bins of equal width on a logarithmic axis. */
  const bins = (list) => {
    const used = list.filter((b) => b[1] > 0), lo = Math.max(1, used[0][0]), hi = Math.max(lo, used[used.length - 1][0]);
    const n = hi / lo < 1.02 ? 1 : Math.min(36, Math.max(6, Math.ceil(Math.log(hi / lo) / Math.log(1.03))));
    const out = Array.from({ length: n }, (_, i) => [n === 1 ? hi : lo * (hi / lo) ** ((i + 1) / n), 0]);
    for (const [upper, count] of used) out[hi > lo ? Math.min(n - 1, Math.floor((Math.log(upper / lo) / Math.log(hi / lo)) * n)) : 0][1] += count;
    return [lo, out];
  };
  const histogram = (buckets, color) => {
    const [lo, list] = bins(buckets);
    const W = 270, H = 92, n = list.length, top = Math.max(...list.map((b) => b[1]), 1), sum = list.reduce((a, b) => a + b[1], 0);
    const w = W / n;
    let below = 0;
    const svg = B.svg("svg", { class: "plot", viewBox: `0 0 ${W} ${H + 16}`, role: "img", "aria-label": `${sum} calls from ${B.dur(lo / 1e3)} to ${B.dur(list[n - 1][0] / 1e3)}` });
    list.forEach(([upper, count], i) => {
      below += count;
      const h = count ? Math.max(1.5, (count / top) * H) : 0, at = below;
      const bar = B.svg("rect", { x: i * w, y: H - h, width: Math.max(0.8, w - (w > 3 ? 1 : 0)), height: h, style: { fill: color } });
      const hit = B.svg("rect", { x: i * w, y: 0, width: w, height: H, fill: "transparent" });
      hit.addEventListener("mousemove", (e) => B.tip(e.clientX, e.clientY, `up to ${B.dur(upper / 1e3)}`, [["calls", String(count)], ["so far*", B.pct(at / Math.max(1, sum))]]));
      hit.addEventListener("mouseleave", B.untip);
      svg.append(bar, hit);
    });
    svg.append(B.svg("line", { class: "axis", x1: 0, x2: W, y1: H, y2: H }), B.svg("text", { x: 0, y: H + 13, "font-size": "11" }, B.dur(lo / 1e3)), B.svg("text", { x: W, y: H + 13, "text-anchor": "end", "font-size": "11" }, B.dur(list[n - 1][0] / 1e3)));
    return svg;
  };

  B.sections.histogram = {
    title: "Latency",
    lead: "Time of a kind in a forward call: how often it took how long. The axis is logarithmic; every call that was recorded is in it.",
    draw(p, body) {
      const kinds = p.kinds.filter((k) => Array.isArray(k.measured.histogram) && k.measured.histogram.some((b) => b[1] > 0));
      if (!kinds.length) return body.append(B.empty("Histograms were not recorded."));
      body.append(B.el("div", { class: "multiples" }, kinds.map((k) => {
        const s = k.measured.us_per_token;
        return B.el("figure", {}, B.el("figcaption", {}, B.el("b", {}, B.kind(k.kind)), s ? B.el("span", {}, `p50 ${B.num(s.p50)}, p99 ${B.num(s.p99)} µs/token`) : null), histogram(k.measured.histogram, B.tint(k.kind)));
      })));
    },
  };

  B.sections.batches = {
    title: "Batch sizes",
    lead: "Forward calls by the number of tokens they had.",
    draw(p, body) {
      const rows = p.batches || [];
      if (!rows.length) return body.append(B.empty("Batch sizes were not recorded."));
      const slow = Math.max(...rows.map((r) => (r.us_per_token ? r.us_per_token.p50 : 0)), 1e-12);
      body.append(B.el("div", { class: "scroll" }, B.el("table", {}, B.el("thead", {}, B.el("tr", {}, ["tokens", "forwards", "p50 µs/tok", "p99 µs/tok", "tok/s*"].map((t) => B.el("th", { scope: "col" }, t)), B.el("th", { class: "l", style: { width: "40%" } }, "p50"))),
        B.el("tbody", {}, rows.map((r) => B.el("tr", {}, B.el("td", {}, String(r.tokens)), B.el("td", {}, String(r.forwards)), B.el("td", {}, r.us_per_token ? B.num(r.us_per_token.p50) : "–"), B.el("td", {}, r.us_per_token ? B.num(r.us_per_token.p99) : "–"), B.el("td", {}, r.us_per_token && r.us_per_token.p50 > 0 ? B.num(1e6 / r.us_per_token.p50) : "–"),
          B.el("td", { class: "l" }, r.us_per_token ? B.el("i", { style: { display: "block", height: "12px", "border-radius": "3px", background: "var(--accent)", width: Math.max(0.5, (100 * r.us_per_token.p50) / slow) + "%" } }) : "–")))))));
    },
  };
}

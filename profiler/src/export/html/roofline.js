"use strict";
// Measured rates against what the machine allows, on two logarithmic axes.
{
  const W = 860, H = 470, L = 62, R = 20, T = 18, BOT = 46;
  /** A limit between one thread and all lies on a straight line, as in the profiler. */
  const at = (p, n, all) => (!p ? null : n <= 1 ? p.one : n >= all ? p.all : p.one + ((p.all - p.one) * (n - 1)) / (all - 1));
  B.ceilings = (profile) => {
    const m = profile.machine && profile.machine.measured;
    if (!m) return { memory: [], compute: [] };
    const n = profile.run.threads, v = (p) => at(p, n, m.threads);
    return {
      memory: (m.read || []).map((b) => [b.level === "dram" ? "DRAM" : b.level.toUpperCase(), v(b.gb_s)]).filter(([, x]) => x > 0),
      compute: [["int8", v(m.int8_gop_s)], ["f32", v(m.f32_gflop_s)], ["int8 tiles", v(m.tile_int8_gop_s)]].filter(([, x]) => x > 0),
    };
  };
  /** What can be shown of a row: operations per byte, rate, and the rate its bound allows. */
  B.point = (r) => {
    const w = r.derived.work, ops = B.ops(r), rate = B.gops(r);
    if (!(ops > 0) || !(w.bytes_per_token > 0) || !(rate > 0)) return null;
    const b = B.bound(r);
    return { x: ops / w.bytes_per_token, y: rate, top: b && b.us_per_token > 0 ? ops / b.us_per_token / 1e3 : null, row: r };
  };

  B.sections.roofline = {
    title: "Roofline",
    lead: "Operations per byte (derived from shapes) against operations per second (÷ measured time). The dashed ring is what the bound of the brick allows; the line down to the dot is time to be won.",
    draw(p, body, on) {
      const { memory, compute } = B.ceilings(on.profile);
      const points = (of) => p[of].map((r) => ({ ...(B.point(r) || {}), row: r })).filter((q) => q.x);
      if (!points("kinds").length) return body.append(B.empty("No brick with bytes and operations was timed in this phase."));
      const figure = B.el("div", {}), list = B.el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Roofline figures" });
      let of = "kinds", marked = null;
      const name = (r) => (of === "kinds" ? B.kind(r.kind) : r.name);
      const pairs = (q) => [["kind", of === "kinds" ? null : B.kind(q.row.kind)], ["intensity*", B.num(q.x) + " operations/byte"], ["rate*", B.num(q.y) + " GOP/s"], ["allowed*", q.top ? B.num(q.top) + " GOP/s" : "–"],
        ["limited by*", B.bound(q.row) ? q.row.derived.bound.resource : "–"], ["of the bound*", B.pct(B.fraction(q.row))], ["p50", B.num(B.p50(q.row)) + " µs/token"], ["share*", B.pct(q.row.derived.share)]];
      const draw = () => {
        const ps = points(of);
        const xs = ps.map((q) => q.x), ys = ps.flatMap((q) => [q.y, q.top]).filter(B.is);
        const peak = compute.map((c) => c[1]);
        const decade = (lo, hi) => [Math.floor(Math.log10(lo) - 0.15), Math.ceil(Math.log10(hi) + 0.15)];
        const [x0, x1] = decade(Math.min(...xs), Math.max(...xs, memory.length && peak.length ? Math.min(1e4, Math.max(...peak) / Math.min(...memory.map((m) => m[1]))) : 1));
        const [y0, y1] = decade(Math.min(...ys), Math.max(...ys, ...peak));
        const X = (v) => L + ((Math.log10(v) - x0) / (x1 - x0)) * (W - L - R), Y = (v) => H - BOT - ((Math.log10(v) - y0) / (y1 - y0)) * (H - T - BOT);
        const id = `clip-${p.phase}`;
        const g = B.svg("svg", { class: "plot", viewBox: `0 0 ${W} ${H}`, role: "group", "aria-label": `Roofline of ${p.phase}` },
          B.svg("clipPath", { id }, B.svg("rect", { x: L, y: T, width: W - L - R, height: H - T - BOT })));
        for (let d = x0; d <= x1; d++) {
          for (let k = 1; k < 10 && d < x1; k++) g.append(B.svg("line", { class: k === 1 ? "axis" : "grid", x1: X(k * 10 ** d), x2: X(k * 10 ** d), y1: T, y2: H - BOT }));
          g.append(B.svg("text", { x: X(10 ** d), y: H - BOT + 17, "text-anchor": d === x1 ? "end" : "middle" }, B.si(10 ** d)));
        }
        for (let d = y0; d <= y1; d++) {
          for (let k = 1; k < 10 && d < y1; k++) g.append(B.svg("line", { class: k === 1 ? "axis" : "grid", y1: Y(k * 10 ** d), y2: Y(k * 10 ** d), x1: L, x2: W - R }));
          g.append(B.svg("text", { x: L - 8, y: Y(10 ** d) + 4, "text-anchor": "end" }, B.si(10 ** d)));
        }
        g.append(B.svg("line", { class: "axis", x1: L, x2: W - R, y1: H - BOT, y2: H - BOT }), B.svg("text", { x: (L + W - R) / 2, y: H - 8, "text-anchor": "middle" }, "operations per byte*"),
          B.svg("text", { transform: `translate(15 ${(T + H - BOT) / 2}) rotate(-90)`, "text-anchor": "middle" }, "10⁹ operations per second*"));
        const placed = [];
        const free = (b) => !placed.some((q) => b[0] < q[0] + q[2] && q[0] < b[0] + b[2] && b[1] < q[1] + q[3] && q[1] < b[1] + b[3]);
        const roof = peak.length ? Math.max(...peak) : 10 ** y1;
        for (const [label, gbs] of memory) {
          const top = Math.min(roof, 10 ** y1), end = top / gbs;
          g.append(B.svg("line", { "clip-path": `url(#${id})`, x1: X(10 ** x0), y1: Y(10 ** x0 * gbs), x2: X(end), y2: Y(top), stroke: "var(--memory)", "stroke-width": 1.6 }));
          // The label stands on the line, as near to where it enters the plot as there is room.
          const text = `${label} ${B.num(gbs)} GB/s`, w = text.length * 6.6, left = X(Math.max(10 ** x0, (10 ** y0) / gbs));
          const rise = (H - T - BOT) / (y1 - y0) / ((W - L - R) / (x1 - x0)), run = 1 / Math.hypot(1, rise);
          const base = Y(10 ** x0 * gbs);
          const box = (x) => [x, base - (x - X(10 ** x0)) * rise - 18 - w * rise * run, w * run, w * rise * run + 14];
          const spot = [0, 1, 2, 3, 4, 5].map((k) => left + 12 + k * 70).find((x) => x + w * run < X(end) && free(box(x)) && box(x)[1] > T);
          if (spot === undefined) continue;
          placed.push(box(spot));
          g.append(B.svg("text", { transform: `translate(${spot} ${base - (spot - X(10 ** x0)) * rise - 7}) rotate(${(-Math.atan(rise) * 180) / Math.PI})`, style: { fill: "var(--memory)" } }, text));
        }
        for (const [label, gops] of compute) {
          const from = memory.length ? gops / Math.max(...memory.map((m) => m[1])) : 10 ** x0;
          const text = `${label} ${B.num(gops)} GOP/s`;
          let ly = Y(gops) - 5;
          while (!free([W - R - text.length * 6.4, ly - 11, text.length * 6.4, 13]) && ly > T + 12) ly -= 13;
          placed.push([W - R - text.length * 6.4, ly - 11, text.length * 6.4, 13]);
          g.append(B.svg("line", { "clip-path": `url(#${id})`, x1: X(Math.max(from, 10 ** x0)), x2: W - R, y1: Y(gops), y2: Y(gops), stroke: "var(--compute)", "stroke-width": 1.6 }), B.svg("text", { x: W - R - 4, y: ly, "text-anchor": "end", style: { fill: "var(--compute)" } }, text));
        }
        const big = Math.max(...ps.map((q) => q.row.derived.share), 1e-9);
        const radius = (q) => (of === "kinds" ? 4.5 + 6 * Math.sqrt(q.row.derived.share / big) : 4);
        for (const q of ps) { const r = radius(q); placed.push([X(q.x) - r, Y(q.y) - r, 2 * r, 2 * r]); }
        for (const q of [...ps].sort((a, b) => b.row.derived.share - a.row.derived.share)) {
          const [x, y] = [X(q.x), Y(q.y)], c = B.color(q.row.kind), r = radius(q);
          const sel = of === "steps" && marked === q.row.name;
          const node = B.svg("g", { class: "pt", tabindex: of === "kinds" || sel ? "0" : "-1", role: "img", "aria-label": `${name(q.row)}: ${pairs(q).filter((t) => t[1] && t[1] !== "–").map((t) => t.join(" ")).join(", ")}` },
            q.top ? [B.svg("line", { x1: x, x2: x, y1: y, y2: Y(q.top), stroke: c, "stroke-width": of === "kinds" ? 1.4 : 0.7, "stroke-dasharray": "2 2", opacity: of === "kinds" ? 0.9 : 0.35 }), of === "kinds" || sel ? B.svg("circle", { cx: x, cy: Y(q.top), r: 4, fill: "var(--card)", stroke: c, "stroke-width": 1.4, "stroke-dasharray": "2 1.5" }) : null] : null,
            B.svg("circle", { class: "ring", cx: x, cy: y, r: sel ? 8 : r, fill: c, stroke: sel ? "var(--accent)" : "var(--card)", "stroke-width": sel ? 3 : 1.2, "fill-opacity": of === "kinds" ? 0.92 : 0.7 }));
          B.tipped(node, () => name(q.row), () => pairs(q));
          if (of === "steps") node.addEventListener("click", () => on.select(q.row.name));
          g.append(node);
          if (of === "kinds") {
            const text = B.kind(q.row.kind), w = text.length * 7.6;
            const spot = [[r + 4, 4], [-w - r - 4, 4], [-w / 2, r + 14], [-w / 2, -r - 6], [r + 2, r + 12], [-w - r, r + 12], [r + 2, -r - 4], [-w - r, -r - 4], [r + 4, r + 24], [-w - r - 4, r + 24]].find(([dx, dy]) => x + dx > L && x + dx + w < W - R && y + dy < H - BOT - 2 && free([x + dx, y + dy - 10, w, 12]));
            if (spot) { placed.push([x + spot[0], y + spot[1] - 10, w, 12]); g.append(B.svg("text", { class: "strong", x: x + spot[0], y: y + spot[1], "pointer-events": "none", style: { "paint-order": "stroke", stroke: "var(--card)", "stroke-width": "3px", "stroke-linejoin": "round" } }, text)); }
          }
        }
        figure.replaceChildren(g);
        const rows = [...ps].sort((a, b) => b.row.derived.share - a.row.derived.share);
        list.replaceChildren(B.el("table", {}, B.el("thead", {}, B.el("tr", {}, ["brick", "op/B*", "GOP/s*", "of bound*"].map((t, i) => B.el("th", { class: i ? null : "l", scope: "col" }, t)))),
          B.el("tbody", {}, rows.map((q) => B.el("tr", { "data-sel": of === "steps" ? q.row.name : null, class: marked === q.row.name ? "sel" : null, onclick: () => of === "steps" && on.select(q.row.name) },
            B.el("td", { class: "l" }, B.el("i", { class: "dot", style: { background: B.tint(q.row.kind) } }), B.clean(name(q.row))), B.el("td", {}, B.num(q.x)), B.el("td", {}, B.num(q.y)),
            B.el("td", {}, B.is(B.fraction(q.row)) ? [B.el("i", { class: "dot", style: { background: B.farColor(B.fraction(q.row)) } }), B.pct(B.fraction(q.row))] : "–"))))));
      };
      const left = p.kinds.filter((r) => !B.point(r)).map((r) => B.kind(r.kind));
      body.append(B.el("div", { class: "tools noprint" }, B.seg("Points", [["kinds", "kinds"], ["steps", "bricks"]], "kinds", (k) => { of = k; draw(); })), B.el("div", { class: "split" }, figure, list));
      if (!memory.length) body.append(B.el("p", { class: "note" }, "The limits of the machine are not part of this profile: no ceilings."));
      if (left.length) body.append(B.el("p", { class: "note" }, `Without operations per byte: ${left.join(", ")}.`));
      draw();
      B.dark.addEventListener("change", draw);
      on.onSelect((n) => { marked = n; if (of === "steps") draw(); });
    },
  };
}

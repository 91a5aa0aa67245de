"use strict";
// The budget table: a row per kind or per brick, sortable, filterable.
{
  const summary = (f) => (r) => (r.measured.us_per_token ? r.measured.us_per_token[f] : undefined);
  const some = (x) => (x > 0 ? x : null);
  const has = (r, ...flags) => (r.derived.flags || []).some((f) => flags.includes(f));
  // key, title, value, text, what it is; a title with * is derived.
  const COLUMNS = [
    ["calls", "calls", (r) => r.measured.calls, String, "calls recorded"],
    ["p50", "p50 µs/tok", summary("p50"), B.num, "median per forward call, per token", (r) => has(r, "near_clock_resolution")],
    ["p95", "p95", summary("p95"), B.num, "95th percentile"],
    ["p99", "p99", summary("p99"), B.num, "99th percentile"],
    ["share", "share*", (r) => r.derived.share, B.pct, "fraction of the time of the phase"],
    ["mb", "MB/tok*", (r) => some(r.derived.work.bytes_per_token / 1e6), B.num, "bytes from shapes"],
    ["gbs", "GB/s*", (r) => r.derived.work.gb_per_s, B.num, "bytes ÷ measured time", (r) => has(r, "above_measured_bandwidth")],
    ["mop", "Mop/tok*", (r) => some(B.ops(r) / 1e6), B.num, "operations from shapes"],
    ["gops", "GOP/s*", B.gops, B.num, "operations ÷ measured time", (r) => has(r, "above_measured_int8_peak", "above_measured_f32_peak")],
    ["bound", "bound µs*", (r) => B.bound(r) && B.bound(r).us_per_token, B.num, "least time the machine's limits allow"],
    ["fraction", "of bound*", B.fraction, B.pct, "bound ÷ measured mean: 100 % is at the roofline"],
    ["resource", "limited by*", (r) => B.bound(r) && B.bound(r).resource, (x) => (x ? B.clean(x) : "–"), "the resource that sets the bound"],
    ["budget", "budget µs*", (r) => r.derived.budget && r.derived.budget.us_per_token, B.num, "budget per token"],
    ["gap", "gap*", (r) => r.derived.budget && r.derived.budget.gap_factor, B.times, "measured median ÷ budget"],
  ];
  const ORDER = { over: 0, within: 1, not_measured: 2, no_budget: 3 };

  B.sections.table = {
    title: "Budget table",
    draw(p, body, at) {
      if (!p.kinds.length) return layers(p, body);
      const state = { of: "kinds", sort: null, down: true, text: "", verdict: "all" };
      const columns = COLUMNS.filter(([key, , value]) => {
        if (!["bound", "fraction", "resource", "p95", "budget", "gap"].includes(key)) return true;
        return [...p.kinds, ...p.steps].some((r) => { const v = value(r); return v !== null && v !== undefined; });
      });
      const search = B.el("input", { type: "search", placeholder: "filter: name, kernel, layer", "aria-label": "Filter rows", oninput: (e) => { state.text = e.target.value.toLowerCase(); fill(); } });
      const verdict = B.el("select", { "aria-label": "Verdict", onchange: (e) => { state.verdict = e.target.value; fill(); } },
        [["all", "every verdict"], ["over", "OVER"], ["within", "within"], ["no_budget", "no budget"], ["doubt", "doubtful (!)"]].map(([v, t]) => B.el("option", { value: v }, t)));
      const tools = B.el("div", { class: "tools noprint" },
        B.seg("Rows", [["kinds", "kinds"], ["steps", B.count(p.steps.length, "brick")]], "kinds", (k) => { state.of = k; state.sort = null; fill(); }),
        search, verdict, B.el("span", { class: "gap" }), B.el("span", { class: "note", role: "status" }));
      const table = B.el("table", { "data-rows": "kinds" });
      body.append(tools, B.el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Budget table" }, table));
      flags(p, body);

      const header = () => {
        const cell = (key, title, about, left) => B.el("th", {
          scope: "col", title: about, class: (left ? "l " : "") + (title.endsWith("*") ? "derived" : "measured"),
          "aria-sort": state.sort === key ? (state.down ? "descending" : "ascending") : null,
        }, B.el("button", { type: "button", tabindex: "0", onclick: () => {
          if (state.sort === key) state.down = !state.down;
          else { state.sort = key; state.down = !left; }
          fill();
        } }, title));
        const names = state.of === "kinds" ? [["name", "brick", "kind of brick"]] : [["name", "brick", "path in the plan"], ["layer", "layer", "transformer layer"], ["kernel", "kernel", "what ran"]];
        return B.el("thead", {}, B.el("tr", {}, names.map(([k, t, a]) => cell(k, t, a, true)),
          columns.map(([k, t, , , a]) => cell(k, t, a)), cell("verdict", "verdict*", "median against budget")));
      };
      const nameOf = (r) => (state.of === "kinds" ? B.kind(r.kind) : r.name);
      const value = (r, key) => {
        if (key === "name") return nameOf(r);
        if (key === "layer") return r.layer === null ? -1 : r.layer;
        if (key === "kernel") return r.kernel;
        if (key === "verdict") return ORDER[r.derived.verdict];
        return columns.find((c) => c[0] === key)[2](r);
      };
      const compare = (a, b) => {
        const [x, y] = [value(a, state.sort), value(b, state.sort)];
        const none = (v) => v === null || v === undefined;
        if (none(x) || none(y)) return none(x) - none(y);
        const c = typeof x === "string" ? x.localeCompare(y, "en", { numeric: true }) : x - y;
        return state.down ? -c : c;
      };
      const cells = (r) => columns.map(([key, title, get, text, , doubt]) => {
        const v = get(r), bad = doubt && doubt(r);
        return B.el("td", { "data-col": key, "data-v": v ?? null, class: bad ? "doubt" : null, title: bad ? r.derived.flags.map((f) => B.flag[f] || f).join("\n") : null }, text(v) + (bad ? "!" : ""));
      });
      const ruling = (d) => { const [text, cls] = B.verdict[d.verdict] || [d.verdict, "none"]; return B.el("td", { class: cls, "data-col": "verdict", "data-v": d.verdict }, text); };
      const fill = () => {
        const all = p[state.of];
        let rows = all.filter((r) => {
          const hay = [nameOf(r), r.kernel || "", B.kind(r.kind), r.layer === null || r.layer === undefined ? "" : "layer " + r.layer].join(" ").toLowerCase();
          const v = state.verdict;
          return hay.includes(state.text) && (v === "all" || (v === "doubt" ? (r.derived.flags || []).length > 0 : r.derived.verdict === v));
        });
        if (state.sort) rows = [...rows].sort(compare);
        const tbody = B.el("tbody", {}, rows.map((r) => B.el("tr", { "data-name": state.of === "kinds" ? r.kind : r.name, "data-sel": state.of === "steps" ? r.name : null },
          B.el("td", { class: "l" }, B.el("i", { class: "dot", style: { background: B.tint(r.kind) } }), B.clean(nameOf(r))),
          state.of === "steps" ? [B.el("td", { class: "l" }, r.layer === null ? "–" : String(r.layer)), B.el("td", { class: "l kernel" }, B.clean(r.kernel))] : null,
          cells(r), ruling(r.derived))));
        const total = state.of === "kinds" && !state.text && state.verdict === "all" ? B.el("tfoot", {}, footer()) : null;
        table.replaceChildren(...[header(), tbody, total].filter(Boolean));
        table.dataset.rows = state.of;
        tools.lastElementChild.textContent = rows.length === all.length ? "" : `${rows.length} of ${all.length}`;
      };
      const footer = () => {
        const forward = { measured: { calls: p.kinds.reduce((n, k) => n + k.measured.calls, 0), us_per_token: p.measured.us_per_token }, derived: p.derived };
        return B.el("tr", { "data-name": "forward" }, B.el("td", { class: "l" }, "forward"), cells(forward).map((c) => { if (c.dataset.col === "share") c.textContent = "–"; return c; }), ruling(p.derived));
      };
      table.addEventListener("click", (e) => { const row = e.target.closest("tr[data-sel]"); if (row) at.select(row.dataset.sel); });
      at.onSelect((name) => { for (const tr of table.querySelectorAll("tr[data-sel]")) tr.classList.toggle("sel", tr.dataset.sel === name); });
      fill();
    },
  };

  /** Where steps were not timed, layers are all there is. */
  function layers(p, body) {
    if (!p.layers.length) return body.append(B.empty("Neither bricks nor layers were timed in this phase."));
    body.append(B.el("p", { class: "lead" }, "Bricks were not timed in this recording; layers were."), B.el("div", { class: "scroll", tabindex: "0" }, B.el("table", { "data-rows": "layers" },
      B.el("thead", {}, B.el("tr", {}, ["layer", "forwards", "mean µs/tok", "share*"].map((t, i) => B.el("th", { class: i ? null : "l", scope: "col" }, t)))),
      B.el("tbody", {}, p.layers.map((r) => B.el("tr", {}, B.el("td", { class: "l" }, r.layer === null ? "no layer" : `layer ${r.layer}`), B.el("td", {}, String(r.measured.calls)),
        B.el("td", { "data-col": "mean", "data-v": r.measured.mean_us_per_token }, B.num(r.measured.mean_us_per_token)), B.el("td", {}, B.pct(r.derived.share))))))));
  }

  function flags(p, body) {
    const seen = new Set([...p.kinds, ...p.steps, p].flatMap((r) => r.derived.flags || []));
    if (seen.size) body.append(B.el("ul", { class: "legend" }, [...seen].map((f) => B.el("li", { class: "doubt" }, "! " + (B.flag[f] || f)))));
  }
}

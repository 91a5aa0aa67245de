"use strict";
// Puts the page together, and says at its end whether that worked.
{
  B.kindLegend = (p) => B.el("ul", { class: "legend" }, [...p.kinds].filter((k) => p.steps.some((s) => s.kind === k.kind)).map((k) => B.el("li", {}, B.el("i", { style: { background: B.tint(k.kind) } }), B.kind(k.kind))));

  B.sections.overview = {
    title: "Overview",
    draw(p, body) {
      const { measured: m, derived: d } = p, s = m.us_per_token;
      const bound = d.bound || null;
      const tile = (k, v, unit, sub, cls) => B.el("div", { class: "tile" }, B.el("div", { class: "k" }, k), B.el("div", { class: "v" + (cls ? " " + cls : "") }, v, unit ? B.el("small", {}, " " + unit) : null), B.el("div", { class: "s" }, sub));
      const slow = p.slowest_kind, step = p.slowest_step;
      body.append(B.el("div", { class: "tiles" },
        tile("speed*", B.num(d.tokens_per_s), "tok/s", `${B.num(d.tokens_per_s_with_gaps)} with the time between calls*`),
        tile("median", s ? B.num(s.p50) : "–", "µs/token", s ? `95 % CI ${B.num(s.median_ci_low)} – ${B.num(s.median_ci_high)}, CV ${B.pct(s.cv)}` : "no samples were kept"),
        tile("recorded", B.dur(m.wall_us), "", `${B.count(m.forwards, "forward call")}, ${B.count(m.tokens, "token")}`),
        bound ? tile("of the roofline*", B.pct(bound.fraction), "", `the limits allow ${B.num(bound.us_per_token)} µs/token, most of it ${B.clean(bound.resource)}`) : null,
        d.budget ? tile("budget*", B.times(d.budget.gap_factor), "", `of ${B.num(d.budget.us_per_token)} µs/token`, d.verdict === "over" ? "over" : "within") : null,
        tile("coverage*", B.pct(d.coverage), "", "of the wall time is charged to bricks", d.coverage !== null && d.coverage < 0.95 ? "over" : ""),
        slow ? tile("slowest kind", B.kindOf(slow.brick_name), "", `${B.num(slow.actual_us)} µs/token, ${B.pct(slow.share)} of the phase*`) : null,
        step ? tile("slowest brick", B.clean(step.brick_name), "", `${B.num(step.actual_us)} µs/token${step.gap_factor ? ", " + B.times(step.gap_factor) + " its budget*" : ""}`) : null));
      const rows = (p.kinds.length ? p.kinds.map((k) => [B.kind(k.kind), B.tint(k.kind), k.derived.share, k]) : p.categories.map((c, i) => [B.clean(c.category), B.tint(["rms_norm", "attention", "gate_up", "lm_head"][i % 4]), c.derived.share, null])).sort((a, b) => b[2] - a[2]);
      if (rows.length) {
        body.append(B.el("div", { class: "stack", role: "img", "aria-label": "Share of the time by kind: " + rows.map((r) => `${r[0]} ${B.pct(r[2])}`).join(", ") },
          rows.map(([name, color, x, k]) => B.tipped(B.el("span", { style: { flex: `${x} 0 0`, background: color } }), () => name, () => (k ? B.facts(k) : [["share*", B.pct(x)]])))),
        B.el("ul", { class: "legend" }, rows.map(([name, color, x]) => B.el("li", {}, B.el("i", { style: { background: color } }), name + " ", B.el("b", {}, B.pct(x))))));
      }
    },
  };
  /** A kind's printed name is in the profile already. */
  B.kindOf = (name) => B.clean(name);

  const ORDER = ["overview", "table", "graph", "flame", "icicle", "roofline", "heatmap", "threads", "histogram", "batches"];

  /** What the processor counted, in one line; what it did not count is not 0. */
  const counted = (c) => {
    if (!c) return null;
    const ipc = c.cycles > 0 && B.is(c.instructions) ? `${(c.instructions / c.cycles).toFixed(2)} instructions per cycle*` : null;
    return [B.is(c.cycles) && `${B.si(c.cycles)} cycles`, B.is(c.instructions) && `${B.si(c.instructions)} instructions`, ipc, B.is(c.cache_misses) && `${B.si(c.cache_misses)} misses of the last cache`, c.unavailable && `not counted: ${c.unavailable}`].filter(Boolean).join(" · ") || null;
  };

  const header = (profile) => {
    const { model, run, machine, recorder, budget, build } = profile, clock = recorder.measured.clock;
    const text = (id, t) => { document.getElementById(id).textContent = t; };
    document.title = `${B.clean(model.name)} – brick profile`;
    text("model", B.clean(model.name) || "(no name)");
    text("subtitle", [model.architecture, model.quantization, model.file_bytes ? B.bytes(model.file_bytes) : null, model.sha256 ? "sha256 " + model.sha256.slice(0, 12) + "…" : null].filter(Boolean).map(B.clean).join(" · "));
    const counters = counted(recorder.measured.counters);
    const overhead = recorder.derived.clock_overhead, f = machine && machine.fingerprint;
    const facts = [
      ["run", [run.backend, B.count(run.threads, "thread"), B.count(run.sequences, "sequence"), `${B.count(run.prompt_tokens, "token")} in the prompt, ${run.generated_tokens} generated`, run.kv_type && `KV ${run.kv_type}`, `${B.count(run.warmup_forwards, "forward")} of warm-up`, run.timestamp].filter(Boolean).join(" · ")],
      ["machine", f ? `${f.cpu_model} · ${B.count(f.physical_cores, "core")}, ${B.count(f.logical_cores, "hardware thread")}${f.quota_millicores ? `, quota ${(f.quota_millicores / 1e3).toFixed(1)}` : ""} · ${f.simd}` : "not measured"],
      ["clock", `resolution ${clock.resolution_ns} ns, ${clock.read_ns.toFixed(1)} ns per read · ${recorder.sync_mode} sync${B.is(overhead) ? ` · ${(overhead * 100).toFixed(2)} %* of the time went into reading it` : ""}`],
      ["budgets", budget ? budget.source : "none"],
      ["build", [`brick ${build.version}`, build.target, build.git && "commit " + build.git, build.rustc && "rustc " + build.rustc, build.features && build.features.length && "features " + build.features.join(", "), model.graph_hash && "graph " + model.graph_hash].filter(Boolean).join(" · ")],
      ...(counters ? [["counters", counters]] : []),
    ];
    document.getElementById("facts").append(...facts.flatMap(([k, v]) => [B.el("dt", {}, k), B.el("dd", {}, B.clean(v))]));
    const warn = [build.debug_assertions && "a build with debug assertions: times are not those of a release", recorder.measured.aborted_forwards > 0 && `${B.count(recorder.measured.aborted_forwards, "forward call")} failed and left no figures`, recorder.measured.ignored_calls > 0 && `${B.count(recorder.measured.ignored_calls, "call")} to the recorder made no sense`];
    document.getElementById("warnings").append(...warn.filter(Boolean).map((t) => B.el("li", {}, t)));
    text("schema", `Profile version ${profile.schema_version}.`);
  };

  const phase = (profile, p, host) => {
    const listeners = [];
    const at = { profile, onSelect: (f) => listeners.push(f), select: (name) => { at.selected = at.selected === name ? null : name; for (const f of listeners) f(at.selected); } };
    host.append(B.el("p", { class: "printhead" }, p.phase));
    for (const key of ORDER) {
      const section = B.sections[key], id = `${p.phase}-${key}`;
      const body = B.el("div", {});
      host.append(B.el("section", { class: "card", id, "data-section": key, "aria-labelledby": id + "-h" }, B.el("div", { class: "tools" }, B.el("h2", { id: id + "-h" }, section.title)), section.lead ? B.el("p", { class: "lead" }, section.lead) : null, body));
      try {
        section.draw(p, body, at);
      } catch (e) {
        // One figure that fails must not take the others with it.
        B.errors++;
        body.replaceChildren(B.el("p", { class: "empty failed" }, `This figure could not be drawn: ${e.message}`));
        console.error(key, e);
      }
    }
  };

  const start = () => {
    const { profile, names } = JSON.parse(document.getElementById("data").textContent);
    B.names = names;
    header(profile);
    const main = document.getElementById("content"), tabs = document.getElementById("tabs"), jumps = document.getElementById("jumps");
    main.replaceChildren();
    const all = profile.phases.map((p) => {
      const host = B.el("div", { class: "phase", id: `phase-${p.phase}`, role: "tabpanel", "aria-labelledby": `tab-${p.phase}`, "data-phase": p.phase });
      const tab = B.el("button", { type: "button", role: "tab", id: `tab-${p.phase}`, "aria-controls": host.id, onclick: () => show(p.phase) }, p.phase);
      main.append(host);
      tabs.append(tab);
      phase(profile, p, host);
      return { p, host, tab };
    });
    const show = (name) => {
      for (const { p, host, tab } of all) {
        host.hidden = p.phase !== name;
        tab.setAttribute("aria-selected", String(p.phase === name));
        tab.tabIndex = p.phase === name ? 0 : -1;
      }
      jumps.replaceChildren(...ORDER.map((k) => B.el("a", { href: `#${name}-${k}` }, B.sections[k].title)));
    };
    tabs.addEventListener("keydown", (e) => {
      const i = all.findIndex((a) => a.tab === document.activeElement), next = all[i + ({ ArrowRight: 1, ArrowLeft: -1 }[e.key] || 0)];
      if (i >= 0 && next && next !== all[i]) { show(next.p.phase); next.tab.focus(); e.preventDefault(); }
    });
    if (!all.length) {
      document.getElementById("bar").hidden = true;
      main.append(B.el("div", { class: "card" }, B.empty("Nothing was recorded: no forward call of any phase.")));
      return;
    }
    const asked = location.hash.slice(1).split("-")[0];
    // Generation is what most look for; it has the most calls, too.
    show((all.find((a) => a.p.phase === asked) || all.find((a) => a.p.phase === "decode") || all[0]).p.phase);
    addEventListener("hashchange", () => { const to = location.hash.slice(1), a = all.find((x) => to.startsWith(x.p.phase + "-")); if (a && a.host.hidden) { show(a.p.phase); document.getElementById(to)?.scrollIntoView(); } });
    if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
  };

  try {
    start();
  } catch (e) {
    B.errors++;
    document.getElementById("content").replaceChildren(B.el("div", { class: "card" }, B.el("p", { class: "empty failed" }, `The profile in this file could not be drawn: ${e.message}`)));
    console.error(e);
  }
  document.documentElement.dataset.ready = "true";
  B.report();
}

"use strict";
// The execution graph: model → layer → brick → kernel, as a tree that opens and closes.
{
  /** Children in the order of the plan: runs of steps of one layer, as the recorder groups them. */
  const build = (p, model) => {
    const tokens = Math.max(1, p.measured.tokens);
    const root = { name: `${B.clean(model)} ${p.phase}`, us: p.measured.wall_us / tokens, level: "model", kids: [] };
    if (!p.steps.length) {
      root.kids = p.layers.map((l) => ({ name: l.layer === null ? "no layer" : `Layer ${l.layer}`, us: l.measured.mean_us_per_token, level: "layer", kids: [] }));
      return root;
    }
    let group = null;
    const rows = p.layers.filter((l) => l.layer !== null);
    let next = 0;
    for (const s of p.steps) {
      const brick = { name: s.name, us: s.measured.mean_us_per_token, bound: B.bound(s) ? B.bound(s).us_per_token : null, level: "brick", row: s, kids: [] };
      brick.kids = [{ name: s.kernel, us: brick.us, bound: brick.bound, level: "kernel", row: s, kids: [] }];
      if (s.layer === null) { group = null; root.kids.push(brick); continue; }
      if (!group || group.layer !== s.layer) {
        const row = rows.slice(next).find((l) => l.layer === s.layer);
        if (row) next = rows.indexOf(row) + 1;
        group = { name: `Layer ${s.layer}`, layer: s.layer, us: row ? row.measured.mean_us_per_token : 0, timed: !!row, level: "layer", kids: [] };
        root.kids.push(group);
      }
      group.kids.push(brick);
    }
    const sum = (n) => {
      for (const k of n.kids) if (k.level === "layer") sum(k);
      if (n.level === "brick") return;
      if (n.level === "layer" && !n.timed) n.us = n.kids.reduce((a, k) => a + k.us, 0);
      n.bound = n.kids.every((k) => B.is(k.bound)) && n.kids.length ? n.kids.reduce((a, k) => a + k.bound, 0) : null;
    };
    sum(root);
    return root;
  };

  B.sections.graph = {
    title: "Execution graph",
    lead: "What called and launched what, with mean µs per token. Arrow keys walk and open; * opens all. Click a brick to mark it everywhere.",
    draw(p, body, at) {
      if (!p.steps.length && !p.layers.length) return body.append(B.empty("Nothing was timed in this phase."));
      const root = build(p, at.profile.model.name);
      const most = { model: root.us, layer: 0, brick: 0, kernel: 0 };
      const visit = (n, f) => { f(n); n.kids.forEach((k) => visit(k, f)); };
      visit(root, (n) => { most[n.level] = Math.max(most[n.level], n.us); });
      const bounded = p.steps.some((s) => B.is(B.fraction(s)));
      let by = "time";
      const ramp = B.el("span", { class: "ramp" });
      const tree = B.el("div", { class: "tree", role: "tree", "aria-label": "Execution graph" });
      const paint = (n) => {
        const f = B.is(n.bound) && n.us > 0 ? n.bound / n.us : null;
        const color = by === "time" ? B.heat(n.us / (most[n.level] || 1)) : B.farColor(f);
        n.bar.style.background = color || "var(--faint)";
      };
      const repaint = () => {
        visit(root, (n) => n.bar && paint(n));
        ramp.replaceChildren(by === "time" ? "fast" : "at the roofline", B.el("i", { style: { background: by === "time" ? B.heatGradient() : B.farGradient() } }), by === "time" ? "slow, among its level" : "10× away or more");
      };
      B.dark.addEventListener("change", repaint);

      const label = (n, query) => {
        const text = B.clean(n.name), i = query ? text.toLowerCase().indexOf(query) : -1;
        return i < 0 ? [text] : [text.slice(0, i), B.el("span", { class: "hit" }, text.slice(i, i + query.length)), text.slice(i + query.length)];
      };
      const item = (n, depth) => {
        n.depth = depth;
        const f = B.is(n.bound) && n.us > 0 ? n.bound / n.us : null;
        n.bar = B.el("i", { style: { width: `${Math.min(100, (100 * n.us) / (root.us || 1) * (n.level === "model" ? 1 : root.us / Math.max(most.layer, most.brick, 1e-12)))}%` } });
        n.text = B.el("span", { class: "t" }, label(n));
        n.toggle = B.el("span", { class: "tw", "aria-hidden": "true" }, n.kids.length ? "▶" : "");
        n.node = B.el("div", { role: "treeitem", tabindex: "-1", "aria-level": String(depth + 1), "aria-expanded": n.kids.length ? "false" : null, "data-sel": n.level === "brick" ? n.name : null },
          B.el("div", { class: "row" },
            B.el("span", { class: "name", style: { "padding-left": depth * 18 + "px" } }, n.toggle, n.level === "brick" ? B.el("i", { class: "dot", style: { background: B.tint(n.row.kind), width: "9px", height: "9px", "border-radius": "2px", "margin-right": "7px", flex: "none" } }) : null, n.level === "model" || n.level === "layer" ? B.el("b", { class: "t" }, n.text) : n.text),
            B.el("span", { class: "barbox" }, n.bar), B.el("span", { class: "num" }, B.num(n.us) + " µs"),
            B.el("span", { class: "num" }, f === null ? "–" : B.times(1 / f)), B.el("span", { class: "num" }, n.row && B.bound(n.row) ? B.clean(B.bound(n.row).resource) : ""),
            B.el("span", { class: "kern" }, n.level === "brick" ? B.clean(n.row.kernel) : n.level === "kernel" ? `<<<${at.profile.run.threads},${p.derived.mean_extent.tokens},0>>>` : n.kids.length ? B.count(n.kids.length, n.level === "model" ? "part" : "brick") : "")));
        n.node.addEventListener("click", (e) => {
          e.stopPropagation();
          focus(n);
          if (e.target === n.toggle || n.level === "model" || n.level === "layer") toggle(n);
          if (n.level === "brick") at.select(n.name);
        });
        n.node.owner = n;
        paint(n);
        return n.node;
      };
      const toggle = (n, to) => {
        if (!n.kids.length) return;
        n.open = to === undefined ? !n.open : to;
        if (n.open && !n.group) {
          n.group = B.el("div", { role: "group" }, n.kids.map((k) => { k.up = n; return item(k, n.depth + 1); }));
          n.node.append(n.group);
        }
        if (n.group) n.group.hidden = !n.open;
        n.node.setAttribute("aria-expanded", String(n.open));
        n.toggle.textContent = n.open ? "▼" : "▶";
      };
      const visible = () => [...tree.querySelectorAll("[role=treeitem]")].filter((x) => !x.hidden && x.offsetParent !== null);
      const focus = (n) => {
        for (const x of tree.querySelectorAll("[tabindex='0']")) x.tabIndex = -1;
        n.node.tabIndex = 0;
        n.node.focus({ preventScroll: true });
        n.node.firstElementChild.scrollIntoView({ block: "nearest" });
      };
      tree.addEventListener("keydown", (e) => {
        const n = document.activeElement.owner;
        if (!n) return;
        const list = visible(), i = list.indexOf(n.node);
        const go = { ArrowDown: i + 1, ArrowUp: i - 1, Home: 0, End: list.length - 1 }[e.key];
        if (go !== undefined && list[go]) focus(list[go].owner);
        else if (e.key === "ArrowRight") { if (!n.open) toggle(n, true); else if (n.kids[0]) focus(n.kids[0]); }
        else if (e.key === "ArrowLeft") { if (n.open) toggle(n, false); else if (n.up) focus(n.up); }
        else if (e.key === "Enter" || e.key === " ") { if (n.level === "brick") at.select(n.name); else toggle(n); }
        else if (e.key === "*") visit(root, (k) => k.node && toggle(k, true));
        else return;
        e.preventDefault();
      });
      const openAll = (to) => { visit(root, (n) => { if (n.node && n.level !== "model" && (n.level === "layer" || !to)) toggle(n, to); }); toggle(root, true); };
      const search = B.el("input", { type: "search", placeholder: "search bricks and kernels", "aria-label": "Search the graph" });
      const found = B.el("span", { class: "note", role: "status" });
      const filter = () => {
        const q = search.value.trim().toLowerCase();
        let hits = 0;
        const mark = (n) => {
          const own = q && B.clean(n.name).toLowerCase().includes(q);
          hits += own && n.level !== "kernel" ? 1 : 0;
          const below = n.kids.map(mark).some(Boolean);
          n.shown = !q || own || below || (n.up && n.up.own && n.level === "kernel");
          n.own = own;
          n.below = below;
          return own || below;
        };
        mark(root);
        const apply = (n) => {
          if (q && n.below) toggle(n, true);
          n.text.replaceChildren(...label(n, q));
          for (const k of n.kids) if (k.node) { k.node.hidden = !k.shown; apply(k); }
        };
        apply(root);
        found.textContent = q ? B.count(hits, "match").replace("matchs", "matches") : "";
      };
      search.addEventListener("input", filter);
      body.append(B.el("div", { class: "tools noprint" },
        B.seg("Colour", [["time", "by time"], ...(bounded ? [["roofline", "by distance from the roofline"]] : [])], "time", (k) => { by = k; repaint(); }),
        search, found, B.el("span", { class: "gap" }), ramp,
        B.el("button", { type: "button", onclick: () => openAll(true) }, "open layers"), B.el("button", { type: "button", onclick: () => openAll(false) }, "close")), tree);
      tree.append(B.el("div", { class: "row thead", role: "presentation" }, ["scope", "time", "µs/token", "× bound*", "limited by*", "kernel"].map((t, i) => B.el("span", { class: i > 1 && i < 5 ? "num" : null }, t))), item(root, 0));
      root.node.tabIndex = 0;
      toggle(root, true);
      const first = root.kids.find((k) => k.level === "layer");
      if (first) toggle(first, true);
      repaint();
      at.onSelect((name) => {
        let target = null;
        visit(root, (n) => { if (n.level === "brick" && n.name === name) target = n; });
        if (target && target.up && !target.up.open) toggle(target.up, true);
        else if (target && !target.node) for (const k of root.kids) if (k.kids.includes(target)) toggle(k, true);
        for (const x of tree.querySelectorAll("[data-sel]")) x.firstElementChild.style.background = x.dataset.sel === name ? "color-mix(in srgb, var(--accent) 16%, transparent)" : "";
        if (target && target.node) tree.scrollTop = target.node.offsetTop - tree.clientHeight / 2;
      });
    },
  };
}

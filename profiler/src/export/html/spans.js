"use strict";
// A chart of spans on tracks with a common axis: zoom, pan, tooltips, keyboard. The flame chart and the icicle are this.
{
  const ROW = 26, AXIS = 24, PAD = 2;
  /** Steps of 1, 2, 5 × 10ⁿ, about `n` of them. */
  const ticks = (a, b, n) => {
    const raw = (b - a) / Math.max(1, n), mag = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((k) => k * mag).find((k) => k >= raw);
    const out = [];
    for (let x = Math.ceil(a / step) * step; x <= b + step * 1e-6 && out.length < 100; x += step) out.push(x);
    return out;
  };

  /**
   * `tracks`: [{ label, spans: [{ a, b, name, color, pairs, sel }] }], spans of a track in order and without overlap.
   * Gives { set(tracks), zoom(a, b) }.
   */
  B.spanChart = (box, options) => {
    const canvas = B.el("canvas", { tabindex: "0", role: "img", "aria-label": options.label });
    const live = B.el("p", { class: "note", role: "status" });
    box.append(canvas, live);
    const ctx = canvas.getContext("2d");
    let tracks = [], all = [0, 1], view = [0, 1], selected = null, cursor = null, drag = null;
    const width = () => canvas.clientWidth || 1000;
    const gutter = () => Math.min(78, width() / 6);
    const toX = (t) => gutter() + ((t - view[0]) / (view[1] - view[0])) * (width() - gutter() - 4);
    const toT = (x) => view[0] + ((x - gutter()) / (width() - gutter() - 4)) * (view[1] - view[0]);

    const draw = () => {
      const w = width(), h = AXIS + tracks.length * ROW + 4, dpr = devicePixelRatio || 1;
      canvas.style.height = h + "px";
      if (canvas.width !== Math.round(w * dpr) || canvas.height !== Math.round(h * dpr)) { canvas.width = Math.round(w * dpr); canvas.height = Math.round(h * dpr); }
      ctx.setTransform(dpr, 0, 0, dpr, 0, 0);
      const [card, ink, soft, grid, accent] = ["--card", "--ink", "--soft", "--line2", "--accent"].map(B.css);
      ctx.fillStyle = card;
      ctx.fillRect(0, 0, w, h);
      ctx.font = "11.5px system-ui, sans-serif";
      ctx.textBaseline = "middle";
      const g = gutter();
      for (const t of ticks(view[0], view[1], (w - g) / 110)) {
        const x = toX(t);
        ctx.fillStyle = grid;
        ctx.fillRect(x, AXIS - 4, 1, h);
        ctx.fillStyle = soft;
        const text = options.tick(t, view[1] - view[0]);
        if (x + ctx.measureText(text).width + 4 < w) ctx.fillText(text, x + 4, AXIS / 2);
      }
      tracks.forEach((track, i) => {
        const y = AXIS + i * ROW;
        ctx.save();
        ctx.beginPath();
        ctx.rect(g, y, w - g, ROW);
        ctx.clip();
        let covered = -1;
        for (const s of track.spans) {
          if (s.b < view[0] || s.a > view[1]) continue;
          const x = Math.max(g, toX(s.a)), x2 = Math.min(w, toX(s.b));
          // Of many spans within one pixel the first is drawn.
          if (x2 < covered + 0.35) continue;
          const wide = Math.max(0.7, x2 - x - (x2 - x > 3 ? 1 : 0));
          covered = x + wide;
          ctx.fillStyle = s.color || soft;
          ctx.fillRect(x, y + PAD, wide, ROW - 2 * PAD);
          if (s === cursor || (selected && s.sel === selected)) {
            ctx.strokeStyle = s === cursor ? ink : accent;
            ctx.lineWidth = 2;
            ctx.strokeRect(x + 1, y + PAD + 1, Math.max(1, wide - 2), ROW - 2 * PAD - 2);
          }
          if (wide > 26) {
            ctx.fillStyle = B.inkOn(s.color || "#777777");
            let text = s.short && ctx.measureText(s.name).width > wide - 8 ? s.short : s.name;
            if (ctx.measureText(text).width > wide - 8) {
              const fits = Math.floor(((wide - 12) / ctx.measureText(text).width) * text.length);
              text = fits > 1 ? text.slice(0, fits) + "…" : "";
            }
            ctx.fillText(text, x + 4, y + ROW / 2 + 0.5);
          }
        }
        ctx.restore();
        ctx.fillStyle = soft;
        ctx.fillText(track.label, 6, y + ROW / 2 + 0.5);
      });
    };
    const clamp = (a, b) => {
      const span = Math.min(all[1] - all[0], Math.max(b - a, (all[1] - all[0]) * 1e-5));
      const start = Math.min(all[1] - span, Math.max(all[0], a));
      view = [start, start + span];
      draw();
    };
    const zoomAt = (t, k) => clamp(t - (t - view[0]) * k, t + (view[1] - t) * k);
    const hit = (e) => {
      const r = canvas.getBoundingClientRect(), track = tracks[Math.floor((e.clientY - r.top - AXIS) / ROW)];
      const x = e.clientX - r.left;
      if (!track || x < gutter()) return null;
      const t = toT(x), slack = (view[1] - view[0]) / width();
      return track.spans.find((s) => s.a <= t && t < s.b) || track.spans.find((s) => s.a - slack <= t && t < s.b + slack) || null;
    };
    const say = (s) => { live.textContent = B.clean(s.name) + ": " + s.pairs.filter((p) => p[1] && p[1] !== "–").slice(0, 3).map((p) => p.join(" ")).join(", "); };

    canvas.addEventListener("wheel", (e) => {
      // A page scrolls on until the chart was chosen: clicked, tabbed to, or Ctrl held.
      if (document.activeElement !== canvas && !e.ctrlKey && !e.metaKey) return;
      e.preventDefault();
      const scale = e.deltaMode === 1 ? 16 : 1;
      if (Math.abs(e.deltaX) > Math.abs(e.deltaY) || e.shiftKey) {
        const d = ((e.deltaX || e.deltaY) * scale * (view[1] - view[0])) / width();
        clamp(view[0] + d, view[1] + d);
      } else zoomAt(toT(e.clientX - canvas.getBoundingClientRect().left), Math.exp(e.deltaY * scale * 0.0018));
    }, { passive: false });
    canvas.addEventListener("pointerdown", (e) => { drag = { x: e.clientX, view: [...view], moved: false }; canvas.setPointerCapture(e.pointerId); canvas.focus({ preventScroll: true }); });
    canvas.addEventListener("pointermove", (e) => {
      if (drag) {
        const d = ((drag.x - e.clientX) / (width() - gutter())) * (drag.view[1] - drag.view[0]);
        if (Math.abs(drag.x - e.clientX) > 3) { drag.moved = true; canvas.classList.add("drag"); B.untip(); }
        if (drag.moved) return clamp(drag.view[0] + d, drag.view[1] + d);
      }
      const s = hit(e);
      if (s) B.tip(e.clientX, e.clientY, s.name, s.pairs); else B.untip();
    });
    canvas.addEventListener("pointerup", (e) => {
      const moved = drag && drag.moved;
      drag = null;
      canvas.classList.remove("drag");
      if (moved) return;
      const s = hit(e);
      cursor = s;
      if (s) { say(s); if (s.sel) options.select(s.sel); }
      draw();
    });
    canvas.addEventListener("pointerleave", B.untip);
    canvas.addEventListener("dblclick", (e) => { const s = hit(e); if (s) clamp(s.a, s.b); });
    canvas.addEventListener("keydown", (e) => {
      const span = view[1] - view[0], mid = (view[0] + view[1]) / 2;
      const step = (d) => {
        const i = Math.max(0, tracks.findIndex((t) => t.spans.includes(cursor)));
        const track = cursor ? tracks[i] : tracks[tracks.length - 1];
        if (!track) return;
        cursor = track.spans[Math.min(track.spans.length - 1, Math.max(0, track.spans.indexOf(cursor) + d))];
        reveal();
      };
      const level = (d) => {
        const i = tracks.findIndex((t) => t.spans.includes(cursor));
        const next = cursor && tracks[i + d];
        if (next) { const m = (cursor.a + cursor.b) / 2; cursor = next.spans.find((s) => s.a <= m && m < s.b) || cursor; reveal(); }
      };
      const reveal = () => { if (!cursor) return; if (cursor.a < view[0] || cursor.b > view[1]) { const m = (cursor.a + cursor.b) / 2, s = Math.max(span, cursor.b - cursor.a); clamp(m - s / 2, m + s / 2); } else draw(); say(cursor); };
      const keys = {
        "+": () => zoomAt(mid, 0.7), "=": () => zoomAt(mid, 0.7), w: () => zoomAt(mid, 0.7),
        "-": () => zoomAt(mid, 1 / 0.7), s: () => zoomAt(mid, 1 / 0.7),
        ArrowLeft: () => clamp(view[0] - span * 0.15, view[1] - span * 0.15), a: () => clamp(view[0] - span * 0.15, view[1] - span * 0.15),
        ArrowRight: () => clamp(view[0] + span * 0.15, view[1] + span * 0.15), d: () => clamp(view[0] + span * 0.15, view[1] + span * 0.15),
        "0": () => clamp(...all), Home: () => clamp(...all), n: () => step(1), p: () => step(-1), ArrowDown: () => level(1), ArrowUp: () => level(-1),
        Enter: () => { if (cursor) { clamp(cursor.a, cursor.b); if (cursor.sel) options.select(cursor.sel); } },
      };
      if (e.ctrlKey || e.metaKey || e.altKey || !keys[e.key]) return;
      e.preventDefault();
      keys[e.key]();
    });
    B.onResize(canvas, draw);
    addEventListener("beforeprint", draw);
    return {
      set(next, range) { tracks = next; all = range; view = [...range]; cursor = null; live.textContent = ""; draw(); },
      select(name) { selected = name; draw(); },
      reset() { clamp(...all); },
      zoom(k) { zoomAt((view[0] + view[1]) / 2, k); },
    };
  };
  B.chartTools = (chart) => B.el("span", { class: "seg" },
    B.el("button", { type: "button", "aria-label": "Zoom in", onclick: () => chart.zoom(0.6) }, "+"),
    B.el("button", { type: "button", "aria-label": "Zoom out", onclick: () => chart.zoom(1 / 0.6) }, "−"),
    B.el("button", { type: "button", onclick: () => chart.reset() }, "all"));
}

"use strict";
// One namespace. Text from the profile is only ever set as text or as an attribute, never as markup.
const B = { errors: 0, sections: {}, names: {}, dark: matchMedia("(prefers-color-scheme: dark)") };

addEventListener("error", () => { B.errors++; B.report(); });
addEventListener("unhandledrejection", () => { B.errors++; B.report(); });
B.report = () => { document.documentElement.dataset.errors = String(B.errors); };

// ---- elements -------------------------------------------------------------------------------------------------------

B.make = (node, attrs, children) => {
  for (const [k, v] of Object.entries(attrs || {})) {
    if (v === null || v === undefined || v === false) continue;
    if (k.startsWith("on")) node.addEventListener(k.slice(2), v);
    else if (k === "style") for (const [p, x] of Object.entries(v)) node.style.setProperty(p, x);
    else node.setAttribute(k, v === true ? "" : String(v));
  }
  for (const c of children.flat(3)) if (c !== null && c !== undefined && c !== false) node.append(c);
  return node;
};
B.el = (tag, attrs, ...children) => B.make(document.createElement(tag), attrs, children);
B.svg = (tag, attrs, ...children) => B.make(document.createElementNS("http://www.w3.org/2000/svg", tag), attrs, children);
/** A figure that is drawn again when its box changes size or colours change. */
B.onResize = (box, draw) => {
  let last = -1;
  // What is hidden has no width; it is drawn when it is shown.
  const again = () => { const w = box.clientWidth; if (w > 0 && w !== last) draw(); last = w; };
  new ResizeObserver(again).observe(box);
  B.dark.addEventListener("change", draw);
};

// ---- numbers: the rules of the text report --------------------------------------------------------------------------

B.is = (x) => typeof x === "number" && Number.isFinite(x);
B.digits = (a) => (a < 0.1 && a > 0 ? 4 : a < 10 ? 3 : a < 100 ? 2 : a < 10000 ? 1 : 0);
B.num = (x) => (B.is(x) ? x.toFixed(B.digits(Math.abs(x))) : "–");
B.pct = (x) => (B.is(x) ? (x * 100).toFixed(1) + "%" : "–");
B.times = (x) => (B.is(x) ? (x >= 1000 ? x.toFixed(0) : x.toFixed(2)) + "×" : "–");
B.dur = (us) => (!B.is(us) ? "–" : us < 1 ? (us * 1e3).toFixed(0) + " ns" : us < 1e3 ? us.toFixed(1) + " µs" : us < 1e6 ? (us / 1e3).toFixed(2) + " ms" : (us / 1e6).toFixed(2) + " s");
B.bytes = (n) => {
  if (!B.is(n)) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let i = 0;
  while (n >= 1024 && i < 4) { n /= 1024; i++; }
  return (Number.isInteger(n) ? n : n.toFixed(1)) + " " + units[i];
};
B.count = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;
/** Short, for axes: 1, 0.01, 10k, 1M. */
B.si = (x) => (x >= 1e9 ? +(x / 1e9).toPrecision(3) + "G" : x >= 1e6 ? +(x / 1e6).toPrecision(3) + "M" : x >= 1e3 ? +(x / 1e3).toPrecision(3) + "k" : String(+x.toPrecision(3)));
/** Control characters and direction marks become visible, as in the text report. */
B.clean = (s) => String(s).replace(/[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g, "\ufffd");
B.kind = (k) => (B.names[k] && B.names[k].name) || B.clean(k);

// ---- what follows from a row ----------------------------------------------------------------------------------------

B.p50 = (r) => (r.measured.us_per_token ? r.measured.us_per_token.p50 : r.measured.mean_us_per_token);
B.ops = (r) => r.derived.work.int_ops_per_token + r.derived.work.flops_per_token;
B.gops = (r) => {
  const w = r.derived.work;
  return B.is(w.int_gop_per_s) || B.is(w.gflop_per_s) ? (w.int_gop_per_s || 0) + (w.gflop_per_s || 0) : null;
};
B.bound = (r) => r.derived.bound || null;
B.fraction = (r) => (r.derived.bound && B.is(r.derived.bound.fraction) ? r.derived.bound.fraction : null);
B.verdict = { within: ["within", "within"], over: ["OVER", "over"], no_budget: ["no budget", "none"], not_measured: ["not measured", "none"] };
B.flag = {
  above_measured_bandwidth: "more GB/s than measured on this machine: served from a nearer cache, or not read",
  above_measured_int8_peak: "more int8 GOP/s than measured on this machine: count or clock is wrong",
  above_measured_f32_peak: "more f32 GFLOP/s than measured on this machine: count or clock is wrong",
  near_clock_resolution: "calls last less than ten clock ticks: the time is a rough one",
};

// ---- colours --------------------------------------------------------------------------------------------------------

// One hue family per category: norms grey-blue, attention blue to violet, feed-forward red to amber, the rest green.
B.palette = {
  embed: ["#4f8f5b", "#6fb57c"], rms_norm: ["#7c8b9c", "#93a2b3"], final_norm: ["#a3adb8", "#6c7886"],
  qkv: ["#2f6db3", "#5c9be0"], rope: ["#6aa7d8", "#8cc3ee"], kv_write: ["#3f4fa0", "#7f8fe6"],
  attention: ["#7a4fb5", "#a680e0"], o_proj: ["#1f8fa8", "#4db9d1"], residual: ["#8aa63a", "#aac75c"],
  gate_up: ["#c0472c", "#e5714f"], activation: ["#e0a030", "#f0bd5c"], down: ["#dc7a3c", "#f0975a"],
  lm_head: ["#2b7d6c", "#47ab97"], sample: ["#9a7b4f", "#c0a274"], custom: ["#6b6b6b", "#9b9b9b"],
};
B.color = (kind) => (B.palette[kind] || B.palette.custom)[B.dark.matches ? 1 : 0];
/** The same for elements, which follow a change from light to dark by themselves. */
B.tint = (kind) => `var(--k-${B.palette[kind] ? kind : "custom"})`;
B.dye = () => { for (const k of Object.keys(B.palette)) document.documentElement.style.setProperty(`--k-${k}`, B.color(k)); };
B.dark.addEventListener("change", B.dye);
B.dye();
B.css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const mix = (a, b, t) => "#" + [1, 3, 5].map((i) => {
  const [x, y] = [parseInt(a.slice(i, i + 2), 16), parseInt(b.slice(i, i + 2), 16)];
  return Math.round(x + (y - x) * t).toString(16).padStart(2, "0");
}).join("");
B.ramp = (stops, t) => {
  const x = Math.min(1, Math.max(0, t)) * (stops.length - 1), i = Math.min(stops.length - 2, Math.floor(x));
  return mix(stops[i], stops[i + 1], x - i);
};
const HEAT = [["#f6e3d8", "#eb9a72", "#b5432a", "#6d1a12"], ["#2c2625", "#7a3a2a", "#d2603f", "#ffc09a"]];
const FAR = ["#1f8f80", "#8fc2a0", "#f0d58a", "#e08a4c", "#b5302a"];
B.heat = (t) => B.ramp(HEAT[B.dark.matches ? 1 : 0], t);
/** Distance from the roofline: at it 0, ten times as slow (or worse) 1. */
B.far = (fraction) => (B.is(fraction) && fraction > 0 ? Math.min(1, Math.max(0, -Math.log10(Math.min(1, fraction)))) : null);
B.farColor = (fraction) => { const t = B.far(fraction); return t === null ? null : B.ramp(FAR, t); };
B.heatGradient = () => `linear-gradient(90deg, ${HEAT[B.dark.matches ? 1 : 0].join(",")})`;
B.farGradient = () => `linear-gradient(90deg, ${FAR.join(",")})`;
/** Black or white, whichever reads better on a colour. */
B.inkOn = (hex) => {
  const [r, g, b] = [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16) / 255);
  return 0.3 * r + 0.59 * g + 0.11 * b > 0.56 ? "#16181b" : "#ffffff";
};

// ---- tooltip --------------------------------------------------------------------------------------------------------

/** `title` and pairs of a name and a text; pairs without a text are left out. */
B.tip = (x, y, title, pairs) => {
  const tip = document.getElementById("tip");
  tip.replaceChildren(B.el("b", {}, B.clean(title)), B.el("dl", {}, (pairs || []).filter((p) => p && p[1] != null && p[1] !== "–")
    .map(([k, v]) => [B.el("dt", {}, k), B.el("dd", {}, B.clean(v))])));
  tip.hidden = false;
  const [w, h] = [tip.offsetWidth, tip.offsetHeight];
  tip.style.left = Math.max(6, x + 16 + w > innerWidth ? x - w - 12 : x + 16) + "px";
  tip.style.top = Math.max(6, y + 18 + h > innerHeight ? y - h - 12 : y + 18) + "px";
};
B.untip = () => { document.getElementById("tip").hidden = true; };
addEventListener("scroll", B.untip, { passive: true });
addEventListener("keydown", (e) => { if (e.key === "Escape") B.untip(); });
/** Shows a tooltip on hover and on keyboard focus. */
B.tipped = (node, title, pairs) => {
  const at = (e) => B.tip(e.clientX, e.clientY, title(), pairs());
  node.addEventListener("mousemove", at);
  node.addEventListener("mouseleave", B.untip);
  node.addEventListener("focus", () => { const r = node.getBoundingClientRect(); B.tip(r.right, r.top, title(), pairs()); });
  node.addEventListener("blur", B.untip);
  return node;
};
/** What a tooltip says of a row. */
B.facts = (r, extra) => [
  ...(extra || []),
  ["p50", B.num(B.p50(r)) + " µs/token"],
  ["mean", B.num(r.measured.mean_us_per_token) + " µs/token"],
  ["calls", String(r.measured.calls)],
  ["share*", B.pct(r.derived.share)],
  ["rate*", [B.is(r.derived.work.gb_per_s) ? B.num(r.derived.work.gb_per_s) + " GB/s" : "", B.gops(r) !== null ? B.num(B.gops(r)) + " GOP/s" : ""].filter(Boolean).join(", ") || "–"],
  ["bound*", B.bound(r) ? `${B.num(B.bound(r).us_per_token)} µs/token (${B.clean(B.bound(r).resource)})` : "–"],
  ["of the bound*", B.pct(B.fraction(r))],
  ["budget*", r.derived.budget ? `${B.num(r.derived.budget.us_per_token)} µs/token, ${B.times(r.derived.budget.gap_factor)}` : "–"],
];

// ---- small pieces of interface --------------------------------------------------------------------------------------

/** Buttons of which one is pressed. */
B.seg = (label, options, value, change) => {
  const box = B.el("span", { class: "seg", role: "group", "aria-label": label });
  for (const [key, text] of options) {
    box.append(B.el("button", { type: "button", "aria-pressed": String(key === value), onclick: (e) => {
      for (const b of box.children) b.setAttribute("aria-pressed", String(b === e.currentTarget));
      change(key);
    } }, text));
  }
  return box;
};
B.empty = (text) => B.el("p", { class: "empty" }, text);

"use strict";
// Only for tests: uses everything on the page once, as a hurried reader would. Errors count like any other.
{
  let used = 0;
  // Of many alike, the first: a model of 128 layers has a thousand bricks.
  const every = (selector, f) => { for (const x of [...document.querySelectorAll(selector)].slice(0, 48)) { f(x); used++; } };
  const key = (node, k) => node.dispatchEvent(new KeyboardEvent("keydown", { key: k, bubbles: true, cancelable: true }));
  const mouse = (node, type, x, y) => node.dispatchEvent(new PointerEvent(type, { clientX: x, clientY: y, bubbles: true, pointerId: 1 }));
  const phases = [...document.querySelectorAll("[role=tab]")];
  for (const tab of phases) {
    tab.click();
    key(tab, "ArrowRight");
    tab.click();
    const host = document.getElementById(tab.getAttribute("aria-controls"));
    if (host.hidden) throw new Error(`the tab of ${host.id} does not show it`);
    const within = (s, f) => every(`#${host.id} ${s}`, f);
    within("select", (s) => { for (const o of s.options) { s.value = o.value; s.dispatchEvent(new Event("change")); } s.selectedIndex = 0; s.dispatchEvent(new Event("change")); });
    for (const text of ["layer 1", "ffn", "(", "\\", "no such thing", ""]) within("input[type=search]", (i) => { i.value = text; i.dispatchEvent(new Event("input")); });
    within("button", (b) => b.click());
    within("th button", (b) => { b.click(); b.click(); });
    within("[role=treeitem]", (t) => { t.focus(); for (const k of ["ArrowDown", "ArrowRight", "ArrowLeft", "ArrowUp", "Home", "End", "*", " "]) key(document.activeElement, k); });
    within("canvas", (c) => {
      c.focus();
      const r = c.getBoundingClientRect();
      for (const k of ["n", "n", "p", "ArrowUp", "ArrowDown", "Enter", "+", "-", "w", "a", "s", "d", "ArrowLeft", "ArrowRight", "0", "Home"]) key(c, k);
      c.dispatchEvent(new WheelEvent("wheel", { deltaY: -300, clientX: r.left + r.width / 2, clientY: r.top + 40, cancelable: true }));
      c.dispatchEvent(new WheelEvent("wheel", { deltaX: 200, clientX: r.left + 200, clientY: r.top + 40, cancelable: true }));
      for (const y of [10, 40, 66, 92, 118]) mouse(c, "pointermove", r.left + r.width / 2, r.top + y);
      c.dispatchEvent(new MouseEvent("dblclick", { clientX: r.left + r.width / 2, clientY: r.top + 92 }));
      key(c, "0");
    });
    within("svg[tabindex], [tabindex] svg", (s) => { for (const k of ["ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp", "Enter"]) key(s, k); });
    within("[data-cell], .pt, .stack span, .strip button", (n) => { n.dispatchEvent(new MouseEvent("mousemove", { clientX: 5, clientY: 5 })); if (n.focus) n.focus(); n.dispatchEvent(new MouseEvent("click", { bubbles: true })); });
    within("tr[data-sel]", (tr) => tr.click());
  }
  dispatchEvent(new Event("beforeprint"));
  dispatchEvent(new Event("scroll"));
  key(document.body, "Escape");
  document.documentElement.dataset.exercised = String(used);
}

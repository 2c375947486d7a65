"use strict";
// Heat maps to choose from: views, choices and cells come with the page as JSON.
(() => {
  const viridis = ["#440154", "#482878", "#3e4989", "#31688e", "#26828e", "#1f9e89",
    "#35b779", "#6ece58", "#b5de2b", "#fde725"];
  const diverging = ["#053061", "#2166ac", "#4393c3", "#92c5de", "#d1e5f0", "#f7f7f7",
    "#fddbc7", "#f4a582", "#d6604d", "#b2182b", "#67001f"];
  const missing = "#d9d9d9", below = "#e34a6f";
  const inside = document.createElement("div");
  inside.innerHTML = "<svg></svg>";
  const NS = inside.firstChild.namespaceURI;
  const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));

  function colour(value, view) {
    if (value === null) return missing;
    const stops = view.low < 0 ? diverging : viridis;
    if (view.low === 0 && value < 0) return below;
    const t = Math.min(Math.max((value - view.low) / (view.high - view.low), 0), 1);
    const at = t * (stops.length - 1), k = Math.min(Math.floor(at), stops.length - 2);
    const [a, b] = [rgb(stops[k]), rgb(stops[k + 1])];
    return `rgb(${a.map((v, i) => Math.round(v + (at - k) * (b[i] - v))).join(",")})`;
  }

  function element(parent, name, attributes, text) {
    const space = parent.namespaceURI === NS || name === "svg" ? NS : null;
    const made = space ? document.createElementNS(NS, name)
      : document.createElement(name);
    for (const [key, value] of Object.entries(attributes || {}))
      made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    parent.append(made);
    return made;
  }

  function explore(box) {
    const data = JSON.parse(box.querySelector("script").textContent);
    const form = element(box, "p"), state = { view: 0, at: data.choices.map(() => 0) };
    const shown = (value) => value === null ? "no value"
      : value.toFixed(3).replace("-", "−");
    const label = (name) => element(form, "label", {}, `${name} `);
    if (data.views.length > 1) {
      const select = element(label("show"), "select", { name: "view" });
      data.views.forEach((v, i) => element(select, "option", { value: i }, v.name));
      select.addEventListener("change", () => { state.view = +select.value; draw(); });
    }
    data.choices.forEach((choice, i) => {
      const last = choice.options.length - 1;
      if (choice.name === "step") {
        state.at[i] = last;
        const range = element(label("step"), "input",
          { type: "range", min: 0, max: last, value: last, name: "step" });
        const said = element(form, "output", {}, choice.options[last]);
        range.addEventListener("input", () => {
          state.at[i] = +range.value;
          said.textContent = choice.options[state.at[i]];
          range.setAttribute("aria-valuetext", said.textContent);
          draw();
        });
      } else {
        const select = element(label(choice.name), "select", { name: choice.name });
        choice.options.forEach((o, k) => element(select, "option", { value: k }, o));
        state.at[i] = Math.min(1, last);
        select.value = state.at[i];
        select.addEventListener("change", () => {
          state.at[i] = +select.value;
          draw();
        });
      }
    });
    const cells = () => state.at.reduce((v, k) => v[k], data.views[state.view].values);
    const readout = element(box, "p", { class: "soft", "aria-live": "polite" },
      "Point at a cell, or move with the arrow keys.");
    const [ny, nx] = [data.rows.length, data.columns.length];
    const [side, left, foot] = [Math.max(8, Math.min(36, 380 / Math.max(nx, ny))), 90, 70];
    const [width, height] = [left + nx * side + 80, ny * side + foot + 8];
    const svg = element(box, "svg", { viewBox: `0 0 ${width} ${height}`, role: "group",
      "aria-label": `heat map of ${ny} by ${nx} ${data.what}s` });
    const rects = data.rows.map((row, y) => data.columns.map((column, x) => {
      const rect = element(svg, "rect", { x: left + x * side,
        y: (ny - 1 - y) * side + 4, width: side, height: side, role: "img",
        tabindex: x + y ? -1 : 0 });
      const tell = () => {
        readout.textContent = `${row} × ${column}: ${shown(cells()[y][x])}`;
      };
      rect.addEventListener("mouseenter", tell);
      rect.addEventListener("focus", tell);
      rect.addEventListener("keydown", (event) => {
        const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [1, 0],
          ArrowDown: [-1, 0] }[event.key];
        const next = step && rects[y + step[0]] && rects[y + step[0]][x + step[1]];
        if (!next) return;
        event.preventDefault();
        rect.setAttribute("tabindex", -1);
        next.setAttribute("tabindex", 0);
        next.focus();
      });
      return rect;
    }));
    const every = (n) => Math.ceil(n * 12 / (n * side));
    data.rows.forEach((name, y) => {
      if (y % every(ny) === 0) element(svg, "text", { x: left - 4, "text-anchor": "end",
        y: (ny - 1 - y) * side + side / 2 + 8 }, name);
    });
    data.columns.forEach((name, x) => {
      const [px, py] = [left + x * side + side / 2 + 4, ny * side + 10];
      if (x % every(nx) === 0) element(svg, "text", { x: px, y: py,
        "text-anchor": "end", transform: `rotate(-60 ${px} ${py})` }, name);
    });
    const bar = Array.from({ length: 20 }, (_, k) => element(svg, "rect", {
      x: left + nx * side + 14, width: 14, y: 4 + (19 - k) * ny * side / 20,
      height: ny * side / 20 + 0.5 }));
    const ends = [element(svg, "text", { x: left + nx * side + 32, y: ny * side + 2 }),
      element(svg, "text", { x: left + nx * side + 32, y: 14 })];

    function draw() {
      const view = data.views[state.view], now = cells();
      rects.forEach((line, y) => line.forEach((rect, x) => {
        rect.setAttribute("fill", colour(now[y][x], view));
        rect.setAttribute("aria-label",
          `${data.rows[y]} × ${data.columns[x]}: ${shown(now[y][x])}`);
      }));
      bar.forEach((rect, k) => rect.setAttribute("fill",
        colour(view.low + (k + 0.5) / 20 * (view.high - view.low), view)));
      [view.low, view.high].forEach((v, i) => {
        ends[i].textContent = v.toFixed(2).replace("-", "−");
      });
    }
    draw();
    box.hidden = false;
  }

  document.querySelectorAll(".explorer").forEach(explore);
  // A vector picture is in the page already: saving it needs no folder beside it.
  document.querySelectorAll("a.save").forEach((link) => {
    const image = document.querySelector(`img[data-stem="${link.dataset.stem}"]`);
    if (image && image.src.startsWith("data:image/svg")) {
      link.href = image.src;
      link.download = `${link.dataset.stem}.svg`;
    }
  });
})();

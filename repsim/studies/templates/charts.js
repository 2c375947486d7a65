"use strict";
// Draws the page's charts; says the cell under the arrow keys, and the slider's step.
document.querySelectorAll(".explorer").forEach(async (box) => {
  const spec = JSON.parse(box.querySelector("script").textContent);
  const value = (name) => spec.params.find((p) => p.name === name).value;
  const [chart, readout] = [box.querySelector(".chart"), box.querySelector("[aria-live]")];
  box.hidden = false;
  const room = box.clientWidth - 190;
  if (spec.width > room) {
    spec.height *= room / spec.width;
    spec.width = room;
  }
  const { view } = await vegaEmbed(chart, spec, {
    renderer: "svg", bind: box.querySelector(".choices"), downloadFileName: box.id,
    actions: { export: true, source: false, compiled: false, editor: false } });
  const [ny, nx] = [value("rows").length, value("columns").length];
  const cells = () => [...chart.querySelectorAll("[aria-roledescription='rect mark']")];
  const say = (at) => {
    if (at >= 0) readout.textContent = cells()[at].getAttribute("aria-label");
  };
  const range = box.querySelector("input[type=range]");
  const settle = async () => {
    await view.runAsync();
    say(view.signal("at"));
    if (!range) return;
    const step = value("steps")[view.signal("step")];
    range.parentElement.querySelector("span:last-of-type").textContent = step;
    range.setAttribute("aria-valuetext", step);
  };
  for (const { bind, name } of spec.params) if (bind) view.addSignalListener(name, settle);
  chart.addEventListener("mouseover", (event) => say(cells().indexOf(event.target)));
  chart.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: nx, ArrowDown: -nx }[event.key];
    if (!by || event.target !== chart) return;
    event.preventDefault();
    const now = view.signal("at"), next = now < 0 ? 0 : now + by;
    const sideways = Math.abs(by) === 1 && now >= 0;
    const turned = sideways && Math.floor(next / nx) !== Math.floor(now / nx);
    if (next >= 0 && next < ny * nx && !turned) view.signal("at", next);
    settle();
  });
  await settle();
  box.dataset.drawn = "yes";
});

// The strips below: all frames of all methods, side by side.

function makeStrips() {
  const [frames] = data.shape;
  data.methods.forEach((one, index) => {
    const strip = Object.assign(document.createElement("div"), { className: "strip" });
    const narrowest = 48;
    strip.style.gridTemplateColumns = `132px repeat(${frames}, minmax(0, 1fr))`;
    strip.style.minWidth = `${140 + frames * (narrowest + 5)}px`;
    const button = Object.assign(document.createElement("button"), { textContent: one.name, title: one.name });
    button.addEventListener("click", () => chooseMethod(index));
    strip.append(button);
    for (let frame = 0; frame < frames; frame += 1) {
      const canvas = Object.assign(document.createElement("canvas"), { title: clock(frame) });
      canvas.addEventListener("click", () => {
        state.frame = frame;
        if (index === state.method) goTo(frame);
        else chooseMethod(index);
      });
      strip.append(canvas);
    }
    element("strips").append(strip);
  });
}

function drawStrips() {
  [...element("strips").children].forEach((strip, index) => {
    const isActive = index === state.method, lit = isActive ? state.lit : null;
    strip.classList.toggle("active", isActive);
    strip.classList.toggle("lighting", Boolean(lit));
    const canvases = [...strip.querySelectorAll("canvas")];
    if (isActive) keepInSight(canvases[state.frame]);
    canvases.forEach((canvas, frame) => {
      const isLit = Boolean(lit && lit.frames.has(frame));
      canvas.classList.toggle("now", frame === state.frame);
      canvas.classList.toggle("lit", isLit);
      const drawn = `${isActive ? `${state.stage},${state.view}` : ""}${isLit ? `,${[...lit.tokens]}` : ""}`;
      if (canvas.dataset.drawn === drawn) return; // nothing has changed
      canvas.dataset.drawn = drawn;
      drawFrame(canvas, 192, index, frame, isLit ? lit : null);
    });
  });
}

function keepInSight(canvas) {
  const strips = element("strips"), label = 140;
  const left = canvas.offsetLeft - strips.offsetLeft;
  if (left - label < strips.scrollLeft) strips.scrollLeft = left - label;
  const right = left + canvas.offsetWidth + 8 - strips.clientWidth;
  if (right > strips.scrollLeft) strips.scrollLeft = right;
}

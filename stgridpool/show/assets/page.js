// The page: what is chosen, what is under the pointer, and what to draw again when either changes.

const element = (id) => document.getElementById(id);
const state = { method: 0, stage: 0, view: 0, frame: 0, lit: null, isKept: false, timer: null };
let data;

const method = () => data.methods[state.method];
const stage = () => method().stages[state.stage];

function shownFrame() {
  // The frame whose patches are drawn: one with sources of the token under the pointer, if the chosen one has none.
  if (!state.lit || !state.lit.frames.size || state.lit.frames.has(state.frame)) return state.frame;
  return [...state.lit.frames].reduce((best, one) => (one[1] > best[1] ? one : best))[0];
}

function addButton(parent, words, isPressed, press, note = "") {
  const button = document.createElement("button");
  const name = document.createElement("b");
  name.textContent = words;
  button.append(name);
  if (note) button.append(Object.assign(document.createElement("small"), { textContent: note }));
  button.setAttribute("aria-pressed", String(isPressed));
  button.addEventListener("click", press);
  parent.append(button);
  return button;
}

function fillSwitches() {
  for (const id of ["methods", "stages", "views"]) element(id).replaceChildren();
  data.methods.forEach((one, index) => {
    const note = plural(one.stages.at(-1).count, "token");
    addButton(element("methods"), one.name, index === state.method, () => chooseMethod(index), note).title = one.options;
  });
  const { stages, heatMaps } = method();
  if (stages.length > 1) {
    stages.forEach((one, index) => {
      addButton(element("stages"), one.label, index === state.stage, () => change({ stage: index }), String(one.count));
    });
  }
  if (heatMaps.length) {
    ["provenance", ...heatMaps.map((heat) => heat.label)].forEach((label, index) => {
      addButton(element("views"), label, index === state.view, () => change({ view: index }));
    });
  }
  element("summary").textContent = method().summary;
  element("legend-groups").hidden = !stage().arrays.colour.some((rank) => rank >= 0);
}

function chooseMethod(index) {
  change({ method: index, stage: data.methods[index].stages.length - 1, view: 0 });
}

function change(values) {
  Object.assign(state, { lit: null, isKept: false }, values);
  fillSwitches();
  draw();
}

function goTo(frame) {
  state.frame = Math.min(Math.max(frame, 0), data.shape[0] - 1);
  if (!state.isKept) state.lit = null;
  draw();
}

function prepared(canvas, width) {
  const height = Math.round(width / data.aspect);
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  return canvas.getContext("2d");
}

function draw() {
  const width = Math.round((element("patches").clientWidth || 600) * Math.min(window.devicePixelRatio || 1, 2));
  drawFrame(element("patches"), width, state.method, shownFrame(), state.lit);
  drawTokens(data, stage(), state.frame, prepared(element("tokens"), width), state.lit);
  element("frame").value = state.frame;
  element("clock").textContent = `frame ${state.frame + 1} of ${data.shape[0]}${data.times ? ` · ${clock(state.frame)}` : ""}`;
  setTitles();
  drawStrips();
  report();
}

function setTitles() {
  const heat = state.view ? method().heatMaps[state.view - 1] : null;
  const range = heat ? ` from ${heat.low.toPrecision(3)} to ${heat.high.toPrecision(3)}` : "";
  if (heat && !state.lit) title("patches-title", heat.label, range);
  else title("patches-title", "Patches", `${data.times ? " at" : " of"} ${clock(shownFrame())}`);
  const count = tokensOfFrame(stage(), state.frame).length;
  title("tokens-title", "What the language model reads here", ` ${plural(count, "token")}`);
}

function title(id, words, note) {
  element(id).replaceChildren(Object.assign(document.createElement("b"), { textContent: words }), note);
}

function drawFrame(canvas, width, index, frame, lit) {
  const context = prepared(canvas, width);
  const one = data.methods[index], isActive = index === state.method;
  if (isActive && state.view && !lit) drawHeat(data, one.heatMaps[state.view - 1], frame, context);
  else drawPatches(data, isActive ? one.stages[state.stage] : one.stages.at(-1), frame, context, lit);
}

function lightTokens(tokens, patch = null) {
  // The sources of tokens, each with its weight as a share of the largest.
  const { offsets, sources, weights } = stage().arrays;
  const found = new Map();
  let largest = 0;
  for (const token of tokens) {
    for (let entry = offsets[token]; entry < offsets[token + 1]; entry += 1) {
      const weight = Math.abs(weights[entry]);
      found.set(sources[entry], (found.get(sources[entry]) || 0) + weight);
      largest = Math.max(largest, found.get(sources[entry]));
    }
  }
  const shares = new Map([...found].map(([source, weight]) => [source, weight / largest]));
  return { tokens: new Set(tokens), sources: shares, weights: found, patch, frames: sumsByFrame(found) };
}

function point(event, canvas) {
  const box = canvas.getBoundingClientRect();
  return [((event.clientX - box.left) / box.width) * canvas.width, ((event.clientY - box.top) / box.height) * canvas.height];
}

function tokenAt(event) {
  const canvas = element("tokens"), [x, y] = point(event, canvas);
  const boxes = tokenBoxes(data, stage(), state.frame, canvas.width, canvas.height);
  const hit = boxes.find(([, left, top, w, h]) => x >= left && x < left + w && y >= top && y < top + h);
  return hit ? lightTokens([hit[0]]) : null;
}

function patchAt(event) {
  const canvas = element("patches"), [x, y] = point(event, canvas), [, rows, columns] = data.shape;
  const row = Math.floor((y / canvas.height) * rows), column = Math.floor((x / canvas.width) * columns);
  if (row < 0 || row >= rows || column < 0 || column >= columns) return null;
  const patch = (shownFrame() * rows + row) * columns + column;
  const { starts, tokens } = tokensOfPatches(stage());
  return lightTokens([...tokens.subarray(starts[patch], starts[patch + 1])], patch);
}

function light(found) {
  const name = (lit) => (lit ? `${lit.patch}:${[...lit.tokens]}` : "");
  if (name(found) === name(state.lit)) return;
  state.lit = found;
  draw();
}

function watch(canvas, find) {
  canvas.addEventListener("pointermove", (event) => { if (!state.isKept) light(find(event)); });
  canvas.addEventListener("pointerleave", () => { if (!state.isKept) light(null); });
  canvas.addEventListener("click", (event) => {
    const found = find(event);
    state.isKept = Boolean(found) && !(state.isKept && state.lit && [...found.tokens].every((one) => state.lit.tokens.has(one)));
    light(found);
    report();
  });
}

function report() {
  const { lit } = state, readout = element("readout"), canvas = element("patches");
  const [, rows, columns] = data.shape, area = rows * columns;
  const here = lit ? [...lit.sources.keys()].filter((one) => Math.floor(one / area) === shownFrame()) : [];
  canvas.dataset.lit = here.map((one) => one % area).sort((a, b) => a - b).join(" ");
  element("tokens").dataset.lit = lit ? [...lit.tokens].join(" ") : "";
  readout.classList.toggle("idle", !lit);
  if (!lit) {
    readout.textContent = "Point at a token to see its sources, or at a patch to see where it went.";
    return;
  }
  const mark = document.createElement("i"), { colour, frame } = stage().arrays, [token] = lit.tokens;
  if (token !== undefined && colour[token] >= 0) mark.style.background = rgba(data.colours[colour[token] % data.colours.length], 1);
  readout.replaceChildren(mark, lit.patch === null ? aboutToken(token, frame[token], lit) : aboutPatch(lit, frame));
}

function play() {
  const button = element("play");
  if (state.timer) {
    clearInterval(state.timer);
    state.timer = null;
  } else {
    state.timer = setInterval(() => goTo((state.frame + 1) % data.shape[0]), 700);
  }
  button.textContent = state.timer ? "\u275A\u275A" : "\u25B6";
  button.setAttribute("aria-label", state.timer ? "Pause" : "Play");
}

function press(event) {
  const isSlider = event.target === element("frame");
  if (event.key === "Escape") change({});
  else if (event.key === "ArrowRight" && !isSlider) goTo(state.frame + 1);
  else if (event.key === "ArrowLeft" && !isSlider) goTo(state.frame - 1);
  else if (event.key === "ArrowDown" && !isSlider) chooseMethod((state.method + 1) % data.methods.length);
  else if (event.key === "ArrowUp" && !isSlider) chooseMethod((state.method + data.methods.length - 1) % data.methods.length);
  else return;
  event.preventDefault();
}

async function start() {
  data = await loadData();
  const [frames, rows, columns] = data.shape;
  element("facts").textContent = `${data.title}: ${plural(frames, "frame")} of ${rows} × ${columns} patches`;
  document.body.style.setProperty("--aspect", data.aspect);
  element("frame").max = frames - 1;
  element("frame").addEventListener("input", (event) => goTo(Number(event.target.value)));
  element("play").addEventListener("click", play);
  document.addEventListener("keydown", press);
  window.addEventListener("resize", draw);
  watch(element("tokens"), tokenAt);
  watch(element("patches"), patchAt);
  makeStrips();
  chooseMethod(0);
  document.body.dataset.ready = "true";
}

start();

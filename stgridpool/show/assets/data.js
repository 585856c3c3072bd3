// The data of the page: numbers in one compressed block, frames as pictures.

async function unpacked(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

function resolved(value, words) {
  // Replace every [kind, first word, number of words] by a typed array.
  if (Array.isArray(value)) {
    const [kind, start, count] = value;
    return new (kind === "float" ? Float32Array : Int32Array)(words, 4 * start, count);
  }
  return Object.fromEntries(Object.entries(value).map(([name, part]) => [name, resolved(part, words)]));
}

function loadedPicture(source) {
  return new Promise((resolve, reject) => {
    const picture = new Image();
    picture.onload = () => resolve(picture);
    picture.onerror = () => reject(new Error("a frame cannot be shown"));
    picture.src = source;
  });
}

function inGrey(picture) {
  // Lost patches: grey and dark.
  const canvas = document.createElement("canvas");
  canvas.width = picture.width;
  canvas.height = picture.height;
  const context = canvas.getContext("2d");
  context.drawImage(picture, 0, 0);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
  for (let i = 0; i < pixels.data.length; i += 4) {
    const grey = (0.2 * (pixels.data[i] + pixels.data[i + 1] + pixels.data[i + 2])) / 3;
    pixels.data[i] = pixels.data[i + 1] = pixels.data[i + 2] = grey;
  }
  context.putImageData(pixels, 0, 0);
  return canvas;
}

function tokensOfPatches(stage) {
  // For each patch, the tokens that it is a source of: the transpose of the rows.
  if (stage.transposed) return stage.transposed;
  const { offsets, sources, owner } = stage.arrays;
  const starts = new Int32Array(owner.length + 1);
  for (const source of sources) starts[source + 1] += 1;
  for (let i = 0; i < owner.length; i += 1) starts[i + 1] += starts[i];
  const next = starts.slice();
  const tokens = new Int32Array(sources.length);
  for (let token = 0; token + 1 < offsets.length; token += 1) {
    for (let entry = offsets[token]; entry < offsets[token + 1]; entry += 1) tokens[next[sources[entry]]++] = token;
  }
  stage.transposed = { starts, tokens };
  return stage.transposed;
}

async function loadData() {
  const data = JSON.parse(document.getElementById("data").textContent);
  const words = await unpacked(data.words);
  for (const method of data.methods) {
    for (const stage of method.stages) stage.arrays = resolved(stage.arrays, words);
    for (const heat of method.heatMaps) heat.values = resolved(heat.values, words);
  }
  data.pictures = await Promise.all(data.frames.map(loadedPicture));
  data.greys = data.pictures.map(inGrey);
  return data;
}

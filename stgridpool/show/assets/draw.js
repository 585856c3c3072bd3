// Drawing of one frame: its patches, its tokens, or a heat map.

const LEAST = 0.5, TINT = 0.55, ACCENT = "#ffb224";

function rgba(colour, alpha) {
  return `rgba(${colour[0]},${colour[1]},${colour[2]},${alpha})`;
}

function cellEdges(count, length) {
  return Array.from({ length: count + 1 }, (_, i) => Math.round((i * length) / count));
}

function eachPatch(data, frame, context, draw) {
  const [, rows, columns] = data.shape;
  const { width, height } = context.canvas;
  const x = cellEdges(columns, width), y = cellEdges(rows, height);
  for (let row = 0; row < rows; row += 1) {
    for (let column = 0; column < columns; column += 1) {
      const patch = (frame * rows + row) * columns + column;
      draw(patch, x[column], y[row], x[column + 1] - x[column], y[row + 1] - y[row]);
    }
  }
}

function drawPatches(data, stage, frame, context, lit) {
  const { owner, reach, colour } = stage.arrays;
  const { width, height } = context.canvas;
  const grey = data.greys[frame], scaleX = grey.width / width, scaleY = grey.height / height;
  context.drawImage(data.pictures[frame], 0, 0, width, height);
  eachPatch(data, frame, context, (patch, x, y, w, h) => {
    if (owner[patch] < 0) {
      context.drawImage(grey, x * scaleX, y * scaleY, w * scaleX, h * scaleY, x, y, w, h);
      return;
    }
    context.fillStyle = `rgba(0,0,0,${(1 - LEAST) * (1 - Math.sqrt(reach[patch]))})`;
    context.fillRect(x, y, w, h);
    const rank = colour[owner[patch]];
    if (rank >= 0) {
      context.fillStyle = rgba(data.colours[rank % data.colours.length], TINT);
      context.fillRect(x, y, w, h);
    }
  });
  drawRegions(data, stage, frame, context);
  if (lit) drawLit(data, frame, context, lit);
}

function drawRegions(data, stage, frame, context) {
  const { region } = stage.arrays;
  const [, rows, columns] = data.shape;
  const thin = Math.min(context.canvas.width / columns, context.canvas.height / rows);
  if (thin < 5) return;
  context.fillStyle = "rgba(255,255,255,0.35)";
  const line = thin > 30 ? 2 : 1;
  eachPatch(data, frame, context, (patch, x, y, w, h) => {
    const column = patch % columns, row = Math.floor(patch / columns) % rows;
    if (region[patch] < 0) return;
    if (column + 1 < columns && region[patch + 1] >= 0 && region[patch + 1] !== region[patch]) {
      context.fillRect(x + w - line / 2, y, line, h);
    }
    if (row + 1 < rows && region[patch + columns] >= 0 && region[patch + columns] !== region[patch]) {
      context.fillRect(x, y + h - line / 2, w, line);
    }
  });
}

function drawLit(data, frame, context, lit) {
  // Everything dark but the sources; the frame around each is the stronger, the larger its weight.
  const picture = data.pictures[frame], { width, height } = context.canvas;
  const scaleX = picture.width / width, scaleY = picture.height / height;
  context.fillStyle = "rgba(5,8,12,0.78)";
  context.fillRect(0, 0, width, height);
  eachPatch(data, frame, context, (patch, x, y, w, h) => {
    const share = lit.sources.get(patch);
    if (share === undefined) return;
    context.drawImage(picture, x * scaleX, y * scaleY, w * scaleX, h * scaleY, x, y, w, h);
    context.fillStyle = `rgba(5,8,12,${0.45 * (1 - Math.sqrt(share))})`;
    context.fillRect(x, y, w, h);
    const line = Math.max(1, Math.min(w, h) * 0.05);
    context.globalAlpha = 0.3 + 0.7 * Math.sqrt(share);
    context.strokeStyle = ACCENT;
    context.lineWidth = line;
    context.strokeRect(x + line / 2, y + line / 2, w - line, h - line);
    context.globalAlpha = 1;
  });
}

function drawHeat(data, heat, frame, context) {
  const { width, height } = context.canvas;
  context.drawImage(data.greys[frame], 0, 0, width, height);
  eachPatch(data, frame, context, (patch, x, y, w, h) => {
    const value = heat.values[patch];
    context.fillStyle = Number.isNaN(value) ? "#1c2129" : rgba(data.heat[Math.round(value * (data.heat.length - 1))], 0.86);
    context.fillRect(x, y, w, h);
  });
}

function tokensOfFrame(stage, frame) {
  const found = [];
  stage.arrays.frame.forEach((of, token) => { if (of === frame) found.push(token); });
  return found;
}

function tokenBoxes(data, stage, frame, width, height) {
  // Where tokens are drawn, [token, x, y, w, h] in pixels; layers stand side by side.
  const { box, layer } = stage.arrays;
  const tokens = tokensOfFrame(stage, frame);
  const side = Math.ceil(Math.sqrt(1 + tokens.reduce((most, token) => Math.max(most, layer[token]), 0)));
  const w = width / side, h = height / side;
  return tokens.map((token) => {
    const left = (layer[token] % side) * w, top = Math.floor(layer[token] / side) * h;
    const [x0, y0, x1, y1] = [0, 1, 2, 3].map((i) => Math.round((i % 2 ? top : left) + box[4 * token + i] * (i % 2 ? h : w)));
    return [token, x0, y0, x1 - x0, y1 - y0];
  });
}

function drawTokens(data, stage, frame, context, lit) {
  const { colour, cuttings } = stage.arrays;
  const { width, height } = context.canvas;
  context.fillStyle = "#1c2129";
  context.fillRect(0, 0, width, height);
  const boxes = tokenBoxes(data, stage, frame, width, height);
  const homes = new Map();
  for (const [token, x, y, w, h] of boxes) {
    drawCuttings(data, cuttings, token, context, x, y, w, h);
    context.strokeStyle = "rgba(0,0,0,0.55)";
    context.lineWidth = 1;
    if (w > 6 && h > 6) context.strokeRect(x + 0.5, y + 0.5, w - 1, h - 1);
    if (colour[token] >= 0) {
      const line = Math.max(2, Math.min(w, h) * 0.045);
      context.strokeStyle = rgba(data.colours[colour[token] % data.colours.length], 1);
      context.lineWidth = line;
      context.strokeRect(x + line / 2 + 1, y + line / 2 + 1, w - line - 2, h - line - 2);
    } else {
      homes.set(`${x},${y}`, cuttings.frame[cuttings.offsets[token]]);
    }
  }
  drawSeams(homes, boxes, context);
  if (lit) drawLitTokens(boxes, context, lit);
}

function drawCuttings(data, cuttings, token, context, x, y, w, h) {
  // The weighted mean of the cuttings: each is laid over those before with its share of the sum so far.
  let sum = 0;
  for (let i = cuttings.offsets[token]; i < cuttings.offsets[token + 1]; i += 1) {
    const picture = data.pictures[cuttings.frame[i]];
    const [x0, y0, x1, y1] = cuttings.box.subarray(4 * i, 4 * i + 4);
    sum += cuttings.share[i];
    context.globalAlpha = cuttings.share[i] / sum;
    context.drawImage(picture, x0 * picture.width, y0 * picture.height, (x1 - x0) * picture.width, (y1 - y0) * picture.height, x, y, w, h);
  }
  context.globalAlpha = 1;
}

function drawSeams(homes, boxes, context) {
  // Bright lines between tokens that come from different frames: the tiles of a mosaic.
  context.fillStyle = "rgba(255,255,255,0.92)";
  for (const [, x, y, w, h] of boxes) {
    const home = homes.get(`${x},${y}`), right = homes.get(`${x + w},${y}`), below = homes.get(`${x},${y + h}`);
    if (home === undefined) continue;
    if (right !== undefined && right !== home) context.fillRect(x + w - 1, y, 2, h);
    if (below !== undefined && below !== home) context.fillRect(x, y + h - 1, w, 2);
  }
}

function drawLitTokens(boxes, context, lit) {
  for (const [token, x, y, w, h] of boxes) {
    if (lit.tokens.has(token)) {
      const line = Math.max(2, Math.min(w, h) * 0.05);
      context.strokeStyle = ACCENT;
      context.lineWidth = line;
      context.strokeRect(x + line / 2, y + line / 2, w - line, h - line);
    } else {
      context.fillStyle = "rgba(5,8,12,0.55)";
      context.fillRect(x, y, w, h);
    }
  }
}

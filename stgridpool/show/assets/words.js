// What the page says of frames, tokens and patches.

const clock = (frame) => (data.times ? `${data.times[frame].toFixed(1)} s` : `frame ${frame}`);
const percent = (share) => `${share >= 0.0995 ? Math.round(100 * share) : (100 * share).toFixed(1)} %`;
const plural = (count, word, words = `${word}s`) => `${count} ${count === 1 ? word : words}`;

function sumsByFrame(weights) {
  // The weight that comes from each frame.
  const area = data.shape[1] * data.shape[2], sums = new Map();
  for (const [source, weight] of weights) {
    const frame = Math.floor(source / area);
    sums.set(frame, (sums.get(frame) || 0) + weight);
  }
  return sums;
}

function aboutToken(token, frame, lit) {
  const parts = [...lit.frames].sort((a, b) => b[1] - a[1]);
  const total = parts.reduce((sum, [, part]) => sum + part, 0);
  const listed = parts.slice(0, 5).map(([of, sum]) => `${clock(of)} ${percent(sum / total)}`).join(", ");
  const more = parts.length > 5 ? ` and ${plural(parts.length - 5, "more frame")}` : "";
  const made = plural(lit.weights.size, "patch", "patches");
  if (parts.length === 1) return `Token ${token}, standing at ${clock(frame)}, is made of ${made} at ${clock(parts[0][0])}.`;
  return `Token ${token}, standing at ${clock(frame)}, is made of ${made} of ${parts.length} frames: ${listed}${more}.`;
}

function aboutPatch(lit, frame) {
  const [, rows, columns] = data.shape;
  const where = `Row ${(Math.floor(lit.patch / columns) % rows) + 1}, column ${(lit.patch % columns) + 1}`;
  if (!lit.tokens.size) return `${where}: this patch is in no token.`;
  const tokens = [...lit.tokens];
  const listed = tokens.slice(0, 4).map((one) => `${one} at ${clock(frame[one])}`).join(", ");
  return `${where}: this patch is in ${plural(tokens.length, "token")}: ${listed}${tokens.length > 4 ? ", ..." : ""}.`;
}

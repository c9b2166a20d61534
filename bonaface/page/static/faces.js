// Faces by YuNet (Wu, Peng and Yu 2023), decoded and filtered as OpenCV's FaceDetectorYN does it.

import { reduce, resize, roundEven } from "./resample.js";

const STRIDES = [8, 16, 32];
const THRESHOLD = 0.6, OVERLAP = 0.3, DIVISOR = 32;

// Boxes x0, y0, x1, y1 in pixels of the image, the largest first.
export async function findFaces(image, run, [smallest, first, second]) {
  const longest = Math.max(image.width, image.height);
  let found = await look(image, run, Math.min(Math.max(longest, smallest), first));
  if (!found.length && longest > first) found = await look(image, run, Math.min(longest, second));
  const area = ([x0, y0, x1, y1]) => (x1 - x0) * (y1 - y0);
  return found.sort((a, b) => area(b) - area(a));
}

async function look(image, run, longest) {
  const scale = longest / Math.max(image.width, image.height);
  const small = scaled(image, Math.max(1, roundEven(image.width * scale)), Math.max(1, roundEven(image.height * scale)));
  const width = Math.ceil(small.width / DIVISOR) * DIVISOR, height = Math.ceil(small.height / DIVISOR) * DIVISOR;
  const outputs = await run(planes(small, width, height), [1, 3, height, width]);
  const factor = small.width === image.width && small.height === image.height ? 1 : scale;
  return suppressed(candidates(outputs, width, height))
    .map(({ x, y, w, h }) => [x, y, x + w, y + h].map((value) => value / factor))
    .map(([x0, y0, x1, y1]) => [Math.max(x0, 0), Math.max(y0, 0), Math.min(x1, image.width), Math.min(y1, image.height)])
    .filter(([x0, y0, x1, y1]) => x1 - x0 >= 1 && y1 - y0 >= 1);
}

// Pillow's resize with reducing_gap=2: whole blocks first, where the image is much larger.
export function scaled(image, width, height) {
  if (width === image.width && height === image.height) return image;
  const across = Math.trunc(image.width / width / 2) || 1, down = Math.trunc(image.height / height / 2) || 1;
  const smaller = across > 1 || down > 1 ? reduce(image, across, down) : image;
  return resize(smaller, width, height, "bilinear", "pillow", [0, 0, image.width / across, image.height / down]);
}

// Blue, green and red planes, zeros to the right and below.
function planes({ width, height, data }, fullWidth, fullHeight) {
  const values = new Float32Array(3 * fullWidth * fullHeight);
  for (let c = 0; c < 3; c++) {
    for (let y = 0; y < height; y++) {
      const start = (c * fullHeight + y) * fullWidth;
      for (let x = 0; x < width; x++) values[start + x] = data[(y * width + x) * 3 + 2 - c];
    }
  }
  return values;
}

function candidates(outputs, width, height) {
  const clip = (value) => Math.min(Math.max(value, 0), 1);
  const found = [];
  for (const stride of STRIDES) {
    const [classes, objects, boxes] = ["cls", "obj", "bbox"].map((name) => outputs[`${name}_${stride}`]);
    const columns = width / stride, rows = height / stride;
    for (let i = 0; i < rows * columns; i++) {
      const score = Math.sqrt(clip(classes[i]) * clip(objects[i]));
      if (score < THRESHOLD) continue;
      const w = Math.exp(boxes[4 * i + 2]) * stride, h = Math.exp(boxes[4 * i + 3]) * stride;
      const x = ((i % columns) + boxes[4 * i]) * stride - w / 2;
      const y = (Math.floor(i / columns) + boxes[4 * i + 1]) * stride - h / 2;
      found.push({ x, y, w, h, score });
    }
  }
  return found;
}

// The best of overlapping boxes; OpenCV compares them cut to whole pixels.
function suppressed(found) {
  const kept = [];
  for (const face of found.sort((a, b) => b.score - a.score)) {
    if (kept.every((other) => overlap(other, face) <= OVERLAP)) kept.push(face);
  }
  return kept;
}

function overlap(a, b) {
  const [p, q] = [a, b].map(({ x, y, w, h }) => [x, y, w, h].map(Math.trunc));
  const across = Math.max(0, Math.min(p[0] + p[2], q[0] + q[2]) - Math.max(p[0], q[0]));
  const down = Math.max(0, Math.min(p[1] + p[3], q[1] + q[3]) - Math.max(p[1], q[1]));
  const union = p[2] * p[3] + q[2] * q[3] - across * down;
  return union > 0 ? (across * down) / union : 1;
}

// Resizing as Pillow and torch do it, to the last bit: a browser's own resizing would give other pixels, so other scores.
// An image is {width, height, data}: RGB, one byte a channel.

const KERNELS = { // how far each reaches, in pixels of the coarser side, and its weights there
  bilinear: [1, (x) => Math.max(1 - Math.abs(x), 0)],
  hamming: [1, (x) => (x === 0 ? 1 : Math.abs(x) >= 1 ? 0 : sinc(x) * (0.54 + 0.46 * Math.cos(Math.PI * x)))],
  bicubic: [2, (x) => cubic(Math.abs(x), -0.5)],
  lanczos: [3, (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0)],
};

function sinc(x) {
  return x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
}

function cubic(x, a) {
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

// For each pixel of the result: the first pixel that it is made of, how many, and their weights, `reach` a row.
function weightsOf(size, out, kernel, start, end) {
  const [support, weight] = KERNELS[kernel];
  const scale = (end - start) / out;
  const stretch = Math.max(scale, 1); // a kernel is widened where the image shrinks, never narrowed
  const reach = Math.ceil(support * stretch) * 2 + 1;
  const first = new Int32Array(out), count = new Int32Array(out), weights = new Float64Array(out * reach);
  for (let i = 0; i < out; i++) {
    const centre = start + (i + 0.5) * scale;
    const from = Math.max(Math.trunc(centre - support * stretch + 0.5), 0);
    const n = Math.min(Math.trunc(centre + support * stretch + 0.5), size) - from;
    let sum = 0;
    for (let j = 0; j < n; j++) sum += weights[i * reach + j] = weight((j + from - centre + 0.5) / stretch);
    for (let j = 0; j < n; j++) weights[i * reach + j] /= sum;
    [first[i], count[i]] = [from, n];
  }
  return { first, count, weights, reach };
}

// Weights as whole numbers and by how many bits they are shifted: Pillow takes 22, torch what fits into 16 bits.
function fixed({ weights }, arithmetic) {
  if (arithmetic === "float") return { weights, bits: 0 };
  let bits = 22;
  if (arithmetic === "int16") {
    const most = weights.reduce((a, b) => Math.max(a, b), 0);
    for (bits = 0; bits < 22; bits++) if (Math.trunc(0.5 + most * 2 ** (bits + 1)) >= 1 << 15) break;
  }
  const whole = new Int32Array(weights.length);
  for (let i = 0; i < whole.length; i++) whole[i] = Math.trunc(weights[i] * 2 ** bits + (weights[i] < 0 ? -0.5 : 0.5));
  return { weights: whole, bits };
}

// One direction: `lines` rows or columns of `size` pixels, `step` and `stride` values apart, to `out` pixels each.
function pass(source, target, lines, out, plan, { weights, bits }, from, to) {
  const half = bits ? 2 ** (bits - 1) : 0;
  for (let line = 0; line < lines; line++) {
    for (let i = 0; i < out; i++) {
      const begin = line * from.line + plan.first[i] * from.pixel;
      const w = i * plan.reach, n = plan.count[i];
      let r = half, g = half, b = half;
      for (let j = 0, at = begin; j < n; j++, at += from.pixel) {
        const value = weights[w + j];
        r += source[at] * value;
        g += source[at + 1] * value;
        b += source[at + 2] * value;
      }
      const at = line * to.line + i * to.pixel;
      if (bits) [r, g, b] = [r >> bits, g >> bits, b >> bits];
      target[at] = r; // clamped; without bits also rounded, halves to even
      target[at + 1] = g;
      target[at + 2] = b;
    }
  }
}

// `box` is x0, y0, x1, y1 in pixels of the image, not always whole.
export function resize(image, width, height, kernel, arithmetic = "pillow", box = [0, 0, image.width, image.height]) {
  let { data } = image, across = image.width;
  if (width !== image.width || box[0] || box[2] !== image.width) {
    const plan = weightsOf(image.width, width, kernel, box[0], box[2]);
    // Pillow and torch's bytes are rounded in between, torch's floats are not.
    const target = new (arithmetic === "float" ? Float32Array : Uint8ClampedArray)(width * image.height * 3);
    const [from, to] = [{ line: 3 * across, pixel: 3 }, { line: 3 * width, pixel: 3 }];
    pass(data, target, image.height, width, plan, fixed(plan, arithmetic), from, to);
    [data, across] = [target, width];
  }
  if (height !== image.height || box[1] || box[3] !== image.height) {
    const plan = weightsOf(image.height, height, kernel, box[1], box[3]);
    const target = new Uint8ClampedArray(width * height * 3);
    const way = { line: 3, pixel: 3 * width };
    pass(data, target, width, height, plan, fixed(plan, arithmetic), way, way);
    data = target;
  }
  return { width, height, data: data instanceof Float32Array ? Uint8ClampedArray.from(data) : data };
}

// Pillow's Image.reduce: means of blocks of across x down pixels; those at the right and bottom may be smaller.
export function reduce(image, across, down = across) {
  const width = Math.ceil(image.width / across), height = Math.ceil(image.height / down);
  const data = new Uint8ClampedArray(width * height * 3);
  for (let y = 0, at = 0; y < height; y++) {
    const rows = Math.min(down, image.height - y * down);
    for (let x = 0; x < width; x++) {
      const columns = Math.min(across, image.width - x * across);
      const n = rows * columns, multiplier = Math.floor(2 ** 24 / n);
      for (let c = 0; c < 3; c++, at++) {
        let sum = n >> 1;
        for (let j = 0; j < rows; j++) {
          const start = ((y * down + j) * image.width + x * across) * 3 + c;
          for (let i = 0; i < columns; i++) sum += image.data[start + 3 * i];
        }
        data[at] = Math.floor((sum * multiplier) / 2 ** 24);
      }
    }
  }
  return { width, height, data };
}

export function crop(image, [left, top, right, bottom]) {
  const width = right - left, height = bottom - top;
  const data = new Uint8ClampedArray(width * height * 3);
  for (let y = 0; y < height; y++) {
    const start = ((top + y) * image.width + left) * 3;
    data.set(image.data.subarray(start, start + width * 3), y * width * 3);
  }
  return { width, height, data };
}

// Python's round(): halves go to the even neighbour.
export function roundEven(x) {
  const down = Math.floor(x), rest = x - down;
  return rest < 0.5 || (rest === 0.5 && down % 2 === 0) ? down : down + 1;
}

// A file's bytes to an RGB image as the Python side reads it: upright, transparency over white, colour profiles ignored.

import { containerOf, kindOf } from "./container.js";

const STRIP = 4_000_000; // pixels that are read back at a time: some browsers limit a canvas, and memory is short

export class ImageError extends Error {
  constructor(reason, message) {
    super(message);
    this.reason = reason;
  }
}

// Before a file is read at all.
export function checkBytes(n, { max_bytes: limit }) {
  if (!n) throw new ImageError("empty", "The file is empty.");
  const megabytes = (bytes) => `${Math.ceil(bytes / 1e6)} megabytes`;
  if (n > limit) throw new ImageError("too many bytes", `${megabytes(n)} exceed the limit of ${megabytes(limit)}.`);
}

// {image, bitmap, compressed}; `bitmap` is for showing and is the caller's to close.
export async function decode(bytes, limits) {
  const kind = kindOf(bytes);
  if (!kind) throw new ImageError("not an image", "It is not an image in a supported format.");
  const container = containerOf(bytes, kind);
  checkPixels(container.size, limits);
  const bitmap = await decodedBy(bytes, kind);
  try {
    checkPixels([bitmap.width, bitmap.height], limits);
    if (Math.max(bitmap.width, bitmap.height) > limits.largest_aspect * Math.min(bitmap.width, bitmap.height)) {
      throw new ImageError("unreadable", `${bitmap.width} × ${bitmap.height} pixels are too narrow.`);
    }
    const quality = container.quality;
    return { image: readBack(bitmap), bitmap, compressed: quality !== null && quality < limits.low_quality };
  } catch (error) {
    bitmap.close();
    throw error;
  }
}

function checkPixels(size, { max_pixels: limit }) {
  if (size && size[0] * size[1] > limit) {
    const million = (n) => Math.floor(n / 1e6);
    const what = `${million(size[0] * size[1])} megapixels exceed the limit of ${million(limit)}`;
    throw new ImageError("too many pixels", `${size[0]} × ${size[1]} pixels: ${what}.`);
  }
}

async function decodedBy(bytes, kind) {
  const options = { colorSpaceConversion: "none", imageOrientation: "from-image", premultiplyAlpha: "default" };
  try {
    return await createImageBitmap(new Blob([bytes]), options);
  } catch {
    const known = ["JPEG", "PNG", "GIF", "WebP", "BMP"].includes(kind);
    throw known
      ? new ImageError("truncated", `The ${kind} image is truncated or damaged.`)
      : new ImageError("unsupported", `This browser cannot decode ${kind} images.`);
  }
}

function readBack(bitmap) {
  const { width, height } = bitmap;
  const data = new Uint8ClampedArray(width * height * 3);
  const rows = Math.min(height, Math.max(1, Math.floor(STRIP / width)));
  const canvas = new OffscreenCanvas(width, rows);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  for (let top = 0, at = 0; top < height; top += rows) {
    const n = Math.min(rows, height - top);
    context.fillStyle = "white";
    context.fillRect(0, 0, width, n);
    context.drawImage(bitmap, 0, top, width, n, 0, 0, width, n);
    const levels = context.getImageData(0, 0, width, n).data;
    for (let i = 0; i < levels.length; i += 4, at += 3) {
      [data[at], data[at + 1], data[at + 2]] = [levels[i], levels[i + 1], levels[i + 2]];
    }
  }
  canvas.width = canvas.height = 0; // gives its memory back at once
  return { width, height, data };
}

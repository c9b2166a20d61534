// What a file's bytes say before anything is decoded: its format, size, compression, and where its metadata lies.

const MAX_PARTS = 100_000;
const HEIC = ["heic", "heix", "heim", "heis", "hevc", "hevx", "mif1", "msf1"];

export function text(bytes, start = 0, end = bytes.length) {
  return String.fromCharCode(...bytes.subarray(start, Math.min(end, start + 10_000)));
}

export function kindOf(bytes) {
  const head = text(bytes, 0, 128);
  if (head.startsWith("\xff\xd8")) return "JPEG";
  if (head.startsWith("\x89PNG\r\n\x1a\n")) return "PNG";
  if (head.startsWith("GIF8")) return "GIF";
  if (head.startsWith("BM")) return "BMP";
  if (["II*\0", "MM\0*", "II+\0", "MM\0+"].includes(head.slice(0, 4))) return "TIFF";
  if (head.startsWith("RIFF") && head.slice(8, 12) === "WEBP") return "WebP";
  if (head.slice(4, 8) === "ftyp") {
    if (/avi[fs]/.test(head)) return "AVIF";
    if (HEIC.some((brand) => head.includes(brand))) return "HEIC";
  }
  return null;
}

// {size: [width, height] as stored or null, quality: of a JPEG on the IJG scale or null, parts}; a part is
// {name, bytes}, of a JPEG those in front of its pixels.
export function containerOf(bytes, kind) {
  const found = { size: null, quality: null, parts: [] };
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (kind === "JPEG") walkJpeg(bytes, view, found);
  if (kind === "PNG") walkPng(bytes, view, found);
  if (kind === "WebP") walkRiff(bytes, view, found);
  return found;
}

function walkJpeg(bytes, view, found) {
  const tables = new Map();
  for (let at = 2; at + 4 <= bytes.length && found.parts.length < MAX_PARTS; ) {
    if (bytes[at] !== 0xff) return;
    const marker = bytes[at + 1];
    if (marker === 0xff) { at++; continue; }
    if (marker === 1 || (marker >= 0xd0 && marker <= 0xd8)) { at += 2; continue; }
    const stop = at + 2 + view.getUint16(at + 2);
    if (marker === 0xd9 || marker === 0xda || stop > bytes.length) break;
    const part = bytes.subarray(at + 4, stop);
    if (marker === 0xdb) readTables(part, tables);
    if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker) && part.length >= 5) {
      found.size = [(part[3] << 8) | part[4], (part[1] << 8) | part[2]];
    }
    if (marker >= 0xe0 && marker < 0xf0) found.parts.push({ name: `APP${marker - 0xe0}`, bytes: part });
    at = stop;
  }
  if (tables.size) found.quality = qualityOf(tables.get(Math.min(...tables.keys())));
}

function readTables(part, tables) {
  for (let at = 0; at < part.length; ) {
    const wide = part[at] >> 4;
    const values = Array.from({ length: 64 }, (_, i) => (wide ? (part[at + 1 + 2 * i] << 8) | part[at + 2 + 2 * i] : part[at + 1 + i]));
    tables.set(part[at] & 15, values);
    at += 1 + (wide ? 128 : 64);
  }
}

// The luminance table of ITU-T T.81, K.1, in the zigzag order of files.
const K1 = [
  16, 11, 12, 14, 12, 10, 16, 14, 13, 14, 18, 17, 16, 19, 24, 40, 26, 24, 22, 22, 24, 49, 35, 37, 29, 40, 58, 51, 61, 60, 57, 51,
  56, 55, 64, 72, 92, 78, 64, 68, 87, 69, 55, 56, 80, 109, 81, 87, 95, 98, 103, 104, 103, 62, 77, 113, 121, 112, 100, 120, 92,
  101, 103, 99,
];

// The IJG quality whose table is nearest to the file's.
function qualityOf(table) {
  let [best, nearest] = [null, Infinity];
  for (let quality = 1; quality <= 100; quality++) {
    const scale = quality < 50 ? Math.floor(5000 / quality) : 200 - 2 * quality;
    let distance = 0;
    for (let i = 0; i < 64; i++) {
      distance += Math.abs(Math.min(Math.max(Math.floor((K1[i] * scale + 50) / 100), 1), 255) - table[i]);
    }
    if (distance < nearest) [best, nearest] = [quality, distance];
  }
  return best;
}

function walkPng(bytes, view, found) {
  for (let at = 8; at + 12 <= bytes.length && found.parts.length < MAX_PARTS; ) {
    const length = view.getUint32(at), name = text(bytes, at + 4, at + 8);
    if (at + 12 + length > bytes.length) return;
    if (name === "IHDR") found.size = [view.getUint32(at + 8), view.getUint32(at + 12)];
    if (name !== "IDAT") found.parts.push({ name, bytes: bytes.subarray(at + 8, at + 8 + length) });
    if (name === "IEND") return;
    at += 12 + length;
  }
}

function walkRiff(bytes, view, found) {
  for (let at = 12; at + 8 <= bytes.length && found.parts.length < MAX_PARTS; ) {
    const length = view.getUint32(at + 4, true), name = text(bytes, at, at + 4);
    if (at + 8 + length > bytes.length) return;
    const part = bytes.subarray(at + 8, at + 8 + length);
    if (name === "VP8X" && length >= 10) found.size = [4, 7].map((i) => 1 + part[i] + (part[i + 1] << 8) + (part[i + 2] << 16));
    if (!name.startsWith("VP8 ") && name !== "ALPH") found.parts.push({ name, bytes: part });
    at += 8 + length + (length % 2);
  }
}

// Whether a C2PA manifest store lies where the format keeps it: a JUMBF superbox of the type "c2pa".
export function hasCredentials({ parts }, kind) {
  const stores = {
    JPEG: () => parts.filter(({ name, bytes }) => name === "APP11" && text(bytes, 0, 2) === "JP").map(({ bytes }) => bytes.subarray(8)),
    PNG: () => parts.filter(({ name }) => name === "caBX").map(({ bytes }) => bytes),
    WebP: () => parts.filter(({ name }) => name === "C2PA").map(({ bytes }) => bytes),
  };
  const isStore = (bytes) => text(bytes, 4, 8) === "jumb" && text(bytes, 12, 16) === "jumd" && text(bytes, 16, 20) === "c2pa";
  return (stores[kind] ?? (() => []))().some(isStore);
}

// The parameters that image files of this software carry: JSON in a text of PNG files, in EXIF data of JPEG and WebP.
//
// Files come from anywhere: every length is checked, and only values of the right type and size are taken.

import { parse } from "./api.js"

const KEYWORD = "qwen-image-cluster"
const MAX_FILE_BYTES = 50 << 20
const MAX_RECORD_BYTES = 64 << 10 // the gateway writes 60 KiB at most
const MAX_PARTS = 100_000 // chunks or segments of a file
const MAX_ENTRIES = 1000 // of a directory of EXIF data

const ascii = (bytes, start, length) => String.fromCharCode(...bytes.subarray(start, start + length))

// The parameters in a file, with names as in the API; nothing when it has none.
export async function readParameters(blob) {
  if (blob.size > MAX_FILE_BYTES) return undefined
  try {
    const bytes = new Uint8Array(await blob.arrayBuffer())
    const text = recordOf(bytes)
    return text === undefined ? undefined : checked(parse(text))
  } catch {
    return undefined // a damaged file
  }
}

function recordOf(bytes) {
  if (ascii(bytes, 0, 8) === "\x89PNG\r\n\x1a\n") return textOfPNG(bytes)
  if (ascii(bytes, 0, 2) === "\xff\xd8") return noteOf(exifOfJPEG(bytes))
  if (ascii(bytes, 0, 4) === "RIFF" && ascii(bytes, 8, 4) === "WEBP") return noteOf(exifOfWebP(bytes))
  return undefined
}

// Chunks: length, type, data, checksum. A text is its keyword, NUL, and Latin-1 (tEXt) or, after two bytes, a language
// and a translated keyword, UTF-8 (iTXt).
function textOfPNG(bytes) {
  const view = new DataView(bytes.buffer)
  for (let offset = 8, count = 0; offset + 12 <= bytes.length && count < MAX_PARTS; count++) {
    const length = view.getUint32(offset), type = ascii(bytes, offset + 4, 4)
    const data = bytes.subarray(offset + 8, offset + 8 + length)
    if (data.length < length || type === "IEND") return undefined
    offset += length + 12
    if (type !== "tEXt" && type !== "iTXt") continue
    if (ascii(data, 0, KEYWORD.length + 1) !== `${KEYWORD}\0` || length > MAX_RECORD_BYTES) continue
    const rest = data.subarray(KEYWORD.length + 1)
    if (type === "tEXt") return Array.from(rest, (byte) => String.fromCharCode(byte)).join("")
    const language = rest.indexOf(0, 2), translated = rest.indexOf(0, language + 1)
    const isCompressed = rest[0] !== 0
    if (isCompressed || language < 0 || translated < 0) continue
    return new TextDecoder().decode(rest.subarray(translated + 1))
  }
  return undefined
}

// Segments: a marker, a length that counts itself, data. The pixels begin with ff da.
function exifOfJPEG(bytes) {
  const view = new DataView(bytes.buffer)
  for (let offset = 2, count = 0; offset + 4 <= bytes.length && count < MAX_PARTS; count++) {
    const marker = view.getUint16(offset), length = view.getUint16(offset + 2)
    if (marker < 0xff00 || marker === 0xffda || length < 2) return undefined
    if (marker === 0xffe1 && ascii(bytes, offset + 4, 6) === "Exif\0\0") {
      return bytes.subarray(offset + 10, offset + 2 + length)
    }
    offset += 2 + length
  }
  return undefined
}

// Chunks: type, length, data, padded to an even length.
function exifOfWebP(bytes) {
  const view = new DataView(bytes.buffer)
  for (let offset = 12, count = 0; offset + 8 <= bytes.length && count < MAX_PARTS; count++) {
    const length = view.getUint32(offset + 4, true)
    if (ascii(bytes, offset, 4) === "EXIF") return bytes.subarray(offset + 8, offset + 8 + length)
    offset += 8 + length + (length % 2)
  }
  return undefined
}

// The maker's note of EXIF data, which are a TIFF file: the keyword, NUL, and JSON in UTF-8.
function noteOf(exif) {
  if (!exif || exif.length < 8) return undefined
  const view = new DataView(exif.buffer, exif.byteOffset, exif.byteLength)
  const isLittle = ascii(exif, 0, 2) === "II"
  const entry = (tag, directory) => {
    const count = Math.min(view.getUint16(directory, isLittle), MAX_ENTRIES)
    const places = Array.from({ length: count }, (_, index) => directory + 2 + 12 * index)
    return places.find((place) => view.getUint16(place, isLittle) === tag)
  }
  const own = entry(34665, view.getUint32(4, isLittle))
  const note = own && entry(37500, view.getUint32(own + 8, isLittle))
  if (!note) return undefined
  const [length, start] = [view.getUint32(note + 4, isLittle), view.getUint32(note + 8, isLittle)]
  const data = exif.subarray(start, start + length)
  if (length > MAX_RECORD_BYTES || ascii(data, 0, KEYWORD.length + 1) !== `${KEYWORD}\0`) return undefined
  return new TextDecoder().decode(data.subarray(KEYWORD.length + 1))
}

// MARK: Values

const isText = (value, most) => typeof value === "string" && value.length <= most
const isNumber = (value, least, most) => typeof value === "number" && value >= least && value <= most

const CHECKS = {
  prompt: (value) => isText(value, MAX_RECORD_BYTES), negative_prompt: (value) => isText(value, MAX_RECORD_BYTES),
  model: (value) => isText(value, 256), size: (value) => isText(value, 11) && /^[1-9]\d{0,4}x[1-9]\d{0,4}$/.test(value),
  steps: (value) => Number.isInteger(value) && isNumber(value, 1, 100_000),
  true_cfg_scale: (value) => isNumber(value, 0, 100), seed: (value) => /^\d{1,19}$/.test(value),
  background: (value) => value === "opaque", output_resolution: (value) => isNumber(value, 32, 8192),
  sampler: (value) => isText(value, 32), schedule: (value) => isText(value, 32),
  cfg_steps: (value) => Number.isInteger(value) && isNumber(value, 0, 100_000),
  cache: (value) => isText(value?.method, 32) && isText(JSON.stringify(value), 8192),
  pipeline: (value) => isText(value, 64), strength: (value) => isNumber(value, 0, 1),
  mask_blur: (value) => isNumber(value, 0, 1000), padding_mask_crop: (value) => isNumber(value, 0, 16_384),
  layers: (value) => isNumber(value, 1, 100), cut: (value) => Array.isArray(value) && value.length > 0,
  inputs: (value) => Array.isArray(value) && value.length <= 32,
  loras: (value) => Array.isArray(value) && value.length <= 16 && value.every((each) =>
    isText(each?.name, 128) && isText(each.sha256, 64) && isNumber(each.scale, -100, 100)),
  outpaint: (value) => ["left", "top", "right", "bottom"].every((side) => isNumber(value?.[side], 0, 4096)),
}

function checked(record) {
  if (record?.software !== KEYWORD || !CHECKS.prompt(record.prompt)) return undefined
  return Object.fromEntries(Object.entries(CHECKS).filter(([name, check]) => name in record && check(record[name]))
    .map(([name]) => [name, record[name]]))
}

// A mask as bytes, 255 where the image is redrawn and 0 where it stays, painted with round strokes.
//
// The pixels are computed here and not read back from a canvas: browsers limit the size of a canvas, smooth its edges,
// and some put noise into what is read from it. Here every pixel is black or white, in every browser the same.

export class Raster {
  constructor(width, height) {
    this.width = width
    this.height = height
    this.data = new Uint8Array(width * height)
  }

  // Fills the pixels whose centres are within `radius` of the line from (x0, y0) to (x1, y1), row by row.
  line(x0, y0, x1, y1, radius, value) {
    const r = Math.max(radius, 0.71) // a single pixel is reached from anywhere in it
    const length = Math.hypot(x1 - x0, y1 - y0) || 1
    const [nx, ny] = [(-(y1 - y0) / length) * r, ((x1 - x0) / length) * r]
    const corners = [[x0 + nx, y0 + ny], [x1 + nx, y1 + ny], [x1 - nx, y1 - ny], [x0 - nx, y0 - ny]]
    const top = Math.max(Math.floor(Math.min(y0, y1) - r), 0)
    const bottom = Math.min(Math.ceil(Math.max(y0, y1) + r), this.height)
    for (let row = top; row < bottom; row++) {
      const y = row + 0.5
      let [left, right] = [Infinity, -Infinity]
      const include = (from, to) => ([left, right] = [Math.min(left, from), Math.max(right, to)])
      for (const [x, center] of [[x0, y0], [x1, y1]]) {
        const half = Math.sqrt(r * r - (y - center) ** 2)
        if (half >= 0) include(x - half, x + half)
      }
      for (let index = 0; index < 4; index++) {
        const [[ax, ay], [bx, by]] = [corners[index], corners[(index + 1) % 4]]
        if (ay <= y !== by <= y) {
          const x = ax + ((y - ay) / (by - ay)) * (bx - ax)
          include(x, x)
        }
      }
      const [first, last] = [Math.max(Math.ceil(left - 0.5), 0), Math.min(Math.floor(right - 0.5), this.width - 1)]
      if (first <= last) this.data.fill(value, row * this.width + first, row * this.width + last + 1)
    }
  }

  // Does what an entry of a mask's history says; its coordinates are multiplied with `scale`.
  apply(step, scale = 1) {
    if (step.kind === "clear") this.data.fill(0)
    else if (step.kind === "invert") for (let i = 0; i < this.data.length; i++) this.data[i] = 255 - this.data[i]
    else this.stroke(step, scale)
  }

  // Paints a stroke from its point number `from`.
  stroke({ points, radius, value }, scale = 1, from = 0) {
    const last = points.length / 2 - 1
    for (let index = from; index <= last; index++) {
      const next = Math.min(index + 1, last)
      const [x0, y0, x1, y1] = [points[2 * index], points[2 * index + 1], points[2 * next], points[2 * next + 1]]
      this.line(x0 * scale, y0 * scale, x1 * scale, y1 * scale, radius * scale, value)
    }
  }

  get isBlack() {
    return !this.data.includes(255)
  }

  // A PNG file of one channel.
  async png() {
    const { width, height, data } = this
    const rows = new Uint8Array((width + 1) * height) // each begins with its filter: none
    for (let y = 0; y < height; y++) rows.set(data.subarray(y * width, (y + 1) * width), y * (width + 1) + 1)
    const deflated = new Blob([rows]).stream().pipeThrough(new CompressionStream("deflate"))
    const header = new Uint8Array(13)
    new DataView(header.buffer).setUint32(0, width)
    new DataView(header.buffer).setUint32(4, height)
    header.set([8, 0, 0, 0, 0], 8)
    const body = new Uint8Array(await new Response(deflated).arrayBuffer())
    const signature = Uint8Array.of(137, 80, 78, 71, 13, 10, 26, 10)
    const chunks = [chunk("IHDR", header), chunk("IDAT", body), chunk("IEND", new Uint8Array())]
    return new Blob([signature, ...chunks], { type: "image/png" })
  }
}

const CRC = Uint32Array.from({ length: 256 }, (_, index) => {
  let value = index
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1
  return value
})

// A chunk of a PNG file: length, type, data, CRC of type and data.
function chunk(type, data) {
  const bytes = new Uint8Array(data.length + 12), view = new DataView(bytes.buffer)
  view.setUint32(0, data.length)
  bytes.set(new TextEncoder().encode(type), 4)
  bytes.set(data, 8)
  let crc = 0xffffffff
  for (let index = 4; index < data.length + 8; index++) crc = CRC[(crc ^ bytes[index]) & 255] ^ (crc >>> 8)
  view.setUint32(data.length + 8, (crc ^ 0xffffffff) >>> 0)
  return bytes
}

// How many pixels are made around the image: by numbers, or by dragging the edges.

import { t } from "./i18n.js"

export const SIDES = ["left", "top", "right", "bottom"]
export const MAX_SIDE = 4096 // pixels for a side

export class Extender {
  // `root` has a .space with .sheet (the new canvas), img and handles with data-side, and fields named after the sides.
  constructor(root, onChange) {
    this.root = root
    this.onChange = onChange
    this.space = root.querySelector(".space")
    this.sheet = root.querySelector(".sheet")
    this.image = root.querySelector("img")
    this.snap = 16
    for (const side of SIDES) {
      this.field(side).max = MAX_SIDE
      this.field(side).addEventListener("input", () => {
        this.fit()
        this.onChange()
      })
      const handle = this.handle(side)
      handle.addEventListener("pointerdown", (event) => this.begin(side, handle, event))
      handle.addEventListener("pointermove", (event) => this.drag(event))
      for (const name of ["pointerup", "pointercancel"]) handle.addEventListener(name, () => this.end())
      handle.addEventListener("keydown", (event) => this.key(side, event))
    }
    new ResizeObserver(() => this.held || this.fit()).observe(this.space)
  }

  field = (side) => this.root.querySelector(`[name=extend-${side}]`)
  handle = (side) => this.root.querySelector(`[data-side=${side}]`)
  number = (side) => Math.min(Math.max(Math.round(Number(this.field(side).value) || 0), 0), MAX_SIDE)

  // {left, top, right, bottom, feather}; the feather only if there is one.
  get value() {
    const feather = this.root.querySelector("[name=feather]").value.trim()
    return {
      ...Object.fromEntries(SIDES.map((side) => [side, this.number(side)])),
      ...(feather !== "" && { feather: Number(feather) }),
    }
  }

  set value(value) {
    for (const side of SIDES) this.field(side).value = value[side] ?? 0
    this.root.querySelector("[name=feather]").value = value.feather ?? ""
    this.fit()
  }

  get isEmpty() {
    return SIDES.every((side) => this.number(side) === 0)
  }

  // Shows `item`: {url, width, height}. Sides are dragged in steps of `snap` pixels.
  open(item, snap) {
    this.snap = snap
    if (this.item !== item) {
      this.item = item
      this.image.src = item.url
      this.image.classList.toggle("small", Math.max(item.width, item.height) < 256)
    }
    if (!this.held) this.fit()
  }

  // Chooses the scale anew: the canvas with some space around it to drag into.
  fit() {
    const { clientWidth: width, clientHeight: height } = this.space
    if (!this.item || !width) return
    const { left, top, right, bottom } = this.value, { item } = this
    const spare = Math.max(item.width, item.height) * 0.2
    const [fullWidth, fullHeight] = [item.width + left + right, item.height + top + bottom]
    this.scale = Math.min(width / (fullWidth + 2 * spare), height / (fullHeight + 2 * spare))
    this.originX = (width - fullWidth * this.scale) / 2 + left * this.scale
    this.originY = (height - fullHeight * this.scale) / 2 + top * this.scale
    this.show()
  }

  show() {
    const { item, scale, originX, originY } = this, { left, top, right, bottom } = this.value
    const box = (left, top, width, height) =>
      Object.fromEntries(Object.entries({ left, top, width, height }).map(([name, value]) => [name, `${value}px`]))
    Object.assign(this.image.style, box(originX, originY, item.width * scale, item.height * scale))
    const [fullWidth, fullHeight] = [item.width + left + right, item.height + top + bottom]
    const [x, y] = [originX - left * scale, originY - top * scale]
    Object.assign(this.sheet.style, box(x, y, fullWidth * scale, fullHeight * scale))
    const middle = { x: x + (fullWidth * scale) / 2, y: y + (fullHeight * scale) / 2 }
    const places = {
      left: [x, middle.y], right: [x + fullWidth * scale, middle.y],
      top: [middle.x, y], bottom: [middle.x, y + fullHeight * scale],
    }
    for (const side of SIDES) {
      const handle = this.handle(side)
      Object.assign(handle.style, { left: `${places[side][0]}px`, top: `${places[side][1]}px` })
      handle.setAttribute("aria-valuenow", this.number(side))
      handle.setAttribute("aria-valuemax", MAX_SIDE)
      handle.setAttribute("aria-valuetext", t("pixels", { n: this.number(side) }))
    }
    const sizes = `${item.width}×${item.height} → ${fullWidth}×${fullHeight}`
    this.root.querySelector(".canvas-size").textContent = sizes
  }

  set(side, pixels) {
    this.field(side).value = Math.min(Math.max(Math.round(pixels), 0), MAX_SIDE)
  }

  begin(side, handle, event) {
    if (event.button !== 0) return
    event.preventDefault()
    handle.focus({ focusVisible: false })
    handle.setPointerCapture(event.pointerId)
    this.held = { side, x: event.clientX, y: event.clientY, pixels: this.number(side) }
  }

  drag(event) {
    if (!this.held) return
    const { side, x, y, pixels } = this.held
    const [dx, dy] = [(event.clientX - x) / this.scale, (event.clientY - y) / this.scale]
    const outwards = { left: -dx, right: dx, top: -dy, bottom: dy }[side]
    const snap = event.altKey ? 1 : this.snap
    this.set(side, Math.round((pixels + outwards) / snap) * snap)
    this.show()
  }

  end() {
    if (!this.held) return
    this.held = undefined
    this.fit()
    this.onChange()
  }

  key(side, event) {
    const outwards = {
      left: ["ArrowLeft", "ArrowRight"], right: ["ArrowRight", "ArrowLeft"],
      top: ["ArrowUp", "ArrowDown"], bottom: ["ArrowDown", "ArrowUp"],
    }[side]
    const unit = event.altKey ? 1 : this.snap
    if (event.key === outwards[0]) this.set(side, this.number(side) + unit)
    else if (event.key === outwards[1]) this.set(side, this.number(side) - unit)
    else if (event.key === "Home") this.set(side, 0)
    else return
    event.preventDefault()
    this.fit()
    this.onChange()
  }
}

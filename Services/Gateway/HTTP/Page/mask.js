// Paints the mask over the first image: with a mouse, a pen, fingers, or keys.

import { t } from "./i18n.js"
import { Raster } from "./raster.js"

const MAX_SHOWN = 1024 // pixels of the longer side of the mask on the screen; what is sent has the image's own size
const MAX_STEPS = 1000 // of a history, and points of a stroke below
const MAX_POINTS = 20_000

export class MaskEditor {
  // `root` has a .stage with img, canvas and .cursor, and a toolbar whose buttons have data-do.
  constructor(root, onChange) {
    this.root = root
    this.onChange = onChange
    this.stage = root.querySelector(".stage")
    this.image = root.querySelector("img")
    this.canvas = root.querySelector("canvas")
    this.ring = root.querySelector(".cursor")
    this.brush = root.querySelector("[name=brush]")
    this.value = 255
    for (const button of root.querySelectorAll("[data-do]")) {
      button.addEventListener("click", () => this.act(button.dataset.do))
    }
    this.brush.addEventListener("input", () => this.showBrush())
    this.canvas.addEventListener("pointerdown", (event) => this.begin(event))
    this.canvas.addEventListener("pointermove", (event) => this.move(event))
    for (const name of ["pointerup", "pointercancel"]) this.canvas.addEventListener(name, (event) => this.end(event))
    this.canvas.addEventListener("pointerleave", () => (this.ring.hidden = !this.canvas.matches(":focus-visible")))
    this.canvas.addEventListener("keydown", (event) => this.key(event))
    this.canvas.addEventListener("keyup", (event) => event.key === "Shift" && this.pointer === undefined && this.lift())
    this.canvas.addEventListener("focus", () => this.canvas.matches(":focus-visible") && this.showRing())
    this.canvas.addEventListener("blur", () => (this.ring.hidden = true))
  }

  // Shows `item`: {url, width, height, mask: {steps, undone}}.
  open(item) {
    if (this.item === item) return
    this.item = item
    const longer = Math.max(item.width, item.height)
    this.scale = Math.min(1, MAX_SHOWN / longer)
    const pixels = (side) => Math.max(Math.round(side * this.scale), 1)
    this.raster = new Raster(pixels(item.width), pixels(item.height))
    this.image.src = item.url
    this.image.classList.toggle("small", longer < 256)
    this.stage.style.setProperty("--ratio", item.width / item.height)
    this.canvas.width = this.raster.width
    this.canvas.height = this.raster.height
    this.brush.max = Math.ceil(longer / 2)
    this.brush.value = Math.max(Math.round(longer / 8), 1)
    this.x = item.width / 2
    this.y = item.height / 2
    this.showBrush()
    this.replay()
  }

  // MARK: The history

  add(step) {
    const { steps } = this.item.mask
    if (steps.length === MAX_STEPS) steps.shift()
    steps.push(step)
    this.item.mask.undone = []
  }

  act(name) {
    const mask = this.item?.mask
    if (!mask) return
    this.step = undefined // what follows is another stroke
    if (name === "paint" || name === "erase") {
      this.value = name === "paint" ? 255 : 0
    } else if (name === "undo" && mask.steps.length) {
      mask.undone.push(mask.steps.pop())
      this.replay()
    } else if (name === "redo" && mask.undone.length) {
      const step = mask.undone.pop()
      mask.steps.push(step)
      this.raster.apply(step, this.scale)
    } else if (name === "clear" || name === "invert") {
      this.add({ kind: name })
      this.raster.apply({ kind: name })
    }
    this.show()
  }

  replay() {
    this.raster.data.fill(0)
    for (const step of this.item.mask.steps) this.raster.apply(step, this.scale)
    this.show()
  }

  // MARK: Strokes

  place(event) {
    const box = this.canvas.getBoundingClientRect()
    return [
      ((event.clientX - box.left) / box.width) * this.item.width,
      ((event.clientY - box.top) / box.height) * this.item.height,
    ]
  }

  begin(event) {
    if (!this.item || event.button !== 0 || this.pointer !== undefined) return
    event.preventDefault()
    this.step = undefined
    this.pointer = event.pointerId
    this.canvas.focus({ focusVisible: false })
    this.canvas.setPointerCapture(event.pointerId)
    this.draw(...this.place(event))
  }

  move(event) {
    const isDown = this.pointer === event.pointerId
    if (!this.item || (this.pointer !== undefined && !isDown)) return
    const places = isDown ? (event.getCoalescedEvents?.() ?? []) : []
    if (isDown) for (const each of places.length ? places : [event]) this.draw(...this.place(each))
    ;[this.x, this.y] = this.place(event)
    this.showRing()
  }

  // Begins a stroke at a place, or continues the present one to there.
  draw(x, y) {
    if (!this.step) {
      this.step = { kind: "stroke", value: this.value, radius: Number(this.brush.value) / 2, points: [] }
      this.add(this.step)
    }
    const { points } = this.step
    if (points.length >= 2 * MAX_POINTS) return
    points.push(Math.round(x * 100) / 100, Math.round(y * 100) / 100)
    this.raster.stroke(this.step, this.scale, Math.max(points.length / 2 - 2, 0))
    ;[this.x, this.y] = [x, y]
    this.show()
  }

  end(event) {
    if (event.pointerId !== this.pointer) return
    this.pointer = undefined
    this.lift()
  }

  lift() {
    this.step = undefined
    this.show()
  }

  // MARK: Keys

  key(event) {
    if (!this.item) return
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }
    const commands = { e: "erase", p: "paint", i: "invert", Delete: "clear", Backspace: "clear" }
    const letter = event.key.length === 1 ? event.key.toLowerCase() : event.key
    if (event.ctrlKey || event.metaKey) {
      const name = letter === "z" ? (event.shiftKey ? "redo" : "undo") : letter === "y" ? "redo" : undefined
      if (!name) return
      this.act(name)
    } else if (arrows[event.key]) {
      const unit = event.altKey ? 1 : Math.max(Number(this.brush.value) / 2, 1)
      const [dx, dy] = arrows[event.key]
      this.x = Math.min(Math.max(this.x + dx * unit, 0), this.item.width)
      this.y = Math.min(Math.max(this.y + dy * unit, 0), this.item.height)
      // With Shift the brush is down.
      if (event.shiftKey) this.draw(this.x, this.y)
      else this.lift()
    } else if (event.key === " " || event.key === "Enter") {
      if (event.repeat) return event.preventDefault()
      this.step = undefined
      this.draw(this.x, this.y)
      this.lift()
    } else if (letter === "[" || letter === "]") {
      const size = Number(this.brush.value)
      this.brush.value = letter === "]" ? Math.ceil(size * 1.2) : Math.floor(size / 1.2)
      this.showBrush()
    } else if (commands[letter]) {
      this.act(commands[letter])
    } else {
      return
    }
    event.preventDefault()
    event.stopPropagation()
    this.showRing()
  }

  // MARK: What is seen

  show() {
    if (this.isShowing) return
    this.isShowing = true
    requestAnimationFrame(() => {
      this.isShowing = false
      this.paint()
    })
  }

  paint() {
    const { width, height, data } = this.raster
    const image = new ImageData(width, height), words = new Uint32Array(image.data.buffer)
    for (let index = 0; index < data.length; index++) if (data[index]) words[index] = 0xffd6409f // ABGR: violet
    this.canvas.getContext("2d").putImageData(image, 0, 0)
    const { steps, undone } = this.item.mask
    const button = (name) => this.root.querySelector(`[data-do=${name}]`)
    button("undo").disabled = !steps.length
    button("redo").disabled = !undone.length
    button("clear").disabled = this.raster.isBlack
    button("paint").setAttribute("aria-pressed", this.value === 255)
    button("erase").setAttribute("aria-pressed", this.value === 0)
    const share = data.reduce((sum, value) => sum + (value ? 1 : 0), 0) / data.length
    const isLittle = share > 0 && share < 0.01
    this.root.querySelector(".covered").textContent = t(isLittle ? "mask.little" : "mask.covered", {
      percent: Math.round(share * 100),
    })
    if (!this.step) this.onChange()
  }

  showBrush() {
    this.root.querySelector("[name=brush-size]").value = `${this.brush.value} px`
    this.showRing(this.ring.hidden)
  }

  showRing(isHidden = false) {
    if (!this.item) return
    const size = (Number(this.brush.value) / this.item.width) * 100
    Object.assign(this.ring.style, {
      width: `${size}%`, left: `${(this.x / this.item.width) * 100}%`, top: `${(this.y / this.item.height) * 100}%`,
    })
    this.ring.hidden = isHidden
  }
}

// The mask of `item` in the image's own size.
export function maskOf(item) {
  const raster = new Raster(item.width, item.height)
  for (const step of item.mask.steps) raster.apply(step)
  return raster
}

// The form's images: chosen, dropped, pasted, or taken from a result; put in order, and removed.

import { t } from "./i18n.js"

const TYPES = { "image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WebP" }
const MEGA = 1 << 20
export const MAX_FILE_BYTES = 50 * MEGA, MAX_BODY_BYTES = 64 * MEGA

function readable(bytes) {
  if (bytes < MEGA) return `${Math.max(Math.round(bytes / 1024), 1)} KB`
  return `${(bytes / MEGA).toFixed(bytes < 10 * MEGA ? 1 : 0)} MB`
}

// An image of the form: what is in the file, and the mask over it.
export async function makeItem(blob, name, mask = { steps: [], undone: [] }) {
  if (!TYPES[blob.type]) throw new Error(t("file.type", { name, type: blob.type || t("file.no-type") }))
  if (!blob.size) throw new Error(t("file.empty", { name }))
  if (blob.size > MAX_FILE_BYTES) {
    throw new Error(t("file.too-large", { name, size: readable(blob.size), limit: readable(MAX_FILE_BYTES) }))
  }
  const url = URL.createObjectURL(blob), image = new Image()
  image.src = url
  try {
    await image.decode()
  } catch {
    URL.revokeObjectURL(url)
    throw new Error(t("file.damaged", { name }))
  }
  const { naturalWidth: width, naturalHeight: height } = image
  return { blob, name, url, width, height, mask, isTransparent: isTransparent(image) }
}

// Whether a part of an image is transparent, at a low resolution.
function isTransparent(image) {
  const canvas = document.createElement("canvas"), side = (canvas.width = canvas.height = 128)
  const context = canvas.getContext("2d", { willReadFrequently: true })
  context.drawImage(image, 0, 0, side, side)
  const { data } = context.getImageData(0, 0, side, side)
  for (let index = 3; index < data.length; index += 4) if (data[index] < 250) return true
  return false
}

export class ImageList {
  // `list` shows the images; `onChange` is called after every change, `onError` with what is wrong with a file.
  constructor(list, template, onChange, onError) {
    this.items = []
    this.max = 1
    Object.assign(this, { list, template, onChange, onError })
  }

  // Adds images; when the model takes one only, a new one replaces it.
  async add(files) {
    const errors = []
    for (const { blob, name } of files) {
      try {
        const item = await makeItem(blob, name)
        if (this.max === 1 && this.items.length === 1) URL.revokeObjectURL(this.items.pop().url)
        if (this.items.length >= this.max) {
          URL.revokeObjectURL(item.url)
          throw new Error(t("file.too-many", { name, max: this.max }))
        }
        const bytes = this.items.reduce((sum, each) => sum + each.blob.size, blob.size)
        if (bytes > MAX_BODY_BYTES) {
          URL.revokeObjectURL(item.url)
          throw new Error(t("file.all-too-large", { name, size: readable(bytes), limit: readable(MAX_BODY_BYTES) }))
        }
        this.items.push(item)
      } catch (error) {
        errors.push(error.message)
      }
    }
    this.show()
    for (const text of errors) this.onError(text)
  }

  set(items) {
    for (const item of this.items) URL.revokeObjectURL(item.url)
    this.items = items
    this.show()
  }

  remove(index) {
    const [item] = this.items.splice(index, 1)
    URL.revokeObjectURL(item.url)
    this.show()
    const next = this.list.children[Math.min(index, this.items.length - 1)]
    next?.querySelector(".remove").focus()
    return !next
  }

  move(index, to, focus) {
    if (to < 0 || to >= this.items.length || to === index) return
    this.items.splice(to, 0, ...this.items.splice(index, 1))
    this.show()
    const button = focus && this.list.children[to].querySelector(focus)
    if (button) (button.disabled ? this.list.children[to].querySelector(".remove") : button).focus()
  }

  show() {
    this.list.replaceChildren(...this.items.map((item, index) => this.entry(item, index)))
    this.list.hidden = !this.items.length
    this.onChange()
  }

  entry(item, index) {
    const entry = this.template.content.firstElementChild.cloneNode(true)
    const find = (selector) => entry.querySelector(selector)
    const number = index + 1, { width, height, blob } = item
    const text = `${width}×${height} · ${TYPES[blob.type]} · ${readable(blob.size)}`
    Object.assign(find("img"), { src: item.url, alt: "" })
    find(".name").textContent = item.name
    find(".name").title = item.name
    find(".about").textContent = text
    const isAlone = this.items.length < 2
    for (const [selector, words, to] of [[".earlier", "earlier", index - 1], [".later", "later", index + 1]]) {
      const button = find(selector)
      button.setAttribute("aria-label", t(`image.${words}`, { number }))
      button.hidden = isAlone
      button.disabled = to < 0 || to >= this.items.length
      button.addEventListener("click", () => this.move(index, to, selector))
    }
    find(".remove").setAttribute("aria-label", t("image.remove", { number }))
    find(".remove").addEventListener("click", () => this.remove(index) && this.onEmpty?.())
    entry.draggable = !isAlone
    entry.addEventListener("dragstart", (event) => {
      event.dataTransfer.setData("application/x-image-index", `${index}`)
      event.dataTransfer.effectAllowed = "move"
    })
    entry.addEventListener("dragover", (event) => {
      if (event.dataTransfer.types.includes("application/x-image-index")) event.preventDefault()
    })
    entry.addEventListener("drop", (event) => {
      const from = event.dataTransfer.getData("application/x-image-index")
      if (from === "") return
      event.preventDefault()
      this.move(Number(from), index)
    })
    return entry
  }
}

// The image files of a paste or a drop.
export function files(transfer) {
  return [...(transfer?.files ?? [])].map((file) => ({ blob: file, name: file.name || "image" }))
}

// Drops anywhere on the page, and pastes outside of text, add images; `target` shows that a drop would.
export function takeDropsAndPastes(target, add) {
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files")
  let depth = 0
  const show = (change) => {
    depth = Math.max(depth + change, 0)
    target.classList.toggle("wanted", depth > 0)
  }
  document.addEventListener("dragenter", (event) => hasFiles(event) && show(1))
  document.addEventListener("dragleave", (event) => hasFiles(event) && show(-1))
  document.addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault())
  document.addEventListener("drop", (event) => {
    if (!hasFiles(event)) return
    event.preventDefault()
    show(-Infinity)
    add(files(event.dataTransfer))
  })
  document.addEventListener("paste", (event) => {
    const pasted = files(event.clipboardData)
    // What is copied from a text program comes as an image as well; in a field the text is meant.
    const wantsText = event.target.matches?.("input, textarea") && event.clipboardData?.types.includes("text/plain")
    if (!pasted.length || wantsText) return
    event.preventDefault()
    add(pasted)
  })
}

// The part of the form that is about images: which there are, what is done with them, mask, extension, strength.

import { clearErrors, showError } from "./errors.js"
import { Extender } from "./extend.js"
import { t } from "./i18n.js"
import { ImageList, MAX_BODY_BYTES, MAX_FILE_BYTES, files, makeItem } from "./images.js"
import { MaskEditor, maskOf } from "./mask.js"
import { MODES, isServed, maxImages, serve } from "./pipelines.js"

const DEFAULT_STRENGTH = 0.6

class FieldError extends Error {
  constructor(field, message) {
    super(message)
    this.field = field
  }
}

export class Composer {
  constructor(form) {
    this.form = form
    this.root = this.find("#images")
    this.mode = "whole"
    this.masks = new MaskEditor(this.find("#mask"), () => this.clearError("mask"))
    this.extender = new Extender(this.find("#extend"), () => this.clearError("outpaint"))
    const list = this.find("#inputs"), template = document.querySelector("#input")
    this.list = new ImageList(list, template, () => this.change(), (text) => this.complain("image", text))
    this.list.onEmpty = () => this.find("#files").focus()
    this.find("#files").addEventListener("change", async (event) => {
      await this.add(files({ files: event.target.files }))
      event.target.value = "" // the same file can be chosen again
    })
    for (const choice of this.root.querySelectorAll("[name=mode]")) {
      choice.addEventListener("change", () => {
        this.mode = choice.value
        this.change()
      })
    }
    form.elements.strength.addEventListener("input", () => this.showStrength())
    form.elements.steps.addEventListener("input", () => this.showStrength())
    this.prepareDialog()
  }

  find(selector) {
    return this.form.querySelector(selector)
  }

  // The editor in a window of its own, for small strokes.
  prepareDialog() {
    const dialog = this.find("#large"), editors = this.find("#editors"), place = this.find("#editors-place")
    this.find("#enlarge").addEventListener("click", () => {
      dialog.querySelector("#large-place").append(editors)
      dialog.showModal()
      this.extender.fit()
    })
    dialog.querySelector(".close").addEventListener("click", () => dialog.close())
    // Enter in a field would send the form, whose errors are behind the dialog.
    dialog.addEventListener("keydown", (event) => {
      const sends = event.key === "Enter" && event.target.matches("input") && !event.ctrlKey && !event.metaKey
      if (sends) event.preventDefault()
    })
    dialog.addEventListener("close", () => {
      place.append(editors)
      this.extender.fit()
      this.find("#enlarge").focus()
    })
  }

  complain(field, text) {
    showError(this.form, field, text)
  }

  clearError(field) {
    const target = this.root.querySelector(`[data-field~=${field}]`)
    if (target?.querySelector(":scope > .error")) clearErrors(target)
  }

  async add(images) {
    clearErrors(this.root)
    const refused = this.model && !this.list.max && t("images.none", { model: this.model.id })
    if (refused) this.complain("image", refused)
    else await this.list.add(images)
  }

  change() {
    clearErrors(this.root)
    this.update()
  }

  // MARK: What the model offers

  offer(model) {
    this.model = model
    this.update()
  }

  get images() {
    return this.list.items
  }

  // As in OpenAI's API, an image with transparency is its own mask, unless the model edits by the prompt.
  get isCutOut() {
    return this.images.length === 1 && this.service.name === "img2img" && this.images[0].isTransparent
  }

  get service() {
    return this.model ? serve(this.model, this.mode) : {}
  }

  update() {
    if (!this.model) return
    const has = this.images.length > 0
    this.list.max = maxImages(this.model)
    const services = Object.fromEntries(Object.keys(MODES).map((mode) => [mode, serve(this.model, mode)]))
    // What the chosen model does not have is left for what it has; what is only not ready now stays chosen.
    if (!services[this.mode].takes) this.mode = Object.keys(MODES).find((mode) => services[mode].takes) ?? "whole"
    for (const choice of this.root.querySelectorAll("[name=mode]")) {
      const { reason } = services[choice.value]
      choice.checked = choice.value === this.mode
      choice.disabled = Boolean(reason) && !choice.checked
      choice.closest("label").title = reason ?? ""
      choice.closest("label").hidden = Boolean(services[choice.value].isMissing)
    }
    this.showReasons(services)
    const takes = services[this.mode].takes ?? {}
    const show = (selector, isShown) => {
      this.find(selector).hidden = !isShown
      // What is not seen is not checked when the form is sent.
      for (const control of this.find(selector).querySelectorAll("input")) control.disabled = !isShown
    }
    const hasExtension = has && this.mode === "extend" && Boolean(takes.mask)
    const hasMask = has && !hasExtension && Boolean(takes.mask)
    const offered = Object.values(services).filter(({ isMissing }) => !isMissing)
    this.find("#modes").hidden = !has || (offered.length === 1 && !offered[0].reason)
    this.find("#editors-place").hidden = this.find("#enlarge").hidden = !hasMask && !hasExtension
    show("#mask", hasMask)
    this.find("#mask-about").textContent = t(takes.controls ? "mask.about-control" : "mask.about")
    show("#extend", hasExtension)
    this.find("#cut-out").hidden = !this.isCutOut
    show("#blur-field", hasMask && takes.blur)
    show("#crop-field", hasMask && takes.crop)
    show("#strength-field", has && takes.strength)
    show("#layers-field", has && takes.layers)
    show("#scale-field", has && this.mode === "control")
    if (hasMask) this.masks.open(this.images[0])
    if (hasExtension) this.extender.open(this.images[0], this.model.limits.size_multiple)
    show("#resolution-field", has ? Boolean(takes.resolution) : isServed(this.model, "text-to-image"))
    this.showLimits()
    this.showStrength()
    const { width, height } = this.model.defaults.size
    this.form.elements.size.placeholder = has && this.mode !== "control" ? t("size.of-image") : `${width}x${height}`
  }

  showReasons(services) {
    const labels = Object.keys(MODES).filter((mode) => services[mode].reason && !services[mode].isMissing)
    this.find("#reasons").textContent = labels.map((mode) => `${t(`mode.${mode}`)}: ${services[mode].reason}`).join(". ")
    this.find("#reasons").hidden = !this.images.length || !labels.length
  }

  showLimits() {
    const { max } = this.list, mega = (bytes) => `${bytes >> 20} MB`
    const size = mega(MAX_FILE_BYTES), all = mega(MAX_BODY_BYTES)
    const limits = t("images.limits", { n: max, size, all })
    const needed = isServed(this.model, "text-to-image") ? "" : t("images.needed")
    this.find("#limits").textContent = max ? limits + needed : t("images.no-pipeline", { model: this.model.id })
    this.find("#files").disabled = !max
    this.find("#files").multiple = max > 1
    this.root.classList.toggle("off", !max)
  }

  showStrength() {
    if (!this.model) return
    const strength = Number(this.form.elements.strength.value)
    const steps = Number(this.form.elements.steps.value) || this.model.defaults.steps
    const made = steps - Math.floor(Math.max(steps - Math.min(steps * strength, steps), 0))
    this.find("[name=strength-value]").value = strength.toFixed(2)
    this.find("#strength-about").textContent = t("strength.about", { made, steps })
  }

  // Shows everything in another language.
  translate() {
    this.list.show()
    if (this.masks.item) this.masks.show()
    if (this.extender.item) this.extender.fit()
  }

  // MARK: What is sent

  number(name) {
    const text = this.form.elements[name].value.trim()
    return text === "" || !this.form.elements[name].getClientRects().length ? undefined : Number(text)
  }

  // What the job will be made from, for store.js; undefined without images.
  record() {
    if (!this.images.length) return undefined
    const { name, takes, reason } = this.service
    if (!takes) throw new FieldError("mode", reason)
    const max = takes.images ?? takes.controls
    if (this.images.length > max) {
      const surplus = this.images.length - max
      throw new FieldError("image", t("images.surplus", { name, n: max, surplus }))
    }
    if (this.mode === "extend" && this.extender.isEmpty) {
      throw new FieldError("outpaint", t("extend.empty"))
    }
    if (takes.mask && this.mode !== "extend" && maskOf(this.images[0]).isBlack) {
      throw new FieldError("mask", t("mask.empty"))
    }
    const images = this.images.map((item) => ({
      blob: item.blob, name: item.name, width: item.width, height: item.height, steps: item.mask.steps.slice(),
    }))
    return {
      images, mode: this.mode, pipeline: this.isCutOut ? "inpaint" : name,
      size: this.form.elements.size.value.trim() || undefined, resolution: this.number("output_resolution"),
      ...(takes.strength && { strength: Number(this.form.elements.strength.value) }),
      ...(this.mode === "extend" && { extend: this.extender.value }),
      blur: this.number("mask_blur"), crop: this.number("padding_mask_crop"), scale: this.number("control_scale"),
      layers: this.number("layers"),
    }
  }

  // The same as pairs of a form's field and its value.
  async parts() {
    const record = this.record(), { takes } = this.service
    const parts = [["pipeline", record.pipeline]]
    const field = takes.controls ? "control_image" : "image"
    for (const { blob, name } of record.images) parts.push([field, new File([blob], name, { type: blob.type })])
    if (record.extend) parts.push(["outpaint", JSON.stringify(record.extend)])
    else if (takes.mask) parts.push(["mask", await maskOf(this.images[0]).png()])
    const numbers = {
      strength: record.strength, mask_blur: record.blur, padding_mask_crop: record.crop, control_scale: record.scale,
      layers: record.layers,
    }
    for (const [name, value] of Object.entries(numbers)) if (value !== undefined) parts.push([name, `${value}`])
    return parts
  }

  // Fills all this in from what a job was made from; without that, there are no images.
  async restore(record) {
    if (!record) return this.list.set([])
    const items = []
    for (const { blob, name, steps } of record.images) {
      items.push(await makeItem(blob, name, { steps: steps.slice(), undone: [] }))
    }
    this.adopt(record)
    this.list.set(items)
  }

  // Sets what is done with images, as a record has it, whether there are images or not.
  adopt(record) {
    this.mode = record.mode
    this.form.elements.strength.value = record.strength ?? DEFAULT_STRENGTH
    const numbers = {
      mask_blur: record.blur, padding_mask_crop: record.crop, control_scale: record.scale, layers: record.layers,
    }
    for (const [name, value] of Object.entries(numbers)) this.form.elements[name].value = value ?? ""
    if (record.extend) this.extender.value = record.extend
    this.update()
  }
}

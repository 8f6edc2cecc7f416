// Fills the form in from an image file that carries its parameters; any other file becomes an input image.

import { button, find, make, setText } from "./dom.js"
import { fillAgain, lorasText, settingsOf } from "./form.js"
import { onLanguage, t } from "./i18n.js"
import { files } from "./images.js"
import { readParameters } from "./metadata.js"
import { modelNamed } from "./models.js"
import { MODES } from "./pipelines.js"

// What is done with images, by the pipeline that an image was made with.
function modeOf({ pipeline, outpaint }) {
  if (outpaint) return "extend"
  return Object.keys(MODES).find((mode) => MODES[mode].includes(pipeline)) ?? "whole"
}

export class Restorer {
  // `offer` makes the form follow its model.
  constructor(form, composer, offer) {
    Object.assign(this, { form, composer, offer, place: find("#restored") })
    find("#restore-file").addEventListener("change", async (event) => {
      const chosen = files({ files: event.target.files })
      event.target.value = "" // the same file can be chosen again
      await this.take(chosen)
    })
    onLanguage(() => this.forget())
  }

  // Takes the files of a drop or a paste: {blob, name} each. Several are always input images.
  async take(files) {
    this.forget()
    const [file] = files
    const record = files.length === 1 ? await readParameters(file.blob) : undefined
    if (record) return this.restore(record, file)
    await this.composer.add(files)
    if (files.length !== 1 || !file.blob.type.startsWith("image/")) return
    const isAdded = this.composer.images.some((each) => each.blob === file.blob)
    if (isAdded) this.show(t("restore.added", { name: file.name }))
  }

  async restore(record, file) {
    const { elements } = this.form
    const isServed = [...elements.model.options].some((each) => each.value === record.model)
    fillAgain({
      prompt: record.prompt, negative_prompt: record.negative_prompt?.trim() ? record.negative_prompt : "",
      model: record.model, size: record.size, steps: record.steps, true_cfg_scale: record.true_cfg_scale,
      seed: record.seed, n: 1, background: record.background ?? "", output_resolution: record.output_resolution,
      sampler: record.sampler ?? "", schedule: record.schedule ?? "", cfg_steps: record.cfg_steps,
      loras: lorasText(record.loras), cache: settingsOf(record.cache),
    })
    this.offer()
    await this.composer.restore(undefined)
    const { strength, mask_blur: blur, padding_mask_crop: crop, layers, outpaint: extend } = record
    if (record.pipeline) this.composer.adopt({ mode: modeOf(record), strength, blur, crop, layers, extend })
    const texts = [t("restore.done", { name: file.name })]
    if (record.model && !isServed) texts.push(t("restore.no-model", { model: record.model }))
    const served = new Set(modelNamed(elements.model.value)?.loras?.map(({ sha256 }) => sha256))
    const others = (record.loras ?? []).filter(({ sha256 }) => !served.has(sha256)).map(({ name }) => name)
    if (others.length) texts.push(t("restore.loras", { names: others.join(", ") }))
    if (record.inputs?.length) texts.push(t("restore.inputs", { n: record.inputs.length }))
    if (record.cut) texts.push(t("restore.cut"))
    const instead = button("restore.instead", async () => {
      this.forget()
      await this.composer.add([file])
    }, "link")
    this.show(texts.join(" "), " ", instead)
    elements.prompt.focus()
    this.place.scrollIntoView({ block: "nearest" })
  }

  show(text, ...others) {
    setText(this.place, "")
    this.place.append(make("span", { textContent: text }), ...others)
    this.place.hidden = false
  }

  // Takes the message away.
  forget() {
    this.place.hidden = true
  }
}

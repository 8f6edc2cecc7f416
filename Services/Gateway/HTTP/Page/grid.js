// The form's part about grids: one job for each value of a parameter, each with the same consecutive seeds.

import { randomKey } from "./api.js"
import { find, setText } from "./dom.js"
import { json, plainSize } from "./form.js"
import { MAX_ROWS, PARAMETERS } from "./gridtable.js"
import { onLanguage, t } from "./i18n.js"
import { MAX_BODY_BYTES } from "./images.js"

const PLACEHOLDERS = { steps: "4, 8, 20", true_cfg_scale: "1, 2.5, 4", size: "64x64, 128x64", prompt: "" }

// An error at the field of the values.
class ValuesError extends Error {
  field = "grid-values"
}

export class SeriesFields {
  constructor(form) {
    this.form = form
    this.parameter = form.elements["grid-parameter"]
    this.values = form.elements["grid-values"]
    for (const control of [this.parameter, this.values, form.elements.n]) {
      control.addEventListener("input", () => this.show())
    }
    find("#grid").addEventListener("toggle", () => this.show())
    onLanguage(() => this.show())
  }

  // Follows what the chosen model can vary.
  offer(model) {
    this.model = model
    const steps = find("option[value=steps]", this.parameter)
    steps.disabled = Boolean(model.schedule_steps)
    if (steps.disabled && this.parameter.value === "steps") this.parameter.value = ""
    this.show()
  }

  // Whether a grid is made instead of one job.
  get isChosen() {
    return find("#grid").open && PARAMETERS.includes(this.parameter.value)
  }

  // The values as texts: of prompts one in each line, of others also between commas and spaces.
  get texts() {
    const separator = this.parameter.value === "prompt" ? /\n+/ : /[\s,;，；]+/
    return this.values.value.split(separator).map((text) => text.trim()).filter(Boolean)
  }

  show() {
    const name = this.parameter.value
    find("#grid-values-field").hidden = !name
    this.values.placeholder = PLACEHOLDERS[name] ?? ""
    this.values.rows = name === "prompt" ? 4 : 2
    const [rows, seeds] = [this.texts.length, Number(this.form.elements.n.value) || 0]
    const about = name ? t("grid.about", { rows, seeds, all: rows * seeds, max: MAX_ROWS }) : t("grid.how")
    setText(find("#grid-about"), about)
    // The prompts of the rows stand for the form's own.
    this.form.elements.prompt.required = !(this.isChosen && name === "prompt")
  }

  // The form's field for one that an error of the gateway names: in a grid "[2].steps" is the third value's.
  fieldOf(field) {
    const [, name] = /^\[\d+\]\.?(.*)$/.exec(field ?? "") ?? []
    if (name === undefined) return field
    const isVaried = name === this.parameter.value || (this.parameter.value === "size" && /^(width|height)$/.test(name))
    return isVaried || !name ? "grid-values" : name
  }

  check(texts) {
    if (!texts.length) throw new ValuesError(t("grid.empty"))
    if (texts.length > MAX_ROWS) throw new ValuesError(t("grid.too-many", { count: texts.length, max: MAX_ROWS }))
    const patterns = { steps: /^[1-9]\d{0,5}$/, true_cfg_scale: /^\d{1,3}(\.\d{1,6})?$/, size: /^\d{1,5}[x×X]\d{1,5}$/ }
    const wrong = texts.find((text) => !(patterns[this.parameter.value]?.test(text) ?? true))
    if (wrong !== undefined) throw new ValuesError(t("grid.wrong", { value: wrong }))
  }

  // The body of a request for all jobs: `fields` of the form, and what the composer adds for images.
  async body(fields, parts) {
    const { texts } = this, name = this.parameter.value
    this.check(texts)
    const grid = randomKey().slice(0, 16), others = await attached(parts)
    // Without a seed each row would have its own.
    const seed = fields.seed ?? `${parseInt(randomKey().slice(0, 12), 16)}`
    const jobs = texts.map((text, row) => {
      const value = name === "size" ? plainSize(text) : text
      return json({ ...fields, seed, [name]: value }, {
        ...others, tags: [`grid-${grid}`], metadata: { grid, row: `${row}`, parameter: name },
        idempotency_key: `${grid}-${row}`,
      })
    })
    const body = `[${jobs.join(",")}]`
    if (body.length > MAX_BODY_BYTES) throw new ValuesError(t("grid.too-large"))
    return body
  }
}

// The parts of a form as fields of JSON: files as data URLs, several of one name as a list.
async function attached(parts) {
  const fields = {}
  for (const [name, value] of parts) {
    const isFile = value instanceof Blob
    const text = isFile ? await dataURL(value) : name === "pipeline" ? value : JSON.parse(value)
    const isList = isFile && name !== "mask"
    fields[name] = isList ? [...(fields[name] ?? []), text] : text
  }
  return fields
}

const dataURL = (blob) =>
  new Promise((resolve, reject) => {
    const reader = new FileReader()
    reader.onload = () => resolve(reader.result)
    reader.onerror = () => reject(reader.error)
    reader.readAsDataURL(blob)
  })

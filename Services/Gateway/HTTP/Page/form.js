// The form's own fields: what is sent of them, and how they are filled in.

import { find } from "./dom.js"
import { clearErrors } from "./errors.js"
import { t } from "./i18n.js"

export const form = find("#request")

const NAMES = [
  "prompt", "negative_prompt", "model", "size", "steps", "true_cfg_scale", "background", "cache", "output_resolution", "loras",
  "seed", "n", "sampler", "schedule", "cfg_steps",
]
const TEXTS = ["prompt", "negative_prompt", "model", "size", "background", "sampler", "schedule", "cache"]

// A size as the API has it: "1328x1328".
export const plainSize = (text) => text.replace(/\s/g, "").replace(/[×X]/, "x")

// Adapters as the form has them, "style:0.8, other", and as JSON. A scale that is no number is for the gateway to refuse.
export const lorasText = (loras) => (loras ?? []).map(({ name, scale }) => `${name}:${scale}`).join(", ")

function lorasJSON(text) {
  return JSON.stringify(text.split(",").map((part) => part.trim()).filter(Boolean).map((part) => {
    const [name, scale] = part.split(/:(.*)/s).map((each) => each.trim())
    return scale === undefined ? { name } : { name, scale: scale === "" || Number.isNaN(Number(scale)) ? scale : Number(scale) }
  }))
}

// The fields as texts. What is left empty is left to the model's defaults; what the chosen model does not have is
// disabled.
export function fields() {
  const values = NAMES.filter((name) => !form.elements[name].disabled)
    .map((name) => [name, form.elements[name].value]).filter(([, value]) => value.trim() !== "")
  const { enhance_prompt: enhance } = form.elements
  if (!enhance.disabled && enhance.checked) values.push(["enhance_prompt", "true"])
  return Object.fromEntries(values.map(([name, value]) => {
    if (name === "size") return [name, plainSize(value)]
    if (name === "seed") return [name, `${BigInt(value)}`] // it may be beyond what a number holds here
    if (name === "loras") return [name, lorasJSON(value)]
    return [name, TEXTS.includes(name) || name === "enhance_prompt" ? value : `${Number(value)}`]
  }))
}

// The fields as JSON, with `others`, which are values of JSON.
export function json(fields, others = {}) {
  const isJSON = (name, value) => !TEXTS.includes(name) || (name === "cache" && value.startsWith("{"))
  const text = (name, value) => (isJSON(name, value) ? value : JSON.stringify(value))
  const pairs = [
    ...Object.entries(fields).map(([name, value]) => [name, text(name, value)]),
    ...Object.entries(others).map(([name, value]) => [name, JSON.stringify(value)]),
  ]
  return `{${pairs.map(([name, value]) => `${JSON.stringify(name)}:${value}`).join(",")}}`
}

// The fields as a form, with pairs of a name and a value, which may be a file.
export function multipart(fields, parts) {
  const data = new FormData()
  // Browsers change the line breaks of texts in forms, but not those of files.
  for (const [name, value] of Object.entries(fields)) data.append(name, new Blob([value]), name)
  for (const [name, value] of parts) {
    if (value instanceof Blob) data.append(name, value, value.name ?? name)
    else data.append(name, value)
  }
  return data
}

// Fills in what makes an image again: its prompt is not to be enhanced once more.
export function fillAgain(values) {
  form.elements.enhance_prompt.checked = false
  fill(values)
}

// Exact settings of a step cache, which a job or an image has, as a value of the form's field.
export const settingsOf = (cache) => (cache ? JSON.stringify(cache) : "")

function offerSettings(select, value) {
  for (const option of [...select.options]) if (option.value.startsWith("{")) option.remove()
  if (value?.startsWith("{")) select.append(new Option(t("cache.exact"), value))
}

// Fills the fields in that `values` has.
export function fill(values) {
  for (const [name, value] of Object.entries(values)) {
    const control = form.elements[name]
    if (name === "cache") offerSettings(control, value)
    // A model that is not served cannot be chosen.
    if (control instanceof HTMLSelectElement && ![...control.options].some((each) => each.value === value)) continue
    control.value = value ?? ""
  }
  clearErrors(form)
}

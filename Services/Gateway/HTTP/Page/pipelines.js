// What each pipeline takes, as /openapi.yaml has it, and which of a model's pipelines a form with images is for.

import { t } from "./i18n.js"

const TAKES = {
  "text-to-image": {},
  img2img: { images: 1, strength: true },
  inpaint: { images: 1, mask: true, strength: true, blur: true, crop: true },
  edit: { images: 1, resolution: true },
  "edit-plus": { images: 16, resolution: true },
  "edit-inpaint": { images: 1, mask: true, strength: true, blur: true },
  layered: { images: 1, layers: true },
  controlnet: { controls: 4 },
  "controlnet-inpaint": { controls: 1, mask: true, blur: true },
}

// What users can do with images, and the pipelines that do it, the preferred one first: as the gateway chooses.
export const MODES = {
  whole: ["edit-plus", "edit", "img2img"],
  mask: ["edit-inpaint", "inpaint"],
  extend: ["edit-inpaint", "inpaint"],
  layers: ["layered"],
  control: ["controlnet", "controlnet-inpaint"],
}

// What a pipeline of `model` takes: its card may have fewer images.
function takes(model, name) {
  const all = TAKES[name], most = model.max_references
  return all.images > 1 && most ? { ...all, images: Math.min(all.images, most) } : all
}

const list = (names) => names.join(t("or"))

// The pipeline of `model` for a mode: {name, takes}, with a {reason} when it is not ready; {isMissing, reason} when the
// model has none.
export function serve(model, mode) {
  const served = (model.pipelines ?? []).filter((each) => MODES[mode].includes(each.name))
  const ready = MODES[mode].find((name) => served.some((each) => each.name === name && each.ready))
  if (ready) return { name: ready, takes: takes(model, ready) }
  if (!served.length) {
    return { isMissing: true, reason: t("pipeline.missing", { model: model.id, names: list(MODES[mode]) }) }
  }
  const names = list(served.map((each) => each.name))
  if (mode === "control") return { reason: t("pipeline.no-control", { model: model.id, names }) }
  const [{ name }] = served
  return { reason: t("pipeline.not-ready", { model: model.id, names }), name, takes: takes(model, name) }
}

// The most images that any mode of `model` takes.
export function maxImages(model) {
  const counts = Object.keys(MODES).map((mode) => serve(model, mode).takes)
  return Math.max(0, ...counts.map((takes) => takes?.images ?? takes?.controls ?? 0))
}

export const isServed = (model, name) => (model.pipelines ?? []).some((each) => each.name === name)

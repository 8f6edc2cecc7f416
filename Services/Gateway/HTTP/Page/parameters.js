// What a job, or one image of it, was made from: for the form, and for people.

import { lorasText, settingsOf } from "./form.js"
import { clock, duration, hasText, t } from "./i18n.js"
import { samplerTitle, scheduleTitle } from "./sampling.js"

// Whether images have been asked to be steered away from something.
const negative = (job) => (job.negative_prompt?.trim() ? job.negative_prompt : "")

// The values of the form's fields that make a job again, or one image of it.
export function valuesOf(job, record, image) {
  return {
    prompt: job.prompt, negative_prompt: negative(job), steps: job.steps, true_cfg_scale: job.true_cfg_scale,
    seed: (image ?? job.images[0]).seed, n: image ? 1 : job.n, model: job.model,
    // The size of a job with images follows from them, unless the request had one.
    size: record ? (record.size ?? "") : job.size,
    // The prompt of a transparent image asks for it by itself.
    background: job.background === "opaque" ? "opaque" : "", output_resolution: record?.resolution ?? "",
    sampler: job.sampler ?? "", schedule: job.schedule ?? "", cfg_steps: job.cfg_steps ?? "",
    loras: lorasText(job.loras), cache: settingsOf(job.cache),
  }
}

// What a job with images was asked to do.
export function origin({ pipeline, images, strength, layers }) {
  const count = images.length > 1
    ? t("origin.images", { count: images.length }) : layers ? t("origin.layers", { count: layers }) : ""
  return `${pipeline}${count}${strength === undefined ? "" : ` · ${t("origin.strength", { strength })}`}`
}

// The parameters of a job in one line, but for the one of a name.
export function facts(job, record, except) {
  const own = {
    size: job.size.replace("x", "×"), steps: t("facts.steps", { n: job.steps }),
    true_cfg_scale: t("facts.guidance", { scale: job.true_cfg_scale }), model: job.model,
  }
  const parts = Object.keys(own).filter((name) => name !== except).map((name) => own[name])
  parts.push(...[samplerTitle(job.sampler), scheduleTitle(job.schedule)].filter(Boolean))
  if (job.cfg_steps !== undefined) parts.push(t("facts.cfg-steps", { n: job.cfg_steps }))
  if (negative(job)) parts.push(t("facts.without", { prompt: negative(job) }))
  if (job.loras) parts.push(lorasText(job.loras))
  if (record) parts.push(origin(record))
  return parts.join(" · ")
}

export const statusText = (status) => (hasText(`status.${status}`) ? t(`status.${status}`) : status)

// The parameters of an image as pairs of a text's name and a value; `isWhole`: with what it does not depend on.
export function rows(job, image, record, isWhole = true) {
  const took = job.ended_at && duration(job.ended_at - job.created_at)
  const depends = [
    ["prompt", job.prompt], ["negative", negative(job)], ["model", job.model], ["size", job.size.replace("x", "×")],
    ["steps", `${job.steps}`], ["guidance", `${job.true_cfg_scale}`], ["seed", `${image.seed}`],
    ["sampler", samplerTitle(job.sampler)], ["schedule", scheduleTitle(job.schedule)], ["cfg-steps", `${job.cfg_steps ?? ""}`],
    ["background", t(`background.${job.background}`)], ["cache", job.cache?.method ?? ""], ["loras", lorasText(job.loras)],
    ["origin", record ? origin(record) : ""],
  ]
  const others = [
    ["format", job.output_format], ["state", statusText(image.status)], ["created", clock(job.created_at)],
    ["took", took ?? ""], ["tags", job.tags.join(", ")], ["job", job.id],
  ]
  return [...depends, ...(isWhole ? others : [])].filter(([, value]) => value !== "")
}

// What differs between two images: [the text's name, the value of one, that of the other].
export function differences(one, other) {
  const [left, right] = [one, other].map((each) => new Map(rows(each.job, each.image, each.record, false)))
  return [...new Set([...left.keys(), ...right.keys()])]
    .filter((name) => left.get(name) !== right.get(name))
    .map((name) => [name, left.get(name) ?? "–", right.get(name) ?? "–"])
}

// The same as JSON for a file: what the API takes. Only images of some models have a background.
export function requestOf(job, image, hasBackground) {
  const values = {
    model: job.model, prompt: job.prompt, ...(negative(job) && { negative_prompt: job.negative_prompt }), size: job.size,
    steps: job.steps, true_cfg_scale: job.true_cfg_scale, output_format: job.output_format,
    ...(job.sampler && { sampler: job.sampler }), ...(job.schedule && { schedule: job.schedule }),
    ...(job.cfg_steps !== undefined && { cfg_steps: job.cfg_steps }), ...(job.cache && { cache: job.cache }),
    ...(job.loras && { loras: job.loras }), ...(hasBackground && job.background === "opaque" && { background: "opaque" }),
  }
  // Seeds are texts here; in JSON they are numbers.
  return `{\n  "seed": ${image.seed},\n${JSON.stringify(values, null, 2).slice(2)}\n`
}

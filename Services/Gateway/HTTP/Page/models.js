// The models that the gateway serves: the chosen one, and what the form offers for it.

import { Refusal, read } from "./api.js"
import { find, setText } from "./dom.js"
import { form } from "./form.js"
import { onLanguage, t } from "./i18n.js"
import { offerSampling } from "./sampling.js"

const CLUSTER_SECONDS = 5

let models = []
const listeners = []

// Calls a listener with the chosen model whenever it, or its card, may be another one.
export const onModel = (listener) => listeners.push(listener)

// The model of a name, if it is served.
export const modelNamed = (name) => models.find((each) => each.id === name)

// Shows what the chosen model offers.
export function offer() {
  const model = modelNamed(form.elements.model.value)
  if (!model) return
  showModel(model)
  const { steps, background, cache, enhance_prompt: enhance, true_cfg_scale: guidance } = form.elements
  steps.placeholder = model.schedule_steps ?? model.defaults.steps
  steps.max = model.limits.max_steps
  steps.disabled = Boolean(model.schedule_steps)
  if (steps.disabled) steps.value = ""
  steps.title = steps.disabled ? t("model.distilled", { model: model.id, count: model.schedule_steps }) : ""
  background.disabled = find("#background-field").hidden = !model.transparency
  cache.disabled = find("#cache-field").hidden = !model.step_caches
  enhance.disabled = find("#enhance-field").hidden = !model.enhance_prompt
  guidance.placeholder = model.defaults.true_cfg_scale
  offerSampling(model)
  showAdapters(model)
  const sizes = model.recommended_sizes.map(({ width, height }) => `${width}x${height}`), options = find("#sizes")
  if ([...options.children].map((each) => each.value).join() !== sizes.join()) {
    options.replaceChildren(...sizes.map((each) => new Option(each)))
  }
  for (const listener of listeners) listener(model)
}

// The field for adapters is there where the model has any, or the form names some.
function showAdapters({ loras: served = [] }) {
  const { loras } = form.elements
  loras.disabled = find("#loras-field").hidden = !served.length && !loras.value.trim()
  setText(find("#loras-about"), t(served.length ? "loras.about" : "loras.none", { names: served.map(({ name }) => name).join(", ") }))
}

// What is to be known of a model before it is used: its licence, and what is special about it.
function showModel(model) {
  const about = [
    model.license && t("model.license", { license: model.license }), model.transparency && t("model.transparency"),
    model.schedule_steps && t("model.steps", { count: model.schedule_steps }),
  ].filter(Boolean).join(" · ")
  setText(find("#model-about"), about)
  find("#model-about").hidden = !about
  find("#model-place").hidden = !about && models.length < 2
}

async function loadModels() {
  models = (await read("v1/models")).data.filter((model) => !model.alias_of)
  const select = form.elements.model, chosen = select.value
  if ([...select.options].map((each) => each.value).join() !== models.map((model) => model.id).join()) {
    select.replaceChildren(...models.map((model) => new Option(model.id)))
    if (models.some((model) => model.id === chosen)) select.value = chosen
  }
  find("#model-field").hidden = models.length < 2
  offer()
}

export const STAGES = ["text-encoder", "vae-encoder", "denoiser", "vae-decoder"]

// Shows in the header what the cluster consists of, and follows its models.
export async function showCluster() {
  const place = find("#cluster")
  try {
    const { data, queued_jobs: queued, started_jobs: started } = await read("v1/workers")
    const counts = STAGES.map((stage) => {
      const n = data.filter((worker) => worker.stage === stage).length
      return n ? t(`count.${stage}`, { n }) : t(`count.${stage}.none`)
    })
    const waiting = queued || started ? ` · ${t("cluster.queue", { started, queued })}` : ""
    setText(place, counts.join(" · ") + waiting)
  } catch (error) {
    // Only the operator's key shows workers.
    const isForOthers = error instanceof Refusal && error.status === 403
    setText(place, isForOthers ? "" : error instanceof Refusal ? error.message : t("unreachable"))
    if (!isForOthers) return
  }
  await loadModels().catch(() => setText(place, t("unreachable")))
}

// Begins to follow the cluster, while the page is seen.
export function followCluster() {
  form.elements.model.addEventListener("change", offer)
  onLanguage(() => {
    offer()
    showCluster()
  })
  showCluster()
  setInterval(() => document.visibilityState === "visible" && showCluster(), CLUSTER_SECONDS * 1000)
}

// The gateway's page: submits jobs, follows them, shows their images. It uses nothing but the public API, and keeps the
// API key for as long as the tab is open, and the inputs of jobs (store.js).

import { Refusal, onKeyNeeded, pause, randomKey, read } from "./api.js"
import { Composer } from "./composer.js"
import { clearErrors, showError } from "./errors.js"
import { actions, add, followNext, loadJobs } from "./jobs.js"
import { keep } from "./store.js"

const CLUSTER_SECONDS = 5, RETRY_SECONDS = 2, ATTEMPTS = 5

const find = (selector, root = document) => root.querySelector(selector)
const form = find("#request")
const composer = new Composer(form)

// MARK: The form

// The form's own fields as texts. What is left empty is left to the model's defaults.
function fields() {
  const names = [
    "prompt", "negative_prompt", "model", "size", "steps", "true_cfg_scale", "background", "output_resolution", "seed", "n",
  ]
  // What the chosen model does not have is disabled.
  const values = names.filter((name) => !form.elements[name].disabled)
    .map((name) => [name, form.elements[name].value]).filter(([, value]) => value.trim() !== "")
  return Object.fromEntries(values.map(([name, value]) => {
    if (name === "size") return [name, value.replace(/\s/g, "").replace(/[×X]/, "x")]
    if (name === "seed") return [name, `${BigInt(value)}`] // it may be beyond what a number holds here
    return [name, TEXTS.includes(name) ? value : `${Number(value)}`]
  }))
}

const TEXTS = ["prompt", "negative_prompt", "model", "size", "background"]

function json(fields) {
  const text = (name, value) => (TEXTS.includes(name) ? JSON.stringify(value) : value)
  return `{${Object.entries(fields).map(([name, value]) => `${JSON.stringify(name)}:${text(name, value)}`).join(",")}}`
}

function multipart(fields, parts) {
  const data = new FormData()
  // Browsers change the line breaks of texts in forms, but not those of files.
  for (const [name, value] of Object.entries(fields)) data.append(name, new Blob([value]), name)
  for (const [name, value] of parts) {
    if (value instanceof Blob) data.append(name, value, value.name ?? name)
    else data.append(name, value)
  }
  return data
}

async function submit() {
  const button = find("button[type=submit]", form)
  clearErrors(form)
  if (button.disabled) return
  button.disabled = true
  button.textContent = "Sending…"
  try {
    const record = composer.record()
    const parts = record && (await composer.parts())
    const headers = { "idempotency-key": randomKey(), ...(!record && { "content-type": "application/json" }) }
    const body = record ? multipart(fields(), parts) : json(fields())
    const job = await post({ method: "POST", headers, body })
    if (record) await keep({ ...record, job: job.id })
    add(job, true)
    find("#empty").hidden = true
    followNext()
  } catch (error) {
    // A proxy before the gateway may have a limit of its own, and names no field.
    const isTooLarge = error.status === 413 && !error.field
    if (isTooLarge) showError(form, "image", `together, the images are too large to be sent: ${error.message}`)
    else showError(form, error.field, error.message)
  }
  button.textContent = "Draw"
  button.disabled = false
}

// One key for all attempts: whatever happens to the answers, it is one job.
async function post(options) {
  for (let attempt = 1; ; attempt++) {
    try {
      return await read("v1/jobs", options)
    } catch (error) {
      if (error instanceof Refusal || attempt === ATTEMPTS) throw error
      await pause(RETRY_SECONDS)
    }
  }
}

actions.repeat = async (job, record) => {
  const values = {
    prompt: job.prompt, negative_prompt: job.negative_prompt?.trim() ? job.negative_prompt : "", size: job.size,
    steps: job.steps, true_cfg_scale: job.true_cfg_scale, seed: job.images[0].seed, n: job.n, model: job.model,
    // The prompt of a transparent image asks for it by itself.
    background: job.background === "opaque" ? "opaque" : "", output_resolution: record?.resolution ?? "",
  }
  // The size of a job with images follows from them, unless the request had one.
  if (record) values.size = record.size ?? ""
  for (const [name, value] of Object.entries(values)) form.elements[name].value = value
  clearErrors(form)
  offer()
  await composer.restore(record)
  form.elements.prompt.focus()
}

actions.use = async (blob, name) => {
  await composer.add([{ blob, name }])
  find("#images").scrollIntoView({ block: "nearest" })
  find("#images .remove")?.focus()
}

// MARK: The cluster

let models = []

// Shows what the chosen model offers.
function offer() {
  const model = models.find((each) => each.id === form.elements.model.value)
  if (!model) return
  const size = ({ width, height }) => `${width}x${height}`
  showModel(model)
  const { steps, background } = form.elements
  steps.placeholder = model.schedule_steps ?? model.defaults.steps
  steps.max = model.limits.max_steps
  steps.disabled = Boolean(model.schedule_steps)
  if (steps.disabled) steps.value = ""
  steps.title = steps.disabled ? `${model.id} is distilled to ${model.schedule_steps} steps` : ""
  background.disabled = find("#background-field").hidden = !model.transparency
  form.elements.true_cfg_scale.placeholder = model.defaults.true_cfg_scale
  const sizes = model.recommended_sizes.map(size)
  const options = find("#sizes")
  if ([...options.children].map((each) => each.value).join() !== sizes.join()) {
    options.replaceChildren(...sizes.map((each) => new Option(each)))
  }
  composer.offer(model)
}

// What is to be known of a model before it is used: its licence, and what is special about it.
function showModel(model) {
  const about = [
    model.license && `Licence: ${model.license}`, model.transparency && "images with transparency",
    model.schedule_steps && `${model.schedule_steps} steps, distilled`,
  ].filter(Boolean).join(" · ")
  const place = find("#model-about")
  if (place.textContent !== about) place.textContent = about
  place.hidden = !about
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

const STAGES = [
  ["text-encoder", "text encoder"], ["vae-encoder", "VAE encoder"],
  ["denoiser", "denoiser"], ["vae-decoder", "VAE decoder"],
]

async function showCluster() {
  try {
    const { data, queued_jobs: queued, started_jobs: started } = await read("v1/workers")
    const counts = STAGES.map(([stage, name]) => {
      const number = data.filter((worker) => worker.stage === stage).length
      return `${number || "no"} ${name}${number === 1 ? "" : "s"}`
    })
    const waiting = queued || started ? ` · ${started} in work, ${queued} waiting` : ""
    find("#cluster").textContent = counts.join(" · ") + waiting
    await loadModels()
  } catch (error) {
    find("#cluster").textContent = error instanceof Refusal ? error.message : "the gateway cannot be reached"
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault()
  submit()
})
form.addEventListener("input", (event) => {
  const place = event.target.closest("label, [data-field]")
  if (place?.querySelector(":scope > .error")) clearErrors(place)
})
form.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    find("#large").close()
    form.requestSubmit()
  }
})
form.elements.model.addEventListener("change", offer)
find("#more").addEventListener("click", loadJobs)
onKeyNeeded(() => (find("#access").hidden = false))
find("#access").addEventListener("submit", (event) => {
  event.preventDefault()
  sessionStorage.setItem("key", event.target.elements.key.value.trim())
  event.target.hidden = true
  loadJobs()
  showCluster()
})
loadJobs()
showCluster()
setInterval(() => document.visibilityState === "visible" && showCluster(), CLUSTER_SECONDS * 1000)

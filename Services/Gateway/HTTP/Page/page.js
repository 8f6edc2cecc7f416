// The gateway's page: submits jobs, follows them, shows their images. It uses nothing but the public API
// (/openapi.yaml) and keeps nothing but the API key, for as long as the tab is open. All addresses are relative: a
// proxy may show it below any path.

const JOBS_PER_PAGE = 20
const STREAMS = 3 // at a time: browsers open six connections to a server, and images need some
const CLUSTER_SECONDS = 5, RETRY_SECONDS = 2

const find = (selector, root = document) => root.querySelector(selector)
const form = find("#request"), list = find("#jobs")
const jobs = new Map() // id → {job, element, isFollowed}

// MARK: The API

class Refusal extends Error {
  constructor(status, error) {
    super(error?.message ?? `the gateway answered ${status}`)
    this.status = status
    this.field = error?.param
  }
}

async function call(path, options = {}) {
  const key = sessionStorage.getItem("key")
  const headers = { ...options.headers, ...(key && { authorization: `Bearer ${key}` }) }
  const response = await fetch(path, { ...options, headers, cache: "no-store" })
  if (response.ok) return response
  const body = await response.json().catch(() => null)
  if (response.status === 401) find("#access").hidden = false
  throw new Refusal(response.status, body?.error)
}

// Seeds have 63 bits, numbers 53 here: seeds stay text.
const parse = (text) => JSON.parse(text, (name, value, context) => (name === "seed" ? (context?.source ?? `${value}`) : value))

const read = async (path, options) => parse(await (await call(path, options)).text())

// Yields the events of a text/event-stream as {id, data}.
async function* events(response) {
  if (!response.body) return
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader()
  let text = ""
  for (;;) {
    const { value, done } = await reader.read()
    if (done) return
    text += value
    const blocks = text.split("\n\n")
    text = blocks.pop()
    for (const block of blocks) {
      const fields = Object.fromEntries(block.split("\n").map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)]))
      if (fields.data) yield { id: fields.id, data: parse(fields.data) }
    }
  }
}

// MARK: Jobs

const isOpen = (status) => status === "queued" || status === "running"

// Follows jobs in the order in which they will end, a few at a time.
function followNext() {
  const open = [...jobs.values()].filter((entry) => isOpen(entry.job.status)).sort((a, b) => a.job.created_at - b.job.created_at)
  for (const entry of open.slice(0, STREAMS)) if (!entry.isFollowed) follow(entry)
}

async function follow(entry) {
  entry.isFollowed = true
  const path = `v1/jobs/${entry.job.id}`
  let last
  while (isOpen(entry.job.status) && jobs.has(entry.job.id)) {
    try {
      const response = await call(`${path}/events`, { headers: last && { "last-event-id": last } })
      for await (const { id, data } of events(response)) {
        last = id ?? last
        if (data.image) entry.job.images[data.image.index] = data.image
        show(entry)
      }
      entry.job = await read(path)
    } catch (error) {
      if (error instanceof Refusal && error.status < 500) break
      find(".state", entry.element).textContent = "the gateway cannot be reached; trying again"
      await new Promise((resolve) => setTimeout(resolve, RETRY_SECONDS * 1000))
    }
    show(entry)
  }
  entry.isFollowed = false
  followNext()
}

function add(job, isNewest) {
  if (jobs.has(job.id)) return
  const element = find("#job").content.firstElementChild.cloneNode(true)
  const entry = { job, element, isFollowed: false }
  jobs.set(job.id, entry)
  element.dataset.job = job.id
  find(".prompt", element).textContent = job.prompt
  const facts = [job.size.replace("x", "×"), `${job.steps} steps`, `guidance ${job.true_cfg_scale}`, job.model]
  if (job.negative_prompt?.trim()) facts.push(`without “${job.negative_prompt}”`)
  find(".facts", element).textContent = facts.join(" · ")
  find(".again", element).addEventListener("click", () => fill(job))
  find(".cancel", element).addEventListener("click", () => cancel(entry))
  for (const image of job.images) find(".images", element).append(frame(job, image))
  if (isNewest) list.prepend(element)
  else list.append(element)
  show(entry)
}

function frame(job, image) {
  const figure = find("#image").content.firstElementChild.cloneNode(true)
  const [width, height] = job.size.split("x").map(Number)
  find(".frame", figure).style.aspectRatio = `${width} / ${height}`
  find("progress", figure).setAttribute("aria-label", `image ${image.index + 1}`)
  find("figcaption", figure).textContent = `seed ${image.seed}`
  return figure
}

function show(entry) {
  const { job, element } = entry
  element.dataset.status = job.status
  find(".cancel", element).hidden = !isOpen(job.status)
  find(".state", element).textContent = words(job)
  job.images.forEach((image, index) => showImage(job, image, element.querySelectorAll("figure")[index]))
}

function showImage(job, image, figure) {
  const progress = find("progress", figure)
  if (!progress || figure.dataset.isLoading) return
  if (image.result) {
    figure.dataset.isLoading = "yes"
    load(job, image, figure)
  } else if (image.error) {
    const text = document.createElement("p")
    text.className = "error"
    text.textContent = image.status === "cancelled" ? "cancelled" : image.error.message
    progress.replaceWith(text)
  } else if (image.step > 0) {
    progress.max = image.steps
    progress.value = image.step
  } else {
    progress.removeAttribute("value")
  }
}

async function load(job, image, figure) {
  try {
    const url = URL.createObjectURL(await (await call(`v1/jobs/${job.id}/result?index=${image.index}`)).blob())
    const result = new Image()
    result.alt = job.prompt
    result.className = Math.max(...job.size.split("x")) < 256 ? "small" : ""
    result.src = url
    await result.decode()
    find("progress", figure)?.replaceWith(result)
    const link = document.createElement("a")
    Object.assign(link, { href: url, download: `${job.id}-${image.index}.png`, textContent: "save" })
    find("figcaption", figure).append(" · ", link)
  } catch (error) {
    delete figure.dataset.isLoading
    find("figcaption", figure).textContent = `seed ${image.seed} · ${error.message}`
  }
}

const about = (seconds) => {
  if (seconds === undefined || seconds === null) return ""
  return seconds < 90 ? `, about ${Math.ceil(seconds)} s` : `, about ${Math.round(seconds / 60)} min`
}

function words(job) {
  const open = job.images.filter((image) => isOpen(image.status))
  if (!open.length) return job.status === "succeeded" ? "" : job.status
  const image = open.find((image) => image.status === "running") ?? open[0]
  const others = job.images.length > 1 ? `${job.images.length - open.length} of ${job.images.length} done; ` : ""
  if (image.retry_reason) return `${others}tried again: ${image.retry_reason}`
  if (image.queue_position) return `${others}waiting, place ${image.queue_position}${about(image.seconds_left)}`
  if (image.stage === "vae-decoder" || image.step === image.steps) return `${others}decoding`
  if (image.step > 0) return `${others}step ${image.step} of ${image.steps}${about(image.seconds_left)}`
  return others + (image.stage === "text-encoder" ? "reading the prompt" : image.stage === "denoiser" ? "beginning" : "waiting")
}

async function cancel(entry) {
  find(".cancel", entry.element).disabled = true
  try {
    entry.job = await read(`v1/jobs/${entry.job.id}`, { method: "DELETE" })
    show(entry)
  } catch (error) {
    find(".state", entry.element).textContent = error.message
  }
  find(".cancel", entry.element).disabled = false
}

// MARK: The form

function key() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("")
}

// What is left empty is left to the model's defaults. The seed is sent as its digits: it may be beyond what a number holds here.
function body() {
  const fields = Object.fromEntries([...new FormData(form)].filter(([, value]) => value.trim() !== ""))
  const parts = Object.entries(fields).map(([name, value]) => {
    if (name === "size") return [name, JSON.stringify(value.replace(/\s/g, "").replace(/[×X]/, "x"))]
    return [name, ["steps", "true_cfg_scale", "n"].includes(name) ? String(Number(value)) : name === "seed" ? String(BigInt(value)) : JSON.stringify(value)]
  })
  return `{${parts.map(([name, value]) => `${JSON.stringify(name)}:${value}`).join(",")}}`
}

async function submit() {
  const refusal = find("#refusal"), button = find("button", form)
  refusal.hidden = true
  button.disabled = true
  // One key for all tries: whatever happens to the answers, it is one job.
  const options = { method: "POST", headers: { "content-type": "application/json", "idempotency-key": key() }, body: body() }
  for (let attempt = 1; ; attempt++) {
    try {
      add(await read("v1/jobs", options), true)
      find("#empty").hidden = true
      followNext()
      break
    } catch (error) {
      if (!(error instanceof Refusal) && attempt < 5) {
        await new Promise((resolve) => setTimeout(resolve, RETRY_SECONDS * 1000))
        continue
      }
      refusal.textContent = error.message
      refusal.hidden = false
      form.elements[error.field === "num_inference_steps" ? "steps" : error.field]?.focus?.()
      break
    }
  }
  button.disabled = false
}

function fill(job) {
  const values = {
    prompt: job.prompt, negative_prompt: job.negative_prompt?.trim() ? job.negative_prompt : "", size: job.size, steps: job.steps,
    true_cfg_scale: job.true_cfg_scale, seed: job.images[0].seed, n: job.n, model: job.model,
  }
  for (const [name, value] of Object.entries(values)) form.elements[name].value = value
  form.elements.prompt.focus()
}

function offer(model) {
  const size = ({ width, height }) => `${width}x${height}`
  form.elements.size.placeholder = size(model.defaults.size)
  form.elements.steps.placeholder = model.defaults.steps
  form.elements.steps.max = model.limits.max_steps
  form.elements.true_cfg_scale.placeholder = model.defaults.true_cfg_scale
  find("#sizes").replaceChildren(...model.recommended_sizes.map((each) => new Option(size(each))))
}

// MARK: The cluster

let models = []

async function loadModels() {
  models = (await read("v1/models")).data.filter((model) => !model.alias_of)
  const select = form.elements.model, chosen = select.value
  select.replaceChildren(...models.map((model) => new Option(model.id)))
  if (models.some((model) => model.id === chosen)) select.value = chosen
  find("#model-field").hidden = models.length < 2
  const model = models.find((each) => each.id === select.value)
  if (model) offer(model)
}

async function showCluster() {
  try {
    const { data, queued_jobs: queued, started_jobs: started } = await read("v1/workers")
    const count = (stage, one, many) => {
      const number = data.filter((worker) => worker.stage === stage).length
      return `${number || "no"} ${number === 1 ? one : many}`
    }
    const waiting = queued || started ? ` · ${started} in work, ${queued} waiting` : ""
    find("#cluster").textContent =
      [count("text-encoder", "text encoder", "text encoders"), count("denoiser", "denoiser", "denoisers"), count("vae-decoder", "VAE decoder", "VAE decoders")].join(" · ") + waiting
    if (!models.length) await loadModels()
  } catch (error) {
    find("#cluster").textContent = error instanceof Refusal ? error.message : "the gateway cannot be reached"
  }
}

async function loadJobs() {
  const last = list.lastElementChild?.dataset.job
  const notice = find("#notice")
  try {
    const page = await read(`v1/jobs?limit=${JOBS_PER_PAGE}${last ? `&after=${last}` : ""}`)
    for (const job of page.data) add(job, false)
    find("#more").hidden = !page.has_more
    find("#empty").hidden = jobs.size > 0
    notice.hidden = true
    followNext()
  } catch (error) {
    notice.textContent = error.message
    notice.hidden = false
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault()
  submit()
})
form.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit()
})
form.elements.model.addEventListener("change", () => offer(models.find((model) => model.id === form.elements.model.value)))
find("#more").addEventListener("click", loadJobs)
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

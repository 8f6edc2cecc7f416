// The list of jobs: shows and follows them.

import { Refusal, call, events, pause, read } from "./api.js"
import { frame, showImage, showPreview } from "./results.js"
import { recall } from "./store.js"

const JOBS_PER_PAGE = 20
const STREAMS = 3 // at a time: browsers open six connections to a server, and images need some
const RETRY_SECONDS = 2

const find = (selector, root = document) => root.querySelector(selector)
const list = find("#jobs")
const jobs = new Map() // id → {job, element, isFollowed, record}

// What is done when a job is to be repeated, and with an image that is to be an input.
export const actions = { repeat() {}, use() {} }

const isOpen = (status) => status === "queued" || status === "running"

// Follows jobs in the order in which they will end, a few at a time.
export function followNext() {
  const open = [...jobs.values()].filter((entry) => isOpen(entry.job.status))
  open.sort((a, b) => a.job.created_at - b.job.created_at)
  for (const entry of open.slice(0, STREAMS)) if (!entry.isFollowed) follow(entry)
}

async function follow(entry) {
  entry.isFollowed = true
  const path = `v1/jobs/${entry.job.id}`
  let last
  while (isOpen(entry.job.status) && jobs.has(entry.job.id)) {
    try {
      const response = await call(`${path}/events?previews=true`, { headers: last && { "last-event-id": last } })
      for await (const { id, data } of events(response)) {
        last = id ?? last
        if (data.type === "job.preview") showPreview(entry.element.querySelectorAll("figure")[data.index], data)
        if (data.image) entry.job.images[data.image.index] = data.image
        show(entry)
      }
      entry.job = await read(path)
    } catch (error) {
      if (error instanceof Refusal && error.status < 500) break
      find(".state", entry.element).textContent = "the gateway cannot be reached; trying again"
      await pause(RETRY_SECONDS)
    }
    show(entry)
  }
  entry.isFollowed = false
  followNext()
}

// Shows a job; `isNewest`: as the first one.
export function add(job, isNewest) {
  if (jobs.has(job.id)) return
  const element = find("#job").content.firstElementChild.cloneNode(true)
  const entry = { job, element, isFollowed: false, record: recall(job.id) }
  jobs.set(job.id, entry)
  element.dataset.job = job.id
  find(".prompt", element).textContent = job.prompt
  const facts = [job.size.replace("x", "×"), `${job.steps} steps`, `guidance ${job.true_cfg_scale}`, job.model]
  if (job.negative_prompt?.trim()) facts.push(`without “${job.negative_prompt}”`)
  find(".facts", element).textContent = facts.join(" · ")
  entry.record.then((record) => record && find(".facts", element).append(` · ${origin(record)}`))
  find(".again", element).addEventListener("click", async () => actions.repeat(job, await entry.record))
  find(".cancel", element).addEventListener("click", () => cancel(entry))
  for (const image of job.images) find(".images", element).append(frame(job, image))
  if (isNewest) list.prepend(element)
  else list.append(element)
  show(entry)
}

// What a job with images was asked to do.
function origin({ pipeline, images, strength, layers }) {
  const count = images.length > 1 ? ` of ${images.length} images` : layers ? ` in ${layers} layers` : ""
  return `${pipeline}${count}${strength === undefined ? "" : ` · strength ${strength}`}`
}

function show(entry) {
  const { job, element } = entry
  element.dataset.status = job.status
  find(".cancel", element).hidden = !isOpen(job.status)
  find(".state", element).textContent = words(job)
  const figures = element.querySelectorAll("figure"), use = (blob, name) => actions.use(blob, name)
  job.images.forEach((image, index) => showImage(entry, image, figures[index], use))
}

const about = (seconds) => {
  if (seconds === undefined || seconds === null) return ""
  return seconds < 90 ? `, about ${Math.ceil(seconds)} s` : `, about ${Math.round(seconds / 60)} min`
}

const STAGES = { "text-encoder": "reading the prompt", "vae-encoder": "reading the image", denoiser: "beginning" }

function words(job) {
  const open = job.images.filter((image) => isOpen(image.status))
  if (!open.length) return job.status === "succeeded" ? "" : job.status
  const image = open.find((image) => image.status === "running") ?? open[0]
  const others = job.images.length > 1 ? `${job.images.length - open.length} of ${job.images.length} done; ` : ""
  if (image.retry_reason) return `${others}tried again: ${image.retry_reason}`
  if (image.queue_position) return `${others}waiting, place ${image.queue_position}${about(image.seconds_left)}`
  if (image.stage === "vae-decoder" || image.step === image.steps) return `${others}decoding`
  if (image.step > 0) return `${others}step ${image.step} of ${image.steps}${about(image.seconds_left)}`
  return others + (STAGES[image.stage] ?? "waiting")
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

// Shows the next page of jobs.
export async function loadJobs() {
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

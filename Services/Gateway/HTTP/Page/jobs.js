// The list of jobs: shows and follows them.

import { Refusal, call, events, pause, read } from "./api.js"
import { announce, copy, find, setText } from "./dom.js"
import { rowElement } from "./gridtable.js"
import { clock, duration, t } from "./i18n.js"
import { facts, statusText } from "./parameters.js"
import { frame, showImage, showPreview } from "./results.js"
import { recall } from "./store.js"

const JOBS_PER_PAGE = 20
const STREAMS = 3 // at a time: browsers open six connections to a server, and images need some
const RETRY_SECONDS = 2

const list = find("#jobs")
const jobs = new Map() // id → {job, element, isFollowed, record}
let next // where the next page begins

// What is done when a job is to be repeated, and with an image that is to be an input.
export const actions = { repeat() {}, use() {} }

export const isOpen = (status) => status === "queued" || status === "running"

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
      setText(find(".state", entry.element), t("job.unreachable"))
      await pause(RETRY_SECONDS)
      continue
    }
    show(entry)
  }
  entry.isFollowed = false
  if (!isOpen(entry.job.status)) announce(`announce.${entry.job.status}`, { prompt: entry.job.prompt.slice(0, 80) })
  followNext()
}

// Shows a job; `isNewest`: as the first one.
export function add(job, isNewest) {
  if (jobs.has(job.id)) return
  // A job that is a row of a grid stands in its table.
  const row = rowElement(job, list, isNewest)
  const element = row ?? copy("#job")
  const entry = { job, element, isFollowed: false, record: recall(job.id) }
  jobs.set(job.id, entry)
  element.dataset.job = job.id
  find(".again", element).addEventListener("click", async () => actions.repeat(job, await entry.record))
  find(".cancel", element).addEventListener("click", () => cancel(entry))
  if (!row) {
    find(".prompt", element).textContent = job.prompt
    for (const image of job.images) find(".images", element).append(frame(job, image))
    if (isNewest) list.prepend(element)
    else list.append(element)
  }
  entry.record.then((record) => {
    entry.origin = record
    show(entry)
  })
  show(entry)
}

function show(entry) {
  const { job, element } = entry
  element.dataset.status = job.status
  find(".cancel", element).hidden = !isOpen(job.status)
  setText(find(".state", element), words(job))
  const line = find(".facts", element), revised = find(".revised", element)
  if (line) setText(line, facts(job, entry.origin))
  if (revised && job.revised_prompt) {
    const isShown = job.revised_prompt === job.prompt
    setText(revised, isShown ? t("revised.shown") : t("revised", { prompt: job.revised_prompt }))
    revised.hidden = false
  }
  const figures = element.querySelectorAll("figure"), use = (blob, name) => actions.use(blob, name)
  job.images.forEach((image, index) => showImage(entry, image, figures[index], use))
}

// Shows all jobs anew, as after a change of the language.
export function showJobs() {
  for (const entry of jobs.values()) show(entry)
}

const about = (seconds) => (seconds === undefined || seconds === null ? "" : t("job.about", { time: duration(seconds) }))

// When an image is expected to begin and to end, as far as that is known.
function times({ estimated_start_at: start, estimated_end_at: end }) {
  if (start && end) return ` · ${t("job.start-end", { start: clock(start), end: clock(end) })}`
  return end ? ` · ${t("job.end", { end: clock(end) })}` : ""
}

const STAGES = ["text-encoder", "vae-encoder", "denoiser"]

// How far a job has got, in words; `isShort`: without the times of day.
export function words(job, isShort = false) {
  const open = job.images.filter((image) => isOpen(image.status))
  if (!open.length) return job.status === "succeeded" ? "" : statusText(job.status)
  const image = open.find((image) => image.status === "running") ?? open[0]
  const done = job.images.length - open.length, later = isShort ? "" : times(image)
  const others = job.images.length > 1 ? t("job.others", { done, all: job.images.length }) : ""
  if (image.retry_reason) return others + t("job.retry", { reason: image.retry_reason })
  if (image.queue_position) {
    return others + t("job.place", { place: image.queue_position }) + about(image.seconds_left) + later
  }
  if (image.stage === "vae-decoder" || image.step === image.steps) return others + t("job.decoding")
  if (image.step > 0) {
    const { step, steps } = image
    return others + t("job.step", { step, steps }) + about(image.seconds_left) + later
  }
  return others + t(STAGES.includes(image.stage) ? `job.${image.stage}` : "job.waiting")
}

async function cancel(entry) {
  find(".cancel", entry.element).disabled = true
  try {
    entry.job = await read(`v1/jobs/${entry.job.id}`, { method: "DELETE" })
    show(entry)
  } catch (error) {
    setText(find(".state", entry.element), error.message)
  }
  find(".cancel", entry.element).disabled = false
}

// Shows the next page of jobs.
export async function loadJobs() {
  const notice = find("#notice")
  try {
    const page = await read(`v1/jobs?limit=${JOBS_PER_PAGE}${next ? `&after=${next}` : ""}`)
    next = page.next ?? next
    for (const job of page.data) add(job, false)
    find("#more").hidden = !page.has_more
    find("#empty").hidden = jobs.size > 0
    notice.hidden = true
    followNext()
  } catch (error) {
    setText(notice, error.message)
    notice.hidden = false
  }
}

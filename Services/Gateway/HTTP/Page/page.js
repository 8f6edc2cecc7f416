// The gateway's page: submits jobs, follows them, shows their images. It uses nothing but the public API, and keeps the
// API key for as long as the tab is open, the inputs of jobs (store.js), and a few settings (settings.js).

import { Refusal, onKeyNeeded, pause, randomKey, read } from "./api.js"
import { Composer } from "./composer.js"
import { announce, find } from "./dom.js"
import { clearErrors, showError } from "./errors.js"
import { fields, fillAgain, form, json, multipart } from "./form.js"
import { Gallery } from "./gallery.js"
import { SeriesFields } from "./grid.js"
import { onLanguage, t } from "./i18n.js"
import { takeDropsAndPastes } from "./images.js"
import { actions, add, followNext, loadJobs, showJobs } from "./jobs.js"
import { followCluster, offer, onModel, showCluster } from "./models.js"
import { valuesOf } from "./parameters.js"
import { Presets } from "./presets.js"
import { Restorer } from "./restore.js"
import { prepareSettings } from "./settings.js"
import { prepareKeys } from "./shortcuts.js"
import { keep } from "./store.js"
import { prepareViewer } from "./viewer.js"
import { Views } from "./views.js"
import { WorkersView } from "./workers.js"

const RETRY_SECONDS = 2, ATTEMPTS = 5

const composer = new Composer(form)
const series = new SeriesFields(form)
const presets = new Presets(form, offer)
const views = new Views()
const restorer = new Restorer(form, composer, offer)

// MARK: Submitting

async function submit() {
  const button = find("button[type=submit]", form)
  clearErrors(form)
  if (button.disabled) return
  button.disabled = true
  button.textContent = t("sending")
  try {
    const record = composer.record()
    const parts = record && (await composer.parts())
    const made = series.isChosen ? await submitSeries(parts) : [await submitOne(record, parts)]
    for (const job of made) if (record) await keep({ ...record, job: job.id })
    for (const job of made) add(job, true)
    find("#empty").hidden = true
    announce("announce.sent", { n: made.length })
    followNext()
  } catch (error) {
    // A proxy before the gateway may have a limit of its own, and names no field.
    const isTooLarge = error.status === 413 && !error.field
    if (isTooLarge) showError(form, "image", t("images.too-large", { message: error.message }))
    else showError(form, series.fieldOf(error.field), error.message)
  }
  button.textContent = t("draw")
  button.disabled = false
}

function submitOne(record, parts) {
  const headers = { "idempotency-key": randomKey(), ...(!record && { "content-type": "application/json" }) }
  return post("v1/jobs", { headers, body: record ? multipart(fields(), parts) : json(fields()) })
}

// One job for each row of the grid: all of them, or none.
async function submitSeries(parts) {
  const body = await series.body(fields(), parts ?? [])
  const headers = { "content-type": "application/json" }
  const { data } = await post("v1/jobs/bulk?atomic=true", { headers, body })
  return data.map((each) => each.job)
}

// The same keys for all attempts: whatever happens to the answers, each job is one job.
async function post(path, options) {
  for (let attempt = 1; ; attempt++) {
    try {
      return await read(path, { method: "POST", ...options })
    } catch (error) {
      if (error instanceof Refusal || attempt === ATTEMPTS) throw error
      await pause(RETRY_SECONDS)
    }
  }
}

// MARK: What is done with jobs and results

// Fills the form in with what a job, or one image of it, was made from.
actions.repeat = async (job, record, image) => {
  views.show("create")
  fillAgain(valuesOf(job, record, image))
  offer()
  restorer.forget()
  await composer.restore(record)
  form.elements.prompt.focus()
}

actions.use = async (blob, name) => {
  views.show("create")
  await composer.add([{ blob, name }])
  find("#images").scrollIntoView({ block: "nearest" })
  find("#images .remove")?.focus()
}

// MARK: The page

onModel((model) => {
  composer.offer(model)
  presets.offer(model)
  series.offer(model)
})
form.addEventListener("submit", (event) => {
  event.preventDefault()
  submit()
})
form.addEventListener("input", (event) => {
  const place = event.target.closest("label, [data-field]")
  if (place?.querySelector(":scope > .error")) clearErrors(place)
})
takeDropsAndPastes(find("#images"), async (dropped) => {
  views.show("create")
  await restorer.take(dropped)
})
find("#more").addEventListener("click", loadJobs)
onKeyNeeded(() => (find("#access").hidden = false))
find("#access").addEventListener("submit", (event) => {
  event.preventDefault()
  sessionStorage.setItem("key", event.target.elements.key.value.trim())
  event.target.hidden = true
  loadJobs()
  showCluster()
  views.refresh()
})
onLanguage(() => {
  clearErrors(form)
  composer.translate()
  showJobs()
})

prepareSettings(find("#language"), find("#theme"))
prepareKeys(form, views)
prepareViewer()
views.add("gallery", new Gallery(find("#view-gallery")))
views.add("workers", new WorkersView(find("#view-workers")))
views.begin()
loadJobs()
followCluster()

// The cluster: how many images wait, the workers of each stage with what each does, the models.

import { Refusal, health, read } from "./api.js"
import { copy, find, make, setText } from "./dom.js"
import { bytes, duration, hasText, onLanguage, say, t } from "./i18n.js"
import { STAGES } from "./models.js"

const ROUND_SECONDS = 2
const MAX_WORKERS = 200 // that are shown of a stage

export class WorkersView {
  constructor(root) {
    this.root = root
    onLanguage(() => this.data && this.render())
  }

  show() {
    this.update()
    clearInterval(this.timer)
    this.timer = setInterval(() => document.visibilityState === "visible" && this.update(), ROUND_SECONDS * 1000)
  }

  hide() {
    clearInterval(this.timer)
  }

  async update() {
    if (this.isBusy) return
    this.isBusy = true
    const notice = find("#workers-notice", this.root)
    try {
      const [state, models, workers] = await Promise.all([health(), read("v1/models"), readWorkers()])
      this.data = { state, models: models.data, workers }
      this.render()
      setText(notice, "")
    } catch (error) {
      setText(notice, error instanceof Refusal ? error.message : t("unreachable"))
    }
    notice.hidden = !notice.textContent
    this.isBusy = false
  }

  // MARK: What is shown

  render() {
    const { state, models, workers } = this.data
    const numbers = [
      ["workers.gateway", t(state.isReady ? "workers.ready" : "workers.not-ready")],
      ...(workers ? [["workers.queued", workers.queued_jobs], ["workers.started", workers.started_jobs]] : []),
    ]
    const queue = find("#queue", this.root)
    queue.replaceChildren(...numbers.map(([name, value]) => {
      const term = make("dt")
      say(term, name)
      return make("div", {}, term, make("dd", { textContent: `${value}` }))
    }))
    setText(find("#queue-reason", this.root), state.reason ?? "")
    find("#queue-reason", this.root).hidden = !state.reason
    const place = find("#stages", this.root)
    if (workers) this.renderStages(place, workers.data)
    else place.replaceChildren(make("p", { className: "note", textContent: t("workers.operator") }))
    this.renderModels(models)
  }

  renderStages(place, workers) {
    const names = [...STAGES, ...new Set(workers.map((each) => each.stage).filter((each) => !STAGES.includes(each)))]
    place.replaceChildren(...names.map((stage) => {
      const own = workers.filter((each) => each.stage === stage)
      const name = hasText(`stage.${stage}`) ? t(`stage.${stage}`) : stage
      const head = make("h2", { textContent: name }, make("span", { className: "badge", textContent: `${own.length}` }))
      const list = make("ul", { className: "workers" }, ...own.slice(0, MAX_WORKERS).map((each) => worker(each)))
      const empty = make("p", { className: "note", textContent: t("workers.none") })
      return make("section", { className: "stage-workers", data: { stage } }, head, own.length ? list : empty)
    }))
  }

  renderModels(models) {
    const rows = models.map((model) => {
      const pipelines = model.pipelines.map(({ name, ready }) => {
        const item = make("span", { className: ready ? "badge on" : "badge", textContent: name })
        item.title = t(ready ? "models.ready" : "models.waits")
        return item
      })
      const state = model.ready ? "models.ready" : "models.waits"
      return make("tr", {},
        make("th", { scope: "row", textContent: model.alias_of ? `${model.id} → ${model.alias_of}` : model.id }),
        make("td", { textContent: t(state) }), make("td", { className: "badges" }, ...pipelines),
        make("td", { textContent: model.license ?? "–" }))
    })
    find("tbody", this.root).replaceChildren(...rows)
  }
}

// The workers; nothing where only the operator's key shows them.
async function readWorkers() {
  try {
    return await read("v1/workers")
  } catch (error) {
    if (error instanceof Refusal && error.status === 403) return undefined
    throw error
  }
}

function worker(each) {
  const item = copy("#worker"), isBusy = each.running.length > 0
  const state = isBusy && each.state === "ready" ? "busy" : each.state
  item.dataset.state = state
  find(".name", item).textContent = each.id
  find(".state", item).textContent = hasText(`worker.${state}`) ? t(`worker.${state}`) : state
  find(".tasks", item).append(...each.running.map((task) => {
    const hasSteps = task.steps > 0 && !task.assists
    const text = task.assists ? t("worker.assists", { job: task.job }) : hasSteps
      ? t("worker.step", { job: task.job, step: task.step, steps: task.steps }) : t("worker.task", { job: task.job })
    const entry = make("li", {}, make("span", { textContent: text }))
    if (hasSteps) {
      const bar = make("progress", { max: task.steps, value: task.step })
      bar.setAttribute("aria-label", text)
      entry.append(bar)
    }
    return entry
  }))
  const facts = [
    each.model, t("worker.host", { host: each.host, pid: each.pid }),
    t("worker.free", { free: each.free_credits, all: each.credits }),
    t("worker.done", { done: each.tasks_finished, failed: each.tasks_failed }),
    each.resident_bytes && bytes(each.resident_bytes), t("worker.since", { time: duration(each.session_seconds) }),
    each.silent_seconds > 3 && t("worker.silent", { time: duration(each.silent_seconds) }),
  ]
  find(".facts", item).textContent = facts.filter(Boolean).join(" · ")
  return item
}

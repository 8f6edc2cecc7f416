// The gallery: the tenant's jobs, an entry for each image, by status, tag and words of the prompt.

import { read } from "./api.js"
import { copy, find, make, setText } from "./dom.js"
import { onLanguage, t } from "./i18n.js"
import { actions, isOpen, words } from "./jobs.js"
import { facts, statusText } from "./parameters.js"
import { picks } from "./picks.js"
import { recall } from "./store.js"
import { showThumbnail } from "./thumbnails.js"
import { openViewer } from "./viewer.js"

const JOBS_PER_PAGE = 24
const MAX_JOBS = 600 // that are shown; filters find older ones
const MAX_PAGES = 8 // that are read at once for a few words of prompts, which the gateway does not search
const FOLLOWED = 6 // open jobs behind the first page that are asked for in each round
const ROUND_SECONDS = 3, TYPING_SECONDS = 0.3

export class Gallery {
  constructor(root) {
    this.root = root
    this.list = find("#tiles", root)
    this.filters = find("#filters", root)
    this.jobs = new Map() // id → {job, tiles, record}
    this.round = 0 // of loads: answers of an earlier one are not shown
    this.filters.addEventListener("submit", (event) => event.preventDefault())
    this.filters.addEventListener("input", () => {
      clearTimeout(this.typing)
      this.typing = setTimeout(() => this.load(), TYPING_SECONDS * 1000)
    })
    find("#gallery-more", root).addEventListener("click", () => this.loadMore())
    onLanguage(() => this.showAll())
  }

  show() {
    this.load()
    clearInterval(this.timer)
    this.timer = setInterval(() => document.visibilityState === "visible" && this.update(), ROUND_SECONDS * 1000)
  }

  hide() {
    clearInterval(this.timer)
  }

  // MARK: Loading

  path(after) {
    const { status, tag } = this.filters.elements
    const query = new URLSearchParams({ limit: JOBS_PER_PAGE })
    if (status.value) query.set("status", status.value)
    if (tag.value.trim()) query.set("tag", tag.value.trim())
    if (after) query.set("after", after)
    return `v1/jobs?${query}`
  }

  matches(job) {
    const wanted = this.filters.elements.text.value.trim().toLowerCase().split(/\s+/).filter(Boolean)
    const text = `${job.prompt} ${job.model}`.toLowerCase()
    return wanted.every((word) => text.includes(word))
  }

  // Loads from the beginning, as after a change of the filters.
  async load() {
    this.jobs.clear()
    this.list.replaceChildren()
    this.next = undefined
    this.seen = new Set() // ids of jobs, whether they match or not
    this.round += 1
    await this.loadMore()
  }

  async loadMore() {
    const { round } = this, more = find("#gallery-more", this.root)
    more.disabled = true
    try {
      const before = this.jobs.size
      for (let pages = 0; pages < MAX_PAGES; pages++) {
        const page = await read(this.path(this.next))
        if (round !== this.round) return
        this.next = page.next
        for (const job of page.data) this.take(job, false)
        if (!this.next || this.jobs.size - before >= JOBS_PER_PAGE || this.jobs.size >= MAX_JOBS) break
      }
      this.complain("")
    } catch (error) {
      if (round === this.round) this.complain(error.message)
    }
    more.disabled = false
    this.count()
  }

  // Asks for what is new, and how far open jobs have got.
  async update() {
    const { round } = this
    try {
      const page = await read(this.path())
      const others = [...this.jobs.values()].filter(({ job }) => isOpen(job.status)).map(({ job }) => job.id)
        .filter((id) => !page.data.some((job) => job.id === id)).slice(0, FOLLOWED)
      const open = await Promise.all(others.map((id) => read(`v1/jobs/${id}`)))
      if (round !== this.round) return
      // So many are new that there may be others between them and the known ones.
      if (this.seen.size && !page.data.some((job) => this.seen.has(job.id))) return await this.load()
      for (const job of [...page.data].reverse()) this.take(job, true)
      for (const job of open) this.take(job, true)
      this.complain("")
    } catch (error) {
      if (round === this.round) this.complain(error.message)
    }
    this.count()
  }

  complain(message) {
    const notice = find("#gallery-notice", this.root)
    setText(notice, message)
    notice.hidden = !message
  }

  count() {
    const { size } = this.jobs, isFull = size >= MAX_JOBS
    find("#gallery-more", this.root).hidden = !this.next || isFull
    const key = size === 0 ? "gallery.empty" : isFull ? "gallery.full" : this.next ? "gallery.some" : "gallery.all"
    setText(find("#gallery-count", this.root), t(key, { n: size, seen: this.seen.size }))
  }

  // MARK: Entries

  // Adds a job that matches the filters, or shows how far it has got by now.
  take(job, isNewest) {
    this.seen.add(job.id)
    if (this.matches(job)) this.add(job, isNewest)
  }

  add(job, isNewest) {
    const known = this.jobs.get(job.id)
    if (known) {
      if (isOpen(known.job.status)) {
        known.job = job
        this.showJob(known)
      }
      return
    }
    const entry = { job, record: undefined, tiles: job.images.map((image) => this.tile(job.id, image.index)) }
    this.jobs.set(job.id, entry)
    this.showJob(entry)
    if (isNewest) this.list.prepend(...entry.tiles)
    else this.list.append(...entry.tiles)
    recall(job.id).then((record) => {
      entry.record = record
      if (record) this.showJob(entry)
    })
  }

  tile(id, index) {
    const tile = copy("#tile"), now = () => this.jobs.get(id)
    find(".open", tile).addEventListener("click", () => openViewer(this.images, { id, index }))
    find(".again", tile).addEventListener("click", () => actions.repeat(now().job, now().record, now().job.images[index]))
    find(".cancel", tile).addEventListener("click", () => this.cancel(id))
    return tile
  }

  // What the viewer steps through: images that are done.
  get images() {
    return [...this.list.children].map((tile) => tile.dataset.image).filter(Boolean).map((text) => {
      const [id, index] = text.split(" "), { job, record } = this.jobs.get(id)
      return { job, record, image: job.images[index] }
    }).filter(({ image }) => image.result)
  }

  showJob(entry) {
    entry.tiles.forEach((tile, index) => this.showTile(entry, tile, entry.job.images[index]))
  }

  showTile(entry, tile, image) {
    const { job, record } = entry
    tile.dataset.image = `${job.id} ${image.index}`
    tile.dataset.status = image.status
    setText(find(".prompt", tile), job.prompt)
    setText(find(".facts", tile), `${facts(job, record)} · ${t("facts.seed", { seed: image.seed })}`)
    find(".cancel", tile).hidden = !isOpen(image.status)
    const open = find(".open", tile), place = find(".frame", tile), pick = find(".pick", tile)
    open.disabled = !image.result
    open.setAttribute("aria-label", t("gallery.open", { prompt: job.prompt.slice(0, 120), seed: image.seed }))
    pick.closest("label").hidden = !image.result
    place.classList.toggle("transparent", job.background === "transparent")
    if (image.result) {
      if (pick.dataset.pick) return
      picks.connect(pick, { job, image, get record() { return entry.record } })
      place.replaceChildren()
      showThumbnail(place, job, image)
    } else if (isOpen(image.status)) {
      const bar = find("progress", place) ?? make("progress", { max: image.steps || 1 })
      bar.setAttribute("aria-label", t("image.number", { number: image.index + 1 }))
      if (image.step > 0) bar.value = image.step
      if (!bar.isConnected) place.replaceChildren(bar, make("span", { className: "state" }))
      setText(find(".state", place), words({ ...job, images: [image] }, true))
    } else {
      const text = image.status === "cancelled" ? statusText(image.status) : (image.error?.message ?? statusText(image.status))
      place.replaceChildren(make("span", { className: "error", textContent: text }))
    }
  }

  showAll() {
    for (const entry of this.jobs.values()) this.showJob(entry)
    if (this.round) this.count()
  }

  async cancel(id) {
    try {
      this.add(await read(`v1/jobs/${id}`, { method: "DELETE" }), false)
      this.complain("")
    } catch (error) {
      this.complain(error.message)
    }
  }
}

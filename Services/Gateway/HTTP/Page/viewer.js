// One result large, with its parameters and what can be done with it; arrow keys go to its neighbours.

import { button, find, make, save, setText } from "./dom.js"
import { onLanguage, say, t } from "./i18n.js"
import { actions } from "./jobs.js"
import { modelNamed } from "./models.js"
import { openPair } from "./pair.js"
import { requestOf, rows } from "./parameters.js"
import { picks, prepareTray } from "./picks.js"
import { fetchResult } from "./results.js"

const dialog = find("#viewer")
let images = [], place = 0, loads = 0

// Connects the dialog's buttons and keys, and the bar of chosen results.
export function prepareViewer() {
  find(".earlier", dialog).addEventListener("click", () => step(-1))
  find(".later", dialog).addEventListener("click", () => step(1))
  dialog.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key]
    if (!way || event.target.matches("input")) return
    event.preventDefault()
    step(way)
  })
  dialog.addEventListener("close", () => {
    loads += 1
    clear()
  })
  prepareTray(openPair)
  onLanguage(() => dialog.open && show())
}

// Opens the image number `index` of the job `id`, one of `all`: {job, image, record} each.
export function openViewer(all, { id, index }) {
  images = all
  place = Math.max(all.findIndex(({ job, image }) => job.id === id && image.index === index), 0)
  if (!images.length) return
  dialog.showModal()
  show()
}

function step(way) {
  if (!images[place + way]) return
  place += way
  show()
}

// Parameters as a list of names and values.
export function describe(list, pairs) {
  list.replaceChildren(...pairs.flatMap(([name, value]) => {
    const term = make("dt")
    say(term, name)
    return [term, make("dd", { textContent: value })]
  }))
}

function clear() {
  for (const image of dialog.querySelectorAll(".frame img")) URL.revokeObjectURL(image.src)
  find(".frame", dialog).replaceChildren()
}

async function show() {
  const { job, image, record } = images[place], error = find(".error", dialog)
  const load = ++loads
  setText(find("#viewer-title"), t("viewer.title", { number: place + 1, all: images.length }))
  find(".earlier", dialog).disabled = place === 0
  find(".later", dialog).disabled = place === images.length - 1
  describe(find(".parameters", dialog), rows(job, image, record))
  find(".actions", dialog).replaceChildren()
  error.hidden = true
  clear()
  const frame = find(".frame", dialog)
  frame.classList.toggle("transparent", job.background === "transparent")
  try {
    const results = await Promise.all(
      image.layers
        ? Array.from({ length: image.layers }, (_, layer) => fetchResult(job, image, layer))
        : [fetchResult(job, image)],
    )
    // Another one is shown by now.
    if (load !== loads) return
    const [first] = results
    first.element.alt = job.prompt
    frame.style.setProperty("--ratio", first.element.naturalWidth / first.element.naturalHeight)
    frame.append(...results.map(({ element }) => element))
    find(".actions", dialog).append(...buttons(images[place], results))
  } catch (problem) {
    if (load !== loads) return
    setText(error, problem.message)
    error.hidden = false
  }
}

function buttons(item, results) {
  const { job, image, record } = item, [first] = results
  const close = (action) => () => {
    dialog.close()
    action()
  }
  const pick = button("compare", () => {})
  picks.connect(pick, item)
  const request = new Blob([requestOf(job, image, modelNamed(job.model)?.transparency)], { type: "application/json" })
  return [
    button("again", close(() => actions.repeat(job, record, image)), "main"),
    button("use", close(() => actions.use(first.blob, first.name))),
    pick,
    ...results.map(({ blob, name }) => button("viewer.save", () => save(blob, name))),
    button("viewer.request", () => save(request, `${job.id}-${image.index}.json`)),
  ]
}

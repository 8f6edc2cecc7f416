// The images of jobs: their progress, then the results with what can be done with them.

import { call } from "./api.js"
import { compare } from "./compare.js"
import { copy, find, make } from "./dom.js"
import { say, t, translated } from "./i18n.js"
import { picks } from "./picks.js"

const SMALL = 256 // pixels; results with smaller sides are enlarged without being smoothed

const EXTENSIONS = { "image/webp": "webp", "image/jpeg": "jpg" } // of files; others are PNG

// A figure for an image of `job`.
export function frame(job, image) {
  const figure = copy("#image")
  const [width, height] = job.size.split("x").map(Number)
  find(".frame", figure).style.aspectRatio = `${width} / ${height}`
  find(".frame", figure).classList.toggle("transparent", job.background === "transparent")
  const progress = find("progress", figure)
  translated(progress, () => progress.setAttribute("aria-label", t("image.number", { number: image.index + 1 })))
  find("figcaption", figure).append(seed(image))
  return figure
}

function seed(image) {
  const text = document.createElement("span")
  say(text, "facts.seed", { seed: image.seed })
  return text
}

// Shows in `figure` how far `image` is; `use` is called with the blob and the name of a result that is to be an input.
export function showImage(entry, image, figure, use) {
  const progress = find("progress", figure)
  if (!progress || figure.dataset.isLoading) return
  if (image.result) {
    figure.dataset.isLoading = "yes"
    load(entry, image, figure, use)
  } else if (image.error) {
    find(".preview", figure)?.remove()
    const text = make("p", { className: "error" })
    if (image.status === "cancelled") say(text, "status.cancelled")
    else text.textContent = image.error.message
    progress.replaceWith(text)
  } else if (image.step > 0) {
    progress.max = image.steps
    progress.value = image.step
  } else {
    progress.removeAttribute("value")
  }
}

// Shows what an image that is not done yet looks like. The progress beside it says how far it has got.
export function showPreview(figure, { step, b64_json: file }) {
  if (!find("progress", figure) || figure.dataset.isLoading) return
  let preview = find(".preview", figure)
  if (!preview) {
    preview = Object.assign(new Image(), { className: "preview", alt: "" })
    find(".frame", figure).prepend(preview)
  }
  preview.dataset.step = step
  preview.src = `data:image/jpeg;base64,${file}`
}

async function load(entry, image, figure, use) {
  const { job } = entry, box = find(".frame", figure)
  try {
    // All layers or none: an error leaves the figure as it is, to be loaded later.
    const numbers = image.layers ? [...Array(image.layers).keys()] : [undefined]
    const results = await Promise.all(numbers.map((layer) => fetchResult(job, image, layer)))
    const [first] = results
    box.style.aspectRatio = `${first.element.naturalWidth} / ${first.element.naturalHeight}`
    find(".preview", figure)?.remove()
    find("progress", figure)?.replaceWith(...results.map((result) => result.element))
    first.element.alt = job.prompt
    const record = await entry.record
    if (image.layers) figure.append(layers(figure, results, use))
    else find("figcaption", figure).append(" · ", ...links(first, use), " · ", pick({ job, image, record }))
    if (record) compare(box, first.element, record)
  } catch (error) {
    delete figure.dataset.isLoading
    find("figcaption", figure).replaceChildren(seed(image), ` · ${error.message}`)
  }
}

// The file of a result, of one layer where there are layers, and a name for it.
export async function fetchFile(job, image, layer) {
  const path = `v1/jobs/${job.id}/result?index=${image.index}${layer === undefined ? "" : `&layer=${layer}`}`
  // A result never changes: the browser may keep it.
  const blob = await (await call(path, { cache: "default" })).blob()
  const extension = EXTENSIONS[blob.type] ?? "png"
  const name = `${job.id}-${image.index}${layer === undefined ? "" : `-layer-${layer + 1}`}.${extension}`
  return { blob, name }
}

// A result with an element that shows it.
export async function fetchResult(job, image, layer) {
  const { blob, name } = await fetchFile(job, image, layer)
  const url = URL.createObjectURL(blob), element = new Image()
  element.alt = ""
  element.className = `result ${Math.max(...job.size.split("x")) < SMALL ? "small" : ""}`
  element.src = url
  await element.decode()
  return { blob, url, element, name }
}

// What can be done with a result; the number of a layer tells several apart for screen readers.
function links({ blob, url, name }, use, number) {
  const save = make("a", { href: url, download: name }), again = make("button", { type: "button", className: "use" })
  again.addEventListener("click", () => use(blob, name))
  for (const [element, text] of [[save, "save"], [again, "use"]]) {
    const [seen, unseen] = [make("span"), make("span", { className: "unseen" })]
    say(seen, text)
    element.append(seen)
    if (number === undefined) continue
    say(unseen, "layer", { number })
    element.append(" ", unseen)
  }
  return [save, " · ", again]
}

// Chooses a result to be compared with another one.
function pick(result) {
  const element = make("button", { type: "button", className: "compare-pick" })
  say(element, "compare")
  picks.connect(element, result)
  return element
}

// The layers below their composite, each alone, to be left out of it, and to be saved.
function layers(figure, results, use) {
  figure.classList.add("layered")
  const list = make("ol", { className: "layers" })
  results.forEach((result, index) => {
    const entry = copy("#layer"), shown = find("input", entry)
    const place = index === 0 ? "layer.bottom" : index === results.length - 1 ? "layer.top" : "layer"
    const number = index + 1
    Object.assign(find("img", entry), { src: result.url, alt: "", className: result.element.className })
    say(find("span", entry), place, { number })
    shown.addEventListener("change", () => (result.element.style.visibility = shown.checked ? "" : "hidden"))
    find(".links", entry).append(...links(result, use, number))
    list.append(entry)
  })
  return list
}

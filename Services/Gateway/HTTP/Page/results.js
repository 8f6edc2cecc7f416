// The images of jobs: their progress, then the results with what can be done with them.

import { call } from "./api.js"
import { compare } from "./compare.js"

const SMALL = 256 // pixels; results with smaller sides are enlarged without being smoothed

const EXTENSIONS = { "image/webp": "webp", "image/jpeg": "jpg" } // of files; others are PNG

const find = (selector, root = document) => root.querySelector(selector)
const copy = (selector) => find(selector).content.firstElementChild.cloneNode(true)

// A figure for an image of `job`.
export function frame(job, image) {
  const figure = copy("#image")
  const [width, height] = job.size.split("x").map(Number)
  find(".frame", figure).style.aspectRatio = `${width} / ${height}`
  find(".frame", figure).classList.toggle("transparent", job.background === "transparent")
  find("progress", figure).setAttribute("aria-label", `image ${image.index + 1}`)
  find("figcaption", figure).textContent = `seed ${image.seed}`
  return figure
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
    if (image.layers) figure.append(layers(figure, results, use))
    else find("figcaption", figure).append(" · ", ...links(first, use))
    const record = await entry.record
    if (record) compare(box, first.element, record)
  } catch (error) {
    delete figure.dataset.isLoading
    find("figcaption", figure).textContent = `seed ${image.seed} · ${error.message}`
  }
}

// A result, of one layer where there are layers: its file, and an element that shows it.
async function fetchResult(job, image, layer) {
  const path = `v1/jobs/${job.id}/result?index=${image.index}${layer === undefined ? "" : `&layer=${layer}`}`
  const blob = await (await call(path)).blob()
  const url = URL.createObjectURL(blob), element = new Image()
  element.alt = ""
  element.className = `result ${Math.max(...job.size.split("x")) < SMALL ? "small" : ""}`
  element.src = url
  await element.decode()
  const extension = EXTENSIONS[blob.type] ?? "png"
  const name = `${job.id}-${image.index}${layer === undefined ? "" : `-layer-${layer + 1}`}.${extension}`
  return { blob, url, element, name }
}

// What can be done with a result; `what` tells several apart for screen readers.
function links({ blob, url, name }, use, what) {
  const save = document.createElement("a"), again = document.createElement("button")
  Object.assign(save, { href: url, download: name, textContent: "save" })
  Object.assign(again, { type: "button", className: "use", textContent: "use as input" })
  if (what) for (const each of [save, again]) each.setAttribute("aria-label", `${each.textContent}: ${what}`)
  again.addEventListener("click", () => use(blob, name))
  return [save, " · ", again]
}

// The layers below their composite, each alone, to be left out of it, and to be saved.
function layers(figure, results, use) {
  figure.classList.add("layered")
  const list = document.createElement("ol")
  list.className = "layers"
  results.forEach((result, index) => {
    const entry = copy("#layer"), shown = find("input", entry)
    const place = index === 0 ? ", bottom" : index === results.length - 1 ? ", top" : ""
    const name = `Layer ${index + 1}`
    Object.assign(find("img", entry), { src: result.url, alt: name, className: result.element.className })
    find("span", entry).textContent = name + place
    shown.addEventListener("change", () => (result.element.style.visibility = shown.checked ? "" : "hidden"))
    find(".links", entry).append(...links(result, use, name))
    list.append(entry)
  })
  return list
}

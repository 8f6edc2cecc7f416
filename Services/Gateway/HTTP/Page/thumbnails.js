// Small images of results, loaded when they come into view and drawn at their small size: a gallery of large images
// takes no more memory than what is seen of it.

import { make } from "./dom.js"
import { fetchFile } from "./results.js"

const SIDE = 320 // pixels of the longer side
const LOADS = 3 // at a time

let loading = 0
const waiting = [] // places in view
const sources = new WeakMap() // place → {job, image}

const observer = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue
      observer.unobserve(target)
      waiting.push(target)
    }
    loadNext()
  },
  { rootMargin: "200px" },
)

// Shows the result of an image of `job` in `place`, as soon as that comes into view.
export function showThumbnail(place, job, image) {
  sources.set(place, { job, image })
  observer.observe(place)
}

async function loadNext() {
  while (loading < LOADS && waiting.length) {
    const place = waiting.shift()
    // Another filter has taken it away.
    if (!place.isConnected) continue
    loading += 1
    load(place, sources.get(place)).finally(() => {
      loading -= 1
      loadNext()
    })
  }
}

async function load(place, { job, image }) {
  try {
    // Of layers the first stands for all.
    const { blob } = await fetchFile(job, image, image.layers ? 0 : undefined)
    const full = await createImageBitmap(blob)
    const scale = Math.min(SIDE / Math.max(full.width, full.height), 1)
    const canvas = make("canvas", { width: Math.round(full.width * scale), height: Math.round(full.height * scale) })
    canvas.classList.toggle("small", Math.max(full.width, full.height) < 256)
    const context = canvas.getContext("2d")
    context.imageSmoothingQuality = "high"
    context.drawImage(full, 0, 0, canvas.width, canvas.height)
    full.close()
    place.replaceChildren(canvas)
  } catch (error) {
    place.replaceChildren(make("span", { className: "error", textContent: error.message }))
  }
}

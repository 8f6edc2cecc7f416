// Two results side by side, or one over the other with a slider between them, and what their parameters differ in.

import { isOtherShape, overlay } from "./compare.js"
import { find, make, setText } from "./dom.js"
import { onLanguage, say, t } from "./i18n.js"
import { differences } from "./parameters.js"
import { fetchResult } from "./results.js"

const dialog = find("#pair")
let items = [], results = []

for (const choice of dialog.querySelectorAll("[name=pair-mode]")) choice.addEventListener("change", () => arrange())
dialog.addEventListener("close", () => {
  for (const { url } of results) URL.revokeObjectURL(url)
  results = []
  find("#pair-place").replaceChildren()
})
onLanguage(() => dialog.open && describe())

// Opens the comparison of two results: {job, image, record} each.
export async function openPair(one, other) {
  const error = find(".error", dialog)
  items = [one, other]
  error.hidden = true
  dialog.showModal()
  describe()
  try {
    const loaded = await Promise.all(items.map(({ job, image }) => fetchResult(job, image, image.layers ? 0 : undefined)))
    if (!dialog.open) return
    results = loaded
    arrange()
  } catch (problem) {
    setText(error, problem.message)
    error.hidden = false
  }
}

function describe() {
  const rows = differences(...items).map(([name, left, right]) => {
    const head = make("th", { scope: "row" })
    say(head, name)
    return make("tr", {}, head, make("td", { textContent: left }), make("td", { textContent: right }))
  })
  find("tbody", dialog).replaceChildren(...rows)
  find(".scroll", dialog).hidden = !rows.length
  find("#pair-same").hidden = rows.length > 0
  if (results.length) arrange()
}

// Shows both images in the chosen way.
function arrange() {
  if (results.length < 2) return
  const [left, right] = results.map(({ element }) => element)
  const frames = results.map(() => make("div", { className: "frame" })), place = find("#pair-place")
  const isSlider = find("[value=slider]", dialog).checked
  place.className = isSlider ? "one" : "two"
  left.alt = `${t("pair.left")}: ${items[0].job.prompt}`
  right.alt = `${t("pair.right")}: ${items[1].job.prompt}`
  left.className = left.className.replace(/\b(before|other-shape)\b/g, "").trim()
  const ratio = ({ naturalWidth, naturalHeight }) => naturalWidth / naturalHeight
  const isClear = items.some(({ job }) => job.background === "transparent")
  frames.forEach((frame, index) => {
    frame.style.setProperty("--ratio", ratio(isSlider ? right : results[index].element))
    frame.classList.toggle("transparent", isClear)
  })
  if (isSlider) {
    frames[1].append(right)
    if (isOtherShape(ratio(left), ratio(right))) left.classList.add("other-shape")
    overlay(frames[1], left, "pair.share", "pair.value", 50)
    place.replaceChildren(frames[1])
  } else {
    frames[0].append(left)
    frames[1].append(right)
    place.replaceChildren(...frames)
  }
}

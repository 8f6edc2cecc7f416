// Two images in one frame, with a slider between them: a result and its input, or two results.

import { make } from "./dom.js"
import { t, translated } from "./i18n.js"

const SAME_SHAPE = 0.05 // how much two ratios of sides may differ, of an image that was scaled

// Puts the input of `record` over `result`, an img in `frame`.
export function compare(frame, result, record) {
  const [input] = record.images
  if (!input || record.mode === "control") return
  const before = new Image()
  before.src = URL.createObjectURL(input.blob)
  translated(before, () => (before.alt = t("compare.input")))
  before.className = result.classList.contains("small") ? "small" : ""
  const [width, height] = [result.naturalWidth, result.naturalHeight]
  if (record.mode === "extend") {
    const { left, top, right, bottom } = record.extend
    const [fullWidth, fullHeight] = [input.width + left + right, input.height + top + bottom]
    const share = (part, whole) => `${(part / whole) * 100}%`
    Object.assign(before.style, {
      left: share(left, fullWidth), top: share(top, fullHeight),
      width: share(input.width, fullWidth), height: share(input.height, fullHeight),
    })
  } else if (isOtherShape(input.width / input.height, width / height)) {
    before.classList.add("other-shape")
  }
  overlay(frame, before, "compare.slider", "compare.value")
}

export const isOtherShape = (one, other) => Math.abs(one / other - 1) > SAME_SHAPE

// Puts `before`, an img, over what is in `frame`, as far as a slider says; `label` and `value` are names of texts for
// the slider. `share`: of the width, from 0 to 100, at first.
export function overlay(frame, before, label, value, share = 0) {
  before.classList.add("before")
  const slider = make("input", { type: "range", min: 0, max: 100, value: share, className: "split" })
  const show = () => {
    slider.setAttribute("aria-label", t(label))
    frame.style.setProperty("--split", `${slider.value}%`)
    slider.setAttribute("aria-valuetext", t(value, { percent: slider.value }))
  }
  slider.addEventListener("input", show)
  frame.classList.add("compare")
  frame.append(make("div", { className: "layer" }, before), make("span", { className: "line" }), slider)
  translated(slider, show)
  return slider
}

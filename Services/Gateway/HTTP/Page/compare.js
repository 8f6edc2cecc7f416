// A result and its input in one frame, with a slider between them.

const SAME_SHAPE = 0.05 // how much two ratios of sides may differ, of an image that was scaled

// Puts the input of `record` over `result`, an img in `frame`.
export function compare(frame, result, record) {
  const [input] = record.images
  if (!input || record.mode === "control") return
  const before = new Image(), slider = document.createElement("input"), line = document.createElement("span")
  before.src = URL.createObjectURL(input.blob)
  before.alt = "the input"
  before.className = result.classList.contains("small") ? "before small" : "before"
  const [width, height] = [result.naturalWidth, result.naturalHeight]
  if (record.mode === "extend") {
    const { left, top, right, bottom } = record.extend
    const [fullWidth, fullHeight] = [input.width + left + right, input.height + top + bottom]
    const share = (part, whole) => `${(part / whole) * 100}%`
    Object.assign(before.style, {
      left: share(left, fullWidth), top: share(top, fullHeight),
      width: share(input.width, fullWidth), height: share(input.height, fullHeight),
    })
  } else if (Math.abs((input.width * height) / (input.height * width) - 1) > SAME_SHAPE) {
    before.classList.add("other-shape")
  }
  Object.assign(slider, { type: "range", min: 0, max: 100, value: 0, className: "split" })
  slider.setAttribute("aria-label", "How much of the input is shown")
  const layer = document.createElement("div")
  layer.className = "layer"
  layer.append(before)
  line.className = "line"
  const show = () => {
    frame.style.setProperty("--split", `${slider.value}%`)
    slider.setAttribute("aria-valuetext", `${slider.value} % input`)
  }
  slider.addEventListener("input", show)
  frame.classList.add("compare")
  frame.append(layer, line, slider)
  show()
}

// Values that are filled in at once: sizes and speeds of the chosen model, and presets of one's own, kept in this browser.

import { find, make, setText } from "./dom.js"
import { fill, lorasText, plainSize } from "./form.js"
import { language, onLanguage, t } from "./i18n.js"
import { keepSetting, recallSetting } from "./settings.js"

const MAX_OWN = 20, MAX_NAME = 40, MAX_VALUE = 2000 // presets, and characters of a name and of a value
const RATIOS = ["1:1", "16:9", "9:16", "4:3", "3:4", "3:2", "2:3", "2:1", "1:2", "21:9", "9:21"]
const TOLERANCE = 0.04 // sizes are multiples of 16, so ratios are not exact
// What a preset of one's own has: everything but what is drawn.
const NAMES = [
  "model", "negative_prompt", "size", "steps", "true_cfg_scale", "background", "cache", "output_resolution", "loras", "n",
  "sampler", "schedule", "cfg_steps",
]

// The usual name of a ratio of sides; nothing when none is near.
export function ratioOf({ width, height }) {
  const off = (name) => {
    const [one, other] = name.split(":").map(Number)
    return Math.abs((width * other) / (height * one) - 1)
  }
  const best = RATIOS.reduce((a, b) => (off(b) < off(a) ? b : a))
  return off(best) <= TOLERANCE ? best : undefined
}

// What a model's card speaks for; empty texts stand for the model's own.
export function speedsOf(model) {
  const speeds = ownSpeedsOf(model), distilled = (model.presets ?? []).filter(({ loras }) => loras.length)
  if (!distilled.length) return speeds
  return [
    ...speeds.map((speed) => ({ ...speed, schedule: "", loras: "" })),
    ...distilled.map(({ title, steps, true_cfg_scale: guidance, schedule = "", loras }) => ({
      name: "preset.lightning", count: steps, detail: title.split(" · ").slice(2).join(" · "), steps: `${steps}`,
      guidance: `${guidance}`, schedule, loras: lorasText(loras),
    })),
  ]
}

// Steps and guidance without adapters.
function ownSpeedsOf({ schedule_steps: fixed, defaults }) {
  if (fixed) return [{ name: "preset.turbo", count: fixed, steps: "", guidance: "" }]
  // A model whose own values are a few steps without guidance was distilled.
  if (defaults.steps <= 8 && defaults.true_cfg_scale <= 1) {
    return [4, 8].map((steps) => ({ name: "preset.lightning", count: steps, steps: `${steps}`, guidance: "1" }))
  }
  const draft = Math.max(Math.round(defaults.steps * 0.4), 4)
  return [
    { name: "preset.standard", count: defaults.steps, steps: "", guidance: "" },
    { name: "preset.draft", count: draft, steps: `${draft}`, guidance: "" },
    { name: "preset.unguided", count: defaults.steps, steps: "", guidance: "1" },
  ]
}

export class Presets {
  constructor(form, offer) {
    Object.assign(this, { form, offerModel: offer, own: recallOwn() })
    find("#save-preset").addEventListener("click", () => this.save())
    form.elements["preset-name"].addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.ctrlKey || event.metaKey) return
      event.preventDefault()
      this.save()
    })
    form.addEventListener("input", () => this.mark())
    onLanguage(() => this.showOwn())
    this.showOwn()
  }

  // Shows what fits the chosen model.
  offer(model) {
    const sizes = model.recommended_sizes.map((size) => ({ ...size, ratio: ratioOf(size) })), speeds = speedsOf(model)
    const shown = JSON.stringify([sizes, speeds, language()])
    if (this.shown !== shown) {
      this.shown = shown
      const isOnly = ({ ratio }) => ratio && sizes.filter((each) => each.ratio === ratio).length === 1
      find("#size-presets").replaceChildren(...sizes.map((size) => this.sizeChip(size, isOnly(size))))
      find("#speed-presets").replaceChildren(...speeds.map((speed) => this.speedChip(speed)))
    }
    this.mark()
  }

  sizeChip(size, isOnly) {
    const text = `${size.width}×${size.height}`, shape = make("span", { className: "shape" })
    shape.style.aspectRatio = `${size.width} / ${size.height}`
    const chip = this.chip({ size: `${size.width}x${size.height}` }, shape, isOnly ? size.ratio : text)
    chip.title = text
    return chip
  }

  speedChip({ name, count, detail, steps, guidance, ...others }) {
    const text = [t(name, { count }), detail].filter(Boolean).join(" · ")
    const chip = this.chip({ steps, true_cfg_scale: guidance, ...others }, text)
    chip.title = t(`${name}.title`, { count })
    return chip
  }

  // A button that fills values in, and takes them out again where that leaves the model's own.
  chip(values, ...children) {
    const chip = make("button", { type: "button", className: "chip", data: { values: JSON.stringify(values) } }, ...children)
    chip.addEventListener("click", () => {
      const isOff = chip.getAttribute("aria-pressed") === "true"
      fill(isOff ? Object.fromEntries(Object.keys(values).map((name) => [name, ""])) : values)
      this.form.dispatchEvent(new Event("input"))
      this.form.elements.steps.dispatchEvent(new Event("input"))
    })
    return chip
  }

  // Shows which presets the form agrees with.
  mark() {
    const { elements } = this.form
    for (const chip of document.querySelectorAll("#presets .chip")) {
      const values = Object.entries(JSON.parse(chip.dataset.values))
      const isOn = values.every(([name, value]) => plainSize(elements[name].value) === value)
      chip.setAttribute("aria-pressed", isOn)
    }
  }

  // MARK: One's own

  save() {
    const { elements } = this.form, name = elements["preset-name"].value.trim().slice(0, MAX_NAME)
    const notice = (key, values) => setText(find("#own-notice"), t(key, values))
    if (!name) {
      elements["preset-name"].focus()
      return notice("presets.no-name")
    }
    const others = this.own.filter((each) => each.name !== name)
    if (others.length >= MAX_OWN) return notice("presets.too-many", { max: MAX_OWN })
    const values = Object.fromEntries(NAMES.map((each) => [each, elements[each].value]))
    if (values.negative_prompt.length > MAX_VALUE) return notice("presets.too-long", { max: MAX_VALUE })
    this.own = [...others, { name, values }]
    elements["preset-name"].value = ""
    notice(keepSetting("presets", this.own) ? "presets.saved" : "presets.not-kept", { name })
    this.showOwn()
  }

  showOwn() {
    const entries = this.own.map((preset) => {
      const use = make("button", { type: "button", className: "chip", textContent: preset.name })
      const remove = make("button", { type: "button", className: "chip remove", textContent: "×" })
      remove.setAttribute("aria-label", t("presets.remove", { name: preset.name }))
      use.addEventListener("click", () => {
        fill(preset.values)
        this.offerModel()
      })
      remove.addEventListener("click", () => {
        this.own = this.own.filter((each) => each !== preset)
        keepSetting("presets", this.own)
        this.showOwn()
        this.form.elements["preset-name"].focus()
      })
      return make("li", {}, use, remove)
    })
    find("#own-list").replaceChildren(...entries)
    find("#own-list").hidden = !entries.length
    find("#own-empty").hidden = entries.length > 0
  }
}

// The presets that this browser has kept, as far as they are some.
function recallOwn() {
  const kept = recallSetting("presets")
  const isText = (value, most) => typeof value === "string" && value.length <= most
  const isPreset = (each) => isText(each?.name, MAX_NAME) && each.name && typeof each.values === "object" && each.values
    && Object.entries(each.values).every(([name, value]) => NAMES.includes(name) && isText(value, MAX_VALUE))
  return Array.isArray(kept) ? kept.filter(isPreset).slice(0, MAX_OWN) : []
}

// How the steps of an image are taken: the samplers and schedules that the chosen model serves.

import { form } from "./form.js"
import { onLanguage, t } from "./i18n.js"

// Names are the same in all languages.
const SAMPLERS = {
  euler: "Euler", heun: "Heun", dpmpp_2m: "DPM++ 2M", dpmpp_2m_sde: "DPM++ 2M SDE", er_sde: "ER SDE",
  res_multistep: "RES Multistep", unipc: "UniPC",
}
const SCHEDULES = { simple: "Simple", beta: "Beta", sgm_uniform: "SGM Uniform", linear: "Linear", lightning: "Lightning" }

// What people call them; nothing when there is none.
export const samplerTitle = (name) => (name ? (SAMPLERS[name] ?? name) : "")
export const scheduleTitle = (name) => (name ? (SCHEDULES[name] ?? name) : "")

// Offers `names`, the first one being what a request without the field gets.
function offer(select, names, title) {
  if ([...select.options].slice(1).map((each) => each.value).join() === names.join() && select.options.length) return
  const chosen = select.value
  select.replaceChildren(new Option(t("sampling.own"), ""), ...names.map((name) => new Option(title(name), name)))
  if (names.includes(chosen)) select.value = chosen
}

// Offers what a model serves.
export function offerSampling({ samplers = [], schedules = [], limits }) {
  offer(form.elements.sampler, samplers, samplerTitle)
  offer(form.elements.schedule, schedules, scheduleTitle)
  form.elements.cfg_steps.max = limits.max_steps
}

onLanguage(() => {
  for (const name of ["sampler", "schedule"]) {
    const [own] = form.elements[name].options
    if (own) own.text = t("sampling.own")
  }
})

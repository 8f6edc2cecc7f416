// The page's language: texts by their names in strings.js, times and durations as the language writes them.
//
// An element with data-i18n shows the text of that name, with the values in data-i18n-values; data-i18n-attr names
// attributes in the same way: "aria-label:mask; title:keys". What is made of several texts is made anew by listeners.

import { STRINGS } from "./strings.js"

export const LANGUAGES = ["en", "zh"]

const listeners = []
let current = navigator.languages.map((tag) => tag.slice(0, 2)).find((tag) => LANGUAGES.includes(tag)) ?? "en"

export const language = () => current

// The text of a name with its {values}. A number n of 1 has a text of its own where there is one.
export function t(name, values = {}) {
  const texts = (values.n === 1 && STRINGS[`${name}.one`]) || STRINGS[name]
  if (!texts) throw new Error(`there is no text ${name}`)
  return texts[LANGUAGES.indexOf(current)].replace(/\{(\w+)\}/g, (_, value) => values[value] ?? "")
}

// Whether there is a text of this name.
export const hasText = (name) => Object.hasOwn(STRINGS, name)

// Shows a text, also after a change of the language.
export function say(element, name, values) {
  element.dataset.i18n = name
  if (values) element.dataset.i18nValues = JSON.stringify(values)
  else delete element.dataset.i18nValues
  translateOne(element)
}

function translateOne(element) {
  const { i18n, i18nValues, i18nAttr } = element.dataset
  if (i18n) {
    const text = t(i18n, i18nValues ? JSON.parse(i18nValues) : {})
    if (element.textContent !== text) element.textContent = text
  }
  for (const pair of i18nAttr?.split(";") ?? []) {
    const [attribute, name] = pair.split(":").map((part) => part.trim())
    element.setAttribute(attribute, t(name))
  }
}

// Translates `root` and all below it.
export function translate(root) {
  if (root instanceof Element) translateOne(root)
  for (const element of root.querySelectorAll("[data-i18n], [data-i18n-attr]")) translateOne(element)
  for (const element of root.querySelectorAll("[data-translated]")) element.dispatchEvent(new Event("translate"))
}

// Calls `show` now, and again whenever `element`, or what it is in, is translated.
export function translated(element, show) {
  element.dataset.translated = ""
  element.addEventListener("translate", show)
  show()
}

export const onLanguage = (listener) => listeners.push(listener)

export function setLanguage(tag) {
  current = tag
  document.documentElement.lang = { en: "en", zh: "zh-Hans" }[tag]
  document.title = t("title")
  translate(document)
  for (const listener of listeners) listener()
}

// "12 s", "3 min", "2 h 10 min".
export function duration(seconds) {
  if (seconds < 90) return t("time.seconds", { count: Math.max(Math.ceil(seconds), 0) })
  const minutes = Math.round(seconds / 60)
  if (minutes < 120) return t("time.minutes", { count: minutes })
  return t("time.hours", { hours: Math.floor(minutes / 60), minutes: minutes % 60 })
}

// As the user writes times, if that is in the page's language.
const locale = () => navigator.languages.find((tag) => tag.startsWith(current)) ?? current

const sameDay = (one, other) => one.toDateString() === other.toDateString()

// The time of day of `seconds` since 1970, with the date when that is not today.
export function clock(seconds) {
  const time = new Date(seconds * 1000), isToday = sameDay(time, new Date())
  const day = isToday ? {} : { day: "numeric", month: "short" }
  return time.toLocaleString(locale(), { ...day, hour: "2-digit", minute: "2-digit" })
}

// 1.5 GB.
export function bytes(count) {
  const unit = ["B", "kB", "MB", "GB", "TB"], power = Math.min(Math.floor(Math.log10(Math.max(count, 1)) / 3), 4)
  const value = count / 1000 ** power
  return `${value.toLocaleString(locale(), { maximumFractionDigits: value < 10 && power ? 1 : 0 })} ${unit[power]}`
}

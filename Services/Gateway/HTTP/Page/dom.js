// Small things that all parts of the page need: elements, templates, announcements, files to save.

import { say, t, translate } from "./i18n.js"

export const find = (selector, root = document) => root.querySelector(selector)

// A copy of the element in a template, in the page's language.
export function copy(selector) {
  const element = find(selector).content.firstElementChild.cloneNode(true)
  translate(element)
  return element
}

// A new element with properties, and children that are elements or texts.
export function make(name, properties = {}, ...children) {
  const { data, ...others } = properties
  const element = Object.assign(document.createElement(name), others)
  Object.assign(element.dataset, data)
  element.append(...children)
  return element
}

// A button with the text of a name.
export function button(key, action, className = "") {
  const element = make("button", { type: "button", className })
  say(element, key)
  element.addEventListener("click", action)
  return element
}

// Sets a text only when it is another one: screen readers read what is set.
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text
}

// Says something to screen readers, without moving the focus.
export function announce(key, values) {
  setText(find("#announcements"), t(key, values))
}

// Saves a blob as a file.
export function save(blob, name) {
  const url = URL.createObjectURL(blob), link = make("a", { href: url, download: name })
  link.click()
  setTimeout(() => URL.revokeObjectURL(url), 60_000)
}

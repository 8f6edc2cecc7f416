// Keys that do something anywhere on the page, and the dialog that lists them. Those of one letter or digit can be
// switched off: speech input and some keyboards send them unasked.

import { find, make } from "./dom.js"
import { onLanguage, t } from "./i18n.js"
import { keepSetting, recallSetting } from "./settings.js"

// The keys and the names of texts that say what they do.
const KEYS = [
  ["Ctrl+Enter", "keys.draw"], ["1", "keys.create"], ["2", "keys.gallery"], ["3", "keys.workers"], ["P", "keys.prompt"],
  ["?", "keys.help"], ["Esc", "keys.close"], ["← →", "keys.arrows"],
]

const isTyped = (target) => Boolean(target.closest?.("input, textarea, select, [role=application], [role=slider]"))

// Connects the keys with the form and the views.
export function prepareKeys(form, views) {
  const dialog = find("#keys"), single = find("[name=single-keys]", dialog)
  single.checked = recallSetting("single-keys") ?? true
  single.addEventListener("change", () => keepSetting("single-keys", single.checked))
  const show = () => {
    const rows = KEYS.flatMap(([key, name]) => [
      make("dt", {}, make("kbd", { textContent: key })), make("dd", { textContent: t(name) }),
    ])
    find("dl", dialog).replaceChildren(...rows)
  }
  const actions = {
    1: () => views.show("create"), 2: () => views.show("gallery"), 3: () => views.show("workers"),
    p: () => {
      views.show("create")
      form.elements.prompt.focus()
    },
    "?": () => dialog.showModal(),
  }
  show()
  onLanguage(show)
  find("#show-keys").addEventListener("click", () => dialog.showModal())
  for (const each of document.querySelectorAll("dialog:not(#large)")) {
    find(".close", each).addEventListener("click", () => each.close())
    each.addEventListener("click", (event) => {
      const { left, right, top, bottom } = each.getBoundingClientRect(), { clientX: x, clientY: y } = event
      const isBeside = x < left || x > right || y < top || y > bottom
      if (event.target === each && isBeside) each.close()
    })
  }
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented) return
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      if (event.target.closest?.("dialog:not(#large)") || views.current !== "create") return
      find("#large").close()
      form.requestSubmit()
    } else if (single.checked && !event.ctrlKey && !event.metaKey && !event.altKey && !isTyped(event.target)) {
      const action = actions[event.key.toLowerCase()]
      if (!action || find("dialog[open]")) return
      event.preventDefault()
      action()
    }
  })
}

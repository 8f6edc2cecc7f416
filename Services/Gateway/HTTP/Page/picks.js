// The results that are chosen to be compared: two at most, from the jobs and from the gallery.

import { announce, find, setText } from "./dom.js"
import { onLanguage, t } from "./i18n.js"

const MAX_PICKS = 2

// What tells two results apart.
const key = ({ job, image }) => `${job.id} ${image.index}`

class Picks {
  items = [] // {job, image, record}

  has = (item) => this.items.some((each) => key(each) === key(item))

  // Chooses a result, or not any more. A third one takes the place of the second.
  toggle(item) {
    if (this.has(item)) this.items = this.items.filter((each) => key(each) !== key(item))
    else this.items = [...this.items.slice(0, MAX_PICKS - 1), item]
    this.show()
    if (this.items.length) announce("pair.chosen", { n: this.items.length })
  }

  clear() {
    this.items = []
    this.show()
  }

  // Lets a button or a checkbox choose `item`, and show whether it is chosen.
  connect(control, item) {
    control.dataset.pick = key(item)
    control.addEventListener(control.matches("input") ? "change" : "click", () => this.toggle(item))
    this.mark(control)
  }

  mark(control) {
    const isChosen = this.items.some((each) => key(each) === control.dataset.pick)
    if (control.matches("input")) control.checked = isChosen
    else control.setAttribute("aria-pressed", isChosen)
  }

  show() {
    for (const control of document.querySelectorAll("[data-pick]")) this.mark(control)
    const n = this.items.length
    find("#tray").hidden = n === 0
    document.body.classList.toggle("has-tray", n > 0)
    if (n) setText(find("#tray-text"), t("pair.chosen", { n }))
    find("#tray-compare").disabled = n < MAX_PICKS
  }
}

export const picks = new Picks()

// Connects the bar that shows how many are chosen; `open` is called with two.
export function prepareTray(open) {
  find("#tray-compare").addEventListener("click", () => open(...picks.items))
  find("#tray-clear").addEventListener("click", () => picks.clear())
  onLanguage(() => picks.show())
}

// The page's views, one of which is shown: the form with its jobs, the gallery, the cluster. The address names it.

import { find } from "./dom.js"

const FIRST = "create"

export class Views {
  constructor() {
    this.views = new Map() // name → {show(), hide()}
    this.current = FIRST
    addEventListener("hashchange", () => this.follow())
  }

  // Adds a view with methods `show`, called again when there may be something new, and `hide`.
  add(name, view) {
    this.views.set(name, view)
  }

  // Shows what the address names.
  begin() {
    this.follow()
  }

  // Shows a view, as a link to it would.
  show(name) {
    if (this.current === name) return
    history.pushState(null, "", `#${name}`)
    this.follow()
  }

  // Lets the shown view load anew.
  refresh() {
    this.views.get(this.current)?.show()
  }

  follow() {
    const name = location.hash.slice(1), place = (each) => find(`#view-${each}`)
    const next = name === FIRST || this.views.has(name) ? name : FIRST
    if (next !== this.current) this.views.get(this.current)?.hide()
    for (const each of [FIRST, ...this.views.keys()]) place(each).hidden = each !== next
    for (const link of document.querySelectorAll("nav [data-view]")) {
      if (link.dataset.view === next) link.setAttribute("aria-current", "page")
      else link.removeAttribute("aria-current")
    }
    this.current = next
    this.refresh()
  }
}

// Grids in the list of jobs: a table with a row for each job of the grid and a column for each seed.
//
// A job says in its metadata which grid it is of, and which row: so grids are there again after reloading the page.

import { copy, find, make } from "./dom.js"
import { say, t, translated } from "./i18n.js"
import { facts } from "./parameters.js"
import { frame } from "./results.js"

export const MAX_ROWS = 10
// What the rows of a grid differ in: fields of the API.
export const PARAMETERS = ["steps", "true_cfg_scale", "size", "prompt"]

// The names of the texts for them.
const NAMES = { steps: "steps", true_cfg_scale: "guidance", size: "size", prompt: "prompt" }

// The grid that a job is of: {id, row, parameter}; nothing when it is of none. Any client can write metadata.
function gridOf({ metadata }) {
  const { grid: id, row, parameter } = metadata ?? {}
  const isOne = /^[0-9a-f]{16}$/.test(id) && /^\d$/.test(row) && PARAMETERS.includes(parameter)
  return isOne ? { id, row: Number(row), parameter } : undefined
}

// The row of a job in its grid's table in `list`, which is made for the first row; nothing when the job is of no grid.
export function rowElement(job, list, isNewest) {
  const grid = gridOf(job)
  if (!grid) return undefined
  const table = find(`[data-grid="${grid.id}"]`, list) ?? makeTable(job, grid, list, isNewest)
  const row = copy("#grid-row"), body = find("tbody", table)
  row.dataset.row = grid.row
  const value = find(".value", row)
  translated(value, () => {
    value.textContent = t("grid.row", { name: t(NAMES[grid.parameter]), value: job[grid.parameter] })
  })
  for (const image of job.images) row.append(make("td", {}, frame(job, image)))
  body.insertBefore(row, [...body.children].find((each) => Number(each.dataset.row) > grid.row) ?? null)
  return row
}

function makeTable(job, { id, parameter }, list, isNewest) {
  const table = copy("#grid-table")
  table.dataset.grid = id
  if (parameter === "prompt") say(find(".prompt", table), "grid.of-prompts")
  else find(".prompt", table).textContent = job.prompt
  translated(table, () => {
    find(".facts", table).textContent = `${t("grid.facts", { name: t(NAMES[parameter]) })} · ${facts(job, undefined, parameter)}`
    find("thead th", table).textContent = t(NAMES[parameter])
  })
  for (const image of job.images) {
    const head = make("th", { scope: "col" })
    say(head, "facts.seed", { seed: image.seed })
    find("thead tr", table).append(head)
  }
  if (isNewest) list.prepend(table)
  else list.append(table)
  return table
}

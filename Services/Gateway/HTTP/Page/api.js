// The gateway's public API (/openapi.yaml), by relative addresses: a proxy may show the page below any path.

export class Refusal extends Error {
  constructor(status, error) {
    super(error?.message ?? `the gateway answered ${status}`)
    this.status = status
    this.field = error?.param
  }
}

// Who asks for the API key, when the gateway wants one.
let askForKey = () => {}
export const onKeyNeeded = (action) => (askForKey = action)

export async function call(path, options = {}) {
  const key = sessionStorage.getItem("key")
  const headers = { ...options.headers, ...(key && { authorization: `Bearer ${key}` }) }
  const response = await fetch(path, { cache: "no-store", ...options, headers })
  if (response.ok) return response
  const body = await response.json().catch(() => null)
  if (response.status === 401) askForKey()
  throw new Refusal(response.status, body?.error)
}

// Seeds have 63 bits, numbers 53 here: seeds stay text.
export const parse = (text) =>
  JSON.parse(text, (name, value, context) => (name === "seed" ? (context?.source ?? `${value}`) : value))

export const read = async (path, options) => parse(await (await call(path, options)).text())

// Yields the events of a text/event-stream as {id, data}.
export async function* events(response) {
  if (!response.body) return
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader()
  let text = ""
  for (;;) {
    const { value, done } = await reader.read()
    if (done) return
    text += value
    const blocks = text.split("\n\n")
    text = blocks.pop()
    for (const block of blocks) {
      const pairs = block.split("\n").map((line) => {
        const colon = line.indexOf(":")
        return [line.slice(0, colon), line.slice(colon + 2)]
      })
      const fields = Object.fromEntries(pairs)
      if (fields.data) yield { id: fields.id, data: parse(fields.data) }
    }
  }
}

export const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000))

export function randomKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("")
}

// Whether a request would be served now, and why not: {isReady, reason}.
export async function health() {
  const response = await fetch("readyz", { cache: "no-store" })
  const body = await response.json().catch(() => null)
  return { isReady: response.ok, reason: body?.reason }
}

// What a job was made from, kept in this browser, so that a reloaded page can still compare results with their inputs
// and fill the form in again: the API does not give inputs back. Bounded: the oldest are removed first.

const MAX_RECORDS = 60, MAX_BYTES = 256 << 20

const done = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result)
    request.onerror = () => reject(request.error)
  })

let opened

function database() {
  opened ??= (() => {
    const request = indexedDB.open("qwen-image", 1)
    request.onupgradeneeded = () => request.result.createObjectStore("inputs", { keyPath: "job" })
    return done(request)
  })()
  return opened
}

const memory = new Map() // of this page, also where the browser keeps nothing

async function records(mode) {
  return (await database()).transaction("inputs", mode).objectStore("inputs")
}

// Keeps `record`: {job, images: [{blob, …}], …}.
export async function keep(record) {
  record.at = Date.now()
  record.bytes = record.images.reduce((sum, image) => sum + image.blob.size, 0)
  memory.set(record.job, record)
  if (memory.size > MAX_RECORDS) memory.delete(memory.keys().next().value)
  try {
    const all = (await done((await records("readonly")).getAll())).sort((a, b) => b.at - a.at)
    const store = await records("readwrite")
    let [count, bytes] = [1, record.bytes]
    for (const old of all) {
      count += 1
      bytes += old.bytes
      if (count > MAX_RECORDS || bytes > MAX_BYTES) store.delete(old.job)
    }
    await done(store.put(record))
  } catch {
    // Private windows and full disks: the page works on without.
  }
}

// The record of a job; nothing where there is none.
export async function recall(job) {
  if (memory.has(job)) return memory.get(job)
  try {
    return await done((await records("readonly")).get(job))
  } catch {
    return undefined
  }
}

// What this browser remembers of the page: small values in localStorage, the theme and the language among them.

import { LANGUAGES, setLanguage, language } from "./i18n.js"

const PREFIX = "qwen-image."
const MAX_CHARACTERS = 64 << 10 // of one value

// What was kept under a name; nothing where there is none, or the browser keeps nothing.
export function recallSetting(name) {
  try {
    const text = localStorage.getItem(PREFIX + name)
    return text === null || text.length > MAX_CHARACTERS ? undefined : JSON.parse(text)
  } catch {
    return undefined
  }
}

// Keeps a value; false: the browser does not.
export function keepSetting(name, value) {
  try {
    const text = JSON.stringify(value)
    if (text.length > MAX_CHARACTERS) return false
    localStorage.setItem(PREFIX + name, text)
    return true
  } catch {
    return false // private windows and full disks: the page works on without
  }
}

const THEMES = ["auto", "light", "dark"]

function showTheme(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme
  else document.documentElement.dataset.theme = theme
}

// Connects the two choosers of the page's header, and uses what was chosen before.
export function prepareSettings(languageChooser, themeChooser) {
  const chosen = recallSetting("language")
  setLanguage(LANGUAGES.includes(chosen) ? chosen : language())
  languageChooser.value = language()
  languageChooser.addEventListener("change", () => {
    keepSetting("language", languageChooser.value)
    setLanguage(languageChooser.value)
  })
  const theme = recallSetting("theme")
  themeChooser.value = THEMES.includes(theme) ? theme : "auto"
  showTheme(themeChooser.value)
  themeChooser.addEventListener("change", () => {
    keepSetting("theme", themeChooser.value)
    showTheme(themeChooser.value)
  })
}

// Errors of a form, each at the field that it names.

const OTHER_NAMES = {
  num_inference_steps: "steps", width: "size", height: "size", images: "image", "image[]": "image", pipeline: "mode",
  control_image: "image", control_images: "image", "control_image[]": "image",
}

// Where the errors of a field are shown: at the element with data-field, or at the label of the control of that name.
function place(form, field) {
  const name = OTHER_NAMES[field] ?? field.split(/[.[]/, 1)[0]
  const group = form.querySelector(`[data-field~="${CSS.escape(name)}"]`)
  const control = form.elements[name]
  const single = control instanceof Element ? control : undefined
  const target = group ?? single?.closest("label")
  return { target, control: single ?? group?.querySelector("button, input, [tabindex]") }
}

// Shows `message` at `field`, or, without one, at the end of the form; moves the focus there.
export function showError(form, field, message) {
  const { target, control } = field ? place(form, field) : {}
  // What is not seen now cannot show anything.
  if (!target?.getClientRects().length) {
    const general = form.querySelector("#refusal")
    general.textContent = [general.textContent, message].filter(Boolean).join("; ")
    general.hidden = false
    return
  }
  let text = target.querySelector(":scope > .error")
  if (!text) {
    text = document.createElement("p")
    text.className = "error"
    text.id = `error-${OTHER_NAMES[field] ?? field}`
    text.setAttribute("role", "alert")
    target.append(text)
  }
  text.textContent = [text.textContent, message].filter(Boolean).join("; ")
  if (!control) return
  control.setAttribute("aria-invalid", "true")
  control.dataset.describedby ??= control.getAttribute("aria-describedby") ?? ""
  control.setAttribute("aria-describedby", `${text.id} ${control.dataset.describedby}`.trim())
  control.focus?.()
}

export function clearErrors(root) {
  for (const text of root.querySelectorAll("p.error:not(#refusal)")) text.remove()
  for (const control of root.querySelectorAll("[aria-invalid]")) {
    control.removeAttribute("aria-invalid")
    const others = control.dataset.describedby
    if (others) control.setAttribute("aria-describedby", others)
    else control.removeAttribute("aria-describedby")
  }
  const general = root.querySelector("#refusal")
  if (!general) return
  general.hidden = true
  general.textContent = ""
}

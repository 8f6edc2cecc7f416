import Foundation
import StrictJSON

/// What A1111's API lists, where it is always the same here.
enum WebUILists {
  /// Paths and their answers.
  static let all: KeyValuePairs<String, JSON> = [
    "/sdapi/v1/samplers": WebUISampler.samplers, "/sdapi/v1/schedulers": WebUISampler.schedulers,
    // Clients put other entries behind the first one.
    "/sdapi/v1/upscalers": [
      ["name": "None", "model_name": .null, "model_path": .null, "model_url": .null, "scale": 1]
    ],
    "/sdapi/v1/latent-upscale-modes": [], "/sdapi/v1/sd-vae": [], "/sdapi/v1/hypernetworks": [],
    "/sdapi/v1/face-restorers": [], "/sdapi/v1/realesrgan-models": [], "/sdapi/v1/prompt-styles": [],
    "/sdapi/v1/embeddings": ["loaded": [:], "skipped": [:]], "/sdapi/v1/extensions": [], "/sdapi/v1/script-info": [],
    "/sdapi/v1/scripts": ["txt2img": ["controlnet"], "img2img": ["controlnet"]],
    "/sdapi/v1/cmd-flags": ["api": true, "nowebui": true],
    // The machines that compute are elsewhere: `/v1/workers`.
    "/sdapi/v1/memory": [
      "ram": ["error": "workers report their memory at /v1/workers"], "cuda": ["error": "unavailable"],
    ],
  ]

  /// Options that clients look for, beside the model.
  static let options: JSONObject = [
    "sd_vae": "Automatic", "CLIP_stop_at_last_layers": 1, "samples_format": "png", "samples_save": false,
    "show_progress_every_n_steps": 0, "sd_checkpoints_limit": 1, "eta_noise_seed_delta": 0,
  ]
}

/// The text that A1111 writes about an image: the prompt, `Negative prompt: …`, and a line of names and values.
enum WebUIInfotext {
  private static let maxValues = 200

  /// The values by their names, the prompts as `Prompt` and `Negative prompt`. A size is also `Size-1` and `Size-2`.
  static func parameters(of text: String) -> JSONObject {
    var lines = text.split(separator: "\n", omittingEmptySubsequences: false)
    var parameters: JSONObject = [:]
    if let last = lines.last, last.hasPrefix("Steps: ") {
      parameters = values(in: last)
      lines.removeLast()
    }
    let negative = lines.firstIndex { $0.hasPrefix("Negative prompt: ") }
    let prompt = lines[..<(negative ?? lines.endIndex)].joined(separator: "\n")
    if !prompt.isEmpty { parameters["Prompt"] = .string(prompt) }
    if let negative {
      let text = lines[negative...].joined(separator: "\n").dropFirst("Negative prompt: ".count)
      parameters["Negative prompt"] = .string(String(text))
    }
    let sides = parameters["Size"]?.text?.split(separator: "x") ?? []
    if sides.count == 2 {
      parameters["Size-1"] = .string(String(sides[0]))
      parameters["Size-2"] = .string(String(sides[1]))
    }
    return parameters
  }

  /// `Name: value, Name: "a value, as JSON"`.
  private static func values(in line: Substring) -> JSONObject {
    var values: JSONObject = [:]
    var rest = line
    while values.count < maxValues, let colon = rest.range(of: ": ") {
      let name = String(rest[..<colon.lowerBound])
      rest = rest[colon.upperBound...]
      let value: String
      if rest.first == "\"", let end = endOfQuoted(rest) {
        value = (try? JSON(Array(rest[..<end].utf8)))?.text ?? String(rest[..<end])
        rest = rest[end...]
      } else {
        let end = rest.range(of: ", ")?.lowerBound ?? rest.endIndex
        value = String(rest[..<end])
        rest = rest[end...]
      }
      values[name] = .string(value)
      if rest.hasPrefix(", ") { rest = rest.dropFirst(2) } else { break }
    }
    return values
  }

  /// Behind the quotation mark that ends a quoted text; nil: it has no end.
  private static func endOfQuoted(_ text: Substring) -> Substring.Index? {
    var isEscaped = false
    for index in text.indices.dropFirst() {
      if isEscaped {
        isEscaped = false
      } else if text[index] == "\\" {
        isEscaped = true
      } else if text[index] == "\"" {
        return text.index(after: index)
      }
    }
    return nil
  }
}

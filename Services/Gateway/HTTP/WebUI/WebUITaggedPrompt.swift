import ClusterCore
import GatewayAPI
import GatewayPipelines

/// A prompt of A1111's API, whose tags `<lora:NAME:SCALE>` name adapters, without them.
struct WebUITaggedPrompt {
  /// Without tags: of two spaces around one, one stays.
  private(set) var prompt = ""
  /// Scales of one name are added up.
  private(set) var loras: [RequestedAdapter] = []
  /// What was not taken as it was sent.
  private(set) var notes: [String] = []

  private static let lora = ["lora", "lyco"], others = ["hypernet"]
  private static let maxShown = 80, maxArguments = 4

  /// Reads a prompt.
  ///
  /// - Throws: an error about the field `prompt` when a tag asks for what is not there.
  init(_ text: String) throws(APIError) {
    var rest = Substring(text)
    while let tag = Self.firstTag(in: rest) {
      append(rest[..<tag.range.lowerBound])
      rest = rest[tag.range.upperBound...]
      if prompt.isEmpty || prompt.last?.isWhitespace == true { rest = rest.drop { $0 == " " } }
      try take(tag.kind, tag.arguments)
    }
    append(rest)
    if rest.isEmpty, !loras.isEmpty {
      while prompt.last?.isWhitespace == true { prompt.removeLast() }
    }
  }

  /// A negative prompt, in which A1111 knows no tags.
  ///
  /// - Throws: when there is one all the same.
  static func untagged(_ text: String) throws(APIError) -> String {
    guard let tag = firstTag(in: text[...]) else { return text }
    throw APIError(
      .unsupportedValue,
      "negative_prompt has the tag \(text[tag.range].prefix(maxShown)), but adapters act on both prompts: name it in "
        + "prompt", param: "negative_prompt")
  }

  private mutating func append(_ text: Substring) { prompt += text }

  /// The first `<KIND:ARGUMENTS>` of a kind that loads something in A1111.
  private static func firstTag(
    in text: Substring
  ) -> (range: Range<Substring.Index>, kind: String, arguments: [Substring])? {
    var start: Substring.Index?
    for index in text.indices {
      if text[index] == "<" { start = index }
      guard text[index] == ">", let open = start else { continue }
      start = nil
      let parts = text[open..<index].dropFirst().split(
        separator: ":", maxSplits: maxArguments + 1, omittingEmptySubsequences: false)
      let kind = parts[0].lowercased()
      guard parts.count > 1, lora.contains(kind) || others.contains(kind) else { continue }
      return (open..<text.index(after: index), kind, Array(parts.dropFirst()))
    }
    return nil
  }

  /// Arguments are the name, the scale for text encoder and network, and where it differs that of the network; or
  /// `unet=SCALE`.
  private mutating func take(_ kind: String, _ arguments: [Substring]) throws(APIError) {
    let name = String(arguments[0]), shown = "<\(kind):\(arguments.joined(separator: ":").prefix(Self.maxShown))>"
    func refusal(_ reason: String) -> APIError {
      APIError(.unsupportedValue, "prompt has the tag \(shown)\(reason)", param: "prompt")
    }
    guard Self.lora.contains(kind) else {
      throw refusal(", which is not available: this server has adapters (<lora:NAME:SCALE>) and no hypernetworks")
    }
    guard AdapterName.isValid(name) else { throw refusal(": a name must be \(AdapterName.rule)") }
    var scale = 1.0
    for (index, argument) in arguments.dropFirst().enumerated() {
      let pair = argument.split(separator: "=", maxSplits: 1)
      let key = pair.count == 2 ? String(pair[0]).lowercased() : index == 0 ? "" : index == 1 ? "unet" : "dyn"
      guard let number = Double(pair.last ?? ""), number.isFinite else { throw refusal(": the scale is no number") }
      switch key {
      case "", "unet": scale = number
      case "te": notes.append("in \(shown) te is without effect: adapters act on the denoising network only")
      default: throw refusal(": ranks cannot be changed here")
      }
    }
    guard ChosenAdapter.scales.contains(scale) else {
      throw refusal(": the scale must be from \(ChosenAdapter.scales.lowerBound) to \(ChosenAdapter.scales.upperBound)")
    }
    if let known = loras.firstIndex(where: { $0.name == name }) {
      loras[known].scale += scale
    } else {
      guard loras.count < ChosenAdapter.maxCount else {
        throw refusal(": a request may name \(ChosenAdapter.maxCount) adapters")
      }
      loras.append(RequestedAdapter(name: name, scale: scale))
    }
  }
}

/// What is behind what an image shows, as OpenAI's API has it.
public enum BackgroundChoice: String, CaseIterable, Sendable {
  /// What the prompt and the model make of it.
  case auto
  /// Nothing can be seen through it: what the model has left transparent is white.
  case opaque
  /// Nothing is there: the image is of its subject alone.
  case transparent

  /// The prompt of a request with this choice: transparency is asked for in words.
  ///
  /// - Throws: INVALID_ARGUMENT that names `background` when the model makes opaque images only.
  public func prompt(_ prompt: String, _ pipeline: PipelineName, _ card: ModelCard) throws(Status) -> String {
    // Layers have transparency, whatever is asked for.
    guard self == .transparent, pipeline != .layered else { return prompt }
    guard card.hasTransparency else {
      throw Status(
        .invalidArgument, "background is \"transparent\", but \(card.model.id) makes opaque images only",
        field: "background")
    }
    return Self.asksForTransparency(prompt) ? prompt : Self.transparent(prompt)
  }

  /// Whether a prompt speaks of transparency itself.
  private static func asksForTransparency(_ prompt: String) -> Bool {
    let text = prompt.lowercased()
    return ["rgba", "transparen", "透明"].contains { text.contains($0) }
  }

  /// The words by which Qwen-Image-2.1 is asked for transparency, as its authors publish them.
  private static func transparent(_ prompt: String) -> String {
    let end = prompt.last.map { ".!?。！？".contains($0) } ?? true ? "" : "."
    return "This is an RGBA image with transparency. \(prompt)\(end) The image has alpha channel and the background is "
      + "transparent."
  }
}

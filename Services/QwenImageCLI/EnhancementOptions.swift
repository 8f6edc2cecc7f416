import ArgumentParser

/// Whether the prompt is rewritten.
struct EnhancementOptions: ParsableArguments {
  @Flag(
    help: "Have the prompt rewritten first by the chat endpoint that the gateway's operator has named; it is printed.")
  var enhancePrompt = false

  /// The request's field; nil: absent, since an older gateway may not know it.
  var field: Bool? { enhancePrompt ? true : nil }
}

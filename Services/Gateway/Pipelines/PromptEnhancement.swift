import ClusterCore
import GatewayAPI

/// The wish of a request to have its prompts rewritten before it becomes a job.
public struct PromptEnhancement: Hashable, Sendable {
  /// What a prompt says.
  public enum Purpose: Sendable {
    /// What the image shows.
    case description
    /// How an image is changed.
    case edit
  }

  /// One prompt of the request.
  public struct Part: Hashable, Sendable {
    /// As the client has sent it.
    public var prompt: String
    /// What it says.
    public var purpose: Purpose
  }

  /// The field of a request that asks for it.
  public static let field = "enhance_prompt"

  /// The request's prompt, or that of each of its edits.
  public let parts: [Part]
  /// What is added to the last of them, as it would have been without being rewritten.
  private let background: BackgroundChoice

  /// - Parameters:
  ///   - request: as it was sent.
  ///   - image: what was made of it.
  /// - Returns: nil when the request does not ask for it.
  /// - Throws: when there is nothing to rewrite.
  public init?(_ request: GenerationRequest, _ image: ImageSpec) throws(APIError) {
    guard request.enhancesPrompt else { return nil }
    // Who takes an image apart says what it shows, which a text alone cannot improve.
    guard image.pipeline != .layered else {
      throw APIError(.unsupportedValue, "\(Self.field) is not for the pipeline \(image.pipeline)", param: Self.field)
    }
    background = request.background
    parts =
      request.instructions.isEmpty
      ? [Part(prompt: request.prompt, purpose: Self.purpose(of: image.pipeline))]
      : zip(request.instructions, image.edits).map { instruction, edit in
        Part(prompt: instruction.prompt ?? request.prompt, purpose: Self.purpose(of: edit.pipeline))
      }
    guard parts.allSatisfy({ $0.prompt.contains { !$0.isWhitespace } }) else {
      throw APIError(
        .invalidValue, "\(Self.field) is true, but there is no prompt that could be rewritten", param: "prompt")
    }
  }

  private static func purpose(of pipeline: PipelineName) -> Purpose {
    [.edit, .editPlus, .editInpaint].contains(pipeline) ? .edit : .description
  }

  /// An image with other prompts in place of the client's, which it keeps.
  ///
  /// - Parameter prompts: one for each part.
  /// - Returns: nil when one of them is longer than the model allows.
  fileprivate func applied(_ prompts: [String], to image: ImageSpec) -> ImageSpec? {
    precondition(prompts.count == parts.count, "a prompt for each part")
    var image = image, prompts = prompts
    let pipeline = image.edits.last?.pipeline ?? image.pipeline
    guard let last = prompts.last.flatMap({ try? background.prompt($0, pipeline, image.card) }) else { return nil }
    prompts[prompts.count - 1] = last
    guard prompts.allSatisfy({ $0.utf8.count <= image.card.limits.maxPromptBytes }) else { return nil }
    image.prompt = ImageSpec.prompt(ofEdits: prompts)
    image.originalPrompt = ImageSpec.prompt(ofEdits: parts.map(\.prompt))
    for index in image.edits.indices { image.edits[index].prompt = prompts[index] }
    return image
  }
}

extension ImageSpec {
  /// What stands for the prompts of several edits; one is itself.
  static func prompt(ofEdits prompts: [String]) -> String { prompts.joined(separator: "; ") }

  /// The prompt that the image is made of, when it is not the client's.
  public var revisedPrompt: String? { originalPrompt == nil ? nil : prompt }
}

extension JobRequest {
  /// The request with rewritten prompts, of which it then asks for no more.
  ///
  /// - Parameter prompts: one for each part of its ``enhancement``.
  /// - Returns: nil when one of them is longer than the model allows.
  public func enhanced(with prompts: [String]) -> JobRequest? {
    guard let enhancement else { return self }
    var request = self
    request.enhancement = nil
    guard prompts != enhancement.parts.map(\.prompt) else { return request }
    var images: [ImageSpec] = []
    for image in self.images {
      guard let image = enhancement.applied(prompts, to: image) else { return nil }
      images.append(image)
    }
    request.images = images
    return request
  }

  /// The request with the client's own prompts.
  public var unenhanced: JobRequest {
    var request = self
    request.enhancement = nil
    return request
  }
}

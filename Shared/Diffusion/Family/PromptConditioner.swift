import ImageCodec
import TensorCore

/// Prompt, perhaps with images → conditioning: tokenizer, vision tower and language model.
public protocol PromptConditioner: Sendable {
  /// Names everything that results depend on besides weights and inputs.
  var numericsClass: String { get }

  /// Splits a prompt within the family's template.
  ///
  /// - Parameter field: what the request calls the prompt, for errors.
  /// - Throws: ``PipelineError/invalidRequest(field:reason:)`` when the prompt has too many tokens, or images where the
  ///   conditioner was loaded without what reads them.
  func tokens(_ prompt: PromptInput, field: String) throws(PipelineError) -> PromptTokens

  /// Encodes several prompts in one pass.
  ///
  /// - Returns: per prompt the same bytes as if it were encoded alone.
  func encode(_ prompts: [PromptTokens]) -> [PromptConditioning]

  /// Encodes one prompt.
  ///
  /// - Parameter probe: receives intermediates under the reference's names.
  func encode(_ prompt: PromptTokens, probe: Probe) -> PromptConditioning
}

/// A prompt and the images that it speaks of.
public struct PromptInput: Sendable {
  /// Which of the family's templates the prompt is put into.
  public enum Template: Sendable {
    /// A prompt alone.
    case textToImage
    /// One image, then the prompt.
    case edit
    /// Numbered images, then the prompt.
    case editPlus
  }

  /// The prompt.
  public var text: String
  /// The template.
  public var template: Template
  /// RGB, in the size in which the pipeline shows them to the text encoder.
  public var images: [RasterImage]

  /// See the properties.
  public init(_ text: String, template: Template = .textToImage, images: [RasterImage] = []) {
    self.text = text
    self.template = template
    self.images = images
  }
}

/// A prompt's tokens within the template.
public struct PromptTokens: Sendable {
  /// The ids of all tokens, the template's included, with one for each row of the images.
  public let ids: [Int]
  /// Rows of the conditioning: what encoding costs.
  public let count: Int
  /// Where the template ends that precedes the prompt: rows that are left out.
  public let droppedCount: Int
  /// The prompt's images.
  public let images: [RasterImage]

  /// See the properties.
  public init(ids: [Int], droppedCount: Int, images: [RasterImage] = []) {
    self.ids = ids
    self.droppedCount = droppedCount
    self.images = images
    count = ids.count - droppedCount
  }
}

/// What the denoising network knows of a prompt.
public struct PromptConditioning: Sendable {
  /// [L, width of the text encoder], fp32.
  public var embeds: Tensor
  /// Where the prompt's images are, of which `embeds` has no rows because the network puts their latents there: for
  /// each image, in order, how many rows of `embeds` come before it. Empty where the rows of images are among those of
  /// `embeds`, or there are none.
  public var imagePlaces: [Int]

  /// See the properties.
  public init(embeds: Tensor, imagePlaces: [Int] = []) {
    self.embeds = embeds
    self.imagePlaces = imagePlaces
  }

  /// The conditioning without the rows of images.
  ///
  /// - Parameters:
  ///   - embeds: rows of text and images.
  ///   - imageRows: the rows of each image, in order.
  public init(embeds: Tensor, withoutImageRows imageRows: [Range<Int>]) {
    var text: [Tensor] = [], places: [Int] = [], start = 0
    for rows in imageRows {
      precondition(rows.lowerBound >= start, "rows \(rows) of an image after row \(start)")
      text.append(embeds.rows(start..<rows.lowerBound))
      places.append((places.last ?? 0) + rows.lowerBound - start)
      start = rows.upperBound
    }
    text.append(embeds.rows(start..<embeds.shape[0]))
    self.init(embeds: Tensor.stacking(text), imagePlaces: places)
  }

  /// The conditioning as one tensor [L + images, width], which crosses processes: a row of NaN in the place of each
  /// image.
  public var marked: Tensor {
    if imagePlaces.isEmpty { return embeds }
    let mark = Tensor(Array(repeating: Float.nan, count: embeds.shape[1]), shape: [1, embeds.shape[1]])
    var parts: [Tensor] = [], start = 0
    for place in imagePlaces {
      parts += [embeds.rows(start..<place), mark]
      start = place
    }
    return Tensor.stacking(parts + [embeds.rows(start..<embeds.shape[0])])
  }

  /// The conditioning that ``marked`` gives. A tensor that is no matrix of fp32 is taken as it is, for the network to
  /// refuse.
  public init(marked: Tensor) {
    guard marked.shape.rank == 2, marked.dtype == .fp32, marked.shape[1] > 0 else {
      self.init(embeds: marked)
      return
    }
    let width = marked.shape[1]
    let places = marked.withElements(as: Float.self) { elements in
      (0..<marked.shape[0]).filter { elements[$0 * width].isNaN }
    }
    guard !places.isEmpty else {
      self.init(embeds: marked)
      return
    }
    self.init(embeds: marked, withoutImageRows: places.map { $0..<$0 + 1 })
  }
}

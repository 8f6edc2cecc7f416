import ImageCodec

/// How an image came to be, in the words of IPTC's NewsCodes.
public enum DigitalSourceType: String, Hashable, Sendable, CaseIterable {
  /// Made by a model alone.
  case trainedAlgorithmicMedia
  /// Made by a model from an image that was given.
  case compositeWithTrainedAlgorithmicMedia

  /// The term's address, which files have as the value.
  public var uri: String { "http://cv.iptc.org/newscodes/digitalsourcetype/\(rawValue)" }
}

/// What a file says about where its image comes from.
public struct ImageOrigin: Sendable, Hashable {
  /// An image that this one was made with.
  public struct Ingredient: Sendable, Hashable {
    /// What it was.
    public enum Role: String, Sendable, Hashable {
      /// The image to edit, or one of several.
      case image
      /// An image that controls what is drawn where.
      case control
      /// What part of the image is made anew.
      case mask
    }

    /// What it was.
    public var role: Role
    /// SHA-256 of the file as it was sent, in hexadecimal.
    public var sha256: String

    /// See the properties.
    public init(role: Role, sha256: String) {
      self.role = role
      self.sha256 = sha256
    }
  }

  /// How it came to be.
  public var sourceType: DigitalSourceType
  /// The model that made it.
  public var model: String
  /// The version of this software.
  public var softwareVersion: String
  /// The images that it was made with.
  public var ingredients: [Ingredient]

  /// See the properties.
  public init(
    sourceType: DigitalSourceType, model: String, softwareVersion: String, ingredients: [Ingredient] = []
  ) {
    self.sourceType = sourceType
    self.model = model
    self.softwareVersion = softwareVersion
    self.ingredients = ingredients
  }

  /// What the parameters of an image say. An image that only controls what is drawn leaves no pixel in the result: what
  /// is drawn with it is the model's alone.
  public init(_ metadata: ImageMetadata) {
    let inputs = metadata.source?.inputs ?? []
    let ingredients = inputs.compactMap { input in
      Ingredient.Role(rawValue: input.role).map { Ingredient(role: $0, sha256: input.sha256) }
    }
    // Requests of earlier versions, in a journal, do not name their files.
    let isEdit = metadata.source != nil && (inputs.isEmpty || ingredients.contains { $0.role != .control })
    self.init(
      sourceType: isEdit ? .compositeWithTrainedAlgorithmicMedia : .trainedAlgorithmicMedia, model: metadata.model,
      softwareVersion: metadata.softwareVersion, ingredients: ingredients)
  }
}

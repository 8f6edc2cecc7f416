import ClusterCore
import Foundation
import ImageCodec
import Scheduling
import StrictJSON

/// A request as the journal keeps it: JSON with a version, checked again when it is read. Keys are never renamed.
package struct StoredRequest: Codable, Equatable {
  /// Written by this program. 1 is what 0.1 has written: text-to-image only, and `pictureCount` for `imageCount`.
  static let version = 2

  var version = Self.version
  var card: ModelCard
  var pipeline: String?
  var prompt: String
  var originalPrompt: String?
  var negativePrompt: String?
  var size: ImageSize
  var steps: Int
  var trueCFGScale: Double
  /// Of the first image; the others' follow it.
  var seed: UInt64
  var options: [String: JSON]?
  var inputs: [InputReference]?
  var files: [ImageSource.Input]?
  var edits: [StoredEdit]?
  var imageCount: Int?
  var pictureCount: Int?
  var priority: String
  var tags: [String]?
  var metadata: [String: String]?
  var traceparent: String?
  var isDetached: Bool
}

/// One edit of several.
package struct StoredEdit: Codable, Equatable {
  var pipeline: String
  var prompt: String
  var negativePrompt: String?
  var size: ImageSize
  var options: [String: JSON]
  var inputs: [InputReference]
}

extension StoredRequest {
  package init(_ request: JobRequest) {
    let image = request.images[0]
    card = image.card
    pipeline = image.pipeline.text
    prompt = image.prompt
    originalPrompt = image.originalPrompt
    negativePrompt = image.negativePrompt
    size = image.size
    steps = image.steps
    trueCFGScale = image.trueCFGScale
    seed = image.seed
    options = image.options.isEmpty ? nil : image.options
    inputs = image.inputs.isEmpty ? nil : image.inputs
    files = image.files.isEmpty ? nil : image.files
    edits =
      image.edits.isEmpty
      ? nil
      : image.edits.map {
        StoredEdit(
          pipeline: $0.pipeline.text, prompt: $0.prompt, negativePrompt: $0.negativePrompt, size: $0.size,
          options: $0.options, inputs: $0.inputs)
      }
    imageCount = request.images.count
    priority = request.priority.rawValue
    tags = request.options.tags.isEmpty ? nil : request.options.tags
    metadata = request.options.metadata.isEmpty ? nil : request.options.metadata
    traceparent = request.traceparent
    isDetached = request.isDetached
  }

  package func encoded() throws(Status) -> Data {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys]
    do { return try encoder.encode(self) } catch { throw Status(.internal, "the request cannot be encoded: \(error)") }
  }

  /// Reads what `encoded` has written.
  ///
  /// - Throws: DATA_LOSS for anything else.
  package static func request(from data: Data, tenant: TenantID) throws(Status) -> JobRequest {
    let stored: StoredRequest
    do { stored = try JSONDecoder().decode(StoredRequest.self, from: data) } catch {
      throw Status(.dataLoss, "the request in the journal cannot be read: \(error)")
    }
    let (pipeline, imageCount) = try stored.check()
    var image = ImageSpec(
      card: stored.card, pipeline: pipeline, prompt: stored.prompt, negativePrompt: stored.negativePrompt,
      size: stored.size,
      steps: stored.steps, trueCFGScale: stored.trueCFGScale, seed: stored.seed, options: stored.options ?? [:],
      inputs: stored.inputs ?? [])
    image.originalPrompt = stored.originalPrompt
    image.files = stored.files ?? []
    image.edits = try (stored.edits ?? []).map { edit throws(Status) in
      ImageSpec(
        card: stored.card, pipeline: try pipelineName(edit.pipeline), prompt: edit.prompt,
        negativePrompt: edit.negativePrompt, size: edit.size, steps: stored.steps, trueCFGScale: stored.trueCFGScale,
        seed: stored.seed, options: edit.options, inputs: edit.inputs)
    }
    var request = JobRequest(
      (0..<imageCount).map { index in
        var copy = image
        copy.seed = stored.seed &+ UInt64(index)
        return copy
      })
    request.tenant = tenant
    request.priority = JobPriority(rawValue: stored.priority) ?? .interactive
    request.options.tags = stored.tags ?? []
    request.options.metadata = stored.metadata ?? [:]
    if let problem = request.options.problem { throw Status(.dataLoss, problem) }
    request.traceparent = stored.traceparent
    request.isDetached = stored.isDetached
    return request
  }

  /// Whatever arithmetic is done with the numbers must not trap.
  private func check() throws(Status) -> (pipeline: PipelineName, imageCount: Int) {
    func check(_ field: String, _ value: Int, _ range: ClosedRange<Int>) throws(Status) {
      guard range.contains(value) else {
        throw Status(
          .dataLoss, "\(field) in the journal is \(value), but must be from \(range.lowerBound) to \(range.upperBound)")
      }
    }
    try check("version", version, 1...Self.version)
    let imageCount = imageCount ?? pictureCount ?? 0
    try check("image_count", imageCount, 1...ImageSpec.maxImageCount)
    try check("steps", steps, 1...100_000)
    try check("the number of inputs", inputs?.count ?? 0, 0...ImageSpec.maxInputCount + ImageSpec.maxControlCount + 1)
    try check("the number of files", files?.count ?? 0, 0...ImageSpec.maxInputCount + ImageSpec.maxControlCount + 1)
    try check("the number of edits", edits?.count ?? 0, 0...EditInstruction.maxCount)
    for input in (inputs ?? []) + (edits ?? []).flatMap(\.inputs) {
      for (name, side) in [("width", input.size.widthPx), ("height", input.size.heightPx)] {
        try check("an input's \(name)", side, 1...65_535)
      }
      try check("an input's channels", input.channels, 1...4)
    }
    let digits = Set("0123456789abcdef".utf8)
    for file in files ?? [] {
      let isDigest = file.sha256.utf8.count == 64 && file.sha256.utf8.allSatisfy(digits.contains)
      guard InputReference.Role(rawValue: file.role) != nil, isDigest else {
        throw Status(.dataLoss, "a file in the journal is \"\(file.role.prefix(80)) \(file.sha256.prefix(80))\"")
      }
    }
    guard trueCFGScale.isFinite else { throw Status(.dataLoss, "true_cfg_scale in the journal is \(trueCFGScale)") }
    for size in [size] + (edits ?? []).map(\.size) {
      for (name, side) in [("width", size.widthPx), ("height", size.heightPx)] { try check(name, side, 1...65_535) }
    }
    return (try Self.pipelineName(pipeline ?? PipelineName.textToImage.text), imageCount)
  }

  private static func pipelineName(_ text: String) throws(Status) -> PipelineName {
    guard let name = PipelineName(text) else {
      throw Status(.dataLoss, "pipeline in the journal is \"\(text.prefix(80))\"")
    }
    return name
  }
}

import ClusterCore
import Foundation
import GatewayPipelines
import ImageCodec
import Scheduling
import Templates
import TensorCore
import Weights
import Wire

/// A reader of bytes from outside. It may refuse anything, but must never trap, and what it accepts must be sound.
package enum FuzzTarget: String, CaseIterable, Sendable {
  /// A message between gateway and worker: the envelope and its tensors.
  case envelope
  /// The body of `POST /v1/images/generations`.
  case request
  /// A form with its content type, and the images in it.
  case form
  /// An image as text.
  case dataURL = "data-url"
  /// The header of a safetensors file.
  case safetensors
  /// The header of a GGUF file.
  case gguf
  /// A PNG file.
  case png
  /// An image file of any format that is read.
  case image
  /// A request as the journal keeps it.
  case journal
  /// A template in YAML, a zero byte, and its rows in CSV.
  case template

  /// Reads `bytes`; traps when something is wrong with the reader.
  package func run(_ bytes: [UInt8]) {
    switch self {
    case .envelope: Self.readEnvelope(bytes)
    case .request: Self.readRequest(bytes)
    case .form: Self.readForm(bytes)
    case .dataURL: Self.readDataURL(bytes)
    case .safetensors: Self.readSafetensors(bytes)
    case .gguf: Self.readGGUF(bytes)
    case .png: Self.readPNG(bytes)
    case .image: Self.readImage(bytes)
    case .journal: Self.readJournal(bytes)
    case .template: Self.readTemplate(bytes)
    }
  }

  // MARK: - Envelope

  /// Frames with their sizes before them: two bytes, big-endian; the last one takes what is left.
  private static func readEnvelope(_ bytes: [UInt8]) {
    var frames: [FrameBuffer] = []
    var rest = bytes[...]
    while rest.count >= 2, frames.count < 12 {
      let size = Int(rest.removeFirst()) << 8 | Int(rest.removeFirst())
      frames.append(FrameBuffer(copying: Array(rest.prefix(size))))
      rest = rest.dropFirst(size)
    }
    guard let first = frames.first else { return }
    _ = WireCodec.header(of: first)
    guard let envelope = try? WireCodec.decode(frames) else { return }
    // What can be read can be written, and means the same.
    let again: Envelope
    do { again = try WireCodec.decode(try WireCodec.encode(envelope)) } catch {
      fatalError("cannot be sent again: \(error)")
    }
    // NaN differs from itself.
    precondition(again == envelope || "\(again)" == "\(envelope)", "comes back as another message")
    if case .denoiseRequest(let request) = envelope.body { precondition(request.size.widthPx > 0 && request.steps > 0) }
    for tensor in envelope.tensors {
      precondition(
        WireTensor.byteCount(shape: tensor.shape, dtype: tensor.dtype) == tensor.bytes.count, "a tensor of another size"
      )
    }
  }

  // MARK: - Request

  private static func readRequest(_ bytes: [UInt8]) {
    guard let request = try? GenerationRequest(body: bytes, maxPromptBytes: 4096) else { return }
    precondition((1...ImageSpec.maxImageCount).contains(request.imageCount))
    precondition(request.prompt.utf8.count <= 4096)
    if let seed = request.seed { precondition(seed >= 0) }
    if let steps = request.steps { precondition(steps > 0) }
    if let size = request.size { precondition(size.width > 0 && size.height > 0) }
    if let scale = request.trueCFGScale { precondition((0...ModelLimits.maxTrueCFGScale).contains(scale)) }
  }

  // MARK: - Template

  private static func readTemplate(_ bytes: [UInt8]) {
    let parts = bytes.split(separator: 0, maxSplits: 1, omittingEmptySubsequences: false)
    let texts = parts.map { String(decoding: $0, as: UTF8.self) }
    guard let template = try? Template(yaml: texts[0]), texts.count == 2 else { return }
    let requests: [TemplateRequest]
    do { requests = try template.expanded(TemplateRow.rows(csv: texts[1], for: template)) } catch {
      precondition(!error.problems.isEmpty && error.problems.allSatisfy { !$0.description.isEmpty })
      return
    }
    precondition(requests.count <= TemplateLimits.requests)
    precondition(Set(requests.map { $0.output.lowercased() }).count == requests.count, "two files of one name")
    for request in requests {
      let folders = request.output.split(separator: "/", omittingEmptySubsequences: false)
      precondition(folders.allSatisfy { !$0.isEmpty && !$0.contains(".") && !$0.utf8.contains(0) }, "an unsafe name")
      precondition((1...TemplateLimits.promptBytes).contains(request.prompt.utf8.count))
    }
  }

  // MARK: - Safetensors

  /// Two bytes for the size of the tensors, big-endian, then the header.
  private static func readSafetensors(_ bytes: [UInt8]) {
    guard bytes.count >= 2 else { return }
    let dataByteCount = Int(bytes[0]) << 8 | Int(bytes[1])
    guard let header = try? SafetensorsHeader(json: Array(bytes[2...]), dataByteCount: dataByteCount, file: "file")
    else { return }
    var end = 0
    for (_, entry) in header.entries.sorted(by: {
      ($0.value.begin, $0.value.byteCount) < ($1.value.begin, $1.value.byteCount)
    }) {
      precondition(entry.begin == end && entry.byteCount >= 0, "tensors overlap, or leave a hole")
      end += entry.byteCount
      precondition(entry.shape.dimensions.allSatisfy { $0 >= 0 })
    }
    precondition(end == dataByteCount, "tensors do not fill the file")
  }

  // MARK: - GGUF

  /// Two bytes for the bytes of tensors that are not there, big-endian, then the header.
  private static func readGGUF(_ bytes: [UInt8]) {
    guard bytes.count >= 2 else { return }
    let header = Array(bytes[2...]), fileByteCount = header.count + Int(bytes[0]) << 8 + Int(bytes[1])
    // What is cut off is asked for, or was not needed.
    let whole = try? GGUFHeader.read(header, fileByteCount: fileByteCount, file: "file")
    if let part = try? GGUFHeader.read(Array(header.dropLast(1)), fileByteCount: fileByteCount, file: "file") {
      // Compared as text: a number may be NaN, which is unequal to itself.
      let metadata = part.metadata.mapValues(String.init(describing:))
      precondition(
        part.entries == whole?.entries && part.dataOffset == whole?.dataOffset
          && metadata == whole?.metadata.mapValues(String.init(describing:)), "a part of the file is another header")
    }
    guard let whole else { return }
    var end = 0
    for (_, entry) in whole.entries.sorted(by: {
      ($0.value.begin, $0.value.byteCount) < ($1.value.begin, $1.value.byteCount)
    }) {
      precondition(entry.begin >= end && entry.byteCount >= 0, "tensors overlap")
      end = entry.begin + entry.byteCount
      precondition(entry.shape.dimensions.allSatisfy { $0 >= 0 })
      precondition(entry.shape.elementCount >= 0)
    }
    precondition(end == 0 || whole.dataOffset + end <= fileByteCount, "tensors end behind the file")
  }

  // MARK: - PNG

  /// A first byte that is odd: the checksums are put right, so that what is behind them is reached.
  private static func readPNG(_ bytes: [UInt8]) {
    guard let first = bytes.first else { return }
    let file = Array(bytes[1...])
    let limits = PNG.Limits(maxBytes: 1 << 16, maxPixels: 1 << 12)
    guard let (image, texts) = try? PNG.decode(first & 1 == 1 ? withChecksums(file) : file, limits: limits) else {
      return
    }
    precondition(image.width > 0 && image.height > 0 && image.width * image.height <= limits.maxPixels)
    precondition(image.pixels.count == image.width * image.height * image.channels, "an image of another size")
    guard let written = try? PNG.encode(image, texts: texts) else { return }
    guard let again = try? PNG.decode(written, limits: PNG.Limits(maxBytes: 1 << 20, maxPixels: 1 << 12)) else {
      fatalError("an image that was read cannot be read again")
    }
    precondition(again.image == image, "comes back as another image")
    guard let metadata = try? ImageMetadata(texts: texts) else { return }
    let same = try? ImageMetadata(texts: metadata.texts)
    precondition(same?.seed == metadata.seed && same?.model == metadata.model, "metadata come back as others")
  }

  // MARK: - Image

  /// The first byte: whether a PNG file's checksums are put right (odd), and what the image is resized to.
  private static func readImage(_ bytes: [UInt8]) {
    guard let first = bytes.first else { return }
    let isPNG = bytes.dropFirst(2).starts(with: "PNG".utf8)
    let file = first & 1 == 1 && isPNG ? withChecksums(Array(bytes[1...])) : Array(bytes[1...])
    let limits = ImageFile.Limits(maxBytes: 1 << 16, maxPixels: 1 << 12, maxSide: 1 << 9)
    let decoded: RasterImage
    do { decoded = try ImageFile.decode(file, limits: limits) } catch {
      precondition(!error.description.isEmpty)
      return
    }
    precondition(max(decoded.width, decoded.height) <= limits.maxSide, "a longer side than the limit")
    precondition(decoded.width * decoded.height <= limits.maxPixels, "more pixels than the limit")
    guard let header = try? ImageFile.header(of: file, limits: limits) else {
      fatalError("an image without a header")
    }
    precondition(header.width == decoded.width && header.height == decoded.height, "another size than in the header")
    // What was read can be used: written, read again, and resized.
    let (wide, high) = (1 + Int(first) % 13, 1 + Int(first) / 13)
    let small = decoded.resized(width: wide, height: high, filter: .lanczos)
    precondition(small.width == wide && small.height == high && small.channels == decoded.channels)
    guard let lossless = try? ImageFile.decode(WebP.encode(decoded, .lossless)) else {
      fatalError("an image that was read cannot be read again as WebP")
    }
    precondition(lossless.rgba == decoded.rgba, "comes back as another image")
    guard let lossy = try? ImageFile.decode(JPEG.encode(decoded, quality: 1 + Int(first) % 100)) else {
      fatalError("an image that was read cannot be read again as JPEG")
    }
    precondition(lossy.width == decoded.width && lossy.height == decoded.height, "comes back in another size")
  }

  // MARK: - Journal

  private static func readJournal(_ bytes: [UInt8]) {
    guard let request = try? StoredRequest.request(from: Data(bytes), tenant: .anonymous) else { return }
    precondition((1...ImageSpec.maxImageCount).contains(request.images.count))
    for image in request.images {
      // What a restart does with it.
      precondition(image.steps > 0 && image.size.widthPx > 0 && image.size.heightPx > 0)
      let shape = image.card.latents.packedShape(of: image.size)
      precondition(shape.allSatisfy { $0 >= 0 })
      var scheduler = Scheduler(run: 1)
      guard let pipeline = PipelineRegistry.standard[image.pipeline], pipeline.problem(of: image) == nil else {
        continue
      }
      let submission = ImageJobSubmission(
        id: ImageJobID("job"), model: image.card.model, plan: pipeline.plan(image), priority: request.priority)
      _ = scheduler.step(.restored([RestoredImageJob(submission: submission)]), now: .zero)
      precondition(scheduler.brokenInvariants().isEmpty)
    }
  }

  private static func withChecksums(_ file: [UInt8]) -> [UInt8] {
    var file = file
    var chunk = 8
    while chunk + 12 <= file.count {
      let size = file[chunk..<chunk + 4].reduce(0) { $0 << 8 | Int($1) }
      guard size <= file.count - chunk - 12 else { break }
      let crc = WireCodec.crc32(of: FrameBuffer(copying: Array(file[(chunk + 4)..<(chunk + 8 + size)])))
      for place in 0..<4 { file[chunk + 8 + size + place] = UInt8(truncatingIfNeeded: crc >> (24 - 8 * UInt32(place))) }
      chunk += 12 + size
    }
    return file
  }
}

import ClusterCore
import Foundation
import Gateway
import GatewayAPI
import GatewayPipelines
import ImageCodec
import Testing

/// Images, forms and a card for tests of what clients send.
enum Intake {
  /// A model that serves every pipeline with images that the gateway knows.
  static let card: ModelCard = {
    var card = Toy.card
    card.pipelines = [
      .textToImage, .imageToImage, .inpaint, .edit, .editPlus, .editInpaint, .controlNet, .controlNetInpaint,
    ]
    card.references = ReferenceAreas(referencePx: 64 * 64, conditionPx: 48 * 48)
    return card
  }()

  /// One that begins with an image and keeps nothing of its transparency.
  static let imageToImageCard: ModelCard = {
    var card = Toy.card
    card.pipelines = [.textToImage, .imageToImage, .inpaint]
    return card
  }()

  /// Limits that small files reach.
  static var limits: ImageIntake {
    var intake = ImageIntake()
    intake.maxFileBytes = 64 << 10
    intake.maxPixels = 256 * 256
    intake.maxRequestPixels = 3 * 256 * 256
    return intake
  }

  /// An image with a different value in every channel.
  static func image(_ width: Int = 64, _ height: Int = 64, channels: Int = 3, shade: UInt8 = 0) -> RasterImage {
    RasterImage(
      width: width, height: height, channels: channels,
      pixels: (0..<width * height * channels).map { UInt8(truncatingIfNeeded: $0 &* 7) ^ shade })
  }

  static func png(_ width: Int = 64, _ height: Int = 64, shade: UInt8 = 0) throws -> [UInt8] {
    try PNG.encode(image(width, height, shade: shade))
  }

  /// A PNG whose header says another size than its pixels have; its checksum is right.
  static func png(claiming width: UInt32, _ height: UInt32) throws -> [UInt8] {
    var file = try png()
    file.replaceSubrange(16..<24, with: bytes(width) + bytes(height))
    file.replaceSubrange(29..<33, with: bytes(crc32(file[12..<29])))
    return file
  }

  private static func bytes(_ number: UInt32) -> [UInt8] {
    withUnsafeBytes(of: number.bigEndian) { Array($0) }
  }

  private static func crc32(_ bytes: ArraySlice<UInt8>) -> UInt32 {
    var crc = UInt32.max
    for byte in bytes {
      crc ^= UInt32(byte)
      for _ in 0..<8 { crc = crc & 1 == 1 ? (crc >> 1) ^ 0xEDB8_8320 : crc >> 1 }
    }
    return ~crc
  }

  static func dataURL(_ file: [UInt8], type: String = "image/png") -> String {
    "data:\(type);base64,\(Data(file).base64EncodedString())"
  }

  /// What becomes of a form.
  static func images(
    of parts: [[UInt8]], _ kind: GenerationRequest.Kind = .edit, card: ModelCard = card,
    pending: [PipelineName] = [], _ intake: ImageIntake = limits
  ) throws(APIError) -> (images: [ImageSpec], inputs: [InputImage]) {
    let form = try MultipartForm(parts.flatMap { $0 } + Array("--b--\r\n".utf8), boundary: "b")
    let request = try GenerationRequest(form: form, kind, intake: intake, maxPromptBytes: 1000)
    return try ImageSpec.images(of: request, card: card, pending: pending, intake: intake, randomSeed: 7)
  }

  /// What becomes of a JSON body.
  static func images(
    ofJSON body: String, _ kind: GenerationRequest.Kind = .edit, card: ModelCard = card, _ intake: ImageIntake = limits
  ) throws(APIError) -> (images: [ImageSpec], inputs: [InputImage]) {
    let request = try GenerationRequest(body: Array(body.utf8), kind, intake: intake, maxPromptBytes: 1000)
    return try ImageSpec.images(of: request, card: card, intake: intake, randomSeed: 7)
  }

  /// A part of a form whose boundary is `b`.
  static func part(_ name: String, _ contents: [UInt8], file: String? = "a.png") -> [UInt8] {
    MultipartFormTests.part(name, contents, fileName: file)
  }

  static func text(_ name: String, _ value: String) -> [UInt8] { part(name, Array(value.utf8), file: nil) }

  static let prompt = text("prompt", "a cat")
}

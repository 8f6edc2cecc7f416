import ClusterCore
import Foundation
import Gateway
import GatewayAPI
import GatewayPipelines
import ImageCodec
import Testing

/// What clients send as images, and what is wrong with it.
@Suite("Intake of images", .timeLimit(.minutes(2)))
struct IntakeTests {
  /// A fault of a request: what the answer says.
  struct Fault: CustomTestStringConvertible {
    var name: String
    var parts: @Sendable () throws -> [[UInt8]]
    var code: APIError.Code
    var param: String
    /// What the message says.
    var says: String
    var testDescription: String { name }

    init(
      _ name: String, _ code: APIError.Code, _ param: String, says: String,
      _ parts: @escaping @Sendable () throws -> [[UInt8]]
    ) {
      (self.name, self.code, self.param, self.says, self.parts) = (name, code, param, says, parts)
    }

    /// One file in `image` beside a prompt.
    static func file(
      _ name: String, _ says: String, code: APIError.Code = .invalidValue,
      _ file: @escaping @Sendable () throws -> [UInt8]
    ) -> Fault {
      Fault(name, code, "image", says: says) { [Intake.prompt, Intake.part("image", try file())] }
    }
  }

  @Test(arguments: [
    Fault.file("no bytes", "image is an empty file") { [] },
    .file("a header alone", "image: a damaged or incomplete PNG file") { Array(try Intake.png().prefix(33)) },
    .file("half of a file", "image: a damaged or incomplete PNG file") {
      let file = try Intake.png()
      return Array(file.prefix(file.count / 2))
    },
    .file("without its end", "image: a damaged or incomplete PNG file") { Array(try Intake.png().dropLast(12)) },
    .file("no width", "image: a damaged or incomplete PNG file") { try Intake.png(claiming: 0, 64) },
    .file("no height", "image: a damaged or incomplete PNG file") { try Intake.png(claiming: 64, 0) },
    .file("100,000 a side", "image: a PNG image of 100000×100000 pixels, the limit is 16384 pixels a side") {
      try Intake.png(claiming: 100_000, 100_000)
    },
    .file("a bomb within the limit of sides", "16384×16384 = 268435456 pixels, the limit is 65536 pixels") {
      try Intake.png(claiming: 16_384, 16_384)
    },
    .file("a pixel too many", "image: a PNG image of 257×256 = 65792 pixels, the limit is 65536 pixels") {
      try Intake.png(257, 256)
    },
    .file("a large file", "image: an image file of 65537 bytes, the limit is 65536") {
      [0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A] + [UInt8](repeating: 0, count: 65_529)
    },
    .file("another format", "image: a GIF image; PNG, JPEG and WebP images are read") {
      Array("GIF89a".utf8) + [1, 0, 1, 0]
    },
    .file("a page", "image: an HTML page") { Array("<!DOCTYPE html><html>Not Found".utf8) },
    .file("noise", "image: a file of an unknown kind, which begins with the bytes 00 01 02 03") { [0, 1, 2, 3, 250] },
    Fault("17 images", .invalidValue, "image", says: "image has 17 images, the limit is 16") {
      [Intake.prompt] + Array(repeating: Intake.part("image[]", try Intake.png(16, 16)), count: 17)
    },
    Fault("50 images", .invalidValue, "image", says: "image has 50 images, the limit is 16") {
      [Intake.prompt] + (0..<50).map { _ in Intake.part("image", Array("GIF89a".utf8)) }
    },
    Fault("5 control images", .invalidValue, "control_image", says: "control_image has 5 images, the limit is 4") {
      [Intake.prompt] + Array(repeating: Intake.part("control_image", try Intake.png()), count: 5)
    },
    Fault("two masks", .invalidValue, "mask", says: "mask has 2 images, the limit is 1") {
      let file = try Intake.png()
      return [Intake.prompt, Intake.part("image", file)] + Array(repeating: Intake.part("mask", file), count: 2)
    },
    Fault(
      "too many pixels together", .invalidValue, "image",
      says: "the images of the request have more than 196608 pixels together"
    ) {
      [Intake.prompt] + (0..<4).map { Intake.part("image[\($0)]", try! Intake.png(224, 224, shade: UInt8($0))) }
    },
    Fault("a smaller mask", .invalidValue, "mask", says: "mask is 48x64, but the image is 64x64") {
      [Intake.prompt, Intake.part("image", try Intake.png()), Intake.part("mask", try Intake.png(48, 64))]
    },
    Fault("a turned mask", .invalidValue, "mask", says: "mask is 64x80, but the image is 80x64") {
      [Intake.prompt, Intake.part("image", try Intake.png(80, 64)), Intake.part("mask", try Intake.png(64, 80))]
    },
    Fault("a mask without an image", .missingField, "image", says: "image is missing") {
      [Intake.prompt, Intake.text("pipeline", "inpaint"), Intake.part("mask", try Intake.png())]
    },
    Fault("a damaged mask", .invalidValue, "mask", says: "mask: a damaged or incomplete PNG file") {
      [
        Intake.prompt, Intake.part("image", try Intake.png()),
        Intake.part("mask", Array(try Intake.png().dropLast(20))),
      ]
    },
    Fault("a mask for a pipeline without", .invalidValue, "mask", says: "there are 1 of mask, but edit takes none") {
      let file = try Intake.png()
      return [Intake.prompt, Intake.text("pipeline", "edit"), Intake.part("image", file), Intake.part("mask", file)]
    },
    Fault("two images for one", .invalidValue, "image", says: "there are 2 of image, but edit takes 1 at most") {
      let file = try Intake.png()
      return [Intake.prompt, Intake.text("pipeline", "edit"), Intake.part("image", file), Intake.part("image", file)]
    },
    Fault("one number for two images", .invalidValue, "image", says: "image[0] comes twice") {
      let file = try Intake.png()
      return [Intake.prompt, Intake.part("image[0]", file), Intake.part("image[0]", file)]
    },
    Fault("no image", .missingField, "image", says: "image is missing") { [Intake.prompt] },
    Fault("a file of another field", .invalidValue, "scan", says: "scan is not UTF-8") {
      [Intake.prompt, Intake.part("image", try Intake.png()), Intake.part("scan", try Intake.png())]
    },
    Fault("an address", .unsupportedValue, "image", says: "image is an address; this server fetches nothing") {
      [Intake.prompt, Intake.text("image", "https://example.org/a.png")]
    },
    Fault("three numbers for two control images", .invalidValue, "control_scale", says: "has 3 numbers, but there") {
      [Intake.prompt, Intake.text("control_scale", "[1, 1, 1]")]
        + Array(repeating: Intake.part("control_image", try Intake.png()), count: 2)
    },
    Fault("an end before its start", .invalidValue, "control_end", says: "control_end is 0.25, but must not be below") {
      [Intake.prompt, Intake.text("control_start", "0.5"), Intake.text("control_end", "0.25")]
        + [Intake.part("control_image", try Intake.png())]
    },
    Fault("a canvas with long sides", .invalidValue, "outpaint", says: "which is 266240 pixels; the limit is 65536") {
      [Intake.prompt, Intake.part("image", try Intake.png()), Intake.text("outpaint", #"{"left": 4096}"#)]
    },
    Fault("a side that is no number", .invalidType, "outpaint", says: "outpaint: left must be an integer") {
      [Intake.prompt, Intake.part("image", try Intake.png()), Intake.text("outpaint", #"{"left": "x"}"#)]
    },
  ])
  func faultsNameTheirField(fault: Fault) throws {
    let parts = try fault.parts()
    let isControl = fault.param.hasPrefix("control")
    let kind: GenerationRequest.Kind = isControl ? .generation : .edit
    do throws(APIError) {
      _ = try Intake.images(of: parts, kind)
      Issue.record("accepted")
    } catch {
      #expect(error.code == fault.code, "\(error)")
      #expect(error.param == fault.param, "\(error)")
      #expect(error.message.contains(fault.says), "\(error.message)")
      #expect((400..<500).contains(error.code.row.status.code))
    }
  }

  /// In JSON the same faults have the same names.
  @Test(
    arguments: [
      (#""image": 7"#, .invalidType, "image must be a data URL or a list of them, not a number"),
      (#""image": [{"image_url": 3}]"#, .invalidType, "image must be a data URL or a list of them"),
      (#""image": {"file_id": "file-1"}"#, .invalidType, "image must be a data URL or a list of them"),
      (#""image": """#, .invalidValue, "image is no base64: it is empty"),
      (#""image": "https://example.org/a.png""#, .unsupportedValue, "image is an address"),
      (#""image": "FILE:///etc/passwd""#, .unsupportedValue, "image is an address"),
      (#""image": "data:image/png,x""#, .invalidValue, "image must be a data URL with base64"),
      (#""image": "data:image/png;base64""#, .invalidValue, "image must be a data URL with base64"),
      (#""image": "data:image/png;base64,""#, .invalidValue, "image is no base64: it is empty"),
      (#""image": "data:image/png;base64,iVBO%2B""#, .invalidValue, #"after 4 bytes comes "%": do not percent-encode"#),
      (#""image": "data:image/png;base64,iVBOR""#, .invalidValue, "image is no base64: its end is missing"),
      (#""image": "data:image/png;base64,iV=BO""#, .invalidValue, "image is no base64: after 3 bytes comes"),
      (#""image": "data:image/png;base64,iVBORw0KGgo=""#, .invalidValue, "image: a damaged or incomplete PNG file"),
      (#""images": [\#(Array(repeating: #""x""#, count: 17).joined(separator: ","))]"#, .invalidValue, "17 images"),
      (#""image": [], "images": []"#, .missingField, "image is missing"),
      (#""image": null"#, .missingField, "image is missing"),
    ] as [(String, APIError.Code, String)])
  func faultsInJSON(field: String, code: APIError.Code, says: String) {
    do throws(APIError) {
      _ = try Intake.images(ofJSON: #"{"prompt": "a cat", \#(field)}"#)
      Issue.record("accepted")
    } catch {
      #expect(error.code == code && error.param?.hasPrefix("image") == true, "\(error)")
      #expect(error.message.contains(says), "\(error.message)")
    }
  }

  @Test func aDataURLHasALimit() throws {
    for (count, isTaken) in [(Intake.limits.maxFileBytes, true), (Intake.limits.maxFileBytes + 1, false)] {
      let url = Intake.dataURL([UInt8](repeating: 7, count: count))
      do throws(APIError) {
        _ = try Intake.images(ofJSON: #"{"prompt": "a cat", "image": "\#(url)"}"#)
      } catch {
        // The file that is taken is none.
        #expect(error.code == (isTaken ? .invalidValue : .bodyTooLarge), "\(error)")
        #expect(error.param == "image")
      }
    }
    // Line breaks are no bytes of it.
    let bytes = [UInt8](repeating: 7, count: 300)
    let broken = Data(bytes).base64EncodedString(options: [.lineLength64Characters])
    #expect(try DataURL.bytes(of: broken, field: "image", maxBytes: 300) == bytes)
  }

  @Test func everyAlphabetOfBase64IsRead() throws {
    let bytes = (0...255).map { UInt8($0) }
    let text = Data(bytes).base64EncodedString()
    let safe = text.replacing("+", with: "-").replacing("/", with: "_")
    for form in [
      text, safe, text.replacing("=", with: ""), "data:image/png;base64," + text, "DATA:;BASE64," + safe,
      "data:image/png;name=a.png;base64," + text, " " + text + "\r\n",
    ] {
      #expect(try DataURL.bytes(of: form, field: "image", maxBytes: 256) == bytes, "\(form.prefix(40))")
    }
    for count in 1...16 {
      let part = Array(bytes.prefix(count))
      #expect(try DataURL.bytes(of: Data(part).base64EncodedString(), field: "image", maxBytes: 16) == part)
    }
  }

  /// A form with files, with data URLs, and JSON give the same images.
  @Test func everyWayGivesTheSameImages() throws {
    let (first, second) = (try Intake.png(), try Intake.png(64, 80, shade: 9))
    let urls = [first, second].map { Intake.dataURL($0) }
    let expected = [Intake.image(), Intake.image(64, 80, shade: 9)].map { InputImage($0, role: .image).reference }
    let ways: [(images: [ImageSpec], inputs: [InputImage])] = [
      try Intake.images(of: [Intake.prompt, Intake.part("image", first), Intake.part("image", second)]),
      try Intake.images(of: [Intake.prompt, Intake.part("image[]", first), Intake.part("image[]", second)]),
      try Intake.images(of: [Intake.part("image[1]", second), Intake.part("image[0]", first), Intake.prompt]),
      try Intake.images(of: [Intake.part("images", first), Intake.prompt, Intake.text("image[]", urls[1])]),
      try Intake.images(
        of: [Intake.prompt, Intake.part("image", first), Intake.part("image", []), Intake.part("image", second)]
          .enumerated().filter { $0.offset != 2 }.map(\.element)),
      try Intake.images(ofJSON: #"{"prompt": "a cat", "image": ["\#(urls[0])", "\#(urls[1])"]}"#),
      try Intake.images(ofJSON: #"{"prompt": "a cat", "image": "\#(urls[0])", "images": ["\#(urls[1])"]}"#),
      try Intake.images(
        ofJSON: #"{"prompt": "a cat", "image": [{"image_url": "\#(urls[0])"}, "#
          + #"{"image_url": {"url": "\#(urls[1])"}}]}"#),
    ]
    for way in ways {
      #expect(way.images.map(\.pipeline) == [.editPlus])
      #expect(way.images[0].inputs == expected)
      #expect(way.inputs.map(\.reference) == expected)
      #expect(way.inputs.allSatisfy { $0.tensor.bytes.count == $0.tensor.shape.reduce(1, *) })
    }
  }

  /// What browsers send for a file field that was left empty.
  @Test func aFieldThatWasLeftEmptyIsAbsent() throws {
    let empty = Intake.part("mask", [], file: "")
    let images = try Intake.images(of: [Intake.prompt, Intake.part("image", try Intake.png()), empty]).images
    #expect(images.map(\.pipeline) == [.editPlus] && images[0].mask == nil)
  }

  @Test(arguments: ImageFileFormat.allCases) func everyFormatIsTaken(format: ImageFileFormat) throws {
    let image = Intake.image()
    let file =
      switch format {
      case .png: try PNG.encode(image)
      case .jpeg: try JPEG.encode(image, quality: 90)
      case .webp: try WebP.encode(image, .lossless)
      }
    // Neither the name nor the declared type says what a file is.
    let taken = try Intake.images(of: [Intake.prompt, Intake.part("image", file, file: "a.txt")])
    #expect(taken.inputs.map(\.reference.size) == [ImageSize(widthPx: 64, heightPx: 64)])
    let url = Intake.dataURL(file, type: "image/gif")
    #expect(try Intake.images(ofJSON: #"{"prompt": "a cat", "image": "\#(url)"}"#).images == taken.images)
  }

  @Test func transparencyIsAMaskOnlyWhereThePipelineTakesOne() throws {
    let clear = RasterImage(
      width: 64, height: 64, channels: 4,
      pixels: (0..<64 * 64).flatMap { [UInt8(truncatingIfNeeded: $0), 2, 3, $0 % 64 < 32 ? 0 : 255] })
    let file = try PNG.encode(clear)
    let parts = [Intake.prompt, Intake.part("image", file)]
    let inpainted = try Intake.images(of: parts, card: Intake.imageToImageCard)
    #expect(inpainted.images.map(\.pipeline) == [.inpaint])
    #expect(inpainted.inputs.map(\.reference.role) == [.image, .mask] && inpainted.inputs[1].reference.channels == 1)
    let edited = try Intake.images(of: parts)
    #expect(edited.images.map(\.pipeline) == [.editPlus] && edited.inputs.map(\.reference.role) == [.image])
    let varied = try Intake.images(of: [Intake.part("image", file)], .variation, card: Intake.imageToImageCard)
    #expect(varied.images.map(\.pipeline) == [.imageToImage] && varied.inputs.count == 1)
    let chosen = try Intake.images(of: parts + [Intake.text("pipeline", "img2img")], card: Intake.imageToImageCard)
    #expect(chosen.images.map(\.pipeline) == [.imageToImage] && chosen.inputs.count == 1)
  }

  /// Of the default's pixels, 64×64, four times as many are kept.
  @Test(arguments: [(128, 128, 128, 128), (144, 128, 64, 64), (256, 64, 256, 64), (256, 80, 112, 32)])
  func largeImagesAreMadeAtAboutTheDefaultSize(width: Int, height: Int, expectedWidth: Int, expectedHeight: Int) throws
  {
    var card = Intake.imageToImageCard
    card.limits.minSidePx = 32
    let file = Intake.part("image", try Intake.png(width, height))
    func size(_ fields: [[UInt8]]) throws -> ImageSize? {
      try Intake.images(of: [Intake.prompt, file] + fields, card: card).images.first?.size
    }
    #expect(try size([]) == ImageSize(widthPx: expectedWidth, heightPx: expectedHeight))
    // Who asks for more gets it.
    let asked = try size([Intake.text("size", "\(width)x\(height)")])
    #expect(asked == ImageSize(widthPx: width, heightPx: height))
  }

  /// A reference of 64×64 pixels has 16 tokens.
  @Test(arguments: [
    (32, 2, false, true), (32, 3, false, false), (31, 2, false, false), (32, 1, true, true), (32, 2, true, false),
    (nil, 8, true, true),
  ])
  func referencesHaveTheMemoryOfDenoisers(max: Int?, count: Int, isGuided: Bool, isTaken: Bool) throws {
    var card = Intake.card
    card.limits.maxReferenceTokens = max
    let images = try (0..<count).map { Intake.part("image[]", try Intake.png(shade: UInt8($0))) }
    let guidance = isGuided ? [Intake.text("negative_prompt", "a dog"), Intake.text("true_cfg_scale", "2")] : []
    let form = [Intake.prompt, Intake.text("pipeline", "edit-plus")] + images + guidance
    if isTaken {
      #expect(try Intake.images(of: form, card: card).images.count == 1)
    } else {
      let error = #expect(throws: APIError.self) { try Intake.images(of: form, card: card) }
      #expect(error?.param == "image" && error?.code == .invalidValue)
      #expect(error?.message.contains("have \(count * 16) tokens") == true, "\(error?.message ?? "")")
    }
  }

  /// Every request of the pipelines is one that the journal may have.
  @Test func whatIsAcceptedCanBeRestored() throws {
    let (image, mask) = (Intake.part("image", try Intake.png()), Intake.part("mask", try Intake.png(shade: 3)))
    let control = Intake.part("control_image", try Intake.png(shade: 5))
    for (parts, kind) in [
      ([image], .edit), ([image, image], .edit), ([image, mask], .edit),
      ([image, mask, Intake.text("pipeline", "inpaint"), Intake.text("padding_mask_crop", "8")], .edit),
      ([image, Intake.text("strength", "0.5")], .edit), ([control], .generation), ([control, control], .generation),
      ([control, mask], .generation), ([], .generation),
    ] as [([[UInt8]], GenerationRequest.Kind)] {
      let (images, inputs) = try Intake.images(of: [Intake.prompt, Intake.text("n", "2")] + parts, kind)
      let pipeline = try #require(PipelineRegistry.standard[images[0].pipeline])
      #expect(pipeline.problem(of: images[0]) == nil, "\(images[0].pipeline)")
      var request = JobRequest(images)
      request.inputs = inputs
      let restored = try StoredRequest.request(from: StoredRequest(request).encoded(), tenant: .anonymous)
      #expect(restored.images == images)
      #expect(
        pipeline.tasks(restored.images[1]).flatMap(\.images).allSatisfy { image in
          inputs.contains { $0.reference.digest == image.digest }
        })
    }
  }

  /// While a cluster starts, a request is early, not wrong: clients that retry are served.
  @Test func whatIsStillStartingIsNotRefusedForGood() throws {
    let parts = [Intake.prompt, Intake.text("strength", "1"), Intake.part("image", try Intake.png())]
    let early = #expect(throws: APIError.self) {
      try Intake.images(of: parts, card: Toy.card, pending: [.imageToImage])
    }
    #expect(early?.code == .notReady && early?.retryAfterSeconds == 5)
    #expect(early?.message.contains("img2img") == true)
    let wrong = #expect(throws: APIError.self) { try Intake.images(of: parts, card: Toy.card, pending: [.layered]) }
    #expect(wrong?.code == .invalidValue)
  }

  /// A specification that no request gives is refused before tasks are made of it.
  @Test func whatTheJournalSaysIsCheckedAgain() throws {
    let parts = [
      Intake.prompt, Intake.part("image", try Intake.png()), Intake.part("mask", try Intake.png(shade: 3)),
      Intake.text("pipeline", "inpaint"), Intake.text("padding_mask_crop", "8"),
    ]
    let sound = try Intake.images(of: parts).images[0]
    #expect(Pipeline.inpaint.problem(of: sound) == nil)
    func problem(_ change: (inout ImageSpec) -> Void) -> String? {
      var spec = sound
      change(&spec)
      return Pipeline.inpaint.problem(of: spec)
    }
    #expect(problem { $0.inputs.removeLast() } == "inpaint has 0 of mask, not 1 to 1")
    #expect(problem { $0.inputs.removeFirst() } == "inpaint has 0 of image, not 1 to 1")
    #expect(problem { $0.inputs.append($0.inputs[0]) } == "inpaint has 2 of image, not 1 to 1")
    #expect(problem { $0.inputs[1].channels = 3 } == "the mask is not of the image")
    #expect(problem { $0.inputs[1].size.widthPx = 32 } == "the mask is not of the image")
    #expect(
      problem {
        $0.inputs[0].size.widthPx = 32; $0.inputs[1].size.widthPx = 32
      }
        == "the region of the mask is not within the image")
  }
}

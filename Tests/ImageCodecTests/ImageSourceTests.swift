import Foundation
import ImageCodec
import Testing

/// What images that were made of others keep about it.
@Suite struct ImageSourceTests {
  private static let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

  private static func metadata(_ source: ImageSource?) -> ImageMetadata {
    ImageMetadata(
      model: "m", fingerprint: nil, prompt: "p", negativePrompt: nil, trueCFGScale: 1, steps: 4, width: 64, height: 32,
      seed: 7, softwareVersion: "1", source: source)
  }

  /// A source with everything, although no pipeline takes it all.
  private static var everything: ImageSource {
    var source = ImageSource(
      pipeline: "edit-inpaint",
      inputs: [("mask", "m"), ("image", "abc"), ("control", "c"), ("image", "")].map {
        ImageSource.Input(role: $0.0, file: Array($0.1.utf8))
      })
    (source.strength, source.paddingMaskCrop, source.maskBlur, source.pasteBack) = (0.6, 8, 1.5, true)
    source.outpaint = ImageSource.Margins(Outpainting(left: 16, top: 0, right: 2, bottom: 1, feather: 5))
    (source.controlScale, source.controlStart, source.controlEnd) = ([0.8, 1], [0, 0.25], [1, 0.5])
    source.region = ImageSource.Box(x: 1, y: 2, width: 30, height: 4)
    source.boxes = [ImageSource.Box(x: 0, y: 0, width: 1, height: 1), ImageSource.Box(x: 5, y: 6, width: 7, height: 8)]
    (source.move, source.scale, source.layers) = (ImageSource.Offset(x: -3, y: 4), 2, 3)
    var edit = ImageSource(pipeline: "img2img", inputs: [])
    edit.strength = 1
    source.edits = [
      ImageSource.Edit(prompt: "first", negativePrompt: nil, source: edit),
      ImageSource.Edit(prompt: "second", negativePrompt: "n", source: ImageSource(pipeline: "edit", inputs: [])),
    ]
    return source
  }

  @Test func comesBackAsItWas() throws {
    let original = Self.metadata(Self.everything)
    let file = try PNG.encode(RasterImage(width: 1, height: 1, pixels: [1, 2, 3]), texts: original.texts)
    #expect(try ImageMetadata(texts: PNG.decode(file).texts) == original)
    #expect(try ImageMetadata(texts: Self.metadata(nil).texts)?.source == nil)
  }

  /// The names and values of the HTTP API.
  @Test func isWrittenAsTheAPIHasIt() throws {
    let record = try JSONSerialization.jsonObject(with: Data(Self.metadata(Self.everything).texts[2].text.utf8))
    var fields = try #require(record as? [String: Any])
    let inputs = fields.removeValue(forKey: "inputs") as? [[String: String]]
    #expect(inputs?.map { $0["role"] } == ["image", "image", "control", "mask"], "images, control images, mask")
    #expect(inputs?[0]["sha256"] == Self.abc && inputs?.allSatisfy { $0["sha256"]?.count == 64 } == true)
    let expected: NSDictionary = [
      "software": "qwen-image-cluster", "software_version": "1", "model": "m", "prompt": "p", "true_cfg_scale": 1,
      "steps": 4, "size": "64x32", "seed": 7, "pipeline": "edit-inpaint", "strength": 0.6, "padding_mask_crop": 8,
      "mask_blur": 1.5, "paste_back": true,
      "outpaint": ["left": 16, "top": 0, "right": 2, "bottom": 1, "feather": 5], "control_scale": [0.8, 1],
      "control_start": [0, 0.25], "control_end": [1, 0.5], "region": ["x": 1, "y": 2, "width": 30, "height": 4],
      "boxes": [["x": 0, "y": 0, "width": 1, "height": 1], ["x": 5, "y": 6, "width": 7, "height": 8]],
      "move": ["x": -3, "y": 4], "scale": 2, "layers": 3,
      "edit_instructions": [
        ["prompt": "first", "pipeline": "img2img", "strength": 1],
        ["prompt": "second", "negative_prompt": "n", "pipeline": "edit"],
      ],
    ]
    #expect(fields as NSDictionary == expected)
  }

  /// Everything follows the values that every image has; what holds separators is quoted, as A1111's reader expects.
  @Test func isInTheLineOfGalleries() {
    let parts: [String] = [
      "p\nSteps: 4, Sampler: Euler, CFG scale: 1, Seed: 7, Size: 64x32, Model: m, Version: qwen-image-cluster 1",
      "Pipeline: edit-inpaint, Denoising strength: 0.6, Padding mask crop: 8, Mask blur: 1.5, Paste back: true",
      #"Outpaint: "left 16, top 0, right 2, bottom 1, feather 5", Control scale: "0.8, 1""#,
      #"Control start: "0, 0.25", Control end: "1, 0.5", Region: 1 2 30x4, Boxes: "0 0 1x1, 5 6 7x8""#,
      "Move: -3 4, Scale: 2, Layers: 3",
      #"Edits: "Pipeline: img2img, Denoising strength: 1; Pipeline: edit", Inputs: "image \#(Self.abc), image "#,
    ]
    let line = Self.metadata(Self.everything).texts[1].text
    #expect(line.hasPrefix(parts.joined(separator: ", ")), "\(line)")
  }

  /// The longest prompts of several edits are left out; the image's own prompt has them.
  @Test func longEditsAreCut() throws {
    var source = ImageSource(pipeline: "edit-sequence", inputs: [])
    let prompt = String(repeating: "\u{1}", count: 8 << 10)
    source.edits = (0..<8).map { _ in
      ImageSource.Edit(prompt: prompt, negativePrompt: prompt, source: ImageSource(pipeline: "edit", inputs: []))
    }
    let texts = Self.metadata(source).texts
    #expect(texts.allSatisfy { $0.text.utf8.count <= ImageMetadata.maxTextBytes })
    #expect(texts[2].text.contains(#""cut":["edit_instructions"]"#))
    let read = try #require(try ImageMetadata(texts: texts)?.source)
    #expect(read.edits?.count == 8 && read.edits?.allSatisfy { $0.prompt == nil && $0.negativePrompt == nil } == true)
  }

  @Test(arguments: [
    (#""strength":0.6"#, #""strength":1e999"#), (#""strength":0.6"#, #""strength":"0.6""#),
    (#""control_scale":[0.8,1]"#, #""control_scale":[\#(Array(repeating: "1", count: 33).joined(separator: ","))]"#),
    (#""role":"mask""#, #""role":"a mask of another size""#), (abc, abc + "0"),
    (#""pipeline":"edit-inpaint""#, #""pipeline":"\#(String(repeating: "e", count: 65))""#),
    (#""pipeline":"edit-inpaint""#, #""pipeline":7"#),
    (#""pipeline":"img2img""#, #""edit_instructions":[],"pipeline":"img2img""#),
  ])
  func refusesWhatItDidNotWrite(part: String, other: String) throws {
    let record = Self.metadata(Self.everything).texts[2].text
    try #require(record.contains(part))
    #expect(throws: PNGError.self) {
      try ImageMetadata(texts: [PNG.Text(ImageMetadata.keyword, record.replacing(part, with: other))])
    }
  }
}

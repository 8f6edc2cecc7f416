import ClusterCore
import Foundation
import GatewayPipelines
import ImageCodec
import Testing

/// What images say about the request that they were made of, so that it can be made again.
@Suite("Records of images", .timeLimit(.minutes(2)))
struct ImageRecordTests {
  struct Case: CustomTestStringConvertible, Sendable {
    var name: String
    /// Fields of the form, and the roles of its files.
    var fields: [String: String] = [:]
    var files: [String]
    /// What the record has beside the values that every image has, and its files.
    var record: String
    var testDescription: String { name }
  }

  private static let cases = [
    Case(name: "image to image", files: ["image"], record: #"{"pipeline": "img2img", "strength": 0.6}"#),
    Case(
      name: "strength", fields: ["pipeline": "img2img", "strength": "0.25"], files: ["image"],
      record: #"{"pipeline": "img2img", "strength": 0.25}"#),
    Case(
      name: "a mask", fields: ["pipeline": "inpaint", "mask_blur": "1.5", "padding_mask_crop": "4"],
      files: ["image", "mask"],
      record: #"{"pipeline": "inpaint", "strength": 0.6, "mask_blur": 1.5, "padding_mask_crop": 4, "paste_back": true}"#
    ),
    Case(
      name: "a mask whose image does not come back", fields: ["paste_back": "false", "mask_blur": "0"],
      files: ["image", "mask"], record: #"{"pipeline": "edit-inpaint", "strength": 0.6, "paste_back": false}"#),
    Case(
      name: "outpainting", fields: ["pipeline": "inpaint", "outpaint": #"{"left": 16, "bottom": 32}"#],
      files: ["image"],
      record: """
        {"pipeline": "inpaint", "strength": 0.6, "paste_back": true,
         "outpaint": {"left": 16, "top": 0, "right": 0, "bottom": 32, "feather": 16}}
        """),
    Case(
      name: "a region", fields: ["region": #"{"x": 1, "y": 2, "width": 30, "height": 40}"#], files: ["image"],
      record: """
        {"pipeline": "edit-inpaint", "strength": 0.6, "paste_back": true,
         "region": {"x": 1, "y": 2, "width": 30, "height": 40}}
        """),
    Case(
      name: "an object that moves",
      fields: [
        "boxes": #"[{"x": 1, "y": 2, "width": 8, "height": 8}, {"x": 9, "y": 2, "width": 8, "height": 8}]"#,
        "move": #"{"x": 5}"#,
      ], files: ["image"],
      record: """
        {"pipeline": "edit-inpaint", "strength": 1, "paste_back": true, "move": {"x": 5, "y": 0}, "scale": 1,
         "boxes": [{"x": 1, "y": 2, "width": 8, "height": 8}, {"x": 9, "y": 2, "width": 8, "height": 8}]}
        """),
    Case(name: "several images", files: ["image", "image", "image"], record: #"{"pipeline": "edit-plus"}"#),
    Case(name: "one image", fields: ["pipeline": "edit"], files: ["image"], record: #"{"pipeline": "edit"}"#),
    Case(
      name: "control images", fields: ["control_scale": "[0.8, -1]", "control_end": "0.5"],
      files: ["control_image", "control_image"],
      record: """
        {"pipeline": "controlnet", "control_scale": [0.8, -1], "control_start": [0, 0], "control_end": [0.5, 0.5]}
        """),
    Case(
      name: "a control image and a mask", files: ["mask", "control_image"],
      record: #"{"pipeline": "controlnet-inpaint", "control_scale": [1], "control_start": [0], "control_end": [1]}"#),
    Case(
      name: "layers", fields: ["pipeline": "layered"], files: ["image"],
      record: #"{"pipeline": "layered", "layers": 4}"#),
    Case(
      name: "several edits",
      fields: [
        "edit_instructions": """
        [{"pipeline": "img2img", "strength": 0.5},
         {"prompt": "q", "negative_prompt": "n", "region": {"x": 0, "y": 0, "width": 8, "height": 8}}]
        """, "true_cfg_scale": "2",
      ], files: ["image"],
      record: """
        {"pipeline": "edit-sequence", "edit_instructions": [
         {"pipeline": "img2img", "prompt": "a cat", "strength": 0.5},
         {"pipeline": "edit-inpaint", "prompt": "q", "negative_prompt": "n", "strength": 0.6, "paste_back": true,
          "region": {"x": 0, "y": 0, "width": 8, "height": 8}}]}
        """),
  ]

  @Test(arguments: cases) func namesAllThatTheImageDependsOn(_ example: Case) throws {
    var card = Intake.card
    card.pipelines += [.layered, .editSequence]
    if example.name == "image to image" { card = Intake.imageToImageCard }
    let files = try example.files.enumerated().map { index, role in
      (role: role, bytes: try Intake.png(shade: UInt8(40 * index)))
    }
    let parts =
      [Intake.prompt] + example.fields.map { Intake.text($0.key, $0.value) }
      + files.map { Intake.part($0.role, $0.bytes) }
    let images = try Intake.images(of: parts, card: card).images
    let metadata = images[0].metadata
    let record = try #require(metadata.texts.first { $0.keyword == ImageMetadata.keyword })
    var fields = try #require(try JSONSerialization.jsonObject(with: Data(record.text.utf8)) as? [String: Any])
    let expected = files.map { file in
      ImageSource.Input(role: file.role == "control_image" ? "control" : file.role, file: file.bytes)
    }.sorted { $0.role != "mask" && $1.role == "mask" }
    let inputs = fields.removeValue(forKey: "inputs") as? [[String: String]]
    #expect(inputs == expected.map { ["role": $0.role, "sha256": $0.sha256] })
    for name in [
      "software", "software_version", "model", "fingerprint", "prompt", "negative_prompt", "true_cfg_scale", "steps",
      "size", "seed",
    ] { fields[name] = nil }
    let wanted = try JSONSerialization.jsonObject(with: Data(example.record.utf8)) as? NSDictionary
    #expect(fields as NSDictionary == wanted, "\(record.text)")
    // Once more from the journal.
    let restored = try StoredRequest.request(from: StoredRequest(JobRequest(images)).encoded(), tenant: .anonymous)
    #expect(restored.images == images && restored.images[0].metadata == metadata)
  }

  @Test func aPromptAloneHasNoSource() throws {
    let image = try ImageRequestTests.jobs(#"{"prompt":"a cat","seed":1}"#)[0]
    #expect(image.metadata.source == nil)
  }

  @Test(arguments: [#""role":"image""#, #""sha256":"0"#]) func filesOfTheJournalAreChecked(_ part: String) throws {
    let images = try Intake.images(of: [Intake.prompt, Intake.part("image", Intake.png())]).images
    let stored = String(decoding: try StoredRequest(JobRequest(images)).encoded(), as: UTF8.self)
    let file = try #require(stored.firstMatch(of: /"files":\[\{"role":"image","sha256":"[0-9a-f]{64}"\}\]/)).output
    let other =
      part.contains("role")
      ? file.replacing("image", with: "scan") : file.replacing(/"sha256":"./, with: "\"sha256\":\"G")
    #expect(throws: Status.self) {
      try StoredRequest.request(from: Data(stored.replacing(file, with: other).utf8), tenant: .anonymous)
    }
  }
}

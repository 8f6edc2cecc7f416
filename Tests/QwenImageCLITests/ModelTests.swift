import Foundation
import Testing

/// Which models there are, and which one a request is for.
@Suite(.timeLimit(.minutes(1))) struct ModelTests {
  private static func model(_ id: String, _ more: String) -> String {
    #"{"id":"\#(id)","object":"model","defaults":{"size":{"width":\#(id.count * 16),"height":64}},\#(more)}"#
  }

  private static let list = [
    model("nano", #""license":"Apache-2.0","ready":true,"pipelines":[{"name":"text-to-image","ready":true}]"#),
    model(
      "a/larger-one",
      #""ready":false,"pipelines":[{"name":"text-to-image","ready":true},{"name":"edit-plus","ready":false}]"#),
    model("gpt-image-1", #""alias_of":"nano","ready":true,"pipelines":[]"#),
  ].joined(separator: ",")

  private func models(_ data: String, _ flags: [String] = []) async throws -> CommandLineTool.Result {
    try await FakeServer.with({ _ in FakeServer.json(#"{"object":"list","data":[\#(data)]}"#) }) { server in
      let result = try await CommandLineTool.run(["models", "--gateway", server.address] + flags)
      #expect(server.requests.allSatisfy { $0.hasPrefix("GET /v1/models ") } && server.requests.count == 1)
      return result
    }
  }

  @Test func listsThem() async throws {
    let result = try await models(Self.list)
    let lines = [
      "nano          ready     Apache-2.0  text-to-image",
      "a/larger-one  starting  licence unknown  text-to-image (edit-plus)",
      "gpt-image-1   another name of nano", "",
    ]
    #expect(result.isSuccess && result.text == lines.joined(separator: "\n"), "\(result)")
  }

  @Test func printsEverythingAsJSON() async throws {
    let result = try await models(Self.list, ["--json"])
    let object = try JSONSerialization.jsonObject(with: Data(result.output)) as? [String: Any]
    #expect(
      (object?["data"] as? [[String: Any]])?.map { $0["id"] as? String } == ["nano", "a/larger-one", "gpt-image-1"])
  }

  @Test func saysThatThereIsNone() async throws {
    let result = try await models("")
    #expect(result.isSuccess && result.text.isEmpty && result.errors.contains("no model yet"), "\(result)")
  }

  @Test func namesAreEscaped() async throws {
    let result = try await models(Self.model("x", #""license":"\u001b[2J\u202e","pipelines":[]"#))
    #expect(result.isSuccess && !result.text.contains("\u{1b}") && !result.text.contains("\u{202e}"), "\(result)")
  }

  @Test func aRequestNamesItsModelAndBackground() async throws {
    let (result, fields) = try await ArgumentTests.generate(
      ["--prompt", "p", "--model", "a/b", "--background", "transparent"])
    #expect(result.isSuccess, "\(result)")
    #expect(fields?["model"] as? String == "a/b" && fields?["background"] as? String == "transparent")
    let (_, others) = try await ArgumentTests.generate(["--prompt", "p"])
    #expect(others?["model"] == nil && others?["background"] == nil)
  }

  /// The other side is that of the model that is asked for.
  @Test func aSizeIsCompletedByItsModel() async throws {
    let file = try fakeImage()
    let data = Self.list
    try await withFolder { folder in
      try await FakeServer.with({ request in
        request.hasPrefix("GET ") ? FakeServer.json(#"{"object":"list","data":[\#(data)]}"#) : file
      }) { server in
        let result = try await CommandLineTool.run(
          ["generate", "--gateway", server.address, "--prompt", "p", "--height", "32", "--model", "a/larger-one"],
          directory: folder)
        #expect(result.isSuccess, "\(result)")
        #expect(server.requests.last?.contains("\"width\":192") == true, "\(server.requests)")
      }
    }
  }

  private func fakeImage() throws -> [UInt8] {
    FakeServer.events([
      ("image_generation.completed", #"{"b64_json":"\#(Data(fakePNG).base64EncodedString())","seed":5}"#)
    ])
  }

  @Test(arguments: [
    (["--background", "green"], 64, "green"),
    (["--background", "transparent", "-o", "a.jpg"], 64, "JPEG has no transparency"),
  ])
  func refusesBackgrounds(flags: [String], status: Int32, message: String) async throws {
    for command in [["generate"], ["jobs", "submit"], ["edit", "--image", "x.png"], ["local", "--model", "x"]] {
      let result = try await CommandLineTool.run(command + ["--prompt", "p"] + flags)
      #expect(result.status == .exited(status) && result.errors.contains(message), "\(command) \(result)")
    }
  }

  @Test func aModelThatMakesOpaqueImagesSaysSo() async throws {
    let result = try await CommandLineTool.run([
      "local", "--model", CommandLineTool.model, "--prompt", "p", "--background", "transparent", "-o", "/dev/null",
    ])
    #expect(
      result.status == .exited(1) && result.errors.contains("nano-qwen-image makes opaque images only"), "\(result)")
  }
}

import Foundation
import Testing

/// What users write, as it reaches the gateway.
@Suite(.timeLimit(.minutes(1))) struct ArgumentTests {
  /// A finished image's event, with the seed that the gateway chose.
  static let completed = FakeServer.events([
    ("image_generation.completed", #"{"b64_json":"\#(Data(fakePNG).base64EncodedString())","seed":4711}"#)
  ])
  /// Two models: requests that name none are for the first.
  static let models = FakeServer.json(
    #"{"object":"list","data":[{"id":"a","defaults":{"size":{"width":64,"height":80},"steps":1}},"#
      + #"{"id":"b","defaults":{"size":{"width":1024,"height":1024}}}]}"#)

  /// Runs `generate`; returns what it did, and the fields of its request.
  static func generate(_ arguments: [String]) async throws -> (result: CommandLineTool.Result, fields: NSDictionary?) {
    try await withFolder { folder in
      let answer: FakeServer.Answer = { $0.hasPrefix("GET /v1/models ") ? Self.models : Self.completed }
      return try await FakeServer.with(answer) { server in
        let result = try await CommandLineTool.run(
          ["generate", "--gateway", server.address] + arguments, directory: folder)
        let body = server.requests.last.map { Data(Self.body(of: $0).utf8) }
        return (result, body.flatMap { try? JSONSerialization.jsonObject(with: $0) as? NSDictionary })
      }
    }
  }

  private static func body(of request: String) -> String {
    request.components(separatedBy: "\r\n\r\n").dropFirst().joined(separator: "\r\n\r\n")
  }

  @Test(arguments: [
    ["--prompt", "- a red heart", "--negative-prompt", "-- blue"],
    ["--prompt=- a red heart", "--negative-prompt=-- blue"],
    ["-p", "- a red heart", "--negative-prompt", "-- blue"],
  ])
  func takesPromptsThatBeginWithADash(arguments: [String]) async throws {
    let (result, fields) = try await Self.generate(arguments)
    #expect(result.isSuccess, "\(result)")
    #expect(fields?["prompt"] as? String == "- a red heart" && fields?["negative_prompt"] as? String == "-- blue")
  }

  @Test(arguments: ["-5 degrees", "-", "-1", "--prompt of a poet", "- Steps: 3", "—", ""]) func takesAnyText(
    prompt: String
  ) async throws {
    let (result, fields) = try await Self.generate(["--prompt", prompt, "--steps", "2"])
    #expect(result.isSuccess, "\(result)")
    #expect(fields?["prompt"] as? String == prompt && fields?["num_inference_steps"] as? Int == 2)
  }

  @Test func namesAdaptersWithScales() async throws {
    let (result, fields) = try await Self.generate(["-p", "a fox", "--lora", "style_v1.5:0.8", "--lora", "other"])
    #expect(result.isSuccess, "\(result)")
    let loras = fields?["loras"] as? [[String: Any]]
    #expect(loras?.map { $0["name"] as? String } == ["style_v1.5", "other"])
    #expect(loras?.map { $0["scale"] as? Double } == [0.8, 1])
    #expect(try await Self.generate(["-p", "a fox"]).fields?["loras"] == nil)
    for (value, message) in [
      ("style:11", "the scale is 11; it must be from -10.0 to 10.0"), ("a/b", "\"a/b\" is no name of an adapter"),
      ("style:", "the scale is ; it must be"), ("other", "--lora has the adapter other twice"),
    ] {
      let (result, fields) = try await Self.generate(["-p", "a fox", "--lora", "other", "--lora", value])
      #expect(result.status == .exited(64) && fields == nil && result.errors.contains(message), "\(result)")
    }
  }

  @Test func noticesAForgottenPrompt() async throws {
    for (arguments, message) in [
      (
        ["--prompt", "--steps", "2"],
        "--prompt lacks a value before --steps; if that is the text, write --prompt=--steps"
      ),
      (["-p", "-o", "a.png"], "-p lacks a value before -o; if that is the text, write --prompt=-o"),
      (
        ["--negative-prompt", "--prompt=x"],
        "--negative-prompt lacks a value before --prompt=x; if that is the text, write --negative-prompt=--prompt=x"
      ),
    ] {
      let (result, fields) = try await Self.generate(arguments)
      #expect(
        result.status == .exited(64) && fields == nil && result.errors.hasPrefix("Error: \(message)\n"), "\(result)")
    }
    for text in ["--steps", "--"] {
      #expect(try await Self.generate(["--prompt=\(text)"]).fields?["prompt"] as? String == text)
    }
  }

  @Test(arguments: [["--seed", "-1"], ["--seed=-1"], []]) func drawsARandomSeedAndPrintsIt(arguments: [String])
    async throws
  {
    let (result, fields) = try await Self.generate(["--prompt", "p"] + arguments)
    #expect(result.isSuccess && fields?["seed"] == nil && result.errors == "seed 4711\n", "\(result)")
  }

  @Test func takesSeedsFromZero() async throws {
    for seed in ["0", "7", "9223372036854775807"] {
      let (result, fields) = try await Self.generate(["--prompt", "p", "--seed", seed])
      #expect(
        result.isSuccess && result.errors.isEmpty && (fields?["seed"] as? NSNumber)?.stringValue == seed, "\(result)")
    }
    for seed in ["-2", "9223372036854775808", "1.5", "x", "", "--steps"] {
      let (result, _) = try await Self.generate(["--prompt", "p", "--seed", seed])
      let line = result.errors.prefix { $0 != "\n" }
      #expect(result.status == .exited(64) && line.contains("from 0 to 9223372036854775807, or -1"), "\(result)")
    }
  }

  /// Both ways of drawing print a random seed; the image is the same when it is asked for.
  @Test func drawsTheSeedThatItPrints() async throws {
    try await withFolder { folder in
      let arguments = [
        "local", "--model", CommandLineTool.model, "--prompt", "heart", "--steps", "1", "--threads", "1", "-o",
      ]
      let random = try await CommandLineTool.run(arguments + ["a.png", "--seed", "-1"], directory: folder)
      #expect(random.isSuccess, "\(random)")
      let seed = try #require(random.errors.wholeMatch(of: /seed ([0-9]+)\n/)?.1)
      let fixed = try await CommandLineTool.run(arguments + ["b.png", "--seed", String(seed)], directory: folder)
      #expect(fixed.isSuccess && fixed.errors.isEmpty, "\(fixed)")
      let (a, b) = (folder.appending(path: "a.png"), folder.appending(path: "b.png"))
      #expect(try Data(contentsOf: a) == Data(contentsOf: b))
    }
  }

  @Test func namesTheRangeOfNegativeNumbers() async throws {
    for (option, field) in [
      ("--steps", "num_inference_steps"), ("--width", "width"), ("--true-cfg-scale", "true_cfg_scale"),
    ] {
      let (result, fields) = try await Self.generate(["--prompt", "p", option, "-3"])
      #expect(result.isSuccess && fields?[field] as? Int == -3, "the gateway says what is wrong: \(result)")
      let local = try await CommandLineTool.run(
        [
          "local", "--model", CommandLineTool.model, "--prompt", "p", option, "-3", "-o",
          NSTemporaryDirectory() + "never.png",
        ])
      #expect(
        local.status == .exited(1) && local.errors.contains("is -3") && local.errors.contains("between"), "\(local)")
    }
  }
}

import Foundation
import Testing

/// `--json` of commands that write images, and the fields of their jobs.
@Suite(.timeLimit(.minutes(2))) struct ResultReportTests {
  private static let completed = FakeServer.events([
    (
      "image_generation.completed",
      #"{"b64_json":"\#(Data(fakePNG).base64EncodedString())","seed":4711,"size":"64x32","job_id":"job-7","#
        + #""revised_prompt":"a\u0007 tabby cat"}"#
    )
  ])

  /// The objects that a command has printed, one on each line.
  private static func objects(_ result: CommandLineTool.Result) throws -> [[String: Any]] {
    try result.text.split(separator: "\n").map {
      try #require(try JSONSerialization.jsonObject(with: Data($0.utf8)) as? [String: Any])
    }
  }

  private static func body(_ request: String?) throws -> [String: Any] {
    let text = try #require(request?.components(separatedBy: "\r\n\r\n").last)
    return try #require(try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])
  }

  @Test func generateSaysWhatItHasWritten() async throws {
    try await withFolder { folder in
      try await FakeServer.with({ _ in Self.completed }) { server in
        let arguments = ["generate", "-p", "a cat", "--enhance-prompt", "--gateway", server.address, "-o", "x.png"]
        let result = try await CommandLineTool.run(arguments + ["--json"], directory: folder)
        #expect(result.isSuccess && result.errors.isEmpty, "\(result)")
        let object = try #require(try Self.objects(result).first)
        #expect(object["file"] as? String == "x.png" && object["seed"] as? Int == 4711)
        #expect(object["size"] as? String == "64x32" && object["job"] as? String == "job-7")
        #expect(object["revised_prompt"] as? String == "a\u{7} tabby cat" && object["seconds"] is Double)
        #expect(object["layer"] == nil && !result.output.contains(7))
        #expect(try Array(Data(contentsOf: folder.appending(path: "x.png"))) == fakePNG)
        #expect(try Self.body(server.requests.first)["enhance_prompt"] as? Bool == true)

        let plain = try await CommandLineTool.run(arguments, directory: folder)
        #expect(plain.text == "x.png\n" && plain.errors == "seed 4711\nprompt a\\u{7} tabby cat\n", "\(plain)")
      }
    }
  }

  @Test func editsSayWhatTheyHaveWritten() async throws {
    try await withFolder { folder in
      let (edit, requests) = try await ImageCommandTests.run(
        ["edit", "-i", "a.png", "-p", "p", "--enhance-prompt", "-o", "x.png", "--json"], in: folder)
      #expect(edit.isSuccess && edit.errors.isEmpty, "\(edit)")
      let object = try #require(try Self.objects(edit).first)
      #expect(object["file"] as? String == "x.png" && object["job"] as? String == "job-1")
      #expect(object["seed"] as? Int == 4711 && object["size"] as? String == "64x64")
      let parts = try ImageCommandTests.parts(try #require(requests.first))
      #expect(parts.first { $0.name == "enhance_prompt" }?.text == "true")

      let (layers, _) = try await ImageCommandTests.run(
        ["layers", "a.png", "-n", "3", "-o", "x.png", "--json"], in: folder
      ) { ImageCommandTests.answer($0, image: #","layers":3"#) }
      #expect(layers.isSuccess, "\(layers)")
      let objects = try Self.objects(layers)
      #expect(objects.map { $0["file"] as? String } == ["x.0.png", "x.1.png", "x.2.png"])
      #expect(objects.map { $0["layer"] as? Int } == [0, 1, 2])
    }
  }

  @Test func jobsThatAreWaitedForSayIt() async throws {
    try await withFolder { folder in
      let (result, _) = try await ImageCommandTests.run(
        ["jobs", "submit", "-p", "p", "--wait", "--json", "--seed", "4711", "-o", "x.png"], in: folder)
      #expect(result.isSuccess && result.text.hasPrefix("{\n"), "\(result)")
      let last = try #require(result.text.split(separator: "\n").last)
      let object = try #require(try JSONSerialization.jsonObject(with: Data(last.utf8)) as? [String: Any])
      #expect(object["file"] as? String == "x.png" && object["job"] as? String == "job-1")
    }
  }

  @Test func anImageInThisProcessHasNoJob() async throws {
    try await withFolder { folder in
      let result = try await CommandLineTool.run(
        ["local", "--model", CommandLineTool.model, "-p", "a red heart", "--steps", "2", "-o", "x.png", "--json"],
        directory: folder)
      #expect(result.isSuccess, "\(result)")
      let object = try #require(try Self.objects(result).first)
      #expect(object["file"] as? String == "x.png" && object["size"] as? String == "64x64")
      #expect(object["seed"] is Int && object["seconds"] is Double && object["job"] == nil)
      #expect(!result.errors.contains("seed"))
    }
  }

  @Test func anImageAndAReportAreNotMixed() async throws {
    for command in [["generate"], ["edit", "-i", "a.png"], ["local", "--model", "m"]] {
      let result = try await CommandLineTool.run(command + ["-p", "p", "-o", "-", "--json"])
      #expect(result.status == .exited(64) && result.errors.contains("name a file"), "\(result)")
    }
  }

  private static let fields = [
    "--priority", "batch", "--deadline", "2027-01-31T18:00:00Z", "--tag", "a", "--tag", "b c", "--metadata", "k=v=w",
    "--metadata", "FullName=", "--webhook", "https://a.example/b", "--webhook-event", "job.started",
  ]

  @Test func fieldsOfJobsAreSent() async throws {
    try await withFolder { folder in
      for command in [["generate", "-o", "x.png"], ["jobs", "submit"]] {
        try await FakeServer.with({
          command[0] == "generate" ? Self.completed : ImageCommandTests.answer($0)
        }) { server in
          let result = try await CommandLineTool.run(
            command + ["-p", "p", "--gateway", server.address] + Self.fields,
            environment: ["QWEN_IMAGE_WEBHOOK_SECRET": "whsec_x"], directory: folder)
          #expect(result.isSuccess, "\(result)")
          let body = try Self.body(server.requests.first)
          #expect(body["priority"] as? String == "batch" && body["deadline"] as? Int == 1_801_418_400)
          #expect(body["tags"] as? [String] == ["a", "b c"] && body["timeout_seconds"] == nil)
          #expect(body["metadata"] as? [String: String] == ["k": "v=w", "FullName": ""])
          let webhook = try #require(body["webhook"] as? [String: Any])
          #expect(webhook["url"] as? String == "https://a.example/b" && webhook["secret"] as? String == "whsec_x")
          #expect(webhook["events"] as? [String] == ["job.started"])
        }
      }
      let (edit, requests) = try await ImageCommandTests.run(
        ["edit", "-i", "a.png", "-p", "p", "-o", "x.png"] + Self.fields, in: folder)
      #expect(edit.isSuccess, "\(edit)")
      let parts = try ImageCommandTests.parts(try #require(requests.first))
      let texts = Dictionary(parts.map { ($0.name, $0.text) }, uniquingKeysWith: { $1 })
      #expect(texts["priority"] == "batch" && texts["deadline"] == "1801418400" && texts["tags"] == #"["a","b c"]"#)
      #expect(texts["metadata"] == #"{"k":"v=w","FullName":""}"#)
      #expect(texts["webhook"] == #"{"url":"https://a.example/b","events":["job.started"]}"#)
    }
  }

  @Test func withoutThemNothingIsSaid() async throws {
    try await withFolder { folder in
      try await FakeServer.with({ _ in Self.completed }) { server in
        let result = try await CommandLineTool.run(
          ["generate", "-p", "p", "--seed", "1", "--gateway", server.address, "-o", "x.png"], directory: folder)
        #expect(result.isSuccess, "\(result)")
        #expect(Set(try Self.body(server.requests.first).keys) == ["prompt", "seed", "stream"])
      }
    }
  }

  @Test(arguments: [
    (["--deadline", "tomorrow"], "\"tomorrow\" is no time; write it as 2027-01-31T18:00:00Z"),
    (["--deadline", "1", "--job-timeout", "2"], "--deadline and --job-timeout are both there"),
    (["--job-timeout", "inf"], "--job-timeout is inf; it must be a finite number"),
    (["--metadata", "=x"], "\"=x\" is not KEY=VALUE"),
    (["--metadata", "k=1", "--metadata", "k=2"], "--metadata has the key k twice"),
    (["--webhook-event", "job.failed"], "--webhook is missing"),
  ]) func fieldsThatMakeNoSenseAreNamed(arguments: [String], message: String) async throws {
    let result = try await CommandLineTool.run(["jobs", "submit", "-p", "p"] + arguments)
    #expect(result.status == .exited(64) && result.errors.contains(message), "\(result)")
  }
}

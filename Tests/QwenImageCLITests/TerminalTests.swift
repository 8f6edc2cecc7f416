import Foundation
import Subprocess
import SystemPackage
import Testing

/// Text of others: clears the screen, renames the window, begins a line, reorders text, and uses an 8-bit control
/// character.
private let hostile = "x\u{1b}[2J\u{1b}]0;title\u{7}\n\r\u{9b}31m\u{7f}\u{85}\u{202e}\u{2066}\u{200f}\u{2028}y"
private let escaped = #"x\u{1b}[2J\u{1b}]0;title\u{7}\n\r\u{9b}31m\u{7f}\u{85}\u{202e}\u{2066}\u{200f}\u{2028}y"#

private func quoted(_ text: String) throws -> String { String(decoding: try JSONEncoder().encode(text), as: UTF8.self) }

/// A job as a gateway shows it, with text of others in every field.
private func job(status: String, _ more: String = "") throws -> String {
  let text = try quoted(hostile)
  return
    #"{"id":\#(text),"status":\#(try quoted(status)),"created_at":1,"prompt":\#(text),"size":\#(text),"#
    + #""step":1,"steps":2,"n":1,"#
    + #""images":[{"index":0,"seed":1,"status":\#(text)}]\#(more)}"#
}

/// The characters that a terminal would obey, newlines apart.
private func active(_ text: String, butFor allowed: Set<Unicode.Scalar> = ["\n"]) -> [Unicode.Scalar] {
  text.unicodeScalars.filter { scalar in
    let marks: Set<Unicode.Scalar> = ["\u{61c}", "\u{200e}", "\u{200f}", "\u{2028}", "\u{2029}"]
    let isMark =
      marks.contains(scalar) || (0x202a...0x202e).contains(scalar.value) || (0x2066...0x2069).contains(scalar.value)
    return (scalar.properties.generalCategory == .control || isMark) && !allowed.contains(scalar)
  }
}

/// Prompts, names and messages of others never act on the terminal.
@Suite(.timeLimit(.minutes(1))) struct TerminalTests {
  @Test func listsJobsOnALineEach() async throws {
    let page = #"{"data":[\#(try job(status: hostile))],"has_more":true}"#
    try await FakeServer.with({ _ in FakeServer.json(page) }) { server in
      let result = try await CommandLineTool.run(["jobs", "list", "--gateway", server.address])
      #expect(result.isSuccess, "\(result.errors)")
      #expect(active(result.text).isEmpty, "\(result.text.debugDescription)")
      let lines = result.text.split(separator: "\n")
      #expect(lines.count == 2)
      #expect(lines[0].components(separatedBy: escaped).count == 5, "\(lines[0])")
      #expect(lines[1] == "more: --after \(escaped)")
    }
  }

  @Test func showsAJobAsTheSameJSON() async throws {
    let sent = try job(status: "succeeded")
    try await FakeServer.with({ _ in FakeServer.json(sent) }) { server in
      let result = try await CommandLineTool.run(["jobs", "show", "job-1", "--gateway", server.address])
      #expect(result.isSuccess && active(result.text).isEmpty, "\(result.text.debugDescription)")
      let shown = try JSONSerialization.jsonObject(with: Data(result.output)) as? NSDictionary
      #expect(try shown == JSONSerialization.jsonObject(with: Data(sent.utf8)) as? NSDictionary)
    }
  }

  @Test(arguments: [
    (["jobs", "submit", "--prompt", "p"], ""), (["jobs", "cancel", "job-1"], ""),
    (["jobs", "watch", "job-1"], "Error: the cluster could not draw the image: job job-1 has \(escaped)"),
  ])
  func printsNamesAndStatesEscaped(arguments: [String], error: String) async throws {
    let answer = FakeServer.json(try job(status: hostile))
    try await FakeServer.with({ _ in answer }) { server in
      let result = try await CommandLineTool.run(arguments + ["--gateway", server.address])
      #expect(active(result.text + result.errors).isEmpty, "\(result)")
      #expect(error.isEmpty ? result.text == "\(escaped)\n" : result.errors.hasPrefix(error), "\(result)")
    }
  }

  @Test func reportsErrorsOfOthersOnOneLine() async throws {
    let refusal = try FakeServer.error("400 Bad Request", hostile)
    let failure = FakeServer.events([("error", #"{"error":{"message":\#(try quoted(hostile))}}"#)])
    for answer in [refusal, failure] {
      try await FakeServer.with({ _ in answer }) { server in
        try await withFolder { folder in
          let output = folder.appending(path: "x.png").path
          let result = try await CommandLineTool.run([
            "generate", "--prompt", "p", "--gateway", server.address, "-o", output,
          ])
          #expect(result.status == .exited(1) && result.output.isEmpty)
          #expect(result.errors.contains(escaped) && result.errors.hasSuffix("\n"))
          #expect(
            active(result.errors.trimmingCharacters(in: .newlines), butFor: []).isEmpty,
            "\(result.errors.debugDescription)")
        }
      }
    }
  }

  @Test func reportsErrorsInFilesOnOneLine() async throws {
    try await withFolder { folder in
      let index = #"{"_class_name":\#(try quoted(hostile))}"#
      try Data(index.utf8).write(to: folder.appending(path: "model_index.json"))
      let result = try await CommandLineTool.run([
        "local", "--model", folder.path, "--prompt", "p", "-o", folder.path + "/x.png",
      ])
      #expect(result.status == .exited(1))
      #expect(
        active(result.errors.trimmingCharacters(in: .newlines), butFor: []).isEmpty, "\(result.errors.debugDescription)"
      )
    }
  }

  /// The numbers of a gateway are not trusted either.
  @Test(arguments: [
    (1, 2, "1.5"), (Int.max, 2, "1e300"), (3, 0, "-1"), (Int.min, Int.max, "0"), (-5, -5, "1e18"),
  ])
  func drawsAProgressBarOfAnything(step: Int, steps: Int, secondsLeft: String) async throws {
    let progress =
      #"{"stage":\#(try quoted(hostile)),"step":\#(step),"steps":\#(steps),"seconds_left":\#(secondsLeft)}"#
    let denoising = progress.replacing(try quoted(hostile), with: "\"denoiser\"")
    let answer = FakeServer.events([
      ("image_generation.progress", progress), ("image_generation.progress", denoising),
      ("error", #"{"error":{"message":"end"}}"#),
    ])
    try await FakeServer.with({ _ in answer }) { server in
      let (status, screen) = try await CommandLineTool.runOnTerminal([
        "generate", "--prompt", "p", "--gateway", server.address,
      ])
      #expect(status == .exited(1), "\(screen)")
      #expect(screen.contains(escaped) && screen.contains("denoising"))
      #expect(active(screen, butFor: ["\r", "\n"]).isEmpty, "\(screen.debugDescription)")
    }
  }

  @Test func countsTheStepsOfAnyJob() async throws {
    let large = try job(status: "running").replacing(#""steps":2,"n":1"#, with: #""steps":\#(Int.max),"n":\#(Int.max)"#)
    try await FakeServer.with({ _ in FakeServer.json(#"{"data":[\#(large)],"has_more":false}"#) }) { server in
      let result = try await CommandLineTool.run(["jobs", "list", "--gateway", server.address])
      #expect(result.isSuccess && result.text.contains("1/\(Int.max)"), "\(result)")
    }
  }

  /// What could not be printed was not done.
  @Test func failsWhenStandardOutputIsFull() async throws {
    let full = try FileDescriptor.open("/dev/full", .writeOnly)
    defer { try? full.close() }
    let made = try await CommandLineTool.run(["api-key", "acme"], output: full)
    #expect(
      made.status == .exited(1) && made.errors == "Error: standard output: No space left on device\n", "\(made.errors)")
    let page = #"{"data":[\#(try job(status: "queued"))],"has_more":false}"#
    try await FakeServer.with({ _ in FakeServer.json(page) }) { server in
      let listed = try await CommandLineTool.run(["jobs", "list", "--gateway", server.address], output: full)
      #expect(listed.status == .exited(1))
    }
  }
}

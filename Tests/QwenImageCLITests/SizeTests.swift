import Foundation
import Testing

/// A size of which one side is given.
@Suite(.timeLimit(.minutes(1))) struct SizeTests {
  @Test(arguments: [
    (["--width", "96"], 96, 80), (["--height", "96"], 64, 96), (["--width", "32", "--height", "48"], 32, 48),
  ])
  func completesASizeByTheModelsOwn(arguments: [String], width: Int, height: Int) async throws {
    let (result, fields) = try await ArgumentTests.generate(["--prompt", "p"] + arguments)
    #expect(result.isSuccess && fields?["width"] as? Int == width && fields?["height"] as? Int == height, "\(result)")
  }

  @Test func leavesTheSizeToTheModel() async throws {
    let (result, fields) = try await ArgumentTests.generate(["--prompt", "p"])
    #expect(result.isSuccess && fields?["width"] == nil && fields?["height"] == nil)
    // The same without a gateway: the model's sides are 64.
    try await withFolder { folder in
      let arguments = [
        "local", "--model", CommandLineTool.model, "--prompt", "p", "--steps", "1", "--width", "96", "-o", "a.png",
      ]
      let result = try await CommandLineTool.run(arguments, directory: folder)
      #expect(result.isSuccess, "\(result)")
      let header = [UInt8](try Data(contentsOf: folder.appending(path: "a.png"))).prefix(24)
      #expect(header.suffix(8) == [0, 0, 0, 96, 0, 0, 0, 64])
    }
  }

  @Test func saysThatNoModelKnowsTheOtherSide() async throws {
    try await FakeServer.with({ _ in FakeServer.json(#"{"object":"list","data":[]}"#) }) { server in
      let result = try await CommandLineTool.run([
        "jobs", "submit", "--gateway", server.address, "--prompt", "p", "--width", "96",
      ])
      #expect(result.status == .exited(1) && result.errors.contains("give both --width and --height"), "\(result)")
    }
  }
}

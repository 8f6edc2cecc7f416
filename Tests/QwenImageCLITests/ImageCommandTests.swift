import Foundation
import ImageCodec
import Subprocess
import Synchronization
import SystemPackage
import Testing

/// Commands that send images, against a server that notes what comes.
@Suite(.timeLimit(.minutes(2))) struct ImageCommandTests {
  /// An image file of 2 × 2 pixels.
  static func png(_ value: UInt8) throws -> [UInt8] {
    try PNG.encode(RasterImage(width: 2, height: 2, filledWith: [value, 1, 2]))
  }

  /// A job as `/v1/jobs` shows it; `image` are members of its only image.
  static func job(_ status: String, image: String = "") -> String {
    #"{"id":"job-1","object":"job","status":"\#(status)","created_at":1,"prompt":"p","size":"64x64","step":0,"#
      + #""steps":1,"n":1,"images":[{"index":0,"seed":4711,"status":"\#(status)"\#(image)}]}"#
  }

  /// Accepts jobs, which have succeeded at once.
  static func answer(_ request: String, image: String = "") -> [UInt8] {
    if request.hasPrefix("POST /v1/jobs ") { return FakeServer.json(job("queued"), "202 Accepted") }
    if request.hasPrefix("GET /v1/jobs/job-1 ") { return FakeServer.json(job("succeeded", image: image)) }
    let last = request.prefix { $0 != "\r\n" }.split(separator: " ")[1].last?.asciiValue ?? 0
    return FakeServer.answer("200 OK", "image/png", fakePNG + [last])
  }

  /// One field of a form.
  struct Part: Equatable {
    var header: [String]
    var bytes: [UInt8]
    var name: String { String(header[0].split(separator: "\"")[1]) }
    var text: String { String(decoding: bytes, as: UTF8.self) }
  }

  /// The fields of a request with a form.
  static func parts(_ request: [UInt8]) throws -> [Part] {
    let end = try #require(request.firstRange(of: Array("\r\n\r\n".utf8)))
    let header = String(decoding: request[..<end.lowerBound], as: UTF8.self)
    let boundary = try #require(header.firstMatch(of: /multipart\/form-data; boundary=([-A-Za-z0-9]{20,70})/)?.1)
    var rest = request[end.upperBound...], parts: [Part] = []
    let delimiter = Array("--\(boundary)\r\n".utf8)
    while rest.starts(with: delimiter) {
      rest = rest.dropFirst(delimiter.count)
      let head = try #require(rest.firstRange(of: Array("\r\n\r\n".utf8)))
      let next = try #require(rest.firstRange(of: Array("\r\n--\(boundary)".utf8)))
      parts.append(
        Part(
          header: String(decoding: rest[..<head.lowerBound], as: UTF8.self).components(separatedBy: "\r\n"),
          bytes: Array(rest[head.upperBound..<next.lowerBound])))
      rest = rest[next.lowerBound...].dropFirst(2)
    }
    #expect(Array(rest) == Array("--\(boundary)--\r\n".utf8))
    return parts
  }

  /// Runs a command beside the files a.png, b.png, m.png; returns what it did, and its requests.
  static func run(
    _ arguments: [String], input: [UInt8] = [], in folder: URL, _ answer: @escaping FakeServer.Answer = { answer($0) }
  ) async throws -> (result: CommandLineTool.Result, requests: [[UInt8]]) {
    for (index, name) in ["a", "b", "m"].enumerated() {
      try Data(try png(UInt8(index))).write(to: folder.appending(path: "\(name).png"))
    }
    return try await FakeServer.with(answer) { server in
      let all = arguments + ["--gateway", server.address]
      return (try await CommandLineTool.run(all, directory: folder, input: input), server.rawRequests)
    }
  }

  @Test(arguments: [
    (
      ["edit", "-i", "b.png", "--image", "a.png", "-p", "two\nlines", "--negative-prompt", "", "--steps", "3"],
      [
        "prompt=two\nlines", "negative_prompt=", "num_inference_steps=3", "image=b.png", "image=a.png",
      ]
    ),
    (
      ["edit", "-i", "a.png", "-p", "p", "--strength", "0.3", "--pipeline", "img2img", "--seed", "7", "--model", "M"],
      ["prompt=p", "seed=7", "model=M", "pipeline=img2img", "image=a.png", "strength=0.3"]
    ),
    (
      [
        "inpaint", "-i", "a.png", "--mask", "m.png", "-p", "p", "--padding-mask-crop", "8", "--mask-blur", "1.5",
        "--true-cfg-scale", "2", "--width", "64", "--height", "32",
      ],
      [
        "prompt=p", "true_cfg_scale=2.0", "width=64", "height=32", "image=a.png", "mask=m.png", "padding_mask_crop=8",
        "mask_blur=1.5",
      ]
    ),
    (
      ["inpaint", "-i", "a.png", "--mask", "m.png", "-p", "p", "--no-paste-back"],
      ["prompt=p", "image=a.png", "mask=m.png", "paste_back=false"]
    ),
    (
      ["outpaint", "-i", "a.png", "-p", "p", "--left", "16", "--bottom", "32", "--feather", "4"],
      ["prompt=p", "image=a.png", #"outpaint={"left":16,"top":0,"right":0,"bottom":32,"feather":4}"#]
    ),
    (
      [
        "control", "--control-image", "b.png", "--control-image", "a.png", "-p", "p", "--control-scale", "0.5",
        "--control-scale", "-1", "--control-end", "0.75", "--mask", "m.png",
      ],
      [
        "prompt=p", "control_image=b.png", "control_image=a.png", "control_scale=[0.5,-1.0]", "control_end=[0.75]",
        "mask=m.png",
      ]
    ),
    (["layers", "a.png", "-n", "3"], ["prompt= ", "pipeline=layered", "image=a.png", "layers=3"]),
    (["layers", "a.png", "-p", "a cat"], ["prompt=a cat", "pipeline=layered", "image=a.png"]),
  ])
  func sendsAForm(arguments: [String], fields: [String]) async throws {
    try await withFolder { folder in
      let (result, requests) = try await Self.run(arguments, in: folder)
      #expect(result.isSuccess && result.text == "image.png\n", "\(result)")
      #expect(result.errors == (arguments.contains("--seed") ? "" : "seed 4711\n"))
      let sent = try Self.parts(try #require(requests.first))
      let expected = try fields.map { field in
        let (name, value) = (field.prefix { $0 != "=" }, field.drop { $0 != "=" }.dropFirst())
        guard value.hasSuffix(".png") else {
          return Part(header: [#"content-disposition: form-data; name="\#(name)""#], bytes: Array(value.utf8))
        }
        return Part(
          header: [
            #"content-disposition: form-data; name="\#(name)"; filename="\#(name).png""#, "content-type: image/png",
          ], bytes: [UInt8](try Data(contentsOf: folder.appending(path: String(value)))))
      }
      #expect(sent == expected, "\(sent.map { "\($0.name)=\($0.text)" })")
    }
  }

  @Test func readsStandardInputAndOtherKinds() async throws {
    try await withFolder { folder in
      let jpeg = try JPEG.encode(RasterImage(width: 8, height: 8, filledWith: [9, 8, 7]), quality: 90)
      let arguments = ["inpaint", "-i", "-", "--mask", "m.png", "-p", "p"]
      let (result, requests) = try await Self.run(arguments, input: jpeg, in: folder)
      #expect(result.isSuccess, "\(result)")
      let image = try #require(try Self.parts(requests[0]).first { $0.name == "image" })
      #expect(image.bytes == jpeg && image.header.last == "content-type: image/jpeg")
      let twice = try await Self.run(["inpaint", "-i", "-", "--mask", "-", "-p", "p"], input: jpeg, in: folder)
      #expect(
        twice.requests.isEmpty
          && twice.result.errors
            == "Error: --mask -: standard input is one file, which --image - reads; name a file\n",
        "\(twice.result)")
    }
  }

  /// Nothing is sent.
  @Test func namesTheFileThatIsNoImage() async throws {
    try await withFolder { folder in
      let huge = folder.appending(path: "huge.png")
      try Data(try Self.png(1)).write(to: huge)
      try #require(truncate(huge.path, 50 << 20 + 1) == 0)
      try Data("GIF89a......".utf8).write(to: folder.appending(path: "a.gif"))
      try Data().write(to: folder.appending(path: "empty.png"))
      try Data(try Self.png(1).prefix(20)).write(to: folder.appending(path: "short.png"))
      for (file, reason) in [
        ("huge.png", "it has 52428801 bytes; the limit of an image file is 52428800"), ("a.gif", "GIF"),
        ("empty.png", "an empty file"), ("short.png", "PNG"), ("none.png", "No such file or directory"),
        (".", "Is a directory"), ("", "the path is empty"), ("/dev/zero", "more than 52428800 bytes"),
      ] {
        for arguments in [
          ["edit", "-p", "p", "-i", "a.png", "-i", file], ["control", "-p", "p", "--control-image", file],
        ] {
          let (result, requests) = try await Self.run(arguments, in: folder)
          let option = arguments[0] == "edit" ? "--image" : "--control-image"
          #expect(result.status == .exited(1) && requests.isEmpty, "\(file): \(result)")
          #expect(
            result.errors.hasPrefix("Error: \(option)\(file.isEmpty ? "" : " ")\(file): ")
              && result.errors.contains(reason), "\(result)")
        }
      }
    }
  }

  @Test(arguments: [
    (["edit", "-p", "p"], "--image is missing"), (["edit", "-p", "p", "-i", "a.png", "--width", "64"], "both --width"),
    (["edit", "-p", "p", "-i", "a.png", "--strength", "nan"], "--strength is nan"),
    (["inpaint", "-p", "p", "-i", "a.png"], "--mask is missing"),
    (["inpaint", "-p", "p", "-i", "a.png", "-i", "b.png", "--mask", "m.png"], "--image is given 2 times"),
    (
      ["inpaint", "-p", "p", "-i", "a.png", "--mask", "m.png", "--no-paste-back", "--padding-mask-crop", "4"],
      "--no-paste-back is not for --padding-mask-crop"
    ),
    (["outpaint", "-p", "p", "-i", "a.png", "--left", "0"], "no pixels are to be made"),
    (["outpaint", "-p", "p", "-i", "a.png", "--left", "-1"], "--left is -1; it must be from 0 to 4096"),
    (["outpaint", "-p", "p", "-i", "a.png", "--top", "1", "--feather", "513"], "--feather is 513"),
    (["control", "-p", "p"], "--control-image is missing"),
    (["control", "-p", "p", "--control-image", "a.png", "--control-scale", "11"], "--control-scale is 11.0"),
    (
      ["control", "-p", "p", "--control-image", "a.png", "--control-start", "0.5", "--control-end", "0.2"],
      "--control-start is 0.5, after --control-end, which is 0.2"
    ),
    (
      ["control", "-p", "p", "--control-image", "a.png", "--control-scale", "1", "--control-scale", "1"],
      "--control-scale is given 2 times"
    ),
    (["layers"], "image"), (["layers", "a.png", "-n", "1"], "--layers is 1; it must be from 2 to 10"),
    (["local", "--model", "m", "-p", "p", "-i", "a.png", "--layers", "11"], "--layers is 11; it must be from 2 to 10"),
    (["local", "--model", "m", "-p", "p", "-i", "a.png", "--feather", "2"], "--feather is for --left"),
  ])
  func namesTheFlagAtFault(arguments: [String], message: String) async throws {
    let result = try await CommandLineTool.run(arguments)
    #expect(result.status == .exited(64) && result.errors.prefix { $0 != "\n" }.contains(message), "\(result)")
  }

  @Test func writesLayersUnderTheirNumbers() async throws {
    try await withFolder { folder in
      let answer: FakeServer.Answer = { Self.answer($0, image: #","layers":3"#) }
      let (result, requests) = try await Self.run(
        ["layers", "a.png", "-n", "3", "-o", "out.png"], in: folder, answer)
      #expect(result.isSuccess && result.text == "out.0.png\nout.1.png\nout.2.png\n", "\(result)")
      for layer in 0..<3 {
        let file = try Data(contentsOf: folder.appending(path: "out.\(layer).png"))
        #expect(file == Data(fakePNG + "\(layer)".utf8))
      }
      let lines = requests.map { String(decoding: $0.prefix { $0 != 0x0d }, as: UTF8.self) }
      #expect(
        lines.suffix(3) == (0..<3).map { "GET /v1/jobs/job-1/result?index=0&layer=\($0) HTTP/1.1" }, "\(lines)")
      // Whether they can be written is found out before anything is sent.
      try FileManager.default.createDirectory(
        at: folder.appending(path: "full.1.png"), withIntermediateDirectories: false)
      for (output, reason) in [("-", "there are 3 images; name a file"), ("full.png", "that is a directory")] {
        let (result, requests) = try await Self.run(["layers", "a.png", "-n", "3", "-o", output], in: folder, answer)
        #expect(result.status == .exited(1) && requests.isEmpty && result.errors.contains(reason), "\(result)")
      }
      let many: FakeServer.Answer = { Self.answer($0, image: #","layers":1000000000"#) }
      let refused = try await Self.run(["layers", "a.png", "-o", "out.png"], in: folder, many).result
      #expect(refused.status == .exited(1) && refused.errors.contains("has 1000000000 layers"), "\(refused)")
    }
  }

  @Test func sendsTheSameBytesAgainWhenTheConnectionBreaks() async throws {
    let count = Mutex(0)
    let answer: FakeServer.Answer = { request in
      // Two submissions and the first request for the image are cut off.
      let number = count.withLock { count in
        count += 1
        return count
      }
      let isFirstFetch = request.contains("/result") && number == 5
      return number <= 2 || isFirstFetch ? [] : Self.answer(request)
    }
    try await withFolder { folder in
      let (result, requests) = try await Self.run(
        ["edit", "-p", "p", "-i", "a.png", "-i", "b.png"], in: folder, answer)
      #expect(result.isSuccess && result.errors == "seed 4711\n", "\(result)")
      #expect(requests.count == 6 && requests[0] == requests[1] && requests[0] == requests[2])
      let lines = String(decoding: requests[0], as: UTF8.self).components(separatedBy: "\r\n")
      #expect(lines.contains { $0.wholeMatch(of: /idempotency-key: [-0-9A-F]{36}/) != nil }, "\(lines.prefix(10))")
      #expect(requests[4] == requests[5])
    }
  }

  @Test func takesAKeyAndARefusal() async throws {
    try await withFolder { folder in
      let refusal = try FakeServer.error("400 Bad Request", "strength is 2, but must be from 0.0 to 1.0")
      let (result, requests) = try await Self.run(
        ["edit", "-p", "p", "-i", "a.png", "--strength", "2", "--key", "order-17"], in: folder, { _ in refusal })
      #expect(
        result.status == .exited(1)
          && result.errors
            == "Error: the gateway refused the request (400): strength is 2, but must be from 0.0 to 1.0\n",
        "\(result)")
      #expect(
        requests.count == 1
          && String(decoding: requests[0], as: UTF8.self).contains("\r\nidempotency-key: order-17\r\n"))
    }
  }

  @Test func saysWhyAJobFailed() async throws {
    try await withFolder { folder in
      let failed = Self.job("failed", image: #","error":{"message":"no denoiser survived"}"#)
      let (result, _) = try await Self.run(
        ["edit", "-p", "p", "-i", "a.png"], in: folder,
        { $0.hasPrefix("GET") ? FakeServer.json(failed) : Self.answer($0) })
      #expect(
        result.status == .exited(1) && result.errors.contains("job job-1 has failed: no denoiser survived"), "\(result)"
      )
      #expect(!FileManager.default.fileExists(atPath: folder.appending(path: "image.png").path))
    }
  }

  /// The signal comes while the job runs, or while the answer to its submission is on its way.
  @Test(arguments: [false, true]) func cancelsTheJobOnInterruption(isEarly: Bool) async throws {
    try await withFolder { folder in
      try Data(try Self.png(1)).write(to: folder.appending(path: "a.png"))
      let processFile = folder.appending(path: "pid")
      let interrupt: @Sendable () -> Void = {
        guard let text = try? String(contentsOf: processFile, encoding: .utf8),
          let process = pid_t(text.trimmingCharacters(in: .newlines))
        else { return }
        kill(process, SIGINT)
      }
      let answer: FakeServer.Answer = { request in
        if request.hasPrefix("POST") {
          if isEarly { interrupt() }
          return Self.answer(request)
        }
        if request.hasPrefix("DELETE /v1/jobs/job-1 ") { return FakeServer.json(Self.job("cancelled")) }
        if request.hasPrefix("GET /v1/jobs/job-1 ") { return FakeServer.json(Self.job("running")) }
        interrupt()
        return nil
      }
      try await FakeServer.with(answer) { server in
        let command = "echo $$ > pid && exec \"$0\" edit -p p -i a.png --gateway \(server.address)"
        let result = try await Subprocess.run(
          .name("sh"), arguments: ["-c", command, CommandLineTool.path], workingDirectory: FilePath(folder.path),
          output: .discarded, error: .string(limit: 1 << 16))
        #expect(result.terminationStatus == .exited(130), "\(result.standardError)")
        let deletions = server.requests.filter { $0.hasPrefix("DELETE /v1/jobs/job-1 ") }
        #expect(deletions.count == 1, "\(server.requests)")
      }
    }
  }
}

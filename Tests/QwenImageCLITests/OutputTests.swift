import Foundation
import Subprocess
import SystemPackage
import Testing

/// Bytes that a client takes for a PNG file.
let fakePNG: [UInt8] =
  [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a] + (0..<5000).map { UInt8(truncatingIfNeeded: $0) }

/// The reading end of a named pipe, open before there is a writer; what is written must fit into the pipe.
private struct PipeReader {
  private let descriptor: Int32

  init(_ path: String) throws {
    descriptor = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC)
    try #require(descriptor >= 0)
  }

  /// What was written, once the writer has ended.
  func contents() -> Data {
    var bytes = Data(), buffer = [UInt8](repeating: 0, count: 4096)
    while case let count = read(descriptor, &buffer, buffer.count), count > 0 { bytes += buffer[..<count] }
    close(descriptor)
    return bytes
  }
}

/// An image is written to what its path is.
@Suite(.timeLimit(.minutes(2))) struct OutputTests {
  /// Fetches an image to `output` in `folder`, from a server that counts.
  private func fetch(
    _ output: String, in folder: URL, _ check: (CommandLineTool.Result, FakeServer) throws -> Void
  ) async throws {
    try await FakeServer.with({ _ in FakeServer.answer("200 OK", "image/png", fakePNG) }) { server in
      let arguments = ["jobs", "fetch", "job-1", "--gateway", server.address, "-o", output]
      try check(try await CommandLineTool.run(arguments, directory: folder), server)
    }
  }

  private func status(_ url: URL) throws -> stat {
    var status = stat()
    try #require(lstat(url.path, &status) == 0, "\(url.path)")
    return status
  }

  private func names(_ folder: URL) throws -> [String] {
    try FileManager.default.contentsOfDirectory(atPath: folder.path).sorted()
  }

  @Test func makesANewFile() async throws {
    try await withFolder { folder in
      for name in ["a.png", "b.PNG", "c", ".d.png"] {
        try await fetch(name, in: folder) { result, _ in
          #expect(result.isSuccess && result.text == "\(name)\n", "\(result)")
        }
        #expect(try Data(contentsOf: folder.appending(path: name)) == Data(fakePNG))
      }
      #expect(try names(folder) == [".d.png", "a.png", "b.PNG", "c"], "nothing is left beside them")
      let mask = umask(0)
      umask(mask)
      #expect(try status(folder.appending(path: "a.png")).st_mode & 0o777 == 0o666 & ~mask)
    }
  }

  @Test func writesToAPipe() async throws {
    try await withFolder { folder in
      let pipe = folder.appending(path: "pipe")
      try #require(mkfifo(pipe.path, 0o600) == 0)
      let reader = try PipeReader(pipe.path)
      try await fetch("pipe", in: folder) { result, _ in #expect(result.isSuccess, "\(result)") }
      #expect(try status(pipe).st_mode & S_IFMT == S_IFIFO)
      #expect(reader.contents() == Data(fakePNG))
    }
  }

  @Test func writesThroughALinkToADevice() async throws {
    try await withFolder { folder in
      let links = ["null": true, "full": false]
      for (device, isSuccess) in links {
        let link = folder.appending(path: device)
        try #require(symlink("/dev/\(device)", link.path) == 0)
        try await fetch(device, in: folder) { result, _ in
          #expect(result.status == .exited(isSuccess ? 0 : 1))
          #expect(isSuccess || result.errors == "Error: --output full: No space left on device\n", "\(result.errors)")
        }
        #expect(try status(link).st_mode & S_IFMT == S_IFLNK)
      }
      #expect(try names(folder) == ["full", "null"])
    }
  }

  @Test func writesThroughLinksAndKeepsThem() async throws {
    try await withFolder { folder in
      try FileManager.default.createDirectory(at: folder.appending(path: "below"), withIntermediateDirectories: false)
      let file = folder.appending(path: "below/image.png")
      try #require(symlink("below/other", folder.appending(path: "first").path) == 0)
      try #require(symlink("image.png", folder.appending(path: "below/other").path) == 0)
      // The file is not there yet, then it is.
      for _ in 0..<2 {
        try await fetch("first", in: folder) { result, _ in #expect(result.isSuccess, "\(result)") }
        #expect(try status(folder.appending(path: "first")).st_mode & S_IFMT == S_IFLNK)
        #expect(try status(folder.appending(path: "below/other")).st_mode & S_IFMT == S_IFLNK)
        #expect(try status(file).st_mode & S_IFMT == S_IFREG)
        #expect(try Data(contentsOf: file) == Data(fakePNG))
        try Data("another".utf8).write(to: file)
      }
      try #require(symlink("loop", folder.appending(path: "loop").path) == 0)
      try await fetch("loop", in: folder) { result, server in
        #expect(result.errors == "Error: --output loop: Too many levels of symbolic links\n" && server.requests.isEmpty)
      }
    }
  }

  @Test func keepsThePermissionsOfAFileThatItReplaces() async throws {
    try await withFolder { folder in
      let file = folder.appending(path: "a.png")
      try Data(repeating: 1, count: 100_000).write(to: file)
      try #require(chmod(file.path, 0o640) == 0)
      let before = try status(file)
      try await fetch("a.png", in: folder) { result, _ in #expect(result.isSuccess, "\(result)") }
      let after = try status(file)
      #expect(after.st_mode == before.st_mode && after.st_uid == before.st_uid && after.st_gid == before.st_gid)
      #expect(after.st_ino != before.st_ino, "replaced in one step")
      #expect(try Data(contentsOf: file) == Data(fakePNG) && names(folder) == ["a.png"])
    }
  }

  @Test func writesAFileOfSeveralNamesInPlace() async throws {
    try await withFolder { folder in
      let (file, other) = (folder.appending(path: "a.png"), folder.appending(path: "b.png"))
      try Data(repeating: 1, count: 100_000).write(to: file)
      try #require(link(file.path, other.path) == 0)
      try await fetch("a.png", in: folder) { result, _ in #expect(result.isSuccess, "\(result)") }
      #expect(try status(file).st_ino == status(other).st_ino)
      #expect(try Data(contentsOf: other) == Data(fakePNG), "not a byte of the longer file is left")
      #expect(try names(folder) == ["a.png", "b.png"])
    }
  }

  /// In a directory where no file can be made, the one that is there can still be written.
  @Test func writesInPlaceWhereNoFileCanBeMade() async throws {
    try await withFolder { folder in
      let (file, locked) = (folder.appending(path: "below/a.png"), folder.appending(path: "below/locked.png"))
      try FileManager.default.createDirectory(at: folder.appending(path: "below"), withIntermediateDirectories: false)
      for url in [file, locked] { try Data("old".utf8).write(to: url) }
      for (path, mode) in [
        (folder.path, 0o755), (file.path, 0o666), (locked.path, 0o444), (folder.path + "/below", 0o555),
      ] {
        try #require(chmod(path, mode_t(mode)) == 0)
      }
      try await FakeServer.with({ _ in FakeServer.answer("200 OK", "image/png", fakePNG) }) { server in
        let fetch = { (path: String) in
          try await CommandLineTool.runUnprivileged(
            ["jobs", "fetch", "job-1", "--gateway", server.address, "-o", path], in: folder)
        }
        let written = try await fetch("below/a.png")
        #expect(written.isSuccess, "\(written)")
        #expect(try Data(contentsOf: file) == Data(fakePNG))
        let count = server.requests.count
        for (path, reason) in [
          ("below/locked.png", "Permission denied"),
          ("below/new.png", "no file can be made in below: Permission denied"),
        ] {
          let refused = try await fetch(path)
          #expect(
            refused.status == .exited(1) && refused.errors == "Error: --output \(path): \(reason)\n", "\(refused)")
        }
        #expect(server.requests.count == count, "found before anything was done")
      }
      chmod(folder.path + "/below", 0o755)
    }
  }

  @Test(arguments: ["-", "/dev/stdout", "/dev/fd/1"]) func writesToStandardOutput(path: String) async throws {
    try await withFolder { folder in
      try await fetch(path, in: folder) { result, _ in
        #expect(result.isSuccess && result.output == fakePNG && result.errors.isEmpty)
      }
      #expect(try names(folder).isEmpty)
      // Where the shell redirects it to a file, the image follows what was written before.
      let file = folder.appending(path: "out")
      let descriptor = try FileDescriptor.open(
        FilePath(file.path), .readWrite, options: [.create], permissions: .ownerReadWrite)
      defer { try? descriptor.close() }
      try descriptor.writeAll("before".utf8)
      try await FakeServer.with({ _ in FakeServer.answer("200 OK", "image/png", fakePNG) }) { server in
        let arguments = ["jobs", "fetch", "job-1", "--gateway", server.address, "-o", path]
        let result = try await CommandLineTool.run(arguments, output: descriptor)
        #expect(result.status == .exited(0), "\(result)")
      }
      #expect(try Data(contentsOf: file) == Data("before".utf8) + Data(fakePNG))
    }
  }

  @Test func keepsEverythingElseOffStandardOutput() async throws {
    let job =
      #"{"id":"job-1","status":"succeeded","created_at":1,"prompt":"p","size":"64x64","step":1,"steps":1,"n":1,"#
      + #""images":[{"index":0,"seed":5,"status":"succeeded"}]}"#
    let answer: FakeServer.Answer = { request in
      request.hasPrefix("GET /v1/jobs/job-1/result")
        ? FakeServer.answer("200 OK", "image/png", fakePNG) : FakeServer.json(job)
    }
    try await FakeServer.with(answer) { server in
      let result = try await CommandLineTool.run([
        "jobs", "submit", "--prompt", "p", "--gateway", server.address, "--wait", "-o", "-",
      ])
      #expect(result.isSuccess && result.output == fakePNG, "\(result.errors)")
      #expect(result.errors == "job-1\nseed 5\n")
    }
  }

  @Test func writesNoImageToATerminal() async throws {
    let (status, screen) = try await CommandLineTool.runOnTerminal(["jobs", "fetch", "job-1", "-o", "/dev/stderr"])
    #expect(status == .exited(1) && screen.contains("that is a terminal"), "\(screen)")
  }

  @Test func findsWhatCannotBeWrittenBeforeItAsks() async throws {
    try await withFolder { folder in
      try Data("x".utf8).write(to: folder.appending(path: "file"))
      try FileManager.default.createDirectory(
        at: folder.appending(path: "directory.png"), withIntermediateDirectories: false)
      let reasons = [
        "a.gif": "images are written as PNG, WebP or JPEG; end the name with .png, .webp or .jpg, not .gif",
        "a.png.avif": "images are written as PNG, WebP or JPEG; end the name with .png, .webp or .jpg, not .avif",
        "missing/a.png": "the directory missing cannot be used: No such file or directory",
        "file/a.png": "Not a directory", "directory.png": "that is a directory; name a file in it",
        "new/": "that names a directory; name a file in it", "/dev/fd/99": "it is not open for writing",
        String(repeating: "x", count: 300): "File name too long",
      ]
      for (path, reason) in reasons {
        try await fetch(path, in: folder) { result, server in
          #expect(result.status == .exited(1) && result.errors == "Error: --output \(path): \(reason)\n", "\(result)")
          #expect(server.requests.isEmpty)
        }
        // Before the model, which is not there, is looked for.
        let local = try await CommandLineTool.run(
          ["local", "--model", "none", "--prompt", "p", "-o", path], directory: folder)
        #expect(local.status == .exited(1) && local.errors == "Error: --output \(path): \(reason)\n", "\(local)")
      }
      #expect(try names(folder) == ["directory.png", "file"])
    }
  }

  @Test func drawsIntoAPipe() async throws {
    try await withFolder { folder in
      let pipe = folder.appending(path: "pipe")
      try #require(mkfifo(pipe.path, 0o600) == 0)
      let reader = try PipeReader(pipe.path)
      let arguments = [
        "local", "--model", CommandLineTool.model, "--prompt", "heart", "--steps", "1", "--seed", "1", "--threads", "1",
      ]
      let kept = folder.appending(path: "kept")
      try Data("old".utf8).write(to: kept)
      try #require(chmod(kept.path, 0o600) == 0 && symlink("kept", folder.appending(path: "tensors").path) == 0)
      let piped = try await CommandLineTool.run(arguments + ["-o", "pipe", "--dump", "tensors"], directory: folder)
      #expect(piped.isSuccess && piped.text == "pipe\n", "\(piped)")
      #expect(try status(folder.appending(path: "tensors")).st_mode & S_IFMT == S_IFLNK)
      #expect(try status(kept).st_size > 100_000 && status(kept).st_mode & 0o777 == 0o600)
      let printed = try await CommandLineTool.run(arguments + ["-o", "-"], directory: folder)
      #expect(printed.isSuccess && printed.errors.isEmpty && printed.output.count > 100)
      #expect(reader.contents() == Data(printed.output))
      for path in ["pipe", "-", "missing/tensors"] {
        let refused = try await CommandLineTool.run(arguments + ["-o", "a.png", "--dump", path], directory: folder)
        #expect(refused.status == .exited(1) && refused.errors.hasPrefix("Error: --dump \(path): "), "\(refused)")
      }
      #expect(try names(folder) == ["kept", "pipe", "tensors"])
    }
  }

  /// What takes hours for a large model does not fail at its end because of where it is to go.
  @Test func findsDirectoriesThatCannotBeWrittenBeforeItWorks() async throws {
    try await withFolder { folder in
      try Data("x".utf8).write(to: folder.appending(path: "file"))
      try FileManager.default.createDirectory(
        at: folder.appending(path: "full/below"), withIntermediateDirectories: true)
      try FileManager.default.createDirectory(at: folder.appending(path: "empty"), withIntermediateDirectories: false)
      try #require(symlink("nowhere", folder.appending(path: "dangling").path) == 0)
      try #require(symlink("empty", folder.appending(path: "link").path) == 0)
      let reasons = [
        "file": "it exists and is not a directory", "full": "it exists and is not empty", "file/x": "Not a directory",
        "dangling": "it is a symbolic link that leads nowhere",
      ]
      for (path, reason) in reasons {
        for command in [["synth", "--config", "tiny", path], ["quantize", CommandLineTool.model, path]] {
          let result = try await CommandLineTool.run(command, directory: folder)
          #expect(result.status == .exited(1) && result.errors.hasPrefix("Error: \(path): \(reason)"), "\(result)")
        }
      }
      for (option, reason) in [
        ("--config", "--config none: it is neither a checkpoint directory nor one of qwen-image,"),
        ("--tokenizer", "none: No such file or directory"),
      ] {
        let command = ["synth", "--config", "tiny", option, "none", "link"]
        let result = try await CommandLineTool.run(command, directory: folder)
        #expect(result.status == .exited(1) && result.errors.contains(reason), "\(result)")
        #expect(!result.errors.contains("Domain"), "\(result)")
      }
      let made = try await CommandLineTool.run(
        ["synth", "--config", "tiny", "--threads", "1", "link"], directory: folder)
      #expect(made.isSuccess, "\(made)")
      #expect(try status(folder.appending(path: "link")).st_mode & S_IFMT == S_IFLNK)
      #expect(try names(folder.appending(path: "empty")).contains("model_index.json"))
      #expect(try names(folder) == ["dangling", "empty", "file", "full", "link"])
    }
  }

  @Test func saysWhereKeysCannotBeMade() async throws {
    try await withFolder { folder in
      try Data("x".utf8).write(to: folder.appending(path: "file"))
      let result = try await CommandLineTool.run(["keygen", "file"], directory: folder)
      #expect(
        result.status == .exited(1) && result.errors.contains("/file: it exists and is not a directory"), "\(result)")
      #expect(try await CommandLineTool.run(["keygen", "a/b/keys"], directory: folder).isSuccess)
      #expect(try names(folder.appending(path: "a/b/keys/worker")) == ["gateway.public", "worker.secret"])
      #expect(try status(folder.appending(path: "a/b/keys/gateway")).st_mode & 0o777 == 0o700)
    }
  }
}

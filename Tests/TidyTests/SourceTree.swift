import Foundation

/// A text file of the repository.
struct SourceFile: Sendable {
  /// From the root of the repository: `Shared/Wire/Envelope.swift`.
  let path: String
  let text: String
  let lines: [Substring]

  init(_ path: String, _ text: String) {
    self.path = path
    self.text = text
    lines = text.split(separator: "\n", omittingEmptySubsequences: false)
  }

  /// The extension of the file's name, or the name where it has none.
  var kind: String { SourceFile.kind(of: path) }

  /// The folder of a module, of a test suite, or a top-level one; `.`: the root.
  var folder: String {
    let parts = path.split(separator: "/").dropLast()
    let depth = parts.starts(with: ["Services", "Gateway"]) ? 3 : 2
    return parts.isEmpty ? "." : parts.prefix(depth).joined(separator: "/")
  }

  static func kind(of path: String) -> String {
    let name = path.split(separator: "/").last ?? ""
    return name.split(separator: ".").last.map(String.init) ?? ""
  }
}

/// What a check has found.
struct Finding: Equatable, CustomStringConvertible, Sendable {
  let path: String
  /// From 1; 0: the file as a whole.
  let line: Int
  let message: String

  init(_ file: SourceFile, line: Int = 0, _ message: String) {
    self.init(path: file.path, line: line, message)
  }

  init(path: String, line: Int = 0, _ message: String) {
    self.path = path
    self.line = line
    self.message = message
  }

  var description: String { line > 0 ? "\(path):\(line): \(message)" : "\(path): \(message)" }
}

/// The text files of the repository that people write.
struct SourceTree: Sendable {
  /// Where this file's package is.
  static let root = URL(filePath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()

  /// The repository that this file belongs to, read once.
  static let here: SourceTree = {
    do { return try SourceTree(root: root) } catch { preconditionFailure("the repository cannot be read: \(error)") }
  }()

  /// Extensions and names of the files that are read.
  static let kinds: Set = [
    "swift", "c", "h", "inc", "proto", "py", "sh", "md", "yaml", "yml", "html", "css", "js", "Dockerfile", "run",
    "NOTICE",
  ]

  /// Folders that hold no text written by hand.
  private static let skipped: Set = [
    "Shared/CWire/qwenimage", "Shared/CWire/include/qwenimage", "Tests/Golden/tiny", "Tests/Golden/png",
    "Tests/Golden/fullsize", "Tests/Golden/qwen2-tokenizer", "Tests/Fuzzing/corpus", "compose/docker-bin",
    "compose/models/nano-qwen-image",
  ]

  let files: [SourceFile]

  init(_ files: [SourceFile]) { self.files = files }

  /// Reads the files below `root`. Links and hidden folders, builds among them, are passed over.
  init(root: URL) throws {
    var files: [SourceFile] = []
    func read(_ folder: String) throws {
      for name in try FileManager.default.contentsOfDirectory(atPath: root.appending(path: folder).path).sorted() {
        let path = folder.isEmpty ? name : "\(folder)/\(name)"
        let isHidden = name.hasPrefix(".") && path != ".ci"
        guard !isHidden, name != "__pycache__", !Self.skipped.contains(path) else { continue }
        let url = root.appending(path: path)
        let values = try url.resourceValues(forKeys: [.isDirectoryKey, .isSymbolicLinkKey])
        if values.isSymbolicLink == true { continue }
        if values.isDirectory == true {
          try read(path)
        } else if Self.kinds.contains(SourceFile.kind(of: path)) {
          files.append(SourceFile(path, try String(contentsOf: url, encoding: .utf8)))
        }
      }
    }
    for top in ["Package.swift", "README.md"] {
      files.append(SourceFile(top, try String(contentsOf: root.appending(path: top), encoding: .utf8)))
    }
    for top in ["Services", "Shared", "Tests", "compose", "proto", ".ci"] { try read(top) }
    self.files = files
  }

  /// Files of these kinds, below these folders.
  func files(_ kinds: Set<String>, below folders: [String] = [""]) -> [SourceFile] {
    files.filter { file in
      kinds.contains(file.kind) && folders.contains { $0.isEmpty || file.path.hasPrefix($0 + "/") }
    }
  }

  subscript(_ path: String) -> SourceFile? { files.first { $0.path == path } }
}

extension NSRegularExpression {
  /// The ranges of this expression's matches in `text`, group by group; nil for a group that did not take part.
  func matches(in text: String) -> [[Substring?]] {
    matches(in: text, range: NSRange(text.startIndex..., in: text)).map { match in
      (0..<match.numberOfRanges).map { index in
        Range(match.range(at: index), in: text).map { text[$0] }
      }
    }
  }

  /// An expression of this program: a wrong one is a programmer error.
  static func known(_ pattern: String, _ options: Options = []) -> NSRegularExpression {
    do { return try NSRegularExpression(pattern: pattern, options: options) } catch {
      preconditionFailure("\(pattern): \(error)")
    }
  }
}

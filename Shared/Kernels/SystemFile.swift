#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// What the kernel says in small text files below `/proc` and `/sys`.
package enum SystemFile {
  private static let maxBytes = 1 << 20

  /// The lines that are not empty, of the first megabyte; none where the file cannot be read.
  package static func lines(of path: String) -> [Substring] {
    guard let file = fopen(path, "re") else { return [] }
    defer { fclose(file) }
    // Files of the kernel say that they are empty: read until the end.
    var bytes: [UInt8] = [], piece = [UInt8](repeating: 0, count: 4096)
    while bytes.count < maxBytes, case let count = fread(&piece, 1, piece.count, file), count > 0 {
      bytes += piece[..<count]
    }
    return String(decoding: bytes, as: UTF8.self).split(separator: "\n")
  }
}

/// The control groups that this process is in, of version 1 or 2.
package enum ControlGroups {
  /// The directories of the group that limits `controller` (`memory`, `cpu`), from the innermost to the root. A
  /// container may see its own group as the root: the inner ones do not exist then.
  ///
  /// - Parameters:
  ///   - proc: where `/proc` is.
  ///   - root: where `/sys/fs/cgroup` is.
  package static func directories(
    of controller: String, proc: String, root: String
  ) -> [(path: String, version: Int)] {
    SystemFile.lines(of: "\(proc)/self/cgroup").flatMap { line -> [(path: String, version: Int)] in
      let fields = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
      guard fields.count == 3 else { return [] }
      let controllers = fields[1].split(separator: ",")
      if fields[0] == "0", controllers.isEmpty { return ancestors(of: fields[2], in: root).map { ($0, 2) } }
      guard controllers.contains(where: { $0 == controller }) else { return [] }
      // Mounted under its own name, or under those of all that are mounted together.
      return Set([controller, String(fields[1])]).sorted().flatMap { name in
        ancestors(of: fields[2], in: "\(root)/\(name)").map { ($0, 1) }
      }
    }
  }

  private static func ancestors(of group: Substring, in root: String) -> [String] {
    // A group outside of the namespace of this process begins with "/..".
    let names = group.split(separator: "/").filter { $0 != ".." }
    return (0...names.count).reversed().map { ([root] + names.prefix($0).map(String.init)).joined(separator: "/") }
  }
}

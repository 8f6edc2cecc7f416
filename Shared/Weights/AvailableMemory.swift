import Foundation

/// How much memory this process may still take, without swapping and without being killed for it.
public enum AvailableMemory {
  /// The kernel's estimate for the machine, or what is left to the control group (a container) if that is less; nil
  /// where neither is known. Pages of files that can be given up count as available.
  public static func byteCount() -> Int? { byteCount(proc: "/proc", controlGroups: "/sys/fs/cgroup") }

  /// The same from other places than the kernel's.
  package static func byteCount(proc: String, controlGroups: String) -> Int? {
    let groups = lines(of: "\(proc)/self/cgroup").compactMap { line -> Int? in
      let fields = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
      guard fields.count == 3 else { return nil }
      switch (fields[0], fields[1]) {
      case ("0", ""): return left(to: fields[2], in: controlGroups, limit: "memory.max", taken: "anon")
      case (_, "memory"):
        return left(to: fields[2], in: "\(controlGroups)/memory", limit: "memory.limit_in_bytes", taken: "total_rss")
      default: return nil
      }
    }
    return ([machine(proc)] + groups).compactMap { $0 }.min()
  }

  private static let maxFileBytes = 1 << 20

  private static func machine(_ proc: String) -> Int? {
    value(of: "MemAvailable:", in: "\(proc)/meminfo").map { $0 * 1024 }
  }

  /// The least of what a control group and those around it leave; a container may see its own group as the root. The
  /// names of the files and keys differ between versions 1 and 2.
  private static func left(to group: Substring, in root: String, limit: String, taken: String) -> Int? {
    var names = group.split(separator: "/")
    var least: Int?
    while true {
      let directory = ([root] + names.map(String.init)).joined(separator: "/")
      if let limit = lines(of: "\(directory)/\(limit)").first.flatMap({ Int($0) }) {
        least = min(least ?? .max, max(limit - (value(of: taken, in: "\(directory)/memory.stat") ?? 0), 0))
      }
      if names.popLast() == nil { return least }
    }
  }

  /// The number behind `key` in a file of lines.
  private static func value(of key: String, in path: String) -> Int? {
    for line in lines(of: path) {
      let words = line.split(separator: " ")
      if words.count >= 2, words[0] == key { return Int(words[1]) }
    }
    return nil
  }

  private static func lines(of path: String) -> [String] {
    // Files of the kernel say that they are empty: read until the end.
    guard let file = FileHandle(forReadingAtPath: path), let data = try? file.read(upToCount: maxFileBytes) else {
      return []
    }
    return String(decoding: data, as: UTF8.self).split(separator: "\n").map(String.init)
  }
}

import Kernels

/// How much memory this process may still take, without swapping and without being killed for it.
public enum AvailableMemory {
  /// The kernel's estimate for the machine, or what is left to the control group (a container) if that is less; nil
  /// where neither is known. Pages of files that can be given up count as available.
  public static func byteCount() -> Int? { byteCount(proc: "/proc", controlGroups: "/sys/fs/cgroup") }

  /// The same from other places than the kernel's.
  package static func byteCount(proc: String, controlGroups: String) -> Int? {
    let groups = ControlGroups.directories(of: "memory", proc: proc, root: controlGroups).compactMap { left(in: $0) }
    return ([machine(proc)] + groups).compactMap { $0 }.min()
  }

  private static func machine(_ proc: String) -> Int? {
    value(of: "MemAvailable:", in: "\(proc)/meminfo").map { $0 * 1024 }
  }

  /// What a control group leaves. The names of the files and keys differ between versions 1 and 2.
  private static func left(in group: (path: String, version: Int)) -> Int? {
    let (limitName, takenName) =
      group.version == 2 ? ("memory.max", "anon") : ("memory.limit_in_bytes", "total_rss")
    guard let limit = SystemFile.lines(of: "\(group.path)/\(limitName)").first.flatMap({ Int($0) }) else { return nil }
    return max(limit - (value(of: takenName, in: "\(group.path)/memory.stat") ?? 0), 0)
  }

  /// The number behind `key` in a file of lines.
  private static func value(of key: String, in path: String) -> Int? {
    for line in SystemFile.lines(of: path) {
      let words = line.split(separator: " ")
      if words.count >= 2, words[0] == key { return Int(words[1]) }
    }
    return nil
  }
}

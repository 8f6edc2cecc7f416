import CKernels

/// The processors that this process may use: what its affinity (a cpuset included) and the quota of its control groups
/// leave it.
public struct AvailableProcessors: Sendable, Equatable {
  /// Numbers of the processors in the affinity mask, ascending; never empty.
  public let numbers: [Int]
  /// How many processors' time the process may take, at most; nil: there is no quota.
  public let quota: Double?

  init(numbers: [Int], quota: Double?) {
    self.numbers = numbers.isEmpty ? [0] : numbers
    self.quota = quota
  }

  /// Threads that are worth starting, at least 1: the processors of the affinity mask, or of the quota if those are
  /// fewer. Parts of a processor are rounded up: a quota of 1.5 processors is used up by two threads, not by one, and
  /// work is handed out in small pieces, so that a thread that is held back costs only what it is at.
  public var threadCount: Int {
    guard let quota, quota < Double(numbers.count) else { return numbers.count }
    return max(Int(quota.rounded(.up)), 1)
  }

  /// Threads that may be busy all the time without being held back.
  var wholeCount: Int {
    guard let quota, quota < Double(numbers.count) else { return numbers.count }
    return Int(quota)
  }

  /// Those of the first call.
  public static let current = AvailableProcessors.read()

  /// Those of the calling thread, now.
  public static func read() -> AvailableProcessors { read(proc: "/proc", controlGroups: "/sys/fs/cgroup") }

  /// The same with quotas from other places than the kernel's.
  package static func read(proc: String, controlGroups: String) -> AvailableProcessors {
    AvailableProcessors(numbers: affinity(), quota: quota(proc: proc, controlGroups: controlGroups))
  }

  private static let affinityWords = 1024

  private static func affinity() -> [Int] {
    var bits = [UInt64](repeating: 0, count: affinityWords)
    _ = ck_affinity(&bits, bits.count)
    return bits.indices.filter { bits[$0] != 0 }.flatMap { word in
      (0..<64).filter { bits[word] >> UInt64($0) & 1 == 1 }.map { word * 64 + $0 }
    }
  }

  /// The least quota of the control group and those around it.
  private static func quota(proc: String, controlGroups: String) -> Double? {
    ControlGroups.directories(of: "cpu", proc: proc, root: controlGroups).compactMap { directory in
      if directory.version == 2 {
        let words = SystemFile.lines(of: "\(directory.path)/cpu.max").first?.split(separator: " ") ?? []
        return words.count == 2 ? quota(words[0], words[1]) : nil
      }
      let quota = SystemFile.lines(of: "\(directory.path)/cpu.cfs_quota_us").first
      let period = SystemFile.lines(of: "\(directory.path)/cpu.cfs_period_us").first
      return quota.flatMap { quota in period.flatMap { self.quota(quota, $0) } }
    }.min()
  }

  /// nil: none, which is `max` or -1.
  private static func quota(_ time: Substring, _ period: Substring) -> Double? {
    guard let time = Int(time), let period = Int(period), time > 0, period > 0 else { return nil }
    return Double(time) / Double(period)
  }
}

/// A part of a machine whose processors are near the same memory.
public struct MemoryNode: Sendable, Equatable {
  /// The kernel's number of the node.
  public let number: Int
  /// Those of its processors that this process may use, ascending; never empty.
  public let processors: [Int]

  /// The processors as the kernel and Docker write them: `0-3,8`.
  public var processorList: String {
    var runs: [ClosedRange<Int>] = []
    for number in processors {
      if let last = runs.last, last.upperBound + 1 == number {
        runs[runs.count - 1] = last.lowerBound...number
      } else {
        runs.append(number...number)
      }
    }
    return runs.map { $0.count == 1 ? "\($0.lowerBound)" : "\($0.lowerBound)-\($0.upperBound)" }.joined(separator: ",")
  }

  /// The nodes that have some of `processors`; one of all of them where the machine does not say.
  public static func all(of processors: AvailableProcessors) -> [MemoryNode] {
    all(of: processors.numbers, system: "/sys/devices/system/node")
  }

  /// The same from another place than the kernel's.
  package static func all(of processors: [Int], system: String) -> [MemoryNode] {
    let numbers = SystemFile.lines(of: "\(system)/online").first.flatMap(numbers(in:)) ?? []
    let available = Set(processors)
    let nodes = numbers.compactMap { number -> MemoryNode? in
      let list = SystemFile.lines(of: "\(system)/node\(number)/cpulist").first.flatMap(self.numbers(in:)) ?? []
      let own = list.filter(available.contains)
      return own.isEmpty ? nil : MemoryNode(number: number, processors: own)
    }
    return nodes.isEmpty ? [MemoryNode(number: 0, processors: processors)] : nodes
  }

  private static let maxNumber = 1 << 16

  /// The numbers in a list such as `0-3,8`, ascending; nil: it is none.
  package static func numbers(in list: some StringProtocol) -> [Int]? {
    var numbers: Set<Int> = []
    for part in list.split(separator: ",") {
      let ends = part.split(separator: "-", omittingEmptySubsequences: false).map { Int($0) }
      guard let first = ends.first ?? nil, let last = ends.last ?? nil, ends.count <= 2, 0 <= first, first <= last,
        last < maxNumber
      else { return nil }
      numbers.formUnion(first...last)
    }
    return numbers.sorted()
  }
}

import Foundation
import Kernels
import Testing

/// A folder with the files that a test takes for those of the kernel.
private struct SystemFiles: ~Copyable {
  let path = NSTemporaryDirectory() + "/system-files-\(UInt64.random(in: 0 ... .max))"

  init(_ files: [String: String]) throws {
    for (name, text) in files {
      let file = URL(filePath: "\(path)/\(name)")
      try FileManager.default.createDirectory(at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
      try Data(text.utf8).write(to: file)
    }
  }

  deinit { try? FileManager.default.removeItem(atPath: path) }
}

@Suite struct ProcessorQuotaTests {
  private func processors(_ files: [String: String]) throws -> AvailableProcessors {
    let system = try SystemFiles(files)
    return AvailableProcessors.read(proc: system.path + "/proc", controlGroups: system.path + "/cgroup")
  }

  @Test func withoutControlGroupsThereIsNoQuota() throws {
    let processors = try processors([:])
    #expect(processors.quota == nil && processors.threadCount == processors.numbers.count)
  }

  @Test(arguments: [
    ("max 100000\n", nil), ("150000 100000\n", 1.5), ("5000 100000\n", 0.05), ("400000 50000\n", 8), ("\n", nil),
    ("100000\n", nil), ("-1 100000\n", nil), ("100000 0\n", nil), ("99999999999999999999 100000\n", nil),
  ])
  func theSecondVersion(text: String, quota: Double?) throws {
    #expect(try processors(["proc/self/cgroup": "0::/\n", "cgroup/cpu.max": text]).quota == quota)
  }

  @Test func groupsAroundLimitToo() throws {
    var files = [
      "proc/self/cgroup": "1:memory:/other\n0::/machine.slice/denoiser.service\n",
      "cgroup/machine.slice/denoiser.service/cpu.max": "300000 100000\n",
      "cgroup/machine.slice/cpu.max": "250000 100000\n", "cgroup/cpu.max": "max 100000\n",
    ]
    #expect(try processors(files).quota == 2.5)
    files["cgroup/machine.slice/cpu.max"] = "max 100000\n"
    #expect(try processors(files).quota == 3)
    // A group outside of this process's namespace is named by the way to it.
    files["proc/self/cgroup"] = "0::/../../machine.slice\n"
    files["cgroup/machine.slice/cpu.max"] = "75000 50000\n"
    #expect(try processors(files).quota == 1.5)
  }

  @Test(arguments: ["cpu", "cpu,cpuacct"]) func theFirstVersion(folder: String) throws {
    var files = [
      "proc/self/cgroup": "4:cpu,cpuacct:/docker/4e2386\n3:cpuset:/docker/4e2386\n0::/\n",
      "cgroup/\(folder)/cpu.cfs_quota_us": "350000\n", "cgroup/\(folder)/cpu.cfs_period_us": "100000\n",
    ]
    #expect(try processors(files).quota == 3.5)
    files["cgroup/\(folder)/docker/4e2386/cpu.cfs_quota_us"] = "60000\n"
    files["cgroup/\(folder)/docker/4e2386/cpu.cfs_period_us"] = "50000\n"
    #expect(try processors(files).quota == 1.2)
    files["cgroup/\(folder)/docker/4e2386/cpu.cfs_quota_us"] = "-1\n"
    #expect(try processors(files).quota == 3.5)
    files["proc/self/cgroup"] = "4:cpuset:/docker/4e2386\n"
    #expect(try processors(files).quota == nil)
  }

  /// Parts of processors are rounded up, up to those of the affinity mask.
  @Test(arguments: [("1000 100000", 1), ("100000 100000", 1), ("100001 100000", 2), ("150000 100000", 2)])
  func threads(text: String, count: Int) throws {
    let processors = try processors(["proc/self/cgroup": "0::/\n", "cgroup/cpu.max": text])
    #expect(processors.threadCount == min(count, processors.numbers.count))
  }

  @Test func quotasBeyondTheMachineChangeNothing() throws {
    let processors = try processors(["proc/self/cgroup": "0::/\n", "cgroup/cpu.max": "900000000000 1"])
    #expect(processors.threadCount == processors.numbers.count)
  }
}

#if os(Linux)
  @Suite struct AffinityTests {
    @Test func isWhatTheKernelSays() throws {
      let line = SystemFile.lines(of: "/proc/thread-self/status").first { $0.hasPrefix("Cpus_allowed_list:") }
      let list = try #require(line?.split(separator: "\t").last)
      #expect(AvailableProcessors.read().numbers == MemoryNode.numbers(in: list))
    }
  }
#endif

@Suite struct MemoryNodeTests {
  private static let machine = [
    "online": "0-1,3\n", "node0/cpulist": "0-3,16-19\n", "node1/cpulist": "4-7,20-23\n", "node3/cpulist": "\n",
  ]

  private func nodes(_ processors: [Int], _ files: [String: String]) throws -> [String] {
    let system = try SystemFiles(files)
    return MemoryNode.all(of: processors, system: system.path).map { "\($0.number): \($0.processorList)" }
  }

  @Test func haveTheProcessorsOfTheProcess() throws {
    #expect(try nodes(Array(0..<24), Self.machine) == ["0: 0-3,16-19", "1: 4-7,20-23"])
    #expect(try nodes([2, 3, 4, 17], Self.machine) == ["0: 2-3,17", "1: 4"])
    #expect(try nodes([5], Self.machine) == ["1: 5"])
  }

  @Test func areOneWhereTheMachineDoesNotSay() throws {
    #expect(try nodes([0, 1], [:]) == ["0: 0-1"])
    #expect(try nodes([0, 1], ["online": "0-x\n"]) == ["0: 0-1"])
    #expect(try nodes([99], Self.machine) == ["0: 99"])
  }

  @Test(
    arguments: [
      ("0", [0]), ("0-2,8", [0, 1, 2, 8]), ("8,0-1", [0, 1, 8]), ("", []), ("3-1", nil), ("-1", nil), ("1-", nil),
      ("0-1-2", nil), ("0-99999999", nil), ("a", nil),
    ] as [(String, [Int]?)])
  func lists(text: String, numbers: [Int]?) {
    #expect(MemoryNode.numbers(in: text) == numbers)
  }
}

import Foundation
import Kernels
import TensorCore
import Testing
import Weights

@Suite struct MappedWeightsTests {
  /// A layer `a.weight` of eight megabytes in bf16, a small one `b.weight` and a plain tensor, on the disk.
  private func file(in directory: URL) throws -> URL {
    let compute = Compute(precision: .bf16, pool: testPool)
    let writer = ShardedWriter(directory, baseName: "model", packedFor: .bf16, tensorsMax: 3)
    try writer.append(weight: "a.weight", of: compute.prepareLinear(weight: randomTensor([1024, 4096], seed: 1)))
    try writer.append(weight: "b.weight", of: compute.prepareLinear(weight: randomTensor([48, 32], seed: 2)))
    try writer.append("norm", Tensor([1, 2, 3], shape: [3]))
    _ = try writer.finish()
    let url = directory.appending(path: "model.safetensors")
    // Pages that are not on the disk yet cannot leave memory.
    try FileHandle(forUpdating: url).synchronize()
    return url
  }

  /// The part of a file's pages that are in the page cache.
  private func residentShare(_ url: URL) throws -> Double {
    let descriptor = open(url.path, O_RDONLY), byteCount = Int(try #require(FileManager.default.fileSize(url)))
    defer { close(descriptor) }
    let base = try #require(mmap(nil, byteCount, PROT_READ, MAP_PRIVATE, descriptor, 0))
    defer { munmap(base, byteCount) }
    var pages = [UInt8](repeating: 0, count: (byteCount + 4095) / 4096)
    try #require(mincore(base, byteCount, &pages) == 0)
    return Double(pages.count { $0 & 1 == 1 }) / Double(pages.count)
  }

  @Test func comeAndGo() throws {
    let directory = try TemporaryDirectory(), url = try file(in: directory.url)
    let weights = try ComponentWeights(directory: directory.url, baseName: "model")
    let mapped = weights.mapped { $0 == "a.weight" }
    // 1024 rows are 22 panels of 48.
    #expect(mapped.byteCount == 22 * 48 * 4096 * 2)
    #expect(weights.mapped { _ in true }.byteCount == mapped.byteCount + 48 * 32 * 2)
    #expect(weights.mapped { $0 == "norm" || $0 == "a.weight.panels" }.byteCount == 0)

    let compute = Compute(precision: .bf16, pool: testPool)
    let layer = try #require(
      try weights.packedLayer("a.weight", output: 1024, input: 4096, bias: nil, compute: compute))
    let before = compute.weight(of: layer).floats()
    mapped.evict()
    // A file system in memory keeps what it has.
    if try !isInMemory(url) { #expect(try residentShare(url) < 0.3) }
    mapped.readAhead()
    #expect(try residentShare(url) > 0.9)
    mapped.evict()
    #expect(compute.weight(of: layer).floats() == before)
  }

  private func isInMemory(_ url: URL) throws -> Bool {
    let mounts = try String(contentsOfFile: "/proc/mounts", encoding: .utf8).split(separator: "\n").map {
      $0.split(separator: " ")
    }
    let path = url.resolvingSymlinksInPath().path
    let mount = mounts.filter { path.hasPrefix($0[1]) }.max { $0[1].count < $1[1].count }
    return ["tmpfs", "ramfs"].contains(mount?[2])
  }

  @Test func ofACacheOnlyPackedWeightsCount() throws {
    let directory = try TemporaryDirectory(), url = try file(in: directory.url)
    let plain = directory.url.appending(path: "plain")
    try FileManager.default.createDirectory(at: plain, withIntermediateDirectories: true)
    let writer = ShardedWriter(plain, baseName: "model", packedFor: nil, tensorsMax: 2)
    try writer.append("a.weight", randomTensor([1024, 4096], seed: 1))
    _ = try writer.finish()
    let original = try ComponentWeights(directory: plain, baseName: "model")
    #expect(original.mapped { _ in true }.byteCount == 0)
    let cached = original.overlaid(
      by: try ComponentWeights(directory: url.deletingLastPathComponent(), baseName: "model"))
    #expect(cached.mapped { $0 == "a.weight" }.byteCount == 22 * 48 * 4096 * 2)
  }
}

@Suite struct AvailableMemoryTests {
  /// `/proc` and `/sys/fs/cgroup` as given.
  private func available(_ files: [String: String]) throws -> Int? {
    let directory = try TemporaryDirectory()
    for (name, text) in files {
      let url = directory.url.appending(path: name)
      try FileManager.default.createDirectory(at: url.deletingLastPathComponent(), withIntermediateDirectories: true)
      try Data(text.utf8).write(to: url)
    }
    return AvailableMemory.byteCount(proc: directory.url.path + "/proc", controlGroups: directory.url.path + "/cgroup")
  }

  private static let meminfo = "MemTotal:       24613552 kB\nMemFree:          206476 kB\nMemAvailable:   23000000 kB\n"

  @Test func isTheMachinesOrTheControlGroupsWhicheverIsLess() throws {
    #expect(try available([:]) == nil)
    #expect(try available(["proc/meminfo": Self.meminfo]) == 23_000_000 * 1024)
    // In a container, whose own group is the root that it sees.
    let container = [
      "proc/meminfo": Self.meminfo, "proc/self/cgroup": "0::/\n", "cgroup/memory.stat": "anon 1000\nfile 500000\n",
    ]
    #expect(try available(container.merging(["cgroup/memory.max": "9000\n"]) { $1 }) == 8000)
    #expect(try available(container.merging(["cgroup/memory.max": "500\n"]) { $1 }) == 0)
    #expect(try available(container.merging(["cgroup/memory.max": "max\n"]) { $1 }) == 23_000_000 * 1024)
    #expect(try available(container.merging(["cgroup/memory.max": "99999999999999\n"]) { $1 }) == 23_000_000 * 1024)
  }

  @Test func groupsAroundTheProcesssOwnCountToo() throws {
    let files = [
      "proc/meminfo": Self.meminfo, "proc/self/cgroup": "1:cpu:/other\n0::/machine.slice/denoiser.service\n",
      "cgroup/machine.slice/denoiser.service/memory.max": "max\n",
      "cgroup/machine.slice/denoiser.service/memory.stat": "anon 10\n",
      "cgroup/machine.slice/memory.max": "70000\n", "cgroup/machine.slice/memory.stat": "file 1\nanon 20000\n",
    ]
    #expect(try available(files) == 50_000)
  }

  @Test func theFirstVersionOfControlGroupsIsReadToo() throws {
    // A container sees the limits of its own group at the root, under whatever name the machine knows it by.
    let files = [
      "proc/meminfo": Self.meminfo, "proc/self/cgroup": "4:memory:/docker/4e2386\n1:name=systemd:/\n0::/\n",
      "cgroup/memory/memory.limit_in_bytes": "90000\n", "cgroup/memory/memory.stat": "rss 7\ntotal_rss 40000\n",
    ]
    #expect(try available(files) == 50_000)
    let unlimited = files.merging(["cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"]) { $1 }
    #expect(try available(unlimited) == 23_000_000 * 1024)
  }

  @Test func thisMachineHasSome() throws {
    #if os(Linux)
      #expect(try #require(AvailableMemory.byteCount()) > 1 << 20)
    #endif
  }
}

extension FileManager {
  fileprivate func fileSize(_ url: URL) -> UInt64? {
    (try? attributesOfItem(atPath: url.path)[.size] as? NSNumber)?.uint64Value
  }
}

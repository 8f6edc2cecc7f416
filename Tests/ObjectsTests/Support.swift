import ClusterCore
import Foundation
import Journal
import Objects
import Synchronization

/// A directory that is gone afterwards.
func withFolder<Result>(_ body: (String) throws -> Result) throws -> Result {
  let folder = NSTemporaryDirectory() + "objects-\(UInt64.random(in: 0 ... .max))"
  try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
  defer { try? FileManager.default.removeItem(atPath: folder) }
  return try body(folder)
}

/// Waits until `condition` holds, at most half a minute.
func holds(_ condition: () throws -> Bool) rethrows -> Bool {
  for _ in 0..<1500 {
    if try condition() { return true }
    usleep(20_000)
  }
  return false
}

/// The paths of all files below a directory, from it on.
func files(in directory: String) -> [String] {
  (FileManager.default.enumerator(atPath: directory)?.compactMap { $0 as? String } ?? []).filter {
    var status = stat()
    return stat("\(directory)/\($0)", &status) == 0 && status.st_mode & S_IFMT == S_IFREG
  }.sorted()
}

enum Sample {
  static func bytes(_ number: UInt64, _ byteCount: Int) -> Data {
    var state = number &* 0x9E37_79B9_7F4A_7C15 &+ 1
    return Data(
      (0..<byteCount).map { _ in
        state = state &* 6_364_136_223_846_793_005 &+ 1
        return UInt8(truncatingIfNeeded: state >> 56)
      })
  }

  static func payload(_ id: UInt64, _ byteCount: Int = 2000) -> StoredPayload {
    StoredPayload(id: id, name: "latents", dtype: 2, shape: [byteCount, 1], bytes: bytes(id, byteCount))
  }

  static func input(_ number: UInt64, _ byteCount: Int = 3000) -> StoredInput {
    StoredInput(digest: "input \(number)", bytes: bytes(number &+ 1_000_000, byteCount))
  }

  static func job(_ id: String, images: Int = 1, inputs: [StoredInput] = []) -> StoredJob {
    StoredJob(
      id: id, tenant: "t", submittedAtMs: 1_000, request: Data("a cat".utf8), imageCount: images, inputs: inputs)
  }

  static func progress(_ job: String, _ index: Int = 0, task: Int = 1, steps: Int?, _ payload: StoredPayload)
    -> JournalChange
  {
    .progress(
      ImageReference(job: job, index: index),
      StoredProgress(task: task, completedSteps: steps, payload: payload, numericsClass: "avx512"))
  }

  static func finish(_ job: String, _ index: Int = 0, _ payload: StoredPayload, atMs: Int64 = 2_000) -> JournalChange {
    .finish(ImageReference(job: job, index: index), result: payload, promptTokens: 7, atMs: atMs)
  }

  static func fail(_ job: String, _ index: Int = 0) -> JournalChange {
    .fail(ImageReference(job: job, index: index), Status(StatusCode(rawValue: 13)!, "no"), atMs: 2_000)
  }
}

/// Objects in memory, which fail on demand.
final class ToyObjectStore: ObjectStore {
  private struct State {
    var objects: [ObjectKey: Data] = [:]
    var error: ObjectError?
    var ageSeconds: Int64 = 0
    var puts = 0
    var running = 0
    var mostRunning = 0
  }

  private let state = Mutex(State())
  private let putSeconds: Double
  let isLocal: Bool

  init(isLocal: Bool = false, putSeconds: Double = 0) {
    self.isLocal = isLocal
    self.putSeconds = putSeconds
  }

  var location: String { "a toy" }
  var names: Set<String> { state.withLock { Set($0.objects.keys.map(\.name)) } }
  var putCount: Int { state.withLock(\.puts) }
  var mostPutsAtATime: Int { state.withLock(\.mostRunning) }

  /// Has everything fail; nil: nothing.
  func fail(_ error: ObjectError?) { state.withLock { $0.error = error } }
  /// Makes all objects older in lists.
  func age(_ seconds: Int64) { state.withLock { $0.ageSeconds = seconds } }
  func change(_ body: (inout [ObjectKey: Data]) -> Void) { state.withLock { body(&$0.objects) } }

  private func locked<Result>(_ body: (inout State) throws(ObjectError) -> Result) throws(ObjectError) -> Result {
    try state.withLock { state throws(ObjectError) in
      if let error = state.error { throw error }
      return try body(&state)
    }
  }

  func check() throws(ObjectError) { try locked { _ throws(ObjectError) in } }

  func put(_ bytes: Data, as key: ObjectKey) throws(ObjectError) {
    state.withLock { state in
      state.running += 1
      state.mostRunning = max(state.mostRunning, state.running)
    }
    defer { state.withLock { $0.running -= 1 } }
    if putSeconds > 0 { Thread.sleep(forTimeInterval: putSeconds) }
    try locked { state throws(ObjectError) in
      state.puts += 1
      state.objects[key] = bytes
    }
  }

  func get(_ key: ObjectKey, byteCount: Int) throws(ObjectError) -> Data {
    try locked { state throws(ObjectError) in
      guard let bytes = state.objects[key] else { throw .missing("\(key.name) is not there") }
      guard bytes.count == byteCount, key.isKey(of: bytes) else { throw .corrupt("\(key.name) is damaged") }
      return bytes
    }
  }

  func contains(_ key: ObjectKey) throws(ObjectError) -> Bool {
    try locked { state throws(ObjectError) in state.objects[key] != nil }
  }

  func delete(_ keys: [ObjectKey]) throws(ObjectError) {
    try locked { state throws(ObjectError) in for key in keys { state.objects[key] = nil } }
  }

  func list(after path: String?, limit: Int) throws(ObjectError) -> ObjectPage {
    try locked { state throws(ObjectError) in
      let rest = state.objects.keys.filter { key in path.map { key.path > $0 } ?? true }.sorted { $0.path < $1.path }
      let age = state.ageSeconds
      let entries = rest.prefix(limit).map {
        ObjectPage.Entry(key: $0, byteCount: state.objects[$0]?.count ?? 0, ageSeconds: age)
      }
      return ObjectPage(entries: entries, next: rest.count > limit ? entries.last?.key.path : nil)
    }
  }

  func freeBytes() -> Int64? { nil }
  func close() {}
}

/// What was reported of a journal's objects.
final class Events: Sendable {
  private let list = Mutex<[ObjectEvent]>([])
  var all: [ObjectEvent] { list.withLock { $0 } }
  func append(_ event: ObjectEvent) { list.withLock { $0.append(event) } }
}

extension ObjectRules {
  /// A threshold that small tests reach.
  static var small: ObjectRules {
    var rules = ObjectRules()
    rules.threshold = 1000
    return rules
  }
}

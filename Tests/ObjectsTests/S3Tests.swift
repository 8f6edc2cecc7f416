import Foundation
import Journal
import Objects
import Testing

@Suite(
  "Objects in S3", .serialized, .timeLimit(.minutes(3)),
  .enabled(if: S3Server.python != nil, "no Python with moto: Tests/Support/python.sh Tests/Objects/requirements.txt"))
struct S3Tests {
  /// The error of `body`.
  private static func problem(_ body: @escaping @Sendable () throws -> Void) async throws -> ObjectError? {
    try await onThread {
      do {
        try body()
        return nil
      } catch let error as ObjectError { return error }
    }
  }

  private static func digest(_ key: ObjectKey) -> String { String(key.name.prefix(64)) }

  @Test func whatIsPutIsWhatIsThere() async throws {
    let server = try await S3Server.ready()
    let store = try server.store("a/b")
    try await onThread { try store.check() }
    #expect(try await server.objects("a/b") == [:], "the check leaves nothing")
    let all = (0..<30).map { Sample.bytes(UInt64($0), $0 * 1_999) }
    let keys = all.map { ObjectKey(of: $0) }
    try await onThread { for (key, bytes) in zip(keys, all) { try store.put(bytes, as: key) } }
    let expected = Dictionary(uniqueKeysWithValues: keys.map { ($0.path, Self.digest($0)) })
    #expect(try await server.objects("a/b") == expected)
    let log = try await server.log()
    #expect(log.allSatisfy { $0.status < 300 }, "every signature is right: \(log.filter { $0.status >= 300 })")
    let found = try await onThread {
      try zip(keys, all).allSatisfy { try store.get($0, byteCount: $1.count) == $1 && store.contains($0) }
    }
    #expect(found)
    let listed = try await onThread {
      var listed: [String] = [], place: String?
      repeat {
        let page = try store.list(after: place, limit: 7)
        #expect(page.entries.allSatisfy { (-5...3600).contains($0.ageSeconds) })
        listed += page.entries.map(\.key.path)
        place = page.next
      } while place != nil
      return listed
    }
    #expect(listed == keys.map(\.path).sorted())
    try await onThread { try store.delete(keys + keys.prefix(3)) }
    #expect(try await server.objects("a/b") == [:])
    let key = keys[3]
    #expect(
      try await Self.problem { _ = try store.get(key, byteCount: 3) }
        == .missing("there is no object s3://images/a/b/\(key.path)"))
    #expect(try await onThread { try !store.contains(key) })
    store.close()
  }

  /// Each of them passes by itself; what was put is there once, and whole.
  @Test(
    arguments: [
      ["kind": "slow_down", "times": 2], ["kind": "cut_upload", "times": 2], ["kind": "cut_after_upload"],
      ["kind": "damaged_upload"], ["kind": "error", "status": 500, "code": "InternalError", "times": 3],
      ["kind": "error", "status": 403, "code": "RequestTimeTooSkewed"],
      ["kind": "error", "status": 400, "code": "RequestTimeout"], ["kind": "hang", "seconds": 3],
    ] as [[String: any Sendable]])
  func uploadsThatFailAreRepeated(fault: [String: any Sendable]) async throws {
    let server = try await S3Server.ready()
    let prefix = "uploads/\(UInt32.random(in: 0 ... .max))"
    let store = try server.store(prefix) { $0.timeout = .seconds(4) }
    let bytes = Sample.bytes(1, 700_000)
    let key = ObjectKey(of: bytes)
    try await server.fault([fault.merging(["method": "PUT"]) { $1 }])
    try await onThread { try store.put(bytes, as: key) }
    #expect(try await server.objects(prefix) == [key.path: Self.digest(key)])
    let times = fault["times"] as? Int ?? 1
    let log = try await server.log()
    #expect(log.filter { $0.fault == fault["kind"] as? String }.count == times && log.count == times + 1, "\(log)")
    store.close()
  }

  @Test(arguments: ["cut_download", "wrong_bytes", "longer", "slow_down"])
  func downloadsThatFailAreRepeated(kind: String) async throws {
    let server = try await S3Server.ready()
    let store = try server.store()
    let bytes = Sample.bytes(1, 700_000)
    let key = ObjectKey(of: bytes)
    try await onThread { try store.put(bytes, as: key) }
    try await server.fault([["kind": kind, "method": "GET"]])
    #expect(try await onThread { try store.get(key, byteCount: bytes.count) == bytes })
    #expect(try await server.log().map(\.fault) == [nil, kind, nil])
    store.close()
  }

  @Test func bytesThatStayWrongAreDamaged() async throws {
    let server = try await S3Server.ready()
    let store = try server.store("p")
    let bytes = Sample.bytes(1, 5_000)
    let key = ObjectKey(of: bytes)
    try await onThread { try store.put(bytes, as: key) }
    for kind in ["wrong_bytes", "longer"] {
      try await server.fault([["kind": kind, "method": "GET", "times": 100]])
      let problem = try await Self.problem { _ = try store.get(key, byteCount: bytes.count) }
      guard case .corrupt(let text) = problem else {
        Issue.record("\(kind): \(String(describing: problem))")
        continue
      }
      #expect(text.contains("s3://images/p/\(key.path)"))
      #expect(try await server.log().filter { $0.fault == kind }.count == 2, "asked for once more, and not again")
    }
    store.close()
  }

  @Test func theServersPauseIsKept() async throws {
    let server = try await S3Server.ready()
    let store = try server.store()
    let bytes = Data("abc".utf8)
    try await server.fault([["kind": "slow_down", "retry_after": 2]])
    try await onThread { try store.put(bytes, as: ObjectKey(of: bytes)) }
    let log = try await server.log()
    #expect(log.count == 2 && log[1].at - log[0].at >= 2, "\(log)")
    // Longer than anything may take.
    try await server.fault([["kind": "slow_down", "retry_after": 600, "times": 10]])
    let problem = try await Self.problem { try store.put(bytes, as: ObjectKey(of: bytes)) }
    #expect(try await server.log().count == 1, "what would take too long is not waited for")
    guard case .unavailable(let text) = problem else {
      Issue.record("\(String(describing: problem))")
      return
    }
    #expect(text.contains("503 SlowDown") && text.contains("s3://images/"))
    store.close()
  }

  @Test func aServerThatIsDownIsNotAskedAgainAndAgain() async throws {
    let server = try await S3Server.ready()
    try await server.fault([["kind": "error", "status": 503, "code": "ServiceUnavailable", "times": 100_000]])
    let store = try server.store { $0.timeout = .milliseconds(1500) }
    try await onThread {
      let queue = OperationQueue()
      queue.maxConcurrentOperationCount = 16
      for number in 0..<100 {
        queue.addOperation {
          let bytes = Sample.bytes(UInt64(number), 10)
          #expect(throws: ObjectError.self) { try store.put(bytes, as: ObjectKey(of: bytes)) }
        }
      }
      queue.waitUntilAllOperationsAreFinished()
    }
    let count = try await server.log().count
    #expect((150...200).contains(count), "\(count) requests for 100 objects, each of which is worth five")
    store.close()
  }

  @Test func whatIsNotAllowedIsSaidWithoutSecrets() async throws {
    let server = try await S3Server.ready()
    let bytes = Data("abc".utf8)
    func put(_ store: S3ObjectStore) async throws -> ObjectError? {
      defer { store.close() }
      return try await Self.problem { try store.put(bytes, as: ObjectKey(of: bytes)) }
    }
    var environment = server.environment
    environment["AWS_SECRET_ACCESS_KEY"] = "another/secret"
    let forged = try await put(server.store(environment: environment))
    let wrong = [
      (forged, "SignatureDoesNotMatch"), (try await put(server.store { $0.bucket = "another" }), "NoSuchBucket"),
      (try await put(server.store { $0.region = "us-east-1" }), "InvalidAccessKeyId"),
    ]
    for (problem, code) in wrong {
      guard case .refused(let text) = problem else {
        Issue.record("\(code): \(String(describing: problem))")
        continue
      }
      #expect(text.contains(code) && text.contains("s3://"), "\(text)")
      #expect((server.secrets + ["another/secret"]).allSatisfy { !text.contains($0) })
    }
    // A server that repeats what it must not.
    try await server.fault([
      ["kind": "error", "status": 400, "code": "Odd", "message": "your secret is \(server.secrets[0])", "times": 9]
    ])
    let odd = try await put(server.store())
    #expect(odd?.description.contains("your secret is …") == true, "\(String(describing: odd))")
    let nowhere = try await put(server.store { $0.endpoint = "http://127.0.0.1:9" })
    if case .unavailable = nowhere {} else { Issue.record("\(String(describing: nowhere))") }
  }

  @Test func credentialsAreReadAgainWhenTheyAreRefused() async throws {
    let server = try await S3Server.ready()
    let folder = NSTemporaryDirectory() + "objects-\(UInt64.random(in: 0 ... .max))"
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: folder) }
    func write(_ secret: String) throws {
      let text = """
        [default]
        aws_access_key_id = \(server.environment["AWS_ACCESS_KEY_ID"]!)
        aws_secret_access_key = \(secret)
        aws_session_token = \(server.environment["AWS_SESSION_TOKEN"]!)
        """
      try text.write(toFile: folder + "/c", atomically: true, encoding: .utf8)
    }
    try write("old")
    let store = try server.store(environment: ["AWS_SHARED_CREDENTIALS_FILE": folder + "/c"])
    let bytes = Data("abc".utf8)
    #expect(try await Self.problem { try store.put(bytes, as: ObjectKey(of: bytes)) } != nil)
    try write(server.environment["AWS_SECRET_ACCESS_KEY"]!)
    #expect(try await Self.problem { try store.put(bytes, as: ObjectKey(of: bytes)) } == nil)
    store.close()
  }

  // MARK: With a journal

  @Test func aJournalLosesNothingWhateverTheServerDoes() async throws {
    let server = try await S3Server.ready()
    let folder = NSTemporaryDirectory() + "objects-\(UInt64.random(in: 0 ... .max))"
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: folder) }
    @Sendable func opened() throws -> any JournalStore {
      let base = try SQLiteJournalStore(path: folder + "/j")
      let objects = try server.store("journal/\(base.objectSpace)") { $0.timeout = .seconds(4) }
      return try ObjectJournal.open(base, objects: objects, rules: .small)
    }
    let store = try await onThread { try opened() }
    try await onThread { try store.apply([.admit(Sample.job("a", images: 40, inputs: [Sample.input(1)]))]) }
    try await server.fault(
      ["cut_upload", "slow_down", "cut_after_upload", "damaged_upload"].enumerated().map {
        ["kind": $1, "method": "PUT", "skip": 3 * $0, "times": 2]
      } + [["kind": "error", "status": 503, "code": "SlowDown", "method": "PUT", "skip": 20, "times": 12]])
    try await onThread {
      for number in 0..<40 {
        let payload = Sample.payload(UInt64(number + 1), 2_000 + number)
        try store.apply([Sample.progress("a", number, steps: 1, Sample.payload(UInt64(number + 100)))])
        try store.apply([Sample.finish("a", number, payload)])
      }
    }
    try await server.fault([
      ["kind": "cut_download", "method": "GET", "times": 3],
      ["kind": "wrong_bytes", "method": "GET", "path": "journal/"],
    ])
    try await onThread {
      store.close()
      let store = try opened()
      for number in 0..<40 {
        #expect(
          try store.result(of: ImageReference(job: "a", index: number))
            == Sample.payload(UInt64(number + 1), 2_000 + number))
      }
      #expect(try store.problems() == [])
      store.close()
    }
    // An object without a row, as a killed process leaves it; a list that is late does not show it, one with old dates
    // does.
    let orphan = Sample.bytes(7, 5_000)
    let key = ObjectKey(of: orphan)
    let space = try await onThread {
      let base = try SQLiteJournalStore(path: folder + "/j")
      try server.store("journal/\(base.objectSpace)").put(orphan, as: key)
      base.close()
      return base.objectSpace
    }
    try await server.fault([["kind": "late_list", "path": "list-type", "times": 3]])
    try await onThread { try opened().close() }
    #expect(try await server.objects("journal/\(space)")[key.path] != nil)
    try await server.fault([["kind": "old_dates", "path": "list-type", "times": 50]])
    let last = try await onThread { try opened() }
    #expect(try await Self.becomes { try await server.objects("journal/\(space)")[key.path] == nil })
    #expect(try await onThread { try last.problems() } == [])
    // Everything goes with the job.
    try await server.fault([["kind": "slow_down", "method": "DELETE", "times": 3]])
    let isEmpty = try await Self.becomes {
      try await onThread { _ = try last.forgetOldJobs(nowMs: 1 << 50) }
      return try await server.objects("journal/\(space)").isEmpty
    }
    #expect(isEmpty)
    last.close()
  }

  private static func becomes(_ condition: () async throws -> Bool) async throws -> Bool {
    for _ in 0..<300 {
      if try await condition() { return true }
      try await Task.sleep(for: .milliseconds(50))
    }
    return false
  }
}

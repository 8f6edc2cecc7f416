import Foundation
import Synchronization

/// Objects in a bucket of Amazon S3 or a server that speaks its protocol.
///
/// Requests are signed (Signature Version 4) with the SHA-256 of their bodies, uploads carry the checksum that the
/// server is to check, and what is read is checked against the key's digest. An object is one request, as none is
/// larger than the 900 MiB of a payload: a single upload may have 5 GB, and leaves nothing half-made when it is cut.
/// Objects are deleted one by one, which every server can.
public final class S3ObjectStore: ObjectStore {
  private let client: S3Client
  private let maxRequests: Int
  private let executor = ThreadExecutor()

  /// A store of what is in the bucket below the prefix. Does not ask it yet: see ``check()``.
  ///
  /// - Parameters:
  ///   - settings: where the bucket is.
  ///   - credentials: read at every request.
  ///   - maxRequests: at a time; more wait.
  /// - Throws: `settings`, naming what is wrong.
  public init(_ settings: S3Settings, credentials: S3CredentialSource, maxRequests: Int = 16) throws(ObjectError) {
    client = try S3Client(settings, credentials: credentials, maxConnections: maxRequests)
    self.maxRequests = maxRequests
  }

  /// As ``ObjectStore`` says.
  public var location: String {
    "\(client.name(client.address.keyPrefix)) at \(client.address.scheme)://\(client.address.host)"
  }
  /// As ``ObjectStore`` says.
  public var isLocal: Bool { false }

  /// As ``ObjectStore`` says.
  public func check() throws(ObjectError) { try checkByTrying() }

  /// As ``ObjectStore`` says.
  public func put(_ bytes: Data, as key: ObjectKey) throws(ObjectError) {
    let checksum = Data(key.sha256).base64EncodedString()
    let call = S3Client.Call(
      method: "PUT", key: path(key),
      headers: [("content-type", "application/octet-stream"), ("x-amz-checksum-sha256", checksum)], body: bytes,
      byteCount: bytes.count)
    let answer = try wait { client throws(ObjectError) in try await client.send(call) }
    guard answer.status < 300 else { throw .refused("\(name(key)) cannot be written: \(answer.status) \(answer.code)") }
    if let stored = answer.header("x-amz-checksum-sha256"), stored != checksum {
      throw .unavailable("\(name(key)) was written with the checksum \(stored.prefix(64)), not \(checksum)")
    }
  }

  /// As ``ObjectStore`` says.
  public func get(_ key: ObjectKey, byteCount: Int) throws(ObjectError) -> Data {
    var call = S3Client.Call(method: "GET", key: path(key), maxBodyBytes: byteCount, byteCount: byteCount)
    // Not one from a cache in between.
    call.headers = [("cache-control", "no-cache")]
    var problem = ""
    // What arrived damaged may arrive sound.
    for _ in 0..<2 {
      do throws(ObjectError) {
        let answer = try wait { [call] client throws(ObjectError) in try await client.send(call) }
        if answer.status == 404 { throw .missing("there is no object \(name(key))") }
        let bytes = Data(answer.body)
        if bytes.count == byteCount, key.isKey(of: bytes) { return bytes }
        problem = "the \(bytes.count) bytes of \(name(key)) are not the \(byteCount) that were written"
      } catch {
        guard case .corrupt(let text) = error else { throw error }
        problem = text
      }
    }
    throw .corrupt(problem)
  }

  /// As ``ObjectStore`` says.
  public func contains(_ key: ObjectKey) throws(ObjectError) -> Bool {
    let call = S3Client.Call(method: "HEAD", key: path(key))
    return try wait { client throws(ObjectError) in try await client.send(call).status < 300 }
  }

  /// As ``ObjectStore`` says.
  public func delete(_ keys: [ObjectKey]) throws(ObjectError) {
    let calls = keys.map { S3Client.Call(method: "DELETE", key: path($0)) }
    let problem = try wait { [maxRequests] client throws(ObjectError) -> ObjectError? in
      await withTaskGroup(of: ObjectError?.self) { group in
        var problem: ObjectError?, waiting = calls[...]
        func begin(_ call: S3Client.Call) {
          group.addTask {
            do throws(ObjectError) { _ = try await client.send(call) } catch { return error }
            return nil
          }
        }
        for _ in 0..<maxRequests { if let call = waiting.popFirst() { begin(call) } }
        while let outcome = await group.next() {
          if let outcome { problem = problem ?? outcome }
          // After an error the rest is left for another time.
          if problem == nil, let call = waiting.popFirst() { begin(call) }
        }
        return problem
      }
    }
    if let problem { throw problem }
  }

  /// As ``ObjectStore`` says.
  public func list(after path: String?, limit: Int) throws(ObjectError) -> ObjectPage {
    let prefix = client.address.keyPrefix
    var query = [("list-type", "2"), ("max-keys", "\(min(limit, 1000))")]
    if !prefix.isEmpty { query.append(("prefix", prefix)) }
    if let path { query.append(("start-after", prefix + path)) }
    let call = S3Client.Call(method: "GET", query: query, maxBodyBytes: 4 << 20)
    let answer = try wait { client throws(ObjectError) in try await client.send(call) }
    guard answer.status < 300, let page = S3XML.page(answer.body, prefix: prefix, now: answer.date ?? Date()) else {
      throw .refused("\(location) answers no list of its objects: \(answer.status) \(answer.code)")
    }
    return page
  }

  /// As ``ObjectStore`` says.
  public func freeBytes() -> Int64? { nil }

  /// As ``ObjectStore`` says.
  public func close() {
    client.close()
    executor.threads.stop()
  }

  // MARK: Requests

  private func path(_ key: ObjectKey) -> String { client.address.keyPrefix + key.path }
  private func name(_ key: ObjectKey) -> String { client.name(path(key)) }

  /// Blocks until `body` has ended, which runs on other threads.
  private func wait<Result: Sendable>(
    _ body: @escaping @Sendable (S3Client) async throws(ObjectError) -> Result
  ) throws(ObjectError) -> Result {
    let outcome = Outcome<Result>()
    Task.detached(executorPreference: executor) { [client] in
      do throws(ObjectError) { outcome.end(.success(try await body(client))) } catch { outcome.end(.failure(error)) }
    }
    return try outcome.wait().get()
  }
}

/// Runs tasks on threads of its own: others may all wait for them.
private final class ThreadExecutor: TaskExecutor {
  let threads = WorkerThreads("s3", count: 4)

  func enqueue(_ job: consuming ExecutorJob) {
    let job = UnownedJob(job)
    threads.submit { [self] in job.runSynchronously(on: asUnownedTaskExecutor()) }
  }
}

/// What a task ends with, for a thread that waits.
private final class Outcome<Value: Sendable>: Sendable {
  private let result = Mutex<Result<Value, ObjectError>?>(nil)
  private let done = DispatchSemaphore(value: 0)

  func end(_ result: Result<Value, ObjectError>) {
    self.result.withLock { $0 = result }
    done.signal()
  }

  func wait() -> Result<Value, ObjectError> {
    done.wait()
    return result.withLock { $0 } ?? .failure(.unavailable("no answer"))
  }
}

import AccessKeys
import Foundation
import GatewayAPI
import GatewayDispatch
import Logging
import Scheduling
import Synchronization

/// Who a request is from, and what that tenant may do.
struct Caller: Sendable, Equatable {
  var tenant = TenantID.anonymous
  var limits = AccessLimits()
  /// The entry of the key that was shown; nil: the server has no keys.
  var entry: AccessEntry?
}

/// The keys of a file, read again when the file has changed.
///
/// A file that has become wrong changes nothing: the keys read before stay, and the log says what is wrong.
public final class Keyring: RequestRates {
  private struct Bucket {
    var tokens: Double
    var filledAt: ContinuousClock.Instant
  }
  private struct State {
    var entries: [String: AccessEntry]
    var stamp: Stamp?
    var lookedAt = ContinuousClock.now
    var buckets: [String: Bucket] = [:]
    /// Requests of each tenant with a limit, since the beginning.
    var spent: [String: UInt64] = [:]

    func filledBucket(of tenant: String, perMinute: Double) -> Bucket {
      let now = ContinuousClock.now
      var bucket = buckets[tenant] ?? Bucket(tokens: perMinute, filledAt: now)
      bucket.tokens = min(perMinute, bucket.tokens + (now - bucket.filledAt) / .seconds(60) * perMinute)
      bucket.filledAt = now
      return bucket
    }
  }
  private struct Stamp: Equatable {
    var seconds: Int
    var nanoseconds: Int
    var size: Int64
    var inode: UInt64
  }

  private let path: String
  private let logger: Logger
  private let refresh: Duration
  private let state: Mutex<State>
  private let onChange: Mutex<(@Sendable ([Tenant]) -> Void)?> = Mutex(nil)

  /// Reads the file now; later, when a key is asked for, the last look is `refresh` old and the file has changed.
  ///
  /// - Throws: `AccessFileError` when it cannot be read or is wrong.
  public init(path: String, logger: Logger, refresh: Duration = .seconds(1)) throws(AccessFileError) {
    self.path = path
    self.logger = logger
    self.refresh = refresh
    let stamp = Self.stamp(path)
    state = Mutex(State(entries: Self.indexed(try Self.read(path)), stamp: stamp))
  }

  /// Calls `body` with the tenants of the file, now and whenever they change.
  public func follow(_ body: @escaping @Sendable ([Tenant]) -> Void) {
    onChange.withLock { $0 = body }
    body(tenants)
  }

  /// The tenants of the file.
  var tenants: [Tenant] {
    let entries = state.withLock { $0.entries.values.sorted { $0.id < $1.id } }
    var tenants: [String: Tenant] = [:]
    for entry in entries {
      tenants[entry.tenant] = Tenant(
        id: TenantID(entry.tenant), policy: TenantPolicy(weight: entry.limits.weight, maxJobs: entry.limits.maxJobs))
    }
    return tenants.keys.sorted().compactMap { tenants[$0] }
  }

  /// Reads the file again, whether or not it seems to have changed.
  public func reload() {
    let stamp = Self.stamp(path)
    do throws(AccessFileError) {
      let entries = Self.indexed(try Self.read(path))
      state.withLock {
        $0.entries = entries
        $0.stamp = stamp
        $0.lookedAt = .now
      }
      logger.info("the API keys were read", metadata: ["keys": "\(entries.count)"])
      let tenants = tenants
      onChange.withLock { $0 }?(tenants)
    } catch {
      state.withLock {
        $0.stamp = stamp
        $0.lookedAt = .now
      }
      logger.error(
        "the API keys were not read; those from before stay", metadata: ["file": "\(path)", "reason": "\(error)"])
    }
  }

  /// Who sends `Authorization: header`.
  ///
  /// - Parameter allowsBasic: whether the key may be the password, or else the user's name, of HTTP Basic.
  /// - Throws: 401 for what is no key of the file, 429 when the tenant has used its requests up.
  func caller(authorization header: String?, allowsBasic: Bool = false) throws(APIError) -> Caller {
    reloadIfChanged()
    guard let header else {
      throw APIError(
        .authenticationRequired, "this server asks for an API key: send the header \"Authorization: Bearer KEY\"")
    }
    let parts = header.split(separator: " ", maxSplits: 1)
    let scheme = parts.count == 2 ? parts[0].lowercased() : ""
    let key =
      scheme == "bearer"
      ? AccessKey(String(parts[1])) : scheme == "basic" && allowsBasic ? Self.key(inBasic: parts[1]) : nil
    let entry = key.flatMap { key in state.withLock { $0.entries[key.id] } }
    // An unknown identifier takes as long as a known one.
    guard let key, (entry ?? .dummy).admits(key), let entry else {
      throw APIError(.authenticationRequired, "the API key is not valid")
    }
    try spend(entry)
    return Caller(tenant: TenantID(entry.tenant), limits: entry.limits, entry: entry)
  }

  /// The key in the credentials of HTTP Basic (RFC 7617), base64 of `USER:PASSWORD`.
  private static func key(inBasic credentials: Substring) -> AccessKey? {
    guard credentials.utf8.count <= maxBasicBytes, let data = Data(base64Encoded: String(credentials)),
      let text = String(validating: data, as: UTF8.self)
    else { return nil }
    let parts = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
    return parts.reversed().lazy.compactMap { AccessKey($0) }.first
  }

  private static let maxBasicBytes = 1024

  /// Who has signed `text` with the key `id`.
  ///
  /// - Throws: as `caller(authorization:)` does.
  func caller(signature: String, of text: String, key id: String) throws(APIError) -> Caller {
    reloadIfChanged()
    let entry = state.withLock { $0.entries[id] }
    guard (entry ?? .dummy).isSignature(signature, of: text), let entry else {
      throw APIError(
        .authenticationRequired, "the address is not signed by a key of this server, or the key was removed")
    }
    try spend(entry)
    return Caller(tenant: TenantID(entry.tenant), limits: entry.limits, entry: entry)
  }

  /// Counts further requests of a caller's tenant, all of them or none.
  ///
  /// - Throws: 429 when the tenant has not so many left.
  func spend(_ count: Int, of caller: Caller) throws(APIError) {
    guard count > 0, let entry = caller.entry else { return }
    if let limit = entry.limits.requestsPerMinute, count >= limit {
      throw APIError(
        .permissionDenied,
        "the request has \(count + 1) jobs, and the tenant \(entry.tenant) may send \(limit) in a minute")
    }
    try spend(entry, count: Double(count))
  }

  /// A tenant's bucket holds a minute's requests and fills steadily.
  private func spend(_ entry: AccessEntry, count: Double = 1) throws(APIError) {
    guard let perMinute = entry.limits.requestsPerMinute.map(Double.init) else { return }
    let wait: Double? = state.withLock { state in
      var bucket = state.filledBucket(of: entry.tenant, perMinute: perMinute)
      defer { state.buckets[entry.tenant] = bucket }
      guard bucket.tokens >= count else { return (count - bucket.tokens) / perMinute * 60 }
      bucket.tokens -= count
      state.spent[entry.tenant, default: 0] += UInt64(count)
      return nil
    }
    if let wait {
      throw APIError(
        .rateLimited, "the tenant \(entry.tenant) has sent more than \(Int(perMinute)) requests in a minute",
        retryAfterSeconds: Int(max(1, wait.rounded(.up))))
    }
  }

  /// Requests of each tenant with a limit that were counted here, since the beginning.
  public var spent: [String: UInt64] { state.withLock(\.spent) }

  /// Takes requests that other gateways have counted from the tenants' buckets, down to a minute's below zero: what is
  /// admitted here meanwhile is made up for.
  public func noteSpentElsewhere(_ counts: [String: UInt64]) {
    state.withLock { state in
      for (tenant, count) in counts {
        let limit = state.entries.values.first { $0.tenant == tenant }?.limits.requestsPerMinute
        guard let perMinute = limit.map(Double.init) else { continue }
        var bucket = state.filledBucket(of: tenant, perMinute: perMinute)
        bucket.tokens = max(-perMinute, bucket.tokens - Double(count))
        state.buckets[tenant] = bucket
      }
    }
  }

  private func reloadIfChanged() {
    let hasChanged = state.withLock { state in
      guard ContinuousClock.now - state.lookedAt >= refresh else { return false }
      state.lookedAt = .now
      return Self.stamp(path) != state.stamp
    }
    if hasChanged { reload() }
  }

  private static func stamp(_ path: String) -> Stamp? {
    var status = stat()
    guard stat(path, &status) == 0 else { return nil }
    return Stamp(
      seconds: status.st_mtim.tv_sec, nanoseconds: status.st_mtim.tv_nsec, size: Int64(status.st_size),
      inode: UInt64(status.st_ino))
  }

  private static func read(_ path: String) throws(AccessFileError) -> [AccessEntry] {
    guard let data = FileManager.default.contents(atPath: path) else { throw AccessFileError(path, "cannot be read") }
    guard let text = String(validating: data, as: UTF8.self) else { throw AccessFileError(path, "is not UTF-8") }
    return try AccessFile.parse(text)
  }

  private static func indexed(_ entries: [AccessEntry]) -> [String: AccessEntry] {
    Dictionary(entries.map { ($0.id, $0) }, uniquingKeysWith: { first, _ in first })
  }
}

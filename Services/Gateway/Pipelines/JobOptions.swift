import ClusterCore
import GatewayAPI

/// What a request says of its job beside what the images are made of: when it is given up, and the client's own notes.
public struct JobOptions: Hashable, Sendable {
  /// Tags of a job at most.
  public static let maxTagCount = 16
  /// Members of a job's metadata at most.
  public static let maxMetadataCount = 16
  /// Characters of a tag, and of a key of the metadata.
  public static let maxNameLength = 64
  /// Characters of a value of the metadata.
  public static let maxValueLength = 512
  /// The last second of the year 9999.
  private static let lastSecond = 253_402_300_799

  /// When the job fails if it is not done, in seconds since 1970; nil: not said.
  public var deadline: Int?
  /// How long it may take; nil: not said.
  public var timeoutSeconds: Double?
  /// Words by which jobs are found, each once, in the client's order.
  public var tags: [String] = []
  /// What the client wants to find at the job again.
  public var metadata: [String: String] = [:]
  /// Where the client wants to be notified; nil: nowhere.
  public var webhook: WebhookRequest?

  /// Nothing said.
  public init() {}

  /// Reads the fields of a request.
  init(_ fields: inout FieldReader) throws(APIError) {
    deadline = try fields.integer("deadline", in: 1...Self.lastSecond)
    timeoutSeconds = try fields.number("timeout_seconds", in: 0.1...1e7)
    if deadline != nil, timeoutSeconds != nil {
      throw APIError(
        .invalidValue, "deadline and timeout_seconds are both there: give one of them", param: "timeout_seconds")
    }
    var known: Set<String> = []
    tags = (try fields.strings("tags", maxCount: Self.maxTagCount, length: 1...Self.maxNameLength) ?? []).filter {
      known.insert($0).inserted
    }
    metadata =
      try fields.stringMembers(
        "metadata", maxCount: Self.maxMetadataCount, keyLength: 1...Self.maxNameLength,
        valueLength: 0...Self.maxValueLength) ?? [:]
    if var members = try fields.object("webhook") {
      do throws(APIError) { webhook = try WebhookRequest(&members) } catch { throw error.inside("webhook") }
    }
  }

  /// When the job is given up, in milliseconds since 1970.
  ///
  /// - Parameters:
  ///   - nowMs: when it is submitted.
  ///   - limitMs: how long any job may take.
  /// - Throws: INVALID_ARGUMENT when that is past, or later than any job may take.
  public func deadlineAtMs(nowMs: Int64, limitMs: Int64) throws(Status) -> Int64 {
    if let deadline {
      let deadlineMs = Int64(deadline) * 1000
      guard deadlineMs > nowMs else {
        throw Status(.invalidArgument, "deadline is \(deadline), which has passed", field: "deadline")
      }
      guard deadlineMs <= nowMs + limitMs else {
        let limit = (nowMs + limitMs) / 1000
        throw Status(
          .invalidArgument,
          "deadline is \(deadline), but must be at most \(limit): jobs may take \(limitMs / 1000) seconds here",
          field: "deadline")
      }
      return deadlineMs
    }
    guard let timeoutSeconds else { return nowMs + limitMs }
    let timeoutMs = Int64((timeoutSeconds * 1000).rounded())
    guard timeoutMs <= limitMs else {
      throw Status(
        .invalidArgument, "timeout_seconds is \(timeoutSeconds), the limit of this server is \(limitMs / 1000)",
        field: "timeout_seconds")
    }
    return nowMs + timeoutMs
  }

  /// What is wrong with the notes of a job in the journal; nil: nothing.
  var problem: String? {
    let names = tags + metadata.keys
    guard tags.count <= Self.maxTagCount, metadata.count <= Self.maxMetadataCount,
      names.allSatisfy({ (1...Self.maxNameLength).contains($0.unicodeScalars.count) }),
      metadata.values.allSatisfy({ $0.unicodeScalars.count <= Self.maxValueLength })
    else { return "tags or metadata in the journal are beyond their limits" }
    return nil
  }
}

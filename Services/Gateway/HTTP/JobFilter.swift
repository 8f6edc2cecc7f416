import GatewayAPI
import Hummingbird
import Journal

/// The query of `GET /v1/jobs`.
struct JobFilter: Sendable {
  static let parameters: Set = [
    "limit", "after", "status", "model", "tag", "created_after", "created_before", "order",
  ]
  private static let maxValues = 16
  /// The last second of the year 9999.
  private static let lastSecond = 253_402_300_799

  /// For the journal, which does not tell queued jobs from running ones.
  private(set) var query = JobQuery()
  private(set) var statuses = Set(JobStatus.allCases)

  /// - Parameter model: the model that a name stands for.
  init(_ request: Request, model: (String) -> String) throws(APIError) {
    try request.checkQuery(Self.parameters)
    query.limit = try request.queryInteger("limit", in: 1...100) ?? 20
    query.model = request.uri.queryParameters["model"].map { model(String($0)) }
    query.tags = try request.queryTexts("tag", maxCount: Self.maxValues)
    let statuses = try request.queryTexts("status", maxCount: Self.maxValues).flatMap { $0.split(separator: ",") }
    if !statuses.isEmpty {
      self.statuses = []
      for text in statuses { self.statuses.insert(try Self.status(text)) }
      query.states = Set(self.statuses.map(\.stored))
    }
    let after = try request.queryInteger("created_after", in: 0...Self.lastSecond)
    let before = try request.queryInteger("created_before", in: 0...Self.lastSecond)
    // Times are shown in whole seconds, and these two leave out the one that they name.
    let (first, last) = (Int64(after.map { $0 + 1 } ?? 0) * 1000, Int64(before ?? Self.lastSecond) * 1000 - 1)
    if let after, let before, first > last {
      throw APIError(
        .invalidValue, "created_after is \(after) and created_before \(before): there is no second between them",
        param: "created_before")
    }
    query.submittedMs = min(first, max(last, 0))...max(last, 0)
    switch request.uri.queryParameters["order"] {
    case nil, "desc": break
    case "asc": query.isAscending = true
    case .some(let text):
      throw APIError(.invalidValue, "order is \"\(text.prefix(40))\", but must be asc or desc", param: "order")
    }
    query.after = request.uri.queryParameters["after"].map { Self.cursor(String($0)) }
  }

  private static func status(_ text: Substring) throws(APIError) -> JobStatus {
    guard let status = JobStatus(rawValue: String(text)) else {
      let list = JobStatus.allCases.map(\.rawValue).joined(separator: ", ")
      throw APIError(
        .invalidValue, "status has \"\(text.prefix(40))\", but must be one or several of \(list)", param: "status")
    }
    return status
  }

  // MARK: Places

  /// A place as clients have it: the time of the job in front of it, and the job.
  static func text(of cursor: JobCursor) -> String {
    cursor.submittedAtMs.map { "\($0)_\(cursor.job)" } ?? cursor.job
  }

  /// What ``text(of:)`` has made, or a job's id.
  private static func cursor(_ text: String) -> JobCursor {
    let parts = text.split(separator: "_", maxSplits: 1)
    guard parts.count == 2, parts[0].utf8.allSatisfy({ (0x30...0x39).contains($0) }), let ms = Int64(parts[0]),
      ms <= 1 << 53
    else { return JobCursor(job: text) }
    return JobCursor(job: String(parts[1]), submittedAtMs: ms)
  }
}

extension JobStatus {
  /// As the journal knows it.
  fileprivate var stored: StoredState {
    switch self {
    case .queued, .running: .open
    case .succeeded: .succeeded
    case .failed: .failed
    case .cancelled: .cancelled
    }
  }
}

extension Request {
  /// The values of a parameter that may come several times.
  fileprivate func queryTexts(_ name: String, maxCount: Int) throws(APIError) -> [String] {
    let values = uri.queryParameters[values: name[...]].map(String.init)
    guard values.count <= maxCount else {
      throw APIError(.invalidValue, "\(name) comes \(values.count) times, the limit is \(maxCount)", param: name)
    }
    return values
  }
}

import Journal

/// Where a shared journal is, and how it is used.
public struct PostgreSQLSettings: Hashable, Sendable {
  /// `postgresql://...` or a list of `keyword=value`, as libpq takes them.
  public var url: String
  /// A file whose first line is the password; read for every connection. Empty: as libpq finds it.
  public var passwordFile = ""
  /// The schema with the journal's tables, which is made when there is none.
  public var schema = "qwen_image"
  /// A gateway that has not renewed its lease for so long may lose its jobs to others.
  public var leaseSeconds = 10.0
  /// The most connections for reading.
  public var maxReaders = 4
  /// For each address.
  public var connectSeconds = 5
  /// The longest statement.
  public var statementSeconds = 30.0
  /// How long a write tries again before it says that the server cannot be reached.
  public var patienceSeconds = 10.0

  /// The defaults.
  public init(url: String) { self.url = url }

  /// What is wrong with the settings, for people, without secrets.
  public var complaints: [String] {
    var complaints: [String] = []
    let name = schema.utf8
    let isName =
      (1...40).contains(name.count)
      && name.allSatisfy { (97...122).contains($0) || (48...57).contains($0) || $0 == 95 }
      && name.first.map { $0 > 57 } == true && !schema.hasPrefix("pg_")
    if !isName {
      complaints.append(
        "journal.schema is \"\(schema)\", but must be 1 to 40 of a-z, 0-9 and _, and begin with a letter")
    }
    if !(1...3600).contains(leaseSeconds) {
      complaints.append("journal.leaseSeconds is \(leaseSeconds), but must be from 1 to 3600")
    }
    if !(1...64).contains(maxReaders) {
      complaints.append("the connections for reading are \(maxReaders), but must be from 1 to 64")
    }
    if (try? PostgresServer.parse(url)) == nil { complaints.append(PostgresServer.badAddress) }
    return complaints
  }

  func check() throws(JournalError) {
    if let complaint = complaints.first { throw .failed(operation: "open", reason: complaint) }
  }
}

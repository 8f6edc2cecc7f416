import Foundation
import Journal

/// Looks for what is not as it was written.
enum PostgresProblems {
  /// All that is wrong, for people; reads everything, a portion at a time, in the transaction that is open.
  static func all(_ connection: PostgresConnection) throws -> [String] {
    var problems: [String] = []
    for table in ["payloads", "inputs"] {
      var last: PostgresValue = table == "payloads" ? .integer(.min) : .text("")
      let key = table == "payloads" ? "id" : "digest"
      while true {
        // One by one: a payload may have hundreds of megabytes.
        let row = try connection.run([
          PostgresStatement("SELECT * FROM \(table) WHERE \(key) > $1 ORDER BY \(key) LIMIT 1", [last])
        ])[0].first
        guard let row else { break }
        last = try table == "payloads" ? .integer(row.integer(key)) : .text(row.text(key))
        do {
          if table == "payloads" { _ = try PostgresReading.payload(row) } else { _ = try PostgresReading.input(row) }
        } catch { problems.append("\(error)") }
      }
    }
    problems += try jobProblems(connection)
    problems += try connection.run([PostgresStatement(ofTables)])[0].rows.map { try $0.text("problem") }
    return problems
  }

  private static func jobProblems(_ connection: PostgresConnection) throws -> [String] {
    var problems: [String] = [], last = Int64.min
    while true {
      let numbers = try connection.run([
        PostgresStatement("SELECT number FROM jobs WHERE number > $1 ORDER BY number LIMIT 500", [.integer(last)])
      ])[0].rows.map { try $0.integer("number") }
      guard let end = numbers.last else { return problems }
      last = end
      for found in try PostgresReading.records(numbers, connection, isReading: true) {
        if case .failure(let error) = found.record { problems.append("\(error)") }
      }
    }
  }

  private static let ofTables = """
    SELECT 'delivery ' || number || ' is never due' AS problem FROM deliveries WHERE state = 0 AND next_ms IS NULL
    UNION ALL
    SELECT 'input ' || left(digest, 80) || ' belongs to nothing' FROM inputs
    WHERE NOT EXISTS (SELECT 1 FROM job_inputs WHERE job_inputs.digest = inputs.digest)
    UNION ALL
    SELECT 'payload ' || id || ' belongs to nothing' FROM payloads
    WHERE NOT EXISTS (SELECT 1 FROM outputs WHERE payload = id)
      AND NOT EXISTS (SELECT 1 FROM checkpoints WHERE payload = id)
      AND NOT EXISTS (SELECT 1 FROM images WHERE result = id)
    UNION ALL
    SELECT 'counted are ' || counted || ' bytes, but there are ' || there FROM (
      SELECT (SELECT coalesce(sum(bytes), 0) FROM writes) AS counted,
        (SELECT coalesce(sum(octet_length(bytes)), 0) FROM payloads)
        + (SELECT coalesce(sum(octet_length(bytes)), 0) FROM inputs)
        + (SELECT coalesce(sum(octet_length(request)), 0) FROM jobs) AS there) AS sums
    WHERE counted <> there
    """
}

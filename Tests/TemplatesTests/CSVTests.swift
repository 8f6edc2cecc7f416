import Templates
import Testing

/// Tables of comma-separated values.
@Suite("CSV") struct CSVTests {
  @Test func tablesAreRead() throws {
    let table = try CSV("\u{feff}prompt,seed,\"a \"\"name\"\"\"\r\n\"a cat,\nand \"\"a dog\"\"\",7,\r\n\nx, y ,z")
    #expect(table.header == ["prompt", "seed", "a \"name\""])
    #expect(table.rows.map(\.line) == [2, 5])
    #expect(table.rows.map(\.fields) == [["a cat,\nand \"a dog\"", "7", ""], ["x", " y ", "z"]])
  }

  @Test(arguments: [
    ("", "line 1: there is no header"), ("a,b\n1\n", "line 2: it has 1 fields, the header 2"),
    ("a,a\n", "line 1: two columns are named a"), ("a,\n", "line 1: a column has no name"),
    ("a\n\"x", "line 2: a quoted field has no end"), ("a\n\"x\"y\n", "line 2: a quoted field continues after its end"),
  ])
  func brokenTablesAreRefusedByLine(text: String, reason: String) {
    let failure = #expect(throws: CSV.Failure.self) { try CSV(text) }
    #expect(failure?.description == reason)
  }
}

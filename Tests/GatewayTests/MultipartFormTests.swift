import GatewayAPI
import TestSupport
import Testing

@Suite("Forms", .timeLimit(.minutes(2)))
struct MultipartFormTests {
  /// The form of `text`, in which lines end with a line feed for short.
  static func form(_ text: String, boundary: String = "b") throws(APIError) -> MultipartForm {
    try MultipartForm(Array(text.replacing("\n", with: "\r\n").utf8), boundary: boundary)
  }

  /// A part named `name` of a form with the boundary `b`.
  static func part(_ name: String, _ contents: [UInt8], fileName: String? = nil) -> [UInt8] {
    let file = fileName.map { "; filename=\"\($0)\"" } ?? ""
    return Array("--b\r\nContent-Disposition: form-data; name=\"\(name)\"\(file)\r\n\r\n".utf8) + contents
      + [0x0D, 0x0A]
  }

  static func form(_ parts: [[UInt8]]) throws(APIError) -> MultipartForm {
    try MultipartForm(parts.flatMap { $0 } + Array("--b--\r\n".utf8), boundary: "b")
  }

  private static func texts(_ form: MultipartForm) -> [String] {
    form.parts.map { "\($0.name)=\(String(decoding: $0.bytes, as: UTF8.self))" }
  }

  /// As recorded from each program, shortened.
  @Test(
    arguments: [
      // curl -F
      (
        "--b\nContent-Disposition: form-data; name=\"prompt\"\n\na cat\n--b\n"
          + "Content-Disposition: form-data; name=\"image\"; filename=\"a.png\"\n"
          + "Content-Type: image/png\n\nPNG\n--b--\n",
        ["prompt=a cat", "image=PNG"]
      ),
      // httpx, which the OpenAI client for Python uses: no line break at the end is asked for
      (
        "--b\nContent-Disposition: form-data; name=\"image[]\"; filename=\"upload\"\n"
          + "Content-Type: application/octet-stream\n\nA\n--b\n"
          + "Content-Disposition: form-data; name=\"image[]\"; filename=\"upload\"\n\nB\n--b--",
        ["image[]=A", "image[]=B"]
      ),
      // Node's fetch and browsers: a quotation mark in a name is percent-encoded
      (
        "--b\ncontent-disposition: form-data; name=\"image\"; filename=\"a%22b.png\"\n"
          + "content-type: image/png\n\nA\n--b--\n",
        ["image=A"]
      ),
      // without quotation marks, other letters, white space, other header fields
      (
        "--b\nCONTENT-DISPOSITION:form-data ; name=n ;filename=f\nContent-Length: 1\n"
          + "Content-Transfer-Encoding: binary\n\n1\n--b-- \n", ["n=1"]
      ),
      ("--b\nContent-Disposition: form-data; filename*=UTF-8''a%20b.png; name=image\n\nA\n--b--", ["image=A"]),
      // preamble, epilogue, white space after boundaries, empty contents
      (
        "preamble --b\n--b \t\nContent-Disposition: form-data; name=\"\\\"q\\\\\"\n\n\n--b--\nepilogue\n--b\n",
        ["\"q\\="]
      ),
      ("--b--", []), ("before\n--b--after", []),
    ] as [(String, [String])])
  func readsWhatProgramsSend(text: String, parts: [String]) throws {
    #expect(Self.texts(try Self.form(text)) == parts)
  }

  @Test func fileNamesSayWhetherAPartIsAFile() throws {
    let names = ["name=n", "name=n; filename=\"\"", "name=n; filename=\"C:\\a;b.png\"", "filename*=UTF-8''x; name=n"]
    let form = try Self.form(
      names.map { "--b\nContent-Disposition: form-data; \($0)\n\nx\n" }.joined() + "--b--")
    #expect(form.parts.map(\.fileName) == [nil, "", "C:\\a;b.png", "UTF-8''x"])
    #expect(form.parts.allSatisfy { $0.name == "n" })
  }

  /// What looks like a parameter within a quoted file name is none.
  @Test func aFileNameNamesNoField() throws {
    for disposition in [
      #"form-data; filename="a; name=evil"; name="image""#, #"form-data; filename="x\"; name=\"evil"; name=image"#,
      #"form-data; xname=evil; name=image; name=evil"#,
    ] {
      #expect(try Self.form("--b\nContent-Disposition: \(disposition)\n\nx\n--b--").parts.map(\.name) == ["image"])
    }
  }

  @Test func contentsAreKeptByteForByte() throws {
    for contents in [
      "", "\r\n", "\r\n\r\n", "--a", "x--b", "-- b\r\n", "\r\n--", "\r\n-b", "\r--b--", "\n--b--", "x\r", "x\r\n",
      "\0\u{FF}",
    ] {
      let bytes = Array(contents.utf8)
      let form = try Self.form([Self.part("n", bytes), Self.part("m", [1])])
      #expect(form.parts.map { Array($0.bytes) } == [bytes, [1]], "\(contents.debugDescription)")
    }
    let all = (0...255).map { UInt8($0) }
    let both = all + all.reversed()
    #expect(try Self.form([Self.part("n", both)]).parts.map { Array($0.bytes) } == [both])
  }

  struct Bad: CustomTestStringConvertible {
    var text: String
    /// What the message says.
    var says: String
    var testDescription: String { says }
    init(_ text: String, _ says: String) { (self.text, self.says) = (text, says) }
  }

  @Test(arguments: [
    Bad("", "it is empty"), Bad("hello", "its boundary is at the beginning of no line"),
    Bad("x--b\n", "its boundary is at the beginning of no line"),
    Bad("--bc\n\n\n--bc--", "boundary 1 is followed neither by CR LF nor by --"),
    Bad("--b", "boundary 1 is followed neither by CR LF nor by --"), Bad("--b\n", "part 1 has no end"),
    Bad("--b\nContent-Disposition: form-data; name=n\n\nx\n--b", "boundary 2 is followed neither"),
    Bad("--b\nContent-Disposition: form-data; name=n\n\nx\n--b-", "boundary 2 is followed neither"),
    Bad("--b\nContent-Disposition: form-data; name=n\n\nx", "part 1 has no end: the last boundary is missing"),
    Bad("--b\nContent-Disposition: form-data; name=n\n--b--", "the header of part 1 does not end with an empty line"),
    Bad("--b\n--b--", "the header of part 1 does not end with an empty line"),
    Bad("--b\n\nx\n--b--", "part 1 has no Content-Disposition"),
    Bad("--b\nContent-Type: text/plain\n\nx\n--b--", "part 1 has no Content-Disposition"),
    Bad("--b\nContent-Disposition: attachment; name=n\n\nx\n--b--", "of part 1 is not form-data"),
    Bad("--b\nContent-Disposition: form-data\n\nx\n--b--", "part 1 has no name"),
    Bad("--b\nContent-Disposition: form-data; name=\"\"\n\nx\n--b--", "part 1 has no name"),
    Bad("--b\nContent-Disposition: form-data; name*=UTF-8''n\n\nx\n--b--", "part 1 has no name"),
    Bad("--b\nContent-Disposition: form-data; name=\"n\n\nx\n--b--", "Content-Disposition of part 1 is not complete"),
    Bad(
      "--b\nContent-Disposition: form-data; name=\"n\"x\n\nx\n--b--",
      "Content-Disposition of part 1 is not complete"),
    Bad("--b\nContent-Disposition\n\nx\n--b--", "a line without a colon"),
    Bad(
      "--b\nContent-Disposition: form-data; name=n\nContent-Disposition: form-data; name=m\n\nx\n--b--",
      "part 1 has two Content-Disposition"),
    Bad(
      "--b\nContent-Disposition: form-data; name=n\nContent-Transfer-Encoding: base64\n\nx\n--b--",
      "part 1 has a Content-Transfer-Encoding"),
    Bad(
      "--b\nContent-Disposition: form-data; name=\(String(repeating: "n", count: 257))\n\nx\n--b--",
      "the name of part 1 has 257 bytes, the limit is 256"),
    Bad(
      "--b\nContent-Disposition: form-data; name=n; x=\(String(repeating: "x", count: 8200))\n\nx\n--b--",
      "the header of part 1 has no end within 8192 bytes"),
    Bad(
      "--b\n\(String(repeating: "a: b\n", count: 2000))Content-Disposition: form-data; name=n\n\nx\n--b--",
      "the header of part 1 has no end within 8192 bytes"),
  ])
  func refuses(bad: Bad) {
    do throws(APIError) {
      _ = try Self.form(bad.text)
      Issue.record("accepted")
    } catch {
      #expect(error.code == .malformedRequest)
      #expect(error.message.hasPrefix("the body is no multipart/form-data: "))
      #expect(error.message.contains(bad.says), "\(error.message)")
    }
  }

  @Test func linesEndWithCarriageReturnAndLineFeed() throws {
    let bytes = Array("--b\nContent-Disposition: form-data; name=n\n\nx\n--b--\n".utf8)
    #expect(throws: APIError.self) { try MultipartForm(bytes, boundary: "b") }
  }

  @Test func theHeadersLimitIsExact() throws {
    let start = "Content-Disposition: form-data; name=n; x="
    for (count, isTaken) in [(MultipartForm.maxHeaderBytes, true), (MultipartForm.maxHeaderBytes + 1, false)] {
      let header = start + String(repeating: "x", count: count - start.utf8.count)
      let form = try? Self.form("--b\n\(header)\n\nx\n--b--")
      #expect((form != nil) == isTaken, "\(count) bytes")
    }
  }

  @Test func aFormHasAtMost128Parts() throws {
    let part = Self.part("n", [1])
    #expect(try Self.form(Array(repeating: part, count: MultipartForm.maxParts)).parts.count == 128)
    for count in [MultipartForm.maxParts + 1, 10_000] {
      #expect(throws: APIError(.malformedRequest, "the body is no multipart/form-data: it has more than 128 parts")) {
        try Self.form(Array(repeating: part, count: count))
      }
    }
  }

  /// Cut anywhere and with any byte changed: an error or a form, never a trap, and never a part beyond the body.
  @Test func everyPrefixAndEveryChangedByteIsRead() throws {
    let whole =
      Array("preamble\r\n".utf8) + Self.part("prompt", Array("a cat".utf8))
      + Self.part("image[0]", [0, 13, 10, 45, 45, 97], fileName: "a;\\\"b.png") + Array("--b--\r\n".utf8)
    let last = whole.count - 3
    for count in 0..<whole.count {
      let form = try? MultipartForm(Array(whole[..<count]), boundary: "b")
      #expect((form != nil) == (count > last), "\(count) of \(whole.count) bytes")
    }
    var random = TestRandom("changed forms")
    for place in whole.indices {
      for byte in [0, 10, 13, 34, 45, 59, 61, 92, 255, UInt8.random(in: 0...255, using: &random)] as [UInt8] {
        var changed = whole
        changed[place] = byte
        guard let form = try? MultipartForm(changed, boundary: "b") else { continue }
        #expect(form.parts.allSatisfy { $0.bytes.startIndex >= 0 && $0.bytes.endIndex <= changed.count })
      }
    }
  }

  /// Ten times the bytes take no more than ten times the work. These would take minutes if a byte was looked at once
  /// for every semicolon, or once for every line.
  @Test func hostileFormsAreReadInLinearTime() throws {
    let semicolons = String(repeating: ";", count: 8000)
    let part = "--b\nContent-Disposition: form-data\(semicolons)x\n\nx\n"
    #expect(throws: APIError.self) { try Self.form(String(repeating: part, count: 128) + "--b--") }
    let named = "--b\nContent-Disposition: form-data; name=n\(semicolons)\n\nx\n"
    #expect(try Self.form(String(repeating: named, count: 128) + "--b--").parts.count == 128)
    let boundary = String(repeating: "-", count: 70)
    let almost = Array(repeating: Array("\r\n--\(boundary.dropLast())x".utf8), count: 500_000).flatMap { $0 }
    #expect(throws: APIError.self) { try MultipartForm(almost, boundary: boundary) }
  }

  @Test(
    arguments: [
      ("multipart/form-data; boundary=abc", "abc"), ("Multipart/Form-Data;BOUNDARY=\"a b\"", "a b"),
      ("multipart/form-data; charset=utf-8; boundary=----WebKitFormBoundaryX ", "----WebKitFormBoundaryX"),
      ("multipart/form-data; boundary=\"a;b\"; x=y", "a;b"), ("application/json", nil), ("", nil),
      ("multipart/mixed; boundary=b", nil), ("application/json; boundary=\"", nil),
      ("multipart/form-data; boundary=\(String(repeating: "x", count: 70))", String(repeating: "x", count: 70)),
    ] as [(String, String?)])
  func theBoundaryIsInTheContentType(type: String, boundary: String?) throws {
    #expect(try MultipartForm.boundary(of: type) == boundary)
  }

  @Test(arguments: [
    ("multipart/form-data", "has no boundary"), ("multipart/form-data; boundary=", "has no boundary"),
    ("multipart/form-data; boundary=\"\"", "has no boundary"),
    ("multipart/form-data; boundary=\"x", "is not complete"),
    (
      "multipart/form-data; boundary=\(String(repeating: "x", count: 71))",
      "the boundary has 71 bytes, the limit is 70"
    ),
  ])
  func aFormNeedsABoundary(type: String, says: String) {
    do throws(APIError) {
      _ = try MultipartForm.boundary(of: type)
      Issue.record("accepted")
    } catch {
      #expect(error.code == .malformedRequest && error.message.contains(says), "\(error)")
    }
  }
}

@Suite("Fields of forms")
struct FormFieldTests {
  private static func reader(_ fields: [(String, String)]) throws(APIError) -> FieldReader {
    try FieldReader(form: fields.map { (name: $0.0, value: $0.1) })
  }

  @Test func textsAreReadAsWhatIsAskedFor() throws {
    var fields = try Self.reader([
      ("prompt", "7"), ("n", "7"), ("scale", "3.5"), ("whole", "4"), ("yes", "true"), ("no", "False"),
      ("list", "[0.5, 1]"), ("one", "0.25"), ("object", #"{"left": 3}"#), ("empty", ""),
    ])
    #expect(try fields.string("prompt") == "7")
    #expect(try fields.integer("n", in: 0...9) == 7)
    #expect(try fields.number("scale", in: 0...9) == 3.5)
    #expect(try fields.number("whole", in: 0...9) == 4)
    #expect(try fields.bool("yes") == true)
    #expect(try fields.bool("no") == false)
    #expect(try fields.numbers("list", in: 0...1, maxCount: 2) == [0.5, 1])
    #expect(try fields.numbers("one", in: 0...1, maxCount: 2) == [0.25])
    var object = try #require(try fields.object("object"))
    #expect(try object.integer("left", in: 0...9) == 3)
    #expect(try fields.integer("empty", in: 0...9) == nil && !fields.has("empty"))
    try fields.refuseOthers()
  }

  @Test(arguments: ["1.0", "1e0", "0x1", "one", "1 2", "true", "[1]", "\"1\"", "null", "+1", "01", "٣", "NaN"])
  func otherTextsAreNoIntegers(text: String) throws {
    var fields = try Self.reader([("n", text)])
    #expect { try fields.integer("n", in: 0...9) } throws: {
      let error = $0 as? APIError
      return error?.param == "n" && error?.message.hasPrefix("n ") == true
    }
  }

  @Test func whatIsNeitherTrueNorFalseIsRefused() throws {
    for text in ["1", "yes", "on", "t", "null", "[true]"] {
      var fields = try Self.reader([("stream", text)])
      #expect(throws: APIError.self) { try fields.bool("stream") }
    }
  }

  /// A field that is to be a number is not parsed as a document of many megabytes.
  @Test func longTextsAreStrings() throws {
    var fields = try Self.reader([("n", "[" + String(repeating: "0,", count: 4_000_000) + "0]")])
    #expect(throws: APIError(.invalidType, "n must be an integer, not a string", param: "n")) {
      try fields.integer("n", in: 0...9)
    }
  }

  @Test func aFieldComesOnce() throws {
    #expect(throws: APIError(.invalidValue, "n comes twice", param: "n")) {
      try Self.reader([("n", "1"), ("m", "1"), ("n", "1")])
    }
    // What was left empty says nothing.
    var fields = try Self.reader([("n", "1"), ("n", ""), ("n", "")])
    #expect(try fields.integer("n", in: 0...9) == 1)
  }

  @Test func unknownFieldsAreRefused() throws {
    let fields = try Self.reader([("promt", "x")])
    #expect { try fields.refuseOthers() } throws: { ($0 as? APIError)?.param == "promt" }
  }
}

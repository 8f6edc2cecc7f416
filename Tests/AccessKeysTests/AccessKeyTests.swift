import AccessKeys
import Testing

@Suite("API keys")
struct AccessKeyTests {
  @Test func aKeyFitsItsOwnEntryOnly() throws {
    let keys = (0..<20).map { _ in AccessKey.generate() }
    let entries = keys.map { AccessEntry($0, tenant: "acme", limits: AccessLimits()) }
    for (index, key) in keys.enumerated() {
      #expect(entries.map { $0.admits(key) } == keys.indices.map { $0 == index })
    }
    #expect(Set(keys.map(\.text)).count == 20)
    #expect(!AccessEntry.dummy.admits(keys[0]))
    var other = Array(keys[0].text)
    other[other.count - 1] = other[other.count - 1] == "0" ? "1" : "0"
    #expect(!entries[0].admits(try #require(AccessKey(String(other)))))
  }

  @Test func entriesSurviveTheFile() throws {
    var limits = AccessLimits()
    (limits.weight, limits.maxJobs, limits.maxPixels, limits.maxSteps, limits.requestsPerMinute) = (
      2.5, 7, 1 << 20, 40, 60
    )
    let key = AccessKey.generate()
    let entries = [
      AccessEntry(key, tenant: "acme", limits: limits),
      AccessEntry(.generate(), tenant: "b-1_2.c", limits: AccessLimits()),
    ]
    let text = "# keys\n\n" + entries.map { $0.line + "   # comment\n" }.joined(separator: "\n")
    let read = try AccessFile.parse(text)
    #expect(read == entries)
    #expect(read[0].admits(key))
    #expect(!text.contains(key.text.suffix(64)), "the file does not hold the secret")
    #expect(try AccessFile.parse("# nothing\n\n") == [])
  }

  @Test func signaturesAreOfOneTextUnderOneEntry() throws {
    let entries = (0..<3).map { _ in AccessEntry(.generate(), tenant: "acme", limits: AccessLimits()) }
    let signature = entries[0].signature(of: "a")
    #expect(signature.count == 64)
    // The same for the entry as it is read from its file.
    #expect(try AccessFile.parse(entries[0].line)[0].isSignature(signature, of: "a"))
    for text in ["", "A", "a ", "b"] { #expect(!entries[0].isSignature(signature, of: text), "\(text)") }
    for entry in entries[1...] + [.dummy] {
      #expect(!entry.isSignature(signature, of: "a") && entry.signature(of: "a") != signature)
    }
    for odd in ["", "00", String(signature.dropLast(2)), signature + "00", String(signature.dropLast()) + "g"] {
      #expect(!entries[0].isSignature(odd, of: "a"), "\(odd)")
    }
    // It is not what the file holds.
    #expect(!entries[0].line.contains(signature))
  }

  @Test func textsThatAreNoKeysAreRefused() {
    let good = AccessKey.generate().text
    for text in [
      "", "sk-x", String(good.dropLast()), good + "0", good.uppercased(), good.replacing("-", with: "_"),
      "qwk--" + good,
    ] {
      #expect(AccessKey(text) == nil, "\(text)")
    }
    #expect(AccessKey(good)?.text == good)
  }

  @Test func wrongLinesAreNamed() throws {
    let line = AccessEntry(.generate(), tenant: "acme", limits: AccessLimits()).line
    let cases: [(String, String)] = [
      ("acme", "is not NAME=VALUE"), (line + " weight=0", "weight is 0"), (line + " weight=nan", "weight is nan"),
      (line + " max-steps=-1", "max-steps is -1"), (line + " bogus=1", "unknown field bogus"),
      (line + " tenant=b", "tenant is there twice"),
      (line.replacing("tenant=acme", with: "tenant=a/b"), "tenant must be"),
      (line.replacing("tenant=acme", with: ""), "tenant is missing"),
      (String(line.dropLast()), "hmac-sha256 must have 64"), (line.replacing("id=", with: "id=zz"), "id must have"),
      (line + "\n" + line, "is there twice"), ("x=" + String(repeating: "x", count: 9 << 20), "the limit is"),
    ]
    for (text, reason) in cases {
      #expect { try AccessFile.parse("#\n" + text) } throws: { "\($0)".contains(reason) }
    }
    #expect { try AccessFile.parse("#\n" + line + " x") } throws: { "\($0)".hasPrefix("line 2: ") }
    var limits = AccessLimits()
    limits.maxJobs = 3
    let other = AccessEntry(.generate(), tenant: "acme", limits: limits).line
    #expect { try AccessFile.parse(line + "\n" + other) } throws: {
      "\($0)".contains("other limits in an earlier line")
    }
  }
}

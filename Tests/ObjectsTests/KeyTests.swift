import Foundation
import Objects
import Testing

@Suite("Keys of objects")
struct KeyTests {
  @Test func aKeySaysWhatItsContentIs() throws {
    let bytes = Data("abc".utf8)
    let key = ObjectKey(of: bytes)
    // FIPS 180-4's example.
    #expect(key.name.hasPrefix("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad-"))
    #expect(key.isKey(of: bytes))
    #expect(!key.isKey(of: Data("abd".utf8)))
    #expect(key.sha256.prefix(3) == [0xba, 0x78, 0x16])
    #expect(ObjectKey(key.name) == key)
    #expect(ObjectKey(path: key.path) == key)
    #expect(key.path == "ba/\(key.name)")
  }

  @Test func noTwoKeysAreTheSame() {
    let keys = Set((0..<1000).map { _ in ObjectKey(of: Data()) })
    #expect(keys.count == 1000)
    #expect(keys.allSatisfy { ObjectKey($0.name) == $0 }, "all names have the same length")
  }

  @Test(arguments: ["", "..", "../../etc/passwd", "ba/x", String(repeating: "0", count: 81)])
  func whatIsNoKeyIsRefused(name: String) {
    #expect(ObjectKey(name) == nil)
    #expect(ObjectKey(path: name) == nil)
  }

  @Test func pathsAndNamesMustAgree() {
    let key = ObjectKey(of: Data())
    #expect(ObjectKey(key.name.uppercased()) == nil)
    #expect(ObjectKey(path: "ff/\(key.name)") == nil)
    #expect(ObjectKey(path: "e3-\(key.name)") == nil)
    #expect(ObjectKey(key.name + "0") == nil)
  }
}

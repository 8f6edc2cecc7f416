import Hashing
import TestSupport
import Testing

@Suite struct HashingTests {
  /// The examples of FIPS 180-4, and lengths around those of a block (64 bytes) and of its padding.
  @Test(arguments: [
    (text: "", digest: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    ("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    (
      "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
      "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
    ),
    (String(repeating: "a", count: 55), "9f4390f8d30c2dd92ec9f095b65e2b9ae9b0a925a5258e241c9f1e910f734318"),
    (String(repeating: "a", count: 64), "ffe054fe7ae0cb6dc65c3af9b61d5209f439851db43d0ba5997337df154668eb"),
    (String(repeating: "a", count: 1_000_000), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"),
  ]) func knownDigests(text: String, digest: String) {
    #expect(hexadecimal(SHA256.hash(text.utf8)) == digest)
  }

  @Test func piecesOfAnySizeGiveTheSameDigest() {
    var random = TestRandom("pieces")
    let bytes = (0..<10_000).map { _ in UInt8.random(in: 0...255, using: &random) }
    let whole = SHA256.hash(bytes)
    for _ in 0..<20 {
      var hash = SHA256()
      var rest = bytes[...]
      while !rest.isEmpty {
        let piece = rest.prefix(Int.random(in: 0...200, using: &random))
        hash.update(piece)
        rest = rest.dropFirst(piece.count)
      }
      #expect(hash.finalize() == whole)
    }
  }

  /// The first, second, third and sixth case of RFC 4231: short and long keys.
  @Test(arguments: [
    (
      key: Array(repeating: UInt8(0x0b), count: 20), message: Array("Hi There".utf8),
      code: "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
    ),
    (
      Array("Jefe".utf8), Array("what do ya want for nothing?".utf8),
      "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    ),
    (
      Array(repeating: 0xaa, count: 20), Array(repeating: 0xdd, count: 50),
      "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"
    ),
    (
      Array(repeating: 0xaa, count: 131), Array("Test Using Larger Than Block-Size Key - Hash Key First".utf8),
      "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
    ),
  ]) func knownCodes(key: [UInt8], message: [UInt8], code: String) {
    let bytes = HMACSHA256.code(for: message, key: key)
    #expect(hexadecimal(bytes) == code)
    #expect(HMACSHA256.isValid(bytes, for: message, key: key))
  }

  @Test func codesThatDifferAnywhereAreNotValid() {
    let (message, key) = (Array("message".utf8), Array("key".utf8))
    let code = HMACSHA256.code(for: message, key: key)
    for index in code.indices {
      var other = code
      other[index] ^= 1
      #expect(!HMACSHA256.isValid(other, for: message, key: key))
    }
    #expect(!HMACSHA256.isValid([], for: message, key: key))
    #expect(!HMACSHA256.isValid(Array(code.dropLast()), for: message, key: key))
    #expect(!HMACSHA256.isValid(code + [0], for: message, key: key))
    #expect(!HMACSHA256.isValid(code, for: message, key: Array("Key".utf8)))
    #expect(!HMACSHA256.isValid(HMACSHA256.code(for: [], key: []), for: message, key: []))
  }
}

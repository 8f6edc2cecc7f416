import Foundation
import Hashing
import ImageCodec
import Provenance
import Testing

@Suite("Content Credentials", .timeLimit(.minutes(2))) struct ContentCredentialsTests {
  private static func identity(_ authority: TestAuthority, chain: String = "signer.chain") throws -> SigningIdentity {
    try SigningIdentity(
      certificateFile: authority.path(chain), keyFile: authority.path("signer.key"),
      nowUnix: authority.nowUnix)
  }

  /// The manifest store of a file, and where it is.
  static func store(of file: [UInt8]) throws -> (box: ReadBox, range: Range<Int>) {
    let pieces = try ReadPiece.all(of: file).filter { ["caBX", "APP11", "C2PA"].contains($0.kind) }
    let first = try #require(pieces.first), last = try #require(pieces.last)
    guard first.kind == "APP11" else {
      #expect(pieces.count == 1)
      return (try ReadBox(first.data), first.range)
    }
    // "JP", the box's number, the part's number, and the header of the box, which each part repeats.
    var bytes = Array(first.data[8..<16])
    for (index, piece) in pieces.enumerated() {
      #expect(Array(piece.data[..<8]) == Array("JP".utf8) + [0, 1, 0, 0, 0, UInt8(index + 1)])
      #expect(piece.data[8..<16] == first.data[8..<16])
      bytes += piece.data[16...]
      #expect(index == 0 || piece.range.lowerBound == pieces[index - 1].range.upperBound)
    }
    return (try ReadBox(bytes), first.range.lowerBound..<last.range.upperBound)
  }

  /// The CBOR value in a box.
  private static func value(_ box: ReadBox?) throws -> ReadValue {
    let content = try #require(box?.content)
    return try ReadValue(content)
  }

  /// Checks the digests of a file by the rules of C2PA.
  private static func check(_ file: [UInt8], _ manifest: ReadBox, _ range: Range<Int>) throws {
    let claim = try Self.value(manifest["c2pa.claim.v2"])
    let store = try #require(manifest["c2pa.assertions"])
    let references = claim["created_assertions"]
    #expect(references?.count == store.boxes.count)
    for (index, box) in store.boxes.enumerated() {
      #expect(references?[index]?["url"]?.text == "self#jumbf=c2pa.assertions/\(box.label)")
      #expect(references?[index]?["hash"]?.bytes == SHA256.hash(box.payload))
    }
    let binding = try Self.value(store["c2pa.hash.data"])
    let exclusion = try #require(binding["exclusions"]?[0])
    #expect(binding["exclusions"]?.count == 1)
    #expect(exclusion["start"]?.number == range.lowerBound && exclusion["length"]?.number == range.count)
    #expect(
      binding["hash"]?.bytes == SHA256.hash(file[..<range.lowerBound] + file[range.upperBound...]))
    #expect(claim["signature"]?.text == "self#jumbf=/c2pa/\(manifest.label)/c2pa.signature")
    #expect(claim["alg"]?.text == "sha256" && binding["alg"]?.text == "sha256")
    #expect(binding["pad"]?.bytes?.allSatisfy { $0 == 0 } == true)
  }

  /// Checks the signature of a manifest with OpenSSL's command line.
  private static func checkSignature(_ manifest: ReadBox, _ authority: TestAuthority, chain: [String]) async throws {
    let cose = try Self.value(manifest["c2pa.signature"])
    guard case .tagged(18, let parts) = cose else {
      Issue.record("no COSE_Sign1")
      return
    }
    let protected = try #require(parts[0]?.bytes), numbers = try #require(parts[3]?.bytes)
    #expect(parts[1] == .map([:]) && parts[2] == .simple(22) && numbers.count == 64)
    let header = try ReadValue(protected)
    #expect(header[.number(1)] == .number(-7))
    let certificates = try chain.map { name in
      let lines = try authority.read("\(name).pem").split(separator: "\n").filter { !$0.hasPrefix("-----") }
      return ReadValue.bytes(Array(try #require(Data(base64Encoded: lines.joined()))))
    }
    #expect(header[.number(33)] == (certificates.count == 1 ? certificates[0] : .array(certificates)))
    // Sig_structure of RFC 9052, written out: an array of a text and three byte strings.
    func string(_ bytes: [UInt8]) -> [UInt8] { [0x59, UInt8(bytes.count >> 8), UInt8(bytes.count & 0xff)] + bytes }
    let payload = try #require(manifest["c2pa.claim.v2"]?.content)
    #expect(protected.count > 255 && payload.count > 255)
    let message = [0x84, 0x6a] + Array("Signature1".utf8) + string(protected) + [0x40] + string(payload)
    func integer(_ bytes: ArraySlice<UInt8>) -> [UInt8] {
      let short = Array(bytes.drop { $0 == 0 })
      let value = (short.first ?? 0x80) >= 0x80 ? [0] + short : short
      return [0x02, UInt8(value.count)] + value
    }
    let sequence = integer(numbers[..<32]) + integer(numbers[32...])
    let files = (
      message: authority.folder.appending(path: "message"), signature: authority.folder.appending(path: "der")
    )
    try Data(message).write(to: files.message)
    try Data([0x30, UInt8(sequence.count)] + sequence).write(to: files.signature)
    try authority.write(
      try await authority.openssl(["x509", "-in", authority.path("signer.pem"), "-pubkey", "-noout"]), to: "public")
    let answer = try await authority.openssl([
      "dgst", "-sha256", "-verify", authority.path("public"), "-signature", files.signature.path, files.message.path,
    ])
    #expect(answer.contains("Verified OK"))
  }

  @Test("files of all formats are bound to their bytes and signed", arguments: TestFiles.encodings)
  func formats(encoding: ImageEncoding) async throws {
    let authority = try await TestAuthority()
    try await authority.certificate("signer")
    let identity = try Self.identity(authority), origin = ImageOrigin(TestFiles.metadata)
    for hasXMP in [true, false] {
      let plain = try TestFiles.file(encoding)
      let marked = hasXMP ? try XMP.adding(origin, to: plain) : plain
      let file = try ContentCredentials.adding(origin, signedBy: identity, to: marked)
      #expect(try ImageFile.decode(file) == ImageFile.decode(plain))
      #expect(try XMPTests.packet(of: file) == (hasXMP ? XMP.packet(origin) : nil))
      let (store, range) = try Self.store(of: file)
      #expect(store.payload.count.isMultiple(of: 2), "an odd chunk of RIFF is filled up")
      #expect(store.kind == "c2pa" && store.label == "c2pa" && store.boxes.count == 1)
      let manifest = try #require(store.boxes.first)
      #expect(
        manifest.kind == "c2ma"
          && manifest.label.wholeMatch(of: /urn:c2pa:[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}/) != nil)
      #expect(manifest.boxes.map(\.kind) == ["c2as", "c2cl", "c2cs"])
      try Self.check(file, manifest, range)
      try await Self.checkSignature(manifest, authority, chain: ["signer", "issuer"])
      // Another signature and other names, of the same length or a few bytes more or less.
      let again = try ContentCredentials.adding(origin, signedBy: identity, to: marked)
      #expect(again != file && again.count == file.count)
    }
  }

  @Test("what was done is said, and with which images")
  func actions() async throws {
    let authority = try await TestAuthority()
    try await authority.certificate("signer")
    let identity = try Self.identity(authority, chain: "signer.pem")
    func assertions(_ origin: ImageOrigin) async throws -> ReadBox {
      let file = try ContentCredentials.adding(origin, signedBy: identity, to: TestFiles.file(.png))
      let manifest = try #require(try Self.store(of: file).box.boxes.first)
      try await Self.checkSignature(manifest, authority, chain: ["signer"])
      return try #require(manifest["c2pa.assertions"])
    }
    var origin = ImageOrigin(
      sourceType: .trainedAlgorithmicMedia, model: "Qwen/Qwen-Image", softwareVersion: "1.2")
    let created = try await assertions(origin)
    #expect(created.boxes.map(\.label) == ["c2pa.actions.v2", "c2pa.hash.data"])
    let only = try Self.value(created["c2pa.actions.v2"])["actions"]
    #expect(only?.count == 1 && only?[0]?["action"]?.text == "c2pa.created" && only?[0]?["parameters"] == nil)
    #expect(only?[0]?["digitalSourceType"]?.text == DigitalSourceType.trainedAlgorithmicMedia.uri)
    #expect(
      only?[0]?["softwareAgent"] == .map([.text("name"): .text("qwen-image-cluster"), .text("version"): .text("1.2")]))
    #expect(only?[0]?["description"]?.text == "Made by the model Qwen/Qwen-Image")

    let roles: [ImageOrigin.Ingredient.Role] = [.image, .image, .mask, .control]
    origin.ingredients = roles.enumerated().map { .init(role: $1, sha256: "\($0)") }
    origin.sourceType = .compositeWithTrainedAlgorithmicMedia
    let edited = try await assertions(origin)
    let labels = ["c2pa.ingredient.v3"] + (1...3).map { "c2pa.ingredient.v3__\($0)" }
    #expect(edited.boxes.map(\.label) == labels + ["c2pa.actions.v2", "c2pa.hash.data"])
    let ingredients = try edited.boxes.prefix(4).map { try ReadValue(try #require($0.content)) }
    #expect(ingredients.map { $0["relationship"]?.text } == ["parentOf", "inputTo", "inputTo", "inputTo"])
    #expect(ingredients.map { $0["dc:title"]?.text } == ["image", "image 2", "mask", "control image"])
    #expect(ingredients[2]["description"]?.text == "SHA-256 of the file: 2")
    let both = try #require(try Self.value(edited["c2pa.actions.v2"])["actions"])
    #expect(both.count == 2 && both[0]?["action"]?.text == "c2pa.opened" && both[1]?["action"]?.text == "c2pa.edited")
    #expect(both[1]?["digitalSourceType"]?.text == DigitalSourceType.compositeWithTrainedAlgorithmicMedia.uri)
    func urls(_ action: Int) -> [String?] {
      let list = both[action]?["parameters"]?["ingredients"]
      return (0..<(list?.count ?? 0)).map { list?[$0]?["url"]?.text }
    }
    #expect(urls(0) == ["self#jumbf=c2pa.assertions/\(labels[0])"])
    #expect(urls(1) == labels.dropFirst().map { "self#jumbf=c2pa.assertions/\($0)" })

    origin.ingredients = [.init(role: .control, sha256: "0")]
    let controlled = try Self.value(try await assertions(origin)["c2pa.actions.v2"])["actions"]
    #expect(controlled?.count == 1 && controlled?[0]?["action"]?.text == "c2pa.created")
    #expect(controlled?[0]?["parameters"]?["ingredients"]?.count == 1)
    origin.ingredients = (0..<65).map { .init(role: .image, sha256: "\($0)") }
    #expect(throws: ProvenanceError.tooLarge("ingredients", found: 65, limit: 64)) {
      try ContentCredentials.adding(origin, signedBy: identity, to: TestFiles.file(.png))
    }
  }

  @Test("a manifest that is longer than a JPEG segment is in several")
  func longManifest() async throws {
    let authority = try await TestAuthority()
    try await authority.certificate("signer")
    var origin = ImageOrigin(TestFiles.metadata)
    origin.ingredients = (0..<64).map { .init(role: .image, sha256: String(repeating: "\($0 % 10)", count: 1500)) }
    for encoding in TestFiles.encodings {
      let file = try ContentCredentials.adding(
        origin, signedBy: Self.identity(authority), to: TestFiles.file(encoding))
      let (store, range) = try Self.store(of: file)
      #expect(range.count > 65_535)
      try Self.check(file, try #require(store.boxes.first), range)
      #expect(try ImageFile.decode(file) == ImageFile.decode(TestFiles.file(encoding)))
    }
  }
}

import Hashing
import ImageCodec

/// C2PA manifests ("Content Credentials", C2PA specification 2.1): what an image file says about its origin, bound to
/// its bytes and signed.
public enum ContentCredentials {
  /// The file with a manifest. Two manifests of one file differ: in their random names, and in the signature.
  ///
  /// - Parameters:
  ///   - file: one that the encoders of this software have written, without a manifest.
  ///   - origin: what is signed.
  ///   - identity: who signs.
  /// - Throws: ``ProvenanceError``.
  public static func adding(
    _ origin: ImageOrigin, signedBy identity: SigningIdentity, to file: [UInt8]
  ) throws(ProvenanceError) -> [UInt8] {
    let container = try ImageContainer(file)
    let manifest = Manifest(origin: origin, identity: identity)
    // The manifest says where it is in the file, so its length depends on itself: lengths only grow, by a few bytes.
    func block(excluding range: Range<Int>, _ digest: [UInt8]?) throws(ProvenanceError) -> [UInt8] {
      try container.block(.manifest(manifest.store(excluding: range, digest: digest)))
    }
    var (result, range) = try container.inserting(.manifest([]))
    var placeholder = try block(excluding: range, nil)
    while placeholder.count != range.count {
      range = range.lowerBound..<range.lowerBound + placeholder.count
      placeholder = try block(excluding: range, nil)
    }
    (result, range) = try container.inserting(.manifest(manifest.store(excluding: range, digest: nil)))
    let signed = try block(excluding: range, digest(of: result, without: range))
    precondition(signed.count == range.count, "a signature of another length than its placeholder")
    result.replaceSubrange(range, with: signed)
    return result
  }

  private static func digest(of file: [UInt8], without range: Range<Int>) -> [UInt8] {
    file.withUnsafeBytes { bytes in
      var hash = SHA256()
      hash.update(UnsafeRawBufferPointer(rebasing: bytes[..<range.lowerBound]))
      hash.update(UnsafeRawBufferPointer(rebasing: bytes[range.upperBound...]))
      return hash.finalize()
    }
  }
}

/// One manifest, before it knows the bytes that it is bound to.
private struct Manifest {
  private static let zeros = [UInt8](repeating: 0, count: SHA256.byteCount)
  /// Most ingredients that are named.
  private static let maxIngredients = 64
  private static let assertions = "c2pa.assertions", claim = "c2pa.claim.v2", signature = "c2pa.signature"

  private let origin: ImageOrigin
  private let identity: SigningIdentity
  private let label = "urn:c2pa:\(RandomUUID.make())"
  private let instance = "xmp:iid:\(RandomUUID.make())"

  init(origin: ImageOrigin, identity: SigningIdentity) {
    self.origin = origin
    self.identity = identity
  }

  /// The store with the manifest, as a superbox.
  ///
  /// - Parameters:
  ///   - excluding: where the store is in the file, with what encloses it there.
  ///   - digest: SHA-256 of the rest of the file; nil: zeros take its place and that of the signature.
  func store(excluding: Range<Int>, digest: [UInt8]?) throws(ProvenanceError) -> [UInt8] {
    // Of even length: RIFF fills odd chunks up, and readers do not agree whether that byte is excluded.
    let count = try store(excluding: excluding, digest: nil, padding: 0).count
    return try store(excluding: excluding, digest: digest, padding: count % 2)
  }

  private func store(excluding: Range<Int>, digest: [UInt8]?, padding: Int) throws(ProvenanceError) -> [UInt8] {
    guard origin.ingredients.count <= Self.maxIngredients else {
      throw .tooLarge("ingredients", found: origin.ingredients.count, limit: Self.maxIngredients)
    }
    let ingredients = try ingredientBoxes()
    let references = try ingredients.map { box throws(ProvenanceError) in try Self.reference(to: box) }
    let others = [
      try JUMBFBox(.cbor, "c2pa.actions.v2", cbor: actions(references)),
      try JUMBFBox(.cbor, "c2pa.hash.data", cbor: Self.binding(excluding, digest ?? Self.zeros, padding: padding)),
    ]
    let all = try references + others.map { box throws(ProvenanceError) in try Self.reference(to: box) }
    let claim = claimValue(all)
    let signature = try CoseSign1(payload: try claim.encoded(), identity: identity, isSigned: digest != nil)
    return try JUMBFBox(
      .store, "c2pa",
      [
        JUMBFBox(
          .manifest, label,
          [
            JUMBFBox(.assertionStore, Self.assertions, ingredients + others),
            try JUMBFBox(.claim, Self.claim, cbor: claim),
            try JUMBFBox(.signature, Self.signature, cbor: signature.value),
          ])
      ]
    ).encoded()
  }

  // MARK: Claim

  private var generator: CBOR {
    .object(["name": .text(ImageMetadata.software), "version": .text(origin.softwareVersion)])
  }

  private func claimValue(_ assertions: [CBOR]) -> CBOR {
    .object([
      "instanceID": .text(instance), "claim_generator_info": generator,
      "signature": .text("self#jumbf=/c2pa/\(label)/\(Self.signature)"), "created_assertions": .array(assertions),
      "alg": .text("sha256"),
    ])
  }

  /// A hashed URI of an assertion of this manifest.
  private static func reference(to box: JUMBFBox) throws(ProvenanceError) -> CBOR {
    .object([
      "url": .text("self#jumbf=\(assertions)/\(box.label)"), "hash": .bytes(SHA256.hash(try box.payload())),
    ])
  }

  // MARK: Assertions

  /// What binds the manifest to the file's other bytes.
  private static func binding(_ range: Range<Int>, _ digest: [UInt8], padding: Int) -> CBOR {
    .object([
      "exclusions": .array([.object(["start": CBOR(range.lowerBound), "length": CBOR(range.count)])]),
      "name": .text("jumbf manifest"), "alg": .text("sha256"), "hash": .bytes(digest),
      "pad": .bytes([UInt8](repeating: 0, count: padding)),
    ])
  }

  /// The place of the ingredient that was edited: the first image.
  private var parent: Int? { origin.ingredients.firstIndex { $0.role == .image } }

  private func ingredientBoxes() throws(ProvenanceError) -> [JUMBFBox] {
    var counts: [ImageOrigin.Ingredient.Role: Int] = [:], boxes: [JUMBFBox] = []
    for (index, ingredient) in origin.ingredients.enumerated() {
      let number = counts[ingredient.role, default: 0] + 1
      counts[ingredient.role] = number
      let title = ingredient.role.title + (number == 1 ? "" : " \(number)")
      let value = CBOR.object([
        "dc:title": .text(title), "relationship": .text(index == parent ? "parentOf" : "inputTo"),
        "description": .text("SHA-256 of the file: \(ingredient.sha256)"),
      ])
      boxes.append(try JUMBFBox(.cbor, "c2pa.ingredient.v3" + (index == 0 ? "" : "__\(index)"), cbor: value))
    }
    return boxes
  }

  /// What was done: the image was created, or one was opened and then edited.
  private func actions(_ ingredients: [CBOR]) -> CBOR {
    let inputs = ingredients.enumerated().filter { $0.offset != parent }.map(\.element)
    let work = CBOR.object([
      "action": .text(parent == nil ? "c2pa.created" : "c2pa.edited"),
      "digitalSourceType": .text(origin.sourceType.uri), "softwareAgent": generator,
      "description": .text("Made by the model \(origin.model)"),
      "parameters": inputs.isEmpty ? nil : .object(["ingredients": .array(inputs)]),
    ])
    guard let parent else { return .object(["actions": .array([work])]) }
    let opened = CBOR.object([
      "action": .text("c2pa.opened"), "parameters": .object(["ingredients": .array([ingredients[parent]])]),
    ])
    return .object(["actions": .array([opened, work])])
  }
}

extension ImageOrigin.Ingredient.Role {
  /// For people.
  fileprivate var title: String {
    switch self {
    case .image: "image"
    case .control: "control image"
    case .mask: "mask"
    }
  }
}

/// A signature in COSE (RFC 9052, COSE_Sign1) with ES256 and the signer's certificates, without what is signed.
private struct CoseSign1 {
  let value: CBOR

  /// - Parameter isSigned: if not, zeros take the place of the signature.
  init(payload: [UInt8], identity: SigningIdentity, isSigned: Bool) throws(ProvenanceError) {
    let (algorithm, es256, x5chain, tag) = (CBOR(1), CBOR(-7), CBOR(33), UInt64(18))
    let chain = identity.certificates.map { CBOR.bytes($0) }
    let header = try CBOR.map([
      CBOR.Entry(algorithm, es256), CBOR.Entry(x5chain, chain.count == 1 ? chain[0] : .array(chain)),
    ]).encoded()
    let message = CBOR.array([.text("Signature1"), .bytes(header), .bytes([]), .bytes(payload)])
    let signature =
      isSigned
      ? try identity.signature(of: try message.encoded()) : [UInt8](repeating: 0, count: 64)
    value = .tagged(tag, .array([.bytes(header), .map([]), .null, .bytes(signature)]))
  }
}

/// Random UUIDs (RFC 9562, version 4).
private enum RandomUUID {
  /// In the usual form, lower-case.
  static func make() -> String {
    var bytes = (0..<16).map { _ in UInt8.random(in: .min ... .max) }
    bytes[6] = bytes[6] & 0x0f | 0x40
    bytes[8] = bytes[8] & 0x3f | 0x80
    let digits = Array(hexadecimal(bytes))
    return [0..<8, 8..<12, 12..<16, 16..<20, 20..<32].map { String(digits[$0]) }.joined(separator: "-")
  }
}

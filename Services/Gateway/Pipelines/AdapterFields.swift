import ClusterCore
import GatewayAPI
import StrictJSON

/// An adapter that a request asks for: an element of `loras`.
public struct RequestedAdapter: Hashable, Sendable {
  /// The field's name; also the key of ``ImageSpec/options`` and of the images' metadata.
  public static let field = "loras"

  /// As workers call it.
  public var name: String
  /// How much of it acts.
  public var scale: Double
  /// SHA-256 of its contents, in hexadecimal; nil: of those that workers have under the name.
  public var digest: String?

  /// See the properties.
  public init(name: String, scale: Double = 1, digest: String? = nil) {
    self.name = name
    self.scale = scale
    self.digest = digest
  }

  /// Reads the list; empty when the field is absent.
  static func list(_ fields: inout FieldReader) throws(APIError) -> [RequestedAdapter] {
    let elements = try fields.objects(field, minCount: 0, maxCount: ChosenAdapter.maxCount) ?? []
    let list = try elements.enumerated().map { (index, element) throws(APIError) in
      var element = element
      do throws(APIError) { return try RequestedAdapter(&element) } catch { throw error.inside("\(field)[\(index)]") }
    }
    for (index, adapter) in list.enumerated() where list[..<index].contains(where: { $0.name == adapter.name }) {
      throw APIError(
        .invalidValue, "\(field)[\(index)].name is \"\(adapter.name)\", which is there before: give it one scale",
        param: field)
    }
    return list
  }

  private init(_ fields: inout FieldReader) throws(APIError) {
    guard let name = try fields.nonEmptyString("name") else {
      throw APIError(.missingField, "name is missing: the adapter's, as GET /v1/models shows it", param: "name")
    }
    guard AdapterName.isValid(name) else {
      throw APIError(.invalidValue, "name is \"\(name.prefix(80))\", but must be \(AdapterName.rule)", param: "name")
    }
    let digest = try fields.nonEmptyString("sha256")
    if let digest, !AdapterDigest.isValid(digest) {
      throw APIError(
        .invalidValue, "sha256 is \"\(digest.prefix(80))\", but must be 64 digits of 0-9 and a-f", param: "sha256")
    }
    self.init(name: name, scale: try fields.number("scale", in: ChosenAdapter.scales) ?? 1, digest: digest)
    try fields.refuseOthers()
  }
}

extension GenerationRequest {
  /// The adapters as ``ImageSpec/options`` have them; nil: there are none.
  ///
  /// - Throws: when it was not found out what the names stand for.
  func lorasOption() throws(APIError) -> JSON? {
    guard !loras.isEmpty else { return nil }
    return .array(
      try loras.map { (adapter) throws(APIError) in
        guard let digest = adapter.digest else {
          throw APIError(.internalError, "the contents of \(adapter.name) are not known", param: RequestedAdapter.field)
        }
        // By their names in order, as the journal reads them.
        return [
          "name": .string(adapter.name), "scale": .number(JSONNumber(adapter.scale)), "sha256": .string(digest),
        ]
      })
  }
}

extension ImageSpec {
  /// Adapters that act together, in their order. Those of several edits are the same in each.
  public var adapters: [ChosenAdapter] { (adapterElements ?? []).compactMap { ChosenAdapter(option: $0) } }

  /// What is wrong with what the journal says of adapters; nil: nothing.
  var adapterProblem: String? {
    guard let option = options[RequestedAdapter.field] else { return nil }
    guard let elements = option.elements, (1...ChosenAdapter.maxCount).contains(elements.count),
      elements.allSatisfy({ ChosenAdapter(option: $0) != nil })
    else { return "\(RequestedAdapter.field) is no list of 1 to \(ChosenAdapter.maxCount) adapters" }
    return nil
  }

  private var adapterElements: [JSON]? { options[RequestedAdapter.field]?.elements }
}

extension ChosenAdapter {
  /// An element of the option; nil: it is none.
  fileprivate init?(option: JSON) {
    guard let name = option["name"]?.text, AdapterName.isValid(name), let digest = option["sha256"]?.text,
      AdapterDigest.isValid(digest), let scale = option["scale"]?.double, Self.scales.contains(scale)
    else { return nil }
    self.init(name: name, digest: digest, scale: scale)
  }
}

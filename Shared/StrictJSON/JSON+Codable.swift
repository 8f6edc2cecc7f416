extension JSON: Codable {
  /// Reads any JSON value; numbers as integers where they are.
  public init(from decoder: any Decoder) throws {
    if let values = try? decoder.container(keyedBy: AnyKey.self) {
      var members = JSONObject()
      for key in values.allKeys.sorted(by: { $0.stringValue < $1.stringValue }) {
        members[key.stringValue] = try values.decode(JSON.self, forKey: key)
      }
      self = .object(members)
    } else if var values = try? decoder.unkeyedContainer() {
      var elements: [JSON] = []
      while !values.isAtEnd { elements.append(try values.decode(JSON.self)) }
      self = .array(elements)
    } else {
      let value = try decoder.singleValueContainer()
      if value.decodeNil() {
        self = .null
      } else if let flag = try? value.decode(Bool.self) {
        self = .bool(flag)
      } else if let integer = try? value.decode(Int.self) {
        self = .number(JSONNumber(text: "\(integer)"))
      } else if let double = try? value.decode(Double.self) {
        self = .number(JSONNumber(text: "\(double)"))
      } else {
        self = .string(try value.decode(String.self))
      }
    }
  }

  /// Writes the value; a number that is neither an `Int` nor a finite `Double` cannot be written.
  public func encode(to encoder: any Encoder) throws {
    switch self {
    case .object(let members):
      var values = encoder.container(keyedBy: AnyKey.self)
      for (name, member) in members { try values.encode(member, forKey: AnyKey(stringValue: name)) }
    case .array(let elements):
      var values = encoder.unkeyedContainer()
      for element in elements { try values.encode(element) }
    case .string(let text): try encode(text, to: encoder)
    case .bool(let flag): try encode(flag, to: encoder)
    case .null:
      var value = encoder.singleValueContainer()
      try value.encodeNil()
    case .number(let number):
      if let integer = number.integer {
        try encode(integer, to: encoder)
      } else if let double = number.double {
        try encode(double, to: encoder)
      } else {
        throw EncodingError.invalidValue(
          number, .init(codingPath: encoder.codingPath, debugDescription: "\(number.text) is out of range"))
      }
    }
  }

  private func encode(_ value: some Encodable, to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(value)
  }

  private struct AnyKey: CodingKey {
    let stringValue: String
    var intValue: Int? { nil }
    init(stringValue: String) { self.stringValue = stringValue }
    init?(intValue: Int) { return nil }
  }
}

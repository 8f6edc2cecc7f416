extension StepCache: Codable {
  private struct Key: CodingKey {
    var stringValue: String
    var intValue: Int? { nil }
    init(_ name: String) { stringValue = name }
    init?(stringValue: String) { self.init(stringValue) }
    init?(intValue: Int) { nil }
  }

  /// Reads what a request has; presets have names instead, and are no part of it.
  public init(from decoder: any Decoder) throws {
    let fields = try decoder.container(keyedBy: Key.self)
    let method = try fields.decode(String.self, forKey: Key("method"))
    var values: [String: Value] = [:]
    for key in fields.allKeys where key.stringValue != "method" {
      if let number = try? fields.decode(Double.self, forKey: key) {
        values[key.stringValue] = .number(number)
      } else {
        values[key.stringValue] = .steps(try fields.decode([Int].self, forKey: key))
      }
    }
    try self.init(method: method, values)
  }

  /// Writes all settings of the method.
  public func encode(to encoder: any Encoder) throws {
    var fields = encoder.container(keyedBy: Key.self)
    try fields.encode(method.rawValue, forKey: Key("method"))
    for (name, value) in members {
      switch value {
      case .number(let number):
        if let whole = Int(exactly: number) {
          try fields.encode(whole, forKey: Key(name))
        } else {
          try fields.encode(number, forKey: Key(name))
        }
      case .steps(let steps): try fields.encode(steps, forKey: Key(name))
      }
    }
  }
}

extension StepCache: CustomStringConvertible {
  /// The settings as the command line takes them: `first_block:threshold=0.1,warmup=4`.
  public var description: String {
    let values = members.map { name, value in
      switch value {
      case .number(let number): "\(name)=" + (Int(exactly: number).map { "\($0)" } ?? "\(number)")
      case .steps(let steps): "\(name)=" + steps.map { "\($0)" }.joined(separator: "+")
      }
    }
    return "\(method.rawValue):\(values.joined(separator: ","))"
  }

  /// Reads a preset's name or a description; nil: off.
  ///
  /// - Throws: when it is neither.
  public static func parse(_ text: String) throws(StepCacheError) -> StepCache? {
    if let preset = Preset(rawValue: text) { return preset.cache }
    let parts = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
    guard Method(rawValue: String(parts[0])) != nil else {
      let names = Preset.allCases.map(\.rawValue) + Method.allCases.map { "\($0.rawValue)[:NAME=VALUE,…]" }
      throw StepCacheError(field: "", reason: "is \"\(text.prefix(60))\"; it must be \(names.joined(separator: ", "))")
    }
    var values: [String: Value] = [:]
    for part in parts.count > 1 ? parts[1].split(separator: ",", omittingEmptySubsequences: false) : [] {
      let pair = part.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
      guard pair.count == 2 else {
        throw StepCacheError(field: "", reason: "has \"\(part.prefix(40))\", which is not NAME=VALUE")
      }
      guard let value = Self.value(pair[1], isList: pair[0] == skipName) else {
        throw StepCacheError(
          field: String(pair[0].prefix(40)),
          reason: "is \"\(pair[1].prefix(40))\"; it must be "
            + (pair[0] == skipName ? "numbers of steps with + between them" : "a number"))
      }
      guard values.updateValue(value, forKey: pair[0]) == nil else {
        throw StepCacheError(field: String(pair[0].prefix(40)), reason: "comes twice")
      }
    }
    return try StepCache(method: String(parts[0]), values)
  }

  private static func value(_ text: String, isList: Bool) -> Value? {
    guard isList else { return Double(text).map { .number($0) } }
    let steps = text.split(separator: "+", omittingEmptySubsequences: false).map { Int($0) }
    return steps.contains(nil) ? nil : .steps(steps.compactMap { $0 })
  }
}

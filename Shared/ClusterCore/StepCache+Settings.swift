/// Why settings of a step cache are refused.
public struct StepCacheError: Error, Hashable, Sendable, CustomStringConvertible {
  /// The setting; empty: the whole.
  public var field: String
  /// What is wrong, as the end of a sentence that begins with the field.
  public var reason: String

  /// See the properties.
  public init(field: String, reason: String) {
    self.field = field
    self.reason = reason
  }

  /// The field inside of `cache`.
  public var path: String { field.isEmpty ? "cache" : "cache.\(field)" }
  /// The message.
  public var description: String { "\(path) \(reason)" }
}

extension StepCache {
  /// A value in a request.
  public enum Value: Hashable, Sendable {
    /// A number, whole or not.
    case number(Double)
    /// Numbers of steps.
    case steps([Int])
  }

  /// A setting: its name in requests, its limits, and its value unless a request says otherwise; nil: it is required.
  private struct Setting {
    let name: String
    let limit: ClosedRange<Int>
    let standard: Int?
    let place: WritableKeyPath<StepCache, Int>
  }

  /// Most steps that a setting may speak of.
  public static let maxSteps = 1000
  /// Most blocks that always run, at either end.
  public static let maxBlocks = 200
  /// The greatest change of what the first blocks add.
  public static let thresholdLimit = 0.0...10.0
  private static let standardThreshold = 0.1
  private static let thresholdName = "threshold"
  static let skipName = "skip"

  private var hasThreshold: Bool { !method.isPlanned }

  /// The whole numbers among a method's settings.
  private static func settings(of method: Method) -> [Setting] {
    let steps = 1...maxSteps
    func ends(warmup: Int) -> [Setting] {
      [
        Setting(name: "warmup", limit: steps, standard: warmup, place: \.warmup),
        Setting(name: "last", limit: 0...maxSteps, standard: 1, place: \.last),
      ]
    }
    let order = Setting(name: "order", limit: 0...2, standard: method == .taylor ? 1 : 0, place: \.order)
    let consecutive = Setting(name: "max_consecutive", limit: steps, standard: 3, place: \.maxConsecutive)
    switch method {
    case .firstBlock: return ends(warmup: 4) + [consecutive]
    case .dualBlock:
      return [
        Setting(name: "front", limit: 1...maxBlocks, standard: 4, place: \.frontBlocks),
        Setting(name: "back", limit: 0...maxBlocks, standard: 0, place: \.backBlocks),
      ] + ends(warmup: 4) + [consecutive]
    case .taylor:
      return [Setting(name: "interval", limit: 2...maxSteps, standard: 4, place: \.interval), order] + ends(warmup: 3)
    case .mask: return [order]
    }
  }

  /// Settings as a request has them.
  ///
  /// - Parameters:
  ///   - name: the method's.
  ///   - values: the other settings by name; those that are absent have the method's standard values.
  /// - Throws: for an unknown name, a missing or wrong value.
  public init(method name: String, _ values: [String: Value]) throws(StepCacheError) {
    guard let method = Method(rawValue: name) else {
      let known = Method.allCases.map { "\"\($0.rawValue)\"" }.joined(separator: ", ")
      throw StepCacheError(field: "method", reason: "is \"\(name.prefix(40))\"; it must be one of \(known)")
    }
    self.init(method)
    var left = values
    if method == .firstBlock { frontBlocks = 1 }
    if hasThreshold {
      guard case .number(let number) = left.removeValue(forKey: Self.thresholdName) ?? .number(Self.standardThreshold)
      else { throw StepCacheError(field: Self.thresholdName, reason: "must be a number") }
      threshold = number
    }
    for setting in Self.settings(of: method) {
      guard let value = left.removeValue(forKey: setting.name) else {
        self[keyPath: setting.place] = setting.standard ?? 0
        continue
      }
      guard case .number(let number) = value, let whole = Int(exactly: number) else {
        throw StepCacheError(field: setting.name, reason: "must be a whole number")
      }
      self[keyPath: setting.place] = whole
    }
    if method == .mask {
      guard case .steps(let steps)? = left.removeValue(forKey: Self.skipName) else {
        throw StepCacheError(field: Self.skipName, reason: "is missing: it lists the steps to leave out, from 2")
      }
      skip = steps
    }
    if let other = left.keys.min() {
      let known = ["method"] + members.map(\.name)
      throw StepCacheError(
        field: String(other.prefix(40)),
        reason: "is no setting of \(method.rawValue); those are \(known.joined(separator: ", "))")
    }
    try validate()
  }

  /// The settings that the method has, by their names in requests, without ``method``.
  public var members: [(name: String, value: Value)] {
    var members: [(name: String, value: Value)] = []
    if hasThreshold { members.append((Self.thresholdName, .number(threshold))) }
    if method == .mask { members.append((Self.skipName, .steps(skip))) }
    return members + Self.settings(of: method).map { ($0.name, .number(Double(self[keyPath: $0.place]))) }
  }

  /// Checks every value against its limits.
  public func validate() throws(StepCacheError) {
    guard hasThreshold ? Self.thresholdLimit.contains(threshold) : threshold == 0 else {
      throw StepCacheError(
        field: Self.thresholdName,
        reason: "is \(threshold); it must be from \(Self.thresholdLimit.lowerBound) to "
          + "\(Self.thresholdLimit.upperBound)")
    }
    for setting in Self.settings(of: method) {
      let value = self[keyPath: setting.place]
      guard setting.limit.contains(value) else {
        throw StepCacheError(
          field: setting.name,
          reason: "is \(value); it must be from \(setting.limit.lowerBound) to \(setting.limit.upperBound)")
      }
    }
    let expected = method == .mask
    guard skip.isEmpty != expected else {
      throw StepCacheError(field: Self.skipName, reason: expected ? "is empty" : "is only for the method mask")
    }
    guard skip.allSatisfy({ (2...Self.maxSteps).contains($0) }), zip(skip, skip.dropFirst()).allSatisfy({ $0 < $1 })
    else {
      throw StepCacheError(
        field: Self.skipName,
        reason: "must have rising numbers from 2 to \(Self.maxSteps): the first step has none before it")
    }
  }

  /// Checks the settings against a job.
  ///
  /// - Parameters:
  ///   - steps: that the job makes.
  ///   - blocks: of the network.
  public func validate(steps: Int, blocks: Int) throws(StepCacheError) {
    try validate()
    if let last = skip.last, last > steps {
      throw StepCacheError(field: Self.skipName, reason: "has step \(last), but there are \(steps) steps")
    }
    guard !method.isPlanned, frontBlocks + backBlocks >= blocks else { return }
    throw StepCacheError(
      field: method == .firstBlock ? "method" : "front",
      reason: method == .firstBlock
        ? "is first_block, but the network has \(blocks) block, which cannot be divided"
        : "and back are \(frontBlocks) and \(backBlocks), but the network has \(blocks) blocks: together they must be "
          + "fewer")
  }
}

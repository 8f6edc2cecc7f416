import Configuration

/// Reads settings one by one, keeping their documentation beside them, and collects everything that is wrong.
public struct SettingReader {
  private let reader: ConfigReader
  /// What has been asked for so far, in order.
  public private(set) var settings: [Setting] = []
  /// What is wrong, one line per key.
  public private(set) var problems: [String] = []

  /// Reads from `reader`.
  public init(_ reader: ConfigReader) {
    self.reader = reader
  }

  /// An integer within `range`.
  public mutating func integer(_ key: String, _ standard: Int, in range: ClosedRange<Int>, _ help: String) async -> Int
  {
    settings.append(
      Setting(key: key, defaultText: "\(standard)", help: "\(help) (\(range.lowerBound)…\(range.upperBound))"))
    do {
      return check(key, try await reader.fetchInt(forKey: ConfigKey(key)) ?? standard, range, else: standard)
    } catch {
      return complain(key, "an integer", error, standard)
    }
  }

  /// A number within `range`.
  public mutating func number(_ key: String, _ standard: Double, in range: ClosedRange<Double>, _ help: String) async
    -> Double
  {
    settings.append(
      Setting(key: key, defaultText: "\(standard)", help: "\(help) (\(range.lowerBound)…\(range.upperBound))"))
    do {
      return check(key, try await reader.fetchDouble(forKey: ConfigKey(key)) ?? standard, range, else: standard)
    } catch {
      return complain(key, "a number", error, standard)
    }
  }

  /// A duration in seconds.
  public mutating func seconds(_ key: String, _ standard: Duration, in range: ClosedRange<Double>, _ help: String) async
    -> Duration
  {
    .seconds(await number(key, standard / .seconds(1), in: range, help))
  }

  /// Yes or no.
  public mutating func flag(_ key: String, _ standard: Bool, _ help: String) async -> Bool {
    settings.append(Setting(key: key, defaultText: "\(standard)", help: help))
    do {
      return try await reader.fetchBool(forKey: ConfigKey(key)) ?? standard
    } catch {
      return complain(key, "true or false", error, standard)
    }
  }

  /// Any text.
  public mutating func text(_ key: String, _ standard: String, _ help: String) async -> String {
    settings.append(Setting(key: key, defaultText: standard.isEmpty ? "none" : standard, help: help))
    do {
      return try await reader.fetchString(forKey: ConfigKey(key)) ?? standard
    } catch {
      return complain(key, "a text", error, standard)
    }
  }

  /// One of a few words.
  public mutating func choice<Value: RawRepresentable<String> & CaseIterable>(
    _ key: String, _ standard: Value, _ help: String
  ) async
    -> Value
  {
    let values = Value.allCases.map(\.rawValue).joined(separator: ", ")
    let text = await text(key, standard.rawValue, "\(help): \(values)")
    if let value = Value(rawValue: text) { return value }
    problems.append("\(key) is \"\(text)\", but must be one of \(values)")
    return standard
  }

  /// Texts separated by commas.
  public mutating func list(_ key: String, _ standard: [String], _ help: String) async -> [String] {
    settings.append(
      Setting(key: key, defaultText: standard.isEmpty ? "none" : standard.joined(separator: ","), help: help))
    do {
      return try await reader.fetchStringArray(forKey: ConfigKey(key)) ?? standard
    } catch {
      return complain(key, "a list of texts", error, standard)
    }
  }

  /// Notes what is wrong with settings that fit their types, but not each other.
  public mutating func complain(_ problem: String) { problems.append(problem) }

  private mutating func check<Value: Comparable>(
    _ key: String, _ value: Value, _ range: ClosedRange<Value>, else standard: Value
  ) -> Value {
    if range.contains(value) { return value }
    problems.append("\(key) is \(value), but must be from \(range.lowerBound) to \(range.upperBound)")
    return standard
  }

  private mutating func complain<Value>(_ key: String, _ expected: String, _ error: any Error, _ standard: Value)
    -> Value
  {
    problems.append("\(key) must be \(expected): \(error)")
    return standard
  }
}

import Configuration

/// One key of the configuration, for `--help`.
public struct Setting: Hashable, Sendable {
  /// `http.maxBodyBytes`: in the file an object `http` with a key `maxBodyBytes`.
  public var key: String
  /// What it is when nothing says otherwise.
  public var defaultText: String
  /// What it does, and what it may be.
  public var help: String

  /// Documents `key`.
  package init(key: String, defaultText: String, help: String) {
    self.key = key
    self.defaultText = defaultText
    self.help = help
  }

  /// `--http-max-body-bytes`
  public var flag: String { "--" + Self.words(key).joined(separator: "-") }

  /// `QWEN_IMAGE_HTTP_MAX_BODY_BYTES`
  public var variable: String { "QWEN_IMAGE_" + Self.words(key).joined(separator: "_").uppercased() }

  private static func words(_ key: String) -> [String] {
    key.split(separator: ".").flatMap { part -> [String] in
      var words = [""]
      for character in part {
        if character.isUppercase { words.append("") }
        words[words.count - 1] += character.lowercased()
      }
      return words
    }
  }
}

/// Reads settings one by one, keeping their documentation beside them, and collects everything that is wrong.
struct SettingReader {
  private let reader: ConfigReader
  private(set) var settings: [Setting] = []
  private(set) var problems: [String] = []

  init(_ reader: ConfigReader) {
    self.reader = reader
  }

  mutating func integer(_ key: String, _ standard: Int, in range: ClosedRange<Int>, _ help: String) async -> Int {
    settings.append(Setting(key: key, defaultText: "\(standard)", help: "\(help) (\(range.lowerBound)…\(range.upperBound))"))
    do {
      return check(key, try await reader.fetchInt(forKey: ConfigKey(key)) ?? standard, range, else: standard)
    } catch {
      return complain(key, "an integer", error, standard)
    }
  }

  mutating func number(_ key: String, _ standard: Double, in range: ClosedRange<Double>, _ help: String) async -> Double {
    settings.append(Setting(key: key, defaultText: "\(standard)", help: "\(help) (\(range.lowerBound)…\(range.upperBound))"))
    do {
      return check(key, try await reader.fetchDouble(forKey: ConfigKey(key)) ?? standard, range, else: standard)
    } catch {
      return complain(key, "a number", error, standard)
    }
  }

  /// A duration in seconds.
  mutating func seconds(_ key: String, _ standard: Duration, in range: ClosedRange<Double>, _ help: String) async -> Duration {
    .seconds(await number(key, standard / .seconds(1), in: range, help))
  }

  mutating func flag(_ key: String, _ standard: Bool, _ help: String) async -> Bool {
    settings.append(Setting(key: key, defaultText: "\(standard)", help: help))
    do {
      return try await reader.fetchBool(forKey: ConfigKey(key)) ?? standard
    } catch {
      return complain(key, "true or false", error, standard)
    }
  }

  mutating func text(_ key: String, _ standard: String, _ help: String) async -> String {
    settings.append(Setting(key: key, defaultText: standard.isEmpty ? "none" : standard, help: help))
    do {
      return try await reader.fetchString(forKey: ConfigKey(key)) ?? standard
    } catch {
      return complain(key, "a text", error, standard)
    }
  }

  mutating func choice<Value: RawRepresentable<String> & CaseIterable>(_ key: String, _ standard: Value, _ help: String) async -> Value {
    let values = Value.allCases.map(\.rawValue).joined(separator: ", ")
    let text = await text(key, standard.rawValue, "\(help): \(values)")
    if let value = Value(rawValue: text) { return value }
    problems.append("\(key) is \"\(text)\", but must be one of \(values)")
    return standard
  }

  mutating func list(_ key: String, _ standard: [String], _ help: String) async -> [String] {
    settings.append(Setting(key: key, defaultText: standard.isEmpty ? "none" : standard.joined(separator: ","), help: help))
    do {
      return try await reader.fetchStringArray(forKey: ConfigKey(key)) ?? standard
    } catch {
      return complain(key, "a list of texts", error, standard)
    }
  }

  /// Notes what is wrong with settings that fit their types, but not each other.
  mutating func complain(_ problem: String) { problems.append(problem) }

  private mutating func check<Value: Comparable>(_ key: String, _ value: Value, _ range: ClosedRange<Value>, else standard: Value) -> Value
  {
    if range.contains(value) { return value }
    problems.append("\(key) is \(value), but must be from \(range.lowerBound) to \(range.upperBound)")
    return standard
  }

  private mutating func complain<Value>(_ key: String, _ expected: String, _ error: any Error, _ standard: Value) -> Value {
    problems.append("\(key) must be \(expected): \(error)")
    return standard
  }
}

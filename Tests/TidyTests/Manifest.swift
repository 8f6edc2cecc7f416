import Foundation

/// The targets of Package.swift, as its text declares them: its own helper functions (`shared`, `service`, `test`,
/// `system`) and SwiftPM's declarations.
struct Manifest {
  struct Target: Equatable {
    let name: String
    /// `Shared/Wire`
    let path: String
    /// Targets of this package.
    let dependencies: [String]
    /// Products of other packages, by the names of their modules.
    let products: [String]
  }

  let targets: [Target]
  /// Every product of another package that the manifest gives a name.
  let products: Set<String>

  /// Reads the text of a manifest.
  init(_ text: String) {
    // Comments go; strings are what is looked for.
    let text = text.split(separator: "\n", omittingEmptySubsequences: false).map { line in
      line.firstRange(of: "//").map { $0.lowerBound == line.startIndex || line[..<$0.lowerBound].hasSuffix(" ") }
        == true
        ? line[..<line.firstRange(of: "//")!.lowerBound] : line
    }.joined(separator: "\n")
    var names: [String: String] = [:]
    for match in Self.productPattern.matches(in: text) {
      if let name = match[1], let module = match[2] { names[String(name)] = String(module) }
    }
    products = Set(names.values)
    targets = Self.targetPattern.matches(in: text).compactMap { match in
      guard let kind = match[1], let start = match[0]?.endIndex, let call = Self.call(text[start...]) else {
        return nil
      }
      return Self.target(String(kind), call, products: names)
    }
  }

  subscript(_ name: String) -> Target? { targets.first { $0.name == name } }

  /// The targets that `name` depends on, with those that they depend on.
  func closure(of name: String) -> Set<String> {
    var found: Set<String> = [], waiting = [name]
    while let next = waiting.popLast() {
      for dependency in self[next]?.dependencies ?? [] where found.insert(dependency).inserted {
        waiting.append(dependency)
      }
    }
    return found
  }

  private static let productPattern = NSRegularExpression.known(
    #"static let (\w+) = (?:\w+)?\.?product\(name: "(\w+)""#)
  private static let targetPattern = NSRegularExpression.known(
    #"(?<!func )(?:\.|\b)(shared|service|test|system|target|executableTarget|testTarget|systemLibrary)\("#
      + #"\s*(?=(?:name: )?")"#
  )
  private static let stringPattern = NSRegularExpression.known(#""([^"\\]*)""#)
  private static let pathPattern = NSRegularExpression.known(#"\bpath: "([^"\\]*)""#)
  private static let constantPattern = NSRegularExpression.known(#"(?:^|[\[,(\s])\.(\w+)"#)
  private static let dependencyPattern = NSRegularExpression.known(
    #"dependencies: \[|^\s*"\w+",\s*\["#, .anchorsMatchLines)

  /// The text up to the parenthesis that ends the call.
  private static func call(_ text: Substring) -> Substring? {
    var depth = 1
    for index in text.indices {
      if text[index] == "(" { depth += 1 }
      if text[index] == ")" { depth -= 1 }
      if depth == 0 { return text[..<index] }
    }
    return nil
  }

  private static func target(_ kind: String, _ call: Substring, products: [String: String]) -> Target? {
    let text = String(call)
    guard let first = stringPattern.matches(in: text).first?[1].map(String.init), !first.contains("\\") else {
      return nil
    }
    let name = kind == "test" ? first + "Tests" : first
    let folder = ["shared": "Shared", "system": "Shared", "service": "Services", "test": "Tests"][kind]
    guard let path = pathPattern.matches(in: text).first?[1].map(String.init) ?? folder.map({ "\($0)/\(name)" }) else {
      return nil
    }
    let list = kind == "system" ? "" : Self.dependencies(in: text)
    return Target(
      name: name, path: path, dependencies: stringPattern.matches(in: list).compactMap { $0[1].map(String.init) },
      products: constantPattern.matches(in: list).compactMap { $0[1] }.compactMap { products[String($0)] })
  }

  /// The elements of the list of dependencies: the argument with that label, or the second one of a helper.
  private static func dependencies(in text: String) -> String {
    let range = NSRange(text.startIndex..., in: text)
    guard let match = dependencyPattern.firstMatch(in: text, range: range), let found = Range(match.range, in: text)
    else {
      return ""
    }
    return String(text[found.upperBound...].prefix { $0 != "]" })
  }
}

/// Further names of models, for clients that have a name built in: `dall-e-3` for a model whose name is another.
public struct ModelAliases: Hashable, Sendable {
  private static let maxNameBytes = 256

  /// The further names, in the order in which they were given.
  private(set) var names: [String] = []
  private var models: [String: String] = [:]

  /// None.
  public init() {}

  /// Adds what `text` says, `ALIAS=MODEL`.
  ///
  /// - Returns: what is wrong with it; nil: it was added.
  mutating func add(_ text: String) -> String? {
    let parts = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
    guard parts.count == 2,
      parts.allSatisfy({ (1...Self.maxNameBytes).contains($0.utf8.count) && !$0.contains(where: \.isWhitespace) })
    else { return "is not ALIAS=MODEL" }
    let (alias, model) = (parts[0], parts[1])
    guard models[alias] == nil else { return "gives \(alias) a second time" }
    guard alias != model, models[model] == nil, !models.values.contains(alias) else {
      return "leads from one alias to another"
    }
    names.append(alias)
    models[alias] = model
    return nil
  }

  /// The model that `name` stands for: itself, if there is a model of that name.
  func model(named name: String, known: [String]) -> String { known.contains(name) ? name : models[name] ?? name }
}

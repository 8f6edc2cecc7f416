import ClusterCore
import GatewayAPI
import GatewayPipelines
import OrderedCollections

/// The adapters that the workers of a model have, each worker its own.
public struct AdapterCatalog: Sendable {
  /// An adapter that some worker has.
  public struct Entry: Hashable, Sendable {
    /// As requests call it.
    public var name: String
    /// SHA-256 of its contents, in hexadecimal: of those that most workers have under the name.
    public var digest: String
    /// Workers that have these contents under the name.
    public var workerCount: Int
    /// Those of them that have it in memory.
    public var loadedCount: Int
  }

  private let workers: [[ServedAdapter]]

  /// Names that a message shows.
  private static let maxShownCount = 20

  /// The lists of workers, the worker that came first before the others.
  public init(_ workers: [[ServedAdapter]]) { self.workers = workers }

  /// All adapters, by their names.
  public var entries: [Entry] {
    var found: OrderedDictionary<String, OrderedDictionary<String, Entry>> = [:]
    for adapter in workers.joined() {
      let entry = Entry(name: adapter.name, digest: adapter.digest, workerCount: 0, loadedCount: 0)
      found[adapter.name, default: [:]][adapter.digest, default: entry].workerCount += 1
      if adapter.isLoaded { found[adapter.name]?[adapter.digest]?.loadedCount += 1 }
    }
    return found.values.compactMap { contents in
      contents.values.reduce(nil) { best, entry in
        best.map { $0.workerCount >= entry.workerCount ? $0 : entry } ?? entry
      }
    }.sorted { $0.name < $1.name }
  }

  /// What a request's names stand for: the contents that most workers have who have all of its adapters.
  ///
  /// - Throws: an error that names the adapter that there is not, and those that there are.
  public func resolve(_ requested: [RequestedAdapter], model: String) throws(APIError) -> [ChosenAdapter] {
    guard !requested.isEmpty else { return [] }
    var choices: OrderedDictionary<[String], Int> = [:]
    for worker in workers {
      let digests = requested.compactMap { wanted in worker.first { wanted.isServed(as: $0) }?.digest }
      if digests.count == requested.count { choices[digests, default: 0] += 1 }
    }
    // Of equals the first.
    let best = choices.reduce(nil) { (best: (key: [String], value: Int)?, choice) in
      best.map { $0.value >= choice.value ? $0 : choice } ?? choice
    }
    guard let best else { throw refusal(of: requested, model) }
    return zip(requested, best.key).map { ChosenAdapter(name: $0.name, digest: $1, scale: $0.scale) }
  }

  private func refusal(of requested: [RequestedAdapter], _ model: String) -> APIError {
    let field = RequestedAdapter.field
    let missing = requested.enumerated().first { _, wanted in
      !workers.contains { $0.contains { wanted.isServed(as: $0) } }
    }
    guard let (index, wanted) = missing else {
      let names = requested.map { "\"\($0.name)\"" }.joined(separator: ", ")
      return APIError(.invalidValue, "\(field): no denoiser of \(model) has all of \(names)", param: field)
    }
    let entries = self.entries
    if let entry = entries.first(where: { $0.name == wanted.name }) {
      return APIError(
        .invalidValue,
        "\(field)[\(index)].sha256 is \(wanted.digest ?? ""), but the denoisers of \(model) have \(entry.digest) as "
          + "\"\(wanted.name)\"", param: field)
    }
    guard !entries.isEmpty else {
      return APIError(
        .invalidValue,
        "\(field)[\(index)].name is \"\(wanted.name)\", but no denoiser of \(model) has adapters: an operator can give "
          + "it a directory of them: --adapters-directory", param: field)
    }
    let shown = entries.prefix(Self.maxShownCount).map { "\"\($0.name)\"" }.joined(separator: ", ")
    let others = entries.count > Self.maxShownCount ? " and \(entries.count - Self.maxShownCount) more" : ""
    return APIError(
      .invalidValue,
      "\(field)[\(index)].name is \"\(wanted.name)\", but no denoiser of \(model) has an adapter of that name; there "
        + "are \(shown)\(others)", param: field)
  }
}

extension RequestedAdapter {
  /// Whether that is what is asked for.
  fileprivate func isServed(as adapter: ServedAdapter) -> Bool {
    adapter.name == name && (digest ?? adapter.digest) == adapter.digest
  }
}

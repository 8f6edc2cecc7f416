/// Receives intermediate tensors by name: golden tests compare them, `--dump` writes them to a file.
///
/// Names are those of the reference recordings (`dit.step0.cond.block.3.img`). With no sink, recording costs nothing:
/// the tensor expression is not evaluated.
public struct Probe: Sendable {
  private let sink: (@Sendable (String, Tensor) -> Void)?
  private let prefix: String

  /// Records nothing.
  public static let none = Probe(sink: nil, prefix: "")

  /// Calls `sink` with every recorded tensor.
  public init(_ sink: @escaping @Sendable (String, Tensor) -> Void) { self.init(sink: sink, prefix: "") }

  /// Whether tensors are recorded. If not, work that only a recording needs may be skipped.
  public var isActive: Bool { sink != nil }

  private init(sink: (@Sendable (String, Tensor) -> Void)?, prefix: String) {
    self.sink = sink
    self.prefix = prefix
  }

  /// The same probe with `component.` put before every name.
  public func scoped(_ component: @autoclosure () -> String) -> Probe {
    guard let sink else { return self }
    return Probe(sink: sink, prefix: prefix + component() + ".")
  }

  /// The same probe with `name` in place of `original` where a part of a name, before its first dot, is that.
  public func renamed(_ original: String, _ name: String) -> Probe {
    guard let sink, original != name else { return self }
    let prefix = prefix
    return Probe(
      sink: { full, tensor in
        let rest = full.dropFirst(prefix.count)
        sink(rest.hasPrefix(original + ".") ? prefix + name + rest.dropFirst(original.count) : full, tensor)
      }, prefix: prefix)
  }

  /// The same probe without the tensors whose full name `isIncluded` refuses.
  public func filtered(_ isIncluded: @escaping @Sendable (String) -> Bool) -> Probe {
    guard let sink else { return self }
    return Probe(sink: { name, tensor in if isIncluded(name) { sink(name, tensor) } }, prefix: prefix)
  }

  /// Records `tensor` as `name` if this probe is active.
  public func record(_ name: @autoclosure () -> String, _ tensor: @autoclosure () -> Tensor) {
    guard let sink else { return }
    sink(prefix + name(), tensor())
  }
}

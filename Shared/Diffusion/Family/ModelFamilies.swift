/// The families that a process knows, by the pipeline classes of their checkpoints.
public struct ModelFamilies: Sendable {
  let families: [any ModelFamily.Type]

  /// A registry of `families`. Traps when two of them read the same class.
  public init(_ families: [any ModelFamily.Type]) {
    let names = families.flatMap { $0.classNames }
    precondition(Set(names).count == names.count, "two families read the same pipeline class: \(names)")
    self.families = families
  }

  /// The classes that can be read, in the order of the registry.
  public var classNames: [String] { families.flatMap { $0.classNames } }

  /// Names of checkpoints with random weights: of each family its name and those of its other releases, for the
  /// published sizes, and each with `-tiny`. `tiny` alone is of the first family.
  public var syntheticNames: [String] {
    families.flatMap { family in ([family.name] + family.syntheticReleases).flatMap { [$0, "\($0)-tiny"] } } + ["tiny"]
  }

  /// The checkpoint with random weights that has one of the ``syntheticNames``.
  public func synthetic(_ name: String) -> SyntheticConfiguration? {
    if name == "tiny" { return families.first.map { .family($0, .tiny) } }
    for family in families {
      if name == family.name { return .family(family, .published) }
      if name == "\(family.name)-tiny" { return .family(family, .tiny) }
      for release in family.syntheticReleases {
        if name == release { return .release(family, release, .published) }
        if name == "\(release)-tiny" { return .release(family, release, .tiny) }
      }
    }
    return nil
  }

  /// The family of checkpoints of the class `className`.
  func family(of className: String) -> (any ModelFamily.Type)? { families.first { $0.classNames.contains(className) } }
}

/// An adapter that a worker can put beside the weights of its model.
public struct ServedAdapter: Hashable, Sendable {
  /// As requests call it; see ``AdapterName``.
  public var name: String
  /// SHA-256 of its contents, in hexadecimal.
  public var digest: String
  /// Whether it is in memory, ready for the next task.
  public var isLoaded: Bool

  /// See the properties.
  public init(name: String, digest: String, isLoaded: Bool = false) {
    self.name = name
    self.digest = digest
    self.isLoaded = isLoaded
  }

  /// Most adapters of a worker.
  public static let maxCount = 1000
}

/// The adapters that a worker can serve, as it has said last.
public struct ServedAdapters: Hashable, Sendable {
  /// In the order of their names.
  public var adapters: [ServedAdapter]
  /// Different for every list of one worker.
  public var revision: Int

  /// See the properties.
  public init(_ adapters: [ServedAdapter], revision: Int) {
    self.adapters = adapters
    self.revision = revision
  }

  /// None, of a worker that has no directory of them.
  public static let none = ServedAdapters([], revision: 0)
}

/// An adapter that a request has chosen, and how much of it acts.
public struct ChosenAdapter: Hashable, Sendable {
  /// As the request calls it.
  public var name: String
  /// SHA-256 of its contents, in hexadecimal: what the name stood for when the request was accepted.
  public var digest: String
  /// What it adds is multiplied with: 1 is as it was trained.
  public var scale: Double

  /// See the properties.
  public init(name: String, digest: String, scale: Double) {
    self.name = name
    self.digest = digest
    self.scale = scale
  }

  /// Most adapters of a request.
  public static let maxCount = 8
  /// What a request may ask for as a scale.
  public static let scales = -10.0...10.0
}

/// Names of adapters: safe as the name of a file and within a prompt.
public enum AdapterName {
  /// The longest name, in ASCII characters.
  public static let maxLength = 128
  /// What a name is, for messages.
  public static let rule =
    "1 to \(maxLength) characters of A-Z, a-z, 0-9, dots, underscores and hyphens, the first no dot"

  /// Whether an adapter may be called so.
  public static func isValid(_ text: String) -> Bool {
    (1...maxLength).contains(text.utf8.count) && text.utf8.first != UInt8(ascii: ".")
      && text.utf8.allSatisfy {
        switch $0 {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
          UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "-"):
          true
        default: false
        }
      }
  }
}

/// Digests of adapters.
public enum AdapterDigest {
  /// Whether a text is a SHA-256 in hexadecimal.
  public static func isValid(_ text: String) -> Bool {
    text.utf8.count == 64
      && text.utf8.allSatisfy {
        (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) || (UInt8(ascii: "a")...UInt8(ascii: "f")).contains($0)
      }
  }
}

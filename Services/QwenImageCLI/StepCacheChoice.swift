import ArgumentParser
import ClusterCore
import Foundation

/// What `--cache` says.
struct StepCacheChoice: Equatable, Sendable {
  /// The settings; nil: off.
  let cache: StepCache?
  private let text: String

  /// - Throws: `ValidationError` naming what is wrong.
  init(text: String) throws {
    self.text = text
    do {
      cache = try StepCache.parse(text)
    } catch {
      throw ValidationError("\(error)")
    }
  }

  /// What the gateway is asked for: presets by their names, which it resolves.
  var field: Field {
    StepCache.Preset(rawValue: text) == nil ? cache.map { .settings($0) } ?? .preset(text) : .preset(text)
  }

  /// The field as JSON.
  enum Field: Encodable {
    case preset(String)
    case settings(StepCache)

    func encode(to encoder: any Encoder) throws {
      switch self {
      case .preset(let name): try name.encode(to: encoder)
      case .settings(let cache): try cache.encode(to: encoder)
      }
    }
  }

  /// The field of a form.
  var formValue: String {
    get throws { String(decoding: try JSONEncoder().encode(field), as: UTF8.self).trimmingCharacters(in: ["\""]) }
  }
}

import ClusterCore
import GatewayAPI
import StrictJSON

/// The field `cache` of requests: a preset, or exact settings. A preset becomes settings at once, so that jobs do not
/// depend on what presets are later.
extension StepCache {
  /// The name of the field, and of the option that keeps the settings.
  static let field = "cache"

  /// Reads the field; nil: no step leaves anything out.
  static func read(_ fields: inout FieldReader) throws(APIError) -> StepCache? {
    switch try fields.nameOrMembers(field) {
    case nil: return nil
    case .name(let name):
      guard let preset = Preset(rawValue: name) else {
        let known = Preset.allCases.map { "\"\($0.rawValue)\"" }.joined(separator: ", ")
        throw APIError(
          .invalidValue, "\(field) is \"\(name)\", but must be one of \(known), or an object of settings", param: field)
      }
      return preset.cache
    case .members(let members):
      do throws(StepCacheError) { return try StepCache(members) } catch {
        throw APIError(.invalidValue, error.description, param: error.path)
      }
    }
  }

  /// Settings as a request or an option has them.
  fileprivate init(_ members: JSONObject) throws(StepCacheError) {
    guard let method = members["method"]?.text else {
      throw StepCacheError(field: "method", reason: "must be a string that names one")
    }
    var values: [String: Value] = [:]
    for (name, value) in members where name != "method" && value != .null {
      if let number = value.double {
        values[name] = .number(number)
      } else if let elements = value.elements, elements.allSatisfy({ $0.integer != nil }) {
        values[name] = .steps(elements.compactMap(\.integer))
      } else {
        throw StepCacheError(field: String(name.prefix(40)), reason: "must be a number or a list of steps")
      }
    }
    try self.init(method: method, values)
  }

  /// The settings as the journal keeps them: by their names in order, as it reads them.
  var option: JSON {
    var object: JSONObject = ["method": .string(method.rawValue)]
    for (name, value) in members {
      object[name] =
        switch value {
        case .number(let number): .number(JSONNumber(number))
        case .steps(let steps): .array(steps.map { .number(JSONNumber(text: "\($0)")) })
        }
    }
    object.sort { $0.key < $1.key }
    return .object(object)
  }
}

extension ImageSpec {
  /// Which steps leave out parts of the network; nil: none.
  public var cache: StepCache? {
    guard edits.isEmpty else { return edits[0].cache }
    guard case .object(let members)? = options[StepCache.field] else { return nil }
    return try? StepCache(members)
  }

  /// Refuses settings that do not fit the job's steps or the model's network.
  func checkCache() throws(APIError) {
    guard let cache else { return }
    guard let blocks = card.limits.denoiserBlocks else {
      throw APIError(
        .unsupportedValue, "cache: the denoisers of \(card.model.id) serve no step caches", param: StepCache.field)
    }
    guard sampling.sampler.evaluatesOnce else {
      throw APIError(
        .unsupportedValue, "cache: the sampler \(sampling.sampler.rawValue) evaluates the network twice a step",
        param: StepCache.field)
    }
    do throws(StepCacheError) { try cache.validate(steps: stepCount, blocks: blocks) } catch {
      throw APIError(.invalidValue, error.description, param: error.path)
    }
  }
}

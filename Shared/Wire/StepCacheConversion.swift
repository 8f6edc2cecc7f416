import CWire
import ClusterCore

extension StepCache: WireMessage {
  static func initialize(_ message: UnsafeMutablePointer<Qwenimage__V1__StepCache>) {
    qwenimage__v1__step_cache__init(message)
  }

  func check(_ fields: FieldCheck) throws(WireError) {
    try fields.list("skip", skip) { (_, _) throws(WireError) in }
    do throws(StepCacheError) {
      // Fields that the method does not have are left out on the way.
      guard try StepCache(method: method.rawValue, Dictionary(uniqueKeysWithValues: members)) == self else {
        throw StepCacheError(field: "method", reason: "does not have all fields that are there")
      }
    } catch {
      throw .malformed(field: fields.name(error.field.isEmpty ? "method" : error.field), reason: error.reason)
    }
  }

  func fill(_ message: inout Qwenimage__V1__StepCache, _ arena: CArena) {
    message.method = method.onWire
    message.threshold = threshold
    message.front_blocks = UInt32(frontBlocks)
    message.back_blocks = UInt32(backBlocks)
    message.warmup = UInt32(warmup)
    message.last = UInt32(last)
    message.max_consecutive = UInt32(maxConsecutive)
    message.interval = UInt32(interval)
    message.order = UInt32(order)
    message.n_skip = skip.count
    message.skip = arena.array(skip.map { UInt32($0) })
  }

  init(_ message: Qwenimage__V1__StepCache, _ fields: FieldCheck) throws(WireError) {
    guard let method = Method.allCases.first(where: { $0.onWire == message.method }) else {
      throw .unknownValue(field: fields.name("method"), value: Int(message.method.rawValue))
    }
    self.init(method)
    threshold = message.threshold
    frontBlocks = Int(message.front_blocks)
    backBlocks = Int(message.back_blocks)
    warmup = Int(message.warmup)
    last = Int(message.last)
    maxConsecutive = Int(message.max_consecutive)
    interval = Int(message.interval)
    order = Int(message.order)
    skip = (0..<message.n_skip).map { Int(message.skip[$0]) }
  }
}

extension StepCache.Method {
  fileprivate var onWire: Qwenimage__V1__StepCacheMethod {
    switch self {
    case .firstBlock: QWENIMAGE__V1__STEP_CACHE_METHOD__STEP_CACHE_METHOD_FIRST_BLOCK
    case .dualBlock: QWENIMAGE__V1__STEP_CACHE_METHOD__STEP_CACHE_METHOD_DUAL_BLOCK
    case .taylor: QWENIMAGE__V1__STEP_CACHE_METHOD__STEP_CACHE_METHOD_TAYLOR
    case .mask: QWENIMAGE__V1__STEP_CACHE_METHOD__STEP_CACHE_METHOD_MASK
    }
  }
}

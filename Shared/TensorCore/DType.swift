/// Element types of tensors, named as safetensors names them.
public enum DType: String, Sendable, CaseIterable, Codable {
  case fp32 = "F32"
  case bf16 = "BF16"
  case fp16 = "F16"
  case int64 = "I64"
  case int32 = "I32"
  case int8 = "I8"
  case uint8 = "U8"

  /// Bytes per element.
  public var byteWidth: Int {
    switch self {
    case .int64: 8
    case .fp32, .int32: 4
    case .bf16, .fp16: 2
    case .int8, .uint8: 1
    }
  }

  /// Whether elements are floating-point numbers.
  public var isFloatingPoint: Bool {
    switch self {
    case .fp32, .bf16, .fp16: true
    case .int64, .int32, .int8, .uint8: false
    }
  }
}

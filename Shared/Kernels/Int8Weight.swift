import CKernels
import TensorCore

/// The weight [out, in] of a linear layer in 8 bits, as another program quantised it.
public struct Int8Weight: Sendable {
  /// int8 [out, in].
  public let numbers: Tensor
  /// fp32 [out]: what the numbers of a row are multiplied with.
  public let scales: Tensor
  /// Inputs whose weights were rotated together before they were quantised, ``Linear/rotation``.
  public let rotation: Int

  /// See the properties. `rotation` is 1 or one of ``Linear/rotationGroups`` that divides the number of inputs.
  public init(numbers: Tensor, scales: Tensor, rotation: Int) {
    precondition(
      numbers.dtype == .int8 && numbers.shape.rank == 2 && numbers.elementCount > 0,
      "numbers \(numbers.dtype) \(numbers.shape)")
    precondition(
      scales.dtype == .fp32 && scales.elementCount == numbers.shape[0],
      "scales \(scales.dtype) \(scales.shape) for a weight \(numbers.shape)")
    precondition(
      rotation == 1 || Linear.rotationGroups.contains(rotation) && numbers.shape[1] % rotation == 0,
      "\(numbers.shape[1]) inputs rotated by \(rotation)")
    self.numbers = numbers
    self.scales = scales
    self.rotation = rotation
  }
}

extension Compute {
  /// A layer with the numbers and scales of `weight`, as they are.
  ///
  /// - Parameters:
  ///   - weight: of at most 2¹⁶ inputs.
  ///   - bias: [out], any floating-point type.
  public func prepareLinear(_ weight: Int8Weight, bias: Tensor? = nil) -> Linear {
    let out = weight.numbers.shape[0], depth = weight.numbers.shape[1]
    precondition(bias.map { $0.elementCount == out } ?? true, "bias \(bias!.shape) for weight \(weight.numbers.shape)")
    let prepared = packedInt8(weight.numbers) { rows, numbers, scales in
      numbers.update(
        from: weight.numbers.pointer(rows.lowerBound * depth, count: rows.count * depth), count: rows.count * depth)
      scales.update(from: weight.scales.pointer(rows.lowerBound, count: rows.count), count: rows.count)
    }
    return withExtendedLifetime(weight) {
      Linear(
        outFeatures: out, inFeatures: depth, rotation: weight.rotation, weight: prepared, bias: bias.map(fp32))
    }
  }

  /// A layer in ``Precision/q4`` with the numbers and scales of `weight`, as they are.
  ///
  /// - Parameters:
  ///   - weight: numbers of -8 to 7, of at most 2¹⁶ inputs.
  ///   - bias: [out], any floating-point type.
  public func prepareLinear(in4Bits weight: Int8Weight, bias: Tensor? = nil) -> Linear {
    let out = weight.numbers.shape[0], depth = weight.numbers.shape[1]
    precondition(bias.map { $0.elementCount == out } ?? true, "bias \(bias!.shape) for weight \(weight.numbers.shape)")
    weight.numbers.withElements(as: Int8.self) { numbers in
      precondition(numbers.indices.allSatisfy { (-8...7).contains(numbers[$0]) }, "numbers that need more than 4 bits")
    }
    let prepared = packedQ4(weight.numbers) { rows, panel, offsets, scales in
      let start = rows.lowerBound
      functions.pack_q4_numbers(
        panel, offsets, weight.numbers.pointer(start * depth, count: rows.count * depth), rows.count, depth)
      scales.update(from: weight.scales.pointer(start, count: rows.count), count: rows.count)
    }
    return withExtendedLifetime(weight) {
      Linear(
        outFeatures: out, inFeatures: depth, rotation: weight.rotation, weight: prepared, bias: bias.map(fp32))
    }
  }

  /// What `weight` stands for [out, in], fp32: numbers times scales, rotated back. ``weight(of:)`` gives the same for a
  /// layer made of it.
  public func values(of weight: Int8Weight) -> Tensor {
    let out = weight.numbers.shape[0], depth = weight.numbers.shape[1], rowsAtATime = 48
    return filled([out, depth], reading: weight.numbers, weight.scales) { result in
      pool.parallel((out + rowsAtATime - 1) / rowsAtATime) { piece in
        let start = piece * rowsAtATime, count = min(rowsAtATime, out - start)
        let numbers = weight.numbers.pointer(start * depth, count: count * depth, as: Int8.self)
        let scales = weight.scales.pointer(start, count: count, as: Float.self)
        let values = result.pointer(start * depth, count: count * depth, as: Float.self)
        for row in 0..<count {
          for index in row * depth..<(row + 1) * depth { values[index] = scales[row] * Float(numbers[index]) }
        }
        if weight.rotation > 1 {
          functions.rotate(values, values, Int32(CK_FP32), count * depth, weight.rotation)
        }
      }
    }
  }
}

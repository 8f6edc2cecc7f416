extension CodecParts {
  /// Whether these halves of an autoencoder have no use for a tensor: those of the other half, and the convolutions
  /// over time, which a single frame does not reach.
  package func ignores(_ name: String) -> Bool {
    func begins(_ prefixes: String...) -> Bool { prefixes.contains { name.hasPrefix($0) } }
    return name.contains(".time_conv.") || !contains(.encoder) && begins("encoder.", "quant_conv.")
      || !contains(.decoder) && begins("decoder.", "post_quant_conv.")
  }
}

extension ParameterInventory {
  /// Appends the tensors of a ``ResidualBlock``.
  package mutating func residualBlock(_ name: String, _ input: Int, _ output: Int, hasTimeAxis: Bool) {
    func kernel(_ size: Int) -> [Int] { Array(repeating: size, count: hasTimeAxis ? 3 : 2) }
    add("\(name).norm1.gamma", [input, 1, 1, 1])
    convolution("\(name).conv1", input, output, kernel: kernel(3))
    add("\(name).norm2.gamma", [output, 1, 1, 1])
    convolution("\(name).conv2", output, output, kernel: kernel(3))
    if input != output { convolution("\(name).conv_shortcut", input, output, kernel: kernel(1)) }
  }

  /// Appends the tensors of a ``MiddleBlock``.
  package mutating func middleBlock(_ name: String, _ channels: Int, hasTimeAxis: Bool) {
    add("\(name).attentions.0.norm.gamma", [channels, 1, 1])
    convolution("\(name).attentions.0.to_qkv", channels, 3 * channels, kernel: [1, 1])
    convolution("\(name).attentions.0.proj", channels, channels, kernel: [1, 1])
    for block in 0..<2 { residualBlock("\(name).resnets.\(block)", channels, channels, hasTimeAxis: hasTimeAxis) }
  }
}

import Diffusion

extension ParameterInventory {
  /// The tensors of `vae/`, encoder and decoder. None is quantised.
  public init(residualVAE configuration: ResidualVAEConfiguration) {
    self.init()
    let z = configuration.zDim
    residualEncoder(configuration)
    convolution("quant_conv", 2 * z, 2 * z, kernel: [1, 1])
    convolution("post_quant_conv", z, z, kernel: [1, 1])
    residualDecoder(configuration)
  }

  private mutating func residualEncoder(_ configuration: ResidualVAEConfiguration) {
    let stages = configuration.encoderStages, widest = stages[stages.count - 1].output
    convolution("encoder.conv_in", ResidualVAEConfiguration.imageChannels, configuration.baseDim, kernel: [3, 3])
    for stage in stages {
      let name = "encoder.down_blocks.\(stage.index)"
      residualBlocks(name, configuration.resBlockCount, stage)
      guard stage.scales else { continue }
      convolution("\(name).downsampler.resample.1", stage.output, stage.output, kernel: [3, 3])
      if stage.frames > 1 { convolution("\(name).downsampler.time_conv", stage.output, stage.output, kernel: [1, 1]) }
    }
    middleBlock("encoder.mid_block", widest, hasTimeAxis: false)
    add("encoder.norm_out.gamma", [widest, 1, 1, 1])
    convolution("encoder.conv_out", widest, 2 * configuration.zDim, kernel: [3, 3])
  }

  private mutating func residualDecoder(_ configuration: ResidualVAEConfiguration) {
    let stages = configuration.decoderStages, narrowest = stages[stages.count - 1].output
    convolution("decoder.conv_in", configuration.zDim, stages[0].input, kernel: [3, 3])
    middleBlock("decoder.mid_block", stages[0].input, hasTimeAxis: false)
    for stage in stages {
      let name = "decoder.up_blocks.\(stage.index)"
      residualBlocks(name, configuration.resBlockCount + 1, stage)
      guard stage.scales else { continue }
      convolution("\(name).upsampler.resample.1", stage.output, stage.output, kernel: [3, 3])
      if stage.frames > 1 {
        convolution("\(name).upsampler.time_conv", stage.output, 2 * stage.output, kernel: [1, 1])
      }
    }
    add("decoder.norm_out.gamma", [narrowest, 1, 1, 1])
    convolution("decoder.conv_out", narrowest, ResidualVAEConfiguration.imageChannels, kernel: [3, 3])
  }

  private mutating func residualBlocks(_ name: String, _ count: Int, _ stage: ResidualVAEConfiguration.Stage) {
    for block in 0..<count {
      residualBlock(
        "\(name).resnets.\(block)", block == 0 ? stage.input : stage.output, stage.output, hasTimeAxis: false)
    }
  }
}

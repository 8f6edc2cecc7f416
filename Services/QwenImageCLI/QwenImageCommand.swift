import ArgumentParser
import Settings

/// `qwen-image`: draws pictures in one process or through a cluster, and prepares what a cluster needs.
@main
struct QwenImageCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "qwen-image",
    abstract: "Draw pictures with Qwen-Image, in one process or through a cluster.",
    version: SoftwareVersion.current,
    subcommands: [
      LocalCommand.self, GenerateCommand.self, JobsCommand.self, KeygenCommand.self, APIKeyCommand.self, SynthCommand.self,
      QuantizeCommand.self, AccuracyCommand.self,
    ])
}

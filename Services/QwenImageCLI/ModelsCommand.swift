import ArgumentParser
import Foundation

/// `qwen-image models`: what a gateway serves.
struct ModelsCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "models", abstract: "List the models that a gateway serves.",
    discussion: """
      A line for each: its name for --model, whether it is ready, its licence, and its pipelines; in brackets those \
      that still lack workers. Requests without --model are for the first. Adapters of its workers follow, as --lora \
      takes them.
      """)

  @OptionGroup var gateway: GatewayOptions

  @OptionGroup var json: JSONOption

  func run() async throws {
    try await gateway.withClient { client in
      if json.json { return try Terminal.printJSON(try await client.text("/v1/models")) }
      let models = try await client.models()
      // Names come from the gateway, and may be of any length.
      let width = models.map { min($0.id.count, Self.maxNameWidth) }.max() ?? 0
      for model in models {
        try Terminal.print(Self.line(model, nameWidth: width))
        let adapters = model.aliasOf == nil ? model.loras ?? [] : []
        for adapter in adapters { try Terminal.print("  --lora \(adapter.name)") }
      }
      if models.isEmpty { Terminal.note("the gateway has no model yet: none of its workers has registered") }
    }
  }

  private static let maxNameWidth = 60

  private static func line(_ model: GatewayClient.Model, nameWidth: Int) -> String {
    let name = model.id.padded(to: nameWidth)
    if let other = model.aliasOf { return "\(name)  another name of \(other)" }
    let pipelines = (model.pipelines ?? []).map { $0.ready ? $0.name : "(\($0.name))" }
    let columns = [
      name, model.ready == true ? "ready   " : "starting", model.license ?? "licence unknown",
      pipelines.joined(separator: " "),
    ]
    return columns.joined(separator: "  ")
  }
}

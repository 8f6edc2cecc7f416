import ArgumentParser
import Foundation

/// `qwen-image workers`: what a cluster consists of and does.
struct WorkersCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "workers", abstract: "List the workers of a cluster and what they do.",
    discussion: """
      A line for each: its stage, its state, its model, the peak of its memory, where it runs, and the jobs it is at. \
      Then how many images are in work and how many wait.
      """)

  @OptionGroup var gateway: GatewayOptions

  @OptionGroup var json: JSONOption

  func run() async throws {
    try await gateway.withClient { client in
      if json.json { return try Terminal.printJSON(try await client.text("/v1/workers")) }
      let cluster: Cluster = try client.decode(try await client.data("/v1/workers"))
      let model = cluster.data.map { min($0.model.count, Self.maxNameWidth) }.max() ?? 0
      for worker in cluster.data { try Terminal.print(worker.line(modelWidth: model)) }
      if cluster.data.isEmpty { Terminal.note("no worker has registered at this gateway") }
      Terminal.note("\(cluster.startedJobs) images in work, \(cluster.queuedJobs) waiting")
    }
  }

  private static let maxNameWidth = 60

  private struct Cluster: Decodable {
    let data: [Worker]
    let queuedJobs: Int
    let startedJobs: Int
  }

  private struct Worker: Decodable {
    struct Task: Decodable {
      let job: String
      /// Absent in gateways that know no assistants.
      let assists: Bool?
      let step: Int
      let steps: Int
    }
    let stage: String
    let state: String
    let model: String
    let host: String
    let pid: UInt64
    let peakResidentBytes: UInt64?
    let running: [Task]

    func line(modelWidth: Int) -> String {
      let memory = peakResidentBytes.map { String(format: "%6.2f GB", Double($0) / 1e9) } ?? "     ? GB"
      let tasks = running.map { task in
        if task.assists == true { return "assists \(task.job)" }
        return task.steps > 0 ? "\(task.job) \(task.step)/\(task.steps)" : task.job
      }
      return
        ([stage.padded(to: 12), state.padded(to: 8), model.padded(to: modelWidth), memory, "\(host):\(pid)"] + tasks)
        .joined(separator: "  ")
    }
  }
}

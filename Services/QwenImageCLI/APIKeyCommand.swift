import AccessKeys
import ArgumentParser
import Foundation

/// `qwen-image api-key`: a key for the gateway's HTTP API.
struct APIKeyCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "api-key",
    abstract: "Make an API key for a tenant.",
    discussion: """
      Prints the key on standard error, once, and on standard output the line for the gateway's file of keys
      (http.apiKeysFile), which holds a salted hash only:

        qwen-image api-key acme >> keys

      A running gateway reads a changed file within a second, or at once on SIGHUP. Remove a line to revoke its key.
      """)

  @Argument(help: "Who will use the key: letters, digits, '-', '_' and '.'.")
  var tenant: String

  @Option(help: "Share of the work while other tenants wait too, 0.001 to 1000.")
  var weight = 1.0

  @Option(help: "Images that the tenant may have waiting or running.")
  var maxJobs: Int?

  @Option(help: "Width times height of an image.")
  var maxPixels: Int?

  @Option(help: "Denoising steps of an image.")
  var maxSteps: Int?

  @Option(help: "Requests in a minute.")
  var requestsPerMinute: Int?

  func run() throws {
    var limits = AccessLimits()
    limits.weight = weight
    (limits.maxJobs, limits.maxPixels, limits.maxSteps) = (maxJobs, maxPixels, maxSteps)
    limits.requestsPerMinute = requestsPerMinute
    let key = AccessKey.generate()
    let line = AccessEntry(key, tenant: tenant, limits: limits).line
    // What the gateway would refuse is refused here.
    do { _ = try AccessFile.parse(line) } catch { throw ValidationError(error.reason) }
    // A key whose line was lost would be of no use.
    try Terminal.print(line)
    Terminal.note("key for \(tenant), shown only now: \(key.text)")
  }
}

import Foundation
import GatewayDispatch
import StrictJSON

/// `GET /sdapi/v1/progress`: how far the job is that A1111 would call the current one.
struct WebUIProgress {
  /// A job that a client waits for.
  let job: (snapshot: JobSnapshot, route: WebUIRequest.Route)?
  /// A file of what the current image looks like by now; nil: there is nothing to see yet.
  var preview: [UInt8]?

  /// Of jobs, the oldest first, the first one that has begun, else the first.
  init(_ jobs: [(snapshot: JobSnapshot, route: WebUIRequest.Route)]) {
    let open = jobs.filter { $0.snapshot.endedAtMs == nil }
    job = open.first { $0.snapshot.images.contains { $0.stage != nil } } ?? open.first
  }

  /// The image that is being made: the first that has not ended.
  var index: Int? { job?.snapshot.images.firstIndex { !$0.isTerminal } }

  /// From 0 to 1; above 0 as soon as a stage is at work, which clients wait for.
  var fraction: Double {
    guard let images = job?.snapshot.images, !images.isEmpty else { return 0 }
    let done = images.reduce(0.0) { sum, image in
      sum + (image.isTerminal ? 1 : Double(image.step) / Double(max(image.steps, 1)))
    }
    return min(max(done / Double(images.count), images.contains { $0.stage != nil } ? 0.01 : 0), 1)
  }

  /// The answer.
  var body: JSON {
    let images = job?.snapshot.images ?? []
    let current = index.map { images[$0] }
    return [
      "progress": JSON(fraction), "eta_relative": JSON(images.compactMap(\.secondsLeft).max() ?? 0),
      "state": [
        "skipped": false, "interrupted": false, "stopping_generation": false,
        "job": JSON(job.map { "scripts_\($0.route.rawValue)" } ?? ""), "job_count": JSON(images.count),
        "job_timestamp": JSON(Self.timestamp(job?.snapshot.submittedAtMs ?? 0)),
        "job_no": JSON(images.count { $0.isTerminal }), "sampling_step": JSON(current?.step ?? 0),
        "sampling_steps": JSON(current?.steps ?? 0), "job_id": JSON(job?.snapshot.id),
      ],
      "current_image": JSON(preview.map { Data($0).base64EncodedString() }), "textinfo": JSON(text(of: current)),
    ]
  }

  private func text(of image: ImageProgress?) -> String? {
    guard let image else { return nil }
    if let position = image.queuePosition { return "queued, position \(position)" }
    return image.retryReason.map { "retrying: \($0)" } ?? image.stage?.text ?? "queued"
  }

  /// Milliseconds since 1970 as A1111 writes a time: `20261129140000`, of UTC. "0": there is none.
  static func timestamp(_ unixMs: Int64) -> String {
    guard unixMs > 0 else { return "0" }
    var calendar = Calendar(identifier: .gregorian)
    calendar.timeZone = .gmt
    let parts = calendar.dateComponents(
      [.year, .month, .day, .hour, .minute, .second], from: Date(timeIntervalSince1970: Double(unixMs) / 1000))
    return [parts.year, parts.month, parts.day, parts.hour, parts.minute, parts.second].map { part in
      let digits = String(part ?? 0)
      return digits.count < 2 ? "0" + digits : digits
    }.joined()
  }
}

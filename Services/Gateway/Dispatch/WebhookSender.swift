import ClusterCore
import Foundation
import GatewayPipelines
import HTTPClient
import Hashing
import Journal
import Logging
import Metrics
import Scheduling
import ServiceLifecycle

/// How webhooks are notified.
public struct WebhookConfiguration: Hashable, Sendable {
  /// An attempt that takes longer has failed.
  public var timeout = Duration.seconds(15)
  /// An event that is older is not tried again.
  public var retryLimit = Duration.seconds(24 * 3600)
  /// Between the first two attempts; doubles with each further one.
  public var firstDelay = Duration.seconds(5)
  /// The longest time between two attempts.
  public var maxDelay = Duration.seconds(3600)
  /// Attempts at a time.
  public var maxConcurrent = 16
  /// Of them, those of one host.
  public var maxPerHost = 4

  /// The defaults.
  public init() {}
}

/// Notifies the webhooks of jobs, from the journal, by the Standard Webhooks specification: at least once, until the
/// receiver answers with a success or the time is over.
///
/// What is to be delivered is in the journal, and so are the results of attempts: a delivery whose result could not be
/// written any more is made again by the next run.
public actor WebhookSender: Service {
  /// Makes the body of a notification.
  public typealias Payload = @Sendable (DueDelivery, JobSnapshot) throws -> [UInt8]

  private let dispatcher: Dispatcher
  private let configuration: WebhookConfiguration
  private let client: HTTPClient
  private let payload: Payload
  private let time: any TimeSource
  private let logger: Logger
  /// Hosts of the deliveries that are being attempted.
  private var running: [Int64: String] = [:]
  private var nap: Task<Void, Never>?
  private var hasNews = false

  /// Nothing is sent until ``run()``.
  ///
  /// - Parameters:
  ///   - client: follows no redirections, and connects to allowed addresses only.
  ///   - payload: the same for every attempt at a delivery.
  public init(
    dispatcher: Dispatcher, configuration: WebhookConfiguration = WebhookConfiguration(), client: HTTPClient,
    time: any TimeSource = SystemTime(), logger: Logger, payload: @escaping Payload
  ) {
    self.dispatcher = dispatcher
    self.configuration = configuration
    self.client = client
    self.time = time
    self.logger = logger
    self.payload = payload
  }

  /// Delivers until cancelled, or until a graceful shutdown begins.
  public func run() async {
    await dispatcher.followDeliveries { [weak self] in Task { await self?.wake() } }
    await cancelWhenGracefulShutdown {
      await withDiscardingTaskGroup { group in
        while !Task.isCancelled {
          for delivery in await self.takeDue() { group.addTask { await self.attempt(delivery) } }
          await self.rest()
        }
        group.cancelAll()
      }
    }
  }

  private func wake() {
    hasNews = true
    nap?.cancel()
  }

  /// The deliveries that are due and within the limits. They count as running from now on.
  private func takeDue() async -> [DueDelivery] {
    var taken: [DueDelivery] = []
    // What is delivered could not be noted any more.
    if await dispatcher.hasRetired { return [] }
    while running.count < configuration.maxConcurrent {
      let counts = running.values.reduce(into: [:]) { $0[$1, default: 0] += 1 }
      let busy = counts.filter { $0.value >= configuration.maxPerHost }.map(\.key)
      let (nowMs, numbers, limit) = (time.unixMs, Array(running.keys), configuration.maxConcurrent - running.count)
      let due: [DueDelivery]
      do throws(Status) {
        due = try await dispatcher.journal.read { store throws(JournalError) in
          try store.dueDeliveries(nowMs: nowMs, excludingHosts: busy, excluding: numbers, limit: limit)
        }
      } catch {
        logger.error("deliveries cannot be read", metadata: ["reason": "\(error.message)"])
        break
      }
      var isFull = true
      for delivery in due {
        let host = delivery.webhook.host
        guard running.values.count(where: { $0 == host }) < configuration.maxPerHost else { continue }
        running[delivery.delivery.number] = host
        taken.append(delivery)
        isFull = false
      }
      if isFull { break }
    }
    return taken
  }

  /// Returns when there is news, or the next delivery is due.
  private func rest() async {
    let nowMs = time.unixMs
    let pending = try? await dispatcher.journal.read { store throws(JournalError) in
      try store.pendingDeliveries(nowMs: nowMs)
    }
    Gauge(label: "qwenimage_gateway_webhook_pending").record(pending?.count ?? 0)
    // What is due now waits for the end of an attempt, which is news.
    let pause = min(pending?.nextAtMs.map { Duration.milliseconds($0 - nowMs) } ?? Self.longestPause, Self.longestPause)
    guard !hasNews, !Task.isCancelled else {
      hasNews = false
      return
    }
    let nap = Task { [time] in _ = try? await time.sleep(for: pause) }
    self.nap = nap
    await withTaskCancellationHandler {
      await nap.value
    } onCancel: {
      nap.cancel()
    }
    self.nap = nil
    hasNews = false
  }

  private static let longestPause = Duration.seconds(30)

  // MARK: One attempt

  private func attempt(_ due: DueDelivery) async {
    let start = time.elapsed
    let result = await send(due)
    if let result {
      let seconds = time.elapsed - start
      WebhookMetrics.attemptSeconds.recordNanoseconds(Int64(seconds / .nanoseconds(1)))
      await note(result, of: due)
    }
    running[due.delivery.number] = nil
    wake()
  }

  /// What an attempt came to.
  private struct Result: Hashable, Sendable {
    var status: Int?
    /// nil: the receiver has it.
    var error: String?
    var mayRetry = true
    var retryAfterSeconds: Int?
  }

  /// nil: it was cancelled, and its outcome is not known.
  private func send(_ due: DueDelivery) async -> Result? {
    do {
      let tenant = TenantID(due.tenant)
      guard let job = try await dispatcher.snapshot(of: due.delivery.job, tenant: tenant) else {
        return Result(error: "the job is not kept any more", mayRetry: false)
      }
      let body = try payload(due, job)
      var request = HTTPClient.Request(due.webhook.url, method: "POST", timeout: configuration.timeout)
      request.headers = Self.headers(of: due, body, unixSeconds: time.unixMs / 1000)
      request.body = body
      // The body of the answer says nothing that matters; dropping the response ends it.
      return Self.result(of: try await client.execute(request))
    } catch is CancellationError {
      return nil
    } catch let error as HTTPClientError {
      return Task.isCancelled ? nil : Result(error: error.message)
    } catch let error as Status {
      return Result(error: error.message, mayRetry: error.code == .unavailable || error.code == .internal)
    } catch {
      return Result(error: "the notification cannot be made: \(error)", mayRetry: false)
    }
  }

  /// The header fields of the specification; without a secret there is no signature.
  private static func headers(of due: DueDelivery, _ body: [UInt8], unixSeconds: Int64) -> [(
    name: String, value: String
  )] {
    let id = due.delivery.messageID
    var headers = [
      (name: "content-type", value: "application/json"), ("webhook-id", id), ("webhook-timestamp", "\(unixSeconds)"),
    ]
    if let secret = due.webhook.secret,
      let signature = signature(id: id, unixSeconds: unixSeconds, body, secret: secret)
    {
      headers.append(("webhook-signature", signature))
    }
    return headers
  }

  /// The value of `webhook-signature`; nil: `secret` is none.
  package static func signature(id: String, unixSeconds: Int64, _ body: [UInt8], secret: String) -> String? {
    WebhookSecret.key(secret).map { key in
      let code = HMACSHA256.code(for: Array("\(id).\(unixSeconds).".utf8) + body, key: key)
      return "v1,\(Data(code).base64EncodedString())"
    }
  }

  private static func result(of response: HTTPClient.Response) -> Result {
    let status = response.status
    if (200..<300).contains(status) { return Result(status: status) }
    // 410 Gone: the receiver wants no more of them.
    return Result(
      status: status, error: "the answer was \(status)", mayRetry: status != 410,
      retryAfterSeconds: [429, 503].contains(status) ? response.header("retry-after").flatMap { Int($0) } : nil)
  }

  private func note(_ result: Result, of due: DueDelivery) async {
    let nowMs = time.unixMs, delivery = due.delivery
    var attempt = DeliveryAttempt(delivery: delivery.number, atMs: nowMs, status: result.status, error: result.error)
    if result.error != nil, result.mayRetry {
      let delay = Self.delay(
        afterAttempts: delivery.attempts + 1, configuration, retryAfterSeconds: result.retryAfterSeconds,
        jitter: Double.random(in: 0.8...1.2))
      let nextAtMs = nowMs + Int64(delay / .milliseconds(1))
      if nextAtMs <= delivery.createdAtMs + Int64(configuration.retryLimit / .milliseconds(1)) {
        attempt.nextAtMs = nextAtMs
      }
    }
    let outcome = result.error == nil ? "delivered" : attempt.nextAtMs == nil ? "abandoned" : "failed"
    WebhookMetrics.attempts(outcome).increment()
    logger.log(
      level: outcome == "abandoned" ? .warning : .info, "webhook",
      metadata: [
        "delivery": "\(delivery.messageID)", "host": "\(due.webhook.host)", "outcome": "\(outcome)",
        "attempt": "\(delivery.attempts + 1)", "status": "\(result.status ?? 0)", "reason": "\(result.error ?? "")",
      ])
    do throws(Status) {
      try await dispatcher.journal.write([.attempted(attempt)])
    } catch {
      logger.error("the result of a delivery cannot be written", metadata: ["reason": "\(error.message)"])
      // The journal has it as due: not again at once.
      try? await time.sleep(for: configuration.firstDelay)
    }
  }

  /// How long to wait after so many attempts: doubling, at most the longest time, spread by `jitter`; not less than the
  /// receiver asks for, within the longest time.
  package static func delay(
    afterAttempts count: Int, _ configuration: WebhookConfiguration, retryAfterSeconds: Int?, jitter: Double
  ) -> Duration {
    var delay = configuration.firstDelay
    for _ in 0..<max(0, count - 1) where delay < configuration.maxDelay { delay *= 2 }
    delay = min(delay, configuration.maxDelay) * jitter
    guard let retryAfterSeconds, retryAfterSeconds > 0 else { return delay }
    return max(delay, min(.seconds(min(retryAfterSeconds, 1 << 20)), configuration.maxDelay))
  }
}

/// What the sender counts.
enum WebhookMetrics {
  static let attemptSeconds = Metrics.Timer(label: "qwenimage_gateway_webhook_attempt_seconds")

  static func attempts(_ outcome: String) -> Counter {
    Counter(label: "qwenimage_gateway_webhook_attempts_total", dimensions: [("outcome", outcome)])
  }
}

extension Dispatcher {
  /// Calls `body` when there may be something new to deliver.
  func followDeliveries(_ body: @escaping @Sendable () -> Void) { onDelivery = body }

  /// What is notified of a job, and what came of it.
  public func webhooks(
    of id: String
  ) async throws(Status) -> [(webhook: StoredWebhook, deliveries: [StoredDelivery])] {
    if let job = jobs.jobs[id], job.request.webhooks.isEmpty { return [] }
    return try await journal.read { store throws(JournalError) in try store.webhooks(of: id) }
  }

  /// A denoiser has begun with an image of a job.
  func announceStart(of id: String) {
    guard let job = jobs.jobs[id], job.announcedPercent == nil else { return }
    jobs.noteAnnounced(0, of: id)
    announce(.started, percent: 0, of: job)
  }

  /// A step of a job is done.
  func announceProgress(of id: String) {
    guard let job = jobs.jobs[id], let announced = job.announcedPercent else { return }
    let steps = job.images.reduce(0) { $0 + $1.steps }, done = job.images.reduce(0) { $0 + $1.step }
    guard steps > 0, let milestone = [75, 50, 25].first(where: { done * 100 >= $0 * steps }), milestone > announced,
      done < steps
    else { return }
    jobs.noteAnnounced(milestone, of: id)
    announce(.progress, percent: milestone, of: job)
  }

  private func announce(_ event: WebhookEvent, percent: Int, of job: OpenJob) {
    guard job.request.webhooks.contains(where: { $0.events.contains(event.rawValue) }) else { return }
    let change = JournalChange.announce(job: job.id, event: event.rawValue, percent: percent, atMs: time.unixMs)
    Task {
      // An event that the journal has no space for is no reason to stop the job.
      try? await journal.write([change])
      onDelivery?()
    }
  }
}

import AccessKeys
import ClusterCore
import Foundation
import Gateway
import GatewayAPI
import GatewayDispatch
import GatewayPipelines
import HTTPClient
import HTTPTesting
import HTTPTypes
import Hummingbird
import Journal
import NIOCore
import StrictJSON
import TestSupport
import Testing

@Suite("Webhooks", .timeLimit(.minutes(2)))
struct WebhookTests {
  static let secret = "whsec_" + Data(repeating: 7, count: 24).base64EncodedString()

  private static func job(_ url: String, _ more: String = "", steps: Int = 4) -> String {
    #"{"prompt":"p","steps":\#(steps),"tags":["t"],"metadata":{"orderId":"17"},"webhook":{"url":"\#(url)"\#(more)}}"#
  }

  private static func deliveries(_ job: JSON, _ webhook: Int = 0) -> [JSON] {
    job["webhooks"]?[webhook]?["deliveries"]?.elements ?? []
  }

  /// The job, when its deliveries are over.
  private static func settled(_ id: String, _ client: any TestClientProtocol) async throws -> JSON {
    var job = JSON.null
    try await wait("the deliveries of \(id) are over") {
      job = try await client.get("/v1/jobs/\(id)").json
      let deliveries = Self.deliveries(job)
      return !deliveries.isEmpty && deliveries.allSatisfy { $0["status"]?.text != "pending" }
    }
    return job
  }

  /// The test vector of the specification's libraries.
  @Test func signaturesAreThoseOfTheSpecification() {
    let signature = WebhookSender.signature(
      id: "msg_p5jXN8AQM9LWM0D4loKWxJek", unixSeconds: 1_614_265_330, Array(#"{"test": 2432232314}"#.utf8),
      secret: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    #expect(signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")
  }

  @Test func theEndOfAJobIsNotifiedAndSigned() async throws {
    let receiver = WebhookReceiver()
    try await receiver.serve { url in
      try await ToyCluster.run { cluster in
        _ = try await cluster.joinAll()
        try await cluster.notifying {
          try await cluster.app(settings: ToyCluster.openWebhooks).test(.live) { client in
            let accepted = try await client.submit(Self.job(url, #","secret":"\#(Self.secret)""#))
            #expect(accepted.status == .accepted, "\(String(buffer: accepted.body))")
            #expect(!String(buffer: accepted.body).contains("whsec_"))
            let id = try #require(try accepted.json["id"]?.text)
            let job = try await Self.settled(id, client)
            let delivery = try #require(Self.deliveries(job).first)
            #expect(delivery["id"]?.text == "\(id)-0-completed" && delivery["event"]?.text == "job.completed")
            #expect(delivery["status"]?.text == "delivered" && delivery["last_status"]?.integer == 204)
            #expect(delivery["attempts"]?.integer == 1 && delivery["next_attempt_at"] == nil)
            #expect(job["webhooks"]?[0]?["signed"] == .bool(true) && job["webhooks"]?[0]?["url"]?.text == url)
            let notification = try #require(await receiver.notifications.first)
            #expect(
              notification["webhook-id"] == "\(id)-0-completed" && notification["content-type"] == "application/json")
            let seconds = try #require(notification["webhook-timestamp"].flatMap { Int64($0) })
            #expect(
              notification["webhook-signature"]
                == WebhookSender.signature(
                  id: "\(id)-0-completed", unixSeconds: seconds, notification.body, secret: Self.secret))
            let payload = try notification.json
            #expect(payload["type"]?.text == "job.completed")
            #expect(payload["timestamp"]?.text?.wholeMatch(of: /2\d\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d\d\dZ/) != nil)
            #expect(payload["data"]?["id"]?.text == id && payload["data"]?["status"]?.text == "succeeded")
            #expect(payload["data"]?["metadata"]?["orderId"]?.text == "17" && payload["data"]?["webhooks"] == nil)
            #expect(await receiver.notifications.count == 1)
            // Lists do not show them.
            #expect(try await client.get("/v1/jobs").json["data"]?[0]?["webhooks"] == nil)
          }
        }
      }
    }
  }

  @Test func failedAttemptsAreRepeatedUntilOneSucceeds() async throws {
    let receiver = WebhookReceiver([500, 302, 404])
    try await receiver.serve { url in
      try await ToyCluster.run { cluster in
        _ = try await cluster.joinAll()
        try await cluster.notifying {
          try await cluster.app(settings: ToyCluster.openWebhooks).test(.live) { client in
            let id = try #require(try await client.submit(Self.job(url)).json["id"]?.text)
            let delivery = try #require(Self.deliveries(try await Self.settled(id, client)).first)
            #expect(delivery["status"]?.text == "delivered" && delivery["attempts"]?.integer == 4)
            #expect(delivery["last_error"] == nil)
            let notifications = await receiver.notifications
            #expect(Set(notifications.map { $0["webhook-id"] }).count == 1 && Set(notifications.map(\.body)).count == 1)
            // Without a secret there is nothing to sign with.
            #expect(notifications.allSatisfy { $0["webhook-signature"] == nil })
            #expect(await receiver.strays == 0, "a redirection is not followed")
          }
        }
      }
    }
  }

  @Test func aReceiverThatIsGoneIsLeftAlone() async throws {
    let receiver = WebhookReceiver([410])
    try await receiver.serve { url in
      try await ToyCluster.run { cluster in
        _ = try await cluster.joinAll()
        try await cluster.notifying {
          try await cluster.app(settings: ToyCluster.openWebhooks).test(.live) { client in
            let id = try #require(try await client.submit(Self.job(url)).json["id"]?.text)
            let delivery = try #require(Self.deliveries(try await Self.settled(id, client)).first)
            #expect(delivery["status"]?.text == "abandoned" && delivery["attempts"]?.integer == 1)
            #expect(delivery["last_status"]?.integer == 410 && delivery["last_error"]?.text == "the answer was 410")
          }
        }
      }
    }
  }

  @Test func attemptsEndAfterTheTime() async throws {
    var hasty = ToyCluster.hastyWebhooks
    hasty.retryLimit = .seconds(1)
    let configuration = hasty
    let receiver = WebhookReceiver(Array(repeating: 503, count: 1000))
    try await receiver.serve { url in
      try await ToyCluster.run { cluster in
        _ = try await cluster.joinAll()
        try await cluster.notifying(configuration) {
          try await cluster.app(settings: ToyCluster.openWebhooks).test(.live) { client in
            let id = try #require(try await client.submit(Self.job(url)).json["id"]?.text)
            let delivery = try #require(Self.deliveries(try await Self.settled(id, client)).first)
            #expect(delivery["status"]?.text == "abandoned" && (1...60).contains(delivery["attempts"]?.integer ?? 0))
          }
        }
      }
    }
  }

  /// Also failures and cancellations, the beginning and progress, each once.
  @Test func everyEventIsNotifiedOnce() async throws {
    let all = #","events":["job.started","job.progress","job.completed","job.failed","job.cancelled"]"#
    let receiver = WebhookReceiver()
    try await receiver.serve { url in
      try await ToyCluster.run { cluster in
        _ = try await cluster.joinAll(stepTime: .milliseconds(30))
        try await cluster.notifying {
          try await cluster.app(settings: ToyCluster.openWebhooks).test(.live) { client in
            let done = try #require(try await client.submit(Self.job(url, all, steps: 8)).json["id"]?.text)
            // It cannot be done by the time that it is cancelled.
            let cancelled = try #require(try await client.submit(Self.job(url, all, steps: 40)).json["id"]?.text)
            _ = try await client.execute(uri: "/v1/jobs/\(cancelled)", method: .delete)
            let failed = try #require(
              try await client.submit(
                Self.job(url, #","events":["job.failed"]"#).replacing(
                  #""prompt":"p""#, with: #""prompt":"\#(String(repeating: "x", count: 101))""#)
              ).json["id"]?.text)
            for (id, events) in [
              (done, ["started 0", "progress 25", "progress 50", "progress 75", "completed 0"]),
              (cancelled, ["cancelled 0"]), (failed, ["failed 0"]),
            ] {
              _ = try await client.waitForEnd(id)
              _ = try await Self.settled(id, client)
              let own = try await receiver.notifications.map { try $0.json }.filter { $0["data"]?["id"]?.text == id }
              let found = own.map { "\($0["type"]?.text?.dropFirst(4) ?? "") \($0["percent"]?.integer ?? 0)" }
              // On a busy machine the job to be cancelled has begun by then.
              let early = id == cancelled ? found.filter { $0 != "cancelled 0" } : []
              #expect(early.allSatisfy { $0 == "started 0" || $0.hasPrefix("progress ") })
              #expect(Set(early).count == early.count)
              #expect(found.sorted() == (events + early).sorted())
            }
          }
        }
      }
    }
  }

  @Test func aHostGetsAFewNotificationsAtATime() async throws {
    var few = ToyCluster.hastyWebhooks
    few.maxPerHost = 2
    let configuration = few
    // Long enough that several are due in the meantime, also on a busy machine.
    let receiver = WebhookReceiver(answerTime: .milliseconds(300))
    try await receiver.serve { url in
      try await ToyCluster.run { cluster in
        _ = try await cluster.joinAll(stepTime: .zero)
        try await cluster.notifying(configuration) {
          try await cluster.app(settings: ToyCluster.openWebhooks).test(.live) { client in
            for _ in 0..<12 { #expect(try await client.submit(Self.job(url, steps: 1)).status == .accepted) }
            try await wait("all are notified") { await receiver.notifications.count == 12 }
            #expect(await receiver.mostAtOnce == 2)
          }
        }
      }
    }
  }

  /// The gateway ends before it has notified of anything; the next run does.
  @Test func notificationsAreMadeAfterARestart() async throws {
    let folder = NSTemporaryDirectory() + "journal-\(UInt64.random(in: 0 ... .max))"
    defer { try? FileManager.default.removeItem(atPath: folder) }
    let receiver = WebhookReceiver([500])
    try await receiver.serve { url in
      let ids = try await ToyCluster.run(journal: folder + "/j") { cluster in
        let workers = try await cluster.joinAll(stepTime: .milliseconds(20))
        return try await cluster.app(settings: ToyCluster.openWebhooks).test(.live) { client in
          let first = try #require(try await client.submit(Self.job(url)).json["id"]?.text)
          #expect(Self.deliveries(try await client.waitForEnd(first)).first?["status"]?.text == "pending")
          let events = #","events":["job.progress","job.completed"]"#
          let second = try #require(try await client.submit(Self.job(url, events, steps: 20)).json["id"]?.text)
          try await wait("a quarter is done") { await workers.denoiser.log.steps > 4 + 7 }
          return [first, second]
        }
      }
      try await ToyCluster.run(journal: folder + "/j") { cluster in
        _ = try await cluster.joinAll()
        try await cluster.notifying {
          try await cluster.app(settings: ToyCluster.openWebhooks).test(.live) { client in
            for id in ids {
              _ = try await client.waitForEnd(id)
              let job = try await Self.settled(id, client)
              #expect(Self.deliveries(job).allSatisfy { $0["status"]?.text == "delivered" }, "\(job)")
            }
            let ids = await receiver.notifications.map { $0["webhook-id"] }
            #expect(Set(ids).count == 5 && ids.count == 6, "one was repeated: \(ids)")
          }
        }
      }
    }
  }

  @Test func tenantsHaveAWebhookOfTheirOwn() async throws {
    let key = AccessKey.generate()
    let receiver = WebhookReceiver()
    try await receiver.serve { url in
      var limits = AccessLimits()
      (limits.webhook, limits.webhookSecret) = (url, Self.secret)
      let path = NSTemporaryDirectory() + "keys-\(UInt64.random(in: 0 ... .max))"
      defer { try? FileManager.default.removeItem(atPath: path) }
      try AccessEntry(key, tenant: "acme", limits: limits).line.write(toFile: path, atomically: true, encoding: .utf8)
      let keyring = try Keyring(path: path, logger: Toy.logger)
      try await ToyCluster.run { cluster in
        _ = try await cluster.joinAll()
        try await cluster.notifying {
          try await cluster.app(keyring: keyring, settings: ToyCluster.openWebhooks).test(.live) { client in
            let headers: HTTPFields = [.contentType: "application/json", .authorization: "Bearer \(key.text)"]
            #expect(try await client.submit(#"{"prompt":"p"}"#, headers).status == .accepted)
            // One without a secret of its own is signed with the tenant's.
            #expect(try await client.submit(Self.job(url), headers).status == .accepted)
            try await wait("all are notified") { await receiver.notifications.count == 3 }
            for notification in await receiver.notifications {
              let id = try #require(notification["webhook-id"])
              let seconds = try #require(notification["webhook-timestamp"].flatMap { Int64($0) })
              #expect(
                notification["webhook-signature"]
                  == WebhookSender.signature(id: id, unixSeconds: seconds, notification.body, secret: Self.secret))
            }
          }
        }
      }
    }
  }

  // MARK: What is refused

  @Test(arguments: [
    (#"5"#, "webhook"), (#"{}"#, "webhook.url"), (#"{"url":""}"#, "webhook.url"), (#"{"url":7}"#, "webhook.url"),
    (#"{"url":"https://\#(String(repeating: "x", count: 2048))"}"#, "webhook.url"),
    (#"{"url":"https://example.org/","x":1}"#, "webhook.x"),
    (#"{"url":"https://example.org/","secret":"short"}"#, "webhook.secret"),
    (#"{"url":"https://example.org/","secret":"whsec_\#(Data(count: 23).base64EncodedString())"}"#, "webhook.secret"),
    (#"{"url":"https://example.org/","secret":"whsec_\#(Data(count: 65).base64EncodedString())"}"#, "webhook.secret"),
    (#"{"url":"https://example.org/","events":[]}"#, "webhook.events"),
    (#"{"url":"https://example.org/","events":["job.done"]}"#, "webhook.events"),
    (#"{"url":"https://example.org/","events":"job.failed"}"#, "webhook.events"),
  ]) func wrongFieldsAreNamed(webhook: String, param: String) throws {
    #expect {
      try GenerationRequest(body: Array(#"{"prompt":"p","webhook":\#(webhook)}"#.utf8), maxPromptBytes: 100)
    } throws: { ($0 as? APIError)?.param == param }
  }

  @Test(arguments: [
    "ftp://example.org/", "http://example.org/", "example.org", "https://", "https:///x", "https://user@example.org/",
    "https://user:word@example.org/", "https://example.org#x", "https://example.org/#x", "https://exa mple.org/",
    "https://example.org\\@evil.org/", "https://example.org:99999/", "https://exämple.org/", "https://localhost/",
    "https://localhost:8443/", "https://127.0.0.1/", "https://10.0.0.1/x", "https://[::1]/",
    "https://[::ffff:10.0.0.1]/",
    "https://169.254.169.254/latest/meta-data", "https://[fe80::1]/", "https://0.0.0.0/",
  ]) func addressesThatAreNotNotified(url: String) async throws {
    try await ToyCluster.run { cluster in
      _ = try await cluster.joinAll()
      try await cluster.app().test(.live) { client in
        let text = url.replacing("\\", with: "\\\\")
        let refused = try await client.submit(Self.job(text))
        #expect(refused.status == .badRequest)
        #expect(try refused.error?["param"]?.text == "webhook.url", "\(String(buffer: refused.body))")
        #expect(await cluster.dispatcher.openImageCount == 0)
      }
    }
  }

  /// A name may mean anything when the connection is made; then it is looked at.
  @Test func whereANameLeadsIsCheckedWhenTheConnectionIsMade() async throws {
    let receiver = WebhookReceiver()
    try await receiver.serve { url in
      try await ToyCluster.run { cluster in
        _ = try await cluster.joinAll()
        // The name is let through when the job is submitted, as that of a public host would be.
        var settings = ToyCluster.openWebhooks
        settings.webhooks.addresses.networks = [IPNetwork("10.0.0.0/8")!]
        let strict = settings
        try await cluster.notifying(settings: strict) {
          try await cluster.app(settings: strict).test(.live) { client in
            let id = try #require(
              try await client.submit(Self.job(url.replacing("127.0.0.1", with: "localhost"))).json["id"]?.text)
            var delivery = JSON.null
            try await wait("an attempt has failed") {
              delivery = Self.deliveries(try await client.get("/v1/jobs/\(id)").json).first ?? .null
              return (delivery["attempts"]?.integer ?? 0) > 0
            }
            #expect(delivery["last_error"]?.text?.contains("private or special network") == true, "\(delivery)")
            #expect(delivery["last_status"] == nil)
            #expect(await receiver.notifications.isEmpty)
          }
        }
      }
    }
  }

  @Test func delaysDoubleUpToTheLongest() {
    let configuration = WebhookConfiguration()
    func delay(_ attempts: Int, retryAfter: Int? = nil, jitter: Double = 1) -> Duration {
      WebhookSender.delay(afterAttempts: attempts, configuration, retryAfterSeconds: retryAfter, jitter: jitter)
    }
    #expect([1, 2, 3, 4].map { delay($0) } == [5, 10, 20, 40].map { .seconds($0) })
    #expect(delay(11) == .seconds(3600) && delay(100_000) == .seconds(3600))
    #expect(delay(2, jitter: 1.2) == .seconds(12) && delay(2, jitter: 0.8) == .seconds(8))
    #expect(delay(1, retryAfter: 60) == .seconds(60) && delay(1, retryAfter: 1) == .seconds(5))
    #expect(delay(1, retryAfter: .max) == .seconds(3600) && delay(1, retryAfter: -5) == .seconds(5))
  }

  @Test func settingsSayWhatIsAllowed() async throws {
    let configuration = try await ConfigurationTests.configuration([
      "--webhooks-allowed-hosts", "10.1.0.0/16,hooks.internal,127.0.0.1", "--webhooks-allow-http", "true",
      "--webhooks-retry-seconds", "60",
    ])
    let rules = configuration.server.webhooks
    #expect(rules.allowsHTTP && rules.isEnabled && rules.addresses.hosts == ["hooks.internal"])
    #expect(rules.addresses.networks == [IPNetwork("10.1.0.0/16")!, IPNetwork("127.0.0.1")!])
    #expect(configuration.webhooks.retryLimit == .seconds(60))
    #expect(
      await ConfigurationTests.problems(["--webhooks-allowed-hosts", "10.1.0.0/8"]).first?.contains("ADDRESS/BITS")
        == true)
  }
}

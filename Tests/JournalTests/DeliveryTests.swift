import ClusterCore
import Foundation
import GRDB
import Journal
import TestSupport
import Testing

@Suite("Webhooks in the journal", .timeLimit(.minutes(2)))
struct DeliveryTests {
  private static func job(_ id: String, images: Int = 1, _ webhooks: [StoredWebhook]) -> StoredJob {
    var job = Sample.job(id, images: images)
    job.webhooks = webhooks
    return job
  }

  private static func events(_ store: any JournalStore, _ job: String) throws -> [[String]] {
    try store.webhooks(of: job).map { $0.deliveries.map { "\($0.event) \($0.percent)" } }
  }

  @Test(arguments: Engine.all) func theEndOfAJobIsAnnouncedOnceWithIt(_ engine: Engine) throws {
    let journal = try engine.journal()
    defer { journal.close() }
    let store = try journal.open()
    let all = ["job.started", "job.progress", "job.completed", "job.failed", "job.cancelled"]
    for id in ["done", "failed", "cancelled"] {
      try store.apply([.admit(Self.job(id, images: 2, [Sample.webhook(all), Sample.webhook(["job.failed"])]))])
    }
    try store.apply([.admit(Self.job("open", [Sample.webhook()])), .admit(Sample.job("none"))])
    for index in 0..<2 {
      try store.apply([Sample.finish("done", index, Sample.payload(UInt64(index + 1)), atMs: 5)])
      #expect(try store.pendingDeliveries(nowMs: .min).count == index)
    }
    try store.apply([
      .fail(ImageReference(job: "cancelled", index: 0), Status(.cancelled, "no"), atMs: 7),
      Sample.finish("cancelled", 1, Sample.payload(3)), Sample.fail("failed", 0), Sample.fail("failed", 1),
      // What comes late changes nothing.
      Sample.fail("failed", 1), Sample.fail("none"),
    ])
    #expect(try Self.events(store, "done") == [["job.completed 0"], []])
    #expect(try Self.events(store, "failed") == [["job.failed 0"], ["job.failed 0"]])
    #expect(try Self.events(store, "cancelled") == [["job.cancelled 0"], []])
    #expect(try Self.events(store, "open") == [[]])
    #expect(try Self.events(store, "none") == [])
    let due = try store.dueDeliveries(nowMs: 3000, limit: 10)
    #expect(
      due.map(\.delivery.messageID) == [
        "done-0-completed", "cancelled-0-cancelled", "failed-0-failed", "failed-1-failed",
      ])
    #expect(due.allSatisfy { $0.tenant == "t" && $0.webhook.secret == "whsec_x" && $0.webhook.host == "example.org" })
    #expect(try store.problems() == [])
  }

  @Test(arguments: Engine.all) func progressIsAnnouncedOnce(_ engine: Engine) throws {
    let journal = try engine.journal()
    defer { journal.close() }
    let store = try journal.open()
    try store.apply([.admit(Self.job("a", [Sample.webhook(["job.started", "job.progress"])]))])
    for (event, percent) in [("job.started", 0), ("job.started", 0), ("job.progress", 25), ("job.progress", 25)] {
      try store.apply([.announce(job: "a", event: event, percent: percent, atMs: 5)])
    }
    try store.apply([.announce(job: "unknown", event: "job.started", percent: 0, atMs: 5), Sample.fail("a")])
    try store.apply([.announce(job: "a", event: "job.progress", percent: 50, atMs: 5)])
    #expect(try Self.events(store, "a") == [["job.started 0", "job.progress 25"]])
    #expect(try store.webhooks(of: "a")[0].deliveries[1].messageID == "a-0-progress-25")
  }

  @Test(arguments: Engine.all) func attemptsMoveADeliveryOn(_ engine: Engine) throws {
    let journal = try engine.journal()
    defer { journal.close() }
    let store = try journal.open()
    try store.apply([.admit(Self.job("a", [Sample.webhook()])), .admit(Self.job("b", [Sample.webhook()]))])
    try store.apply([Sample.fail("a", atMs: 100), Sample.fail("b", atMs: 101)])
    #expect(try store.dueDeliveries(nowMs: 99, limit: 10) == [])
    let numbers = try store.dueDeliveries(nowMs: 100, limit: 10).map(\.delivery.number)
    #expect(numbers == [1])
    #expect(try store.dueDeliveries(nowMs: 101, limit: 1).map(\.delivery.number) == [1])
    #expect(
      try store.dueDeliveries(nowMs: 101, excludingHosts: [], excluding: [1], limit: 10).map(\.delivery.number) == [2])
    #expect(try store.dueDeliveries(nowMs: 101, excludingHosts: ["x", "example.org"], excluding: [], limit: 10) == [])
    try store.apply([
      .attempted(DeliveryAttempt(delivery: 1, atMs: 110, status: 503, error: "busy", nextAtMs: 200)),
      .attempted(DeliveryAttempt(delivery: 2, atMs: 111, error: "gone")),
    ])
    #expect(try store.pendingDeliveries(nowMs: 110) == (1, 200))
    #expect(try store.pendingDeliveries(nowMs: 200) == (1, nil))
    let again = try journal.reopen(store)
    try again.apply([.attempted(DeliveryAttempt(delivery: 1, atMs: 210, status: 204))])
    // What is over stays as it is.
    for number: Int64 in [1, 2, 99] {
      try again.apply([.attempted(DeliveryAttempt(delivery: number, atMs: 300, error: "late", nextAtMs: 400))])
    }
    let first = try again.webhooks(of: "a")[0].deliveries[0], second = try again.webhooks(of: "b")[0].deliveries[0]
    #expect(first.state == .delivered && first.attempts == 2 && first.lastStatus == 204 && first.lastError == nil)
    #expect(first.lastAttemptAtMs == 210 && first.nextAttemptAtMs == nil)
    #expect(second.state == .abandoned && second.attempts == 1 && second.lastError == "gone")
    #expect(try again.pendingDeliveries(nowMs: .min) == (0, nil))
  }

  @Test(arguments: Engine.all) func deliveriesGoWithTheirJob(_ engine: Engine) throws {
    let journal = try engine.journal()
    defer { journal.close() }
    var limits = JournalLimits()
    limits.retentionSeconds = 1
    let store = try journal.open(limits: limits)
    try store.apply([.admit(Self.job("a", [Sample.webhook()])), Sample.fail("a", atMs: 1)])
    #expect(try store.forgetOldJobs(nowMs: 10_000) == 1)
    #expect(try store.pendingDeliveries(nowMs: .min).count == 0 && store.problems() == [])
  }

  @Test(arguments: Engine.all) func aDamagedJobIsAnnouncedAsWell(_ engine: Engine) throws {
    let journal = try engine.journal()
    defer { journal.close() }
    let store = try journal.open()
    try store.apply([.admit(Self.job("a", [Sample.webhook()]))])
    try journal.damage("UPDATE jobs SET request = x'00'")
    try store.fail(store.openJobs().damaged, code: .dataLoss, atMs: 3)
    #expect(try Self.events(store, "a") == [["job.failed 0"]])
  }

  @Test(arguments: Engine.all) func valuesAreBounded(_ engine: Engine) throws {
    let journal = try engine.journal()
    defer { journal.close() }
    let store = try journal.open()
    var long = Sample.webhook()
    long.url = String(repeating: "x", count: 5000)
    for webhooks in [[long], Array(repeating: Sample.webhook(), count: 5)] {
      #expect { try store.apply([.admit(Self.job("a", webhooks))]) } throws: {
        if case .some(.tooLarge) = $0 as? JournalError { true } else { false }
      }
    }
  }

  @Test(arguments: Engine.all) func batchesWithAnOutcomeOfTheirOwn(_ engine: Engine) throws {
    let journal = try engine.journal()
    defer { journal.close() }
    let store = try journal.open()
    let outcomes = Outcomes(), done = Counter(), refused = Counter()
    let writer = JournalWriter(store) { outcomes.append($0) }
    let note: @Sendable (JournalError?) -> Void = { _ = ($0 == nil ? done : refused).increment() }
    writer.enqueue(.init(changes: [.admit(Sample.job("a"))], completion: note))
    writer.enqueue(.init(sequence: 1, changes: [.admit(Sample.job("b"))]))
    writer.enqueue(.init(changes: [.admit(Sample.job("b"))], completion: note))
    writer.stop()
    #expect(outcomes.all.last == .durable(through: 1))
    #expect(done.value == 1 && refused.value == 1)
    writer.enqueue(.init(changes: [.admit(Sample.job("c"))], completion: note))
    #expect(refused.value == 2)
    #expect(try store.counts().all == 2)
  }
}

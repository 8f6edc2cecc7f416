import ClusterCore
import GatewayDispatch
import Scheduling
import Testing

@Suite("Workers wanted of a stage")
struct DemandTests {
  private static func at(_ seconds: Double) -> Instant { Instant(sinceZero: .seconds(seconds)) }

  @Test("at a steady rate: cost per second × seconds per cost ÷ (credits × 0.8)", arguments: [1, 4])
  func steady(credits: Int) {
    var demand = StageDemand(drainSeconds: 300)
    // Two images of cost 10 a second for ten minutes, each of which begins at once.
    for half in 0..<1200 {
      demand.arrive([.denoiser: 10], now: Self.at(Double(half) / 2))
      demand.start([.denoiser: 10])
    }
    let wanted = demand.workersWanted(
      .denoiser, workers: 3, credits: 3 * credits, secondsPerCost: 0.5, now: Self.at(600))
    #expect(abs(wanted - 20 * 0.5 / 0.8 / Double(credits)) < 0.15)
  }

  @Test("a backlog asks for what would be done with it in time, and arrivals are forgotten")
  func backlog() {
    var demand = StageDemand(drainSeconds: 100)
    for _ in 0..<80 { demand.arrive([.denoiser: 5], now: .zero) }
    let wanted = demand.workersWanted(.denoiser, workers: 1, credits: 1, secondsPerCost: 2, now: Self.at(3600))
    #expect(abs(wanted - 80 * 5 * 2 / 100 / 0.8) < 1e-6)
    for _ in 0..<79 { demand.end([.denoiser: 5], wasQueued: true) }
    #expect(demand.workersWanted(.denoiser, workers: 1, credits: 1, secondsPerCost: 2, now: Self.at(3600)) == 1)
    demand.end([.denoiser: 5], wasQueued: true)
    #expect(demand.workersWanted(.denoiser, workers: 1, credits: 1, secondsPerCost: 2, now: Self.at(3600)) == 0)
  }

  @Test("a stage that was never measured keeps its workers, and gets one when it has none and jobs need it")
  func unmeasured() {
    var demand = StageDemand(drainSeconds: 100)
    #expect(demand.workersWanted(.denoiser, workers: 2, credits: 2, secondsPerCost: nil, now: .zero) == 0)
    demand.arrive([.denoiser: 5], now: .zero)
    #expect(demand.workersWanted(.denoiser, workers: 0, credits: 0, secondsPerCost: nil, now: .zero) == 1)
    #expect(demand.workersWanted(.denoiser, workers: 3, credits: 3, secondsPerCost: nil, now: .zero) == 3)
    #expect(demand.workersWanted(.vaeEncoder, workers: 0, credits: 0, secondsPerCost: nil, now: .zero) == 0)
  }

  @Test("a stage whose workers have all left counts with the credits that they had")
  func creditsRemembered() {
    var demand = StageDemand(drainSeconds: 100)
    for _ in 0..<400 { demand.arrive([.textEncoder: 1], now: .zero) }
    let before = demand.workersWanted(.textEncoder, workers: 2, credits: 16, secondsPerCost: 1, now: .zero)
    #expect(demand.workersWanted(.textEncoder, workers: 0, credits: 0, secondsPerCost: 1, now: .zero) == before)
  }
}

@Suite("Census of the queue")
struct QueueCensusTests {
  private typealias Group = QueueCensus.Group

  @Test("counts by priority and key, and knows the oldest whatever order they leave in")
  func counts() {
    var queue = QueueCensus()
    let batch = Group(priority: .batch, isNamed: true), other = Group(priority: .interactive, isNamed: false)
    for second in 0..<1000 {
      queue.join(ImageJobID("b\(second)"), batch, now: Instant(sinceZero: .seconds(second)))
    }
    let end = Instant(sinceZero: .seconds(1000))
    #expect(queue.count(batch) == 1000 && queue.oldestSeconds(batch, now: end) == 1000)
    #expect(queue.count(other) == 0 && queue.oldestSeconds(other, now: end) == 0)
    for second in (1..<999).shuffled() { queue.leave(ImageJobID("b\(second)"), batch) }
    #expect(queue.count(batch) == 2 && queue.oldestSeconds(batch, now: end) == 1000)
    queue.leave(ImageJobID("b0"), batch)
    #expect(queue.oldestSeconds(batch, now: end) == 1)
    queue.leave(ImageJobID("b999"), batch)
    queue.leave(ImageJobID("b999"), batch)
    #expect(queue.count(batch) == 0 && queue.oldestSeconds(batch, now: end) == 0)
  }

  @Test("an old job that stays does not make those that come and leave pile up")
  func bounded() {
    var queue = QueueCensus()
    let group = Group(priority: .interactive, isNamed: true)
    queue.join(ImageJobID("old"), group, now: .zero)
    for number in 0..<10_000 {
      queue.join(ImageJobID("\(number)"), group, now: .zero)
      queue.leave(ImageJobID("\(number)"), group)
    }
    #expect(queue.storedCount(group) < 100)
  }

  @Test("labels are bounded")
  func labels() { #expect(Group.all.count == 2 * JobPriority.allCases.count) }
}

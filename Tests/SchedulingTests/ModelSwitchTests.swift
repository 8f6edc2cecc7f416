import ClusterCore
import Scheduling
import Testing

private let other = ModelIdentity(id: "Qwen/Qwen-Image-2.1", fingerprint: "f2")
private let stages: [StageName] = [.textEncoder, .denoiser, .vaeDecoder]

@Suite("Workers load the model that is needed")
struct ModelSwitchTests {
  /// Workers with `model` that can load `other`.
  private func join(_ bench: inout Bench) -> [StageName: WorkerID] {
    Dictionary(uniqueKeysWithValues: stages.map { ($0, bench.join($0, standby: [other]).worker) })
  }

  /// A worker leaves and comes back as a new process with the model.
  private func reload(_ bench: inout Bench, _ worker: WorkerID, _ stage: StageName, _ new: ModelIdentity) -> [Effect] {
    bench.send(.workerDraining(worker))
    bench.send(.workerLeft(worker, reason: "loading model"))
    return bench.join(stage, model: new, standby: [new == model ? other : model]).effects
  }

  @Test func idleWorkersAreAskedOnce() throws {
    var bench = Bench()
    let workers = join(&bench)
    #expect(switches(bench.send(.tick, after: .seconds(1))).isEmpty)
    bench.submit("a", model: other)
    let asked = switches(bench.send(.tick, after: .seconds(1)))
    #expect(asked == Dictionary(uniqueKeysWithValues: workers.values.map { ($0, other) }))
    #expect(switches(bench.send(.tick, after: .seconds(1))).isEmpty)
    // They get nothing more of the model that they have.
    #expect(offers(bench.submit("b")).isEmpty)
    #expect(bench.scheduler.status(now: bench.now).workers.allSatisfy { $0.state == .draining })
    let encode = offers(reload(&bench, workers[.textEncoder]!, .textEncoder, other))
    #expect(encode.map(\.offer.attempt) == [attempt("a", 0, 1)])
  }

  @Test func aWorkerThatHasTheModelIsEnough() {
    var bench = Bench()
    _ = join(&bench)
    for stage in stages { bench.join(stage, model: other) }
    #expect(offers(bench.submit("a", model: other)).count == 1)
    #expect(switches(bench.send(.tick, after: .seconds(1))).isEmpty)
  }

  @Test func neededWorkersAreAskedWhenOthersHaveWaitedLongEnough() throws {
    var bench = Bench { $0.modelPatience = .seconds(60) }
    let workers = join(&bench)
    let offer = try bench.bringToDenoiser("a", steps: 4)
    bench.submit("b", model: other)
    // No job needs an encoder of the first model any more.
    #expect(switches(bench.send(.tick, after: .seconds(1))) == [workers[.textEncoder]!: other])
    for _ in 0..<5 {
      for worker in workers.values {
        bench.send(.workerReported(worker, WorkerReport(running: worker == offer.worker ? [offer.offer.attempt] : [])))
      }
      #expect(switches(bench.send(.tick, after: .seconds(10)))[workers[.denoiser]!] == nil)
    }
    let asked = switches(bench.send(.tick, after: .seconds(10)))
    #expect(asked[workers[.denoiser]!] == other)
    // What it runs is finished first.
    #expect(cancels(bench.send(.tick)).isEmpty)
    let decode = offers(try bench.complete(offer))
    #expect(decode.isEmpty)
  }

  @Test func anUnheardRequestIsRepeated() {
    var bench = Bench()
    let worker = bench.join(.textEncoder, standby: [other]).worker
    bench.submit("a", model: other)
    #expect(switches(bench.send(.tick, after: .seconds(1))) == [worker: other])
    for _ in 0..<3 {
      bench.send(.workerReported(worker, WorkerReport(running: [])), after: .seconds(8))
    }
    #expect(switches(bench.send(.tick, after: .seconds(1))) == [worker: other])
  }

  @Test func anotherWorkerIsAskedWhenLoadingTakesTooLong() {
    var bench = Bench { $0.modelSwitchLimit = .seconds(100) }
    let first = bench.join(.textEncoder, standby: [other]).worker
    bench.submit("a", model: other)
    #expect(switches(bench.send(.tick, after: .seconds(1))) == [first: other])
    bench.send(.workerLeft(first, reason: "loading model"))
    let second = bench.join(.textEncoder, standby: [other]).worker
    #expect(switches(bench.send(.tick, after: .seconds(1))).isEmpty)
    for _ in 0..<10 { bench.send(.workerReported(second, WorkerReport(running: [])), after: .seconds(10)) }
    #expect(switches(bench.send(.tick, after: .seconds(1))) == [second: other])
  }

  @Test func theModelCountsAsServed() {
    var bench = Bench()
    _ = join(&bench)
    let status = bench.scheduler.status(now: bench.now)
    #expect(status.missingStages(of: other, for: .textToImage, stages: stages).isEmpty)
    #expect(status.missingStages(of: other, for: .edit, stages: stages) == stages)
  }
}

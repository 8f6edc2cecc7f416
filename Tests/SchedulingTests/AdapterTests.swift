import ClusterCore
import Scheduling
import Testing

@Suite("Workers have the adapters that a task needs")
struct AdapterTests {
  private let style = String(repeating: "a", count: 64), poster = String(repeating: "b", count: 64)

  private func submission(_ id: String, _ adapters: [String], deadline: Instant? = nil) -> ImageJobSubmission {
    let tasks = ImageJobPlan.toy(prompt: id, negativePrompt: nil, stepCount: 4).tasks.map { task in
      var task = task
      if task.stage == .denoiser { task.adapters = adapters }
      return task
    }
    return ImageJobSubmission(id: ImageJobID(id), model: model, plan: ImageJobPlan(tasks), deadline: deadline)
  }

  /// A job whose prompt is encoded; returns what follows.
  private func bring(
    _ bench: inout Bench, _ id: String, _ adapters: [String], deadline: Instant? = nil
  ) throws -> [Effect] {
    let encode = offers(bench.send(.imagesSubmitted([submission(id, adapters, deadline: deadline)]))).first
    return try bench.complete(encode)
  }

  private func announce(
    _ bench: inout Bench, _ worker: WorkerID, _ served: [String], loaded: [String] = []
  ) -> [Effect] {
    bench.send(.workerAdaptersChanged(worker, WorkerAdapters(served: Set(served), loaded: Set(loaded))))
  }

  @Test func aTaskWaitsForAWorkerThatHasAll() throws {
    var bench = Bench()
    let first = bench.joinAll().denoiser
    #expect(offers(try bring(&bench, "a", [style, poster])).isEmpty)
    #expect(offers(announce(&bench, first, [style])).isEmpty)
    // Others are served meanwhile.
    let plain = offers(try bring(&bench, "b", [])).first
    #expect(plain?.worker == first)
    try bench.complete(plain)
    let second = bench.join(.denoiser).worker
    let found = offers(announce(&bench, second, [poster, style]))
    #expect(found.map(\.worker) == [second] && found.map(\.offer.job.text) == ["a"])
  }

  @Test func aWorkerThatHasItNoLongerGetsNothing() throws {
    var bench = Bench()
    let worker = bench.joinAll().denoiser
    _ = announce(&bench, worker, [style])
    let offer = try #require(offers(try bring(&bench, "a", [style])).first)
    bench.send(.taskAccepted(offer.offer.attempt, by: worker))
    // First it says what it has, then that it cannot do it.
    _ = announce(&bench, worker, [])
    let failure = Status(.aborted, "the adapter is not here any more")
    #expect(offers(bench.send(.taskFailed(offer.offer.attempt, by: worker, failure))).isEmpty)
    #expect(offers(bench.send(.tick, after: .seconds(1))).isEmpty)
    #expect(offers(announce(&bench, worker, [style])).map(\.offer.job.text) == ["a"])
  }

  @Test func theReasonOfALongWaitIsSaid() throws {
    var bench = Bench()
    _ = bench.joinAll()
    _ = try bring(&bench, "a", [style], deadline: bench.now + .seconds(30))
    let reason = failure(bench.send(.tick, after: .seconds(40)), of: "a")
    #expect(reason?.code == .deadlineExceeded)
    let isSaid = reason?.message.contains("waited for a denoiser that has its adapters") ?? false
    #expect(isSaid, "\(String(describing: reason))")
  }

  @Test func aWorkerThatHasItInMemoryIsPreferredButNotAtAnyPrice() throws {
    var bench = Bench()
    _ = bench.join(.textEncoder, credits: 8)
    let (cold, warm) = (bench.join(.denoiser, credits: 3).worker, bench.join(.denoiser, credits: 3).worker)
    _ = announce(&bench, cold, [style])
    _ = announce(&bench, warm, [style], loaded: [style])
    let chosen = try ["a", "b", "c", "d"].map { id in
      try #require(offers(try bring(&bench, id, [style])).first).worker
    }
    // As many free credits, or one less: then the other one, which is freer.
    #expect(chosen == [warm, warm, cold, warm], "\(chosen)")
    // Those without adapters go where most credits are free.
    #expect(offers(try bring(&bench, "e", [])).first?.worker == cold)
  }
}

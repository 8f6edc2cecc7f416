import ClusterCore
import Gateway
import GatewayDispatch
import Scheduling
import Testing
import Wire

@Suite("Workers and their sessions", .timeLimit(.minutes(2)))
struct WorkerSessionTests {
  static func status(_ worker: ToyWorker) async throws -> Status {
    var found: Status?
    try await wait("the gateway has refused") {
      for case .failed(let status) in await worker.log.replies { found = status }
      return found != nil
    }
    return try #require(found)
  }

  @Test func aWorkerWithAnotherCardIsRefused() async throws {
    try await ToyCluster.run { cluster in
      _ = try await cluster.joinAll()
      var card = Toy.card
      card.limits.maxSteps = 51
      let odd = try await cluster.join(.denoiser, card: card)
      let status = try await Self.status(odd)
      #expect(status.code == .failedPrecondition)
      #expect(status.field == "card")
      #expect(await cluster.dispatcher.status.workers.count == 3)
    }
  }

  @Test func standbyModelsAreServedAndTheirCardsAgree() async throws {
    try await ToyCluster.run { cluster in
      var card = Toy.card
      card.model = ModelIdentity(id: "toy/other", fingerprint: "f2")
      for stage in [StageName.textEncoder, .denoiser, .vaeDecoder] { try await cluster.join(stage, standby: [card]) }
      try await wait("three are there") { await cluster.dispatcher.status.workers.count == 3 }
      #expect(try await cluster.dispatcher.card(named: "toy/other").model == card.model)
      card.limits.maxSteps = 51
      for (odd, field) in [
        (try await cluster.join(.denoiser, standby: [card]), "standby_cards"),
        (try await cluster.join(.denoiser, card: card), "card"),
      ] {
        let status = try await Self.status(odd)
        #expect(status.code == .failedPrecondition)
        #expect(status.field == field)
      }
      #expect(await cluster.dispatcher.status.workers.count == 3)
    }
  }

  @Test func aWorkerWithOtherWeightsOfTheSameStageIsRefused() async throws {
    try await ToyCluster.run { cluster in
      _ = try await cluster.joinAll()
      let odd = try await cluster.join(.denoiser, componentFingerprint: "d")
      #expect(try await Self.status(odd).field == "component_fingerprint")
    }
  }

  @Test func newWeightsTakeOverWhenAllStagesHaveThem() async throws {
    try await ToyCluster.run { cluster in
      _ = try await cluster.joinAll()
      var card = Toy.card
      card.model.fingerprint = "f2"
      card.limits.maxSteps = 60
      try await cluster.join(.textEncoder, card: card)
      try await cluster.join(.denoiser, card: card)
      try await wait("five are there") { await cluster.dispatcher.status.workers.count == 5 }
      #expect(try await cluster.dispatcher.card(named: nil).model.fingerprint == "f1")
      try await cluster.join(.vaeDecoder, card: card)
      try await wait("six are there") { await cluster.dispatcher.status.workers.count == 6 }
      #expect(try await cluster.dispatcher.card(named: "toy/model").model.fingerprint == "f2")
    }
  }

  @Test func aWorkerWithoutASessionIsAskedToRegister() async throws {
    try await ToyCluster.run { cluster in
      _ = try await cluster.joinAll()
      let odd = try await cluster.join(.denoiser, componentFingerprint: "d")
      #expect(try await Self.status(odd).field == "component_fingerprint")
      await odd.send(.heartbeat(Heartbeat(sessionID: "x", freeCredits: 1)))
      try await wait("it has both replies") { await odd.log.replies.count == 2 }
      #expect(try await Self.status(odd).code == .failedPrecondition)
    }
  }

  @Test func aHeartbeatOfAnotherSessionIsRefused() async throws {
    try await ToyCluster.run { cluster in
      let workers = try await cluster.joinAll()
      await workers.denoiser.send(.heartbeat(Heartbeat(sessionID: "x", freeCredits: 1)))
      let status = try await Self.status(workers.denoiser)
      #expect(status.code == .failedPrecondition)
      #expect(status.field == "session_id")
    }
  }

  @Test func messagesThatGatewaysDoNotTakeAreRefused() async throws {
    try await ToyCluster.run { cluster in
      let workers = try await cluster.joinAll()
      await workers.denoiser.send(.encodeRequest(EncodeRequest(modelID: "m", prompt: "p")))
      #expect(try await Self.status(workers.denoiser).code == .unimplemented)
    }
  }

  @Test func whatADrainingWorkerRunsIsFinished() async throws {
    try await ToyCluster.run { cluster in
      let workers = try await cluster.joinAll(stepTime: .milliseconds(30))
      let first = Task { try await cluster.image("a", seed: 1, steps: 8) }
      try await wait("it runs") { await workers.denoiser.log.steps > 1 }
      await workers.denoiser.send(.draining(reason: "SIGTERM"))
      try await wait("it is known") { await cluster.dispatcher.status.workers.contains { $0.state == .draining } }
      let second = Task { try await cluster.image("b", seed: 2) }
      #expect(try await first.value == Toy.expected(prompt: "a", seed: 1, steps: 8))
      try await cluster.join(.denoiser)
      #expect(try await second.value == Toy.expected(prompt: "b", seed: 2))
      #expect(await workers.denoiser.log.tasks.count == 1)
      await workers.denoiser.send(.goodbye(reason: "drained"))
      try await wait("it is gone") { await cluster.dispatcher.status.workers.count == 3 }
    }
  }
}

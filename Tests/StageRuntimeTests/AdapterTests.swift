import ClusterCore
import StageRuntime
import Synchronization
import TestSupport
import Testing
import Transport
import Wire

/// A stage whose adapters the test changes.
private struct AdaptedStage: Stage {
  final class List: Sendable {
    private let served = Mutex(ServedAdapters.none)
    var now: ServedAdapters { served.withLock { $0 } }
    func set(_ names: [String]) {
      let adapters = names.map { ServedAdapter(name: $0, digest: String(repeating: "0", count: 64)) }
      served.withLock { $0 = ServedAdapters(adapters, revision: $0.revision + 1) }
    }
  }

  let list = List()
  var name: StageName { .denoiser }
  var card: ModelCard { .test }
  var componentFingerprint: String { "weights-1" }
  var numericsClass: String { "test" }
  var servedAdapters: ServedAdapters { list.now }

  /// What is asked for has just gone.
  func run(_ task: StageTask, context: TaskContext) throws -> StageOutput {
    list.set([])
    throw Status(.aborted, "the adapter is not here any more")
  }
}

extension ScriptedGateway {
  /// Waits for a worker and lets it in, as a gateway that understands adapters or not.
  fileprivate func admit(takesAdapters: Bool, leaseMs: Int = 60_000) async throws -> PeerID {
    let inbound = try await nextRegistration()
    let registered = Registered(
      sessionID: "s", heartbeatIntervalMs: 50, leaseMs: leaseMs, takesAdapters: takesAdapters)
    try await reply(.registered(registered), to: inbound)
    return inbound.peer
  }

  /// The names of the next message, which must be of adapters.
  fileprivate func nextAdapters() async throws -> [String] {
    let body = try await nextMessage().envelope.body
    guard case .servedAdapters(let announcement) = body else { throw Unexpected("no adapters, but \(body)") }
    #expect(announcement.sessionID == "s")
    return announcement.adapters.map(\.name)
  }
}

@Suite("A worker's adapters", .serialized, .timeLimit(.minutes(5)))
struct AdapterTests {
  @Test("are announced after the registration and when they change, before a task that lacks one fails")
  func announcements() async throws {
    let gateway = try await ScriptedGateway(), stage = AdaptedStage()
    stage.list.set(["a", "b"])
    try await withWorker(stage, quickConfiguration([gateway.endpoint])) { _, _ in
      let peer = try await gateway.admit(takesAdapters: true)
      #expect(try await gateway.nextAdapters() == ["a", "b"])
      try await gateway.settle(peer)
      stage.list.set(["b"])
      #expect(try await gateway.nextAdapters() == ["b"])
      try await gateway.start(Envelope(task: task("a"), body: denoise(steps: 1)), on: peer)
      #expect(try await gateway.nextAdapters() == [])
      let answer = try await gateway.conversation(task("a")).last?.body
      #expect(answer == .failed(Status(.aborted, "the adapter is not here any more")))
      // A gateway that has forgotten the session knows nothing of them.
      stage.list.set(["c"])
      #expect(try await gateway.nextAdapters() == ["c"])
      try await gateway.send(
        Envelope(inReplyTo: 99, body: .failed(Status(.failedPrecondition, "unknown session"))), to: peer)
      _ = try await gateway.admit(takesAdapters: true)
      #expect(try await gateway.nextAdapters() == ["c"])
    }
    await gateway.close()
  }

  @Test("are not announced to a gateway that does not know of them")
  func earlierGateway() async throws {
    let gateway = try await ScriptedGateway(), stage = AdaptedStage()
    stage.list.set(["a"])
    try await withWorker(stage, quickConfiguration([gateway.endpoint])) { _, _ in
      let peer = try await gateway.admit(takesAdapters: false)
      _ = try await gateway.nextHeartbeat()
      try await gateway.settle(peer)
    }
    await gateway.close()
  }
}

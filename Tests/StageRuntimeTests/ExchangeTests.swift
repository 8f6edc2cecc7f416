import ClusterCore
import Foundation
import StageRuntime
import Testing
import Wire

@Suite("Predictions made together with another worker", .timeLimit(.minutes(2)))
struct ExchangeTests {
  @Test("of each kind the last message is kept, and taken once")
  func mailbox() {
    let context = TaskContext()
    #expect(context.takeExchange(.state) == nil)
    context.deliver(Exchange(.state, call: 1, step: 3), tensors: [])
    context.deliver(Exchange(.state, call: 2, step: 4), tensors: [.latents([7])])
    context.deliver(Exchange(.velocity, call: 1), tensors: [])
    let state = context.takeExchange(.state)
    #expect(state?.message == Exchange(.state, call: 2, step: 4))
    #expect(state?.tensors == [.latents([7])])
    #expect(context.takeExchange(.state) == nil)
    #expect(context.takeExchange(.velocity)?.message.call == 1)
  }

  @Test("a lost assistant is not waited for, and a new one is another one")
  func loss() {
    let context = TaskContext()
    context.deliver(Exchange(.ready), tensors: [])
    context.deliver(Exchange(.velocity, call: 1), tensors: [])
    context.deliver(Exchange(.lost), tensors: [])
    // A wait of this length is beyond the suite's time limit.
    #expect(context.takeExchange(.velocity, within: .seconds(600)) == nil)
    #expect(context.takeExchange(.ready) == nil)
    context.deliver(Exchange(.ready), tensors: [])
    #expect(context.takeExchange(.lost) == nil)
    #expect(context.takeExchange(.ready) != nil)
  }

  @Test("a message, the loss of the other worker and a cancelled task end a wait")
  func waits() async {
    for event in ["message", "loss", "cancel"] {
      let context = TaskContext()
      // Longer than the suite's time limit.
      let waited = Task.detached { context.takeExchange(.velocity, within: .seconds(600))?.message }
      try? await Task.sleep(for: .milliseconds(20))
      switch event {
      case "message": context.deliver(Exchange(.velocity, call: 9), tensors: [])
      case "loss": context.deliver(Exchange(.lost), tensors: [])
      default: context.cancel(Status(.cancelled, "over"))
      }
      #expect(await waited.value == (event == "message" ? Exchange(.velocity, call: 9) : nil), "\(event)")
    }
  }

  @Test("a wait ends") func limit() {
    #expect(TaskContext().takeExchange(.ready, within: .milliseconds(30)) == nil)
  }

  @Test("a worker hands what comes for a running task to it, and forgets the rest")
  func worker() async throws {
    let gateway = try await ScriptedGateway()
    let stage = FakeStage { _, context in
      context.exchange(Exchange(.ready))
      while true {
        try context.checkCancelled()
        guard let (message, tensors) = context.takeExchange(.state, within: .seconds(1)) else { continue }
        context.exchange(Exchange(.velocity, call: message.call), tensors: tensors)
      }
    }
    try await withWorker(stage, quickConfiguration([gateway.endpoint])) { _, _ in
      let (peer, registration) = try await gateway.admitWorker()
      #expect(!registration.assists)
      try await gateway.start(Envelope(task: task("a"), body: denoise(steps: 2)), on: peer)
      #expect(try await gateway.nextMessage().envelope.body == .exchange(Exchange(.ready)))
      let state = Body.exchange(Exchange(.state, call: 4, step: 1))
      try await gateway.send(Envelope(task: task("b"), body: state, tensors: [.latents([1])]), to: peer)
      try await gateway.send(Envelope(body: state, tensors: [.latents([2])]), to: peer)
      try await gateway.send(Envelope(task: task("a"), body: state, tensors: [.latents([3])]), to: peer)
      let answer = try await gateway.nextMessage().envelope
      #expect(answer.task == task("a"))
      #expect(answer.body == .exchange(Exchange(.velocity, call: 4)))
      #expect(answer.tensors == [.latents([3])])
      try await gateway.send(Envelope(task: task("a"), body: .cancel(reason: "over")), to: peer)
      guard case .failed(let status) = try await gateway.nextMessage().envelope.body else {
        Issue.record("the task did not end")
        return
      }
      #expect(status.code == .cancelled)
    }
    await gateway.close()
  }
}

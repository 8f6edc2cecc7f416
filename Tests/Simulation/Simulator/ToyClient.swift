import Scheduling

/// A client that sends one request and asks until there is an answer.
struct ToyClient {
  let job: ToyJob
  /// Once the gateway has acknowledged the job.
  var id: String?
  /// One for each image.
  var outcomes: [Outcome]?
  /// Whether the gateway said that it never will.
  var isRefused = false
  var wantsCancel = false
  /// Counts what was sent: an answer ends the wait for it.
  var attempt = 0

  var isDone: Bool { outcomes != nil || isRefused }
}

extension Simulation {
  func toyJob(key: Int) -> ToyJob {
    let kind = random.pick(0...99)
    let prompt = kind < 4 ? ToyJob.badPrompt : kind < 7 ? ToyJob.deadlyPrompt : UInt64(random.pick(1...6))
    let hasInput = random.chance(0.5)
    let input = random.chance(0.05) ? ToyJob.badInput : UInt64(random.pick(1...4))
    return ToyJob(
      key: key, model: ToyModel.identities[scenario.hasTwoModels ? random.pick(0...1) : 0], noise: random.next(),
      prompt: prompt,
      negativePrompt: random.chance(0.4) ? UInt64(random.pick(1...3)) : nil,
      input: hasInput ? input : nil, isEdit: hasInput && random.chance(0.5),
      imageCount: random.chance(0.7) ? 1 : random.pick(2...3),
      steps: random.pick(2...6), tenant: TenantID("t\(random.pick(1...3))"),
      priority: random.chance(0.3) ? .batch : .interactive,
      deadline: random.chance(0.1) ? random.pick(20_000...150_000) : nil)
  }

  func send(_ request: Request, from client: Int) {
    guard !clients[client].isDone else { return }
    clients[client].attempt += 1
    schedule(.resend(client: client, attempt: clients[client].attempt), in: 4000)
    if isChaos, random.chance(0.1) {
      count("client drops")
      return
    }
    schedule(.request(client: client, request), in: random.pick(1...300))
    if case .submit = request, random.chance(0.1) {
      schedule(.request(client: client, request), in: random.pick(1...3000))
    }
  }

  func respond(_ response: Response, to request: Request, client: Int) {
    if isChaos, random.chance(0.1) {
      count("client drops")
      return
    }
    schedule(.response(client: client, response, to: request), in: random.pick(1...300))
  }

  func resend(client: Int, attempt: Int) {
    guard clients[client].attempt == attempt else { return }
    count("client retries")
    ask(client)
  }

  private func ask(_ client: Int) {
    // Now and then the first request again, though it was answered.
    if let id = clients[client].id, !random.chance(0.1) {
      send(.status(id), from: client)
    } else {
      send(.submit, from: client)
    }
  }

  func take(_ response: Response, to request: Request, client: Int) {
    guard !clients[client].isDone else { return }
    clients[client].attempt += 1
    switch response {
    case .accepted(let id):
      if let known = clients[client].id, known != id { report("request \(client) is job \(known) and job \(id)") }
      if clients[client].id == nil, random.chance(0.12) {
        clients[client].wantsCancel = true
        for _ in 0...1 { schedule(.request(client: client, .cancel(id)), in: random.pick(100...30_000)) }
      }
      clients[client].id = id
      wait(client, atMostMs: 4000)
    case .refused(let failure):
      if failure.code == .deadlineExceeded {
        clients[client].isRefused = true
      } else if failure.code == .resourceExhausted || failure.code == .unavailable {
        wait(client, atMostMs: 8000)
      } else {
        report("request \(client) is refused: \(failure)")
      }
    case .running: wait(client, atMostMs: 4000)
    case .ended(let outcomes):
      clients[client].outcomes = outcomes
      if let id = clients[client].id,
        ToyImage.ids(id, clients[client].job).map({ judge.reported[$0] }) != outcomes.map({ $0 })
      {
        report("job \(id) ended with \(outcomes), and not")
      }
    case .unknown: report("job \(clients[client].id ?? "?") was acknowledged and is not known")
    }
  }

  private func wait(_ client: Int, atMostMs: Int) {
    // The wait for an answer ends with the next question.
    let attempt = clients[client].attempt
    schedule(.resend(client: client, attempt: attempt), in: random.pick(500...atMostMs))
  }
}

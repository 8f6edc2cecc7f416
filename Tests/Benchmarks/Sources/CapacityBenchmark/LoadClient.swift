import CLoad
import Foundation
import Synchronization

/// Tells the clients' thread what to do, from another one.
final class ClientControl: Sendable {
  struct Load: Sendable {
    /// Jobs a second; 0: none.
    var rate = 0.0
    /// Jobs that are sent as fast as so many connections get answers, and the connections.
    var fill = 0
    var fillConnections = 0
    var follow = Options.Follow.wait
    var isStopping = false
  }

  private let load = Mutex(Load())
  private let open = Mutex(0)

  /// What is to be sent from now on.
  func set(_ change: (inout Load) -> Void) { load.withLock { change(&$0) } }

  var current: Load { load.withLock { $0 } }

  /// Requests without their last answer.
  var openCount: Int {
    get { open.withLock { $0 } }
    set { open.withLock { $0 = newValue } }
  }

  /// Takes up to `count` of those that are to be sent as fast as can be.
  func takeFill() -> Bool {
    load.withLock { load in
      guard load.fill > 0 else { return false }
      load.fill -= 1
      return true
    }
  }
}

/// All clients, on one thread. Requests are due at the times of a Poisson process; what they wait for a connection or
/// an answer counts, and delays no other request.
final class LoadClient {
  private enum Phase {
    case idle
    case submit
    case wait
    case events
  }

  private final class Connection {
    let socket: Int32
    let port: UInt16
    var phase = Phase.idle
    var number = 0
    var isFill = false
    var output: [UInt8] = []
    var input: [UInt8] = []

    init(_ socket: Int32, _ port: UInt16) { (self.socket, self.port) = (socket, port) }
  }

  private static let maxConnections = 12_000

  private let options: Options
  private let ports: [UInt16]
  private let recorder: Recorder
  private let control: ClientControl
  private let poller = epoll_create1(0)
  private var connections: [Int32: Connection] = [:]
  private var idle: [UInt16: [Connection]] = [:]
  private var lastNumber = 0
  private var nextDue: Int64 = 0
  /// Requests that wait for a connection.
  private var waiting: [Int] = []
  private var openFills = 0
  private var generator = SystemRandomNumberGenerator()
  private let padding: String

  init(_ options: Options, ports: [UInt16], _ recorder: Recorder, _ control: ClientControl) {
    (self.options, self.ports, self.recorder, self.control) = (options, ports, recorder, control)
    padding = String(repeating: "x", count: max(0, options.promptBytes - 20))
  }

  /// Runs until it is to stop.
  func run() {
    var events = [epoll_event](repeating: epoll_event(), count: 512)
    while true {
      let load = control.current
      if load.isStopping { break }
      launch(load)
      control.openCount = connections.values.count { $0.phase != .idle } + waiting.count
      let count = epoll_wait(poller, &events, Int32(events.count), 1)
      for event in events.prefix(Int(max(0, count))) {
        guard let connection = connections[event.data.fd] else { continue }
        if event.events & EPOLLOUT.rawValue != 0 { flush(connection) }
        if event.events & (EPOLLIN.rawValue | EPOLLHUP.rawValue | EPOLLERR.rawValue) != 0 { read(connection) }
      }
    }
    for connection in connections.values { close(connection.socket) }
  }

  // MARK: Requests

  private func launch(_ load: ClientControl.Load) {
    let now = nowNs()
    if load.rate > 0 {
      if nextDue == 0 { nextDue = now }
      while nextDue <= now {
        submit(dueAt: nextDue)
        let unit = Double.random(in: Double.leastNonzeroMagnitude...1, using: &generator)
        nextDue += Int64(-log(unit) / load.rate * 1e9)
      }
    } else {
      nextDue = 0
    }
    while openFills < load.fillConnections, control.takeFill() {
      openFills += 1
      submit(dueAt: now, isFill: true)
    }
    while let number = waiting.first, connections.count < Self.maxConnections {
      waiting.removeFirst()
      send(number, isFill: false)
    }
  }

  private func submit(dueAt due: Int64, isFill: Bool = false) {
    lastNumber += 1
    let number = lastNumber
    recorder.update { state in
      state.counts.submitted += 1
      state[dueOf: number] = due
    }
    if connections.count < Self.maxConnections || idle.values.contains(where: { !$0.isEmpty }) {
      send(number, isFill: isFill)
    } else {
      waiting.append(number)
    }
  }

  private func send(_ number: Int, isFill: Bool) {
    let body =
      "{\"prompt\":\"load \(number) \(padding)\",\"size\":\"\(options.side)x\(options.side)\","
      + "\"steps\":\(options.steps),\"seed\":\(number)}"
    let request =
      "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
      + "Content-Length: \(body.utf8.count)\r\n\r\n\(body)"
    guard let connection = connection(to: ports[number % ports.count]) else {
      recorder.update { $0.counts.broken += 1 }
      if isFill { openFills -= 1 }
      return
    }
    (connection.phase, connection.number, connection.isFill) = (.submit, number, isFill)
    send(request, connection)
  }

  private func send(_ text: String, _ connection: Connection) {
    connection.output += Array(text.utf8)
    flush(connection)
  }

  private func flush(_ connection: Connection) {
    while !connection.output.isEmpty {
      let count = write(connection.socket, connection.output, connection.output.count)
      guard count > 0 else { return }
      connection.output.removeFirst(count)
    }
  }

  private func connection(to port: UInt16) -> Connection? {
    if let connection = idle[port]?.popLast() { return connection }
    let socket = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0)
    guard socket >= 0 else { return nil }
    var on: Int32 = 1
    setsockopt(socket, Int32(IPPROTO_TCP), TCP_NODELAY, &on, socklen_t(MemoryLayout<Int32>.size))
    var address = loopback(port: port)
    _ = withUnsafePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        connect(socket, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
      }
    }
    let connection = Connection(socket, port)
    connections[socket] = connection
    var event = epoll_event()
    event.events = EPOLLIN.rawValue | EPOLLOUT.rawValue | EPOLLET.rawValue
    event.data.fd = socket
    epoll_ctl(poller, EPOLL_CTL_ADD, socket, &event)
    return connection
  }

  // MARK: Answers

  private func read(_ connection: Connection) {
    var buffer = [UInt8](repeating: 0, count: 1 << 15)
    var isClosed = false
    while true {
      let count = Glibc.read(connection.socket, &buffer, buffer.count)
      if count > 0 {
        connection.input += buffer[..<count]
        continue
      }
      isClosed = count == 0 || errno != EAGAIN
      break
    }
    while connection.phase != .idle, take(connection) {}
    if isClosed { drop(connection) }
  }

  /// Takes an answer out of what was read; returns whether there was one.
  private func take(_ connection: Connection) -> Bool {
    if connection.phase == .events {
      let text = String(decoding: connection.input.suffix(2000), as: UTF8.self)
      guard text.contains("event: job.ended") && text.hasSuffix("0\r\n\r\n") else { return false }
      end(connection, text.components(separatedBy: "event: job.ended").last ?? "")
      drop(connection)
      return false
    }
    guard let answer = Answer(connection.input) else { return false }
    connection.input.removeFirst(answer.byteCount)
    switch connection.phase {
    case .submit: takeSubmission(answer, connection)
    default: takeState(answer, connection)
    }
    if answer.closes { drop(connection) }
    return true
  }

  private func takeSubmission(_ answer: Answer, _ connection: Connection) {
    let now = nowNs(), number = connection.number
    let isFill = connection.isFill
    if isFill { openFills -= 1 }
    recorder.update { state in
      if answer.status == 202 || answer.status == 200 {
        state.counts.accepted += 1
        state.submit.add(now - state[dueOf: number])
      } else {
        state.counts.refused += 1
        state.refusals[answer.status, default: 0] += 1
      }
    }
    let follow = isFill ? Options.Follow.none : control.current.follow
    guard answer.status == 202, follow != .none, let id = answer.value(of: "id") else { return rest(connection) }
    switch follow {
    case .wait:
      connection.phase = .wait
      send("GET /v1/jobs/\(id)?wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n", connection)
    case .events:
      rest(connection)
      guard let stream = self.connection(to: connection.port) else { return }
      (stream.phase, stream.number) = (.events, number)
      send("GET /v1/jobs/\(id)/events HTTP/1.1\r\nHost: localhost\r\n\r\n", stream)
    case .none: break
    }
  }

  private func takeState(_ answer: Answer, _ connection: Connection) {
    let status = answer.value(of: "status") ?? ""
    if ["queued", "running"].contains(status), let id = answer.value(of: "id") {
      send("GET /v1/jobs/\(id)?wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n", connection)
      return
    }
    end(connection, answer.text)
    rest(connection)
  }

  private func end(_ connection: Connection, _ text: String) {
    let now = nowNs(), number = connection.number
    let isGood = text.contains("\"status\":\"succeeded\"") || text.contains("\"status\": \"succeeded\"")
    recorder.update { state in
      if isGood {
        state.counts.succeeded += 1
        state.job.add(now - state[dueOf: number])
      } else {
        state.counts.failed += 1
      }
    }
    connection.phase = .idle
  }

  private func rest(_ connection: Connection) {
    connection.phase = .idle
    idle[connection.port, default: []].append(connection)
  }

  private func drop(_ connection: Connection) {
    guard connections.removeValue(forKey: connection.socket) != nil else { return }
    if connection.phase == .idle {
      idle[connection.port]?.removeAll { $0 === connection }
    } else {
      recorder.update { $0.counts.broken += 1 }
      if connection.phase == .submit, connection.isFill { openFills -= 1 }
    }
    close(connection.socket)
  }
}

/// A whole answer with a length.
private struct Answer {
  let status: Int
  let text: String
  let byteCount: Int
  let closes: Bool

  /// nil: more has to come.
  init?(_ input: [UInt8]) {
    let end: [UInt8] = [13, 10, 13, 10]
    guard input.count > 12, let headEnd = (0...input.count - 4).first(where: { input[$0..<$0 + 4].elementsEqual(end) })
    else { return nil }
    let head = String(decoding: input[..<headEnd], as: UTF8.self).lowercased()
    status = Int(head.dropFirst(9).prefix(3)) ?? 0
    var length = 0
    for line in head.split(separator: "\r\n") where line.hasPrefix("content-length:") {
      length = Int(line.dropFirst("content-length:".count).trimmingCharacters(in: .whitespaces)) ?? 0
    }
    byteCount = headEnd + 4 + length
    guard input.count >= byteCount else { return nil }
    text = String(decoding: input[headEnd + 4..<byteCount], as: UTF8.self)
    closes = head.contains("connection: close")
  }

  /// The first member `name` that is a string.
  func value(of name: String) -> String? {
    guard let start = text.range(of: "\"\(name)\":\"") else { return nil }
    return text[start.upperBound...].split(separator: "\"", maxSplits: 1, omittingEmptySubsequences: false).first
      .map(String.init)
  }
}

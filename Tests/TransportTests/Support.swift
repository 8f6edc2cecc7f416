import CZeroMQ
import ClusterCore
import Foundation
import TensorCore
import Transport
import Wire

/// The socket was closed, or the test's time was over, before what it waited for.
struct NoEvent: Error {}

/// The next event.
func next<Event>(_ events: TransportEvents<Event>) async throws -> Event {
  var iterator = events.makeAsyncIterator()
  guard let event = await iterator.next() else { throw NoEvent() }
  return event
}

/// The first thing that `pick` makes of an event.
func first<Event, Value>(_ events: TransportEvents<Event>, _ pick: (Event) -> Value?) async throws -> Value {
  while true {
    if let value = pick(try await next(events)) { return value }
  }
}

/// The next message at a router, passing over everything else.
func nextMessage(_ router: RouterSocket) async throws -> Inbound {
  try await first(router.events) { if case .message(let inbound) = $0 { inbound } else { nil } }
}

/// The next message at a dealer, passing over everything else.
func nextMessage(_ dealer: DealerSocket) async throws -> Envelope {
  try await first(dealer.events) { if case .message(let envelope) = $0 { envelope } else { nil } }
}

func waitUntilConnected(_ dealer: DealerSocket) async throws {
  try await first(dealer.events) { if case .connected = $0 { () } else { nil } }
}

/// Closes `dealer`, and whether it was ever connected since its events were last taken.
func wasConnected(_ dealer: DealerSocket) async -> Bool {
  await dealer.close()
  for await event in dealer.events { if case .connected = event { return true } }
  return false
}

/// Sends, and returns whether there was space.
func trySend(_ envelope: Envelope, by dealer: DealerSocket) async throws -> Bool {
  do {
    try await dealer.send(envelope)
    return true
  } catch {
    guard error == .wouldBlock else { throw error }
    return false
  }
}

/// Fast enough for tests.
var quickOptions: SocketOptions {
  var options = SocketOptions()
  options.lingerMs = 500
  options.reconnectIntervalMs = 20
  options.maxReconnectIntervalMs = 100
  return options
}

/// Any free port of a loopback address that no other test uses: a closed port of a shared address may soon belong to
/// another test, whose peers would then find this one's.
func privateLoopback() -> String {
  #if os(Linux)
    "tcp://127.\(Int.random(in: 1...254)).\(Int.random(in: 1...254)).\(Int.random(in: 1...254)):*"
  #else
    "tcp://127.0.0.1:*"
  #endif
}

func makeRouter(
  _ endpoints: [String] = [privateLoopback()], security: RouterSecurity = .plaintext(),
  options: SocketOptions = quickOptions, context: TransportContext? = nil, time: any TimeSource = SystemTime(),
  log: LogRecorder = LogRecorder()
) async throws -> RouterSocket {
  var configuration = RouterConfiguration(endpoints: endpoints, security: security)
  configuration.options = options
  configuration.context = context
  configuration.time = time
  configuration.logger = log.logger
  return try await RouterSocket(configuration)
}

func makeDealer(
  _ endpoint: String, security: DealerSecurity = .plaintext(), options: SocketOptions = quickOptions,
  context: TransportContext? = nil, time: any TimeSource = SystemTime()
) async throws -> DealerSocket {
  var configuration = DealerConfiguration(endpoint: endpoint, security: security)
  configuration.options = options
  configuration.context = context
  configuration.time = time
  configuration.logger.logLevel = .critical
  return try await DealerSocket(configuration)
}

/// A message with a tensor of `byteCount` bytes that `seed` determines.
func envelope(bytes byteCount: Int, seed: UInt64 = 1) -> Envelope {
  let buffer = FrameBuffer(byteCount: byteCount) { bytes in
    var state = seed &* 0x9E37_79B9_7F4A_7C15 | 1
    for index in bytes.indices {
      state ^= state << 13
      state ^= state >> 7
      state ^= state << 17
      bytes[index] = UInt8(truncatingIfNeeded: state)
    }
  }
  return Envelope(
    task: TaskReference(jobID: "job", taskID: "task", attempt: 1), body: .denoiseResponse(DenoiseResponse(steps: 4)),
    tensors: [WireTensor(name: "latents", dtype: .uint8, shape: [byteCount], bytes: buffer)])
}

/// A directory that is removed at the end.
final class TemporaryDirectory: Sendable {
  let path: String

  init() throws {
    path = NSTemporaryDirectory() + "/transport-\(UUID().uuidString)"
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
  }

  deinit { try? FileManager.default.removeItem(atPath: path) }
}

/// A libzmq DEALER without this project's code, for messages that this project never sends.
final class RawDealer {
  private let context = zmq_ctx_new()
  private let socket: UnsafeMutableRawPointer?

  init(_ endpoint: String) {
    socket = zmq_socket(context, ZMQ_DEALER)
    var linger: Int32 = 500
    zmq_setsockopt(socket, ZMQ_LINGER, &linger, MemoryLayout<Int32>.size)
    zmq_connect(socket, endpoint)
  }

  deinit {
    zmq_close(socket)
    zmq_ctx_term(context)
  }

  /// Sends `frames` with the seal that belongs to them.
  func send(_ frames: [[UInt8]]) {
    sendUnsealed(WireCodec.sealed(frames.map { FrameBuffer(copying: $0) }).map { $0.withUnsafeBytes(Array.init) })
  }

  func sendUnsealed(_ frames: [[UInt8]]) {
    for (index, frame) in frames.enumerated() {
      zmq_send(socket, frame, frame.count, index + 1 < frames.count ? ZMQ_SNDMORE : 0)
    }
  }
}

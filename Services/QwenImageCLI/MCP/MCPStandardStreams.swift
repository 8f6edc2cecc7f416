import Dispatch
import Foundation
import MCP
import StrictJSON

/// The protocol on standard input and output: a message is a line.
enum MCPStandardStreams {
  /// Longest message: an edit may carry images, as a body of the gateway may.
  static let maxLineBytes = 64 << 20

  /// Serves until standard input ends, or a signal comes; calls that run then are cancelled.
  static func run(_ server: MCPServer) async {
    // A client that is gone shows in the result of writing.
    signal(SIGPIPE, SIG_IGN)
    let session = MCPSession(server), output = LineWriter(), input = LineReader(maxLineBytes: maxLineBytes)
    let interruption = Interruption { input.finish() }
    for await line in input.lines {
      switch line {
      case .complete(let bytes): await session.receive(bytes) { await output.write($0) }
      case .tooLong:
        await output.write(
          RPCError(.invalidRequest, "the message has more than \(maxLineBytes) bytes; send images by path or job")
            .message())
      }
      input.hasTaken()
    }
    withExtendedLifetime(interruption) {}
    await session.end()
    await session.waitForCalls()
  }
}

/// Reads lines on a thread of its own, a few ahead of those that are taken.
private final class LineReader: Sendable {
  private static let maxAhead = 4

  let lines: AsyncStream<LineSplitter.Line>
  private let continuation: AsyncStream<LineSplitter.Line>.Continuation
  private let slots = DispatchSemaphore(value: maxAhead)

  init(maxLineBytes: Int) {
    (lines, continuation) = AsyncStream<LineSplitter.Line>.makeStream()
    let thread = Thread { [self] in
      read(LineSplitter(maxBytes: maxLineBytes))
      finish()
    }
    thread.name = "standard-input"
    thread.start()
  }

  /// A line was dealt with.
  func hasTaken() { slots.signal() }

  /// No more lines come.
  func finish() { continuation.finish() }

  private func read(_ splitter: LineSplitter) {
    var splitter = splitter, buffer = [UInt8](repeating: 0, count: 64 << 10)
    while true {
      let count = Foundation.read(STDIN_FILENO, &buffer, buffer.count)
      if count < 0, errno == EINTR { continue }
      guard count > 0 else { return }
      for line in splitter.append(buffer[..<count]) {
        slots.wait()
        continuation.yield(line)
      }
    }
  }
}

/// Writes messages to standard output, whole and one after the other. Writing waits for the reader: on a queue of its
/// own.
private final class LineWriter: Sendable {
  private let queue = DispatchQueue(label: "standard-output")

  func write(_ message: JSON) async {
    let bytes = message.bytes + [0x0A]
    await withCheckedContinuation { continuation in
      queue.async {
        // When the client is gone, the end of its input comes too.
        try? writeAll(bytes, to: STDOUT_FILENO, name: "standard output")
        continuation.resume()
      }
    }
  }
}

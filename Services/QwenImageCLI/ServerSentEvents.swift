/// Splits a byte stream into server-sent events (WHATWG HTML, "Server-sent events").
struct ServerSentEvents {
  /// One event: its type, "message" when the stream names none, and its data lines.
  struct Event: Equatable {
    var name: String
    var data: String
    /// Names the event for attaching again; the stream's last one if the event has none.
    var id = ""
  }

  private let maxEventBytes: Int
  private var line: [UInt8] = []
  private var name = ""
  private var id = ""
  private var data: [String] = []
  private var dataBytes = 0
  private var lastWasCarriageReturn = false

  /// - Parameter maxEventBytes: more data than this in one event is an error.
  init(maxEventBytes: Int) { self.maxEventBytes = maxEventBytes }

  /// Takes the next bytes of the stream and returns the events they complete.
  mutating func append(_ bytes: some Sequence<UInt8>) throws -> [Event] {
    var events: [Event] = []
    for byte in bytes {
      defer { lastWasCarriageReturn = byte == UInt8(ascii: "\r") }
      switch byte {
      case UInt8(ascii: "\n") where lastWasCarriageReturn: break
      case UInt8(ascii: "\n"), UInt8(ascii: "\r"): if let event = endLine() { events.append(event) }
      default:
        line.append(byte)
        guard line.count + dataBytes <= maxEventBytes else {
          throw GatewayClientError.tooLong(limitBytes: maxEventBytes)
        }
      }
    }
    return events
  }

  private mutating func endLine() -> Event? {
    let text = String(decoding: line, as: UTF8.self)
    line.removeAll(keepingCapacity: true)
    if text.isEmpty { return endEvent() }
    let field = text.prefix { $0 != ":" }
    var value = text.dropFirst(field.count + 1)
    if value.first == " " { value = value.dropFirst() }
    switch field {
    case "event": name = String(value)
    case "id" where !value.contains("\0"): id = String(value)
    case "data":
      data.append(String(value))
      dataBytes += value.utf8.count
    default: break
    }
    return nil
  }

  private mutating func endEvent() -> Event? {
    defer {
      name = ""
      data = []
      dataBytes = 0
    }
    return data.isEmpty ? nil : Event(name: name.isEmpty ? "message" : name, data: data.joined(separator: "\n"), id: id)
  }
}

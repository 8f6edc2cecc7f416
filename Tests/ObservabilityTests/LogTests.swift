import Foundation
import Logging
import Observability
import Synchronization
import Testing

/// Collects log lines.
final class Lines: Sendable {
  private let lines = Mutex<[String]>([])
  var sink: LogSink { LogSink { line in self.lines.withLock { $0.append(line) } } }
  var all: [String] { lines.withLock { $0 } }
}

@Suite("Log records")
struct LogTests {
  private func json(_ log: (inout Logger) -> Void) throws -> [String: Any] {
    let lines = Lines()
    var logger = Logger(label: "test") { JSONLogHandler(label: $0, level: .trace, sink: lines.sink) }
    log(&logger)
    #expect(lines.all.count == 1)
    let line = try #require(lines.all.first)
    #expect(line.hasSuffix("}\n") && line.dropLast().contains("\n") == false)
    return try #require(try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any])
  }

  @Test("are one JSON object per line, with time, level, logger, message and metadata")
  func shape() throws {
    let before = Date()
    let record = try json { logger in
      logger[metadataKey: "job"] = "job-1"
      logger.warning("step done", metadata: ["step": "3", "sizes": ["1", "2"], "task": ["id": "t"]])
    }
    #expect(record["level"] as? String == "warning" && record["logger"] as? String == "test")
    #expect(
      record["message"] as? String == "step done" && record["job"] as? String == "job-1"
        && record["step"] as? String == "3")
    #expect(record["sizes"] as? [String] == ["1", "2"])
    #expect((record["task"] as? [String: String]) == ["id": "t"])
    let time = try #require(record["time"] as? String)
    #expect(time.wholeMatch(of: /\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z/) != nil)
    let formatter = ISO8601DateFormatter()
    formatter.formatOptions.insert(.withFractionalSeconds)
    // Records have milliseconds.
    #expect((before - 0.001...Date()).contains(try #require(formatter.date(from: time))))
  }

  @Test("stay one line whatever a peer's text holds")
  func escaping() throws {
    let nasty = "a\"b\\c\nd\r\te\u{0}\u{1B}[31m\u{7F}\u{85}\u{2028}ü图🎨"
    let record = try json { $0.info("\(nasty)", metadata: ["key \"\n": "\(nasty)"]) }
    #expect(record["message"] as? String == nasty)
    #expect(record["key \"\n"] as? String == nasty)
    let plain = Lines()
    Logger(label: "test") { PlainLogHandler(label: $0, level: .trace, sink: plain.sink) }.error(
      "\(nasty)", metadata: ["k": "x y"])
    let line = try #require(plain.all.first)
    #expect(
      line.dropLast().unicodeScalars.allSatisfy { $0.properties.generalCategory != .control }
        && line.hasSuffix("k=\"x y\"\n"))
  }

  @Test("are bounded")
  func bounds() throws {
    let record = try json { logger in
      var metadata: Logger.Metadata = [:]
      for index in 0..<100 { metadata["key\(index)"] = "\(String(repeating: "ü", count: 5000))" }
      logger.info("\(String(repeating: "é", count: 100_000))", metadata: metadata)
    }
    #expect(record["truncated"] as? Bool == true)
    #expect((record["message"] as? String)?.hasSuffix("é…") == true)
    let bytes = try JSONSerialization.data(withJSONObject: record).count
    #expect(bytes < 16_384)
    var deep: Logger.Metadata.Value = "x"
    for _ in 0..<10_000 { deep = .array([deep]) }
    _ = try json { $0.info("deep", metadata: ["deep": deep]) }
  }

  @Test("never show what a secret's key holds, nor lose the record's own keys")
  func secrets() throws {
    let record = try json {
      $0.info(
        "x",
        metadata: [
          "Authorization": "Bearer s3cret", "headers": ["api_key": "s3cret"], "level": "mine", "prompt_tokens": "7",
        ])
    }
    #expect(
      record["Authorization"] as? String == "[redacted]"
        && (record["headers"] as? [String: String]) == ["api_key": "[redacted]"])
    #expect(
      record["level"] as? String == "info" && record["level_"] as? String == "mine"
        && record["prompt_tokens"] as? String == "7")
  }
}

@Suite("Trace context")
struct TraceContextTests {
  @Test("a header comes back as it was")
  func roundTrip() throws {
    let header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    let context = try #require(TraceContext(traceparent: header))
    #expect(
      context.traceparent == header && context.traceIDText == "0af7651916cd43dd8448eb211c80319c" && context.flags == 1)
    let child = context.child()
    #expect(child.traceID == context.traceID && child.parentID != context.parentID && child.flags == 1)
    for _ in 0..<100 {
      let context = TraceContext.random()
      #expect(TraceContext(traceparent: context.traceparent) == context)
    }
  }

  @Test("a later version may say more at its end, version 00 may not")
  func versions() {
    #expect(TraceContext(traceparent: "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more") != nil)
    #expect(TraceContext(traceparent: "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-a-b") != nil)
    #expect(TraceContext(traceparent: "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01") != nil)
  }

  @Test(
    "what is not valid starts a new trace",
    arguments: [
      "", "00", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
      "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
      "00-00000000000000000000000000000000-b7ad6b7169203331-01",
      "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
      "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
      "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
      "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
      "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1",
      "00-0af7651916cd43dd8448eb211c80319g-b7ad6b7169203331-01",
      " 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    ])
  func refused(header: String) { #expect(TraceContext(traceparent: header) == nil) }
}

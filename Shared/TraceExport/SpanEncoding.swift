import Foundation
import Tracing

/// Spans in the JSON form of the OpenTelemetry protocol, version 1: protobuf's JSON mapping, but for identifiers, which
/// are hexadecimal, and enumerations, which are numbers.
struct SpanEncoding {
  /// Of the process.
  let resource: [(key: String, value: String)]
  /// Who makes the spans.
  let scope: (name: String, version: String)

  /// An `ExportTraceServiceRequest`.
  func request(_ spans: [SpanRecord]) -> [UInt8] {
    var text = #"{"resourceSpans":[{"resource":{"attributes":"#
    Self.append(resource.map { ($0.key, SpanAttribute.string($0.value)) }, to: &text)
    text += #"},"scopeSpans":[{"scope":{"name":"#
    Self.append(scope.name, to: &text)
    text += #","version":"#
    Self.append(scope.version, to: &text)
    text += #"},"spans":["#
    for (index, span) in spans.enumerated() {
      if index > 0 { text += "," }
      Self.append(span, to: &text)
    }
    text += "]}]}]}"
    return Array(text.utf8)
  }

  private static func append(_ span: SpanRecord, to text: inout String) {
    text += #"{"traceId":"\#(span.trace.traceIDText)","spanId":"\#(span.trace.parentIDText)""#
    if let parent = span.parentID { text += #","parentSpanId":"\#(parent)""# }
    text += #","flags":\#(span.trace.flags),"name":"#
    append(span.name, to: &text)
    text += #","kind":\#(number(span.kind)),"startTimeUnixNano":"\#(span.startNanoseconds)""#
    text += #","endTimeUnixNano":"\#(span.endNanoseconds)","attributes":"#
    append(span.attributes, to: &text)
    if span.droppedAttributes > 0 { text += #","droppedAttributesCount":\#(span.droppedAttributes)"# }
    if !span.events.isEmpty {
      text += #","events":["#
      for (index, event) in span.events.enumerated() {
        if index > 0 { text += "," }
        text += #"{"timeUnixNano":"\#(event.nanoseconds)","name":"#
        append(event.name, to: &text)
        text += #","attributes":"#
        append(event.attributes, to: &text)
        text += "}"
      }
      text += "]"
    }
    if span.droppedEvents > 0 { text += #","droppedEventsCount":\#(span.droppedEvents)"# }
    if let status = span.status {
      text += #","status":{"code":\#(status.code == .ok ? 1 : 2)"#
      if let message = status.message {
        text += #","message":"#
        append(message, to: &text)
      }
      text += "}"
    }
    text += "}"
  }

  private static func number(_ kind: SpanKind) -> Int {
    switch kind {
    case .internal: 1
    case .server: 2
    case .client: 3
    case .producer: 4
    case .consumer: 5
    }
  }

  private static func append(_ attributes: [(key: String, value: SpanAttribute)], to text: inout String) {
    text += "["
    for (index, attribute) in attributes.enumerated() {
      if index > 0 { text += "," }
      text += #"{"key":"#
      append(attribute.key, to: &text)
      text += #","value":"#
      append(attribute.value, to: &text)
      text += "}"
    }
    text += "]"
  }

  private static func append(_ value: SpanAttribute, to text: inout String) {
    switch value {
    case .int32(let number): text += #"{"intValue":"\#(number)"}"#
    case .int64(let number): text += #"{"intValue":"\#(number)"}"#
    case .double(let number):
      text += number.isFinite ? #"{"doubleValue":\#(number)}"# : #"{"doubleValue":"\#(nonFinite(number))"}"#
    case .bool(let flag): text += #"{"boolValue":\#(flag)}"#
    case .string(let string): appendText(string, to: &text)
    case .stringConvertible(let convertible): appendText(convertible.description, to: &text)
    case .stringArray(let strings):
      text += #"{"arrayValue":{"values":["#
      for (index, string) in strings.prefix(ExportedSpan.maxAttributes).enumerated() {
        if index > 0 { text += "," }
        appendText(string, to: &text)
      }
      text += "]}}"
    default: appendText("\(value)", to: &text)
    }
  }

  private static func nonFinite(_ number: Double) -> String {
    number.isNaN ? "NaN" : number > 0 ? "Infinity" : "-Infinity"
  }

  private static func appendText(_ string: String, to text: inout String) {
    text += #"{"stringValue":"#
    append(ExportedSpan.bounded(string), to: &text)
    text += "}"
  }

  private static func append(_ string: String, to text: inout String) {
    text += "\""
    for scalar in string.unicodeScalars {
      switch scalar {
      case "\"": text += "\\\""
      case "\\": text += "\\\\"
      case "\u{0}"..."\u{1F}":
        let digits = String(scalar.value, radix: 16)
        text += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
      default: text.unicodeScalars.append(scalar)
      }
    }
    text += "\""
  }
}

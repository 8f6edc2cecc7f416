import GatewayAPI
import GatewayDispatch
import HTTPTypes
import Hummingbird

/// How long an answer about a job waits for the job's end: `?wait=SECONDS`, else `Prefer: wait=SECONDS` (RFC 7240).
struct LongPoll: Hashable, Sendable {
  static let maxSeconds = 60

  /// 0: not at all.
  let seconds: Double
  /// Whether the header asks for it, which the answer has to say.
  let isPreference: Bool

  /// - Throws: when the parameter is no number of seconds from 0 to ``maxSeconds``. A preference is a wish: one that
  ///   cannot be read is ignored, and a longer one is cut.
  init(_ request: Request) throws(APIError) {
    if let text = request.uri.queryParameters["wait"] {
      // Nothing that is a number in Swift alone, such as "0x1p3" and "inf".
      let isDecimal = text.utf8.allSatisfy { (0x30...0x39).contains($0) || ".eE+-".utf8.contains($0) }
      guard isDecimal, text.utf8.count <= 32, let seconds = Double(text),
        (0...Double(Self.maxSeconds)).contains(seconds)
      else {
        throw APIError(
          .invalidValue, "wait is \"\(text.prefix(40))\", but must be a number of seconds from 0 to \(Self.maxSeconds)",
          param: "wait")
      }
      (self.seconds, isPreference) = (seconds, false)
    } else {
      let wish = Self.preference(request.headers[.prefer] ?? "")
      seconds = Double(min(wish ?? 0, Self.maxSeconds))
      isPreference = wish != nil
    }
  }

  /// The first `wait` of a list of preferences.
  private static func preference(_ field: String) -> Int? {
    for preference in field.split(separator: ",") {
      let pair = preference.prefix { $0 != ";" }.filter { $0 != " " && $0 != "\t" }.split(separator: "=", maxSplits: 1)
      guard pair.count == 2, pair[0].lowercased() == "wait" else { continue }
      let digits = pair[1].filter { $0 != "\"" }
      guard !digits.isEmpty, digits.utf8.allSatisfy({ (0x30...0x39).contains($0) }) else { return nil }
      return Int(digits) ?? maxSeconds
    }
    return nil
  }

  /// Waits for the end of a tenant's job. A client that leaves ends the wait, and changes nothing for the job.
  func callAsFunction(for job: String, _ dispatcher: Dispatcher, _ context: GatewayContext) async {
    guard seconds > 0 else { return }
    let tenant = context.caller.tenant
    await context.untilClientLeaves {
      await dispatcher.waitForEnd(of: job, tenant: tenant, atMost: .seconds(seconds))
    }
  }

  func describe(_ response: inout Response) {
    if isPreference { response.headers[.preferenceApplied] = "wait=\(Int(seconds))" }
  }
}

extension HTTPField.Name {
  static let prefer = Self("prefer")!
  static let preferenceApplied = Self("preference-applied")!
}

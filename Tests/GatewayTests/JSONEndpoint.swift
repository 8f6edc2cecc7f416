import HTTPTesting
import HTTPTypes
import Hummingbird
import StrictJSON
import Synchronization

/// An endpoint that takes JSON, answers as a test wants, and keeps what it was asked.
final class JSONEndpoint: Sendable {
  private let path: String
  private let reply: @Sendable (JSON) async -> Response
  private let asked = Mutex<[(question: JSON, authorization: String?)]>([])

  init(_ path: String, _ reply: @escaping @Sendable (JSON) async -> Response) {
    self.path = path
    self.reply = reply
  }

  /// The bodies of the requests that have come.
  var questions: [JSON] { asked.withLock { $0.map(\.question) } }
  /// Their `Authorization`.
  var authorizations: [String?] { asked.withLock { $0.map(\.authorization) } }

  static func answer(_ text: String, status: HTTPResponse.Status = .ok) -> Response {
    Response(status: status, body: .init(byteBuffer: .init(string: text)))
  }

  /// Runs `body` with the address of the server.
  func serving(_ body: @escaping @Sendable (_ address: String) async throws -> Void) async throws {
    let router = Router()
    router.post("\(path)") { [self] request, _ in
      let question = try JSON(Array(buffer: try await request.body.collect(upTo: 1 << 20)))
      asked.withLock { $0.append((question, request.headers[.authorization])) }
      return await reply(question)
    }
    let application = Application(
      router: router, configuration: .init(address: .hostname("127.0.0.1", port: 0)), logger: Toy.logger)
    try await application.test(.live) { try await body("http://127.0.0.1:\($0.port ?? 0)") }
  }
}

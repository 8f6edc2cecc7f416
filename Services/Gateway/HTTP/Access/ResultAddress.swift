import GatewayAPI
import HTTPTypes
import Hummingbird

/// The address of one image of a job. If the server asks for keys, the address is signed, and shows this image, with
/// all its layers, to those who have it: programs that ask for addresses fetch them without a key.
struct ResultAddress: Hashable, Sendable {
  /// The route, as it is registered.
  static let route = "/v1/jobs/{id}/result"
  /// Query parameters of an address, all of which may be there.
  static let parameters: Set = ["index", "layer", "key", "signature"]

  let job: String
  /// From 0, as it stands in the address.
  let index: String

  /// The path with the query.
  func path(signedBy caller: Caller) -> String {
    let path = "/v1/jobs/\(job)/result?index=\(index)"
    return caller.entry.map { "\(path)&key=\($0.id)&signature=\($0.signature(of: text))" } ?? path
  }

  /// What is signed.
  private var text: String { "result of \(job), image \(index)" }

  /// Who has signed the address that a request is for; nil: it is no signed address.
  static func signer(of request: Request, _ context: GatewayContext, _ keyring: Keyring) throws(APIError) -> Caller? {
    guard context.endpointPath == route, [.get, .head].contains(request.method), let job = context.parameters.get("id"),
      let key = request.uri.queryParameters["key"], let signature = request.uri.queryParameters["signature"]
    else { return nil }
    let address = ResultAddress(job: job, index: String(request.uri.queryParameters["index"] ?? "0"))
    return try keyring.caller(signature: String(signature), of: address.text, key: String(key))
  }
}

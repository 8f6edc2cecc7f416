import CCurl
import Foundation
import Synchronization

/// The pieces of a response's body, as they arrive. For one reader, once.
public struct HTTPBody: AsyncSequence, Sendable {
  let lease: TransferLease

  /// Reads the pieces.
  public struct AsyncIterator: AsyncIteratorProtocol {
    let lease: TransferLease

    /// The next piece; nil at the end. Throws ``HTTPClientError`` when the connection breaks, `CancellationError` when
    /// the task is cancelled.
    public mutating func next() async throws -> [UInt8]? { try await lease.transfer.nextChunk() }
  }

  /// Begins reading.
  public func makeAsyncIterator() -> AsyncIterator { AsyncIterator(lease: lease) }

  /// The whole body. More than `maxBytes` is an error.
  public func collect(upTo maxBytes: Int) async throws -> [UInt8] {
    var bytes: [UInt8] = []
    for try await chunk in self {
      guard bytes.count + chunk.count <= maxBytes else {
        throw HTTPClientError(kind: .tooLong, message: "the response has more than \(maxBytes) bytes")
      }
      bytes += chunk
    }
    return bytes
  }
}

/// Why there is no (whole) response.
public struct HTTPClientError: Error, Hashable, Sendable, CustomStringConvertible {
  /// What went wrong.
  public enum Kind: Hashable, Sendable {
    /// The request cannot be sent as it is: a malformed address or header field.
    case badRequest
    /// The host's name is unknown, or nothing listens there.
    case unreachable
    /// A connection was not made in time.
    case connectTimedOut
    /// The exchange took too long, or nothing came for too long.
    case timedOut
    /// The server speaks no TLS, or none that this machine understands.
    case noTLS
    /// What the server sends is not HTTP.
    case noHTTP
    /// The server's certificate is not one that this machine trusts.
    case untrusted
    /// The body is longer than the caller allows.
    case tooLong
    /// The host has no address that the client may connect to.
    case forbiddenAddress
    /// The connection broke.
    case broken
  }

  /// What went wrong.
  public let kind: Kind
  /// The details.
  public let message: String

  /// The details.
  public var description: String { message }

  init(kind: Kind, message: String) {
    self.kind = kind
    self.message = message
  }

  init(_ code: CURLcode, _ message: String, isConnected: Bool) {
    switch code {
    case CURLE_URL_MALFORMAT: kind = .badRequest
    case CURLE_COULDNT_RESOLVE_HOST, CURLE_COULDNT_CONNECT: kind = .unreachable
    case CURLE_OPERATION_TIMEDOUT: kind = isConnected ? .timedOut : .connectTimedOut
    case CURLE_SSL_CONNECT_ERROR: kind = .noTLS
    case CURLE_UNSUPPORTED_PROTOCOL, CURLE_WEIRD_SERVER_REPLY: kind = .noHTTP
    case CURLE_PEER_FAILED_VERIFICATION, CURLE_SSL_CACERT_BADFILE: kind = .untrusted
    default: kind = .broken
    }
    self.message = message
  }
}

extension HTTPClient {
  /// A request to a server.
  public struct Request: Sendable {
    /// `GET`, `HEAD`, `POST`, `DELETE`, …
    public var method: String
    /// An `http` or `https` address.
    public var url: String
    /// Header fields.
    public var headers: [(name: String, value: String)]
    /// What is sent after the header.
    public var body: [UInt8]?
    /// Bounds the whole exchange, the response's body included; nil: it may take as long as it takes.
    public var timeout: Duration?

    /// A request without header fields and body.
    public init(_ url: String, method: String = "GET", timeout: Duration? = nil) {
      self.method = method
      self.url = url
      self.headers = []
      self.timeout = timeout
    }
  }

  /// A server's response; the body comes piece by piece. Dropping the response closes its connection.
  public struct Response: Sendable {
    /// 200, 404, …
    public let status: Int
    /// Header fields in the order in which they came, names as the server spells them.
    public let headers: [(name: String, value: String)]
    /// The bytes after the header.
    public let body: HTTPBody

    /// The first header field of that name, in any spelling of its letters.
    public func header(_ name: String) -> String? { headers.first { $0.name.lowercased() == name.lowercased() }?.value }
  }
}

/// A client of HTTP/1.1 and HTTP/2, with and without TLS, over libcurl. Connections are kept for the next request to
/// the same server.
///
/// TLS servers must have a certificate that this machine trusts; the environment variable `SSL_CERT_FILE` names a file
/// of authorities that are trusted instead. Proxies that the environment names are not used.
public final class HTTPClient: Sendable {
  private let loop: TransferLoop

  /// A client that is ready for requests.
  ///
  /// - Parameters:
  ///   - userAgent: how it introduces itself.
  ///   - connectTimeout: a connection that takes longer fails.
  ///   - silenceTimeout: an exchange fails when nothing comes from the server for so long while more is expected;
  ///     nil: never.
  ///   - maxRedirections: redirections that are followed; the response to one more is returned as it is.
  ///   - maxConnectionsPerHost: requests beyond it wait for a connection.
  ///   - maxBufferedBytes: as much of a body may wait to be read; then the server must wait.
  ///   - addresses: what it may connect to; nil: any address. The address of each connection is checked itself, not
  ///     what a name server said before.
  ///   - environment: of the process.
  public init(
    userAgent: String, connectTimeout: Duration = .seconds(10), silenceTimeout: Duration? = nil,
    maxRedirections: Int = 5,
    maxConnectionsPerHost: Int = 8, maxBufferedBytes: Int = 1 << 20, addresses: AddressPolicy? = nil,
    environment: [String: String] = ProcessInfo.processInfo.environment
  ) {
    loop = TransferLoop(
      TransferLoop.Options(
        userAgent: userAgent, connectTimeout: connectTimeout, silenceTimeout: silenceTimeout,
        maxRedirections: maxRedirections,
        maxConnectionsPerHost: maxConnectionsPerHost,
        maxBufferedBytes: maxBufferedBytes, addresses: addresses,
        authorities: environment["SSL_CERT_FILE"].flatMap { $0.isEmpty ? nil : $0 }))
    loop.start()
  }

  deinit { loop.shutDown() }

  /// Ends all connections. Exchanges that run fail, as later ones do.
  public func shutDown() { loop.shutDown() }

  /// Sends a request, following redirections within the limit; returns when the response's header has come.
  ///
  /// Throws ``HTTPClientError``, or `CancellationError` when the task is cancelled.
  public func execute(_ request: Request) async throws -> Response {
    guard ["http://", "https://"].contains(where: request.url.lowercased().hasPrefix) else {
      throw HTTPClientError(kind: .badRequest, message: "\(request.url) is not an http or https address")
    }
    for (name, value) in request.headers {
      let isSound = !name.isEmpty && name.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7f && $0 != UInt8(ascii: ":") }
      guard isSound, value.utf8.allSatisfy({ $0 >= 0x20 && $0 != 0x7f || $0 == 0x09 }) else {
        throw HTTPClientError(
          kind: .badRequest, message: "the header field \(name) has characters that no header field may have")
      }
    }
    let lease = TransferLease(Transfer(loop: loop, maxBufferedBytes: loop.options.maxBufferedBytes))
    loop.submit(request, lease.transfer)
    let head = try await lease.transfer.head()
    return Response(status: head.status, headers: head.headers, body: HTTPBody(lease: lease))
  }
}

import Foundation
import Hummingbird
import NIOCore
import ServiceLifecycle

/// The HTTP server as a service of the gateway, whose errors name the address.
struct HTTPService<Server: ApplicationProtocol>: Service {
  let server: Server
  let host: String
  let port: Int

  func run() async throws {
    do {
      try await server.run()
    } catch let error as IOError {
      throw ListenError(host: host, port: port, reason: Self.reason(error.errnoCode))
    } catch is SocketAddressError.UnknownHost {
      throw ListenError(host: host, port: port, reason: "the host has no address that this machine knows")
    }
  }

  private static func reason(_ code: Int32) -> String {
    switch code {
    case EADDRINUSE: "the address is in use by another process; choose another port, or 0 for any free one"
    case EADDRNOTAVAIL: "this machine does not have the address"
    case EACCES: "this user may not listen there; ports below 1024 often need a privilege"
    default: String(cString: strerror(code))
    }
  }
}

/// Why HTTP cannot be served.
struct ListenError: Error, Hashable, CustomStringConvertible {
  let host: String
  let port: Int
  let reason: String

  var description: String {
    let address = host.contains(":") && host.first != "[" ? "[\(host)]" : host
    return "HTTP cannot be served at \(address):\(port) (http.host, http.port): \(reason)"
  }
}

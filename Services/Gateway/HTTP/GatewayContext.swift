import Hummingbird
import NIOCore

/// What a handler knows of its request beyond the request itself.
struct GatewayContext: RequestContext {
  var coreContext: CoreRequestContextStorage
  /// The connection.
  let channel: any Channel
  /// What has become of the request's body.
  let intake = BodyIntake()
  /// Under which addresses the client sees the server.
  var links = Links()
  /// What a preflight is answered; nil: the request is none.
  var preflight: CrossOriginMiddleware.Preflight?
  /// Who asks.
  var caller = Caller()

  init(source: ApplicationRequestContextSource) {
    coreContext = CoreRequestContextStorage(source: source)
    channel = source.channel
  }
}

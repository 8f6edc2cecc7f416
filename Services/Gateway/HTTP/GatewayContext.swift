import Hummingbird
import NIOCore

/// What a handler knows of its request beyond the request itself.
struct GatewayContext: RequestContext {
  var coreContext: CoreRequestContextStorage
  /// The connection.
  let channel: any Channel
  /// Who asks.
  var caller = Caller()

  init(source: ApplicationRequestContextSource) {
    coreContext = CoreRequestContextStorage(source: source)
    channel = source.channel
  }
}

import ClusterCore
import GatewayAPI
import GatewayPipelines
import Scheduling
import Wire

extension Dispatcher {
  /// Takes a worker's list of adapters, or a part of it.
  func take(_ announcement: AdapterAnnouncement, _ session: WorkerDirectory.Session) {
    // The answer to its next heartbeat says that the session is over.
    guard announcement.sessionID == workers.sessionName(of: session.id),
      let adapters = workers.note(announcement, of: session.id)
    else { return }
    logger.info(
      "adapters announced",
      metadata: ["worker": "\(session.register.workerID)", "adapters": "\(adapters.count)"])
    process(
      .workerAdaptersChanged(
        session.id,
        WorkerAdapters(
          served: Set(adapters.map(\.digest)), loaded: Set(adapters.filter(\.isLoaded).map(\.digest)))))
  }

  /// The adapters that can be asked for with a model.
  public func adapters(of model: ModelIdentity) -> AdapterCatalog { workers.adapters(of: model) }

  /// The request with what the names of its adapters stand for now.
  ///
  /// - Throws: an error that names the adapter that no worker of the model has.
  public func resolvingAdapters(
    of request: GenerationRequest, for model: ModelIdentity
  ) throws(APIError) -> GenerationRequest {
    guard !request.loras.isEmpty else { return request }
    var request = request
    request.loras = try workers.adapters(of: model).resolve(request.loras, model: model.id).map {
      RequestedAdapter(name: $0.name, scale: $0.scale, digest: $0.digest)
    }
    return request
  }
}

import Foundation

extension GatewayClient {
  /// A model as `/v1/models` shows it.
  struct Model: Decodable {
    struct Size: Decodable {
      let width: Int
      let height: Int
    }
    struct Defaults: Decodable { let size: Size }
    struct Pipeline: Decodable {
      let name: String
      let ready: Bool
    }
    struct Adapter: Decodable { let name: String }
    let id: String
    /// The model that this is a further name of.
    let aliasOf: String?
    let license: String?
    let ready: Bool?
    let pipelines: [Pipeline]?
    let loras: [Adapter]?
    let defaults: Defaults
  }

  /// The models, the one that a request without a name is for first.
  func models() async throws -> [Model] {
    struct Models: Decodable { let data: [Model] }
    let models: Models = try decode(try await data("/v1/models"))
    return models.data
  }
}

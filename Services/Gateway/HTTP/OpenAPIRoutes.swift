import HTTPTypes
import Hummingbird
import NIOCore

/// `GET /openapi.yaml`: the document in this target's folder.
struct OpenAPIRoutes: Sendable {
  func add(to router: Router<GatewayContext>) {
    router.serve(
      "/openapi.yaml",
      [
        (
          .get,
          { _, _ in
            Response(
              status: .ok, headers: [.contentType: "application/yaml"],
              body: ResponseBody(byteBuffer: ByteBuffer(bytes: PackageResources.openapi_yaml)))
          }
        )
      ])
  }
}

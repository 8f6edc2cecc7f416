import Foundation
import Gateway
import HTTPTesting
import HTTPTypes
import Hummingbird
import Testing

/// The document and the routes are the same, in both directions.
@Suite("The OpenAPI document", .timeLimit(.minutes(2)))
struct OpenAPITests {
  /// What a document of this project's form says; it is written in YAML with two spaces for a level.
  private struct Document {
    /// The methods of each path.
    var operations: [String: Set<String>] = [:]
    var operationIDs: [String] = []
    /// `#/components/schemas/Job`, of what is defined.
    var definitions: Set<String> = []
    /// Of what is referred to.
    var references: Set<String> = []

    init(_ text: String) {
      var section = "", path = "", kind = ""
      for line in text.split(separator: "\n", omittingEmptySubsequences: true) {
        for match in line.matches(of: /\$ref: "(#[^"]*)"/) { references.insert(String(match.1)) }
        let indentation = line.prefix { $0 == " " }.count
        let name = line.dropFirst(indentation).prefix { $0 != ":" }
        switch (indentation, section) {
        case (0, _): section = String(name)
        case (2, "paths"):
          path = String(name)
          operations[path, default: []] = []
        case (4, "paths") where name != "parameters": operations[path, default: []].insert(name.uppercased())
        case (6, "paths") where name == "operationId":
          operationIDs.append(line.split(separator: " ").last.map(String.init) ?? "")
        case (2, "components"): kind = String(name)
        case (4, "components"): definitions.insert("#/components/\(kind)/\(name)")
        default: continue
        }
      }
    }

    /// As the router has them: `/v1/jobs/{id}`.
    var routes: [String: Set<String>] {
      Dictionary(
        uniqueKeysWithValues: operations.map { path, methods in
          (path.replacing("{job}", with: "{id}").replacing("{model}", with: "**"), methods)
        })
    }
  }

  private static func withDocument(
    _ body: @escaping @Sendable (Document, any TestClientProtocol, [String: Set<String>]) async throws -> Void
  ) async throws {
    try await ToyCluster.run { cluster in
      let paths = Set(GatewayServer.routes(dispatcher: cluster.dispatcher).map(\.path))
      try await cluster.app().test(.live) { client in
        let text = String(buffer: try await client.execute(uri: "/openapi.yaml", method: .get).body)
        var served: [String: Set<String>] = [:]
        for path in paths {
          // No route takes it: the answer names those that are taken.
          let uri = path.replacing("{id}", with: "job-1").replacing("**", with: "toy/model")
          let response = try await client.execute(uri: uri, method: .patch)
          #expect(response.status == .methodNotAllowed, "\(path)")
          let allowed = response.headers[.allow]?.split(separator: ",").map { $0.trimmingCharacters(in: .whitespaces) }
          served[path] = Set(try #require(allowed, "\(path)"))
          let other = try await client.execute(uri: uri, method: try #require(.init("QUERY")))
          #expect(other.status == .methodNotAllowed && other.headers[.allow] == response.headers[.allow], "\(path)")
        }
        try await body(Document(text), client, served)
      }
    }
  }

  @Test func everyRouteIsInTheDocumentAndTheOtherWayRound() async throws {
    try await Self.withDocument { document, _, served in
      // What the page loads is no part of the API.
      let files = Set(RouteAccessTests.pagePaths).subtracting(["/"])
      #expect(document.routes.count > 40 && files.isSubset(of: served.keys))
      for (path, methods) in served where !files.contains(path) {
        // Every GET may be a HEAD.
        #expect(document.routes[path] == methods.subtracting(["HEAD"]), "\(path)")
        #expect(methods.contains("GET") == methods.contains("HEAD"), "\(path)")
      }
      let missing = Set(document.routes.keys).subtracting(served.keys)
      #expect(missing.isEmpty, "the document has paths that are not served: \(missing.sorted())")
    }
  }

  @Test func everyReferenceLeadsToADefinitionThatIsUsed() async throws {
    try await Self.withDocument { document, _, _ in
      #expect(document.references.subtracting(document.definitions).isEmpty)
      // Security schemes are used by name; what webhooks and event streams send is referred to by descriptions.
      let unused = document.definitions.subtracting(document.references).filter { !$0.contains("/securitySchemes/") }
      #expect(unused == ["#/components/schemas/WebhookPayload"], "\(unused.sorted())")
      #expect(document.operationIDs.count == Set(document.operationIDs).count)
      #expect(document.operationIDs.count == document.operations.values.reduce(0) { $0 + $1.count })
    }
  }
}

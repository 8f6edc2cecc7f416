import Testing

@Suite("Modules") struct ModuleTests {
  private static let manifest = Manifest(SourceTree.here["Package.swift"]!.text)

  @Test("import what they declare, and declare what they import")
  func imports() {
    #expect(Self.manifest.targets.count > 45)
    expectNone(Imports.findings(Self.manifest, in: SourceTree.here, unimported: Allowances.unimported))
  }

  @Test("depend on each other in one direction")
  func layers() {
    expectNone(Imports.layerFindings(Self.manifest))
    // Rules about modules that are not there would hold whatever happens.
    for name in Layers.compute.union(Layers.cluster).union(Layers.gateway) {
      #expect(Self.manifest[name] != nil, "\(name)")
    }
  }

  @Test("have their sources where the manifest says")
  func paths() {
    let folders = Set(SourceTree.here.files(["swift"], below: ["Shared", "Services"]).map(\.folder))
    let suites = Set(SourceTree.here.files(["swift"], below: ["Tests"]).map(\.folder)).filter { $0.hasSuffix("Tests") }
    let declared = Set(Self.manifest.targets.map(\.path))
    #expect(folders.union(suites).subtracting(declared).isEmpty, "sources that belong to no target")
    #expect(Set(Self.manifest.targets.map(\.name)).count == Self.manifest.targets.count)
  }

  @Test("give no two types one name")
  func types() {
    let files = SourceTree.here.files(["swift"], below: ["Shared", "Services"])
    expectNone(TypeNames.duplicates(in: files, allowed: Allowances.typeNames))
    #expect(files.reduce(0) { $0 + TypeNames.types(in: $1).count } > 300)
    for name in Allowances.typeNames.keys {
      #expect(
        !TypeNames.duplicates(in: files, allowed: Allowances.typeNames.filter { $0.key != name }).isEmpty,
        "\(name) is no duplicate")
    }
  }

  // MARK: The checks find what they are for

  private static let planted = Manifest(
    """
    func shared(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
      .target(name: name, dependencies: dependencies, path: "Shared/\\(name)")
    }
    extension Target.Dependency {
      static let logging = product(name: "Logging", package: "swift-log")
      static let metrics = product(name: "Metrics", package: "swift-metrics")
    }
    let package = Package(
      name: "x",
      products: [.executable(name: "gateway", targets: ["GatewayMain"])],
      dependencies: [.package(url: "https://example.org/swift-log", exact: "1.0.0", traits: ["A"])],
      targets: [
        system("CZeroMQ", apt: ["libzmq3-dev"]),
        shared("Kernels"),  // shared("Comment")
        shared("Transport", ["CZeroMQ", .logging]),
        .target(name: "QwenImage", dependencies: ["Kernels", "Transport"], path: "Shared/QwenImage"),
        .target(
          name: "Gateway",
          dependencies: [
            "Kernels", .logging,
            .metrics,
          ],
          path: "Services/Gateway", resources: ["a.html"].map { .embedInCode($0) }),
        test(
          "Transport",
          [
            "Transport", .logging,
          ], resources: [.copy("Golden")]),
      ])
    """)

  @Test("a manifest is understood")
  func manifest() {
    typealias Target = Manifest.Target
    #expect(
      Self.planted.targets == [
        Target(name: "CZeroMQ", path: "Shared/CZeroMQ", dependencies: [], products: []),
        Target(name: "Kernels", path: "Shared/Kernels", dependencies: [], products: []),
        Target(name: "Transport", path: "Shared/Transport", dependencies: ["CZeroMQ"], products: ["Logging"]),
        Target(name: "QwenImage", path: "Shared/QwenImage", dependencies: ["Kernels", "Transport"], products: []),
        Target(name: "Gateway", path: "Services/Gateway", dependencies: ["Kernels"], products: ["Logging", "Metrics"]),
        Target(
          name: "TransportTests", path: "Tests/TransportTests", dependencies: ["Transport"], products: ["Logging"]),
      ])
    #expect(Self.planted.closure(of: "QwenImage") == ["Kernels", "Transport", "CZeroMQ"])
  }

  @Test("undeclared and unused dependencies are found")
  func plantedImports() {
    let tree = SourceTree([
      SourceFile("Shared/Kernels/A.swift", "import Foundation\n"),
      SourceFile("Shared/Transport/A.swift", "public import CZeroMQ\n@preconcurrency import Logging\nimport Kernels\n"),
      SourceFile(
        "Shared/QwenImage/Deep/A.swift",
        "import struct Kernels.Shape\n// import Transport\nlet s = \"\"\"\n  import Transport\n  \"\"\""),
      SourceFile(
        "Services/Gateway/A.swift", "@_spi(X) import Kernels\n#if os(Linux)\n  import Logging\n#endif\nimport Metrics\n"
      ),
      SourceFile("Tests/TransportTests/A.swift", "import Logging\n@testable import Transport\nimport Crypto\n"),
    ])
    #expect(
      Imports.findings(Self.planted, in: tree, unimported: [:]).map(\.description) == [
        "Shared/Transport/A.swift: imports Kernels, which is no declared dependency of Transport",
        "Package.swift: QwenImage depends on the target Transport, but no file of it imports that",
        "Tests/TransportTests/A.swift: imports Crypto, which is no declared dependency of TransportTests",
      ])
    #expect(Imports.findings(Self.planted, in: tree, unimported: ["QwenImage Transport": "a reason"]).count == 2)
  }

  @Test("dependencies in the wrong direction are found, through others too")
  func plantedLayers() {
    let messages = Set(Imports.layerFindings(Self.planted).map(\.message))
    #expect(messages.contains { $0.hasPrefix("QwenImage depends on CZeroMQ: models have no sockets") })
    #expect(messages.contains { $0.hasPrefix("QwenImage depends on Transport: models have no sockets") })
    #expect(
      messages.contains { $0.hasPrefix("Gateway depends on Kernels: the gateway knows models by their cards only") })
    #expect(messages.count == 3, "\(messages)")
    func finds(_ declaration: String, _ reason: String) -> Bool {
      Imports.layerFindings(Manifest(declaration)).contains { $0.message.contains(reason) }
    }
    #expect(finds(#"shared("Weights", ["CKernels"])"#, "only Kernels calls"))
    #expect(!finds(#"shared("Kernels", ["CKernels"])"#, "only Kernels calls"))
    #expect(
      finds(
        #".target(name: "GatewayPipelines", dependencies: ["GatewayDispatch"], path: "Services/P")"#,
        "do not see the dispatcher"))
    #expect(finds(#"shared("Scheduling", ["Journal"])"#, "state machine without input"))
    #expect(finds(#"shared("Wire", ["Simulation"])"#, "below Tests/"))
    #expect(finds(#"shared("Wire", ["Gateway"])"#, "does not know Services/"))
  }

  @Test("two types of one name are found")
  func plantedTypes() {
    let files = [
      SourceFile(
        "Shared/A/A.swift", "public struct Status: Error {}\nprivate enum Own {}\nstruct Outer {\n  struct Step {}\n}\n"
      ),
      SourceFile(
        "Shared/B/B.swift",
        "@frozen\n@available(x)\npublic final class Status {}\nfileprivate enum Own {}\nactor Step {}\n"),
      SourceFile(
        "Services/Gateway/API/C.swift",
        "// struct Status {}\nlet s = \"\"\"\nenum Step {}\n\"\"\"\ntypealias Own = Int\n"),
    ]
    #expect(
      TypeNames.duplicates(in: files, allowed: [:]).map(\.description) == [
        "Shared/A/A.swift: Status is also declared in Shared/B/B.swift"
      ])
    #expect(TypeNames.duplicates(in: files, allowed: ["Status": "a reason"]).isEmpty)
  }
}

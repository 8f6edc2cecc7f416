import Foundation

/// What sources import is what Package.swift declares, in both directions, and it points one way.
enum Imports {
  /// Modules of the toolchain.
  static let standard: Set = [
    "Darwin", "Dispatch", "Foundation", "FoundationEssentials", "FoundationNetworking", "FoundationXML", "Glibc",
    "Musl", "PackageDescription", "RegexBuilder", "Swift", "Synchronization", "Testing",
  ]

  private static let declaration = NSRegularExpression.known(
    #"^[ \t]*(?:@\w+(?:\([^)\n]*\))? )*(?:(?:public|package|internal|fileprivate|private) )?import "#
      + #"(?:(?:struct|class|enum|protocol|func|var|let|typealias) )?(\w+)"#,
    .anchorsMatchLines)

  /// The modules that a Swift file imports, in any of the forms that there are.
  static func modules(in file: SourceFile) -> Set<String> {
    Set(declaration.matches(in: CodeText.code(of: file)).compactMap { $0[1].map(String.init) })
  }

  /// The Swift files of a target. One target's folder may lie inside of another's.
  static func sources(of target: Manifest.Target, _ manifest: Manifest, in tree: SourceTree) -> [SourceFile] {
    let inner = manifest.targets.map(\.path).filter { $0.hasPrefix(target.path + "/") }
    return tree.files(["swift"], below: [target.path]).filter { file in
      !inner.contains { file.path.hasPrefix($0 + "/") }
    }
  }

  /// Imports that are not declared, and declarations that nothing imports.
  ///
  /// - Parameter unimported: dependencies that are declared for another reason than an import, as `Target Dependency`.
  static func findings(_ manifest: Manifest, in tree: SourceTree, unimported: [String: String]) -> [Finding] {
    let local = Set(manifest.targets.map(\.name))
    return manifest.targets.flatMap { target in
      let files = sources(of: target, manifest, in: tree)
      let declared = Set(target.dependencies).union(target.products)
      var imported: Set<String> = [], findings: [Finding] = []
      for file in files {
        let modules = modules(in: file)
        imported.formUnion(modules)
        for module in modules.sorted()
        where !declared.contains(module) && module != target.name && !standard.contains(module) {
          findings.append(Finding(file, "imports \(module), which is no declared dependency of \(target.name)"))
        }
      }
      // A C target, or none that is there.
      guard !files.isEmpty else { return findings }
      for module in declared.subtracting(imported).sorted() where unimported["\(target.name) \(module)"] == nil {
        let what = local.contains(module) ? "target" : "product"
        findings.append(
          Finding(
            path: "Package.swift", "\(target.name) depends on the \(what) \(module), but no file of it imports that"))
      }
      return findings
    }
  }

  /// Dependencies that a layer must not have, direct or by way of others.
  static func layerFindings(_ manifest: Manifest) -> [Finding] {
    Layers.rules.flatMap { rule in
      manifest.targets.filter { rule.applies(to: $0) }.flatMap { target in
        let reached = rule.isTransitive ? manifest.closure(of: target.name) : Set(target.dependencies)
        return reached.filter(rule.forbids).sorted().map {
          Finding(path: "Package.swift", "\(target.name) depends on \($0): \(rule.reason)")
        }
      }
    }
  }
}

/// The direction of dependencies.
enum Layers {
  struct Rule: Sendable {
    let reason: String
    /// Whether what a dependency depends on counts too.
    var isTransitive = true
    let applies: @Sendable (Manifest.Target) -> Bool
    let forbids: @Sendable (String) -> Bool

    func applies(to target: Manifest.Target) -> Bool { applies(target) }
  }

  /// Models and their arithmetic.
  static let compute: Set = ["CKernels", "COpenBLAS", "Kernels", "Weights", "QwenImage"]
  /// The cluster.
  static let cluster: Set = [
    "CWire", "CZeroMQ", "Wire", "Transport", "StageRuntime", "Scheduling", "Journal", "PostgreSQLJournal",
  ]
  static let gateway: Set = ["GatewayAPI", "GatewayPipelines", "GatewayDispatch", "Gateway", "GatewayMain"]

  static let rules: [Rule] = [
    Rule(reason: "Shared/ does not know Services/") {
      $0.path.hasPrefix("Shared/")
    } forbids: {
      gateway.contains($0) || ["StageSupport", "TextEncoder", "Denoiser", "VAEDecoder", "QwenImageCLI"].contains($0)
    },
    Rule(reason: "products do not depend on what is below Tests/") {
      !$0.path.hasPrefix("Tests/")
    } forbids: {
      ["FuzzTargets", "Simulation", "TestSupport", "HTTPTesting"].contains($0) || $0.hasSuffix("Tests")
    },
    Rule(reason: "models have no sockets; they meet the cluster in Services/ only") {
      compute.contains($0.name)
    } forbids: {
      cluster.contains($0)
    },
    Rule(reason: "the cluster does not compute; it meets the models in Services/ only") {
      cluster.contains($0.name)
    } forbids: {
      compute.contains($0)
    },
    Rule(reason: "the gateway knows models by their cards only") {
      gateway.contains($0.name)
    } forbids: {
      compute.contains($0) || $0 == "StageSupport"
    },
    Rule(reason: "requests and pipelines do not see the dispatcher or HTTP") {
      ["GatewayAPI", "GatewayPipelines"].contains($0.name)
    } forbids: {
      ["GatewayDispatch", "Gateway", "Transport"].contains($0)
    },
    Rule(reason: "the dispatcher does not see HTTP") {
      $0.name == "GatewayDispatch"
    } forbids: {
      $0 == "Gateway"
    },
    Rule(reason: "the scheduler is a state machine without input and output") {
      $0.name == "Scheduling"
    } forbids: {
      $0 != "ClusterCore"
    },
    Rule(reason: "only Kernels calls the C kernels and BLAS", isTransitive: false) {
      $0.name != "Kernels" && !$0.path.hasPrefix("Tests/")
    } forbids: {
      ["CKernels", "COpenBLAS"].contains($0)
    },
    Rule(reason: "only Transport uses ZeroMQ, and only Wire protobuf", isTransitive: false) {
      !["Transport", "Wire", "CWire"].contains($0.name) && !$0.path.hasPrefix("Tests/")
    } forbids: {
      ["CZeroMQ", "CWire", "CProtobufC"].contains($0)
    },
  ]
}

// swift-tools-version: 6.1
import PackageDescription

// The modules, bottom to top. Dependencies point one way, and are what the sources import (Tests/TidyTests checks
// both):
//   compute:  TensorCore → Kernels → Weights → Diffusion → QwenImage → ModelRegistry
//   cluster:  Wire → Transport → StageRuntime; Scheduling, Journal → Objects
// The two meet only in Services/. See Shared/Documentation/ARCHITECTURE.md.

/// Kernels are unusable at -O0 (about 19 times slower), so C is optimised in debug builds too.
let optimisedC: [CSetting] = [.unsafeFlags(["-O2", "-fno-math-errno", "-ffp-contract=off"])]

func system(_ name: String, apt: [String]) -> Target {
  .systemLibrary(name: name, path: "Shared/\(name)", providers: [.apt(apt)])
}
func shared(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
  .target(name: name, dependencies: dependencies, path: "Shared/\(name)")
}
func service(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
  .executableTarget(name: name, dependencies: dependencies, path: "Services/\(name)")
}
func test(
  _ name: String, _ dependencies: [Target.Dependency] = [], exclude: [String] = [], resources: [Resource] = []
) -> Target {
  .testTarget(
    name: "\(name)Tests", dependencies: dependencies, path: "Tests/\(name)Tests", exclude: exclude,
    resources: resources)
}

extension Target.Dependency {
  static let argumentParser = product(name: "ArgumentParser", package: "swift-argument-parser")
  static let asyncAlgorithms = product(name: "AsyncAlgorithms", package: "swift-async-algorithms")
  static let configuration = product(name: "Configuration", package: "swift-configuration")
  static let coreMetrics = product(name: "CoreMetrics", package: "swift-metrics")
  static let deque = product(name: "DequeModule", package: "swift-collections")
  static let grdb = product(name: "GRDB", package: "GRDB.swift")
  static let heap = product(name: "HeapModule", package: "swift-collections")
  static let httpTypes = product(name: "HTTPTypes", package: "swift-http-types")
  static let hummingbird = product(name: "Hummingbird", package: "hummingbird")
  static let hummingbirdCore = product(name: "HummingbirdCore", package: "hummingbird")
  static let logging = product(name: "Logging", package: "swift-log")
  static let metrics = product(name: "Metrics", package: "swift-metrics")
  static let nioCore = product(name: "NIOCore", package: "swift-nio")
  static let nioHTTP1 = product(name: "NIOHTTP1", package: "swift-nio")
  static let nioHTTPTypes = product(name: "NIOHTTPTypes", package: "swift-nio-extras")
  static let nioHTTPTypesHTTP1 = product(name: "NIOHTTPTypesHTTP1", package: "swift-nio-extras")
  static let nioPosix = product(name: "NIOPosix", package: "swift-nio")
  static let orderedCollections = product(name: "OrderedCollections", package: "swift-collections")
  static let serviceLifecycle = product(name: "ServiceLifecycle", package: "swift-service-lifecycle")
  static let subprocess = product(name: "Subprocess", package: "swift-subprocess")
  static let systemPackage = product(name: "SystemPackage", package: "swift-system")
  static let tracing = product(name: "Tracing", package: "swift-distributed-tracing")
  static let unixSignals = product(name: "UnixSignals", package: "swift-service-lifecycle")
}

/// What Tests/Benchmarks, a package of its own, imports.
extension Product {
  static var kernels: Product { library(name: "Kernels", targets: ["TensorCore", "Kernels"]) }
  static var wire: Product { library(name: "Wire", targets: ["ClusterCore", "TensorCore", "Wire"]) }
  static var qwenImage: Product {
    library(
      name: "QwenImage",
      targets: [
        "ClusterCore", "TensorCore", "Kernels", "Weights", "ImageCodec", "Diffusion", "QwenImage", "QwenImage21",
        "ModelRegistry",
      ])
  }
}

let package = Package(
  name: "qwen-image-cluster",
  platforms: [.macOS(.v15)],
  products: [
    .executable(name: "gateway", targets: ["GatewayMain"]),
    .executable(name: "text-encoder", targets: ["TextEncoder"]),
    .executable(name: "denoiser", targets: ["Denoiser"]),
    .executable(name: "vae-decoder", targets: ["VAEDecoder"]),
    .executable(name: "vae-encoder", targets: ["VAEEncoder"]),
    .executable(name: "qwen-image", targets: ["QwenImageCLI"]),
    .kernels, .qwenImage, .wire,
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", exact: "1.8.2"),
    .package(url: "https://github.com/apple/swift-async-algorithms", exact: "1.1.4"),
    .package(url: "https://github.com/apple/swift-collections", exact: "1.6.0"),
    .package(url: "https://github.com/apple/swift-configuration", exact: "1.4.0"),
    .package(url: "https://github.com/apple/swift-distributed-tracing", exact: "1.7.3"),
    .package(url: "https://github.com/apple/swift-http-types", exact: "1.8.0"),
    .package(url: "https://github.com/apple/swift-log", exact: "1.16.2"),
    .package(url: "https://github.com/apple/swift-metrics", exact: "2.13.0"),
    .package(url: "https://github.com/apple/swift-nio", exact: "2.101.2"),
    .package(url: "https://github.com/apple/swift-nio-extras", exact: "1.35.2"),
    .package(url: "https://github.com/apple/swift-system", exact: "1.8.1"),
    .package(url: "https://github.com/groue/GRDB.swift", exact: "7.10.0"),
    .package(url: "https://github.com/hummingbird-project/hummingbird", exact: "2.28.1", traits: []),
    .package(url: "https://github.com/swift-server/swift-service-lifecycle", exact: "2.13.0"),
    .package(url: "https://github.com/swiftlang/swift-subprocess", exact: "1.0.2"),
  ],
  targets: [
    system("CCurl", apt: ["libcurl4-openssl-dev"]),
    system("CJPEG", apt: ["libjpeg62-turbo-dev"]),
    system("COpenBLAS", apt: ["libopenblas-dev"]),
    system("COpenSSL", apt: ["libssl-dev"]),
    system("CPNG", apt: ["libpng-dev"]),
    system("CPostgreSQL", apt: ["libpq-dev"]),
    system("CProtobufC", apt: ["libprotobuf-c-dev"]),
    system("CWebP", apt: ["libwebp-dev"]),
    system("CZeroMQ", apt: ["libzmq3-dev"]),
    system("CZlib", apt: ["zlib1g-dev"]),

    // Compute
    .target(name: "CKernels", path: "Shared/CKernels", cSettings: optimisedC),
    .target(
      name: "CImageCodec", dependencies: ["CJPEG", "CPNG", "CWebP"], path: "Shared/CImageCodec", cSettings: optimisedC,
      linkerSettings: ["jpeg", "png", "webp"].map { .linkedLibrary($0) }),
    shared("ClusterCore", [.heap]),
    shared("StrictJSON", [.orderedCollections]),
    shared("Hashing", ["COpenSSL"]),
    shared("TensorCore"),
    shared("Kernels", ["TensorCore", "CKernels", "COpenBLAS"]),
    shared("Weights", ["TensorCore", "Kernels", "StrictJSON", "CZlib"]),
    shared("ImageCodec", ["CImageCodec", "ClusterCore", "Hashing"]),
    shared(
      "Diffusion", ["ClusterCore", "TensorCore", "Kernels", "Weights", "ImageCodec", "Hashing", "StrictJSON"]),
    shared(
      "QwenImage", ["ClusterCore", "Diffusion", "TensorCore", "Kernels", "Weights"]),
    shared(
      "QwenImage21", ["ClusterCore", "Diffusion", "Hashing", "ImageCodec", "TensorCore", "Kernels", "Weights"]),
    shared("ModelRegistry", ["Diffusion", "QwenImage", "QwenImage21"]),

    // Messaging
    .target(
      name: "CWire", dependencies: ["CProtobufC"], path: "Shared/CWire",
      cSettings: [.headerSearchPath("include")], linkerSettings: [.linkedLibrary("protobuf-c")]),
    shared("Wire", ["ClusterCore", "CWire", "CZlib", "TensorCore"]),
    shared("Transport", ["ClusterCore", "Wire", "CZeroMQ", .logging, .metrics]),
    shared("Observability", [.logging, .coreMetrics, .tracing]),
    shared("Settings", [.configuration, .systemPackage]),
    shared("HTTPClient", ["CCurl"]),
    shared(
      "TraceExport",
      ["HTTPClient", "Observability", "Settings", .logging, .metrics, .serviceLifecycle, .tracing]),
    shared("Scheduling", ["ClusterCore", .heap, .orderedCollections]),
    shared("Journal", ["ClusterCore", "CZlib", .grdb]),
    shared("PostgreSQLJournal", ["ClusterCore", "CPostgreSQL", "Journal"]),
    shared("Objects", ["HTTPClient", "Hashing", "ClusterCore", "Journal"]),
    shared("AccessKeys", ["Hashing"]),
    shared("Provenance", ["COpenSSL", "CZlib", "Hashing", "ImageCodec"]),
    shared("MCP", ["StrictJSON"]),
    shared("Templates", ["StrictJSON"]),
    shared(
      "StageRuntime",
      [
        "ClusterCore", "Wire", "Transport", "Observability", .logging, .metrics, .serviceLifecycle, .tracing,
      ]),

    // Services
    .target(name: "GatewayAPI", dependencies: ["ClusterCore", "StrictJSON", .httpTypes], path: "Services/Gateway/API"),
    .target(
      name: "GatewayPipelines",
      dependencies: [
        "ClusterCore", "GatewayAPI", "ImageCodec", "Journal", "Provenance", "Scheduling", "Settings", "StrictJSON",
        "TensorCore", "Wire",
      ],
      path: "Services/Gateway/Pipelines"),
    .target(
      name: "GatewayDispatch",
      dependencies: [
        "ClusterCore", "GatewayAPI", "GatewayPipelines", "HTTPClient", "Hashing", "ImageCodec", "Journal",
        "Observability", "Provenance", "Scheduling", "TensorCore", "Transport", "Wire", .deque, .logging, .metrics,
        .orderedCollections, .serviceLifecycle, .tracing,
      ],
      path: "Services/Gateway/Dispatch"),
    .target(
      name: "Gateway",
      dependencies: [
        "AccessKeys", "ClusterCore", "GatewayAPI", "GatewayDispatch", "GatewayPipelines", "HTTPClient", "Hashing",
        "ImageCodec", "Journal", "Objects", "Observability", "PostgreSQLJournal", "Provenance", "Scheduling",
        "Settings", "StrictJSON", "Templates", "TraceExport", "Transport", "Wire", .asyncAlgorithms, .httpTypes,
        .hummingbird, .hummingbirdCore, .logging, .metrics, .nioCore, .nioHTTP1, .nioHTTPTypes, .nioHTTPTypesHTTP1,
        .serviceLifecycle, .tracing, .unixSignals,
      ],
      path: "Services/Gateway/HTTP",
      resources: (["openapi.yaml"]
        + [
          "index.html", "page.css", "editor.css", "views.css", "page.js", "api.js", "compare.js", "composer.js",
          "dom.js", "errors.js", "extend.js", "form.js", "gallery.js", "grid.js", "gridtable.js", "i18n.js",
          "images.js", "jobs.js", "mask.js", "metadata.js", "models.js", "pair.js", "parameters.js", "picks.js",
          "pipelines.js", "presets.js", "raster.js", "restore.js", "results.js", "sampling.js", "settings.js",
          "shortcuts.js",
          "store.js", "strings.js", "thumbnails.js", "viewer.js", "views.js", "workers.js",
        ].map { "Page/\($0)" }).map { .embedInCode($0) }),
    .target(
      name: "StageSupport",
      dependencies: [
        "ClusterCore", "Diffusion", "ImageCodec", "Kernels", "ModelRegistry", "Observability", "Settings",
        "StageRuntime",
        "TensorCore", "TraceExport", "Transport",
        "Wire", .hummingbird,
        .hummingbirdCore,
        .logging, .metrics, .nioCore, .serviceLifecycle,
      ],
      path: "Services/StageSupport"),
    service("GatewayMain", ["Gateway", "Journal", "Observability", "Settings", .logging, .metrics]),
    service(
      "TextEncoder", ["ClusterCore", "Diffusion", "Kernels", "StageRuntime", "StageSupport", "TensorCore", "Wire"]),
    service(
      "Denoiser",
      [
        "ClusterCore", "Diffusion", "ImageCodec", "Kernels", "StageRuntime", "StageSupport", "TensorCore", "Wire",
        .metrics,
      ]),
    service(
      "VAEEncoder",
      ["ClusterCore", "Diffusion", "Kernels", "StageRuntime", "StageSupport", "TensorCore", "Wire"]),
    service(
      "VAEDecoder",
      ["ClusterCore", "Diffusion", "ImageCodec", "Kernels", "StageRuntime", "StageSupport", "TensorCore", "Wire"]),
    service(
      "QwenImageCLI",
      [
        "AccessKeys", "ClusterCore", "Diffusion", "HTTPClient", "Hashing", "ImageCodec", "Journal", "Kernels", "MCP",
        "ModelRegistry", "Objects", "PostgreSQLJournal", "Provenance", "Settings", "StrictJSON", "Templates",
        "TensorCore", "Transport", "Weights",
        .argumentParser, .httpTypes, .hummingbird, .hummingbirdCore, .logging, .nioCore, .serviceLifecycle,
      ]),

    // Tests
    .target(
      name: "FuzzTargets",
      dependencies: [
        "ClusterCore", "GatewayAPI", "GatewayPipelines", "ImageCodec", "Scheduling", "Templates", "TensorCore",
        "Weights", "Wire",
      ],
      path: "Tests/Fuzzing/Targets"),
    .target(
      name: "CKernelModels", path: "Tests/KernelModels",
      cSettings: optimisedC
        + [.headerSearchPath("../../Shared/CKernels"), .headerSearchPath("../../Shared/CKernels/include")]),
    .target(
      name: "Simulation", dependencies: ["ClusterCore", "Scheduling", .heap, .orderedCollections],
      path: "Tests/Simulation/Simulator"),
    .target(
      name: "HTTPTesting",
      dependencies: ["HTTPClient", .httpTypes, .hummingbird, .hummingbirdCore, .logging, .nioCore, .serviceLifecycle],
      path: "Tests/HTTPTesting"),
    .target(name: "TestSupport", dependencies: ["ClusterCore"], path: "Tests/TestSupport"),
    .target(
      name: "GoldenSupport", dependencies: ["CZlib", "ImageCodec", "TensorCore", "Weights"],
      path: "Tests/GoldenSupport"),
    .executableTarget(name: "simulate", dependencies: ["Simulation"], path: "Tests/Simulation/Command"),
    test("AccessKeys", ["AccessKeys"]),
    test("ClusterCore", ["ClusterCore"]),
    test("Fuzzing", ["FuzzTargets", "TestSupport"]),
    test(
      "Gateway",
      [
        "AccessKeys", "ClusterCore", "Gateway", "GatewayAPI", "GatewayDispatch", "GatewayMain", "GatewayPipelines",
        "HTTPClient", "HTTPTesting", "ImageCodec", "Journal",
        "Observability", "Provenance", "Scheduling", "Settings", "StageRuntime", "StrictJSON",
        "TensorCore", "TestSupport", "Transport", "Wire", .hummingbird, .httpTypes, .logging, .nioCore, .nioPosix,
        .serviceLifecycle, .subprocess, .systemPackage,
      ],
      exclude: ["Fixtures"]),
    test("Hashing", ["Hashing", "TestSupport"]),
    test("HTTPClient", ["HTTPClient"]),
    test(
      "ImageCodec", ["ImageCodec", "Hashing", "TensorCore", "Weights", "CZlib"], resources: [.copy("Golden")]),
    test("Journal", ["ClusterCore", "Journal", "Objects", "PostgreSQLJournal", "TestSupport", .grdb]),
    test("Kernels", ["CKernelModels", "Kernels", "TensorCore"]),
    test("MCP", ["MCP", "StrictJSON", "TestSupport"]),
    test("Objects", ["ClusterCore", "HTTPClient", "Hashing", "Journal", "Objects", "TestSupport", .grdb]),
    test("Provenance", ["Hashing", "ImageCodec", "Provenance", .subprocess]),
    test("Observability", ["Observability", .logging, .coreMetrics, .tracing]),
    test("Diffusion", ["ClusterCore", "Diffusion", "Kernels", "TensorCore", "Weights"]),
    test(
      "QwenImage21",
      [
        "ClusterCore", "Diffusion", "GoldenSupport", "ImageCodec", "Kernels", "QwenImage21", "StrictJSON", "TensorCore",
        "Weights",
      ]),
    test(
      "QwenImage",
      [
        "ClusterCore", "Diffusion", "GoldenSupport", "ImageCodec", "Kernels", "ModelRegistry", "QwenImage",
        "StrictJSON", "TensorCore", "Weights",
      ]),
    test("QwenImageCLI", ["Diffusion", "ImageCodec", "Kernels", "QwenImageCLI", .subprocess, .systemPackage]),
    test("Scheduling", ["ClusterCore", "Scheduling", "Simulation"]),
    test("Simulation", ["Simulation"]),
    test(
      "StageRuntime",
      ["ClusterCore", "StageRuntime", "TensorCore", "TestSupport", "Transport", "Wire", .serviceLifecycle]),
    test("StrictJSON", ["StrictJSON", "TestSupport"]),
    test("Templates", ["StrictJSON", "Templates"]),
    test("StageSupport", ["ClusterCore", "StageSupport", "TestSupport"]),
    test("Tidy", ["Settings"]),
    test(
      "TraceExport",
      [
        "HTTPTesting", "Observability", "StrictJSON", "TestSupport", "TraceExport", .hummingbird, .httpTypes, .logging,
        .tracing,
      ]),
    test("Transport", ["ClusterCore", "TensorCore", "TestSupport", "Transport", "Wire", "CZeroMQ", .logging]),
    test("Weights", ["GoldenSupport", "Weights", "Kernels", "TensorCore"]),
    test("Wire", ["ClusterCore", "TensorCore", "Wire"], resources: [.copy("Golden")]),
  ]
)

// The executables without what only the tests need, for compose/build-executables.sh: one plan, no test target.
if Context.environment["QWEN_IMAGE_WITHOUT_TESTS"] != nil {
  package.targets.removeAll { $0.path?.hasPrefix("Tests/") == true }
}

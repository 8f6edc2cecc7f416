// swift-tools-version: 6.1
import PackageDescription

// The rooms of the house, bottom to top. Dependencies point one way (Tests/ArchitectureTests checks it):
//   compute:    C* → TensorCore → Kernels → Weights → QwenImage
//   messaging:  CWire → Wire → Transport → StageRuntime
// The two meet only in Services/.

/// Kernels are unusable at -O0 (about 19 times slower), so C is optimised in debug builds too.
let optimisedC: [CSetting] = [.unsafeFlags(["-O2", "-fno-math-errno", "-ffp-contract=off"])]

func shared(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
  .target(name: name, dependencies: dependencies, path: "Shared/\(name)")
}
func system(_ name: String, apt: [String]) -> Target {
  .systemLibrary(name: name, path: "Shared/\(name)", providers: [.apt(apt)])
}
func service(_ name: String, path: String, _ dependencies: [Target.Dependency]) -> Target {
  .executableTarget(name: name, dependencies: dependencies, path: "Services/\(path)")
}
func test(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
  .testTarget(name: "\(name)Tests", dependencies: dependencies, path: "Tests/\(name)Tests")
}

let package = Package(
  name: "qwen-image-cluster",
  platforms: [.macOS(.v15)],
  products: [
    .executable(name: "gateway", targets: ["GatewayMain"])
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-collections", from: "1.6.0"),
    .package(url: "https://github.com/apple/swift-configuration", from: "1.4.0", traits: ["JSON", "CommandLineArguments"]),
    .package(url: "https://github.com/apple/swift-http-types", from: "1.8.0"),
    .package(url: "https://github.com/apple/swift-log", from: "1.16.0"),
    .package(url: "https://github.com/apple/swift-metrics", from: "2.13.0"),
    .package(url: "https://github.com/apple/swift-nio", from: "2.101.0"),
    .package(url: "https://github.com/apple/swift-nio-extras", from: "1.35.2"),
    .package(url: "https://github.com/apple/swift-system", from: "1.8.1"),
    .package(url: "https://github.com/hummingbird-project/hummingbird", from: "2.28.1"),
    .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
    .package(url: "https://github.com/swiftlang/swift-subprocess", from: "1.0.2"),
  ],
  targets: [
    system("CZeroMQ", apt: ["libzmq3-dev"]),
    system("CProtobufC", apt: ["libprotobuf-c-dev"]),
    system("COpenBLAS", apt: ["libopenblas-dev"]),
    system("CPNG", apt: ["libpng-dev"]),
    system("CZlib", apt: ["zlib1g-dev"]),

    .target(name: "CKernels", path: "Shared/CKernels", cSettings: optimisedC),
    shared("TensorCore"),
    shared("Kernels", ["TensorCore", "CKernels", "COpenBLAS"]),
    shared("Weights", ["TensorCore", "Kernels"]),
    shared("QwenImage", ["TensorCore", "Kernels", "Weights"]),
    shared("ImageCodec", ["CPNG"]),

    .target(
      name: "CWire", dependencies: ["CProtobufC"], path: "Shared/CWire",
      cSettings: [.headerSearchPath("include")], linkerSettings: [.linkedLibrary("protobuf-c")]),
    shared("Wire", ["CWire", "CZlib"]),
    shared(
      "Observability",
      [.product(name: "Logging", package: "swift-log"), .product(name: "CoreMetrics", package: "swift-metrics")]),
    shared(
      "Transport",
      ["Wire", "CZeroMQ", .product(name: "Logging", package: "swift-log"), .product(name: "Metrics", package: "swift-metrics")]),

    .testTarget(name: "WireTests", dependencies: ["Wire"], path: "Tests/WireTests", resources: [.copy("Golden")]),
    shared(
      "StageRuntime",
      [
        "Wire", "Transport", "Observability", .product(name: "Logging", package: "swift-log"),
        .product(name: "Metrics", package: "swift-metrics"), .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
      ]),

    test(
      "Observability",
      ["Observability", .product(name: "Logging", package: "swift-log"), .product(name: "CoreMetrics", package: "swift-metrics")]),
    test("StageRuntime", ["StageRuntime", .product(name: "ServiceLifecycle", package: "swift-service-lifecycle")]),
    test("Transport", ["Transport", "CZeroMQ"]),
    test("Kernels", ["Kernels"]),
    test("Weights", ["Weights"]),
    test("QwenImage", ["QwenImage"]),

    shared("Scheduling", [.product(name: "OrderedCollections", package: "swift-collections")]),

    .target(
      name: "Gateway",
      dependencies: [
        "Observability", "Scheduling", "Wire", "Transport",
        .product(name: "Configuration", package: "swift-configuration"),
        .product(name: "Hummingbird", package: "hummingbird"),
        .product(name: "HummingbirdCore", package: "hummingbird"),
        .product(name: "HTTPTypes", package: "swift-http-types"),
        .product(name: "NIOCore", package: "swift-nio"),
        .product(name: "NIOHTTP1", package: "swift-nio"),
        .product(name: "NIOHTTPTypes", package: "swift-nio-extras"),
        .product(name: "NIOPosix", package: "swift-nio"),
        .product(name: "Logging", package: "swift-log"),
        .product(name: "Metrics", package: "swift-metrics"),
        .product(name: "OrderedCollections", package: "swift-collections"),
        .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      path: "Services/Gateway",
      resources: [.embedInCode("openapi.yaml")]
    ),

    .executableTarget(
      name: "GatewayMain",
      dependencies: [
        "Gateway", "Observability", .product(name: "Logging", package: "swift-log"),
        .product(name: "Metrics", package: "swift-metrics"),
      ],
      path: "Services/GatewayMain"),

    test("Scheduling", ["Scheduling", .product(name: "HeapModule", package: "swift-collections")]),
    test(
      "Gateway",
      [
        "Gateway", "GatewayMain", "Observability", "Scheduling", "StageRuntime", "Wire", "Transport",
        .product(name: "Logging", package: "swift-log"), .product(name: "HummingbirdTesting", package: "hummingbird"),
        .product(name: "HTTPTypes", package: "swift-http-types"),
        .product(name: "Subprocess", package: "swift-subprocess"), .product(name: "SystemPackage", package: "swift-system"),
        .product(name: "NIOPosix", package: "swift-nio"),
      ]),
  ]
)

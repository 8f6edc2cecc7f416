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
    .library(name: "Kernels", targets: ["TensorCore", "Kernels"])  // for Tests/Benchmarks
  ],
  dependencies: [],
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

    test("Kernels", ["Kernels"]),
    test("Weights", ["Weights"]),
    test("QwenImage", ["QwenImage"]),
  ]
)

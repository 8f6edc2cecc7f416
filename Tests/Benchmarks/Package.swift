// swift-tools-version: 6.1
import PackageDescription

// Timings, apart from the tests: they decide nothing, they inform. Run with ./run.sh (kernels) or ../bench.sh (against
// the reference).
let package = Package(
  name: "benchmarks",
  platforms: [.macOS(.v15)],
  dependencies: [.package(name: "qwen-image-cluster", path: "../..")],
  targets: [
    .target(name: "CCeilings", cSettings: [.unsafeFlags(["-O2"])]),
    .target(name: "Measuring", dependencies: ["CCeilings", .product(name: "Kernels", package: "qwen-image-cluster")]),
    .executableTarget(
      name: "KernelBenchmark", dependencies: ["Measuring", .product(name: "Kernels", package: "qwen-image-cluster")]),
    .executableTarget(
      name: "ModelBenchmark", dependencies: ["Measuring", .product(name: "QwenImage", package: "qwen-image-cluster")]),
    .target(name: "CLoad", linkerSettings: [.linkedLibrary("zmq")]),
    // Reads /proc and waits with epoll: on Linux alone.
    .executableTarget(
      name: "CapacityBenchmark", dependencies: ["CLoad", .product(name: "Wire", package: "qwen-image-cluster")]),
  ]
)

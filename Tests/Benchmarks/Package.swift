// swift-tools-version: 6.1
import PackageDescription

// Timings, apart from the tests: they decide nothing, they inform. Run with ./run.sh.
let package = Package(
  name: "benchmarks",
  platforms: [.macOS(.v15)],
  dependencies: [.package(name: "qwen-image-cluster", path: "../..")],
  targets: [
    .target(name: "CCeilings", cSettings: [.unsafeFlags(["-O2"])]),
    .executableTarget(name: "KernelBenchmark", dependencies: ["CCeilings", .product(name: "Kernels", package: "qwen-image-cluster")]),
  ]
)

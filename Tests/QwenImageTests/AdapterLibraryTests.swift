import ClusterCore
import Diffusion
import Foundation
import GoldenSupport
import Kernels
import ModelRegistry
import QwenImage
import TensorCore
import Testing
import Weights

/// A wall clock that stands.
private struct FixedTime: TimeSource {
  var unixMs: Int64
  var elapsed: Duration { .zero }
  func sleep(for duration: Duration) async throws { try await Task.sleep(for: .seconds(3600)) }

  /// When every file is old.
  static let later = FixedTime(unixMs: 32_503_680_000_000)
}

/// A directory of adapters for a worker, and what is kept of them.
@Suite struct AdapterLibraryTests {
  private static let network: MMDiT? = try? { () throws -> MMDiT in
    let model = try ModelDirectory(Golden.tinyCheckpoint)
    return try MMDiT(
      model.weights(of: .transformer), configuration: model.qwenImage.transformer,
      compute: Compute(precision: .fp32, pool: ThreadPool(threads: 1)))
  }()

  private let notes = Reports()

  private func library(_ url: URL, time: FixedTime = .later) throws -> AdapterLibrary {
    let network = try #require(Self.network), notes = notes
    return try AdapterLibrary(url, isWatched: false, time: time, check: network.adapterCheck) { notes.add($0) }
  }

  /// Puts a recorded adapter into the directory, in the place of what is there.
  private func add(_ recorded: String, to directory: URL, as name: String) throws {
    let part = directory.appending(path: ".part"), place = directory.appending(path: name)
    try FileManager.default.copyItem(at: AdapterFiles.folder.appending(path: recorded), to: part)
    guard rename(part.path, place.path) == 0 else { throw CocoaError(.fileWriteUnknown) }
  }

  private static func digest(_ recorded: String) throws -> String { try AdapterFiles.adapter(recorded).digest }

  private func names(_ library: AdapterLibrary) -> [String] { library.served.adapters.map(\.name) }

  @Test func filesComeChangeAndGo() throws {
    let directory = try TemporaryDirectory()
    try add("style.safetensors", to: directory.url, as: "style.safetensors")
    try add("loha", to: directory.url, as: "loha")
    try FileManager.default.createSymbolicLink(
      at: directory.url.appending(path: "link.safetensors"),
      withDestinationURL: AdapterFiles.folder.appending(path: "kohya.safetensors"))
    _ = try directory.write("a text", as: "notes.txt")
    _ = try directory.write("{}", as: "empty/adapter_config.json")
    let library = try library(directory.url)
    #expect(names(library) == ["link", "loha", "style"] && notes.all.isEmpty, "\(notes.all)")
    #expect(
      try library.served.adapters.map(\.digest)
        == ["kohya.safetensors", "loha", "style.safetensors"].map { try Self.digest($0) })
    let revision = library.served.revision
    library.rescan()
    #expect(library.served.revision == revision)
    // Of an unknown name the directory is looked at at once.
    try add("comfy.safetensors", to: directory.url, as: "late.safetensors")
    let digest = try Self.digest("comfy.safetensors")
    #expect(try library.adapter(named: "late", digest: digest).digest == digest)
    #expect(names(library) == ["late", "link", "loha", "style"] && library.served.revision > revision)
    try add("comfy.safetensors", to: directory.url, as: "style.safetensors")
    library.rescan()
    #expect(library.served.adapters.last?.digest == digest)
    // What was asked for before is not here any more, by whatever name.
    let old = try Self.digest("style.safetensors")
    #expect(throws: Status.self) { try library.adapter(named: "style", digest: old) }
    do throws(Status) { _ = try library.adapter(named: "style", digest: old) } catch {
      #expect(error.code == .aborted && error.code.allowsAnotherAttempt && error.message.contains("\"style\""))
    }
    try FileManager.default.removeItem(at: directory.url.appending(path: "style.safetensors"))
    library.rescan()
    #expect(names(library) == ["late", "link", "loha"])
  }

  @Test func whatCannotBeUsedIsLeftOutAndNotedOnce() throws {
    let directory = try TemporaryDirectory()
    for name in ["style.safetensors", "a b.safetensors", ".hidden.safetensors"] {
      try add("style.safetensors", to: directory.url, as: name)
    }
    // Of another family: names that this network has too, in other shapes.
    try add("style21.safetensors", to: directory.url, as: "style21.safetensors")
    _ = try directory.write("not a header", as: "broken.safetensors")
    _ = try directory.write("x", as: "nested/deep/adapter_model.safetensors")
    try add("loha", to: directory.url, as: "style")
    let library = try library(directory.url)
    #expect(names(library) == ["style"])
    library.rescan()
    let all = notes.all.sorted()
    #expect(all.count == 4, "\(all)")
    for part in ["a b.safetensors is left out", "another adapter called style", "broken cannot be used", "style21"] {
      #expect(all.contains { $0.contains(part) }, "\(part) is missing in \(all)")
    }
    #expect(throws: WeightsError.self) { try self.library(directory.url.appending(path: "nothing")) }
  }

  @Test func aFileThatIsBeingWrittenIsLookedAtAgain() throws {
    let directory = try TemporaryDirectory(), file = directory.url.appending(path: "a.safetensors")
    let whole = try Data(contentsOf: AdapterFiles.folder.appending(path: "style.safetensors"))
    try whole.prefix(1000).write(to: file)
    let writtenAt = try #require(file.resourceValues(forKeys: [.contentModificationDateKey]).contentModificationDate)
    let library = try library(directory.url, time: FixedTime(unixMs: Int64(writtenAt.timeIntervalSince1970 * 1000)))
    #expect(names(library).isEmpty && notes.all.isEmpty)
    try whole.write(to: file)
    library.rescan()
    #expect(names(library) == ["a"] && notes.all.isEmpty)
  }

  @Test func networksAreKeptWithinABound() throws {
    let network = try #require(Self.network), directory = try TemporaryDirectory()
    var adapters: [ChosenAdapter] = []
    for name in ["style", "kohya", "comfy"] {
      try add("\(name).safetensors", to: directory.url, as: "\(name).safetensors")
      adapters.append(ChosenAdapter(name: name, digest: try Self.digest("\(name).safetensors"), scale: 1))
    }
    let library = try library(directory.url)
    func bytes(_ adapter: ChosenAdapter) throws -> Int {
      try network.adapted(by: AdapterFiles.set(AdapterFiles.adapter("\(adapter.name).safetensors"))).adapterBytes
    }
    let sizes = try adapters.map { try bytes($0) }
    #expect(sizes.allSatisfy { $0 > 0 } && network.adapterBytes == 0)
    func loaded() -> [String] { library.served.adapters.filter(\.isLoaded).map(\.name) }
    let networks = AdaptedNetworks(network, library: library, byteCountMax: sizes[0] + sizes[1])
    #expect(try networks.network(with: []).key.isEmpty && loaded().isEmpty)
    let first = try networks.network(with: [adapters[0]])
    #expect(loaded() == ["style"] && networks.byteCount == sizes[0])
    _ = try networks.network(with: [adapters[1]])
    #expect(loaded() == ["kohya", "style"] && networks.byteCount == sizes[0] + sizes[1])
    // Another scale is another network of the same adapter, and takes the place of what was used longest ago.
    var half = adapters[0]
    half.scale = 0.5
    let second = try networks.network(with: [half])
    #expect(second.key != first.key && loaded().contains("style") && networks.byteCount <= sizes[0] + sizes[1])
    // Too large to be kept, and used all the same; the result is what the set gives by itself.
    let tight = AdaptedNetworks(network, library: library, byteCountMax: sizes[2] - 1)
    let made = try tight.network(with: [adapters[2]]).predictor
    #expect(tight.byteCount == 0 && loaded().isEmpty)
    let model = try ModelDirectory(Golden.tinyCheckpoint)
    let set = try AdapterFiles.set(AdapterFiles.adapter("comfy.safetensors"))
    #expect(
      try AdaptedLoop(made, of: model).latents() == AdaptedLoop(network, of: model).adapted(by: set).latents())
  }

  @Test func whatFitsNowhereIsFinalAndWhatIsGoneIsNot() throws {
    let network = try #require(Self.network), directory = try TemporaryDirectory()
    // Infinite numbers are found when they are read.
    let down = Tensor(Array(repeating: Float.infinity, count: 96), shape: [2, 48])
    let adapter = try AdapterFiles.adapter(
      [
        "transformer_blocks.0.attn.to_q.lora_A.weight": down,
        "transformer_blocks.0.attn.to_q.lora_B.weight": AdapterFiles.random([48, 2], seed: 2),
      ], in: directory.url)
    let networks = AdaptedNetworks(network, library: try library(directory.url), byteCountMax: 1 << 20)
    func failure(_ digest: String, _ networks: AdaptedNetworks<MMDiT>) -> Status? {
      do throws(Status) {
        _ = try networks.network(with: [ChosenAdapter(name: "a", digest: digest, scale: 1)])
        return nil
      } catch { return error }
    }
    let final = failure(adapter.digest, networks)
    #expect(final?.code == .invalidArgument && final?.field == "loras", "\(String(describing: final))")
    #expect(final?.message.contains(directory.url.path) == false && final?.message.contains("a.safetensors") == true)
    #expect(failure(String(repeating: "0", count: 64), networks)?.code == .aborted)
    #expect(failure(adapter.digest, AdaptedNetworks(network, library: nil, byteCountMax: 0))?.code == .aborted)
  }
}

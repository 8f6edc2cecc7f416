import ClusterCore
import Diffusion
import Foundation
import ImageCodec
import Kernels
import ModelRegistry
import Testing
import Weights

private let pool = ThreadPool(threads: 1)

/// Draws a small image in fp32, after everything that `qwen-image local` and the stages check.
private func draw(_ url: URL) throws -> RasterImage {
  let pipeline = try LocalModel(ModelDirectory(url), loading: WeightLoading(precision: .fp32), pool: pool)
  return try pipeline(
    ImageRequest(
      prompt: "star", negativePrompt: " ", trueCFGScale: 4, steps: 1, size: ImageSize(widthPx: 64, heightPx: 64),
      seed: 1))
}

private let sound = Result { try draw(Golden.tinyCheckpoint) }

/// Checkpoints as they come from other programs, versions, downloads and hands: they load as in diffusers and
/// transformers, or the error says what they are.
@Suite struct OddCheckpointTests {
  @Test(arguments: OddCheckpoint.all) func loadsOrSaysWhatItIs(_ odd: OddCheckpoint) throws {
    let copy = try CheckpointCopy()
    try odd.change(copy)
    switch odd.outcome {
    case .loads: #expect(try draw(copy.url) == sound.get())
    case .refused(let words):
      let error = #expect(throws: (any Error).self) { try draw(copy.url) }
      let message = error.map { "\($0)" } ?? ""
      for word in words { #expect(message.contains(word), "\(message)") }
      #expect(message.contains(copy.url.path) && !message.contains("\n") && message.count < 600, "\(message)")
      for trace in ["Error(", "Error.", "Optional(", "file://", "string(\""] {
        #expect(!message.contains(trace), "\(message)")
      }
    }
  }

  /// Element types make no difference: the values do. Half precision rounds the tiny checkpoint's bf16, so that two
  /// checkpoints with the rounded values are compared.
  @Test func elementTypesMayBeMixed() throws {
    let components = [ModelComponent.transformer, .textEncoder, .vae]
    let rounded = ["F32", "BF16", "F16"]
    let mixed = try CheckpointCopy(), plain = try CheckpointCopy(), half = try CheckpointCopy()
    for component in components {
      try mixed.merge(component) { file in
        for index in file.tensors.indices {
          file.tensors[index].tensor = file.tensors[index].tensor.converted(to: rounded[index % 3])
        }
      }
      try plain.merge(component) { file in
        for index in file.tensors.indices {
          file.tensors[index].tensor = file.tensors[index].tensor.converted(to: rounded[index % 3]).converted(to: "F32")
        }
      }
      try half.merge(component) { file in
        for index in file.tensors.indices {
          file.tensors[index].tensor = file.tensors[index].tensor.converted(to: "F16")
        }
      }
    }
    let image = try draw(mixed.url)
    #expect(try draw(plain.url) == image)
    #expect(try image != sound.get())
    let widened = try CheckpointCopy(of: half.url)
    for component in components {
      try widened.merge(component) { file in
        for index in file.tensors.indices {
          file.tensors[index].tensor = file.tensors[index].tensor.converted(to: "F32")
        }
      }
    }
    #expect(try draw(widened.url) == draw(half.url))
  }
}

/// Paths that do not lead to a checkpoint.
@Suite struct ModelLocationTests {
  private func message(_ url: URL) throws -> String {
    try #require(#expect(throws: ConfigurationError.self) { try ModelDirectory(url) }).description
  }

  @Test func namesTheSnapshotOfACache() throws {
    let directory = try TemporaryDirectory(), cache = directory.url.appending(path: "models--Qwen--Qwen-Image")
    let snapshots = cache.appending(path: "snapshots")
    try FileManager.default.createDirectory(at: snapshots, withIntermediateDirectories: true)
    for name in ["1111", "2222"] {
      try FileManager.default.copyItem(at: Golden.tinyCheckpoint, to: snapshots.appending(path: name))
    }
    _ = try directory.write("", as: "models--Qwen--Qwen-Image/snapshots/0000/README.md")
    #expect(
      try message(cache).hasSuffix("a repository in a Hugging Face cache; name its snapshot \(snapshots.path)/1111"))
    _ = try directory.write("", as: "models--a/snapshots/0000/README.md")
    #expect(try message(directory.url.appending(path: "models--a")).hasSuffix("is complete, run `hf download` again"))
    _ = try directory.write("2222\n", as: "models--Qwen--Qwen-Image/refs/main")
    #expect(try message(cache).hasSuffix("name its snapshot \(snapshots.path)/2222"))
    #expect(
      try message(directory.url).hasSuffix(
        "it is a Hugging Face cache; name the snapshot of a model, such as \(snapshots.path)/2222"))
    #expect(try message(snapshots).hasSuffix("its subdirectory \(snapshots.path)/1111 has one, name that"))
    #expect(
      try message(snapshots.appending(path: "1111/vae")).hasSuffix(
        "one component of the checkpoint \(snapshots.path)/1111; name that"))
    #expect(
      try message(snapshots.appending(path: "1111/model_index.json")).hasSuffix("it is a file; name its directory"))
  }

  @Test func saysWhatIsThereInstead() throws {
    let directory = try TemporaryDirectory()
    #expect(
      try message(directory.url.appending(path: "absent")).hasSuffix("absent is not a checkpoint: it does not exist"))
    #expect(try message(URL(filePath: "Qwen/Qwen-Image")).contains("`hf download Qwen/Qwen-Image --local-dir"))
    #expect(
      try message(directory.url).contains(
        "it has no model_index.json, it is empty; a checkpoint in the diffusers layout"))
    _ = try directory.write("x", as: "qwen_image_bf16.safetensors")
    #expect(
      try message(directory.url).contains(
        "it has no model_index.json, but qwen_image_bf16.safetensors; a checkpoint in"))
    #expect(
      try message(directory.url.appending(path: "qwen_image_bf16.safetensors")).contains(
        "a single safetensors file, not a directory"))
    #expect(try message(try directory.write("GGUF\u{3}", as: "a.gguf")).contains("it is a GGUF file"))
    _ = try directory.write("{}", as: "modular_model_index.json")
    #expect(try message(directory.url).contains("it is a modular pipeline"))
    let link = directory.url.appending(path: "link")
    try FileManager.default.createSymbolicLink(atPath: link.path, withDestinationPath: "gone")
    #expect(
      try message(link).hasSuffix("link is not a checkpoint: it is a symbolic link to gone, which does not exist"))
  }
}
